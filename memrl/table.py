"""`EpisodeTable`: a workload as arrays, built once; the only data input of the environments.

Everything an environment can ask for stands here: events, page tokens, surface features, needs, and
the scores of every search (query x page and page x page, dense and lexical), quantised once to
int16 so that both environments rank alike. Nothing is embedded or scored in `step`. Text and source
ids are kept beside the arrays, for rendering and reports only.

Axes: D documents, P pages and Q queries over all documents, E episodes, T events of the longest
episode, R needs of the neediest query, R2 pages of the longest route. Pages of a document are
stored one after the other, so page i of document d is row `page_offset[d] + i`; the score of a
focus against it is `dense[score_base + i]` with `score_base` from `focus_score_base`. Documents
that ask about the same pages (a corpus) share their rows and the page x page scores. The pages of a
page cache have no text and no scores: all their foci share one row of zeros.
"""

from __future__ import annotations

import dataclasses
import json
from collections.abc import Sequence
from dataclasses import dataclass
from enum import IntEnum
from functools import cached_property
from pathlib import Path
from typing import Any

import numpy as np
import numpy.typing as npt

from memrl.table_file import TableError, content_hash, read_table_file, write_table_file

TABLE_VERSION = 4

SURFACE = (
    "role",
    "kind",
    "length",
    "digits",
    "capitals",
    "question_marks",
    "similarity_to_previous",
)
"""Columns of `page_surface`: static features of a page's text, each scaled to about [0, 1]."""

QUERY_SURFACE = ("length", "digits", "capitals", "question_marks")
"""Columns of `query_surface`; the same scaling as the columns of that name in `SURFACE`."""


# Names of the arrays with an axis of documents, queries and episodes.
_DOCUMENT_ARRAYS = (
    *("page_offset", "page_count", "page_score_base", "query_score_base"),
    "score_stride",
)
_QUERY_ARRAYS = (
    *("query_embedding", "query_surface", "query_names", "query_needs", "query_route"),
    *("query_pays", "query_category"),
)
_EPISODE_ARRAYS = (
    *("episode_document", "episode_first_page", "episode_num_pages", "episode_num_events"),
    *("episode_num_preloaded", "event_kind", "event_index"),
)


class Event(IntEnum):
    """What happens next in an episode."""

    MESSAGE = 0  # a page arrives; `event_index` is its index in the window
    QUERY = 1  # something is asked; `event_index` is the query's index in the document
    REQUEST = 2  # a page is needed now; `event_index` is its index in the window


@dataclass(frozen=True)
class TableText:
    """What the arrays cannot hold; never part of an observation.

    Attributes:
        pages: rendered text of every page, in the order of the page axis.
        queries: text of every query.
        answers: gold answers of every query.
        document_ids, page_ids, query_ids: identifiers in the source.
        clusters: unit of statistics that each document belongs to.
        categories: names that `query_category` indexes.
        request_kinds: kind of requests of each document, "" where it has none.
    """

    pages: list[str]
    queries: list[str]
    answers: list[list[str]]
    document_ids: list[str]
    clusters: list[str]
    page_ids: list[str]
    query_ids: list[str]
    categories: list[str]
    request_kinds: list[str]


