"""Nearest neighbours by cosine: what an index is, the exact one in torch, and the ranking.

An index proposes candidates in float32, where equal vectors can get different last digits in
different places of a block. `nearest` then scores the candidates exactly and orders them, so all
exact kinds, on every machine, give the same ids in the same order, and an approximate kind loses
only what it never proposes.
"""

from __future__ import annotations

from typing import Protocol, TypeAlias

import numpy as np
import numpy.typing as npt
import torch

from memrl.memory.scores import SCORE_SCALE, exact_scores, quantize_scores

Ids: TypeAlias = npt.NDArray[np.int64]
Vectors: TypeAlias = npt.NDArray[np.float32]

_SPARE_CANDIDATES = 16
_MOST_PRODUCTS = 1 << 26  # of a batch at once: 268 MB


class VectorIndex(Protocol):
    """Unit vectors by id; it checks nothing, its owner does."""

    def __len__(self) -> int:
        """Vectors in the index."""

    def ids(self) -> Ids:
        """(n,) ids, in no particular order."""

    def add(self, ids: Ids, vectors: Vectors) -> None:
        """Add n vectors under ids that are not in the index, (n,) and (n, dimension)."""

    def remove(self, ids: Ids) -> None:
        """Remove the vectors of these ids, all of them in the index."""

    def propose(self, queries: Vectors, count: int) -> tuple[Ids, Vectors]:
        """Ids and products of the `count` vectors with the largest products, best first.

        An approximate index may have others in the places of some.

        Args:
            queries: (q, dimension).
            count: from 1 to the number of vectors.

        Returns:
            (q, count) ids and (q, count) float32, right to the rounding of a float32 product.
        """

    def vectors(self, ids: Ids) -> Vectors:
        """(n, dimension) vectors of ids in the index."""


class TorchIndex:
    """Exact, on a torch tensor; on a CPU two to six times slower than FAISS."""

    def __init__(self, dimension: int, device: str = "cpu") -> None:
        self._ids = np.zeros(0, dtype=np.int64)
        self._row: dict[int, int] = {}
        # Rows past the last id are spare room, doubled when it is used up.
        self._matrix = torch.zeros((0, dimension), dtype=torch.float32, device=device)

    def __len__(self) -> int:
        return len(self._ids)

    def ids(self) -> Ids:
        """See `VectorIndex`."""
        return self._ids

    def add(self, ids: Ids, vectors: Vectors) -> None:
        """See `VectorIndex`."""
        size, new_size = len(self), len(self) + len(ids)
        if new_size > len(self._matrix):
            grown = self._matrix.new_zeros((2 * new_size, self._matrix.shape[1]))
            grown[:size] = self._matrix[:size]
            self._matrix = grown
        self._matrix[size:new_size] = torch.tensor(vectors)
        self._row.update(zip(ids.tolist(), range(size, new_size), strict=True))
        self._ids = np.concatenate([self._ids, ids])

    def remove(self, ids: Ids) -> None:
        """See `VectorIndex`."""
        kept = np.flatnonzero(~np.isin(self._ids, ids))
        self._matrix = self._matrix[torch.from_numpy(kept).to(self._matrix.device)]
        self._ids = self._ids[kept]
        self._row = {key: row for row, key in enumerate(self._ids.tolist())}

    def propose(self, queries: Vectors, count: int) -> tuple[Ids, Vectors]:
        """See `VectorIndex`."""
        at_once = max(1, _MOST_PRODUCTS // len(self))
        matrix = self._matrix[: len(self)]
        parts = [
            (torch.tensor(queries[start : start + at_once]).to(matrix.device) @ matrix.T).topk(
                count
            )
            for start in range(0, len(queries), at_once)
        ]
        products = torch.cat([part.values for part in parts]).cpu().numpy()
        rows = torch.cat([part.indices for part in parts]).cpu().numpy()
        return self._ids[rows], products

    def vectors(self, ids: Ids) -> Vectors:
        """See `VectorIndex`."""
        rows = [self._row[key] for key in ids.tolist()]
        found: Vectors = self._matrix[rows].cpu().numpy()
        return found


def nearest(index: VectorIndex, query: Vectors, count: int) -> tuple[Ids, Vectors]:
    """Find the vectors most similar to a query, best first, ties by id.

    Scores are compared quantised (`memrl.memory.scores`), as the tables hold them.

    Args:
        index: of unit vectors.
        query: (dimension,) unit vector.
        count: how many are wanted, 1 or more.

    Returns:
        (m,) ids and (m,) float32 cosines, m the smaller of `count` and the size of the index.
    """
    [found] = nearest_many(index, query[None], count)
    return found


def nearest_many(index: VectorIndex, queries: Vectors, count: int) -> list[tuple[Ids, Vectors]]:
    """What `nearest` finds for each of (q, dimension) queries, which are proposed for at once."""
    size = len(index)
    count = min(count, size)
    if count == 0:
        return [(np.zeros(0, dtype=np.int64), np.zeros(0, dtype=np.float32)) for _ in queries]
    # A proposed product of unit vectors is off by less than dimension * 2^-24 (n products, each
    # rounded, and their sums). What lies one step of the scale below can be no tie.
    margin = queries.shape[1] * 2.0**-23 + 1.0 / SCORE_SCALE
    found: list[tuple[Ids, Vectors]] = [(np.zeros(0, np.int64), np.zeros(0, np.float32))] * len(
        queries
    )
    left, proposed = np.arange(len(queries)), count
    while len(left):
        proposed = min(2 * proposed + _SPARE_CANDIDATES, size)
        ids, products = index.propose(queries[left], proposed)
        least = products[:, count - 1, None] - margin
        is_settled = (products[:, -1:] < least)[:, 0] | (proposed == size)
        for row in np.flatnonzero(is_settled):
            near = ids[row, products[row] >= least[row]]
            found[left[row]] = _ranked(near, index.vectors(near), queries[left[row]], count)
        left = left[~is_settled]
    return found


def _ranked(ids: Ids, vectors: Vectors, query: Vectors, count: int) -> tuple[Ids, Vectors]:
    """The best `count` by exact score, ties by id."""
    scores = exact_scores(vectors, query)
    order = np.lexsort((ids, -quantize_scores(scores).astype(np.int64)))[:count]
    return ids[order], scores[order]
