"""What is collected, against playing one episode after the other on the reference process."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import replace
from typing import Any, ClassVar

import numpy as np
import pytest
import torch
from slow_gains import SlowGains
from table_fixtures import REWARD, small_table
from torch import Tensor

from envs.batched import BatchedPaging
from envs.lockstep import LockstepPaging
from memrl.actions import Op
from memrl.algos.collection import Behaviour, Plan, collect
from memrl.algos.dataset import DecisionsByKind
from memrl.algos.decisions import KINDS
from memrl.algos.labels import gain_labels
from memrl.draws import random_uniforms
from memrl.groups import PagingGroup
from memrl.options import PagingOptions
from memrl.policies.clairvoyant import Clairvoyant
from memrl.policies.heuristics import StoreAndRetrieve, YieldOnly
from memrl.privileged import PrivilegedState
from memrl.state import TableTensors
from memrl.table import EpisodeTable

CPU = torch.device("cpu")
OPTIONS = PagingOptions(
    capacity=3, num_candidates=2, archival_capacity=4, operation_budget=4, reward=REWARD
)
EPISODES = [5, 0, 3, 3, 7, 1, 2, 6]
SEED = 11
Decisions = dict[str, dict[str, Tensor]]


def table() -> EpisodeTable:
    return small_table(6, num_documents=3, num_pages=10, num_episodes=8, num_queries=4)


def plan() -> Plan:
    behaviours = [
        Behaviour(StoreAndRetrieve(top_k=2), exploration=0.3),
        Behaviour(YieldOnly(), exploration=1.0),
        Behaviour(Clairvoyant(REWARD)),
    ]
    choice, stream = torch.tensor([0, 1, 2, 0, 1, 2, 0, 1]), torch.arange(len(EPISODES))
    return Plan(EPISODES, behaviours, choice, stream, SEED)


def kept(decisions: DecisionsByKind) -> Decisions:
    """All columns of all decisions, in the order in which they were added."""
    return {kind: decisions[kind].rows(torch.arange(len(decisions[kind])), CPU) for kind in KINDS}


def collected(
    group: PagingGroup, whole: Plan | None = None, *, with_context: bool = True, **fields: Any
) -> Decisions:
    decisions = DecisionsByKind(KINDS)
    tensors = TableTensors.from_table(group.table, group.device)

    def label(privileged: PrivilegedState) -> Tensor:
        return gain_labels(
            privileged,
            tensors,
            group.options,
            realization=0.6,
            staging_realization=0.25,
            room_price=1.0,
        )

    collect(group, replace(whole or plan(), **fields), label, decisions, with_context=with_context)
    return kept(decisions)


def slowly(made: EpisodeTable, options: PagingOptions) -> dict[str, list[dict[str, Any]]]:
    """The plan, an episode and a decision at a time: full observations, gains by loops."""
    decisions: dict[str, list[dict[str, Any]]] = {kind: [] for kind in KINDS}
    policies = [behaviour.policy for behaviour in plan().behaviours]
    exploration = [behaviour.exploration for behaviour in plan().behaviours]
    for place, (episode, who) in enumerate(zip(EPISODES, plan().choice.tolist(), strict=True)):
        group = LockstepPaging(made, options, 1)
        observation, number, is_over = group.reset([episode]), 0, False
        while not is_over:
            mask = observation["action_mask"]
            legal = np.flatnonzero(mask[0].numpy()).tolist()
            if len(legal) > 1:
                slow = SlowGains(group, 0, 0.6, 0.25)
                labels = {action: slow.gain(*group.layout.decode(action)) for action in legal}
                kind = "query" if observation["globals"][0, 1] > 0 else "pressure"
                decisions[kind].append(observation | {"legal": legal, "labels": labels})
            drawn = [
                float(random_uniforms(SEED, torch.tensor([place]), torch.tensor([count])))
                for count in (2 * number, 2 * number + 1)
            ]
            action = policies[who].act(observation, mask, group.privileged_state())[0].item()
            if drawn[0] < exploration[who]:
                action = legal[int(drawn[1] * len(legal))]
            result = group.step(np.array([action]))
            observation, is_over = result.observation, bool(result.terminated[0])
            number += 1
    return decisions


def test_decisions_and_labels_equal_those_collected_slowly() -> None:
    fast = collected(BatchedPaging(table(), OPTIONS, 1))
    slow = slowly(table(), OPTIONS)
    layout = BatchedPaging(table(), OPTIONS, 1).layout
    seen = set()
    for kind in KINDS:
        columns = fast[kind]
        assert len(columns["labels"]) == len(slow[kind]) > 20
        for number, decision in enumerate(slow[kind]):
            full = {name: decision[name][0].half() for name in ("slots", "candidates", "globals")}
            actions = list(range(layout.num_actions))
            if kind == "pressure":
                assert torch.equal(columns["context_slots"][number].half(), full["slots"])
                (slot,) = {layout.decode(action)[1] for action in decision["legal"] if action}
                actions = [0, 1] + [
                    layout.encode(op, slot) for op in (Op.EVICT, Op.STORE, Op.SEARCH)
                ]
                full["slots"], full["candidates"] = full["slots"][slot][None], torch.zeros(0)
            for name, values in full.items():
                assert torch.equal(columns[name][number].flatten().half(), values.flatten().half())
            mask = columns["action_mask"][number].tolist()
            assert [action for action, is_legal in zip(actions, mask, strict=True) if is_legal] == (
                decision["legal"]
            )
            for action, expected in decision["labels"].items():
                label = float(columns["labels"][number, actions.index(action)])
                assert label == pytest.approx(expected, abs=2e-5)
                seen |= {layout.decode(action)[0]} if label > 0 else set()
    assert {Op.STORE, Op.RETRIEVE} <= seen


def assert_equal(first: Decisions, second: Decisions) -> None:
    """The same decisions in the same order, bit for bit."""
    for kind in KINDS:
        assert first[kind].keys() == second[kind].keys()
        for name, values in first[kind].items():
            assert torch.equal(values, second[kind][name]), (kind, name)


@pytest.mark.parametrize("num_envs", [3, 20])
def test_what_is_collected_does_not_depend_on_the_number_of_rows(num_envs: int) -> None:
    alone = collected(BatchedPaging(table(), OPTIONS, 1))
    assert_equal(collected(BatchedPaging(table(), OPTIONS, num_envs)), alone)


@pytest.mark.parametrize("cut", [1, 3])
def test_parts_of_a_plan_one_after_the_other_are_the_whole(cut: int) -> None:
    whole = collected(BatchedPaging(table(), OPTIONS, 3))
    group = BatchedPaging(table(), OPTIONS, 2)
    places = range(len(EPISODES))
    parts = [collected(group, plan().part(own)) for own in (places[:cut], places[cut:])]
    joined = {
        kind: {name: torch.cat([part[kind][name] for part in parts]) for name in whole[kind]}
        for kind in KINDS
    }
    assert_equal(joined, whole)


@pytest.mark.parametrize("fields", [{}, {"evict_scope": "any"}, {"stage_from": "both"}])
def test_both_environments_give_the_same_bits(fields: dict[str, Any]) -> None:
    options = replace(OPTIONS, **fields)
    slow, fast = (
        collected(maker(table(), options, 3)) for maker in (LockstepPaging, BatchedPaging)
    )
    for kind in KINDS:
        assert slow[kind].keys() == fast[kind].keys()
        for name, values in slow[kind].items():
            if name != "labels":
                assert torch.equal(values, fast[kind][name]), (kind, name)
        legal = slow[kind]["action_mask"]
        assert torch.equal(slow[kind]["labels"][legal], fast[kind]["labels"][legal])
        assert ("context_slots" in slow[kind]) == (
            kind == "pressure" and "evict_scope" not in fields
        )


@pytest.mark.gpu
@pytest.mark.skipif(not torch.cuda.is_available(), reason="there is no CUDA device")
def test_a_device_collects_what_the_cpu_collects() -> None:
    one, two = (collected(BatchedPaging(table(), OPTIONS, 3, where)) for where in ("cpu", "cuda"))
    for kind in KINDS:
        for name, values in one[kind].items():
            torch.testing.assert_close(two[kind][name], values, atol=2e-3, rtol=1e-3)


def test_without_a_summary_of_the_slots_only_the_victim_is_kept() -> None:
    with_, without = (
        collected(BatchedPaging(table(), OPTIONS, 3), with_context=flag) for flag in (True, False)
    )
    assert "context_slots" not in without["pressure"]
    for name, values in without["pressure"].items():
        assert torch.equal(values, with_["pressure"][name])


def test_another_seed_draws_other_decisions() -> None:
    group = BatchedPaging(table(), OPTIONS, 3)
    assert_equal(collected(group), collected(group))
    with pytest.raises(AssertionError):
        assert_equal(collected(group), collected(group, seed=SEED + 1))


class Watched(BatchedPaging):
    """Notes what is begun, and how many rows play in each step."""

    def __init__(self, *args: Any) -> None:
        super().__init__(*args)
        self.begun: list[int] = []
        self.playing: list[int] = []
        self.asked_for: list[int] = []

    def begin(self, episodes: Sequence[int], rows: Sequence[int] | None = None) -> None:
        self.begun += episodes
        super().begin(episodes, rows)

    def advance(self, action: Tensor) -> Any:
        self.playing.append(int(self.running.sum()))
        return super().advance(action)

    def privileged_state(self, rows: Tensor | None = None) -> PrivilegedState:
        assert rows is not None
        assert self.action_masks()[rows, 1:].any(dim=1).all()
        self.asked_for.append(len(rows))
        return super().privileged_state(rows)


def test_a_row_begins_the_next_episode_as_soon_as_its_own_ends() -> None:
    group = Watched(table(), OPTIONS, 3)
    finished: list[int] = []
    decisions = DecisionsByKind(KINDS)
    collect(
        group,
        plan(),
        lambda truth: torch.zeros((len(truth.stores), group.layout.num_actions)),
        decisions,
        with_context=False,
        on_finished=finished.append,
    )
    assert finished == [1] * len(EPISODES)
    assert group.begun == EPISODES
    tail = group.playing.index(2)
    assert set(group.playing[:tail]) == {3}
    assert group.playing == sorted(group.playing, reverse=True)
    # The hidden truth is looked up for decisions alone.
    assert sum(group.asked_for) == len(decisions)


class Curious:
    """Notes what it is shown."""

    is_privileged: ClassVar[bool] = False

    def __init__(self) -> None:
        self.seen = 0

    def act(
        self,
        observation: Mapping[str, Tensor],
        action_mask: Tensor,
        privileged: PrivilegedState | None = None,
    ) -> Tensor:
        assert privileged is None
        assert len(observation["globals"]) == len(action_mask) > 0
        assert observation["slots"].dtype == torch.float32
        self.seen += len(action_mask)
        return torch.zeros(len(action_mask), dtype=torch.int64)


def test_a_policy_is_asked_about_its_own_decisions_alone() -> None:
    policies = [Curious(), Curious(), Curious()]
    behaviours = [Behaviour(policies[0]), Behaviour(policies[1]), Behaviour(policies[2], 1.0)]
    group = BatchedPaging(table(), OPTIONS, 3)
    every = collected(group, behaviours=behaviours)
    count = sum(len(columns["labels"]) for columns in every.values())
    assert policies[2].seen == 0  # it always explores
    assert 0 < policies[0].seen < policies[0].seen + policies[1].seen < count
