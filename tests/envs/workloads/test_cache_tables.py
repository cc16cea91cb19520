"""From a configuration to the tables of a page cache."""

from __future__ import annotations

import dataclasses
import warnings
from pathlib import Path
from typing import Any

import gymnasium
import numpy as np
import pytest
from gymnasium.utils.env_checker import check_env
from gymnasium.wrappers import FlattenObservation

from envs.workloads import describe
from envs.workloads.cache_tables import example_page_cache_table
from envs.workloads.loading import load_workload
from envs.workloads.tables import data_record, preset_tables, split_tables
from memrl.config import ConfigurationError, RunConfig
from memrl.options import PagingOptions
from memrl.policies.cache_rules import RULES
from memrl.policies.rule_eviction import RuleEviction
from memrl.table import EpisodeTable
from memrl.workload_config import PageCacheConfig, SplitConfig, WorkloadConfig

ROOT = Path(__file__).resolve().parents[3]
SMALL = WorkloadConfig(
    name="page_cache",
    train_episodes=3,
    validation_episodes=2,
    test_episodes=9,
    page_cache=PageCacheConfig(
        streams_per_kind=2, num_requests=200, num_pages=20, window_requests=50
    ),
)
CACHE = PagingOptions(capacity=4, evict_scope="any")


def put_trace(folder: Path, length: int = 120) -> WorkloadConfig:
    """A trace of so many requests."""
    path = folder / "cache_traces" / "t.trace"
    path.parent.mkdir()
    path.write_text("".join(f"{number % 17}\n*\n" for number in range(length)))
    cache = dataclasses.replace(SMALL.page_cache, source="trace", trace="t", window_requests=20)
    return dataclasses.replace(SMALL, data_dir=str(folder), page_cache=cache)


def test_streams_are_split_like_documents() -> None:
    workload = load_workload(SMALL)
    tables = split_tables(workload, SplitConfig(validation_frac=0.2, test_frac=0.3), SMALL)
    counts = [(tables.train, 3), (tables.validation, 2), (tables.test, 4)]
    clusters: list[set[str]] = []
    for table, per_stream in counts:
        streams = set(table.text.document_ids)
        assert table.num_episodes == per_stream * len(streams)
        assert set(table.episode_num_events.tolist()) == {50}
        clusters.append(streams)
    assert sum(map(len, clusters)) == len(set().union(*clusters)) == 8
    assert tables.statistics is None


def test_the_tables_do_not_depend_on_anything_but_the_configuration() -> None:
    one, two = (split_tables(load_workload(SMALL), SplitConfig(), SMALL) for _ in range(2))
    for name in ("train", "validation", "test"):
        assert getattr(one, name).content_hash() == getattr(two, name).content_hash()
    record = data_record(load_workload(SMALL), one)
    assert set(record["tables"]) == {"train", "validation", "test"}


def test_a_trace_is_split_in_time(tmp_path: Path) -> None:
    config = put_trace(tmp_path)
    workload = load_workload(config)
    assert workload.repairs == {"breakpoints (*) skipped": 120}
    split = SplitConfig(kind="halves", validation_frac=0.4)
    tables = split_tables(workload, split, config)
    assert set(tables.train.text.document_ids) == {"t"}
    assert tables.validation.text.document_ids == ["t@36"]
    assert tables.test.text.document_ids == ["t@60", "t@80", "t@100"]
    first = [int(page) for page in tables.test.text.page_ids[:17]]
    assert first == [(60 + number) % 17 for number in range(17)]
    assert "1 streams, 120 requests of 17 pages" in describe(workload)
    assert "breakpoints" in describe(workload)


def test_a_short_trace_is_refused_in_one_line(tmp_path: Path) -> None:
    config = put_trace(tmp_path, 5)
    with pytest.raises(ConfigurationError, match="too few for two halves"):
        split_tables(load_workload(config), SplitConfig(kind="halves"), config)


def test_a_table_is_kept_on_disk(tmp_path: Path) -> None:
    table = example_page_cache_table()
    table.save(tmp_path / "t.safetensors")
    again = EpisodeTable.load(tmp_path / "t.safetensors")
    assert again.content_hash() == table.content_hash()
    assert again.has_requests


