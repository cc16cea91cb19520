"""B episodes in progress as tensors: what the batched process remembers of each."""

from __future__ import annotations

from functools import partial

import torch
from torch import Tensor

from envs.batched_events import EventTensors
from memrl.memory.paging import EMPTY
from memrl.state import PagingState


def _unchanged(block: Tensor) -> Tensor:
    return block


def _range(block: Tensor) -> Tensor:
    """0, 1, ... along the last axis of a block."""
    return torch.arange(block.shape[-1], device=block.device)


def _select(axis: int, rows: Tensor, block: Tensor) -> Tensor:
    return block.index_select(axis, rows)


class EpisodeBatch:
    """What B episodes remember, one row each; changed in place.

    Tensors that change together lie in one block, so that one indexed write changes them all; the
    attributes are views of the blocks. What `PagingState` has too is explained there. (B,) int64
    where nothing else is said.

    Args:
        num_envs: B. num_rows: N. num_candidates: K. width: W.
        archival_capacity: most archived pages, None for no limit.
        num_needs: R. num_terms: of the reward.
        device: where the tensors live.

    Attributes:
        fixed: (7, B) what an episode starts with: its number `episode`, `first_row` of its window
            on the table's page axis, `num_events`, `num_preloaded`, and more.
        counters: (10, B) what events and operations change, among them the `query` at hand;
            `num_hits`, the length of the present ranking; `result_page`, which K of it are shown;
            `pages_in` and `stores`, pages brought into main context and stored so far (those
            preloaded are not among them).
        flags: (4, B) bool: `ended`, the last event has been dealt with, and more.
        slots: (6, B, N) `slot_page` ... `slot_uses`. slot_retrieved: (B, N) bool.
        candidate_page, candidate_size: (B, K).
        needs: (B, R) what the query at hand needs, pages of the window, -1 padded. was_absent: (B,
            R) bool, outside main context when it was asked. was_staged: (B, R) bool, of those,
            shown as candidates since.
        archived: (B, W) bool.
        archive_queue: (B, C) the last pages stored; store number s, preloaded pages counted first,
            stands in column s % C, so that the next store of a full archive finds the page to drop
            there. C is the archive's
            capacity, or W when that is smaller, because then nothing is ever dropped.
        ranking: (B, W) pages in the order of the latest search; the first `num_hits` count.
        reward_terms: (B, num_terms) float64, not yet paid out.
    """

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
        self.counters = zeros(10, num_envs)
        self.flags = zeros(4, num_envs, dtype=torch.bool)
        self.slots = zeros(6, num_envs, num_rows)
        self.slot_retrieved = zeros(num_envs, num_rows, dtype=torch.bool)
        self.candidate_page = zeros(num_envs, num_candidates) + EMPTY
        self.candidate_size = zeros(num_envs, num_candidates)
        self.needs = zeros(num_envs, num_needs) + EMPTY
        self.was_absent = zeros(num_envs, num_needs, dtype=torch.bool)
        self.was_staged = zeros(num_envs, num_needs, dtype=torch.bool)
        self.archived = zeros(num_envs, width, dtype=torch.bool)
        self.archive_queue = zeros(num_envs, max(limit, 1))
        self.ranking = zeros(num_envs, width) + EMPTY
        self.reward_terms = zeros(num_envs, num_terms, dtype=torch.float64)
        self._name_views()
        self.slot_page.fill_(EMPTY)

    def _name_views(self) -> None:
        (
            self.episode,
            self.document,
            self.first_page,
            self.first_row,
            self.num_pages,
            self.num_events,
            self.num_preloaded,
        ) = self.fixed
        (
            self.clock,
            self.pages_arrived,
            self.queries_asked,
            self.operations_used,
            self.focus,
            self.query,
            self.num_hits,
            self.result_page,
            self.pages_in,
            self.stores,
        ) = self.counters
        self.at_query, self.focus_is_query, self.ended, self.more_candidates = self.flags
        (
            self.slot_page,
            self.slot_size,
            self.slot_sequence,
            self.slot_time_in,
            self.slot_last_use,
            self.slot_uses,
        ) = self.slots

    def begin(self, rows: Tensor, episode: Tensor, events: EventTensors) -> None:
        """Put the given rows before the first event of episodes: only archival may hold pages."""
        self.fixed[:, rows] = events.episode[:, episode]
        for block in (self.counters, self.flags, self.slots):
            block[:, rows] = 0
        self.slot_page[rows] = EMPTY
        self.candidate_page[rows] = EMPTY
        for tensor in (self.slot_retrieved, self.candidate_size, self.reward_terms):
            tensor[rows] = 0
        preloaded = self.num_preloaded[rows]
        self.pages_arrived[rows] = preloaded
        self.archived[rows] = _range(self.archived) < preloaded[:, None]
        self.archive_queue[rows] = _range(self.archive_queue)  # what was not preloaded is not read

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
        at_query, focus_is_query, _, more_candidates = pick_blocks(self.flags)
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
