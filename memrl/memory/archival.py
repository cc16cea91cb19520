"""Archival: what was stored on purpose, searched by meaning.

Packer et al., arXiv 2310.08560v2, section 2. An *entry* is what one `insert` stores: a page, or a
passage that was written. Long texts are cut into pieces, which are what is embedded and found.

The rows of the database are the one truth, texts and vectors alike. The index in memory follows
them: before each search it takes in what was added and drops what was deleted, by this process or
by another one, so index and text always agree.
"""

from __future__ import annotations

import warnings
from collections.abc import Iterable, Sequence
from datetime import datetime
from itertools import islice
from pathlib import Path

import numpy as np
import numpy.typing as npt

from memrl.errors import MemrlError
from memrl.memory.archival_rows import (
    ARCHIVAL_FORMAT,
    NewEntry,
    delete_entry,
    drop_oldest,
    entry_of,
    hits_of,
    insert_entry,
    num_entries,
    pieces_of_page,
)
from memrl.memory.checked_index import NORM_TOLERANCE
from memrl.memory.chunks import split_text
from memrl.memory.database import Database, Store, StoreError
from memrl.memory.embedders import Embedder
from memrl.memory.index_options import IndexKind, IndexOptions, as_options
from memrl.memory.piece_index import PieceIndex
from memrl.memory.results import DEFAULT_PAGE_SIZE, SearchPage, check_page
from memrl.memory.tokens import TokenCounter, count_tokens

__all__ = ["ArchivalStore", "NewEntry"]

INDEX_SUFFIX = ".index"
DEFAULT_PIECE_TOKENS = 300
"""Size of a piece in MemGPT; all-MiniLM-L6-v2 itself reads only the first 256 tokens of one."""

_ENTRIES_PER_BATCH = 256


