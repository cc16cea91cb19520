"""States to learn from: behaviours play episodes, and every decision is labelled.

Everything stays on the environment's device, and nothing is computed for a row without a decision.
A row begins the next episode as soon as its own ends. What an episode's behaviour draws is a
function of the seed, the episode's place in the plan and the number of the decision, so that it
plays alike in whatever row, beside whatever others, and in a part of the plan.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, replace

import torch
from torch import Tensor

from memrl.algos.dataset import DecisionDataset, DecisionsByKind
from memrl.algos.decisions import KINDS, DecisionView, acts_on_victim_alone, decision_views
from memrl.algos.episode_draws import by_shard
from memrl.draws import random_uniforms
from memrl.groups import PagingGroup
from memrl.policies.base import Policy
from memrl.policies.network import log_policy, sample_actions
from memrl.privileged import PrivilegedState

Label = Callable[[PrivilegedState], Tensor]
"""From the hidden truth of M decisions to (M, A) labels."""


@dataclass(frozen=True)
class Behaviour:
    """A way to play an episode.

    Attributes:
        policy: who plays; a privileged one is given no observation.
        exploration: probability that a decision is a uniformly drawn legal action instead.
    """

    policy: Policy
    exploration: float = 0.0


@dataclass(frozen=True)
class Plan:
    """Which episodes are played how.

    Attributes:
        episodes: E numbers in the table.
        behaviours: the ways to play. choice: (E,) int64, which of them plays each episode.
        stream: (E,) int64, whose random numbers each episode draws; all different.
        seed: of the streams.
    """

    episodes: Sequence[int]
    behaviours: Sequence[Behaviour]
    choice: Tensor
    stream: Tensor
    seed: int

    def part(self, places: Sequence[int]) -> Plan:
        """Some of the episodes, to be played as in the whole plan."""
        index = torch.tensor(places, dtype=torch.int64)
        episodes = [self.episodes[place] for place in places]
        return replace(
            self, episodes=episodes, choice=self.choice[index], stream=self.stream[index]
        )


@torch.no_grad()
def collect(
    group: PagingGroup,
    plan: Plan,
    label: Label,
    decisions: DecisionsByKind,
    *,
    with_context: bool,
    on_finished: Callable[[int], None] | None = None,
) -> None:
    """Play every episode once, and keep each decision with its label.

    Decisions are kept episode by episode, in the order of the plan, so that their order does not
    depend on how many episodes are played side by side, nor on shards.

    Args:
        group: where they are played; its rows are begun anew. If it plays its table shard by shard,
            the episodes of one shard are played after those of another.
        plan: what is played. label: makes the labels.
        decisions: where decisions are added, as `DecisionView` shows them, with a column `labels`.
        with_context: see `decision_views`; it applies where operations under pressure are about the
            victim alone.
        on_finished: called with 1 for each finished episode, for progress bars and safe points.
    """
    collected = {kind: DecisionDataset() for kind in KINDS}
    for places in by_shard(group, plan.episodes):
        _collect_part(group, plan, places, label, collected, with_context, on_finished)
    for kind, own in collected.items():
        if len(own):
            # An episode's decisions have been added in its own order.
            decisions[kind].extend(own, own.column("place").argsort(stable=True), leave_out="place")


def _collect_part(
    group: PagingGroup,
    plan: Plan,
    places: Sequence[int],
    label: Label,
    collected: Mapping[str, DecisionDataset],
    with_context: bool,
    on_finished: Callable[[int], None] | None,
) -> None:
    """Play a part of a plan; decisions get a column `place`, of their episode in the whole plan."""
    victim_alone = acts_on_victim_alone(group.options)
    playing, place_of = _Playing(group, plan.part(places)), torch.tensor(places).to(group.device)
    playing.begin_next(range(group.num_envs))
    num_left = len(places)
    while num_left:
        mask = group.action_masks()
        rows = (playing.is_running & mask[:, 1:].any(dim=1)).nonzero()[:, 0]
        actions = torch.zeros_like(playing.place)
        if len(rows):
            truth = group.privileged_state(rows)
            views = decision_views(
                group, mask, rows, victim_alone=victim_alone, with_context=with_context
            )
            labels = torch.zeros(mask.shape, device=mask.device)
            labels[rows] = label(truth)
            for kind, view in views.items():
                collected[kind].append(
                    view.inputs,
                    view.action_mask,
                    labels=view.values(labels[view.row]),
                    place=place_of[playing.place[view.row]],
                )
            actions[rows] = playing.choose(rows, views, mask[rows], truth)
        terminated = group.advance(actions).terminated
        ended = (playing.is_running & terminated).nonzero()[:, 0].tolist()
        num_left -= len(ended)
        playing.begin_next(ended)
        if on_finished is not None:
            for _ in ended:
                on_finished(1)


class _Playing:
    """Who plays what in each row.

    Attributes:
        place: (B,) int64, place of the row's episode in the plan. is_running: (B,) bool.
    """

    def __init__(self, group: PagingGroup, plan: Plan) -> None:
        self._group = group
        self._plan = plan
        self._choice, self._stream = plan.choice.to(group.device), plan.stream.to(group.device)
        exploration = [behaviour.exploration for behaviour in plan.behaviours]
        self._exploration = torch.tensor(exploration, dtype=torch.float64, device=group.device)
        self._num_begun = 0
        self._num_decisions = torch.zeros(group.num_envs, dtype=torch.int64, device=group.device)
        self.place = torch.zeros_like(self._num_decisions)
        self.is_running = torch.zeros_like(self.place, dtype=torch.bool)

    def begin_next(self, rows: Sequence[int]) -> None:
        """Let rows that do not play on begin the next episodes of the plan, if any are left."""
        if not rows:
            return
        episodes, device = self._plan.episodes, self.place.device
        places = range(self._num_begun, min(self._num_begun + len(rows), len(episodes)))
        self._num_begun = places.stop
        index = torch.tensor(rows, device=device)
        self.is_running[index] = False
        if places:
            index = index[: len(places)]
            self._group.begin([episodes[place] for place in places], rows[: len(places)])
            self.place[index] = torch.tensor(places, device=device)
            self._num_decisions[index] = 0
            self.is_running[index] = True

    def choose(
        self, rows: Tensor, views: Mapping[str, DecisionView], mask: Tensor, truth: PrivilegedState
    ) -> Tensor:
        """Actions of rows that have a decision.

        Args:
            rows: (M,) int64. views: their decisions. mask: (M, A) bool, their legal actions.
            truth: their hidden truth.

        Returns:
            (M,) int64.
        """
        place, count = self.place[rows], self._num_decisions[rows]
        self._num_decisions[rows] = count + 1
        chosen, stream, seed = self._choice[place], self._stream[place], self._plan.seed
        explores = random_uniforms(seed, stream, 2 * count) < self._exploration[chosen]
        chosen = torch.where(explores, -1, chosen)
        by_row = torch.full_like(self.place, -1)
        by_row[rows] = chosen
        played = torch.zeros_like(self.place)
        for number, behaviour in enumerate(self._plan.behaviours):
            policy = behaviour.policy
            if policy.is_privileged:
                own = (chosen == number).nonzero()[:, 0]
                if len(own):
                    played[rows[own]] = policy.act({}, mask[own], truth.rows(own))
                continue
            for view in views.values():
                own = (by_row[view.row] == number).nonzero()[:, 0]
                if len(own):
                    part = view.rows(own)
                    action = policy.act(part.inputs, part.action_mask)
                    played[part.row] = part.actions(action.to(played.device))
        explorers = explores.nonzero()[:, 0]
        if len(explorers):
            own_mask = mask[explorers]
            equal = log_policy(torch.zeros(own_mask.shape, device=mask.device), own_mask)
            uniforms = random_uniforms(seed, stream[explorers], 2 * count[explorers] + 1)
            played[rows[explorers]] = sample_actions(equal, uniforms)
        return played[rows]
