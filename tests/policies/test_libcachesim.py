"""A second opinion: libCacheSim counts the same hits.

On generated streams and a small published trace here; on larger ones by `make caches`. Published
traces need MEMRL_DATA.
"""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import numpy as np
import pytest

from envs.workloads.page_cache import generate_streams
from envs.workloads.traces import load_trace
from memrl.documents import RequestStream
from memrl.policies.belady import least_faults, next_requests
from memrl.policies.cache_rules import RULES, simulate
from memrl.policies.ghost_rules import S3Fifo

libcachesim = pytest.importorskip("libcachesim", reason="libcachesim is not installed")

CACHES = {
    "FIFO": libcachesim.FIFO,
    "LRU": libcachesim.LRU,
    "LFU": libcachesim.LFU,
    "SIEVE": libcachesim.Sieve,
    "S3-FIFO": libcachesim.S3FIFO,
    "ARC": libcachesim.ARC,
    "Belady": libcachesim.Belady,
}
NEVER = 2**63 - 1
TRACES = ("cloudPhysicsIO", "lirs/2_pools", "lirs/cs", "lirs/gli", "lirs/multi1", "lirs/ps")


def cache_of(name: str, capacity: int) -> Any:
    """A cache of libCacheSim; its usual hash table takes 128 MiB."""
    return CACHES[name](cache_size=capacity, hashpower=14)


def hits(cache: Any, requests: list[int], sizes: dict[int, int] | None = None) -> int:
    """Hits that libCacheSim counts."""
    following = [NEVER if place == len(requests) else place for place in next_requests(requests)]
    count = 0
    for page, after in zip(requests, following, strict=True):
        request = libcachesim.Request(obj_id=page + 1, obj_size=sizes[page] if sizes else 1)
        request.next_access_vtime = after
        count += cache.get(request)
    return count


def compare(requests: list[int], capacity: int, sizes: dict[int, int] | None = None) -> None:
    """Every rule, and Belady where pages have one size."""
    for name, make_rule in RULES.items():
        expected = hits(cache_of(name, capacity), requests, sizes)
        assert simulate(make_rule, requests, capacity, sizes) == expected, (name, capacity)
    if sizes is None:
        expected = hits(cache_of("Belady", capacity), requests)
        assert len(requests) - least_faults(requests, capacity) == expected, capacity


def streams() -> dict[str, RequestStream]:
    workload = generate_streams(
        kinds=("zipf", "loop", "scan", "shift"),
        streams_per_kind=2,
        num_requests=1200,
        num_pages=150,
        most_tokens=8,
        rng=np.random.default_rng(0),
    )
    return {stream.stream_id: stream for stream in workload.streams}


@pytest.mark.parametrize(("name", "stream"), streams().items())
def test_hits_on_generated_streams_at_eight_sizes(name: str, stream: RequestStream) -> None:
    del name
    for capacity in (20, 25, 32, 40, 50, 64, 80, 100):
        compare(stream.pages.tolist(), capacity)


@pytest.mark.parametrize("name", ["zipf-00", "scan-00", "shift-00"])
def test_hits_with_pages_of_several_sizes(name: str) -> None:
    stream = streams()[name]
    sizes = dict(enumerate(stream.page_tokens.tolist()))
    for capacity in (90, 150, 250):  # the small queue of S3-FIFO holds the largest page
        compare(stream.pages.tolist(), capacity, sizes)


def test_where_libcachesims_s3_fifo_is_another_one() -> None:
    """With 10 places the small queue has one. libCacheSim admits no page that fills that by itself,
    so that none is ever let in and every request misses; here the second and third are hits."""
    assert hits(cache_of("S3-FIFO", 10), [0, 0, 0]) == 0
    assert simulate(S3Fifo, [0, 0, 0], 10) == 2


def sizes_of(num_pages: int) -> list[int]:
    """Seven or eight: of a trace of few pages two shares come to the least size."""
    shares = (0.005, 0.01, 0.02, 0.05, 0.1, 0.2, 0.3, 0.5)
    return sorted({max(20, round(share * num_pages)) for share in shares})


@pytest.fixture
def traces_dir(data_dir: Path) -> Path:
    if not (data_dir / "cache_traces").is_dir():
        pytest.skip("MEMRL_DATA has no folder cache_traces")
    return data_dir


def test_hits_on_a_small_published_trace(traces_dir: Path) -> None:
    stream = load_trace("lirs/gli", traces_dir).streams[0]
    assert len(stream) == 6015
    for capacity in sizes_of(len(stream.page_tokens))[2:7:2]:
        compare(stream.pages.tolist(), capacity)


@pytest.mark.slow
@pytest.mark.parametrize("name", TRACES)
def test_hits_on_published_traces(name: str, traces_dir: Path) -> None:
    stream = load_trace(name, traces_dir).streams[0]
    for capacity in sizes_of(len(stream.page_tokens)):
        compare(stream.pages.tolist(), capacity)


@pytest.mark.slow
def test_hits_are_the_reference_ones(traces_dir: Path) -> None:
    """Counts made with libCacheSim, and an independent one of MIN, for 11 traces at 3 sizes."""
    reference = json.loads((traces_dir / "cache_traces" / "reference_hits.json").read_text())
    names = {"S3-FIFO": "S3FIFO"}
    for trace, expected in reference["traces"].items():
        path = trace if trace.startswith("cloud") else f"lirs/{trace}"
        requests = load_trace(path, traces_dir).streams[0].pages.tolist()
        assert len(requests) == expected["requests"]
        assert len(set(requests)) == expected["unique"]
        for size, counts in expected["hits"].items():
            for name, make_rule in RULES.items():
                found = simulate(make_rule, requests, int(size))
                assert found == counts[names.get(name, name)], (trace, size, name)
            assert len(requests) - least_faults(requests, int(size)) == counts["OPT"], trace
