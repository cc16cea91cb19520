"""What iterations play: as ever on a whole table, fairly and reproducibly shard by shard."""

from __future__ import annotations

import itertools
from collections import Counter
from collections.abc import Sequence
from pathlib import Path
from typing import Any, cast

import numpy as np
import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st
from table_fixtures import small_table

from envs.batched import BatchedPaging
from envs.part_tensors import bytes_of_parts, playing_bytes
from envs.sharded import ShardedPaging
from memrl.algos.decisions import KINDS
from memrl.algos.episode_draws import (
    Sharded,
    by_shard,
    draw_episodes,
    require_same_shards,
    shards_record,
)
from memrl.algos.gain_regression import GainRegression
from memrl.algos.group_policy_gradient import GroupPolicyGradient
from memrl.checkpoint import CheckpointError, load_checkpoint, save_checkpoint
from memrl.config import LearnerConfig, NetworkConfig
from memrl.groups import PagingGroup
from memrl.options import PagingOptions
from memrl.policy_gradient_config import PolicyGradientConfig
from memrl.seeding import Streams
from memrl.table import EpisodeTable
from memrl.table_shards import TableShards, split_table

CPU = torch.device("cpu")
OPTIONS = PagingOptions(
    capacity=3, num_candidates=2, archival_capacity=4, staging="hybrid", operation_budget=4
)


class Divided:
    """As much of a group as draws look at, with shards of given sizes, episodes shuffled."""

    def __init__(self, sizes: Sequence[int], seed: int = 0) -> None:
        episodes = np.random.default_rng(seed).permutation(sum(sizes))
        parts = np.split(episodes, np.cumsum(sizes)[:-1])
        self.table = cast("EpisodeTable", type("Table", (), {"num_episodes": sum(sizes)}))
        self.shards = TableShards(self.table, tuple(parts), 1)
        self.expected: list[int] = []

    def expect(self, shard: int) -> None:
        self.expected.append(shard)


def drawn(
    group: Any, count: int, iterations: Sequence[int], *, seed: int = 0, attempt: int = 0
) -> Any:
    streams = Streams(seed)
    return [draw_episodes(group, count, streams, 20, attempt, i).tolist() for i in iterations]


def shard_of(group: Divided, episodes: Sequence[int]) -> int:
    (shard,) = set(group.shards.shard_of[list(episodes)].tolist())
    return int(shard)


# ---------------------------------------------------------------------- a whole table


@pytest.mark.parametrize("count", [3, 8, 20])
def test_a_whole_table_is_drawn_from_as_ever(count: int) -> None:
    group = BatchedPaging(small_table(0), OPTIONS, 1)
    streams = Streams(5)
    expected = streams.generator("workload", 20, 1, 7).choice(8, size=count, replace=count > 8)
    assert np.array_equal(draw_episodes(group, count, streams, 20, 1, 7), expected)
    single = Divided([8])
    assert np.array_equal(draw_episodes(cast("Any", single), count, streams, 20, 1, 7), expected)
    assert single.expected == []
    assert not isinstance(group, Sharded)
    assert list(by_shard(group, [3, 1, 3])) == [[0, 1, 2]]


# ---------------------------------------------------------------------- shards

SIZES = st.lists(st.integers(1, 12), min_size=2, max_size=4)


