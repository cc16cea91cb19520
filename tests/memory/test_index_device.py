"""GPU indices: guarded by what is there, and, with a FAISS that stands in for one, in their use.

The stand-in copies an index on the CPU and takes what FAISS takes on a GPU: no selector, no more
than 2,048 proposals. Tests marked gpu run on a CUDA device.
"""

from __future__ import annotations

from typing import Any
from unittest import mock

import numpy as np
import pytest
import torch
from vector_fixtures import DIMENSION, Rows, clustered

from memrl.memory import index_device
from memrl.memory.growing_index import GrowingIndex
from memrl.memory.index_device import GpuFaissIndex, check_memory, gpu_bytes, resolve_device
from memrl.memory.index_options import IndexKind, IndexOptions, VectorIndexError
from memrl.memory.vector_index import TorchIndex, nearest, nearest_many


@pytest.fixture
def no_gpu(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(torch.cuda, "is_available", lambda: False)
    monkeypatch.setattr(index_device, "has_faiss_gpu", lambda: False)


class OnGpu:
    """An index as FAISS has it on a GPU."""

    def __init__(self, inner: Any) -> None:
        self.inner, self.num_searches = inner, 0

    def add_with_ids(self, vectors: Any, ids: Any) -> None:
        self.inner.add_with_ids(vectors, ids)

    def search(self, queries: Any, count: int, params: Any = None) -> Any:
        assert count <= 2048
        assert getattr(params, "sel", None) is None
        self.num_searches += 1
        return self.inner.search(queries, count, params=params)


class FakeGpu:
    """What is added to FAISS by its GPU build."""

    def __init__(self) -> None:
        self.copies: list[OnGpu] = []
        self.is_full = False

    def resources(self) -> Any:
        return mock.Mock()

    def copied(self, resources: Any, device: int, index: Any) -> OnGpu:
        import faiss

        assert device == 0
        resources.setTempMemory.assert_called_once()
        if self.is_full:
            raise RuntimeError("Error in ...\nStandardGpuResources: alloc fail type FlatData")
        self.copies.append(OnGpu(faiss.clone_index(index)))
        return self.copies[-1]


@pytest.fixture
def fake_gpu(monkeypatch: pytest.MonkeyPatch) -> FakeGpu:
    faiss = pytest.importorskip("faiss")
    gpu = FakeGpu()
    monkeypatch.setattr(faiss, "StandardGpuResources", gpu.resources, raising=False)
    monkeypatch.setattr(faiss, "index_cpu_to_gpu", gpu.copied, raising=False)
    monkeypatch.setattr(faiss, "get_num_gpus", lambda: 1)
    return gpu


@pytest.mark.usefixtures("no_gpu")
@pytest.mark.parametrize("kind", ["auto", "flat", "torch", "faiss", "ivf", "hnsw", "ivf_pq"])
def test_without_a_gpu_cuda_is_refused_and_auto_is_the_cpu(kind: IndexKind) -> None:
    reason = "CPU only" if kind in ("hnsw", "ivf_pq") else "finds none here: set device to auto"
    with pytest.raises(VectorIndexError, match=reason):
        resolve_device(IndexOptions(kind=kind, device="cuda"))
    assert resolve_device(IndexOptions(kind=kind, device="auto")) == "cpu"
    assert resolve_device(IndexOptions(kind=kind)) == "cpu"


@pytest.mark.parametrize("kind", ["flat", "ivf"])
def test_a_copy_on_the_gpu_searches_what_the_index_holds(fake_gpu: FakeGpu, kind: Any) -> None:
    rows, rng = Rows(), np.random.default_rng(0)
    index = GrowingIndex(DIMENSION, IndexOptions(kind=kind, device="cuda", grow_at=900, effort=9.0))
    assert index.device == "cuda"

    def add(first: int, last: int) -> None:
        ids = np.arange(first, last)
        rows.add(ids, clustered(rng, last - first))
        index.add(ids, rows(ids))
        index.settle()

    def remove(*ids: int) -> None:
        index.remove(np.array(ids))
        for key in ids:
            del rows.by_id[key]

    def check() -> None:
        queries = clustered(rng, 3)
        for count in (3, 900, 3000):
            for query, (ids, _) in zip(queries, nearest_many(index, queries, count), strict=True):
                assert len(ids) == min(count, len(rows.by_id))
                assert set(ids.tolist()) <= set(rows.by_id)
                assert ids[0] == rows.ranked(query, 1)[0]

    add(0, 1000)
    check()
    add(1000, 1100)
    check()
    assert len(fake_gpu.copies) == 1
    remove(5, 700)
    check()
    remove(*range(100, 400))
    check()
    add(5, 6)  # which is dead on the GPU
    check()
    add(2000, 4500)
    check()
    assert all(copy.num_searches for copy in fake_gpu.copies)
    assert isinstance(index._index, GpuFaissIndex)
    assert np.sort(index.ids()).tolist() == sorted(rows.by_id)


def test_a_gpu_stays_exact_where_the_kind_is_left_open(fake_gpu: FakeGpu) -> None:
    del fake_gpu
    assert GrowingIndex(4, IndexOptions(device="auto")).approximate is None
    assert GrowingIndex(4, IndexOptions(kind="ivf", device="auto")).device == "cuda"
    assert GrowingIndex(4, IndexOptions(kind="hnsw", device="auto")).device == "cpu"


def test_memory_that_does_not_suffice_says_how_much_is_needed(
    fake_gpu: FakeGpu, monkeypatch: pytest.MonkeyPatch
) -> None:
    needed = gpu_bytes(10**6, 384)
    assert 1.9e9 < needed < 2.5e9
    with pytest.raises(VectorIndexError, match=r"needs 2\.\d\d GB .* 1\.00 GB are free"):
        check_memory(needed, 10**9)
    check_memory(needed, needed)
    check_memory(needed, None)
    index = GrowingIndex(DIMENSION, IndexOptions(kind="flat", device="cuda"))
    index.add(np.arange(500), clustered(np.random.default_rng(0), 500))
    query = clustered(np.random.default_rng(1), 1)[0]
    fake_gpu.is_full = True
    with pytest.raises(VectorIndexError, match=r"needs 0\.27 GB \(StandardGpu.*alloc fail"):
        nearest(index, query, 1)
    fake_gpu.is_full = False
    monkeypatch.setattr(index_device, "free_gpu_bytes", lambda: 1000)
    with pytest.raises(VectorIndexError, match=r"needs 0\.27 GB of GPU memory"):
        nearest(index, query, 1)
    monkeypatch.setattr(index_device, "free_gpu_bytes", lambda: None)
    assert len(nearest(index, query, 5)[0]) == 5


@pytest.mark.gpu
@pytest.mark.parametrize("kind", ["torch", "flat", "ivf"])
def test_a_real_gpu_finds_what_the_cpu_finds(kind: IndexKind) -> None:
    rng = np.random.default_rng(0)
    ids, vectors = np.arange(30_000), clustered(rng, 30_000, 384)
    options = IndexOptions(kind=kind, device="auto", effort=4.0)
    if resolve_device(options) == "cpu":
        pytest.skip("FAISS is not its GPU build")
    index, exact = GrowingIndex(384, options), TorchIndex(384)
    for some in (index, exact):
        some.add(ids, vectors)
        some.remove(ids[::100])
    index.settle()
    queries = clustered(rng, 50, 384)
    pairs = zip(nearest_many(index, queries, 10), nearest_many(exact, queries, 10), strict=True)
    shared = [len(set(one[0].tolist()) & set(other[0].tolist())) / 10 for one, other in pairs]
    assert np.mean(shared) >= (0.95 if kind == "ivf" else 1.0)
