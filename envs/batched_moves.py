"""What moves in the batched process: pages come in, leave, are stored, and events happen.

Every function changes the given rows of an `EpisodeBatch` in place. What it takes and returns has
one entry for each of `rows.index`, (b,); entries of rows that are not meant have no meaning.
"""

from __future__ import annotations

import math

import torch
from torch import Tensor

from envs.batched_events import EventTensors
from envs.batched_rows import Rows
from envs.batched_state import EpisodeBatch
from memrl.flags import first_true
from memrl.memory.paging import EMPTY
from memrl.options import PagingOptions


def fits(batch: EpisodeBatch, rows: Rows, size: Tensor, options: PagingOptions) -> Tensor:
    """(b,) bool: whether a page of the given size, (b,), fits beside the residents."""
    index = rows.index
    has_room: Tensor = batch.slot_size[index, :-1].sum(dim=1) + size <= int(options.capacity)
    has_free_slot: Tensor = (batch.slot_page[index, :-1] < 0).any(dim=1)
    return has_room & has_free_slot


def take_out(batch: EpisodeBatch, rows: Rows, slot: Tensor) -> None:
    """Empty one slot of each row; slot is (b,), empty slots stay so."""
    rows.write(batch.slot_page, EMPTY, slot)
    rows.write(batch.slot_size, 0, slot)
    rows.write(batch.slot_retrieved, False, slot)


def let_victims_go(batch: EpisodeBatch, rows: Rows, options: PagingOptions) -> None:
    """YIELD under pressure: the victim leaves, and more where `evict_fraction` asks for it."""
    if not options.evict_fraction:
        take_out(batch, rows, _fifo_key(batch, rows).argmin(dim=1))
        return
    limit = math.floor((1 - options.evict_fraction) * options.capacity)
    num_slots = batch.slot_page.shape[1] - 1
    size_limit = torch.full_like(rows.index, limit)
    count_limit = torch.full_like(rows.index, num_slots)
    _take_out_oldest(batch, rows, 1, size_limit, count_limit)


def make_room(batch: EpisodeBatch, rows: Rows, size: Tensor, options: PagingOptions) -> None:
    """Victims leave until a page of the given size, (b,), fits."""
    num_slots = batch.slot_page.shape[1] - 1
    size_limit = int(options.capacity) - size
    _take_out_oldest(batch, rows, 0, size_limit, torch.full_like(rows.index, num_slots - 1))


def _fifo_key(batch: EpisodeBatch, rows: Rows) -> Tensor:
    """(b, num_slots) int64: ascending in FIFO order, empty slots last."""
    sequence = batch.slot_sequence[rows.index, :-1]
    last = torch.iinfo(torch.int64).max
    return torch.where(batch.slot_page[rows.index, :-1] >= 0, sequence, last)


def _take_out_oldest(
    batch: EpisodeBatch, rows: Rows, least: int, size_limit: Tensor, count_limit: Tensor
) -> None:
    """Residents leave in FIFO order until what stays is within limits; at least `least` leave.

    Args:
        batch: the batch. rows: (b,). least: pages. size_limit, count_limit: (b,) int64.
    """
    residents = slice(-1)
    page, size = batch.slot_page[rows.index, residents], batch.slot_size[rows.index, residents]
    order = _fifo_key(batch, rows).argsort(dim=1)
    # What is occupied when each page's turn comes, because all older ones have left.
    in_turn = size.gather(1, order)
    size_left = in_turn.flip(1).cumsum(dim=1).flip(1)
    turn = torch.arange(order.shape[1], device=rows.index.device)
    count_left = (page >= 0).sum(dim=1, keepdim=True) - turn
    leaves_in_turn = (
        (turn < least) | (size_left > size_limit[:, None]) | (count_left > count_limit[:, None])
    )
    leaves = torch.zeros_like(leaves_in_turn).scatter(1, order, leaves_in_turn)
    retrieved = batch.slot_retrieved[rows.index, residents] & ~leaves
    rows.write(batch.slot_page, torch.where(leaves, EMPTY, page), residents)
    rows.write(batch.slot_size, torch.where(leaves, 0, size), residents)
    rows.write(batch.slot_retrieved, retrieved, residents)


