from __future__ import annotations

import itertools
import time
from collections.abc import Mapping, Sequence
from dataclasses import replace
from typing import Any

import numpy as np
import pytest
import torch
from table_fixtures import REWARD, small_table
from torch import Tensor

from envs.batched import BatchedPaging
from envs.lockstep import LockstepPaging
from memrl.config import EvaluationConfig
from memrl.evaluation import lineup
from memrl.evaluation.lineup import Arena, SideBySide
from memrl.evaluation.play import EpisodeRecord, mean_reward_per_question
from memrl.groups import PagingGroup
from memrl.options import STAGINGS, PagingOptions
from memrl.policies.base import Contestant, Policy
from memrl.policies.clairvoyant import Clairvoyant
from memrl.policies.heuristics import (
    CacheEviction,
    ChainSearch,
    StoreAndRetrieve,
    UniformRandom,
    YieldOnly,
)
from memrl.policies.network import GreedyGain, SampledGain, SetNetwork
from memrl.privileged import PrivilegedState
from memrl.table import EpisodeTable

OPTIONS = PagingOptions(
    capacity=3,
    num_slots=3,
    num_candidates=2,
    archival_capacity=6,
    operation_budget=5,
    reward=REWARD,
)
CONFIG = EvaluationConfig(
    top_k=(1, 4), prior_thresholds=(0.0, 0.5, 1.0), store_offsets=(-0.1, 0.0, 0.2)
)


def table() -> EpisodeTable:
    return small_table(6, num_documents=3, num_pages=10, num_episodes=6, num_queries=4)


def generator() -> torch.Generator:
    return torch.Generator().manual_seed(0)


class Hall:
    """Makes groups and notes with which options and for how many rows."""

    def __init__(self) -> None:
        self.made: list[tuple[PagingOptions, int]] = []

    def __call__(self, made: EpisodeTable, options: PagingOptions, num_envs: int) -> PagingGroup:
        self.made.append((options, num_envs))
        return BatchedPaging(made, options, num_envs)


def timeless(records: Sequence[EpisodeRecord]) -> list[EpisodeRecord]:
    return [replace(record, decision_s=0.0) for record in records]


# ---------------------------------------------------------------------------------------- arena


def contestants() -> list[Contestant]:
    return [
        Contestant("a", StoreAndRetrieve(top_k=2)),
        Contestant("b", CacheEviction("recency"), {"evict_scope": "any"}),
        Contestant("c", UniformRandom(generator())),
        Contestant("d", YieldOnly(), {"evict_fraction": 0.5}),
        Contestant("e", Clairvoyant(REWARD)),
        Contestant("f", StoreAndRetrieve(top_k=2), {"staging": "lexical"}),
        Contestant("g", YieldOnly()),
    ]


def test_contestants_leave_the_same_records_together_and_alone() -> None:
    hall = Hall()
    together = Arena(table(), OPTIONS, hall).play(contestants())
    # Those with the same options play side by side: a, c, e, g with the preset's.
    assert sorted(num_envs for _, num_envs in hall.made) == [6, 6, 6, 24]
    for contestant, records in zip(contestants(), together, strict=True):
        (alone,) = Arena(table(), OPTIONS, BatchedPaging).play([contestant])
        assert timeless(records) == timeless(alone)
        assert [record.episode for record in records] == list(range(6))
    totals = [sum(record.episode_return for record in records) for records in together]
    assert len({round(total, 6) for total in totals}) >= 6  # they can be told apart


def test_an_arena_can_play_a_part_of_its_table() -> None:
    arenas = [Arena(table(), OPTIONS, BatchedPaging, most) for most in (3, 50)]
    assert arenas[0].table.num_episodes == 3, "the rest is not put where they are played"
    assert arenas[1].table is table()
    (few,), (all_six,) = (arena.play(contestants()[:1]) for arena in arenas)
    assert [record.episode for record in few] == [0, 2, 4]
    assert [record.episode for record in all_six] == list(range(6))
    assert timeless(few) == timeless(all_six[::2])


