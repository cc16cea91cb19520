from __future__ import annotations

import importlib.util
from unittest import mock

import numpy as np
import numpy.typing as npt
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from memrl.memory.faiss_index import FaissIndex
from memrl.memory.index_device import exact_index
from memrl.memory.index_options import IndexKind, IndexOptions
from memrl.memory.scores import SCORE_SCALE, exact_scores, quantize_scores
from memrl.memory.vector_index import TorchIndex, VectorIndex, nearest

needs_faiss = pytest.mark.skipif(
    importlib.util.find_spec("faiss") is None, reason="FAISS is an extra"
)
KINDS: list[object] = [pytest.param("faiss", marks=needs_faiss), "torch"]


def make_index(dimension: int, kind: IndexKind = "auto") -> VectorIndex:
    return exact_index(dimension, IndexOptions(kind=kind))


def unit(rng: np.random.Generator, count: int, dimension: int) -> npt.NDArray[np.float32]:
    vectors = rng.normal(size=(count, dimension))
    vectors /= np.linalg.norm(vectors, axis=1, keepdims=True)
    return vectors.astype(np.float32)


def by_sorting(
    ids: npt.NDArray[np.int64],
    vectors: npt.NDArray[np.float32],
    query: npt.NDArray[np.float32],
    count: int,
) -> list[int]:
    """First `count` ids by quantised cosine, ties by id, each cosine a sum of exact products."""
    cosines = np.array([np.float32(sum(map(float, np.float64(row) * query))) for row in vectors])
    keys = quantize_scores(cosines.reshape(-1)).astype(int)
    return [int(ids[row]) for row in sorted(range(len(ids)), key=lambda r: (-keys[r], ids[r]))][
        :count
    ]


@pytest.mark.parametrize("kind", KINDS)
@settings(max_examples=60, deadline=None)
@given(seed=st.integers(0, 2**32 - 1), size=st.integers(1, 120), distinct=st.integers(1, 60))
def test_nearest_is_a_sort_by_exact_cosine(
    kind: IndexKind, seed: int, size: int, distinct: int
) -> None:
    """Many equal and nearly equal vectors, removals, ids that are not in order."""
    rng = np.random.default_rng(seed)
    dimension = int(rng.integers(2, 70))
    base = unit(rng, distinct, dimension)
    vectors = base[rng.integers(0, distinct, size)]
    nudged = vectors + (rng.random((size, 1)) < 0.3) * rng.normal(size=vectors.shape) * 2e-6
    vectors = (nudged / np.linalg.norm(nudged, axis=1, keepdims=True)).astype(np.float32)
    ids = rng.permutation(10 * size)[:size]
    index = make_index(dimension, kind)
    for part in np.array_split(np.arange(size), 3):
        index.add(ids[part], vectors[part])
    gone = rng.random(size) < 0.3
    index.remove(ids[gone])
    ids, vectors = ids[~gone], vectors[~gone]
    assert sorted(index.ids().tolist()) == sorted(ids.tolist())
    np.testing.assert_array_equal(index.vectors(ids), vectors)
    query = base[0]
    for count in (1, 5, size, size + 9):
        found, cosines = nearest(index, query, count)
        assert found.tolist() == by_sorting(ids, vectors, query, count)
        np.testing.assert_array_equal(cosines, exact_scores(index.vectors(found), query))


@needs_faiss
def test_both_kinds_agree_at_size() -> None:
    rng = np.random.default_rng(0)
    vectors = unit(rng, 5000, 384)
    vectors[rng.integers(0, 5000, 2000)] = vectors[7]  # a long row of ties
    ids = np.arange(1, 5001)
    indices = (FaissIndex(384), TorchIndex(384))
    for index in indices:
        index.add(ids, vectors)
        index.remove(ids[::9])
    for query in (vectors[7], *unit(rng, 5, 384)):
        for count in (1, 10, 1000, 4000):
            one, other = (nearest(index, query, count) for index in indices)
            np.testing.assert_array_equal(one[0], other[0])
            np.testing.assert_array_equal(one[1], other[1])


@pytest.mark.parametrize("kind", KINDS)
def test_ties_go_to_the_first(kind: IndexKind) -> None:
    vectors = unit(np.random.default_rng(1), 400, 33)
    vectors[[3, 70, 199, 398]] = vectors[5]
    index = make_index(33, kind)
    index.add(np.arange(400), vectors)
    found, cosines = nearest(index, vectors[5], 7)
    assert found[:5].tolist() == [3, 5, 70, 199, 398]
    assert len(set(cosines[:5].tolist())) == 1
    assert (np.diff(cosines) <= 1 / SCORE_SCALE).all()


@pytest.mark.parametrize("kind", KINDS)
def test_an_empty_index(kind: IndexKind) -> None:
    index = make_index(3, kind)
    query = np.array([1, 0, 0], dtype=np.float32)
    assert nearest(index, query, 5)[0].shape == (0,)
    index.add(np.array([4]), query[None])
    index.remove(np.array([4]))
    assert (len(index), index.ids().tolist()) == (0, [])
    assert nearest(index, query, 5)[0].shape == (0,)


def test_without_faiss_torch_searches() -> None:
    with mock.patch.object(importlib.util, "find_spec", return_value=None):
        assert isinstance(make_index(4), TorchIndex)


@needs_faiss
def test_with_faiss_faiss_searches() -> None:
    assert isinstance(make_index(4), FaissIndex)
