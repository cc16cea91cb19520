"""Exact nearest neighbours by cosine: FAISS where it is installed, torch elsewhere.

An index proposes candidates in float32, where equal vectors can get different last digits in
different places of a block. `nearest` then scores the candidates exactly and orders them, so both
kinds of index, and every machine, give the same ids in the same order.
"""

from __future__ import annotations

import importlib.util
from typing import Literal, Protocol, TypeAlias

import numpy as np
import numpy.typing as npt
import torch

from memrl.memory.scores import SCORE_SCALE, exact_scores, quantize_scores

Ids: TypeAlias = npt.NDArray[np.int64]
Vectors: TypeAlias = npt.NDArray[np.float32]
IndexKind: TypeAlias = Literal["auto", "faiss", "torch"]

_SPARE_CANDIDATES = 16


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

    def propose(self, query: Vectors, count: int) -> tuple[Ids, Vectors]:
        """Ids and products of the `count` vectors with the largest products, best first.

        Args:
            query: (dimension,).
            count: from 1 to the number of vectors.

        Returns:
            (count,) ids and (count,) float32, right to the rounding of a float32 product.
        """

    def vectors(self, ids: Ids) -> Vectors:
        """(n, dimension) vectors of ids in the index."""


class FaissIndex:
    """Flat FAISS index with ids."""

    def __init__(self, dimension: int) -> None:
        import faiss

        self._faiss = faiss
        self._index = faiss.IndexIDMap2(faiss.IndexFlatIP(dimension))

    def __len__(self) -> int:
        return int(self._index.ntotal)

    def ids(self) -> Ids:
        """See `VectorIndex`."""
        return np.asarray(self._faiss.vector_to_array(self._index.id_map), dtype=np.int64)

    def add(self, ids: Ids, vectors: Vectors) -> None:
        """See `VectorIndex`."""
        self._index.add_with_ids(vectors, ids)

    def remove(self, ids: Ids) -> None:
        """See `VectorIndex`."""
        self._index.remove_ids(self._faiss.IDSelectorBatch(ids))

    def propose(self, query: Vectors, count: int) -> tuple[Ids, Vectors]:
        """See `VectorIndex`."""
        products, ids = self._index.search(query[None], count)
        return ids[0], products[0]

    def vectors(self, ids: Ids) -> Vectors:
        """See `VectorIndex`."""
        return np.asarray(self._index.reconstruct_batch(ids), dtype=np.float32)


class TorchIndex:
    """The same on a torch tensor; two to six times slower on a CPU."""

    def __init__(self, dimension: int) -> None:
        self._ids = np.zeros(0, dtype=np.int64)
        self._row: dict[int, int] = {}
        # Rows past the last id are spare room, doubled when it is used up.
        self._matrix = torch.zeros((0, dimension), dtype=torch.float32)

    def __len__(self) -> int:
        return len(self._ids)

    def ids(self) -> Ids:
        """See `VectorIndex`."""
        return self._ids

    def add(self, ids: Ids, vectors: Vectors) -> None:
        """See `VectorIndex`."""
        size, new_size = len(self), len(self) + len(ids)
        if new_size > len(self._matrix):
            grown = torch.zeros((2 * new_size, self._matrix.shape[1]), dtype=torch.float32)
            grown[:size] = self._matrix[:size]
            self._matrix = grown
        self._matrix[size:new_size] = torch.tensor(vectors)
        self._row.update(zip(ids.tolist(), range(size, new_size), strict=True))
        self._ids = np.concatenate([self._ids, ids])

    def remove(self, ids: Ids) -> None:
        """See `VectorIndex`."""
        kept = np.flatnonzero(~np.isin(self._ids, ids))
        self._matrix = self._matrix[torch.from_numpy(kept)]
        self._ids = self._ids[kept]
        self._row = {key: row for row, key in enumerate(self._ids.tolist())}

    def propose(self, query: Vectors, count: int) -> tuple[Ids, Vectors]:
        """See `VectorIndex`."""
        products, rows = (self._matrix[: len(self)] @ torch.tensor(query)).topk(count)
        return self._ids[rows.numpy()], products.numpy()

    def vectors(self, ids: Ids) -> Vectors:
        """See `VectorIndex`."""
        found: Vectors = self._matrix[[self._row[key] for key in ids.tolist()]].numpy()
        return found


def make_index(dimension: int, kind: IndexKind = "auto") -> VectorIndex:
    """Make an empty index; "auto" takes FAISS where it is installed.

    Raises:
        ImportError: if FAISS was asked for and is not installed.
    """
    if kind == "auto":
        kind = "faiss" if importlib.util.find_spec("faiss") else "torch"
    return FaissIndex(dimension) if kind == "faiss" else TorchIndex(dimension)


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
    size = len(index)
    count = min(count, size)
    if count == 0:
        return np.zeros(0, dtype=np.int64), np.zeros(0, dtype=np.float32)
    # A proposed product of unit vectors is off by less than dimension * 2^-24 (n products, each
    # rounded, and their sums). What lies one step of the scale below can be no tie.
    margin = len(query) * 2.0**-23 + 1.0 / SCORE_SCALE
    proposed = count
    while True:
        proposed = min(2 * proposed + _SPARE_CANDIDATES, size)
        ids, products = index.propose(query, proposed)
        if proposed == size or products[-1] < products[count - 1] - margin:
            break
    is_near = products >= products[count - 1] - margin
    ids = ids[is_near]
    scores = exact_scores(index.vectors(ids), query)
    order = np.lexsort((ids, -quantize_scores(scores).astype(np.int64)))[:count]
    return ids[order], scores[order]