def test_overrides_are_respected() -> None:
    hall = Hall()
    played = Arena(table(), OPTIONS, hall).play(contestants())
    assert {options for options, _ in hall.made} == {
        OPTIONS,
        replace(OPTIONS, evict_scope="any"),
        replace(OPTIONS, evict_fraction=0.5),
        replace(OPTIONS, staging="lexical"),
    }
    evictions = [sum(record.operations["evict"] for record in records) for records in played]
    assert evictions[1] > 0
    assert [evictions[i] for i in (0, 2, 3, 4, 5, 6)] == [0] * 6
    # A flushed queue holds less when a query is answered.
    assert sum(r.tokens_read for r in played[3]) < sum(r.tokens_read for r in played[6])


def test_both_environments_serve_as_an_arena() -> None:
    played = [
        Arena(table(), OPTIONS, make_group).play(contestants()[:2])
        for make_group in (LockstepPaging, BatchedPaging)
    ]
    for slow, fast in zip(*played, strict=True):
        assert [r.operations for r in slow] == [r.operations for r in fast]
        returns = [[r.episode_return for r in records] for records in (slow, fast)]
        assert returns[0] == pytest.approx(returns[1])


def test_every_record_carries_the_time_of_its_policy() -> None:
    for records in Arena(table(), OPTIONS, BatchedPaging).play(contestants()):
        (seconds,) = {record.decision_s for record in records}
        assert 0 < seconds < 1


# ---------------------------------------------------------------------------------------- choosing


def test_the_best_on_validation_is_chosen() -> None:
    arena = Arena(table(), OPTIONS, BatchedPaging)
    line = [
        Contestant("line", UniformRandom(generator())),
        Contestant("line", Clairvoyant(REWARD), settings={"best": True}),
        Contestant("line", YieldOnly()),
    ]
    scores = [mean_reward_per_question(records) for records in arena.play(line)]
    assert int(np.argmax(scores)) == 1
    assert arena.choose(line) == replace(line[1], validation=scores[1])
    assert arena.choose([line[0], line[2]]) == replace(line[2], validation=scores[2])


class Scripted(Arena):
    """An arena whose records are given."""

    def __init__(self, *lines: Sequence[EpisodeRecord]) -> None:
        self._records = [list(records) for records in lines]

    def play(self, *_: Any, **__: Any) -> list[list[EpisodeRecord]]:
        return self._records


def test_the_measure_is_the_reward_per_question() -> None:
    """As in the table: an episode of many questions weighs no more than one of a few."""
    played = Arena(table(), OPTIONS, BatchedPaging).play([Contestant("line", YieldOnly())])[0][0]
    few = replace(played, num_scored=1, reward_terms={"evidence": 1.0})
    many = replace(played, num_scored=10, reward_terms={"evidence": 4.0})
    none = replace(played, num_scored=0, reward_terms={"evidence": 0.0})
    line = [Contestant("line", YieldOnly(), settings={"k": k}) for k in range(2)]
    least = [replace(one, reward_terms={"evidence": 0.0}) for one in (few, many)]
    first = [least[0], replace(many, reward_terms={"evidence": 5.0}), none]
    chosen = Scripted(first, [few, least[1], none]).choose(line)
    assert chosen == replace(line[1], validation=0.5)
    # Where nothing pays there is no score.
    assert Scripted([none], [none]).choose(line) is line[0]


def test_the_first_among_equals_is_chosen() -> None:
    line = [Contestant("line", YieldOnly(), settings={"k": k}) for k in range(3)]
    assert Arena(table(), OPTIONS, BatchedPaging).choose(line).settings == {"k": 0}


def test_under_its_own_options_each_is_tried() -> None:
    hall = Hall()
    line = [
        Contestant("line", CacheEviction("recency"), {"evict_scope": scope})
        for scope in ("any", "victim")
    ]
    chosen = Arena(table(), OPTIONS, hall).choose(line)
    assert replace(chosen, validation=None) in line
    assert {options.evict_scope for options, _ in hall.made} == {"any", "victim"}


