"""How many requests per second page caches serve, beside libCacheSim.

    PYTHONPATH=.:tests python tests/benchmarks/cache_rps.py [--repeats 3] [--sizes 16 256 1024]
        [--json FILE]

Zipf streams, a cache of 32 pages. Arms: libCacheSim, asked request by request as its Python package
does; every rule over the requests (`simulate`); and `BatchedPaging`, whole episodes side by side,
as FIFO (`evict_scope="victim"`: nothing is decided), with LRU as a policy, and with a trained
network's cost of deciding left out (random evictions). Each arm's faults are checked against each
other. One thread, processor time; arms are interleaved, medians shown. Nothing is asserted of time.
"""

from __future__ import annotations

import argparse
import statistics
import time
from collections.abc import Callable
from dataclasses import replace
from functools import partial
from pathlib import Path
from typing import Any

import libcachesim
import numpy as np
import torch
from benchmarks.env_sps import save
from rich.console import Console
from rich.progress import track
from rich.table import Table

from envs.batched import BatchedPaging
from envs.workloads.page_cache import make_stream, whole_streams, zipf
from memrl.evaluation.play import play
from memrl.options import PagingOptions
from memrl.policies.base import Policy
from memrl.policies.cache_rules import RULES, simulate
from memrl.policies.heuristics import CacheEviction, UniformRandom, YieldOnly
from memrl.request_table import build_request_table

CAPACITY, NUM_PAGES, NUM_REQUESTS = 32, 400, 500
OPTIONS = PagingOptions(
    capacity=CAPACITY,
    num_slots=CAPACITY,
    archival_capacity=0,
    num_candidates=0,
    evict_scope="any",
    time_scale=100.0,
)
LIBCACHESIM = {"FIFO": libcachesim.FIFO, "LRU": libcachesim.LRU, "ARC": libcachesim.ARC}
Arm = Callable[[], int]
"""Serves all requests of its episodes; returns their hits."""


def streams(count: int) -> list[list[int]]:
    """Requests of so many episodes."""
    rngs = np.random.default_rng(0).spawn(count)
    return [zipf(NUM_REQUESTS, NUM_PAGES, rng).tolist() for rng in rngs]


def ask_libcachesim(name: str, requests: list[list[int]]) -> int:
    """Hits of one cache of libCacheSim an episode."""
    hits = 0
    for own in requests:
        cache = LIBCACHESIM[name](cache_size=CAPACITY, hashpower=10)
        request = libcachesim.Request(obj_size=1)
        for page in own:
            request.obj_id = page + 1
            hits += cache.get(request)
    return hits


def simulated(name: str, requests: list[list[int]]) -> int:
    """The same of a rule here."""
    return sum(simulate(RULES[name], own, CAPACITY) for own in requests)


class Group:
    """Episodes side by side."""

    def __init__(self, requests: list[list[int]], options: PagingOptions, policy: Policy) -> None:
        made = [
            make_stream(f"s{number}", np.array(own), np.ones(NUM_PAGES, dtype=np.int64), "zipf")
            for number, own in enumerate(requests)
        ]
        table = build_request_table(made, whole_streams(made, range(len(made))), name="zipf")
        self._group, self._policy = BatchedPaging(table, options, len(made)), policy

    def __call__(self) -> int:
        """Play all episodes."""
        records = play(self._group, self._policy, range(self._group.num_envs))
        return sum(record.hits for record in records)


def arms(sizes: list[int]) -> dict[tuple[str, int], Arm]:
    """Every arm by name and number of episodes."""
    few = streams(16)
    made: dict[tuple[str, int], Arm] = {}
    for name in LIBCACHESIM:
        made[f"libCacheSim {name}", 16] = partial(ask_libcachesim, name, few)
    for name in RULES:
        made[f"simulate {name}", 16] = partial(simulated, name, few)
    fifo = replace(OPTIONS, evict_scope="victim")
    for size in sizes:
        requests = streams(size)
        made["BatchedPaging FIFO", size] = Group(requests, fifo, YieldOnly())
        made["BatchedPaging LRU", size] = Group(requests, OPTIONS, CacheEviction("recency"))
        generator = torch.Generator().manual_seed(0)
        made["BatchedPaging random", size] = Group(requests, OPTIONS, UniformRandom(generator))
    return made


def check(hits: dict[tuple[str, int], int]) -> None:
    """Stop where arms that play the same rule on the same requests differ."""
    for name in LIBCACHESIM:
        same = {hits[f"{kind} {name}", 16] for kind in ("libCacheSim", "simulate")}
        same |= {hits[key] for key in hits if key == (f"BatchedPaging {name}", 16)}
        if len(same) != 1:
            raise AssertionError(f"{name} has different hits: {sorted(same)}")


def main() -> None:
    """Measure, print, and save if asked to."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--repeats", type=int, default=3)
    parser.add_argument("--sizes", type=int, nargs="+", default=[16, 256, 1024])
    parser.add_argument("--json", type=Path)
    arguments = parser.parse_args()
    torch.set_num_threads(1)
    made = arms(arguments.sizes)
    seconds: dict[tuple[str, int], list[float]] = {key: [] for key in made}
    hits: dict[tuple[str, int], int] = {}
    for _ in track(range(arguments.repeats), description="repeats"):
        for key, arm in made.items():
            start = time.process_time()
            hits[key] = arm()
            seconds[key].append(time.process_time() - start)
    check(hits)
    rows: list[dict[str, Any]] = []
    table = Table(title=f"requests per processor second, {CAPACITY} pages of {NUM_PAGES}")
    for column in ("arm", "episodes", "hit ratio", "requests/s", "lowest", "highest"):
        table.add_column(column, justify="left" if column == "arm" else "right")
    for (name, size), taken in seconds.items():
        requests = size * NUM_REQUESTS
        rates = sorted(requests / value for value in taken)
        ratio = hits[name, size] / requests
        row = {"arm": name, "episodes": size, "hit_ratio": ratio, "requests_per_s": rates}
        rows.append(row)
        numbers = (statistics.median(rates), rates[0], rates[-1])
        table.add_row(name, str(size), f"{ratio:.3f}", *(f"{rate:,.0f}" for rate in numbers))
    Console(width=120).print(table)
    if arguments.json:
        save(arguments.json, rows, "cpu")


if __name__ == "__main__":
    main()
