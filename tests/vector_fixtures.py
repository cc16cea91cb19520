"""Made-up vectors, and the rows that an index of them is held to."""

from __future__ import annotations

import numpy as np
import numpy.typing as npt

from memrl.memory.scores import exact_scores
from memrl.memory.vector_index import Ids, Vectors

DIMENSION = 16


def clustered(rng: np.random.Generator, count: int, dimension: int = DIMENSION) -> Vectors:
    """Unit vectors around a few centres, as texts about a few things have."""
    centres = rng.normal(size=(20, dimension))
    vectors = centres[rng.integers(0, 20, count)] + 0.5 * rng.normal(size=(count, dimension))
    vectors /= np.linalg.norm(vectors, axis=1, keepdims=True)
    return vectors.astype(np.float32)


class Rows:
    """Vectors by id, as the rows of a store hold them."""

    def __init__(self) -> None:
        self.by_id: dict[int, npt.NDArray[np.float32]] = {}

    def add(self, ids: Ids, vectors: Vectors) -> None:
        self.by_id.update(zip(ids.tolist(), vectors, strict=True))

    def __call__(self, ids: Ids) -> Vectors:
        return np.stack([self.by_id[key] for key in ids.tolist()])

    def ranked(self, query: Vectors, count: int) -> list[int]:
        ids = np.array(sorted(self.by_id))
        scores = exact_scores(self(ids), query)
        return [int(key) for key in ids[np.argsort(-scores, kind="stable")][:count]]