def test_what_has_no_free_number_is_scored_on_validation_too() -> None:
    hall = Hall()
    only = Contestant("line", YieldOnly())
    arena = Arena(table(), OPTIONS, hall)
    chosen = arena.choose([only])
    assert hall.made == [(OPTIONS, 6)]
    assert chosen == replace(only, validation=mean_reward_per_question(arena.play([only])[0]))
    assert chosen.validation is not None
    assert 0 < chosen.validation < 1


# ---------------------------------------------------------------------------------------- sharing


class Noting:
    """Plays one action and notes what it was shown."""

    def __init__(self, action: int, *, is_privileged: bool = False) -> None:
        self.action = action
        self.is_privileged = is_privileged
        self.clocks: list[float] | None = None
        self.rows = 0
        self.seen: Tensor | None = None

    def act(
        self,
        observation: Mapping[str, Tensor],
        action_mask: Tensor,
        privileged: PrivilegedState | None = None,
    ) -> Tensor:
        self.seen, self.rows = observation["globals"][:, 0], len(action_mask)
        self.clocks = None if privileged is None else privileged.state.clock.tolist()
        return torch.full((len(action_mask),), self.action)


def test_each_policy_sees_its_own_rows_and_the_truth_only_if_it_may() -> None:
    policies = [Noting(5), Noting(6, is_privileged=True), Noting(7)]
    both = SideBySide(policies)
    assert both.is_privileged
    assert not SideBySide([policies[0], policies[2]]).is_privileged
    group = LockstepPaging(table(), OPTIONS, 6)
    group.reset(range(6))
    privileged = group.privileged_state()
    observation: Any = {"globals": torch.arange(6.0)[:, None]}
    mask = torch.ones((6, 9), dtype=torch.bool)
    assert both.act(observation, mask, privileged).tolist() == [5, 5, 6, 6, 7, 7]
    assert [policy.rows for policy in policies] == [2, 2, 2]
    seen = [policy.seen.tolist() for policy in policies if policy.seen is not None]
    assert seen == [[0, 1], [2, 3], [4, 5]]
    assert policies[0].clocks is policies[2].clocks is None
    assert policies[1].clocks == privileged.state.clock[2:4].tolist()


def test_time_is_counted_per_decision(monkeypatch: pytest.MonkeyPatch) -> None:
    clock = itertools.count()
    monkeypatch.setattr(time, "perf_counter", lambda: float(next(clock)))
    both = SideBySide([Noting(0), Noting(0)])
    mask = torch.zeros((4, 3), dtype=torch.bool)
    mask[:, 0] = True
    mask[[0, 2, 3], 1] = True
    for _ in range(3):  # a second each; where only YIELD is legal there is nothing to decide
        both.act({"globals": torch.zeros(4, 1)}, mask)
    assert [both.decision_s(0), both.decision_s(1)] == [1.0, 0.5]


# ---------------------------------------------------------------------------------------- lines


def test_every_heuristic_is_there_once() -> None:
    logits = np.array([-3.0, -1.0, 0.5, 1.0, 4.0], dtype=np.float32)
    lines = lineup.heuristic_lines(CONFIG, logits, generator())
    assert [[contestant.name for contestant in line] for line in lines] == [
        ["random"],
        ["FIFO, no storage"],
        ["LRU, no storage"],
        ["LFU, no storage"],
        ["MemGPT queue"],
        *[[f"store all, top-k {staging.replace('_', ' + ')}"] * 2 for staging in STAGINGS],
        ["prior rule"] * 6,
    ]
    for line, staging in zip(lines[5:9], STAGINGS, strict=True):
        assert [contestant.overrides for contestant in line] == [{"staging": staging}] * 2
        assert [contestant.settings for contestant in line] == [{"top_k": 1}, {"top_k": 4}]
        assert [contestant.policy for contestant in line] == [
            StoreAndRetrieve(top_k=1),
            StoreAndRetrieve(top_k=4),
        ]
    # The 0, .5 and 1 quantiles of the logits, each with both values of k.
    assert [contestant.settings for contestant in lines[9]] == [
        {"top_k": k, "threshold": threshold} for threshold in (-3.0, 0.5, 4.0) for k in (1, 4)
    ]
    policies: list[Any] = [contestant.policy for contestant in lines[9]]
    assert [(policy.top_k, policy.store_threshold) for policy in policies] == [
        (k, threshold) for threshold in (-3.0, 0.5, 4.0) for k in (1, 4)
    ]
    assert lines[2][0].policy == CacheEviction("recency")
    assert lines[3][0].policy == CacheEviction("frequency")
    assert lines[2][0].overrides == lines[3][0].overrides == {"evict_scope": "any"}
    assert lines[4][0].overrides == {"evict_fraction": 0.5}
    assert isinstance(lines[4][0].policy, YieldOnly)


