from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import asdict, replace
from typing import Any, ClassVar

import numpy as np
import pytest
import torch
from play_by_hand import apples
from table_fixtures import REWARD, small_table
from torch import Tensor

from envs.batched import BatchedPaging
from envs.lockstep import LockstepPaging
from envs.paging import PagingEnv
from memrl.actions import Op
from memrl.episode_log import FUNNEL_STEPS, REWARD_TERMS
from memrl.evaluation.play import EpisodeRecord, play
from memrl.options import PagingOptions
from memrl.policies.base import Policy
from memrl.policies.clairvoyant import Clairvoyant
from memrl.policies.heuristics import StoreAndRetrieve, UniformRandom, YieldOnly
from memrl.privileged import PrivilegedState
from memrl.table import EpisodeTable

OPTIONS = PagingOptions(
    capacity=3, num_candidates=2, archival_capacity=4, operation_budget=4, reward=REWARD
)


def table(num_episodes: int = 8) -> EpisodeTable:
    return small_table(6, num_documents=3, num_pages=10, num_episodes=num_episodes, num_queries=4)


class ByFeatures:
    """A legal action that depends on the observation alone, so that any environment plays it."""

    is_privileged: ClassVar[bool] = False

    def act(
        self,
        observation: Mapping[str, Tensor],
        action_mask: Tensor,
        privileged: PrivilegedState | None = None,
    ) -> Tensor:
        assert privileged is None
        sums = observation["globals"].double().sum(dim=1) + observation["slots"].double().sum(
            (1, 2)
        )
        number = (sums.abs() * 1000).long() % action_mask.sum(dim=1)
        places = action_mask.long().cumsum(dim=1) - 1
        return ((places == number[:, None]) & action_mask).int().argmax(dim=1)


class Illegal(ByFeatures):
    """Tries to retrieve a candidate at every decision."""

    def act(
        self,
        observation: Mapping[str, Tensor],
        action_mask: Tensor,
        privileged: PrivilegedState | None = None,
    ) -> Tensor:
        del observation, privileged
        return torch.full((len(action_mask),), action_mask.shape[1] - 1)


# ---------------------------------------------------------------------------------------- by hand


def test_a_record_worked_out_by_hand() -> None:
    """Pages 0..5 arrive at 3 slots, then page 0 is asked for; everything is stored."""
    made = apples(6)
    options = PagingOptions(capacity=3, num_candidates=2, staging="dense", reward=REWARD)
    group = LockstepPaging(made, options, 1)
    (record,) = play(group, StoreAndRetrieve(top_k=1), [0])
    tokens = made.page_tokens.tolist()
    expected = EpisodeRecord(
        episode=0,
        document="doc",
        num_queries=1,
        num_scored=1,
        evidence=1.0,
        reward_terms={
            "evidence": 1.0,
            "cost/store": -4 * REWARD.store,  # 0, 1, 2 under pressure, 3 at the query
            "cost/evict": 0.0,
            "cost/retrieve": -REWARD.retrieve,
            "cost/search": 0.0,
            "cost/next": 0.0,
            "cost/tokens": -REWARD.tokens * tokens[0],
            "cost/illegal": 0.0,
        },
        # YIELD after a STORE under pressure is forced; the one that answers is chosen.
        operations={"yield": 1, "next": 0, "evict": 0, "store": 4, "search": 0, "retrieve": 1},
        illegal=0,
        decisions=6,
        events=7,
        tokens_retrieved=tokens[0],
        tokens_read=tokens[4] + tokens[5] + tokens[0],
        decision_s=0.0,
        funnel={"absent": 1.0} | dict.fromkeys(FUNNEL_STEPS, 1.0),
        evidence_by_category={"plain": [1.0, 1.0]},
        support={"pages": 3.0, "precision": 1 / 3, "f1": 0.5, "em": 0.0},
    )
    assert record == expected
    assert (
        record.episode_return == 1 - 4 * REWARD.store - REWARD.retrieve - REWARD.tokens * tokens[0]
    )


def test_a_miss_worked_out_by_hand() -> None:
    """Two needs: one is resident, the other one was stored but is not staged."""
    made = apples(6, needs=(1, 5))
    options = PagingOptions(capacity=3, num_candidates=1, staging="dense", reward=REWARD)
    (record,) = play(LockstepPaging(made, options, 1), StoreAndRetrieve(top_k=1), [0])
    assert record.evidence == 0.5
    lost_at = {"staged": 0.0, "retrieved": 0.0, "used": 0.0}
    assert record.funnel == {"absent": 1.0, "stored": 1.0, "kept": 1.0} | lost_at
    assert record.support == {"pages": 3.0, "precision": 1 / 3, "f1": 0.4, "em": 0.0}
    (nothing,) = play(LockstepPaging(made, options, 1), YieldOnly(), [0])
    assert nothing.funnel == {"absent": 1.0} | dict.fromkeys(FUNNEL_STEPS, 0.0)
    assert nothing.operations["yield"] == nothing.decisions == 4  # three victims and the query
    full = replace(options, archival_capacity=1)
    (dropped,) = play(LockstepPaging(made, full, 1), StoreAndRetrieve(top_k=1), [0])
    assert dropped.funnel == {"absent": 1.0, "stored": 1.0, "kept": 0.0} | lost_at


# ---------------------------------------------------------------------------------------- sums


