"""From the configuration of a page cache to its tables."""

from __future__ import annotations

import functools
from collections.abc import Sequence

import numpy as np

from envs.workloads.page_cache import (
    as_blocks,
    consecutive_windows,
    generate_streams,
    random_windows,
    whole_streams,
)
from envs.workloads.traces import load_trace
from memrl.documents import RequestWindow, Workload
from memrl.request_table import build_request_table
from memrl.seeding import Streams
from memrl.table import EpisodeTable
from memrl.workload_config import WorkloadConfig


def load_page_cache(config: WorkloadConfig) -> Workload:
    """Read the trace or generate the streams that a configuration names."""
    settings = config.page_cache
    if settings.source == "trace":
        return load_trace(settings.trace, config.data_dir)
    return generate_streams(
        kinds=settings.kinds,
        streams_per_kind=settings.streams_per_kind,
        num_requests=settings.num_requests,
        num_pages=settings.num_pages,
        most_tokens=settings.most_tokens,
        rng=Streams(settings.seed).generator("workload", 0),
    )


def request_tables(
    workload: Workload,
    parts: Sequence[Sequence[RequestWindow]],
    config: WorkloadConfig,
    rng: np.random.Generator,
    *,
    blocks: bool,
) -> dict[str, EpisodeTable]:
    """Tables by the names `train`, `validation` and `test`.

    Training episodes are windows at random places, the others lie side by side.

    Args:
        workload: the streams. parts: what of them is in each of the three parts.
        config: how long windows are and how many.
        rng: places of the training windows.
        blocks: the parts share streams, so that each window is a cluster of its own.
    """
    streams, length = workload.streams, config.page_cache.window_requests
    train = random_windows(parts[0], length, config.train_episodes, rng)
    validation = consecutive_windows(parts[1], length, config.validation_episodes)
    test = consecutive_windows(parts[2], length, config.test_episodes)
    if blocks:
        validation, test = (as_blocks(streams, windows) for windows in (validation, test))
    return {
        name: build_request_table(streams, windows, name=workload.name)
        for name, windows in (("train", train), ("validation", validation), ("test", test))
    }


@functools.cache
def example_page_cache_table() -> EpisodeTable:
    """A few generated streams of every kind, in windows of 300 requests of about 60 pages."""
    workload = generate_streams(
        kinds=("zipf", "loop", "scan", "shift"),
        streams_per_kind=2,
        num_requests=1200,
        num_pages=64,
        most_tokens=8,
        rng=np.random.default_rng(0),
    )
    streams = workload.streams
    windows = consecutive_windows(whole_streams(streams, range(len(streams))), 300, 4)
    return build_request_table(streams, windows, name=workload.name)