@dataclass(frozen=True, eq=False)
class EpisodeTable:
    """A tensorised workload; see the module docstring for the axes.

    Attributes:
        page_offset: (D,) int64, first row of each document on the page axis.
        page_count: (D,) int64, pages of each document.
        query_offset: (D+1,) int64, first row of each document on the query axis, and Q.
        page_score_base: (D,) int64, where a document's page x page block begins in `dense`.
        query_score_base: (D,) int64, where its query x page block begins.
        score_stride: (D,) int64, scores of one focus: its number of pages, or 0 without scores.
        page_tokens: (P,) int32, tokens of each page.
        page_surface: (P, len(SURFACE)) float32.
        page_speaker: (P,) int64, index of the speaker within the document, -1 for none.
        page_names: (P,) int64, bit i set when the page names speaker i of its document.
        page_prior: (P,) float32, score of the fitted page scorer; 0 where none was fitted.
        page_embedding: (P, dim) float16; query_embedding: (Q, dim) float16.
        query_surface: (Q, len(QUERY_SURFACE)) float32.
        query_names: (Q,) int64, like `page_names`.
        query_needs: (Q, R) int32, page indices within the document, -1 padded.
        query_route: (Q, R2) int32, pages that lead to the needs, in order, -1 padded.
        query_pays: (Q,) bool, whether evidence is defined and paid for the query.
        query_category: (Q,) int64, index into `text.categories`.
        dense, lexical: (S,) int16, scores x 32767 of every focus against every page of its
            document.
        episode_document, episode_first_page, episode_num_pages, episode_num_events: (E,) int64.
        episode_num_preloaded: (E,) int64, the first pages of the window, which archival holds from
            the start.
        event_kind: (E, T) int16, see `Event`. event_index: (E, T) int32. Rows are 0-padded.
        text: what is not an array.
        meta: JSON-able provenance: version, workload, embedder, lexical statistics.
    """

    page_offset: npt.NDArray[np.int64]
    page_count: npt.NDArray[np.int64]
    query_offset: npt.NDArray[np.int64]
    page_score_base: npt.NDArray[np.int64]
    query_score_base: npt.NDArray[np.int64]
    score_stride: npt.NDArray[np.int64]
    page_tokens: npt.NDArray[np.int32]
    page_surface: npt.NDArray[np.float32]
    page_speaker: npt.NDArray[np.int64]
    page_names: npt.NDArray[np.int64]
    page_prior: npt.NDArray[np.float32]
    page_embedding: npt.NDArray[np.float16]
    query_embedding: npt.NDArray[np.float16]
    query_surface: npt.NDArray[np.float32]
    query_names: npt.NDArray[np.int64]
    query_needs: npt.NDArray[np.int32]
    query_route: npt.NDArray[np.int32]
    query_pays: npt.NDArray[np.bool_]
    query_category: npt.NDArray[np.int64]
    dense: npt.NDArray[np.int16]
    lexical: npt.NDArray[np.int16]
    episode_document: npt.NDArray[np.int64]
    episode_first_page: npt.NDArray[np.int64]
    episode_num_pages: npt.NDArray[np.int64]
    episode_num_events: npt.NDArray[np.int64]
    episode_num_preloaded: npt.NDArray[np.int64]
    event_kind: npt.NDArray[np.int16]
    event_index: npt.NDArray[np.int32]
    text: TableText
    meta: dict[str, Any]

    # ------------------------------------------------------------------ sizes

    @property
    def num_documents(self) -> int:
        """D."""
        return len(self.page_offset)

    @property
    def shares_pages(self) -> bool:
        """Whether several documents ask about the same pages."""
        return len(np.unique(self.page_offset)) < self.num_documents

    @property
    def num_episodes(self) -> int:
        """E."""
        return len(self.episode_document)

    @property
    def max_pages(self) -> int:
        """W: pages of the longest episode."""
        return int(self.episode_num_pages.max(initial=0))

    @cached_property
    def has_requests(self) -> bool:
        """Whether an episode requests pages, as a page cache does."""
        return bool((self.event_kind == Event.REQUEST).any())

    def check_episode(self, episode: int) -> None:
        """Refuse a number that no episode has.

        Raises:
            ValueError: if it is outside 0..E-1.
        """
        if not 0 <= episode < self.num_episodes:
            raise ValueError(
                f"Episode {episode} is outside 0..{self.num_episodes - 1} of the table."
            )

    def episode_pages(self, episode: int) -> slice:
        """Rows of an episode's window on the page axis."""
        first = self.page_offset[self.episode_document[episode]] + self.episode_first_page[episode]
        return slice(int(first), int(first + self.episode_num_pages[episode]))

    def needs_in_window(self, episode: int, query: int) -> tuple[int, ...]:
        """Pages that a query of the episode's document needs, as indices in the window."""
        return self._in_window(self.query_needs, episode, query)

    def route_in_window(self, episode: int, query: int) -> tuple[int, ...]:
        """Pages that lead to what a query needs, in order, as indices in the window."""
        return self._in_window(self.query_route, episode, query)

    def _in_window(self, pages: npt.NDArray[np.int32], episode: int, query: int) -> tuple[int, ...]:
        row = pages[self.query_offset[self.episode_document[episode]] + query]
        first = int(self.episode_first_page[episode])
        return tuple(int(page) - first for page in row if page >= 0)

    def medians(self) -> dict[str, float]:
        """Medians over this table's episodes that `PagingOptions.resolved` takes fractions of."""
        windows = [self.episode_pages(episode) for episode in range(self.num_episodes)]
        tokens = [int(self.page_tokens[window].sum()) for window in windows]
        return {
            "median_episode_pages": float(np.median(self.episode_num_pages)),
            "median_episode_tokens": float(np.median(tokens)),
            "median_page_tokens": float(np.median(self.page_tokens)),
        }

    # ------------------------------------------------------------------ derived tables

    def with_prior(self, prior: npt.NDArray[np.float32]) -> EpisodeTable:
        """Return the table with `page_prior` replaced; (P,) float32."""
        if prior.shape != self.page_prior.shape:
            raise ValueError(f"prior has shape {prior.shape}, expected {self.page_prior.shape}.")
        return dataclasses.replace(self, page_prior=prior.astype(np.float32))

    def of_documents(self, documents: Sequence[int]) -> EpisodeTable:
        """Return the table of some documents, in this order, and of their episodes.

        Pages and scores are shared with this table, not copied: all of them remain.
        """
        queries = np.concatenate(
            [np.arange(*self.query_offset[document : document + 2]) for document in documents]
        )
        chosen = np.array(documents, dtype=np.int64)
        place = np.full(self.num_documents, -1)
        place[chosen] = np.arange(len(chosen))
        episodes = np.flatnonzero(place[self.episode_document] >= 0)
        rows_of = {
            **dict.fromkeys(_DOCUMENT_ARRAYS, chosen),
            **dict.fromkeys(_QUERY_ARRAYS, queries),
            **dict.fromkeys(_EPISODE_ARRAYS, episodes),
        }
        changed = {name: getattr(self, name)[rows] for name, rows in rows_of.items()}
        counts = np.diff(self.query_offset)[chosen]
        changed["query_offset"] = np.concatenate([[0], np.cumsum(counts)])
        changed["episode_document"] = place[changed["episode_document"]]
        text = dataclasses.replace(
            self.text,
            queries=[self.text.queries[row] for row in queries],
            answers=[self.text.answers[row] for row in queries],
            query_ids=[self.text.query_ids[row] for row in queries],
            document_ids=[self.text.document_ids[document] for document in documents],
            clusters=[self.text.clusters[document] for document in documents],
            request_kinds=[self.text.request_kinds[document] for document in documents],
        )
        return dataclasses.replace(self, **changed, text=text)

    # ------------------------------------------------------------------ disk

    def arrays(self) -> dict[str, npt.NDArray[Any]]:
        """Every array by its field name."""
        return {
            field.name: getattr(self, field.name)
            for field in dataclasses.fields(self)
            if field.name not in ("text", "meta")
        }

    def content_hash(self) -> str:
        """SHA-256 over all arrays, text and provenance."""
        return content_hash(self.arrays(), self._side_json())

    def _side_json(self) -> str:
        return json.dumps({"text": vars(self.text), "meta": self.meta}, sort_keys=True)

    def save(self, path: str | Path) -> None:
        """Write one safetensors file, atomically, with its content hash inside."""
        write_table_file(Path(path), self.arrays(), self._side_json(), self.meta["version"])

    @classmethod
    def load(cls, path: str | Path) -> EpisodeTable:
        """Map a table into memory and check its content hash; see `read_table_file`.

        Raises:
            TableError: if the file is missing, no table, of another version, or damaged.
        """
        arrays, side_json = read_table_file(Path(path), TABLE_VERSION)
        try:
            side = json.loads(side_json)
            return cls(**arrays, text=TableText(**side["text"]), meta=side["meta"])
        except (KeyError, TypeError, ValueError) as error:
            raise TableError(
                f"The episode table at {path} is of another version: it holds other parts than "
                f"this one ({error}); delete it, it is rebuilt from the data."
            ) from error


def focus_score_base(
    table: EpisodeTable, document: int, *, query: int | None = None, page: int | None = None
) -> int:
    """Where a focus's scores begin in `dense` and `lexical`; add a page's index in the document.

    Args:
        table: the table.
        document: document of the focus.
        query: index of the query in the document, or None.
        page: index of the page in the document, used when `query` is None.
    """
    stride = int(table.score_stride[document])
    if query is not None:
        return int(table.query_score_base[document]) + query * stride
    if page is None:
        raise ValueError("A focus is a query or a page; both are None.")
    return int(table.page_score_base[document]) + page * stride
