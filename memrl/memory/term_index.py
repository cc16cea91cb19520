"""Finds the pages of a recall store that hold a query's terms, and scores them by BM25.

FTS5 keeps the postings (which page holds which term, how often); `memrl.memory.bm25` cuts texts
into terms and says what they are worth, so a live search scores exactly as the tensorised tables
do. FTS5's own ranking is not used. For a term that half of 10^5 pages hold, it takes 122 ms to rank
them, because it looks up the length of every match in a tree; reading the postings and adding up
arrays takes 19 ms, and 1 ms once they are cached (least of 15 runs, one core of a busy machine). It
also has another idf, and only the statistics of the moment.

Terms enter FTS5 as they are: its `ascii` tokenizer splits at ASCII punctuation and blanks alone,
and no term holds either.
"""

from __future__ import annotations

import math
import sqlite3
from collections import Counter, OrderedDict
from collections.abc import Iterable, Mapping
from typing import TypeAlias

import numpy as np
import numpy.typing as npt

from memrl.memory.bm25 import Bm25Statistics, analyze, length_norm, query_weights
from memrl.memory.columns import decode_text

TERM_SCHEMA = (
    "CREATE VIRTUAL TABLE terms USING fts5(page_terms, content='', columnsize=0, tokenize='ascii');"
)
"""Needs a table `pages` with positions 1, 2, 3 ..., the text, its num_terms and its role_id."""

Postings: TypeAlias = tuple[npt.NDArray[np.int64], npt.NDArray[np.int64]]
"""(n,) indices of the pages that hold a term, ascending, and how often each holds it."""

_PAGES_TO_CATCH_UP = 256  # analysing that many takes about as long as reading the postings again
_CACHED_POSTINGS = 2_000_000  # 32 MB


class TermIndex:
    """Postings of a recall store, as they are at each search.

    Args:
        connection: of the store; used inside its transactions only.
    """

    def __init__(self, connection: sqlite3.Connection) -> None:
        self._connection = connection
        connection.execute("PRAGMA temp_store = MEMORY")
        connection.execute("CREATE VIRTUAL TABLE temp.vocab USING fts5vocab(main, terms, instance)")
        self._pages = np.zeros((2, 0), dtype=np.int64)  # number of terms; role
        self._cache: OrderedDict[str, Postings] = OrderedDict()  # last used last

    @property
    def role_ids(self) -> npt.NDArray[np.int64]:
        """(P,) int64, role of every page, as of the last `synchronize`."""
        role_ids: npt.NDArray[np.int64] = self._pages[1]
        return role_ids

    def add(self, position: int, terms: Iterable[str]) -> None:
        """Index a new page, inside the transaction that stores it."""
        self._connection.execute(
            "INSERT INTO terms (rowid, page_terms) VALUES (?, ?)", (position, " ".join(terms))
        )

    def synchronize(self) -> None:
        """Catch up with pages that were added since, by this process or another one."""
        known = self._pages.shape[1]
        new = self._connection.execute(
            "SELECT num_terms, role_id FROM pages WHERE position > ? ORDER BY position", (known,)
        ).fetchall()
        if not new:
            return
        # Without cached postings while they are behind: an interrupt must not leave them so.
        cache, self._cache = self._cache, OrderedDict()
        if cache and len(new) <= _PAGES_TO_CATCH_UP:
            texts = self._connection.execute(
                "SELECT text FROM pages WHERE position > ? ORDER BY position", (known,)
            )
            for page, (text,) in enumerate(texts, start=known):
                for term, frequency in Counter(analyze(decode_text(text))).items():
                    if term in cache:
                        pages, frequencies = cache[term]
                        cache[term] = np.append(pages, page), np.append(frequencies, frequency)
        else:
            cache.clear()
        self._pages = np.concatenate([self._pages, np.array(new, dtype=np.int64).T], axis=1)
        self._cache = cache

    def score(
        self, query: str, statistics: Bm25Statistics | None
    ) -> tuple[npt.NDArray[np.bool_], npt.NDArray[np.float32]]:
        """Score every page as `bm25.bm25_scores` does, bit for bit; call `synchronize` before.

        Args:
            query: any text.
            statistics: frozen statistics; None takes those of the pages as they are now.

        Returns:
            (P,) bool, whether a page holds a term of the query; and (P,) float32 scores in [0, 1).
        """
        lengths = self._pages[0].astype(np.float64)
        postings = {term: self._postings(term) for term in set(analyze(query))}
        is_hit = np.zeros(len(lengths), dtype=np.bool_)
        sums = np.zeros(len(lengths))
        if not any(len(pages) for pages, _ in postings.values()):
            return is_hit, sums.astype(np.float32)
        stats = statistics or _present_statistics(postings, lengths)
        weights = query_weights(query, stats)
        norms = length_norm(lengths, stats)
        for term, weight in weights.items():
            pages, frequencies = postings[term]
            is_hit[pages] = True
            sums[pages] += weight * (frequencies / (frequencies + norms[pages]))
        return is_hit, (sums / math.fsum(weights.values())).astype(np.float32)

    def _postings(self, term: str) -> Postings:
        if term in self._cache:
            self._cache.move_to_end(term)
            return self._cache[term]
        # One string is fetched five times faster than as many rows.
        [(positions,)] = self._connection.execute(
            "SELECT group_concat(doc) FROM temp.vocab WHERE term = ?", (term,)
        )
        occurrences = np.fromstring(positions or "", dtype=np.int64, sep=",") - 1
        pages, frequencies = np.unique(occurrences, return_counts=True)
        found = pages, frequencies.astype(np.int64)
        self._cache[term] = found
        size = sum(len(pages) for pages, _ in self._cache.values())
        while size > _CACHED_POSTINGS and len(self._cache) > 1:
            _, (dropped, _) = self._cache.popitem(last=False)
            size -= len(dropped)
        return found


def _present_statistics(
    postings: Mapping[str, Postings], lengths: npt.NDArray[np.float64]
) -> Bm25Statistics:
    """As `Bm25Statistics.fit` on all pages, for the terms in `postings`."""
    frequencies = {term: len(pages) for term, (pages, _) in postings.items()}
    return Bm25Statistics(frequencies, len(lengths), int(lengths.sum()) / len(lengths))
