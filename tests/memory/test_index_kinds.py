"""The approximate kinds, and the index that grows into them, beside a sort of exact cosines."""

from __future__ import annotations

import importlib.util
from collections.abc import Callable
from unittest import mock

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from vector_fixtures import DIMENSION, Rows, clustered

from memrl.memory.growing_index import GrowingIndex
from memrl.memory.index_options import (
    ApproximateKind,
    IndexOptions,
    VectorIndexError,
    approximate_kind,
)
from memrl.memory.scores import exact_scores
from memrl.memory.vector_index import Vectors, nearest, nearest_many

pytestmark = pytest.mark.skipif(
    importlib.util.find_spec("faiss") is None, reason="FAISS is an extra"
)
KINDS: tuple[ApproximateKind, ...] = ("hnsw", "ivf", "ivf_pq")


def options_of(kind: ApproximateKind, **more: int | float) -> IndexOptions:
    return IndexOptions(kind=kind, **{"grow_at": 600, "code_bytes": 4, **more})  # type: ignore[arg-type]


def filled(kind: ApproximateKind, count: int, **more: int | float) -> tuple[GrowingIndex, Rows]:
    rows, rng = Rows(), np.random.default_rng(3)
    index = GrowingIndex(DIMENSION, options_of(kind, **more), rows)
    ids = rng.permutation(5 * count)[:count].astype(np.int64)
    rows.add(ids, clustered(rng, count))
    index.add(ids, rows(ids))
    index.settle()
    return index, rows


def recall_of(index: GrowingIndex, rows: Rows, queries: Vectors, count: int = 10) -> float:
    found = nearest_many(index, queries, count)
    return float(
        np.mean(
            [
                len(set(ids.tolist()) & set(rows.ranked(query, count))) / count
                for (ids, _), query in zip(found, queries, strict=True)
            ]
        )
    )


@pytest.mark.parametrize("kind", KINDS)
def test_recall_is_above_nine_tenths_and_scores_are_exact(kind: ApproximateKind) -> None:
    index, rows = filled(kind, 2000)
    assert index.kind == kind
    queries = clustered(np.random.default_rng(3), 40)
    assert recall_of(index, rows, queries) >= 0.9
    for query in queries[:5]:
        ids, scores = nearest(index, query, 10)
        np.testing.assert_array_equal(scores, exact_scores(rows(ids), query))


@pytest.mark.parametrize("kind", KINDS)
def test_more_effort_finds_more(kind: ApproximateKind) -> None:
    queries = clustered(np.random.default_rng(9), 60)
    low, high = (recall_of(*filled(kind, 3000, effort=effort), queries) for effort in (0.02, 4.0))
    assert low < high
    assert high >= 0.98


@pytest.mark.parametrize("kind", KINDS)
def test_large_counts_are_met(kind: ApproximateKind) -> None:
    """Pages of results stay whole however far one turns them."""
    index, rows = filled(kind, 1000)
    index.remove(np.array(sorted(rows.by_id)[::7]))
    for key in sorted(rows.by_id)[::7]:
        del rows.by_id[key]
    query = clustered(np.random.default_rng(4), 1)[0]
    for count in (100, 400, 857, 1000):
        ids, scores = nearest(index, query, count)
        assert len(ids) == len(set(ids.tolist())) == min(count, len(rows.by_id))
        assert (np.diff(scores) <= 1e-4).all()
        if count > len(rows.by_id) // 4:
            assert len(set(ids.tolist()) & set(rows.ranked(query, count))) >= 0.99 * len(ids)


@pytest.mark.parametrize("kind", KINDS)
@settings(max_examples=8, deadline=None)
@given(data=st.data())
def test_nothing_is_lost_however_it_grows_and_shrinks(
    kind: ApproximateKind, data: st.DataObject
) -> None:
    """Every vector is found by itself, none that was removed is, in all its forms."""
    rng = np.random.default_rng(data.draw(st.integers(0, 2**32 - 1)))
    rows = Rows()
    index = GrowingIndex(DIMENSION, options_of(kind, grow_at=300, effort=3.0), rows)
    next_id = 0
    for grows in data.draw(st.lists(st.booleans(), min_size=2, max_size=6)):
        if grows:
            count = int(rng.integers(1, 500))
            ids = next_id + rng.permutation(count).astype(np.int64)
            next_id += count
            rows.add(ids, clustered(rng, count))
            index.add(ids, rows(ids))
        elif rows.by_id:
            gone = rng.permutation(sorted(rows.by_id))[: rng.integers(1, len(rows.by_id) + 1)]
            index.remove(gone)
            for key in gone.tolist():
                del rows.by_id[key]
        index.settle()
        held = np.array(sorted(rows.by_id), dtype=np.int64)
        assert np.sort(index.ids()).tolist() == held.tolist()
        assert len(index) == len(held)
        if len(held):
            np.testing.assert_array_equal(index.vectors(held), rows(held))
            for key in rng.choice(held, 5):
                query = rows.by_id[int(key)]
                ids, _ = nearest(index, query, 3)
                assert set(ids.tolist()) <= set(rows.by_id)
                assert ids[0] == rows.ranked(query, 1)[0]


