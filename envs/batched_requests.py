"""What the batched process does at requests: hits, and misses whose page fits.

Nothing is to be decided at either, so a call plays several of them. It changes the given rows of an
`EpisodeBatch` in place; what it takes has one entry for each of `rows.index`, (b,).
"""

from __future__ import annotations

import torch
from torch import Tensor

from envs import batched_moves as moves
from envs.batched_events import EventTensors
from envs.batched_log import BatchLog
from envs.batched_rows import Rows, RowSelector
from envs.batched_state import EpisodeBatch
from memrl.memory.paging import EMPTY
from memrl.options import PagingOptions

LOOK_AHEAD = 8
"""Requests that one call looks at; another call goes on where they are all hits."""


def serve(
    batch: EpisodeBatch,
    log: BatchLog,
    rows: Rows,
    events: EventTensors,
    options: PagingOptions,
    select: RowSelector,
) -> None:
    """Let requests happen while they are hits, and after them one miss whose page fits.

    Rows that may go on in this way are `due` afterwards, and nothing is legal in them. For all
    others the next event is a miss whose page does not fit, or the end.

    Args:
        batch: the batch. log: of it. rows: of b rows before a request or the end.
        events: the table's events. options: resolved options. select: makes rows of masks.
    """
    assert events.requested is not None
    requested = events.requested
    index = rows.index
    clock, episode = batch.clock[index], batch.episode[index]
    step = torch.arange(LOOK_AHEAD, device=index.device)
    when = (clock[:, None] + step).clamp(max=requested.shape[1] - 1)
    page = requested[episode[:, None], when]
    meets = (page[:, :, None] == batch.slot_page[index, None, :-1]) & (page >= 0)[:, :, None]
    is_hit = meets.any(dim=2).long().cumprod(dim=1)  # up to the first request that is none
    number = is_hit.sum(dim=1)
    _use(batch, rows, meets & is_hit[:, :, None].bool(), clock[:, None] + step + 1)
    rows.write(batch.clock, clock + number)
    rows.write(batch.unpaid_hits, batch.unpaid_hits[index] + number)
    rows.write(log.hits, log.hits[index] + number)

    goes_on = number == LOOK_AHEAD
    event = events.event[:, episode, clock + number]
    misses = (event[4] >= 0) & ~goes_on
    rows.write(log.requests, log.requests[index] + number + misses)
    comes_in = misses & moves.fits(batch, rows, event[5], options)
    _let_in(batch, rows, comes_in, event, select)
    is_due = goes_on | comes_in
    rows.write(batch.due, is_due)
    spent = batch.operations_used[index]
    rows.write(batch.operations_used, torch.where(is_due, options.operation_budget, spent))
    rows.write(batch.slot_page, EMPTY, -1)  # what arrived before is in
    rows.write(batch.slot_size, 0, -1)


def _use(batch: EpisodeBatch, rows: Rows, used: Tensor, time: Tensor) -> None:
    """Note uses of resident pages.

    Args:
        batch: the batch. rows: of b rows.
        used: (b, L, num_slots) bool. time: (b, L), the clock of each.
    """
    residents = slice(-1)
    latest = (used * time[:, :, None]).amax(dim=1)
    last_use = batch.slot_last_use[rows.index, residents]
    rows.write(batch.slot_last_use, torch.maximum(last_use, latest), residents)
    uses = batch.slot_uses[rows.index, residents]
    rows.write(batch.slot_uses, uses + used.sum(dim=1), residents)


def _let_in(
    batch: EpisodeBatch, rows: Rows, comes_in: Tensor, event: Tensor, select: RowSelector
) -> None:
    """Bring in requested pages; comes_in is (b,) bool, event (6, b)."""
    num_envs = len(batch.clock)
    entering = select(rows.mask(num_envs, comes_in))
    if entering.is_empty:
        return
    _, is_new, _, _, page, size = event
    if entering.valid is None:
        is_new, page, size = (values[comes_in] for values in (is_new, page, size))
    index = entering.index
    entering.write(batch.clock, batch.clock[index] + 1)
    entering.write(batch.pages_arrived, batch.pages_arrived[index] + is_new)
    moves.bring_in(batch, entering, page, size)