@pytest.mark.parametrize("policy", [ByFeatures(), Illegal()])
def test_records_equal_what_gymnasium_pays(policy: Policy) -> None:
    made = table()
    records = play(LockstepPaging(made, OPTIONS, 8), policy, range(8))
    env = PagingEnv(made, OPTIONS)
    for record in records:
        observation, _ = env.reset(options={"episode": record.episode})
        total, terms, steps, illegal, is_over = 0.0, dict.fromkeys(REWARD_TERMS, 0.0), 0, 0, False
        operations = dict.fromkeys((op.name.lower() for op in Op), 0)
        while not is_over:
            tensors = {name: torch.from_numpy(value)[None] for name, value in observation.items()}
            action = policy.act(tensors, tensors["action_mask"].bool())[0]
            observation, reward, is_over, _, info = env.step(np.int64(action))
            total, steps, illegal = total + reward, steps + 1, illegal + info["illegal"]
            terms = {name: value + info["reward_terms"][name] for name, value in terms.items()}
            if not info["illegal"]:
                operations[env.layout.decode(int(action))[0].name.lower()] += 1
        assert record.reward_terms == pytest.approx(terms)
        assert record.episode_return == pytest.approx(total)
        assert record.decisions == steps
        assert record.illegal == illegal
        assert record.operations == operations
        assert sum(record.operations.values()) + record.illegal == record.decisions
        evidence = record.reward_terms["evidence"]
        assert record.evidence == pytest.approx(evidence)
        assert sum(found for found, _ in record.evidence_by_category.values()) == pytest.approx(
            evidence
        )
        assert sum(count for _, count in record.evidence_by_category.values()) == record.num_scored
        assert record.num_scored <= record.num_queries
    illegal_in_all = sum(record.illegal for record in records)
    assert (illegal_in_all > 0) == isinstance(policy, Illegal)


# ---------------------------------------------------------------------------------------- division


class Spy(LockstepPaging):
    """Notes which rows begin which episodes."""

    def __init__(self, *args: Any) -> None:
        super().__init__(*args)
        self.begun: list[list[int]] = [[] for _ in range(self.num_envs)]

    def reset(
        self, episodes: Sequence[int], rows: Sequence[int] | None = None
    ) -> dict[str, Tensor]:
        for row, episode in zip(rows if rows is not None else [], episodes, strict=True):
            self.begun[row].append(episode)
        return super().reset(episodes, rows)


@pytest.mark.parametrize("num_envs", [1, 3, 7])
def test_episodes_are_divided_over_the_rows_beforehand(num_envs: int) -> None:
    episodes = [5, 0, 3, 3, 7, 1, 2]
    group = Spy(table(), OPTIONS, num_envs)
    records = play(group, ByFeatures(), episodes)
    assert group.begun == [episodes[row::num_envs] for row in range(num_envs)]
    assert [record.episode for record in records] == episodes
    assert asdict(records[2]) == asdict(records[3])


def test_records_do_not_depend_on_the_number_of_rows() -> None:
    episodes = [5, 0, 3, 3, 7, 1, 2]
    alone = play(LockstepPaging(table(), OPTIONS, 1), ByFeatures(), episodes)
    for num_envs in (2, 11):
        assert play(LockstepPaging(table(), OPTIONS, num_envs), ByFeatures(), episodes) == alone


def test_no_episode_gives_no_record() -> None:
    assert play(LockstepPaging(table(), OPTIONS, 2), YieldOnly(), []) == []


@pytest.mark.parametrize(("evict_scope", "num_envs"), [("victim", 8), ("any", 3)])
def test_both_environments_give_the_same_records(evict_scope: Any, num_envs: int) -> None:
    options = replace(OPTIONS, evict_scope=evict_scope)
    episodes = [7, 6, 5, 4, 3, 2, 1, 0]
    for policy in (ByFeatures(), Clairvoyant(REWARD), Illegal()):
        reference = play(LockstepPaging(table(), options, num_envs), policy, episodes)
        batched = play(BatchedPaging(table(), options, num_envs), policy, episodes)
        for slow, fast in zip(reference, batched, strict=True):
            assert fast.reward_terms == pytest.approx(slow.reward_terms)
            assert fast.funnel == pytest.approx(slow.funnel)
            assert asdict(fast) | {"reward_terms": 0, "funnel": 0} == asdict(slow) | {
                "reward_terms": 0,
                "funnel": 0,
            }


# ---------------------------------------------------------------------------------------- callbacks


def test_every_finished_episode_is_reported() -> None:
    finished: list[int] = []
    play(LockstepPaging(table(), OPTIONS, 3), YieldOnly(), range(8), on_finished=finished.append)
    assert finished == [1] * 8


class Curious(ByFeatures):
    """Notes whether it was given the hidden truth."""

    def __init__(self, is_privileged: bool) -> None:
        self.is_privileged = is_privileged  # type: ignore[misc]
        self.given: set[bool] = set()

    def act(
        self,
        observation: Mapping[str, Tensor],
        action_mask: Tensor,
        privileged: PrivilegedState | None = None,
    ) -> Tensor:
        self.given.add(privileged is not None)
        return super().act(observation, action_mask)


@pytest.mark.parametrize("is_privileged", [False, True])
def test_only_a_privileged_policy_is_given_the_truth(is_privileged: bool) -> None:
    policy = Curious(is_privileged)
    play(LockstepPaging(table(), OPTIONS, 3), policy, range(3))
    assert policy.given == {is_privileged}


@pytest.mark.usefixtures("poison_global_rng")
def test_play_is_deterministic() -> None:
    def records() -> list[EpisodeRecord]:
        policy = UniformRandom(torch.Generator().manual_seed(3))
        return play(BatchedPaging(table(), OPTIONS, 4), policy, range(8))

    assert records() == records()
