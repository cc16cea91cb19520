"""Indices on a GPU: what is there, whether the vectors fit, and a GPU copy of a FAISS index.

FAISS on a GPU takes no removals, gives no vectors back by id and proposes at most 2,048, so the
index on the CPU stays and does all that; its copy on the GPU only searches.
"""

from __future__ import annotations

from typing import Any, Literal

import numpy as np
import torch

from memrl.memory.faiss_index import FaissIndex, import_faiss
from memrl.memory.index_kinds import IvfIndex
from memrl.memory.index_options import IndexOptions, VectorIndexError, has_faiss
from memrl.memory.vector_index import Ids, TorchIndex, VectorIndex, Vectors

_MOST_GPU_PROPOSALS = 2048
_BYTES_PER_ID = 8
_GROWTH_ROOM = 1.25  # FAISS's lists and blocks are larger than what is in them
_SCRATCH_BYTES = 256 * 2**20


def has_faiss_gpu() -> bool:
    """Whether FAISS is its GPU build and sees a GPU."""
    if not has_faiss():
        return False
    faiss = import_faiss()
    return hasattr(faiss, "StandardGpuResources") and faiss.get_num_gpus() > 0


def resolve_device(options: IndexOptions) -> Literal["cpu", "cuda"]:
    """Where the index of these options searches on this machine.

    Raises:
        VectorIndexError: if a GPU is asked for that is not there or does not do this kind.
    """
    if options.device == "cpu":
        return "cpu"
    by_faiss = options.kind not in ("torch", "hnsw", "ivf_pq") and has_faiss_gpu()
    by_torch = options.kind in ("auto", "flat", "torch") and torch.cuda.is_available()
    if by_faiss or by_torch:
        return "cuda"
    if options.device == "auto":
        return "cpu"
    if options.kind in ("hnsw", "ivf_pq"):
        raise VectorIndexError(
            f"An index of kind {options.kind} searches on a CPU only: set device to cpu, or choose "
            "the kind flat, torch or ivf."
        )
    needed = "PyTorch" if options.kind == "torch" else "FAISS (extra gpu)"
    raise VectorIndexError(
        f"The index is to search on a GPU, and {needed} finds none here: set device to auto or cpu."
    )


def check_memory(bytes_needed: int, free_bytes: int | None) -> None:
    """Refuse what does not fit; None is an unknown room, which FAISS then finds out.

    Raises:
        VectorIndexError: if it does not.
    """
    if free_bytes is not None and bytes_needed > free_bytes:
        raise VectorIndexError(
            f"The index needs {bytes_needed / 1e9:.2f} GB of GPU memory, of which "
            f"{free_bytes / 1e9:.2f} GB are free: free some, or set device to cpu."
        )


def free_gpu_bytes() -> int | None:
    """Free memory of the GPU; None where only FAISS sees it."""
    return int(torch.cuda.mem_get_info()[0]) if torch.cuda.is_available() else None


def gpu_bytes(size: int, dimension: int) -> int:
    """GPU memory of an index of `size` vectors, with room to search."""
    return round(size * (4 * dimension + _BYTES_PER_ID) * _GROWTH_ROOM) + _SCRATCH_BYTES


class GpuTorchIndex(TorchIndex):
    """The exact torch index on a GPU, which refuses what would not fit."""

    def __init__(self, dimension: int) -> None:
        super().__init__(dimension, "cuda")
        self._dimension = dimension

    def add(self, ids: Ids, vectors: Vectors) -> None:
        """See `VectorIndex`; VectorIndexError when the memory does not suffice."""
        if len(self) + len(ids) > len(self._matrix):
            # The rows are doubled, beside the old ones.
            check_memory(gpu_bytes(2 * (len(self) + len(ids)), self._dimension), free_gpu_bytes())
        super().add(ids, vectors)


class GpuFaissIndex:
    """A flat or IVF index whose copy on the GPU searches."""

    def __init__(self, base: FaissIndex) -> None:
        self.base = base
        self._resources: Any = None
        self._copy: Any = None

    def __len__(self) -> int:
        return len(self.base)

    def ids(self) -> Ids:
        """See `VectorIndex`."""
        return self.base.ids()

    def vectors(self, ids: Ids) -> Vectors:
        """See `VectorIndex`."""
        return self.base.vectors(ids)

    @property
    def is_outgrown(self) -> bool:
        """See `IvfIndex`."""
        return isinstance(self.base, IvfIndex) and self.base.is_outgrown

    def add(self, ids: Ids, vectors: Vectors) -> None:
        """See `VectorIndex`."""
        num_dead = len(self.base.dead)
        self.base.add(ids, vectors)
        if self._copy is None or len(self.base.dead) != num_dead:
            self._copy = None
            return
        try:
            self._copy.add_with_ids(np.ascontiguousarray(vectors), ids)
        except RuntimeError:
            self._copy = None  # the next search copies anew, and says what is missing

    def remove(self, ids: Ids) -> None:
        """See `VectorIndex`."""
        self.base.remove(ids)
        if not len(self.base.dead):
            self._copy = None  # they were taken out

    def propose(self, queries: Vectors, count: int) -> tuple[Ids, Vectors]:
        """See `VectorIndex`; VectorIndexError when the GPU's memory does not suffice."""
        proposed = count + len(self.base.dead)
        if proposed > min(_MOST_GPU_PROPOSALS, len(self) // 4):
            return self.base.propose(queries, count)
        if self._copy is None:
            self._copy = self._copied()
        parameters = None
        if isinstance(self.base, IvfIndex):
            parameters = self.base.faiss.SearchParametersIVF(nprobe=self.base.num_probes())
        found, ids = self._copy.search(np.ascontiguousarray(queries), proposed, params=parameters)
        order = np.argsort(np.isin(ids, [*self.base.dead, -1]), axis=1, kind="stable")[:, :count]
        products = np.take_along_axis(found, order, 1)
        ids = np.take_along_axis(ids, order, 1)
        short = np.flatnonzero((ids < 0).any(axis=1))
        if len(short):
            ids[short], products[short] = self.base.propose(queries[short], count)
        return ids, products

    def _copied(self) -> Any:
        faiss = self.base.faiss
        bytes_needed = gpu_bytes(int(self.base.inner.ntotal), self.base.dimension)
        check_memory(bytes_needed, free_gpu_bytes())
        try:
            if self._resources is None:
                self._resources = faiss.StandardGpuResources()
                self._resources.setTempMemory(_SCRATCH_BYTES)
            return faiss.index_cpu_to_gpu(self._resources, 0, self.base.inner)
        except RuntimeError as error:
            reason = str(error).strip().splitlines()[-1]
            raise VectorIndexError(
                f"The index cannot be copied to the GPU, for which it needs "
                f"{bytes_needed / 1e9:.2f} GB ({reason}): free some, or set device to cpu."
            ) from error


def exact_index(dimension: int, options: IndexOptions) -> VectorIndex:
    """Make an empty exact index: by FAISS where that is installed, unless torch is asked for.

    Raises:
        VectorIndexError: if what the options ask for is not there.
    """
    on_gpu = resolve_device(options) == "cuda"
    by_faiss = options.kind == "faiss" or (options.kind != "torch" and has_faiss())
    if on_gpu and by_faiss and has_faiss_gpu():
        return GpuFaissIndex(FaissIndex(dimension))
    if on_gpu and options.kind != "faiss":
        return GpuTorchIndex(dimension)
    return FaissIndex(dimension) if by_faiss else TorchIndex(dimension)
