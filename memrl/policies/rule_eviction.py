"""Plays a cache's eviction rule in an environment, from what `memrl.identity` tells at decisions.

A rule has to hear of every request, and an environment asks only at misses that need room. What
happened in between can be told from the slots: which pages came in and when, how often each was
used and when last. Pages used several times are told of at their last use; the rules of
`memrl.policies.cache_rules` come to the same state by that.
"""

from __future__ import annotations

from collections.abc import Mapping
from typing import ClassVar, NamedTuple

import numpy as np
import numpy.typing as npt
import torch
from torch import Tensor

from memrl.actions import ActionLayout, Op
from memrl.identity import IDENTITY
from memrl.memory.paging import EMPTY
from memrl.options import PagingOptions
from memrl.policies.base import GLOBAL, layout_of
from memrl.policies.cache_rules import CacheRule, MakeRule
from memrl.privileged import PrivilegedState


class _Told(NamedTuple):
    """What one row is told: (N,) int64 each; the last entry is the arriving page."""

    handles: npt.NDArray[np.int64]
    sizes: npt.NDArray[np.int64]
    time_in: npt.NDArray[np.int64]
    last_use: npt.NDArray[np.int64]
    uses: npt.NDArray[np.int64]

    @property
    def clock(self) -> int:
        return int(self.time_in[-1])


class RuleEviction:
    """EVICTs what a rule chooses; every row of the batch has a rule of its own.

    A row begins anew when what it is told does not follow from what it was told before and what it
    chose: another episode has begun, or somebody else has chosen.

    Args:
        make_rule: makes the rule of an empty cache. options: resolved options that are played.

    Raises:
        ValueError: if the rule could not see or evict every page.
    """

    is_privileged: ClassVar[bool] = False

    def __init__(self, make_rule: MakeRule, options: PagingOptions) -> None:
        if options.evict_scope != "any" or options.shown_slots is not None:
            raise ValueError(
                "A rule chooses among all pages: evict_scope must be 'any' and shown_slots None, "
                f"got {options.evict_scope!r} and {options.shown_slots}."
            )
        self._make_rule = make_rule
        self._capacity = int(options.capacity)
        self._rows: dict[int, _Row] = {}

    def act(
        self,
        observation: Mapping[str, Tensor],
        action_mask: Tensor,
        privileged: PrivilegedState | None = None,
    ) -> Tensor:
        """EVICT under pressure, else YIELD; see `Policy.act`."""
        del privileged
        layout = layout_of(observation)
        presses = observation["globals"][:, GLOBAL["under_pressure"]] > 0
        rows = (presses & action_mask[:, layout.block(Op.EVICT)].any(dim=1)).nonzero()[:, 0]
        told = [observation[name][rows].cpu().numpy() for name in IDENTITY]
        actions = torch.zeros(len(action_mask), dtype=torch.int64, device=action_mask.device)
        for place, row in enumerate(rows.tolist()):
            actions[row] = self._choose(row, _Told(*(array[place] for array in told)), layout)
        return actions

    def _choose(self, row: int, told: _Told, layout: ActionLayout) -> int:
        known = self._rows.get(row)
        if known is None or not known.follows(told):
            known = self._rows[row] = _Row(self._make_rule(self._capacity), told)
        return layout.encode(Op.EVICT, known.choose(told))


class _Row:
    """A rule and what it was told last."""

    def __init__(self, rule: CacheRule, told: _Told) -> None:
        self._rule = rule
        nothing = np.full_like(told.handles, EMPTY)
        self._told = _Told(nothing, *(np.zeros_like(nothing) for _ in range(4)))
        self._requested: tuple[int, int] | None = None  # clock and page that the rule let come
        self._chosen = -1  # slot that it has emptied since, -1 before its first choice

    def follows(self, told: _Told) -> bool:
        """Whether this can be what came after the last choice."""
        before = self._told
        came_in = self._came_in(told)
        is_same = ~came_in & (told.handles[:-1] != EMPTY)
        return bool(
            told.clock >= before.clock
            and not is_same[self._chosen]
            and (told.time_in[:-1][came_in] >= before.clock).all()
            and (told.uses[:-1][is_same] >= before.uses[:-1][is_same]).all()
        )

    def choose(self, told: _Told) -> int:
        """Tell the rule what has happened; the slot that it empties."""
        rule = self._rule
        self._catch_up(told)
        page = int(told.handles[-1])
        if self._requested != (told.clock, page):
            rule.miss(page, int(told.sizes[-1]))
            self._requested = told.clock, page
        self._told = told
        self._chosen = int(np.flatnonzero(told.handles[:-1] == rule.evict())[0])
        return self._chosen

    def _changed(self, told: _Told) -> npt.NDArray[np.bool_]:
        """(slots,) bool: another page than before or none, or the page has been used since."""
        changed: npt.NDArray[np.bool_] = told.handles[:-1] != self._told.handles[:-1]
        changed |= (told.last_use[:-1] != self._told.last_use[:-1]) | self._came_in(told)
        return changed

    def _came_in(self, told: _Told) -> npt.NDArray[np.bool_]:
        """(slots,) bool: the slot holds a page that has come in since."""
        came_in: npt.NDArray[np.bool_] = told.handles[:-1] != self._told.handles[:-1]
        came_in |= told.time_in[:-1] != self._told.time_in[:-1]
        came_in &= told.handles[:-1] != EMPTY
        return came_in

    def _catch_up(self, told: _Told) -> None:
        rule, before = self._rule, self._told
        came_in = self._came_in(told)
        events: list[tuple[int, int, int]] = []  # clock, slot, uses; -1 for coming in
        for slot in np.flatnonzero(self._changed(told)).tolist():
            is_other = bool(came_in[slot]) or told.handles[slot] == EMPTY
            if is_other and before.handles[slot] != EMPTY and slot != self._chosen:
                rule.forget(int(before.handles[slot]))
            if told.handles[slot] == EMPTY:
                continue
            if is_other:
                events.append((int(told.time_in[slot]), slot, -1))
            uses = int(told.uses[slot]) - (0 if is_other else int(before.uses[slot]))
            if uses:
                events.append((int(told.last_use[slot]), slot, uses))
        for clock, slot, uses in sorted(events):
            page, size = int(told.handles[slot]), int(told.sizes[slot])
            if uses < 0:
                if self._requested != (clock, page):
                    rule.miss(page, size)
                rule.admit(page, size)
            for _ in range(uses):
                rule.hit(page)