def bring_in(
    batch: EpisodeBatch, rows: Rows, page: Tensor, size: Tensor, *, retrieved: bool = False
) -> None:
    """Put a page that fits at the back of the queue, in the lowest free slot.

    Args:
        batch: the batch. rows: (b,). page, size: (b,) int64.
        retrieved: whether the pages were retrieved, which is a use of them.
    """
    slot = first_true(batch.slot_page[rows.index, :-1] < 0)
    clock, entered = batch.clock[rows.index], batch.pages_in[rows.index]
    uses = torch.full_like(page, int(retrieved))
    values = torch.stack([page, size, entered, clock, clock, uses])
    rows.write_block(batch.slots, values, slot)
    rows.write(batch.pages_in, entered + 1)
    if retrieved:
        rows.write(batch.slot_retrieved, True, slot)


def store(batch: EpisodeBatch, rows: Rows, page: Tensor) -> None:
    """Copy a page that is not archived, (b,), to archival; a full archive drops its oldest page."""
    index, places = rows.index, batch.archive_queue.shape[1]
    number = batch.stores[index] + batch.num_preloaded[index]
    place = number % places
    # Before the archive is full there is nothing to drop: the page itself stands in for it.
    dropped = torch.where(number < places, page, batch.archive_queue[index, place])
    rows.write(batch.archived, False, dropped)
    rows.write(batch.archived, True, page)
    rows.write(batch.was_stored, True, page)
    rows.write(batch.archive_queue, page, place)
    rows.write(batch.stores, batch.stores[index] + 1)


def let_in_what_fits(
    batch: EpisodeBatch, rows: Rows, events: EventTensors, options: PagingOptions
) -> None:
    """Let messages happen as long as their pages fit and no query comes between."""
    room = int(options.capacity) - batch.slot_size[rows.index, :-1].sum(dim=1)
    if rows.valid is None:
        has_room = (room > 0).nonzero()[:, 0]
        if not len(has_room):  # the usual case, and the end of it
            return
        rows, room = Rows(rows.index[has_room]), room[has_room]
    index = rows.index
    free = batch.slot_page[index, :-1] < 0
    clock, arrived, entered = batch.clock[index], batch.pages_arrived[index], batch.pages_in[index]
    first_row = batch.first_row[index]
    coming = events.messages[batch.episode[index], clock]
    first = first_row + arrived
    # The last row on the page axis before which no more than fits comes in.
    end = torch.searchsorted(events.size_before, events.size_before[first] + room, right=True) - 1
    number = torch.minimum(torch.minimum(coming, end - first), free.sum(dim=1))
    turn = free.cumsum(dim=1) - 1
    enters = free & (turn < number[:, None])
    page = torch.where(enters, arrived[:, None] + turn, 0)
    time = clock[:, None] + turn + 1
    size = events.page_size[first_row[:, None] + page]
    values = torch.stack([page, size, entered[:, None] + turn, time, time, torch.zeros_like(page)])
    residents = slice(-1)
    values = torch.where(enters, values, batch.slots[:, index, residents])
    rows.write_block(batch.slots, values, residents)
    rows.write(batch.clock, clock + number)
    rows.write(batch.pages_arrived, arrived + number)
    rows.write(batch.pages_in, entered + number)


def next_event(
    batch: EpisodeBatch, rows: Rows, events: EventTensors, options: PagingOptions
) -> Tensor:
    """Let the next event happen: a page does not fit, a query is asked, or the episode ends.

    Args:
        batch: the batch. rows: (b,), with no page to come that fits.
        events: the table's events. options: resolved options.

    Returns:
        (b,) bool, a query was asked.
    """
    index = rows.index
    event = events.event[:, batch.episode[index], batch.clock[index]]
    asks, arrives, ends, number, page, size = event
    clock, none = batch.clock[index] + 1 - ends, torch.zeros_like(ends)
    arrived, asked = batch.pages_arrived[index] + arrives, batch.queries_asked[index] + asks
    spent = ends * options.operation_budget
    # The order of the first eight `counters` and five `flags`; there are no hits of a search yet.
    counters = torch.stack([clock, arrived, asked, spent, number, number, none, none])
    rows.write_block(batch.counters[:8], counters)
    flags = torch.stack([asks, asks, ends, none, none]).bool()
    rows.write_block(batch.flags[:5], flags)
    rows.write_block(batch.slots, torch.stack([page, size, none, clock, clock, none]), -1)
    rows.write(batch.slot_retrieved, False)
    return flags[0]
