"""The approximate kinds of index, all of FAISS: HNSW, IVF-Flat and IVF-PQ.

HNSW: Malkov and Yashunin, arXiv 1603.09320. IVF and product codes: Jégou, Douze and Schmid 2011.
Defaults are measured in `docs/retrieval.md`. Each kind proposes as many vectors as it is asked for:
where it finds fewer it looks further, in the end at all, so that pages of results stay whole.
"""

from __future__ import annotations

import math
from collections.abc import Callable
from typing import Any, TypeAlias

import numpy as np

from memrl.memory.faiss_index import FaissIndex
from memrl.memory.index_options import IndexOptions, VectorIndexError
from memrl.memory.vector_index import Ids, Vectors

VectorsOf: TypeAlias = Callable[[Ids], Vectors]

MIN_VECTORS_PER_LIST = 10
_LEAST_PER_LIST = 40  # where the number of lists is not given
_MAX_VECTORS_PER_LIST = 64  # of the sample that clusters are made from
_MAX_VECTORS_PER_CODE = 64  # of the sample that each of 256 values of a byte is made from
_SEED = 1234
_VECTORS_PER_ADD = 16_384
_SEARCH_BREADTH = 128  # hnsw, at effort 1 (efSearch), for so many vectors or fewer:
_SEARCH_BREADTH_UP_TO = 100_000
_BREADTH_EXPONENT = 0.903  # beyond: recall@10 at 10^6 is .82 with a breadth of 128, .97 with 1,024
_PROBES = 10.5  # ivf, at effort 1: lists looked into, times the fourth root of their number
_CANDIDATES = 4  # ivf_pq: codes whose vectors are compared, times what is wanted
_LARGE_SHARE = 4  # whoever wants more than a fourth of all gets an exact scan