def test_the_preset_plays_and_its_options_hold() -> None:
    arguments = ("--workload.page_cache.streams_per_kind", "2", "--workload.train_episodes", "2")
    tables, options = preset_tables(ROOT / "configs/page_cache.yaml", *arguments)
    env: Any = gymnasium.make("memrl/PageCache-v0", table=tables.test, options=options)
    observation, _ = env.reset(seed=0)
    assert observation["slots"].shape[0] == options.capacity + 1
    RuleEviction(RULES["ARC"], options)


# ---------------------------------------------------------------------- what is refused


@pytest.mark.parametrize(
    ("changes", "message"),
    [
        ({"split": SplitConfig(kind="halves")}, "halves divides streams of requests in time"),
        (
            {
                "workload": dataclasses.replace(SMALL, page_cache=PageCacheConfig(source="trace")),
                "paging": CACHE,
            },
            "give --split.kind halves",
        ),
        (
            {
                "workload": SMALL,
                "paging": CACHE,
                "split": SplitConfig(kind="halves"),
                "folds": True,
            },
            "folds leave streams out",
        ),
        ({"workload": SMALL}, "is FIFO and has nothing to learn"),
    ],
)
def test_configurations_that_do_not_fit(changes: dict[str, Any], message: str) -> None:
    with pytest.raises(ValueError, match=message):
        RunConfig(**changes)


@pytest.mark.parametrize(
    ("changes", "message"),
    [
        ({"num_pages": 7}, "num_pages must be at least 8"),
        ({"window_requests": 0}, "window_requests must be at least 1"),
        ({"kinds": ()}, "kinds must name at least one"),
    ],
)
def test_streams_that_cannot_be(changes: dict[str, Any], message: str) -> None:
    with pytest.raises(ValueError, match=message):
        PageCacheConfig(**changes)


# ---------------------------------------------------------------------- Gymnasium


def test_the_registered_environment_is_a_cache() -> None:
    env: Any = gymnasium.make("memrl/PageCache-v0")
    observation, info = env.reset(seed=0)
    assert observation["slots"].shape[0] == 17
    assert observation["candidates"].shape[0] == 0
    assert info["handles"].shape == (17,)
    rng, total, terminated = np.random.default_rng(0), 0.0, False
    while not terminated:
        action = np.int64(rng.choice(np.flatnonzero(info["action_mask"])))
        _, reward, terminated, _, info = env.step(action)
        total += reward
    assert total == env.unwrapped._lockstep.log(0).hits > 0


@pytest.mark.parametrize("fields", [{}, {"unit": "tokens", "capacity": 40}, {"shown_slots": 5}])
def test_checkers_have_nothing_to_say(fields: dict[str, Any]) -> None:
    sb3 = pytest.importorskip("stable_baselines3.common.env_checker")
    with warnings.catch_warnings():
        warnings.simplefilter("error")
        check_env(gymnasium.make("memrl/PageCache-v0", **fields).unwrapped)
        sb3.check_env(FlattenObservation(gymnasium.make("memrl/PageCache-v0", **fields)))


@pytest.mark.parametrize("render_mode", ["ansi", "rgb_array"])
def test_a_cache_is_rendered(render_mode: str) -> None:
    env: Any = gymnasium.make("memrl/PageCache-v0", render_mode=render_mode, capacity=3)
    env.reset(seed=0)
    _, _, _, _, info = env.step(np.int64(2))
    assert not info["illegal"]
    shown = env.render()
    if render_mode == "ansi":
        log = env.unwrapped._lockstep.log(0)
        assert f"requests {log.requests} | hit ratio {log.hits / log.requests:.2f}" in shown
        assert "does not fit" in shown
    else:
        assert shown.ndim == 3


def test_options_can_be_given_singly() -> None:
    env: Any = gymnasium.make("memrl/PageCache-v0", capacity=40, shown_slots=6)
    assert env.reset(seed=0)[0]["slots"].shape[0] == 8
    assert env.unwrapped.options.archival_capacity == 0
