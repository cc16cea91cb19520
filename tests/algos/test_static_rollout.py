"""Rollouts of fixed shape are those of the eager reference, in every tier."""

from __future__ import annotations

import warnings
from collections.abc import Mapping
from typing import Any, TypedDict

import numpy as np
import pytest
import torch
from table_fixtures import small_table
from torch import Tensor

from envs.batched import BatchedPaging
from envs.batched_fixed import FixedShapePaging
from memrl.algos.rollout import DivergedError, Rollout, roll_out
from memrl.algos.static_rollout import StaticRollouts
from memrl.algos.tiers import TieredStep, TierError, compiled, resolved_tier
from memrl.options import PagingOptions
from memrl.policies.network import SetNetwork
from memrl.policy_gradient_config import Tier

CPU = torch.device("cpu")
OPTIONS = PagingOptions(
    capacity=3, num_candidates=2, archival_capacity=4, staging="hybrid", operation_budget=4
)
EPISODES = [0, 0, 3, 3, 5, 5]
SCALE = 3.0


class Parts(TypedDict):
    """Arguments that both kinds of rollouts take."""

    victim_alone: bool
    first_row: int


class Net:
    """Logits of a small random network."""

    def __init__(self, slot_pool: bool = False) -> None:
        with torch.random.fork_rng(devices=[]):
            torch.manual_seed(0)
            self.network = SetNetwork(8, slot_pool=slot_pool).eval()

    def __call__(self, inputs: Mapping[str, Tensor]) -> Tensor:
        values: Tensor = self.network(inputs) * SCALE
        return values


def static(
    net: Net,
    *,
    victim_alone: bool = True,
    rounds: int = 2,
    max_searches: int | None = None,
    tier: Tier = "eager",
    **more: Any,
) -> StaticRollouts:
    group = FixedShapePaging(
        small_table(1), OPTIONS, len(EPISODES), CPU, rounds=rounds, max_searches=max_searches
    )
    return StaticRollouts(group, net, victim_alone=victim_alone, tier=tier, **more)


def eager(net: Net, seed: int, *, victim_alone: bool = True) -> Rollout:
    group = BatchedPaging(small_table(1), OPTIONS, len(EPISODES))
    return roll_out(group, net, EPISODES, seed, victim_alone=victim_alone, device=CPU)


def by_decision(rollout: Rollout) -> list[list[tuple[Any, ...]]]:
    """Of each row, what it saw, did, and has still to get, decision by decision."""
    to_go = np.cumsum(rollout.reward_terms[::-1], axis=0)[::-1]
    seen: list[list[tuple[Any, ...]]] = [[] for _ in range(rollout.clock.shape[1])]
    places: dict[tuple[int, int], tuple[Any, ...]] = {}
    for kind, decisions in rollout.decisions.items():
        for index in range(len(decisions)):
            one = decisions.rows(torch.tensor([index]), CPU)
            step, row = int(one["step"]), int(one["row"])
            features = tuple(one[name].flatten().tolist() for name in ("slots", "globals"))
            mask = tuple(one["action_mask"].flatten().tolist())
            rest = tuple(to_go[step, row].round(9).tolist())
            did = (kind, int(one["action"]), round(float(one["log_prob"]), 4))
            places[row, step] = (*did, int(rollout.clock[step, row]), rest, mask, features)
    for row, step in sorted(places):
        seen[row].append(places[row, step])
    assert sum(map(len, seen)) == rollout.num_decisions
    return seen


@pytest.mark.parametrize(
    ("slot_pool", "victim_alone", "rounds", "max_searches"),
    [(False, True, 1, 1), (False, True, 3, 6), (False, False, 2, None), (True, False, 2, 4)],
)
def test_every_decision_is_that_of_the_eager_rollout(
    slot_pool: bool, victim_alone: bool, rounds: int, max_searches: int | None
) -> None:
    net = Net(slot_pool)
    rollouts = static(net, victim_alone=victim_alone, rounds=rounds, max_searches=max_searches)
    for seed in (3, 4):
        expected = by_decision(eager(net, seed, victim_alone=victim_alone))
        got = by_decision(rollouts.play(EPISODES, seed))
        assert min(map(len, expected)) > 5
        assert got == expected


def test_rows_play_in_parts_what_they_play_together() -> None:
    net, table = Net(), small_table(1)
    whole = by_decision(eager(net, 3))
    slow, fast = [], []
    for own in (slice(0, 2), slice(2, 6)):
        episodes, more = EPISODES[own], Parts(victim_alone=True, first_row=own.start)
        rows = BatchedPaging(table, OPTIONS, len(episodes))
        slow += by_decision(roll_out(rows, net, episodes, 3, device=CPU, **more))
        fixed = FixedShapePaging(table, OPTIONS, len(episodes), CPU, rounds=2, draws=None)
        rollouts = StaticRollouts(fixed, net, tier="eager", **more)
        fast += by_decision(rollouts.play(episodes, 3))
    assert slow == whole
    assert fast == whole


