"""Decisions as the policy gradient plays and keeps them: by kind, with nothing that is not needed.

Nine decisions in ten are made under pressure, where there are no candidates and, with the default
scopes, STORE of the victim is the only operation. Such a decision is seen through an action space
of its own: one slot row, no candidates, five actions. The network is the same; without a slot
summary (`SetNetwork.slot_pool`) its values are those of the full observation. At a query the view
is the full observation.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass

import torch
from torch import Tensor

from memrl.actions import ActionLayout, Op
from memrl.options import PagingOptions
from memrl.policies.base import GLOBAL

KINDS = ("pressure", "query")


@dataclass(frozen=True)
class DecisionView:
    """M decisions of one kind.

    Attributes:
        inputs: `slots` (M, n, F), `candidates` (M, k, F), `globals` (M, G); float16, as they are
            kept, so that learning sees exactly what played.
        action_mask: (M, 2 + 3 n + k) bool.
        row: (M,) environment rows.
        slot: (M,) the slot row that is shown, when n is 1 of several; else None.
        num_rows: N of the full action space.
    """

    inputs: dict[str, Tensor]
    action_mask: Tensor
    row: Tensor
    slot: Tensor | None
    num_rows: int

    def actions(self, choice: Tensor) -> Tensor:
        """Actions of the environment, (M,), for actions of the view."""
        if self.slot is None:
            return choice  # RETRIEVE comes last: leaving candidates out moves no other action
        return torch.where(choice < 2, choice, 2 + (choice - 2) * self.num_rows + self.slot)


def shows_victim_alone(options: PagingOptions, slot_pool: bool) -> bool:
    """Whether a decision under pressure needs no other slot row than the victim's."""
    only_victim = options.store_scope == "victim" and options.evict_scope == "victim"
    return only_victim and options.admission == "forced" and not slot_pool


def decision_views(
    observation: Mapping[str, Tensor], rows: Tensor, *, victim_alone: bool
) -> dict[str, DecisionView]:
    """The decisions of the given rows by kind; kinds without any are left out.

    Args:
        observation: all rows, with `action_mask`.
        rows: (M,) int64, rows that have a decision.
        victim_alone: see `shows_victim_alone`.
    """
    at_query = observation["globals"][rows, GLOBAL["at_query"]] > 0
    pressed, asked = rows[~at_query], rows[at_query]
    views = {}
    if len(pressed):
        views["pressure"] = _under_pressure(observation, pressed, victim_alone)
    if len(asked):
        inputs = {name: observation[name][asked].half() for name in ("slots", "candidates")}
        inputs["globals"] = observation["globals"][asked].half()
        mask = observation["action_mask"][asked]
        num_rows = observation["slots"].shape[1]
        views["query"] = DecisionView(inputs, mask, asked, None, num_rows)
    return views


def _under_pressure(
    observation: Mapping[str, Tensor], rows: Tensor, victim_alone: bool
) -> DecisionView:
    slots, candidates = observation["slots"], observation["candidates"]
    num_rows = slots.shape[1]
    layout = ActionLayout(num_rows, candidates.shape[1])
    mask = observation["action_mask"][rows, : layout.start(Op.RETRIEVE)]
    inputs = {
        "candidates": candidates.new_zeros((len(rows), 0, candidates.shape[2]), dtype=torch.half),
        "globals": observation["globals"][rows].half(),
    }
    if not victim_alone:
        inputs["slots"] = slots[rows].half()
        return DecisionView(inputs, mask, rows, None, num_rows)
    by_slot = mask[:, 2:].reshape(len(rows), 3, num_rows)  # EVICT, STORE, SEARCH
    slot = by_slot.any(dim=1).byte().argmax(dim=1)
    inputs["slots"] = slots[rows, slot][:, None].half()
    shown = by_slot.gather(2, slot[:, None, None].expand(-1, 3, 1))[..., 0]
    return DecisionView(inputs, torch.cat([mask[:, :2], shown], dim=1), rows, slot, num_rows)
