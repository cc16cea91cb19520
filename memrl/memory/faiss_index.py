"""The exact FAISS index, and what the approximate ones have in common with it."""

from __future__ import annotations

from typing import Any

import numpy as np

from memrl.memory.index_options import VectorIndexError, has_faiss
from memrl.memory.vector_index import Ids, Vectors

_BLAS_FROM_NUMBERS = 3072  # 8 queries of 384 dimensions
_MOST_DEAD = 256  # taking one vector out of FAISS costs as much as taking out many


def import_faiss() -> Any:
    """The module.

    Raises:
        VectorIndexError: if FAISS is not installed.
    """
    if not has_faiss():
        raise VectorIndexError(
            "This kind of index needs FAISS, which is not installed: install memrl with the extra "
            'cpu or gpu, or choose the kind "flat" or "torch".'
        )
    import faiss

    # From how many numbers in a batch of queries on FAISS multiplies matrices. Its own 128,000 (333
    # queries; 20 queries before 1.15) leaves a batch of 256 ten times slower on one core.
    if faiss.cvar.distance_compute_blas_threshold > _BLAS_FROM_NUMBERS:
        faiss.cvar.distance_compute_blas_threshold = _BLAS_FROM_NUMBERS
    return faiss


class FaissIndex:
    """Flat FAISS index with ids.

    What is removed is first only passed over, and taken out together with others.
    """

    def __init__(self, dimension: int) -> None:
        self.faiss = import_faiss()
        self.dimension = dimension
        self.dead: Ids = np.zeros(0, dtype=np.int64)  # removed, and still in FAISS
        self._selector: Any = None
        self.inner = self._made()

    def _made(self) -> Any:
        return self.faiss.IndexIDMap2(self.faiss.IndexFlatIP(self.dimension))

    def __len__(self) -> int:
        return int(self.inner.ntotal) - len(self.dead)

    def ids(self) -> Ids:
        """See `VectorIndex`."""
        return np.setdiff1d(self.all_ids(), self.dead, assume_unique=True)

    def all_ids(self) -> Ids:
        """(n,) ids, those that are only passed over among them."""
        return np.asarray(self.faiss.vector_to_array(self.inner.id_map), dtype=np.int64)

    def add(self, ids: Ids, vectors: Vectors) -> None:
        """See `VectorIndex`."""
        # A number that comes back must not meet its dead vector.
        if len(self.dead) and np.isin(ids, self.dead).any():
            self.take_out_dead()
        self.inner.add_with_ids(np.ascontiguousarray(vectors), ids)

    def remove(self, ids: Ids) -> None:
        """See `VectorIndex`."""
        self._pass_over(np.union1d(self.dead, ids))
        if len(self.dead) > self._most_dead():
            self.take_out_dead()

    def _pass_over(self, dead: Ids) -> None:
        self.dead = dead
        faiss = self.faiss
        self._selector = faiss.IDSelectorNot(faiss.IDSelectorBatch(dead)) if len(dead) else None

    def _most_dead(self) -> int:
        return _MOST_DEAD

    def take_out_dead(self) -> None:
        """Hold nothing any more that was removed."""
        self._take_out(self.dead)
        self._pass_over(self.dead[:0])

    def _take_out(self, ids: Ids) -> None:
        self.inner.remove_ids(self.faiss.IDSelectorBatch(ids))

    def propose(self, queries: Vectors, count: int) -> tuple[Ids, Vectors]:
        """See `VectorIndex`."""
        parameters = self.faiss.SearchParameters(sel=self._selector) if len(self.dead) else None
        products, ids = self.inner.search(np.ascontiguousarray(queries), count, params=parameters)
        return ids, products

    def vectors(self, ids: Ids) -> Vectors:
        """See `VectorIndex`."""
        return np.asarray(self.inner.reconstruct_batch(ids), dtype=np.float32)