class ArchivalStore(Store):
    """Entries with their vectors.

    Args:
        path: file of the store, made when there is none; None keeps it in memory.
        embedder: turns pieces and queries into vectors; always the one that the store began with.
        capacity: most entries; a full archive drops the one that was stored first. None: no limit.
        piece_tokens: longest piece. count_tokens: counts them.
        index: what searches, a kind or all options; exact unless they say otherwise, or "auto" has
            `AUTO_EXACT_BELOW` pieces to search.
        read_only: open an existing file beside its writer, and see what that one changes.

    Raises:
        ValueError: if `capacity` is negative or `piece_tokens` below 1.
        StoreError: if the store's vectors are of another model or dimension; see also
            `memrl.memory.database`.
        VectorIndexError: if the index needs FAISS or a GPU and there is none.
    """

    def __init__(
        self,
        path: str | Path | None,
        embedder: Embedder,
        *,
        capacity: int | None = None,
        piece_tokens: int = DEFAULT_PIECE_TOKENS,
        count_tokens: TokenCounter = count_tokens,
        index: IndexKind | IndexOptions = "auto",
        read_only: bool = False,
    ) -> None:
        if capacity is not None and capacity < 0:
            raise ValueError(f"capacity must be 0 or more, or None for no limit, got {capacity}.")
        if piece_tokens < 1:
            raise ValueError(f"piece_tokens must be at least 1, got {piece_tokens}.")
        self.capacity = capacity
        self._embedder = embedder
        self._piece_tokens = piece_tokens
        self._count_tokens = count_tokens
        self._dimension = embedder.dimension
        database = Database(
            Path(path) if path is not None else None,
            ARCHIVAL_FORMAT,
            meta={"embedder": embedder.name, "dimension": self._dimension},
            read_only=read_only,
        )
        super().__init__(database)
        try:
            self._check_embedder()
            self._index = PieceIndex(
                self._dimension,
                as_options(index),
                database.name,
                Path(f"{path}{INDEX_SUFFIX}") if path is not None else None,
            )
        except BaseException:
            database.close()
            raise

    def __len__(self) -> int:
        with self._database.reading() as connection:
            return num_entries(connection)

    @property
    def ids(self) -> list[int]:
        """Entries, the one stored first (the next to be dropped) first."""
        with self._database.reading() as connection:
            rows = connection.execute("SELECT entry_id FROM entries ORDER BY entry_id").fetchall()
        return [entry_id for (entry_id,) in rows]

    @property
    def page_ids(self) -> list[int]:
        """Archived pages, in the same order; entries that are no pages are left out."""
        with self._database.reading() as connection:
            rows = connection.execute(
                "SELECT page_id FROM entries WHERE page_id IS NOT NULL ORDER BY entry_id"
            ).fetchall()
        return [page_id for (page_id,) in rows]

    def close(self) -> None:
        """See `Closing`; an approximate index of which a tenth is new is saved first."""
        if not self.read_only and not self._database.is_closed and self._index.is_worth_saving:
            try:
                self.save_index()
            except (MemrlError, OSError) as error:
                # The index is only a copy, and can be made again.
                warnings.warn(
                    f"The index of {self._database.name} was not saved ({error}): the next search "
                    "after opening makes it again.",
                    RuntimeWarning,
                    stacklevel=2,
                )
        super().close()

    def save_index(self) -> None:
        """Write the index to `<path>.index`, from which the next opening reads it.

        An exact index is made from the rows as fast, and is never read from a file.

        Raises:
            StoreError: if the store is in memory or cannot be written.
            OSError: if the file cannot be written.
        """
        with self._database.writing() as connection:
            self._index.synchronize(connection)
            self._index.write_file(connection)

    # ------------------------------------------------------------------ writing

    def insert(
        self,
        text: str,
        *,
        page_id: int | None = None,
        role: str = "assistant",
        time: datetime | None = None,
    ) -> int:
        """Store an entry; when this returns, it is stored for good.

        A page that is archived already stays as and where it is.

        Args:
            text, page_id, role, time: see `NewEntry`.

        Returns:
            Its entry id.

        Raises:
            ValueError: if a field is out of range.
            StoreError: if it cannot be written, `capacity` is 0, or the embedder's vectors are
                unfit; the store is as it was.
        """
        return self.extend([NewEntry(text, page_id, role, time)])[0]

    def extend(self, entries: Iterable[NewEntry]) -> list[int]:
        """Store many entries in one transaction, all or none, as `insert` does one by one."""
        if self.capacity == 0:
            raise StoreError(f"{self._database.name} has a capacity of 0: nothing can be stored.")
        entry_ids: list[int] = []
        iterator = iter(entries)
        with self._database.writing() as connection:
            while batch := list(islice(iterator, _ENTRIES_PER_BATCH)):
                pieces = [
                    split_text(entry.text, self._piece_tokens, self._count_tokens)
                    for entry in batch
                ]
                vectors = iter(self.embed([piece for some in pieces for piece in some]))
                for entry, texts in zip(batch, pieces, strict=True):
                    rows = [(piece, next(vectors).tobytes()) for piece in texts]
                    entry_ids.append(insert_entry(connection, entry, rows))
                    if self.capacity is not None:
                        drop_oldest(connection, self.capacity)
        return entry_ids

    def delete(self, entry_id: int) -> None:
        """Delete an entry for good.

        Raises:
            KeyError: if there is none.
            StoreError: if it cannot be written.
        """
        with self._database.writing() as connection:
            delete_entry(connection, entry_id)

    def delete_page(self, page_id: int) -> None:
        """Delete the entry of a page; errors as `delete`."""
        with self._database.writing() as connection:
            entry_id = entry_of(connection, page_id)
            if entry_id is None:
                raise KeyError(page_id)
            delete_entry(connection, entry_id)

    # ------------------------------------------------------------------ reading

    def search(self, query: str, page: int = 0, page_size: int = DEFAULT_PAGE_SIZE) -> SearchPage:
        """Rank all pieces by the cosine of their vectors with the query's, ties by age.

        Scores are compared quantised, as the tables hold them.

        Args:
            query: any text. One that is empty or blank has no hits.
            page: page of the results, from 0; one past the end is empty and has the right total.
            page_size: hits of a full page.

        Returns:
            Hits with the text of a piece, the page and entry that it belongs to, and its cosine;
            `total` counts pieces.

        Raises:
            SearchError: if `page` or `page_size` is out of range.
            StoreError: if the embedder's vector is unfit.
        """
        check_page(page, page_size)
        if not query.strip():
            return SearchPage((), total=0, page=page, page_size=page_size)
        [result] = self.search_many([query], page, page_size)
        return result

    def search_many(
        self, queries: Sequence[str], page: int = 0, page_size: int = DEFAULT_PAGE_SIZE
    ) -> list[SearchPage]:
        """What `search` finds for each of n queries, embedded and searched in one batch."""
        check_page(page, page_size)
        asked = [query for query in queries if query.strip()]
        found = iter(self.search_vectors(self.embed(asked), page, page_size) if asked else ())
        nothing = SearchPage((), total=0, page=page, page_size=page_size)
        return [next(found) if query.strip() else nothing for query in queries]

    def search_vectors(
        self, vectors: npt.NDArray[np.float32], page: int, page_size: int
    ) -> list[SearchPage]:
        """What `search` finds for (n, dimension) unit vectors, those of the queries."""
        check_page(page, page_size)
        with self._database.reading() as connection:
            self._index.synchronize(connection)
            first, total = page * page_size, len(self._index)
            if first >= total:
                return [SearchPage((), total, page, page_size)] * len(vectors)
            found = self._index.nearest(vectors, min(first + page_size, total))
            return [
                SearchPage(
                    hits_of(
                        connection,
                        dict(zip(ids[first:].tolist(), cosines[first:].tolist(), strict=True)),
                    ),
                    total,
                    page,
                    page_size,
                )
                for ids, cosines in found
            ]

    def scores(self, query: str, page_ids: Sequence[int]) -> npt.NDArray[np.float32]:
        """Cosines of some pages with the query, for each the best of its pieces.

        Args:
            query: any text.
            page_ids: n archived pages.

        Returns:
            (n,) float32.

        Raises:
            KeyError: if a page is not archived.
        """
        [vector] = self.embed([query])
        with self._database.reading() as connection:
            self._index.synchronize(connection)
            pieces = [pieces_of_page(connection, page_id) for page_id in page_ids]
            return self._index.best_scores(vector, pieces)

    # ------------------------------------------------------------------ vectors

    def _check_embedder(self) -> None:
        name, dimension = (self._database.meta[key] for key in ("embedder", "dimension"))
        if (name, dimension) != (self._embedder.name, self._dimension):
            raise StoreError(
                f"{self._database.name} holds vectors of {name} ({dimension} dimensions), not of "
                f"{self._embedder.name} ({self._dimension} dimensions): open it with the embedder "
                "that it was made with, or store its texts in a new one."
            )

    @property
    def embedder_name(self) -> str:
        """See `Embedder.name`."""
        return self._embedder.name

    def embed(self, texts: Sequence[str]) -> npt.NDArray[np.float32]:
        """Embed n texts as (n, dimension) rows that are known to be finite unit vectors.

        Raises:
            StoreError: if the embedder's vectors are others.
        """
        # A tokenizer takes no lone surrogates; texts without any pass through unchanged.
        clean = [text.encode("utf-8", "replace").decode("utf-8") for text in texts]
        vectors = np.ascontiguousarray(self._embedder.embed(clean), dtype="<f4")
        if vectors.shape != (len(texts), self._dimension):
            raise StoreError(
                f"{self._database.name} needs vectors of {self._dimension} dimensions, one for "
                f"each of {len(texts)} texts; {self._embedder.name} gave {vectors.shape}."
            )
        # Negated, so that NaN is unfit as well.
        if not (np.abs(np.linalg.norm(vectors, axis=1) - 1.0) <= NORM_TOLERANCE).all():
            raise StoreError(
                f"{self._database.name} needs vectors of length 1, finite; {self._embedder.name} "
                "gave others: normalise them in the embedder."
            )
        return vectors