@pytest.mark.parametrize("kind", KINDS)
def test_one_at_a_time_is_as_all_at_once(kind: ApproximateKind) -> None:
    index, _ = filled(kind, 800)
    queries = clustered(np.random.default_rng(5), 30)
    together = nearest_many(index, queries, 5)
    for query, (ids, scores) in zip(queries, together, strict=True):
        alone = nearest(index, query, 5)
        assert ids.tolist() == alone[0].tolist()
        np.testing.assert_array_equal(scores, alone[1])


def test_exact_below_the_size_and_approximate_from_it_on() -> None:
    for kind in KINDS:
        assert filled(kind, 599)[0].kind is None
        assert filled(kind, 600)[0].kind == kind


def test_clusters_are_made_again_when_twice_as_much_was_added() -> None:
    index, rows = filled("ivf", 700)
    more = np.arange(10_000, 10_699)
    rows.add(more, clustered(np.random.default_rng(6), 699))
    index.add(more, rows(more))
    before = index.base
    index.settle()
    assert index.base is before
    one_more = np.array([20_000])
    rows.add(one_more, clustered(np.random.default_rng(7), 1))
    index.add(one_more, rows(one_more))
    index.settle()
    assert index.base is not before
    assert len(index) == 1400


def test_a_graph_forgets_what_was_removed_when_it_is_a_fifth() -> None:
    index, rows = filled("hnsw", 2000)
    ids = np.array(sorted(rows.by_id))
    index.remove(ids[:400])
    assert int(index.base.inner.ntotal) == 2000  # type: ignore[attr-defined]
    index.remove(ids[400:401])
    assert int(index.base.inner.ntotal) == 1599  # type: ignore[attr-defined]


def test_a_number_that_comes_back_is_the_new_vector() -> None:
    for kind in KINDS:
        index, rows = filled(kind, 1000)
        key = np.array([sorted(rows.by_id)[0]])
        index.remove(key)
        rows.add(key, clustered(np.random.default_rng(8), 1))
        index.add(key, rows(key))
        assert nearest(index, rows(key)[0], 1)[0].tolist() == key.tolist()
        assert len(index) == 1000


def test_auto_is_exact_below_its_size_and_without_faiss() -> None:
    auto = IndexOptions()
    assert approximate_kind(auto, "cpu") == "ivf"
    assert approximate_kind(auto, "cuda") is None
    assert all(
        approximate_kind(IndexOptions(kind=kind), "cpu") is None
        for kind in ("flat", "faiss", "torch")
    )
    with mock.patch.object(importlib.util, "find_spec", return_value=None):
        assert approximate_kind(auto, "cpu") is None
        with pytest.raises(VectorIndexError, match="needs FAISS"):
            GrowingIndex(4, IndexOptions(kind="hnsw"))


@pytest.mark.parametrize(
    ("make", "reason"),
    [
        (
            lambda: filled("ivf", 700, lists=71),
            "takes 710 vectors or more, and there are 700",
        ),
        (lambda: filled("ivf_pq", 100, grow_at=50), "takes 256 vectors or more"),
        (lambda: filled("ivf_pq", 700, code_bytes=5), "code_bytes that divides 16"),
        (lambda: GrowingIndex(4, IndexOptions(kind="ivf_pq")), "give it vectors_of"),
    ],
)
def test_what_cannot_be_made_is_refused(make: Callable[[], object], reason: str) -> None:
    with pytest.raises(VectorIndexError, match=reason):
        make()


def test_too_few_vectors_leave_the_index_as_it_was() -> None:
    rows, rng = Rows(), np.random.default_rng(3)
    index = GrowingIndex(DIMENSION, options_of("ivf", lists=100), rows)
    ids = np.arange(700)
    rows.add(ids, clustered(rng, 700))
    index.add(ids, rows(ids))
    with pytest.raises(VectorIndexError):
        index.settle()
    assert nearest(index, rows(ids)[5], 1)[0].tolist() == [5]


@pytest.mark.parametrize(
    "bad",
    [
        {"kind": "lsh"},
        {"device": "tpu"},
        {"grow_at": 0},
        {"effort": 0.0},
        {"effort": float("nan")},
        {"lists": 0},
        {"links": 1},
    ],
)
def test_options_out_of_range_are_refused(bad: dict[str, object]) -> None:
    with pytest.raises(ValueError, match=next(iter(bad))):
        IndexOptions(**bad)  # type: ignore[arg-type]
