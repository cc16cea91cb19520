"""An index that is exact while it is small, and approximate, if that was chosen, when it has grown.

Nothing is lost on the way: the new index is filled from the old one before it takes its place.
Below half the size at which it changed it becomes exact again, and IVF's clusters are made again
when twice as much was added as there was when they were made.
"""

from __future__ import annotations

import numpy as np
from rich.console import Console
from rich.progress import track

from memrl.memory.faiss_index import FaissIndex, import_faiss
from memrl.memory.index_device import GpuFaissIndex, exact_index, resolve_device
from memrl.memory.index_kinds import (
    HnswIndex,
    IvfIndex,
    IvfPqIndex,
    VectorsOf,
    in_parts,
    sample_size,
)
from memrl.memory.index_options import (
    ApproximateKind,
    IndexOptions,
    VectorIndexError,
    approximate_kind,
    grows_at,
)
from memrl.memory.vector_index import Ids, VectorIndex, Vectors

_SAMPLE_SEED = 1234
_LONG_BUILD = 50_000  # vectors from which a build takes more than a few seconds


class GrowingIndex:
    """A `VectorIndex` by `IndexOptions`.

    Args:
        dimension: of the vectors.
        options: what searches, and from which size on.
        vectors_of: reads vectors by id; ivf_pq needs it, because its codes are not vectors.

    Attributes:
        device: that it searches on. approximate: the kind that it grows into; None for none.

    Raises:
        VectorIndexError: if what the options ask for is not there, or `vectors_of` is missing.
    """

    def __init__(
        self, dimension: int, options: IndexOptions, vectors_of: VectorsOf | None = None
    ) -> None:
        self.dimension, self.options = dimension, options
        self.device = resolve_device(options)
        self._vectors_of = vectors_of
        self.approximate = approximate_kind(options, self.device)
        if self.approximate is not None:
            import_faiss()
        if options.kind == "ivf_pq" and vectors_of is None:
            raise VectorIndexError(
                "An ivf_pq index holds codes, not vectors: give it vectors_of, which reads them."
            )
        self._index: VectorIndex = exact_index(dimension, options)
        self._is_exact = True

    def __len__(self) -> int:
        return len(self._index)

    @property
    def kind(self) -> ApproximateKind | None:
        """The approximate kind that searches now; None while the search is exact."""
        return None if self._is_exact else self.approximate

    def ids(self) -> Ids:
        """See `VectorIndex`."""
        return self._index.ids()

    def add(self, ids: Ids, vectors: Vectors) -> None:
        """See `VectorIndex`; `settle` when all is added that there is to add."""
        self._index.add(ids, vectors)

    def remove(self, ids: Ids) -> None:
        """See `VectorIndex`."""
        self._index.remove(ids)

    def propose(self, queries: Vectors, count: int) -> tuple[Ids, Vectors]:
        """See `VectorIndex`."""
        return self._index.propose(queries, count)

    def vectors(self, ids: Ids) -> Vectors:
        """See `VectorIndex`."""
        return self._index.vectors(ids)

    # ------------------------------------------------------------------ growing

    def settle(self) -> bool:
        """Become what an index of this size is; of many vectors this takes minutes.

        Returns:
            Whether it was made anew.

        Raises:
            VectorIndexError: if there are too few vectors for the lists that were asked for. The
                index is as it was.
        """
        if self.approximate is None:
            return False
        size, limit = len(self), grows_at(self.options)
        base = self.base
        if self._is_exact:
            if size < limit:
                return False
            self._rebuild(self.approximate)
        elif size < limit // 2:
            self._rebuild(None)
        elif isinstance(base, IvfIndex) and base.is_outgrown:
            self._rebuild(self.approximate)
        else:
            return False
        return True

    @property
    def base(self) -> VectorIndex:
        """What holds the vectors now, on the CPU unless torch does."""
        return self._index.base if isinstance(self._index, GpuFaissIndex) else self._index

    def replace_base(self, base: FaissIndex) -> None:
        """Hold what this approximate index holds, and search with it."""
        self._index = GpuFaissIndex(base) if self.device == "cuda" else base
        self._is_exact = False

    def _rebuild(self, kind: ApproximateKind | None) -> None:
        ids = np.sort(self._index.ids())
        is_long = len(ids) >= _LONG_BUILD and kind is not None
        console = Console(stderr=True)
        if is_long:
            console.print(f"Making the {kind} index of {len(ids):,} vectors ...", style="dim")
        if kind is None:
            new, base = exact_index(self.dimension, self.options), None
        else:
            new = base = self.empty_base(kind, len(ids))
        if isinstance(base, IvfIndex):
            base.train(self._sample(ids))
        for some in track(in_parts(ids), "Adding", console=console, disable=not is_long):
            new.add(some, self._index.vectors(some))
        if base is None:
            self._index, self._is_exact = new, True
        else:
            self.replace_base(base)

    def _sample(self, ids: Ids) -> Vectors:
        """The vectors that clusters are made from."""
        rng = np.random.default_rng(_SAMPLE_SEED)
        chosen = rng.choice(ids, sample_size(self.options, len(ids)), replace=False)
        return np.concatenate([self._index.vectors(some) for some in in_parts(np.sort(chosen))])

    def empty_base(self, kind: ApproximateKind, size: int) -> FaissIndex:
        """An index of the kind on the CPU, untrained, for `size` vectors."""
        if kind == "hnsw":
            return HnswIndex(self.dimension, self.options)
        if kind == "ivf":
            return IvfIndex(self.dimension, self.options, size)
        assert self._vectors_of is not None  # checked when this was made
        return IvfPqIndex(self.dimension, self.options, size, self._vectors_of)
