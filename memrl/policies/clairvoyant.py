"""A policy that sees every need: how good control could be."""

from __future__ import annotations

from collections.abc import Mapping
from typing import ClassVar

import torch
from torch import Tensor

from memrl.actions import ActionLayout, Op
from memrl.foresight import absent_needs, future_value, is_in, shares
from memrl.options import RewardWeights
from memrl.policies.base import GLOBAL, first_legal, layout_of
from memrl.privileged import PrivilegedState


class Clairvoyant:
    """Stores at the first chance what a later query will need, retrieves exactly the evidence.

    It is a constructive bound: no policy knows more, and it attains every need that storing at the
    first chance can save. It is not proven optimal. It may lose to an ideal plan when the archive
    is so small that needed pages push each other out, when a retrieval pushes out other evidence,
    or where a SEARCH would be cheaper than paging through results with NEXT.

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
        """Store what will be needed, retrieve what is; see `Policy.act`."""
        if privileged is None:
            raise ValueError("Clairvoyant plays on the privileged state; none was given.")
        layout = layout_of(observation)
        slot_page = privileged.state.slot_page
        value = self._value(privileged, slot_page, self._reward.retrieve)
        needed_now = is_in(slot_page, privileged.needs)

        store_worth = action_mask[:, layout.block(Op.STORE)] & (
            (value > self._reward.store) | needed_now
        )
        if layout.num_candidates == 0:  # nothing could ever be brought back
            store_worth = torch.zeros_like(store_worth)
        stores = store_worth.any(dim=1)
        store = layout.start(Op.STORE) + store_worth.int().argmax(dim=1)

        retrieve, retrieves = self._retrieve(layout, action_mask, privileged)
        turns_page = self._turns_page(action_mask, privileged) & ~retrieves
        archived = privileged.state.archived.gather(1, slot_page.clamp(min=0))
        whole = self._value(privileged, slot_page, 0.0)
        loss = torch.where(archived, whole - value, whole)  # what is archived can be brought back
        evict, evicts = self._evict(observation, action_mask, loss)

        at_query = privileged.state.at_query
        action = torch.where(turns_page, int(Op.NEXT), torch.zeros_like(retrieve))
        action = torch.where(retrieves, retrieve, action)
        action = torch.where(~at_query & evicts, evict, action)
        return torch.where(stores & (~at_query | retrieves), store, action)

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

    def _turns_page(self, action_mask: Tensor, privileged: PrivilegedState) -> Tensor:
        """Whether evidence stands on a later page of results, and is worth turning to it."""
        num_candidates = max(privileged.state.candidate_page.shape[1], 1)
        place = torch.arange(privileged.ranking.shape[1], device=privileged.ranking.device)
        page_of = place // num_candidates - privileged.result_page[:, None]  # (B, W) pages ahead
        holds = is_in(privileged.ranking, absent_needs(privileged)) & (page_of > 0)
        cost = self._reward.retrieve + page_of * self._reward.next
        share = self._reward.evidence * shares(privileged.needs)
        worth = holds & (share[:, None] > cost)
        return worth.any(dim=1) & action_mask[:, Op.NEXT]

    def _evict(
        self, observation: Mapping[str, Tensor], action_mask: Tensor, loss: Tensor
    ) -> tuple[Tensor, Tensor]:
        """Under pressure and free to choose: the page whose leaving costs least."""
        layout = layout_of(observation)
        legal = action_mask[:, layout.block(Op.EVICT)]
        row = loss.masked_fill(~legal, torch.inf).argmin(dim=1)
        pressed = observation["globals"][:, GLOBAL["under_pressure"]] > 0
        return layout.start(Op.EVICT) + row, legal.any(dim=1) & pressed
