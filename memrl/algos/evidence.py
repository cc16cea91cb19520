"""What pages are worth for the query at hand: evidence itself, or a step of the route to it."""

from __future__ import annotations

from dataclasses import dataclass

import torch
from torch import Tensor

from memrl.foresight import RouteAhead, absent_needs, is_in, route_ahead, shares
from memrl.options import RewardWeights
from memrl.privileged import PrivilegedState


@dataclass(frozen=True)
class Evidence:
    """What pages are worth for the query at hand.

    Attributes:
        absent: (B, R) its needs outside main context, -1 elsewhere.
        share: (B,) what each is worth.
        route: the way to them that is left. rest: (B,) what its target is worth once retrieved.
        reward: the weights.
    """

    absent: Tensor
    share: Tensor
    route: RouteAhead
    rest: Tensor
    reward: RewardWeights

    @classmethod
    def of(cls, privileged: PrivilegedState, reward: RewardWeights) -> Evidence:
        """Look up what the query at hand needs and how it is reached."""
        share = reward.evidence * shares(privileged.needs)
        route = route_ahead(privileged)
        to_go = route.num_missing * (reward.search + reward.retrieve)
        rest = (share - to_go).clamp(min=0.0)
        return cls(absent_needs(privileged), share, route, rest, reward)

    def rows(self, index: Tensor) -> Evidence:
        """Select episodes."""
        route = RouteAhead(*(values[index] for values in self.route))
        return Evidence(self.absent[index], self.share[index], route, self.rest[index], self.reward)

    def gained(self, pages: Tensor) -> Tensor:
        """(B, M) what retrieving each of the pages (B, M) brings, its cost not taken off."""
        on_route = is_in(pages, self.route.target[:, None])
        needed = self.share[:, None] * is_in(pages, self.absent)
        return torch.maximum(needed, self.rest[:, None] * on_route)

    def held(self, pages: Tensor) -> Tensor:
        """(B,) the best of `gained` among pages (B, M), less retrieving it; 0 where none is."""
        if not pages.shape[1]:
            return torch.zeros_like(self.share)
        return (self.gained(pages).amax(dim=1) - self.reward.retrieve).clamp(min=0.0)
