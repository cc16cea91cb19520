"""B episodes in progress as tensors: what the batched process remembers of each."""

from __future__ import annotations

from functools import partial
from typing import Any

import torch
from torch import Tensor

from envs.batched_events import EventTensors
from envs.batched_rows import Rows
from memrl.memory.paging import EMPTY
from memrl.state import PagingState


def _unchanged(block: Tensor) -> Tensor:
    return block


def _range(block: Tensor) -> Tensor:
    """0, 1, ... along the last axis of a block."""
    return torch.arange(block.shape[-1], device=block.device)


def _select(axis: int, rows: Tensor, block: Tensor) -> Tensor:
    return block.index_select(axis, rows)


def _part(block: str, place: int) -> Any:
    """A name for one row of a block; made anew at each use, so that blocks alone hold memory."""
    return property(lambda batch: getattr(batch, block)[place])


class EpisodeBatch:
    """What B episodes remember, one row each; changed in place.

    Tensors that change together lie in one block, so that one indexed write changes them all; their
    names give views of the blocks. What `PagingState` has too is explained there. (B,) int64
    where nothing else is said.

    Args:
        num_envs: B. num_rows: N. num_candidates: K. width: W.
        archival_capacity: most archived pages, None for no limit.
        num_needs: R. num_terms: of the reward.
        device: where the tensors live.

    Attributes:
        fixed: (7, B) what an episode starts with: its number `episode`, `first_row` of its window
            on the table's page axis, `num_events`, `num_preloaded`, and more.
        counters: (11, B) what events and operations change, among them the `query` at hand;
            `num_hits`, the length of the present ranking; `result_page`, which K of it are shown;
            `pages_in` and `stores`, pages brought into main context and stored so far (those
            preloaded are not among them); `unpaid_hits`, requests that main context met.
        flags: (7, B) bool: `ended`, the last event has been dealt with; `due`, the next event
            is to happen before anything else; `to_search`, the focus has not been searched from yet
            and nothing is legal before that, `to_search_new` where its query is a new one; and
            more.
        slots: (6, B, N) `slot_page` ... `slot_uses`. slot_retrieved: (B, N) bool.
        candidate_page, candidate_size: (B, K).
        needs: (B, R) what the query at hand needs, pages of the window, -1 padded. was_absent: (B,
            R) bool, outside main context when it was asked. was_staged, was_retrieved: (B, R) bool,
            of those, shown as candidates since, brought in since.
        archived: (B, W) bool. was_stored: (B, W) bool, archived now or dropped since.
        archive_queue: (B, C) the last pages stored; store number s, preloaded pages counted first,
            stands in column s % C, so that the next store of a full archive finds the page to drop
            there. C is the archive's capacity, or W when that is smaller, because then nothing is
            ever dropped.
        ranking: (B, W) pages in the order of the latest search; the first `num_hits` count.
        reward_terms: (B, num_terms) float64, not yet paid out.
    """

    episode: Tensor = _part("fixed", 0)
    document: Tensor = _part("fixed", 1)
    first_page: Tensor = _part("fixed", 2)
    first_row: Tensor = _part("fixed", 3)
    num_pages: Tensor = _part("fixed", 4)
    num_events: Tensor = _part("fixed", 5)
    num_preloaded: Tensor = _part("fixed", 6)
    clock: Tensor = _part("counters", 0)
    pages_arrived: Tensor = _part("counters", 1)
    queries_asked: Tensor = _part("counters", 2)
    operations_used: Tensor = _part("counters", 3)
    focus: Tensor = _part("counters", 4)
    query: Tensor = _part("counters", 5)
    num_hits: Tensor = _part("counters", 6)
    result_page: Tensor = _part("counters", 7)
    pages_in: Tensor = _part("counters", 8)
    stores: Tensor = _part("counters", 9)
    unpaid_hits: Tensor = _part("counters", 10)
    at_query: Tensor = _part("flags", 0)
    focus_is_query: Tensor = _part("flags", 1)
    ended: Tensor = _part("flags", 2)
    more_candidates: Tensor = _part("flags", 3)
    due: Tensor = _part("flags", 4)
    to_search: Tensor = _part("flags", 5)
    to_search_new: Tensor = _part("flags", 6)
    slot_page: Tensor = _part("slots", 0)
    slot_size: Tensor = _part("slots", 1)
    slot_sequence: Tensor = _part("slots", 2)
    slot_time_in: Tensor = _part("slots", 3)
    slot_last_use: Tensor = _part("slots", 4)
    slot_uses: Tensor = _part("slots", 5)

    def __init__(
        self,
        *,
        num_envs: int,
        num_rows: int,
        num_candidates: int,
        width: int,
        archival_capacity: int | None,
        num_needs: int,
        num_terms: int,
        device: torch.device,
    ) -> None:
        def zeros(*shape: int, dtype: torch.dtype = torch.int64) -> Tensor:
            return torch.zeros(shape, dtype=dtype, device=device)

        limit = width if archival_capacity is None else min(archival_capacity, width)
        self.fixed = zeros(7, num_envs)
        self.counters = zeros(11, num_envs)
        self.flags = zeros(7, num_envs, dtype=torch.bool)
        self.slots = zeros(6, num_envs, num_rows)
        self.slot_retrieved = zeros(num_envs, num_rows, dtype=torch.bool)
        self.candidate_page = zeros(num_envs, num_candidates) + EMPTY
        self.candidate_size = zeros(num_envs, num_candidates)
        self.needs = zeros(num_envs, num_needs) + EMPTY
        self.was_absent = zeros(num_envs, num_needs, dtype=torch.bool)
        self.was_staged = zeros(num_envs, num_needs, dtype=torch.bool)
        self.was_retrieved = zeros(num_envs, num_needs, dtype=torch.bool)
        self.archived = zeros(num_envs, width, dtype=torch.bool)
        self.was_stored = zeros(num_envs, width, dtype=torch.bool)
        self.archive_queue = zeros(num_envs, max(limit, 1))
        self.ranking = zeros(num_envs, width) + EMPTY
        self.reward_terms = zeros(num_envs, num_terms, dtype=torch.float64)
        self.slot_page.fill_(EMPTY)

    def begin(self, rows: Rows, episode: Tensor, events: EventTensors) -> None:
        """Put the given rows before the first event of episodes, (b,); it is due.

        Only archival may hold pages then.
        """
        fixed = events.episode[:, episode]
        rows.write_block(self.fixed, fixed)
        for block in (self.counters, self.flags, self.slots):
            rows.write_block(block, 0)
        rows.write(self.slot_page, EMPTY)
        rows.write(self.candidate_page, EMPTY)
        for tensor in (self.slot_retrieved, self.candidate_size, self.reward_terms):
            rows.write(tensor, 0)
        preloaded = fixed[-1]
        rows.write(self.pages_arrived, preloaded)
        for tensor in (self.archived, self.was_stored):
            rows.write(tensor, _range(tensor) < preloaded[:, None])
        rows.write(self.archive_queue, _range(self.archive_queue))  # the rest is not read
        rows.write(self.due, 1)

    def row_tensors(self) -> dict[str, tuple[Tensor, int]]:
        """Every tensor that holds rows, by name, with the axis on which they lie."""
        by_block = {name: (getattr(self, name), 1) for name in ("fixed", "counters", "flags")}
        return by_block | {
            "slots": (self.slots, 1),
            **{
                name: (getattr(self, name), 0)
                for name in (
                    *("slot_retrieved", "candidate_page", "candidate_size", "needs", "was_absent"),
                    *("was_staged", "was_retrieved", "archived", "was_stored", "archive_queue"),
                    *("ranking", "reward_terms"),
                )
            },
        }

    def paging_state(self, rows: Tensor | None = None) -> PagingState:
        """Return what `memrl.observation` and `memrl.masks` read.

        Args:
            rows: (b,) rows, whose values are copied; None for all, whose memory is shared.
        """
        if rows is None:
            pick = pick_blocks = _unchanged
        else:
            pick, pick_blocks = partial(_select, 0, rows), partial(_select, 1, rows)
        _, document, first_page, _, num_pages, *_ = pick_blocks(self.fixed)
        clock, arrived, asked, used, focus, *_ = pick_blocks(self.counters)
        at_query, focus_is_query, _, more_candidates, *_ = pick_blocks(self.flags)
        page, size, sequence, time_in, last_use, uses = pick_blocks(self.slots)
        return PagingState(
            document=document,
            first_page=first_page,
            num_pages=num_pages,
            slot_page=page,
            slot_size=size,
            slot_time_in=time_in,
            slot_last_use=last_use,
            slot_uses=uses,
            slot_sequence=sequence,
            slot_retrieved=pick(self.slot_retrieved),
            archived=pick(self.archived),
            candidate_page=pick(self.candidate_page),
            candidate_size=pick(self.candidate_size),
            more_candidates=more_candidates,
            at_query=at_query,
            focus_is_query=focus_is_query,
            focus=focus,
            clock=clock,
            pages_arrived=arrived,
            queries_asked=asked,
            operations_used=used,
        )