def test_chain_search_is_there_where_archival_holds_pages_to_find() -> None:
    config = EvaluationConfig(chain_thresholds=(0.1, 0.4))
    assert lineup.chain_lines(config, table()) == []
    (line,) = lineup.chain_lines(config, small_table(6, num_pages=10, most_preloaded=3))
    assert [contestant.name for contestant in line] == ["chain search"] * 2
    assert [contestant.policy for contestant in line] == [ChainSearch(0.1), ChainSearch(0.4)]
    assert [contestant.settings for contestant in line] == [{"threshold": 0.1}, {"threshold": 0.4}]
    assert line[0].overrides == {"staging": "lexical"}


def learned_policy() -> GreedyGain:
    with torch.random.fork_rng(devices=[]):
        torch.manual_seed(0)
        return GreedyGain(SetNetwork(4), gain_scale=0.1)


def test_the_learned_policy_comes_with_its_control() -> None:
    policy = learned_policy()
    plain, tuned = lineup.learned_lines(policy, CONFIG)
    assert [contestant.policy for contestant in plain] == [policy]
    offsets: list[Any] = [contestant.policy for contestant in tuned]
    assert [tried.store_offset for tried in offsets] == [-0.1, 0.0, 0.2]
    assert all(tried.network is policy.network for tried in offsets)
    assert [contestant.settings for contestant in tuned] == [
        {"store_offset": offset} for offset in (-0.1, 0.0, 0.2)
    ]
    assert policy.store_offset == 0.0


def test_only_the_bound_sees_the_needs() -> None:
    lines = [
        *lineup.heuristic_lines(CONFIG, np.zeros(3, dtype=np.float32), generator()),
        *lineup.learned_lines(learned_policy(), CONFIG),
        *lineup.bound_lines(OPTIONS),
    ]
    privileged = {c.name for line in lines for c in line if c.policy.is_privileged}
    assert privileged == {lineup.CLAIRVOYANT}
    bounds = {c.name for line in lines for c in line if c.kind == "bound"}
    assert bounds == privileged
    learned = {c.name for line in lines for c in line if c.kind == "learned"}
    assert learned == {lineup.LEARNED, lineup.LEARNED_OFFSET}
    gradient = lineup.policy_gradient_lines(
        "ppo", learned_policy(), SampledGain(SetNetwork(4), 1.0, 1.0, np.random.default_rng(0)), {}
    )
    assert {c.kind for line in gradient for c in line} == {"learned"}
    names = [line[0].name for line in lines]
    assert len(names) == len(set(names))
    assert set(lineup.CONTROLS) <= set(names)


@pytest.mark.usefixtures("poison_global_rng")
def test_all_lines_can_be_played() -> None:
    """One of each; every policy that a table shows leaves a record of every episode."""
    lines = [
        *lineup.heuristic_lines(CONFIG, np.zeros(3, dtype=np.float32), generator()),
        *lineup.bound_lines(OPTIONS),
    ]
    chosen: list[Contestant] = [line[0] for line in lines]
    policies: list[Policy] = [contestant.policy for contestant in chosen]
    assert len(policies) == 11
    played = Arena(table(), OPTIONS, BatchedPaging).play(chosen)
    assert [len(records) for records in played] == [6] * 11
    assert all(record.illegal == 0 for records in played for record in records)