class HnswIndex(FaissIndex):
    """Graph of neighbours. Removed vectors stay in it as way points until they are a fifth."""

    is_outgrown = False

    def __init__(self, dimension: int, options: IndexOptions) -> None:
        self._options = options
        super().__init__(dimension)

    def _made(self) -> Any:
        faiss = self.faiss
        graph = faiss.IndexHNSWFlat(self.dimension, self._options.links, faiss.METRIC_INNER_PRODUCT)
        graph.hnsw.efConstruction = self._options.build_breadth
        return faiss.IndexIDMap2(graph)

    def _most_dead(self) -> int:
        return max(super()._most_dead(), int(self.inner.ntotal) // 5)

    def _take_out(self, ids: Ids) -> None:
        # FAISS cannot take vectors out of a graph.
        kept = np.setdiff1d(self.all_ids(), ids, assume_unique=True)
        old, self.inner = self.inner, self._made()
        for some in in_parts(kept):
            self.inner.add_with_ids(old.reconstruct_batch(some), some)

    def propose(self, queries: Vectors, count: int) -> tuple[Ids, Vectors]:
        """See `VectorIndex`."""
        if count * _LARGE_SHARE > len(self):
            return self._scanned(queries, count)
        breadth = max(round(self.search_breadth() * self._options.effort), 2 * count)
        parameters = self.faiss.SearchParametersHNSW(efSearch=breadth, sel=self._selector)
        products, ids = self.inner.search(np.ascontiguousarray(queries), count, params=parameters)
        short = np.flatnonzero(ids[:, -1] < 0)
        if len(short):
            ids[short], products[short] = self._scanned(queries[short], count)
        return ids, products

    def search_breadth(self) -> float:
        """Way points that a search keeps, at effort 1: a larger graph needs a broader one."""
        share: float = max(len(self) / _SEARCH_BREADTH_UP_TO, 1.0)
        broader: float = share**_BREADTH_EXPONENT
        return _SEARCH_BREADTH * broader

    def _scanned(self, queries: Vectors, count: int) -> tuple[Ids, Vectors]:
        """Exactly, by the vectors that the graph is of."""
        storage = self.faiss.downcast_index(self.inner.index).storage
        num_rows = min(count + len(self.dead), int(self.inner.ntotal))
        products, rows = storage.search(np.ascontiguousarray(queries), num_rows)
        ids = self.all_ids()[rows]
        order = np.argsort(np.isin(ids, self.dead), axis=1, kind="stable")[:, :count]
        return np.take_along_axis(ids, order, 1), np.take_along_axis(products, order, 1)


class IvfIndex(FaissIndex):
    """Vectors in clusters, of which those nearest to a query are scanned.

    It takes vectors once it was trained.

    Args:
        dimension, options: see `GrowingIndex`.
        size: vectors that it is made for.
    """

    _least_sample = 1

    def __init__(self, dimension: int, options: IndexOptions, size: int) -> None:
        self._options = options
        self.trained_size, self.num_added = size, 0
        self._num_lists = num_lists(options, size)
        super().__init__(dimension)
        self.inner.cp.spherical = True
        self.inner.cp.seed = _SEED
        self.inner.cp.min_points_per_centroid = 1
        self.inner.cp.max_points_per_centroid = _MAX_VECTORS_PER_LIST

    def train(self, sample: Vectors) -> None:
        """Make the clusters, and what else there is to make, from (n, dimension) vectors.

        Raises:
            VectorIndexError: if these are too few.
        """
        least = max(self._least_sample, MIN_VECTORS_PER_LIST * self._num_lists)
        if len(sample) < least:
            raise VectorIndexError(
                f"Training this IVF index takes {least:,} vectors or more, and there are "
                f"{len(sample):,}: add vectors first, raise grow_at, or set fewer lists."
            )
        self.inner.train(np.ascontiguousarray(sample))

    def _made(self) -> Any:
        faiss = self.faiss
        index = faiss.IndexIVFFlat(
            faiss.IndexFlatIP(self.dimension),
            self.dimension,
            self._num_lists,
            faiss.METRIC_INNER_PRODUCT,
        )
        index.set_direct_map_type(faiss.DirectMap.Hashtable)
        return index

    @property
    def is_outgrown(self) -> bool:
        """Whether so much was added since training that the clusters are to be made again."""
        return self.num_added >= 2 * self.trained_size

    def all_ids(self) -> Ids:
        """See `FaissIndex`."""
        lists = self.inner.invlists
        parts = [
            self.faiss.rev_swig_ptr(lists.get_ids(number), lists.list_size(number)).copy()
            for number in range(lists.nlist)
            if lists.list_size(number)
        ]
        return np.concatenate([np.zeros(0, dtype=np.int64), *parts])

    def add(self, ids: Ids, vectors: Vectors) -> None:
        """See `VectorIndex`."""
        super().add(ids, vectors)
        self.num_added += len(ids)

    def _take_out(self, ids: Ids) -> None:
        # A direct map by hashing takes no other selector.
        self.inner.remove_ids(self.faiss.IDSelectorArray(ids))

    def propose(self, queries: Vectors, count: int) -> tuple[Ids, Vectors]:
        """See `VectorIndex`."""
        return self._probed(queries, count, self.num_probes())

    def num_probes(self) -> int:
        """Lists that a search looks into."""
        lists: float = self._num_lists**0.25
        return math.ceil(_PROBES * lists * self._options.effort)

    def _probed(self, queries: Vectors, count: int, probes: int) -> tuple[Ids, Vectors]:
        """Look into more lists until each query has as many as are wanted."""
        if count * _LARGE_SHARE > len(self):
            probes = self._num_lists
        probes = min(probes, self._num_lists)
        parameters = self.faiss.SearchParametersIVF(nprobe=probes, sel=self._selector)
        products, ids = self.inner.search(np.ascontiguousarray(queries), count, params=parameters)
        short = np.flatnonzero(ids[:, -1] < 0)
        if len(short) and probes < self._num_lists:
            ids[short], products[short] = self._probed(queries[short], count, 4 * probes)
        return ids, products


class IvfPqIndex(IvfIndex):
    """IVF of product codes; the vectors of the best codes are read and compared.

    Args:
        dimension, options, size: see `IvfIndex`.
        vectors_of: reads vectors by id, which this index does not hold.

    Raises:
        VectorIndexError: if the codes do not divide the dimension.
    """

    _least_sample = 256  # the values that a byte of a code has

    def __init__(
        self, dimension: int, options: IndexOptions, size: int, vectors_of: VectorsOf
    ) -> None:
        if dimension % options.code_bytes:
            raise VectorIndexError(
                f"An ivf_pq index of {options.code_bytes} bytes a code cannot hold vectors of "
                f"{dimension} dimensions: choose code_bytes that divides {dimension}."
            )
        self._vectors_of = vectors_of
        super().__init__(dimension, options, size)

    def _made(self) -> Any:
        faiss = self.faiss
        index = faiss.IndexIVFPQ(
            faiss.IndexFlatIP(self.dimension),
            self.dimension,
            self._num_lists,
            self._options.code_bytes,
            8,
            faiss.METRIC_INNER_PRODUCT,
        )
        index.pq.cp.seed = _SEED
        index.pq.cp.min_points_per_centroid = 1
        index.pq.cp.max_points_per_centroid = _MAX_VECTORS_PER_CODE
        return index

    def _most_dead(self) -> int:
        return max(super()._most_dead(), int(self.inner.ntotal) // 100)  # each time scans all

    def _take_out(self, ids: Ids) -> None:
        self.inner.remove_ids(self.faiss.IDSelectorBatch(ids))

    def propose(self, queries: Vectors, count: int) -> tuple[Ids, Vectors]:
        """See `VectorIndex`."""
        wanted = min(math.ceil(_CANDIDATES * count * max(1.0, self._options.effort)), len(self))
        candidates, _ = self._probed(queries, wanted, self.num_probes())
        ids = np.empty((len(queries), count), dtype=np.int64)
        products = np.empty((len(queries), count), dtype=np.float32)
        for row, some in enumerate(candidates):
            exact = self._vectors_of(some) @ queries[row]
            order = np.argsort(-exact, kind="stable")[:count]
            ids[row], products[row] = some[order], exact[order]
        return ids, products

    def vectors(self, ids: Ids) -> Vectors:
        """See `VectorIndex`."""
        return self._vectors_of(ids)


def num_lists(options: IndexOptions, size: int) -> int:
    """Clusters of an index that is made for `size` vectors."""
    return options.lists or max(1, min(round(4 * math.sqrt(size)), size // _LEAST_PER_LIST))


def sample_size(options: IndexOptions, size: int) -> int:
    """Vectors to make clusters and codes from, `size` at most."""
    return min(size, max(num_lists(options, size), 256) * _MAX_VECTORS_PER_LIST)


def in_parts(ids: Ids) -> list[Ids]:
    """The ids in parts of a size that is added at once."""
    return np.split(ids, range(_VECTORS_PER_ADD, len(ids), _VECTORS_PER_ADD))