def test_decisions_are_kept_in_the_order_of_their_numbers() -> None:
    """What several processes tell by whose decisions come first (`memrl.algos.updates`)."""
    net = Net()
    for rollout in (eager(net, 3), static(net, rounds=1).play(EPISODES, 3)):
        number = rollout.is_decision.cumsum(axis=0) - 1
        for decisions in rollout.decisions.values():
            steps, rows = decisions.column("step").tolist(), decisions.column("row").tolist()
            order = [(number[step, row], row) for step, row in zip(steps, rows, strict=True)]
            assert order == sorted(order)
            assert len(set(order)) == len(order) > 20


def test_buffers_grow_until_everything_fits() -> None:
    net = Net()
    rollouts = static(net)
    rollouts._allocate(32, {"pressure": 5, "query": 3})
    assert by_decision(rollouts.play(EPISODES, 7)) == by_decision(eager(net, 7))


def test_a_compiled_step_gives_the_same() -> None:
    net = Net()
    rollouts = static(net, tier="compile", backend="eager", rounds=1)
    with warnings.catch_warnings():
        warnings.simplefilter("error", RuntimeWarning)
        for seed in (3, 4):
            assert by_decision(rollouts.play(EPISODES, seed)) == by_decision(eager(net, seed))
    assert rollouts.tier == "compile"


class Looks(Net):
    """Looks at a value, which no compiler can follow."""

    def __call__(self, inputs: Mapping[str, Tensor]) -> Tensor:
        values = super().__call__(inputs)
        return values if float(values.detach().sum()) < torch.inf else -values


@pytest.mark.slow
def test_a_compiled_rollout_of_many_slots_is_the_eager_one() -> None:
    """With the compiler's own kernels, whose vectors are longer than the slots of other tests."""
    net, table, options = Net(), small_table(1, num_pages=60), PagingOptions(archival_capacity=20)
    expected = by_decision(
        roll_out(
            BatchedPaging(table, options, len(EPISODES)),
            net,
            EPISODES,
            3,
            victim_alone=True,
            device=CPU,
        )
    )
    group = FixedShapePaging(table, options, len(EPISODES), CPU, rounds=1, draws=None)
    rollouts = StaticRollouts(group, net, victim_alone=True, tier="compile")
    got = by_decision(rollouts.play(EPISODES, 3))
    assert rollouts.tier == "compile"
    assert {kind for row in expected for kind, *_ in row} == {"pressure", "query"}
    for row, own in zip(expected, got, strict=True):
        for one, other in zip(row, own, strict=True):
            assert other[:2] == one[:2]
            assert other[3:6] == one[3:6]  # clock, what was still to get, mask


def test_what_cannot_be_compiled_runs_eagerly_with_one_warning() -> None:
    net = Looks()
    rollouts = static(net, tier="compile", backend="eager", rounds=1)
    with warnings.catch_warnings(record=True) as caught:
        warnings.simplefilter("always")
        for seed in (3, 4):
            assert by_decision(rollouts.play(EPISODES, seed)) == by_decision(eager(net, seed))
    ours = [str(one.message) for one in caught if one.category is RuntimeWarning]
    assert [message for message in ours if "goes on eagerly" in message] == ours
    assert len(ours) == 1
    assert rollouts.tier == "eager"


def test_the_state_is_as_before_where_compiling_fails() -> None:
    count = torch.zeros(())

    def step() -> None:
        count.add_(1)
        if count > 5:
            count.zero_()

    tiered = TieredStep(step, compiled(step, "eager"), lambda: [count], "compile")
    with pytest.warns(RuntimeWarning, match="tier='compile'"):
        tiered()
    assert count == 1


def test_logits_that_are_not_finite_are_named() -> None:
    net = Net()
    with torch.no_grad():
        net.network.operation_head.bias[2] = torch.nan
    with pytest.raises(DivergedError, match="logits"):
        static(net).play(EPISODES, 0)


def test_automatic_tiers() -> None:
    assert resolved_tier("auto", CPU) == "eager"
    assert resolved_tier("auto", torch.device("cuda")) == "cudagraph"
    with pytest.raises(TierError, match="needs a CUDA device"):
        resolved_tier("cudagraph", CPU)


@pytest.mark.gpu
@pytest.mark.skipif(not torch.cuda.is_available(), reason="there is no CUDA device")
@pytest.mark.parametrize("tier", ["eager", "compile", "cudagraph"])
def test_every_tier_on_a_gpu_gives_what_a_cpu_gives(tier: Tier) -> None:
    net = Net()
    expected = by_decision(eager(net, 3))
    net.network.to("cuda")
    group = FixedShapePaging(small_table(1), OPTIONS, len(EPISODES), "cuda", rounds=2, draws=None)
    rollouts = StaticRollouts(group, net, victim_alone=True, tier=tier)
    with warnings.catch_warnings():
        warnings.simplefilter("error", RuntimeWarning)
        first = by_decision(rollouts.play(EPISODES, 3))
        other = by_decision(rollouts.play(EPISODES, 4))
    for one, two in zip(first, expected, strict=True):
        assert [decision[:2] for decision in one] == [decision[:2] for decision in two]
        assert [decision[3:6] for decision in one] == [decision[3:6] for decision in two]
    assert other != first
    assert rollouts.tier == tier
