"""What the benchmark of retrieval compares: memrl's kinds of index and other libraries'."""

from __future__ import annotations

import importlib.util
import sqlite3
import tempfile
from collections.abc import Callable, Sequence
from functools import partial
from pathlib import Path
from typing import Any, Protocol

import numpy as np
from benchmarks.retrieval_data import Corpus

from memrl.memory.bm25 import analyze
from memrl.memory.checked_index import CheckedIndex
from memrl.memory.index_device import resolve_device
from memrl.memory.index_options import IndexKind, IndexOptions, VectorIndexError

Found = list[list[int]]


class Arm(Protocol):
    """An index over a corpus; its making is timed as its build.

    Attributes:
        name: for tables. is_lexical: whether it searches words instead of vectors.
    """

    name: str
    is_lexical: bool

    def search(self, queries: slice, count: int) -> Found:
        """Rows of the corpus, best first, for some of its queries."""

    def num_bytes(self) -> int | None:
        """Of the index as a file; None where that cannot be told."""


class MemrlArm:
    """One kind of memrl's index."""

    is_lexical = False

    def __init__(self, corpus: Corpus, options: IndexOptions) -> None:
        self.name = options.kind + ("" if options.device == "cpu" else " on GPU")
        self._corpus = corpus
        self._index = CheckedIndex(
            corpus.vectors.shape[1], options, lambda ids: corpus.vectors[ids]
        )
        self._index.add(np.arange(len(corpus.vectors)), corpus.vectors)

    def search(self, queries: slice, count: int) -> Found:
        """See `Arm`."""
        found: Found = self._index.search(self._corpus.queries[queries], count)[0].tolist()
        return found

    def num_bytes(self) -> int:
        """See `Arm`."""
        with tempfile.TemporaryDirectory() as folder:
            path = Path(folder) / "index"
            self._index.save(path)
            return path.stat().st_size


class UsearchArm:
    """HNSW of usearch, with its defaults."""

    name, is_lexical = "usearch", False

    def __init__(self, corpus: Corpus) -> None:
        from usearch.index import Index

        self._corpus = corpus
        self._index: Any = Index(ndim=corpus.vectors.shape[1], metric="ip", dtype="f32")
        self._index.add(np.arange(len(corpus.vectors)), corpus.vectors, threads=1)

    def search(self, queries: slice, count: int) -> Found:
        """See `Arm`."""
        keys = self._index.search(self._corpus.queries[queries], count, threads=1).keys
        return np.atleast_2d(keys).astype(int).tolist()  # type: ignore[no-any-return]

    def num_bytes(self) -> int:
        """See `Arm`."""
        return int(self._index.serialized_length)


class Fts5Arm:
    """SQLite's FTS5 in memory, ranked by its own bm25()."""

    name, is_lexical = "FTS5", True

    def __init__(self, corpus: Corpus) -> None:
        self._queries = [" OR ".join(f'"{term}"' for term in terms(q)) for q in corpus.questions]
        self._connection = sqlite3.connect(":memory:")
        self._connection.execute("CREATE VIRTUAL TABLE texts USING fts5(words, content='')")
        self._connection.executemany(
            "INSERT INTO texts (rowid, words) VALUES (?, ?)",
            ((row, " ".join(terms(text))) for row, text in enumerate(lexical_texts(corpus))),
        )

    def search(self, queries: slice, count: int) -> Found:
        """See `Arm`."""
        sql = "SELECT rowid FROM texts WHERE texts MATCH ? ORDER BY rank LIMIT ?"
        return [
            [row for (row,) in self._connection.execute(sql, (query, count))]
            for query in self._queries[queries]
        ]

    def num_bytes(self) -> int:
        """See `Arm`."""
        pages = self._connection.execute("PRAGMA page_count").fetchone()[0]
        return int(pages * self._connection.execute("PRAGMA page_size").fetchone()[0])


class Bm25sArm:
    """bm25s (Lù 2024), scores of all words at the making."""

    name, is_lexical = "bm25s", True

    def __init__(self, corpus: Corpus) -> None:
        import bm25s

        self._queries = [terms(question) for question in corpus.questions]
        self._index: Any = bm25s.BM25()
        self._index.index([terms(text) for text in lexical_texts(corpus)], show_progress=False)

    def search(self, queries: slice, count: int) -> Found:
        """See `Arm`."""
        found = self._index.retrieve(self._queries[queries], k=count, show_progress=False)
        return found.documents.tolist()  # type: ignore[no-any-return]

    def num_bytes(self) -> int:
        """See `Arm`."""
        return sum(
            value.nbytes for value in self._index.scores.values() if hasattr(value, "nbytes")
        )


class RankBm25Arm:
    """rank-bm25, plain Python."""

    name, is_lexical = "rank-bm25", True

    def __init__(self, corpus: Corpus) -> None:
        from rank_bm25 import BM25Okapi

        self._queries = [terms(question) for question in corpus.questions]
        self._index: Any = BM25Okapi([terms(text) for text in lexical_texts(corpus)])

    def search(self, queries: slice, count: int) -> Found:
        """See `Arm`."""
        scores = (self._index.get_scores(query) for query in self._queries[queries])
        return [np.argsort(-some, kind="stable")[:count].tolist() for some in scores]

    def num_bytes(self) -> None:
        """See `Arm`."""


def terms(text: str) -> Sequence[str]:
    """Words as memrl's own lexical search has them."""
    return analyze(text) or ["nothing"]


def lexical_texts(corpus: Corpus) -> list[str]:
    """The texts of the corpus's vectors, as far as they have texts."""
    return corpus.texts[: len(corpus.vectors)]


def all_arms(
    names: Sequence[str], grow_at: int
) -> tuple[dict[str, Callable[[Corpus], Arm]], list[str]]:
    """Makers of the arms that are asked for, and why others cannot be had here.

    Args:
        names: of the arms; none for all. grow_at: see `IndexOptions`.
    """
    arms: dict[str, Callable[[Corpus], Arm]] = {}
    absent = []
    kinds: tuple[IndexKind, ...] = ("flat", "torch", "hnsw", "ivf", "ivf_pq")
    for kind in kinds:
        arms[kind] = lambda corpus, kind=kind: MemrlArm(
            corpus, IndexOptions(kind=kind, grow_at=grow_at)
        )  # type: ignore[misc]
    for kind in ("flat", "torch", "ivf"):
        options = IndexOptions(kind=kind, device="cuda", grow_at=grow_at)
        try:
            resolve_device(options)
        except VectorIndexError as error:
            absent.append(f"{kind} on GPU: {error}")
            continue
        arms[f"{kind} on GPU"] = partial(MemrlArm, options=options)
    others: dict[str, tuple[str, Callable[[Corpus], Arm]]] = {
        "usearch": ("usearch", UsearchArm),
        "FTS5": ("sqlite3", Fts5Arm),
        "bm25s": ("bm25s", Bm25sArm),
        "rank-bm25": ("rank_bm25", RankBm25Arm),
    }
    for name, (module, make) in others.items():
        if importlib.util.find_spec(module):
            arms[name] = make
        else:
            absent.append(f"{name}: the package is not installed")
    unknown = sorted(set(names) - arms.keys())
    if unknown:
        raise SystemExit(f"No {', '.join(unknown)} here: choose from {', '.join(arms)}.")
    return {name: make for name, make in arms.items() if not names or name in names}, absent
