"""Policies put together: who decides what, and what is taken away."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from typing import ClassVar

import torch
from play_by_hand import apples
from table_fixtures import REWARD
from torch import Tensor, nn

from envs.lockstep import LockstepPaging
from memrl.actions import ActionLayout, Op
from memrl.evaluation.play import play
from memrl.observation import FEATURES, GLOBALS
from memrl.options import PagingOptions
from memrl.policies.base import FEATURE, GLOBAL, layout_of
from memrl.policies.composed import ByPhase, FixedStop, Without
from memrl.policies.heuristics import StoreAndRetrieve, YieldOnly
from memrl.policies.network import GreedyGain, SetNetwork
from memrl.privileged import PrivilegedState

LAYOUT = ActionLayout(num_rows=3, num_candidates=4)


@dataclass
class Always:
    """Plays one action."""

    action: int
    is_privileged: ClassVar[bool] = False

    def act(
        self,
        observation: Mapping[str, Tensor],
        action_mask: Tensor,
        privileged: PrivilegedState | None = None,
    ) -> Tensor:
        del observation, privileged
        return torch.full((len(action_mask),), self.action)


class Told(SetNetwork):
    """Predicts what it was told, for every row."""

    def __init__(self, gains: dict[int, float]) -> None:
        nn.Module.__init__(self)
        self.gains = nn.Parameter(torch.zeros(LAYOUT.num_actions))
        with torch.no_grad():
            for action, gain in gains.items():
                self.gains[action] = gain

    def forward(self, observation: Mapping[str, Tensor]) -> Tensor:
        return self.gains.expand(len(observation["globals"]), -1)


def seen(num_retrieved: list[int], *, at_query: bool = True) -> dict[str, Tensor]:
    batch = len(num_retrieved)
    slots = torch.zeros(batch, LAYOUT.num_rows, len(FEATURES))
    for row, count in enumerate(num_retrieved):
        slots[row, :count, FEATURE["retrieved"]] = 1.0
    situation = torch.zeros(batch, len(GLOBALS))
    situation[:, GLOBAL["at_query"]] = float(at_query)
    candidates = torch.zeros(batch, LAYOUT.num_candidates, len(FEATURES))
    return {"slots": slots, "candidates": candidates, "globals": situation}


def test_each_phase_has_its_own_policy() -> None:
    both = ByPhase(Always(3), Always(7))
    mask = torch.ones(2, LAYOUT.num_actions, dtype=torch.bool)
    assert both.act(seen([0, 0]), mask).tolist() == [7, 7]
    assert both.act(seen([0, 0], at_query=False), mask).tolist() == [3, 3]
    assert not both.is_privileged


def test_a_policy_with_itself_is_itself_and_parts_do_what_they_say() -> None:
    table = apples(6, needs=(1,))
    options = PagingOptions(capacity=3, num_candidates=2, staging="dense", reward=REWARD)

    def operations(policy: ByPhase | StoreAndRetrieve) -> dict[str, int]:
        (record,) = play(LockstepPaging(table, options, 1), policy, [0])
        return record.operations

    whole = StoreAndRetrieve(top_k=1)
    assert operations(ByPhase(whole, whole)) == operations(whole)
    stores_alone = operations(ByPhase(whole, YieldOnly()))
    assert (stores_alone["store"], stores_alone["retrieve"]) == (3, 0)
    asks_alone = operations(ByPhase(YieldOnly(), whole))
    assert (asks_alone["store"], asks_alone["retrieve"]) == (0, 0)  # nothing is there


def test_what_is_taken_away_is_not_played() -> None:
    search, store = LAYOUT.encode(Op.SEARCH, 1), LAYOUT.encode(Op.STORE, 2)
    policy = GreedyGain(Told({search: 0.3, Op.NEXT: 0.2, store: 0.1}), gain_scale=1.0)
    mask = torch.ones(1, LAYOUT.num_actions, dtype=torch.bool)
    before = mask.clone()
    assert policy.act(seen([0]), mask).tolist() == [search]
    assert Without(policy, (Op.SEARCH,)).act(seen([0]), mask).tolist() == [Op.NEXT]
    assert Without(policy, (Op.SEARCH, Op.NEXT)).act(seen([0]), mask).tolist() == [store]
    assert torch.equal(mask, before), "the mask is the environment's"


def test_a_fixed_stop_retrieves_k_whatever_they_are_worth() -> None:
    first, best = LAYOUT.encode(Op.RETRIEVE, 0), LAYOUT.encode(Op.RETRIEVE, 2)
    gains = {LAYOUT.encode(Op.RETRIEVE, place): -0.5 for place in range(4)} | {best: -0.1}
    mask = torch.ones(3, LAYOUT.num_actions, dtype=torch.bool)
    observation = seen([0, 1, 2])
    assert layout_of(observation) == LAYOUT
    stingy = FixedStop(GreedyGain(Told(gains), gain_scale=1.0), top_k=2)
    assert stingy.act(observation, mask).tolist() == [best, best, Op.YIELD]
    greedy = FixedStop(GreedyGain(Told(gains | {first: 0.7}), gain_scale=1.0), top_k=2)
    assert greedy.act(observation, mask).tolist() == [first, first, Op.YIELD]
    store = LAYOUT.encode(Op.STORE, 0)
    also_stores = FixedStop(GreedyGain(Told(gains | {store: 0.2}), gain_scale=1.0), top_k=2)
    assert also_stores.act(observation, mask).tolist() == [store] * 3
    mask[:, LAYOUT.block(Op.RETRIEVE)] = False
    assert stingy.act(observation, mask).tolist() == [Op.YIELD] * 3
