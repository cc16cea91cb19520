"""Decisions as learners play and keep them: by kind, with nothing that is not needed.

Nine decisions in ten are made under pressure, where there are no candidates and, with the default
scopes, STORE of the victim is the only operation. Such a decision is seen through an action space
of its own: one slot row, no candidates, five actions. The network is the same, and so are its
values if it has no slot summary (`SetNetwork.slot_pool`), or is shown all slots beside that one. At
a query the view is the full observation.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass

import torch
from torch import Tensor

from memrl.actions import Op
from memrl.flags import first_true
from memrl.groups import PagingGroup
from memrl.options import PagingOptions
from memrl.policies.network import CONTEXT_SLOTS

KINDS = ("pressure", "query")


@dataclass(frozen=True)
class DecisionView:
    """M decisions of one kind.

    Attributes:
        inputs: `slots` (M, n, F), `candidates` (M, k, F), `globals` (M, G), perhaps `CONTEXT_SLOTS`
            (M, N, F); float16, as they are kept, so that learning sees exactly what played.
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

    def values(self, values: Tensor) -> Tensor:
        """Of one number per action of the environment, (M, A), those of the view's actions."""
        num_actions = self.action_mask.shape[1]
        if self.slot is None:
            return values[:, :num_actions]
        choice = torch.arange(num_actions, device=values.device)[:, None]
        return values.gather(1, self.actions(choice).T)

    def rows(self, index: Tensor) -> DecisionView:
        """Some of the decisions, with inputs in single precision; index is (m,) int64."""
        return DecisionView(
            {name: values[index].float() for name, values in self.inputs.items()},
            self.action_mask[index],
            self.row[index],
            None if self.slot is None else self.slot[index],
            self.num_rows,
        )


def acts_on_victim_alone(options: PagingOptions) -> bool:
    """Whether no operation under pressure is about another slot row than the victim's."""
    only_victim = options.store_scope == "victim" and options.evict_scope == "victim"
    return only_victim and options.admission == "forced"


def shows_victim_alone(options: PagingOptions, slot_pool: bool) -> bool:
    """Whether a decision under pressure needs no other slot row than the victim's."""
    return acts_on_victim_alone(options) and not slot_pool


def decision_views(
    group: PagingGroup,
    action_mask: Tensor,
    rows: Tensor,
    *,
    victim_alone: bool,
    with_context: bool = False,
) -> dict[str, DecisionView]:
    """The decisions of the given rows by kind, observed; kinds without any are left out.

    Args:
        group: the rows' environment.
        action_mask: (B, A) bool, of all its rows.
        rows: (M,) int64, rows that have a decision.
        victim_alone: see `shows_victim_alone`, or `acts_on_victim_alone` with
        with_context: show all slots beside the victim, for a network's summary of them.
    """
    at_query = group.at_query()[rows]
    pressed, asked = rows[~at_query], rows[at_query]
    views = {}
    if len(pressed):
        mask = action_mask[pressed, : group.layout.start(Op.RETRIEVE)]
        if victim_alone:
            views["pressure"] = _of_victim(group, mask, pressed, with_context)
        else:
            inputs = _halves(group.observe_slots(pressed, _all_slots(group, pressed)))
            views["pressure"] = DecisionView(inputs, mask, pressed, None, group.layout.num_rows)
    if len(asked):
        inputs = _halves(group.observe(asked))
        num_rows = group.layout.num_rows
        views["query"] = DecisionView(inputs, action_mask[asked], asked, None, num_rows)
    return views


def _of_victim(group: PagingGroup, mask: Tensor, rows: Tensor, with_context: bool) -> DecisionView:
    num_rows = group.layout.num_rows
    slot, shown = shown_alone(mask, num_rows)
    if with_context:
        inputs = _halves(group.observe_slots(rows, _all_slots(group, rows)))
        inputs[CONTEXT_SLOTS] = inputs["slots"]
        row = torch.arange(len(slot), device=slot.device)
        inputs["slots"] = inputs["slots"][row, slot][:, None]
    else:
        inputs = _halves(group.observe_slots(rows, slot[:, None]))
    return DecisionView(inputs, shown, rows, slot, num_rows)


def shown_alone(action_mask: Tensor, num_rows: int) -> tuple[Tensor, Tensor]:
    """The one slot row on which something is legal, and what is.

    Args:
        action_mask: (M, 2 + 3 N) bool, without candidates. num_rows: N.

    Returns:
        (M,) int64, and (M, 5) bool over YIELD, NEXT, EVICT, STORE and SEARCH.
    """
    by_slot = action_mask[:, 2:].reshape(len(action_mask), 3, num_rows)
    slot = first_true(by_slot.any(dim=1))
    shown = by_slot.gather(2, slot[:, None, None].expand(-1, 3, 1))[..., 0]
    return slot, torch.cat([action_mask[:, :2], shown], dim=1)


def _all_slots(group: PagingGroup, rows: Tensor) -> Tensor:
    return torch.arange(group.layout.num_rows, device=rows.device).expand(len(rows), -1)


def _halves(observation: Mapping[str, Tensor]) -> dict[str, Tensor]:
    return {name: observation[name].half() for name in ("slots", "candidates", "globals")}
