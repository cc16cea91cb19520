"""How long archival keeps a page, and what a store pushes out of it: for training labels.

A full archive overwrites its oldest page, so one store more drops every page in it one store
earlier. Whether that loses evidence is not known exactly, because later stores are not; but at the
pace of stores so far, each page there has the same chance to be the one that a later query misses.
"""

from __future__ import annotations

import torch
from torch import Tensor

from memrl.foresight import worth_when_archived
from memrl.memory.paging import EMPTY
from memrl.options import PagingOptions
from memrl.privileged import PrivilegedState


def archive_events(privileged: PrivilegedState, options: PagingOptions) -> Tensor:
    """(B,) events for which archival would keep a page stored now, at the pace of stores so far."""
    clock = privileged.state.clock
    if options.archival_capacity is None:
        return torch.full_like(clock, torch.inf, dtype=torch.float32)
    # The product first: a pace of 1/7 has no exact float, and seven events would be a little less.
    places_and_events = options.archival_capacity * clock.clamp(min=1)
    return places_and_events / privileged.stores.clamp(min=1)


def pushed_out_of_archive(privileged: PrivilegedState, options: PagingOptions) -> Tensor:
    """Reward that one store more is expected to lose, by the page that archival drops for it.

    Of the pages in archival, whose order counts as unknown, each is the one that is dropped just
    before a later query with the same probability, if by then the archive has overflown and has not
    been filled anew; what is lost then is the page's share of that query, less retrieving it.

    Args:
        privileged: the hidden truth of B decision points.
        options: resolved options.

    Returns:
        (B,) float32, 0 or more; 0 where archival has no limit.
    """
    state, capacity = privileged.state, options.archival_capacity
    if capacity is None:
        return torch.zeros_like(state.clock, dtype=torch.float32)
    needs = privileged.future_needs  # (B, Q, R)
    page = needs.clamp(min=0).flatten(1)
    is_archived = state.archived.gather(1, page).view_as(needs) & (needs != EMPTY)
    count = state.archived.sum(dim=1)
    stores_until = privileged.future_events * privileged.stores[:, None]  # times the clock
    clock = state.clock[:, None].clamp(min=1)
    overflows = stores_until > (capacity - count)[:, None] * clock
    overflows &= stores_until <= capacity * clock
    worth = worth_when_archived(
        privileged,
        evidence_weight=options.reward.evidence,
        retrieve_cost=options.reward.retrieve,
    )
    lost = worth * is_archived.sum(dim=2) * overflows
    return lost.sum(dim=1) / count.clamp(min=1)
