"""Policies put together from others: which part of a policy does what, one part replaced at a time.

For ablations (`memrl.evaluation.ablation`); nothing is learned here.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from typing import ClassVar

import torch
from torch import Tensor

from memrl.actions import Op
from memrl.policies.base import FEATURE, GLOBAL, Policy, layout_of
from memrl.policies.network import GreedyGain
from memrl.privileged import PrivilegedState

Observation = Mapping[str, Tensor]


@dataclass(frozen=True)
class ByPhase:
    """One policy decides under pressure, another one at queries.

    What is stored just before a retrieval would lose it is decided at the query.
    """

    under_pressure: Policy
    at_query: Policy

    @property
    def is_privileged(self) -> bool:
        """Whether one of them sees the truth."""
        return self.under_pressure.is_privileged or self.at_query.is_privileged

    def act(
        self,
        observation: Observation,
        action_mask: Tensor,
        privileged: PrivilegedState | None = None,
    ) -> Tensor:
        """What the one whose turn it is would do; see `Policy.act`."""
        at_query = observation["globals"][:, GLOBAL["at_query"]].to(action_mask.device) > 0
        pressed = self.under_pressure.act(observation, action_mask, privileged)
        asked = self.at_query.act(observation, action_mask, privileged)
        return torch.where(at_query, asked, pressed.to(asked.device))


@dataclass(frozen=True)
class Without:
    """A policy to which some operations are not legal."""

    policy: Policy
    operations: tuple[Op, ...]

    @property
    def is_privileged(self) -> bool:
        """Whether it sees the truth."""
        return self.policy.is_privileged

    def act(
        self,
        observation: Observation,
        action_mask: Tensor,
        privileged: PrivilegedState | None = None,
    ) -> Tensor:
        """The best of what is left; see `Policy.act`."""
        mask, layout = action_mask.clone(), layout_of(observation)
        for op in self.operations:
            mask[:, layout.block(op)] = False
        return self.policy.act(observation, mask, privileged)


@dataclass(frozen=True)
class FixedStop:
    """Retrieves the k candidates of the greatest predicted gain, whatever that gain is.

    All that is neither a RETRIEVE nor the YIELD that answers is the policy's own.

    Attributes:
        policy: whose gains they are. top_k: pages retrieved for a query.
    """

    policy: GreedyGain
    top_k: int
    is_privileged: ClassVar[bool] = False

    def act(
        self,
        observation: Observation,
        action_mask: Tensor,
        privileged: PrivilegedState | None = None,
    ) -> Tensor:
        """RETRIEVE the best until there are k, then YIELD; see `Policy.act`."""
        del privileged
        layout = layout_of(observation)
        scores = self.policy.scores(observation, action_mask)
        block = layout.block(Op.RETRIEVE)
        retrieved = observation["slots"][..., FEATURE["retrieved"]].sum(dim=1).to(scores.device)
        has_all = retrieved >= self.top_k
        scores[:, block] = scores[:, block].masked_fill(has_all[:, None], -torch.inf)
        action = scores.argmax(dim=1)
        if not layout.num_candidates:
            return action
        best, place = scores[:, block].max(dim=1)
        goes_on = (action == Op.YIELD) & (best > -torch.inf)
        return torch.where(goes_on, layout.start(Op.RETRIEVE) + place, action)
