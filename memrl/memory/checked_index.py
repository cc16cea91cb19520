"""An index of vectors for use without a store: every argument is checked."""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path
from typing import Self

import numpy as np
import numpy.typing as npt

from memrl.memory.growing_index import GrowingIndex
from memrl.memory.index_file import read_index, write_index
from memrl.memory.index_kinds import VectorsOf
from memrl.memory.index_options import (
    ApproximateKind,
    IndexKind,
    IndexOptions,
    VectorIndexError,
    as_options,
)
from memrl.memory.vector_index import Ids, Vectors, nearest_many

NORM_TOLERANCE = 1e-3
"""How far the length of a vector may be from 1."""


class CheckedIndex:
    """Unit vectors by number, searched by cosine.

    Args:
        dimension: of the vectors, 1 or more.
        options: what searches; a kind stands for its default options.
        vectors_of: reads (n, dimension) float32 vectors of (n,) ids; only ivf_pq needs it.

    Raises:
        ValueError: if `dimension` is below 1.
        VectorIndexError: if what the options ask for is not there.
    """

    def __init__(
        self,
        dimension: int,
        options: IndexKind | IndexOptions = "auto",
        vectors_of: VectorsOf | None = None,
    ) -> None:
        if dimension < 1:
            raise ValueError(f"An index's dimension is at least 1, not {dimension}.")
        self.dimension = dimension
        self._index = GrowingIndex(dimension, as_options(options), vectors_of)

    @classmethod
    def load(
        cls,
        path: str | Path,
        dimension: int,
        options: IndexKind | IndexOptions = "auto",
        vectors_of: VectorsOf | None = None,
    ) -> Self:
        """Read what `save` wrote.

        Raises:
            VectorIndexError: if the file is not whole, of another kind or dimension, or no index.
            OSError: if it cannot be read.
        """
        loaded = cls(dimension, options, vectors_of)
        read_index(Path(path), loaded._index)
        return loaded

    def save(self, path: str | Path) -> None:
        """Write the index; the file appears whole or stays as it was.

        Raises:
            OSError: if it cannot be written.
        """
        write_index(Path(path), self._index, {})

    def __len__(self) -> int:
        return len(self._index)

    @property
    def kind(self) -> ApproximateKind | None:
        """The approximate kind that searches now; None while the search is exact."""
        return self._index.kind

    @property
    def ids(self) -> Ids:
        """(n,) ids, ascending."""
        return np.sort(self._index.ids())

    def add(self, ids: Sequence[int] | Ids, vectors: npt.ArrayLike) -> None:
        """Add vectors, all or none.

        Args:
            ids: n different whole numbers from 0 to 2^63-1, none of them in the index.
            vectors: (n, dimension), each of length 1.

        Raises:
            VectorIndexError: if an id or a vector is unfit, or a GPU's memory does not suffice.
        """
        new = _as_ids(ids)
        rows = self._checked(vectors)
        if len(new) != len(rows):
            raise VectorIndexError(f"{len(rows)} vectors came with {len(new)} ids: give one each.")
        if len(np.unique(new)) != len(new):
            raise VectorIndexError("An id is given twice: every vector has an id of its own.")
        known = new[np.isin(new, self._index.ids())]
        if len(known):
            raise VectorIndexError(f"The index holds id {known[0]} already: remove it first.")
        self._index.add(new, rows)
        self._index.settle()

    def remove(self, ids: Sequence[int] | Ids) -> None:
        """Remove vectors, all or none.

        Raises:
            VectorIndexError: if the index does not hold one of them.
        """
        gone = np.unique(_as_ids(ids))
        unknown = gone[~np.isin(gone, self._index.ids())]
        if len(unknown):
            raise VectorIndexError(f"The index holds no id {unknown[0]}: nothing was removed.")
        if len(gone):
            self._index.remove(gone)
            self._index.settle()

    def search(self, queries: npt.ArrayLike, count: int) -> tuple[Ids, Vectors]:
        """Find for each query the vectors with the largest cosines, best first, ties by id.

        Args:
            queries: (q, dimension), each of length 1.
            count: how many are wanted, 1 or more; more than there are gives all.

        Returns:
            (q, m) ids and (q, m) float32 cosines, m the smaller of `count` and the size.

        Raises:
            VectorIndexError: if a query or `count` is unfit.
        """
        rows = self._checked(queries)
        if count < 1:
            raise VectorIndexError(f"A search is for 1 vector or more, not for {count}.")
        found = nearest_many(self._index, rows, count)
        width = min(count, len(self))
        ids = np.array([some for some, _ in found], dtype=np.int64).reshape(len(rows), width)
        cosines = np.array([some for _, some in found], dtype=np.float32)
        return ids, cosines.reshape(len(rows), width)

    def _checked(self, vectors: npt.ArrayLike) -> Vectors:
        rows = np.ascontiguousarray(vectors, dtype=np.float32)
        if rows.ndim != 2 or rows.shape[1] != self.dimension:
            raise VectorIndexError(
                f"The index takes vectors as (n, {self.dimension}) numbers, not as {rows.shape}."
            )
        if not np.isfinite(rows).all():
            raise VectorIndexError("A vector holds NaN or infinity: check what it was made by.")
        norms = np.linalg.norm(rows, axis=1)
        if (norms == 0).any():
            raise VectorIndexError("A vector is zero, which has no direction: leave it out.")
        if (np.abs(norms - 1) > NORM_TOLERANCE).any():
            raise VectorIndexError("A vector is not of length 1: divide each by its length.")
        return rows


def _as_ids(ids: Sequence[int] | Ids) -> Ids:
    try:
        numbers = np.array([int(number) for number in ids], dtype=np.int64)
    except OverflowError as error:
        raise VectorIndexError("An id is from 0 to 2^63-1.") from error
    if len(numbers) and numbers.min() < 0:
        raise VectorIndexError(f"An id is from 0 to 2^63-1, not {numbers.min()}.")
    return numbers