def after_passes(sizes: Sequence[int], count: int, passes: int) -> int:
    """Iterations of so many passes."""
    return sum(passes * size // count for size in sizes)


@given(sizes=SIZES, count=st.integers(1, 8), seed=st.integers(0, 3))
@settings(max_examples=60)
def test_every_episode_is_drawn_equally_often(sizes: list[int], count: int, seed: int) -> None:
    group = Divided(sizes)
    iterations = drawn(group, count, range(sum(sizes)), seed=seed)  # `count` passes
    for passes in range(1, count + 1):
        so_far = Counter(itertools.chain(*iterations[: after_passes(sizes, count, passes)]))
        for numbers in group.shards.episodes:
            counts = [so_far[episode] for episode in numbers.tolist()]
            assert max(counts) - min(counts) <= 1
            assert passes * len(numbers) - count < sum(counts) <= passes * len(numbers)
    assert set(so_far.values()) == {count}, "now the passes have come out even"
    assert len(so_far) == sum(sizes)


@given(sizes=SIZES, count=st.integers(1, 8), seed=st.integers(0, 3))
@settings(max_examples=30)
def test_iterations_stay_at_a_shard_and_know_the_next(
    sizes: list[int], count: int, seed: int
) -> None:
    group = Divided(sizes)
    iterations = drawn(group, count, range(40), seed=seed)
    played = [shard_of(group, episodes) for episodes in iterations]
    for number, (now, expected) in enumerate(zip(played, group.expected, strict=True)):
        later = [shard for shard in played[number:] if shard != now]
        assert expected != now
        assert not later or expected == later[0]
    # A shard is visited once a pass, for all its iterations in a row.
    for passes in range(1, 4):
        own = played[after_passes(sizes, count, passes - 1) : after_passes(sizes, count, passes)]
        visits = [shard for number, shard in enumerate(own) if own[number - 1 : number] != [shard]]
        assert len(visits) == len(set(visits))


def test_draws_are_a_function_of_seed_attempt_and_iteration() -> None:
    group = Divided([7, 3, 5])
    forwards = drawn(group, 4, range(60))
    assert drawn(group, 4, range(59, -1, -1)) == forwards[::-1]
    assert drawn(group, 4, [41])[0] == forwards[41]
    assert drawn(group, 4, range(60), seed=1) != forwards
    assert drawn(group, 4, range(60), attempt=1) != forwards
    orders = set()
    for start in range(0, 150, 15):  # with one episode an iteration, a pass takes as many of them
        played = [shard_of(group, part) for part in drawn(group, 1, range(start, start + 15))]
        orders.add(tuple(dict.fromkeys(played)))
    assert len(orders) > 1, "the order of the shards is drawn anew for every pass"


def test_far_iterations_are_found_at_once() -> None:
    group = Divided([100_003, 77, 50_000])
    (one,), (again,) = (drawn(group, 64, [10**9]) for _ in range(2))
    assert one == again
    assert shard_of(group, one) in (0, 1, 2)


def test_episodes_are_divided_by_their_shards() -> None:
    group = Divided([4, 3, 5])
    asked = [11, 0, 3, 3, 7, 1]
    places = list(by_shard(cast("Any", group), asked))
    assert sorted(itertools.chain(*places)) == list(range(len(asked)))
    parts = [[asked[place] for place in own] for own in places]
    assert sorted(itertools.chain(*parts)) == sorted(asked)
    shards = [shard_of(group, part) for part in parts]
    assert shards == sorted(set(shards))
    assert group.expected == shards[1:]
    assert all(own == sorted(own) for own in places), "in the order asked for"


# ---------------------------------------------------------------------- learners


def table() -> EpisodeTable:
    return small_table(1, num_documents=5, num_pages=8, num_episodes=11, num_queries=3)


def divided(num_envs: int, share: float = 0.5, prefetch: bool = False) -> ShardedPaging:
    whole = table()
    shards = split_table(whole, int(share * playing_bytes(whole)), bytes_of_parts(whole))
    return ShardedPaging(shards, OPTIONS, num_envs, prefetch=prefetch)


def gradient(group: PagingGroup | None = None, seed: int = 0) -> GroupPolicyGradient:
    config = PolicyGradientConfig(
        total_timesteps=4_000,
        num_groups=3,
        group_size=2,
        num_minibatches=2,
        learning_rate=1e-2,
    )
    return GroupPolicyGradient(
        group or divided(6),
        NetworkConfig(hidden=8, slot_pool=False),
        config,
        Streams(seed),
        gain_scale=0.1,
        initial=None,
        device=CPU,
    )


def regression(group: PagingGroup | None = None) -> GainRegression:
    config = LearnerConfig(rounds=3, episodes_per_round=7, updates_per_round=3, batch_size=16)
    return GainRegression(
        group or divided(3),
        NetworkConfig(hidden=8),
        config,
        Streams(0),
        thresholds=(0.0,),
        device=CPU,
    )


def equal(first: dict[str, torch.Tensor], second: dict[str, torch.Tensor]) -> bool:
    return first.keys() == second.keys() and all(
        torch.equal(value, second[name]) for name, value in first.items()
    )


def test_the_policy_gradient_goes_on_across_shards_bit_for_bit(tmp_path: Path) -> None:
    whole = gradient()
    metrics, checkpoints, shards = [], [], []
    for number in range(9):
        save_checkpoint(tmp_path / str(number), *whole.checkpoint())
        metrics.append(whole.iterate())
        checkpoints.append(whole.checkpoint()[0])
        shards.append(cast("Any", whole)._group._window.present)
    borders = [number for number in range(1, 9) if shards[number] != shards[number - 1]]
    assert len(set(shards)) >= 2
    assert len(borders) >= 3
    for number in (borders[0] - 1, borders[0], borders[-1], 8):
        resumed = gradient(divided(6, prefetch=True))
        resumed.restore(*load_checkpoint(tmp_path / str(number)))
        for later in range(number, min(number + 2, 9)):
            assert resumed.iterate() == metrics[later]
            assert equal(resumed.checkpoint()[0], checkpoints[later])


def test_one_shard_learns_as_a_whole_table_does() -> None:
    plain, single = gradient(BatchedPaging(table(), OPTIONS, 6)), gradient(divided(6, 1.0))
    for _ in range(2):
        assert plain.iterate() == single.iterate()
    assert equal(plain.checkpoint()[0], single.checkpoint()[0])


def test_gain_regression_sees_the_same_decisions_in_shards() -> None:
    """Neither what is drawn nor the order of the decisions depends on shards."""
    learners = regression(BatchedPaging(table(), OPTIONS, 3)), regression()
    assert len(cast("Any", learners[1])._group.shards) >= 2
    played = []
    for learner in learners:
        for _ in range(2):  # heuristics, then mostly the learner
            learner.begin_round()
        names = ("globals", "labels", "action_mask")
        kept = [[learner.dataset[kind].column(name) for name in names] for kind in KINDS]
        played.append(
            [
                (row.tolist(), labels[mask].tolist())
                for columns in kept
                for row, labels, mask in zip(*columns, strict=True)
            ]
        )
    assert len(played[0]) > 40
    assert played[0] == played[1]


def test_gain_regression_goes_on_in_shards_bit_for_bit(tmp_path: Path) -> None:
    whole = regression()
    for _ in range(2):
        whole.begin_round()
        whole.update()
    save_checkpoint(tmp_path, *whole.checkpoint())
    resumed = regression(divided(3, prefetch=True))
    resumed.restore(*load_checkpoint(tmp_path))
    assert [whole.update() for _ in range(2)] == [resumed.update() for _ in range(2)]
    assert equal(whole.checkpoint()[0], resumed.checkpoint()[0])


@pytest.mark.parametrize("make", [gradient, regression])
def test_other_shards_are_refused(make: Any) -> None:
    num_envs = 6 if make is gradient else 3
    learner = make(divided(num_envs))
    if make is regression:
        learner.begin_round()
    tensors, state = learner.checkpoint()
    most_bytes = learner._group.shards.most_bytes
    with pytest.raises(CheckpointError, match=f"resume with --shard_bytes {most_bytes}"):
        make(BatchedPaging(table(), OPTIONS, num_envs)).restore(tensors, state)
    with pytest.raises(CheckpointError, match="would now draw them from"):
        make(divided(num_envs, 0.35)).restore(tensors, state)


def test_checkpoints_from_before_there_were_shards() -> None:
    plain = BatchedPaging(table(), OPTIONS, 6)
    require_same_shards(plain, None)
    assert shards_record(plain) == {"episodes": [11]}
    with pytest.raises(CheckpointError, match="a larger --shard_bytes"):
        require_same_shards(divided(6), None)
    require_same_shards(divided(6, 1.0), None)
    record = shards_record(divided(6))
    require_same_shards(divided(6), record)
    require_same_shards(divided(6), record | {"most_bytes": 1})  # other bytes, the same shards
