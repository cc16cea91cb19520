"""The legal actions: one torch function with a leading batch axis, beside `memrl.observation`.

The same array is `observation["action_mask"]`, `info["action_mask"]` and `action_masks()`. An
environment asks a policy only where something besides YIELD is legal.
"""

from __future__ import annotations

import torch
from torch import Tensor

from memrl.options import PagingOptions
from memrl.shown import shown_state
from memrl.state import PagingState


def action_mask(state: PagingState, options: PagingOptions) -> Tensor:
    """Which actions are legal; YIELD always is.

    Args:
        state: B episodes at a decision point.
        options: resolved options.

    Returns:
        (B, A) bool, in the order of `memrl.actions.ActionLayout`.
    """
    retrieve, needs_eviction = _retrievable(state, options)
    state = shown_state(state, options)
    occupied = state.slot_page >= 0  # (B, N)
    is_arriving = torch.zeros_like(occupied)
    is_arriving[:, -1] = True
    at_query = state.at_query[:, None]

    evict = torch.zeros_like(occupied)
    if options.evict_scope == "any":
        evict = occupied & ~is_arriving
    if options.admission == "optional":
        evict = evict | (occupied & is_arriving)

    row = torch.arange(occupied.shape[1], device=occupied.device)
    stored = state.archived.gather(1, state.slot_page.clamp(min=0))
    store = occupied & ~stored
    if options.archival_capacity == 0:
        store = torch.zeros_like(store)
    elif options.store_scope == "victim":
        # At a query only a page that some retrieval would push out can be lost.
        store = store & state.victim_rows() & (~at_query | needs_eviction[:, None])

    is_focus = ~state.focus_is_query[:, None] & (state.slot_page == state.focus[:, None])
    search = occupied & at_query & ~is_focus & (row < occupied.shape[1] - 1)
    more = (state.more_candidates & state.at_query)[:, None]

    operations = torch.cat([more, evict, store, search, retrieve], dim=1)
    within_budget = (state.operations_used < options.operation_budget)[:, None]
    always = torch.ones_like(more)
    return torch.cat([always, operations & within_budget], dim=1)


def _retrievable(state: PagingState, options: PagingOptions) -> tuple[Tensor, Tensor]:
    """Which candidates fit without evicting a page retrieved for this query.

    Retrieved pages stand at the back of the queue, so FIFO reaches them last: a candidate fits when
    it does so beside them alone.

    Returns:
        (B, K) bool, and (B,) bool: whether one of them fits only after an eviction.
    """
    num_slots = state.slot_page.shape[1] - 1
    capacity = int(options.capacity)
    size = state.candidate_size
    staged = (state.candidate_page >= 0) & state.at_query[:, None]
    kept_size = (state.slot_size * state.slot_retrieved).sum(dim=1, keepdim=True)
    kept = state.slot_retrieved.sum(dim=1, keepdim=True)
    legal = staged & (kept_size + size <= capacity) & (kept < num_slots)
    residents = (state.slot_page[:, :-1] >= 0).sum(dim=1, keepdim=True)
    occupied_size = state.slot_size[:, :-1].sum(dim=1, keepdim=True)
    fits_now = (occupied_size + size <= capacity) & (residents < num_slots)
    return legal, (legal & ~fits_now).any(dim=1)
