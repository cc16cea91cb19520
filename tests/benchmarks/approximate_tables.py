"""Tables as they would be if an approximate index had searched the pages.

An `EpisodeTable` holds the score of every focus against every page: its dense ranking is exact.
Here an index over the same vectors is asked instead, and what it loses is lost to the environment.
"""

from __future__ import annotations

import dataclasses
from collections.abc import Callable
from dataclasses import dataclass
from typing import TypeAlias

import numpy as np
import numpy.typing as npt

from memrl.memory.growing_index import GrowingIndex
from memrl.memory.index_options import IndexOptions
from memrl.memory.scores import SCORE_SCALE
from memrl.memory.vector_index import VectorIndex, Vectors
from memrl.table import EpisodeTable

LOST_SCORE = -SCORE_SCALE - 1
"""Dense score of a lost page: below every cosine, and what staging takes for no neighbour."""
_FOCI_AT_ONCE = 256

MakeIndex: TypeAlias = Callable[[Vectors], VectorIndex]


@dataclass(frozen=True)
class Approximation:
    """What an index makes of a table.

    Attributes:
        table: the table without what was lost.
        query_recall, page_recall: share of the best pages that the index proposed, mean over the
            searches for queries, and from pages.
    """

    table: EpisodeTable
    query_recall: float
    page_recall: float


def index_of(vectors: Vectors, options: IndexOptions) -> GrowingIndex:
    """An index over (n, dimension) vectors by row; `grow_at=1` makes it approximate at any size.

    Raises:
        VectorIndexError: if there are too few for this kind.
    """
    index = GrowingIndex(vectors.shape[1], options, lambda ids: vectors[ids])
    index.add(np.arange(len(vectors)), vectors)
    index.settle()
    return index


def approximated(
    table: EpisodeTable, pages: Vectors, queries: Vectors, make_index: MakeIndex, depth: int
) -> Approximation:
    """Take from a table what an index over the pages of each document would not have found.

    Every query and every page searches for the best `depth` pages. One that is among these, and
    that the index does not propose, gets `LOST_SCORE`. All else stays, lexical scores too, and the
    dense scores of pages further down, as the store looks at everything for far pages of results.

    Args:
        table: exact; it is not changed.
        pages: (P, dimension) vectors that its scores were made from. queries: (Q, dimension).
        make_index: makes the index over (n, dimension) vectors, with their rows as ids.
        depth: pages that a search asks for; all of them in smaller documents.
    """
    dense = table.dense.copy()
    query_recalls: list[float] = []
    page_recalls: list[float] = []
    for offset in np.unique(table.page_offset):
        documents = np.flatnonzero(table.page_offset == offset)
        size = int(table.page_count[documents[0]])
        own = pages[offset : offset + size]
        index, count = make_index(own), min(depth, size)
        page_base = int(table.page_score_base[documents[0]])
        page_recalls += _lose(dense, page_base, index, own, count)
        for document in documents:
            asked = queries[slice(*table.query_offset[document : document + 2])]
            query_base = int(table.query_score_base[document])
            query_recalls += _lose(dense, query_base, index, asked, count)
    changed = dataclasses.replace(table, dense=dense)
    return Approximation(changed, float(np.mean(query_recalls)), float(np.mean(page_recalls)))


def _lose(
    dense: npt.NDArray[np.int16], base: int, index: VectorIndex, foci: Vectors, count: int
) -> list[float]:
    """Mark what searches lose in their rows, which begin at `base`; the recall of each."""
    size, recalls = len(index), []
    for start in range(0, len(foci), _FOCI_AT_ONCE):
        some = foci[start : start + _FOCI_AT_ONCE]
        first = base + start * size
        rows = dense[first : first + len(some) * size].reshape(len(some), size)
        ids, _ = index.propose(some, count)
        least = np.partition(rows, size - count, axis=1)[:, size - count, None]
        # An exact index may propose another of several that are equal but for their rounding.
        is_lost = rows > least.astype(np.int64) + 1
        np.put_along_axis(is_lost, ids, values=False, axis=1)
        rows[is_lost] = LOST_SCORE
        recalls += (1.0 - is_lost.sum(axis=1) / count).tolist()
    return recalls
