"""A policy that sees every need: how good control could be."""

from __future__ import annotations

from collections.abc import Mapping
from typing import ClassVar

import torch
from torch import Tensor

from memrl.actions import ActionLayout, Op
from memrl.flags import first_true
from memrl.foresight import (
    absent_needs,
    future_value,
    is_in,
    pages_ahead,
    route_ahead,
    shares,
)
from memrl.memory.paging import EMPTY
from memrl.options import RewardWeights
from memrl.policies.base import first_legal
from memrl.privileged import PrivilegedState


class Clairvoyant:
    """Stores at the first chance what a later query will need, retrieves exactly the evidence.

    Evidence that is not among the candidates is turned to with NEXT, or reached by the route that
    leads to it (RETRIEVE its next page, SEARCH from it), whichever costs less, if that pays.

    It is a constructive bound: no policy knows more, and it attains every need that storing at the
    first chance can save. It is not proven optimal. It may lose to an ideal plan when the archive
    is so small that needed pages push each other out, when a retrieval pushes out other evidence,
    where a SEARCH off the route would be cheaper than paging through results with NEXT, or where
    the operation budget ends before the route does.

    Args:
        reward: the weights it weighs costs by.
    """

    is_privileged: ClassVar[bool] = True

    def __init__(self, reward: RewardWeights) -> None:
        self._reward = reward

    def act(
        self,
        observation: Mapping[str, Tensor],
        action_mask: Tensor,
        privileged: PrivilegedState | None = None,
    ) -> Tensor:
        """Store what will be needed, retrieve what is; see `Policy.act`.

        The observation is not read.
        """
        del observation
        if privileged is None:
            raise ValueError("Clairvoyant plays on the privileged state; none was given.")
        slot_page = privileged.state.slot_page
        layout = ActionLayout(slot_page.shape[1], privileged.state.candidate_page.shape[1])
        value = self._value(privileged, slot_page, self._reward.retrieve)
        needed_now = is_in(slot_page, privileged.needs)

        store_worth = action_mask[:, layout.block(Op.STORE)] & (
            (value > self._reward.store) | needed_now
        )
        if layout.num_candidates == 0:  # nothing could ever be brought back
            store_worth = torch.zeros_like(store_worth)
        stores = store_worth.any(dim=1)
        store = layout.start(Op.STORE) + first_true(store_worth)

        retrieve, retrieves = self._retrieve(layout, action_mask, privileged)
        approach, follows = self._approach(layout, action_mask, privileged)
        retrieves_any = retrieves | (follows & (approach >= layout.start(Op.RETRIEVE)))
        archived = privileged.state.archived.gather(1, slot_page.clamp(min=0))
        whole = self._value(privileged, slot_page, 0.0)
        loss = torch.where(archived, whole - value, whole)  # what is archived can be brought back
        evict, evicts = self._evict(layout, action_mask, privileged, loss)

        at_query = privileged.state.at_query
        action = torch.where(follows, approach, 0)
        action = torch.where(retrieves, retrieve, action)
        action = torch.where(~at_query & evicts, evict, action)
        return torch.where(stores & (~at_query | retrieves_any), store, action)

    def _value(self, privileged: PrivilegedState, page: Tensor, retrieve_cost: float) -> Tensor:
        """(B, M) what a stored copy will bring; the archive is taken to keep it."""
        now = torch.zeros_like(page)
        always = torch.full((len(page),), torch.inf, device=page.device)
        return future_value(
            privileged,
            page,
            absent_after=now,
            evidence_weight=self._reward.evidence,
            retrieve_cost=retrieve_cost,
            archive_events=always,
        )

    def _retrieve(
        self, layout: ActionLayout, action_mask: Tensor, privileged: PrivilegedState
    ) -> tuple[Tensor, Tensor]:
        """First legal candidate that holds evidence worth its cost."""
        worth = self._reward.evidence * shares(privileged.needs) > self._reward.retrieve
        holds = is_in(privileged.state.candidate_page, absent_needs(privileged))
        mask = action_mask.clone()
        mask[:, layout.block(Op.RETRIEVE)] &= holds & worth[:, None]
        return first_legal(mask, layout, Op.RETRIEVE)

    def _approach(
        self, layout: ActionLayout, action_mask: Tensor, privileged: PrivilegedState
    ) -> tuple[Tensor, Tensor]:
        """The cheapest step towards evidence that is not shown, and whether it pays."""
        reward, state = self._reward, privileged.state
        absent, route = absent_needs(privileged), route_ahead(privileged)
        # The last page of a route leads to the evidence itself.
        target = torch.cat([route.target[:, None], absent], dim=1)
        target[:, 1:] = torch.where(route.target[:, None] == EMPTY, target[:, 1:], EMPTY)
        to_go = reward.retrieve + route.num_missing * (reward.retrieve + reward.search)

        legal_retrieve, legal_search = action_mask.clone(), action_mask.clone()
        shown = state.candidate_page == route.target[:, None]
        legal_retrieve[:, layout.block(Op.RETRIEVE)] &= shown & (route.target[:, None] != EMPTY)
        is_last = (state.slot_page == route.last[:, None]) & (route.last[:, None] != EMPTY)
        legal_search[:, layout.block(Op.SEARCH)] &= is_last
        retrieve, can_retrieve = first_legal(legal_retrieve, layout, Op.RETRIEVE)
        search, can_search = first_legal(legal_search, layout, Op.SEARCH)
        turn = torch.full_like(search, int(Op.NEXT))
        turns, turns_on_route = (pages_ahead(privileged, pages) for pages in (absent, target))
        turns_on_route = torch.where(route.has_route, turns_on_route, torch.inf)

        steps = torch.stack([turn, retrieve, search, turn], dim=1)
        costs = torch.stack(
            [
                reward.retrieve + _times(turns, reward.next),
                torch.where(can_retrieve, to_go, torch.inf),
                torch.where(can_search, to_go + reward.search, torch.inf),
                to_go + _times(turns_on_route, reward.next),
            ],
            dim=1,
        )
        cost, cheapest = costs.min(dim=1)
        step = steps.gather(1, cheapest[:, None])[:, 0]
        pays = self._reward.evidence * shares(privileged.needs) > cost
        return step, pays & action_mask.gather(1, step[:, None])[:, 0]

    def _evict(
        self,
        layout: ActionLayout,
        action_mask: Tensor,
        privileged: PrivilegedState,
        loss: Tensor,
    ) -> tuple[Tensor, Tensor]:
        """Under pressure and free to choose: the page whose leaving costs least."""
        legal = action_mask[:, layout.block(Op.EVICT)]
        row = loss.masked_fill(~legal, torch.inf).argmin(dim=1)
        pressed = privileged.state.slot_page[:, -1] >= 0
        return layout.start(Op.EVICT) + row, legal.any(dim=1) & pressed


def _times(turns: Tensor, cost: float) -> Tensor:
    """Cost of so many turns of the results; inf where no number of them helps, even if free."""
    return torch.where(turns < torch.inf, turns * cost, torch.inf)
