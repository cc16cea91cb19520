"""What moves in the batched process: pages come in, leave, are stored, and events happen.

Every function changes the given rows of an `EpisodeBatch` in place; rows are (b,) int64, distinct.
"""

from __future__ import annotations

import math

import torch
from torch import Tensor

from envs.batched_events import EventTensors
from envs.batched_state import EpisodeBatch
from memrl.memory.paging import EMPTY
from memrl.options import PagingOptions


def fits(batch: EpisodeBatch, rows: Tensor, size: Tensor, options: PagingOptions) -> Tensor:
    """(b,) bool: whether a page of the given size, (b,), fits beside the residents."""
    has_room: Tensor = batch.slot_size[rows, :-1].sum(dim=1) + size <= int(options.capacity)
    has_free_slot: Tensor = (batch.slot_page[rows, :-1] < 0).any(dim=1)
    return has_room & has_free_slot


def take_out(batch: EpisodeBatch, rows: Tensor, slot: Tensor) -> None:
    """Empty one slot of each row; slot is (b,), empty slots stay so."""
    batch.slot_page[rows, slot] = EMPTY
    batch.slot_size[rows, slot] = 0
    batch.slot_retrieved[rows, slot] = False


def let_victims_go(batch: EpisodeBatch, rows: Tensor, options: PagingOptions) -> None:
    """YIELD under pressure: the victim leaves, and more where `evict_fraction` asks for it."""
    if not options.evict_fraction:
        take_out(batch, rows, _fifo_key(batch, rows).argmin(dim=1))
        return
    limit = math.floor((1 - options.evict_fraction) * options.capacity)
    num_slots = batch.slot_page.shape[1] - 1
    size_limit, count_limit = torch.full_like(rows, limit), torch.full_like(rows, num_slots)
    _take_out_oldest(batch, rows, 1, size_limit, count_limit)


def make_room(batch: EpisodeBatch, rows: Tensor, size: Tensor, options: PagingOptions) -> None:
    """Victims leave until a page of the given size, (b,), fits."""
    num_slots = batch.slot_page.shape[1] - 1
    size_limit = int(options.capacity) - size
    _take_out_oldest(batch, rows, 0, size_limit, torch.full_like(rows, num_slots - 1))


def _fifo_key(batch: EpisodeBatch, rows: Tensor) -> Tensor:
    """(b, num_slots) int64: ascending in FIFO order, empty slots last."""
    sequence = batch.slot_sequence[rows, :-1]
    last = torch.iinfo(torch.int64).max
    return torch.where(batch.slot_page[rows, :-1] >= 0, sequence, last)


def _take_out_oldest(
    batch: EpisodeBatch, rows: Tensor, least: int, size_limit: Tensor, count_limit: Tensor
) -> None:
    """Residents leave in FIFO order until what stays is within limits; at least `least` leave.

    Args:
        batch: the batch. rows: (b,). least: pages. size_limit, count_limit: (b,) int64.
    """
    page, size = batch.slot_page[rows, :-1], batch.slot_size[rows, :-1]
    order = _fifo_key(batch, rows).argsort(dim=1)
    # What is occupied when each page's turn comes, because all older ones have left.
    in_turn = size.gather(1, order)
    size_left = in_turn.flip(1).cumsum(dim=1).flip(1)
    turn = torch.arange(order.shape[1], device=rows.device)
    count_left = (page >= 0).sum(dim=1, keepdim=True) - turn
    leaves_in_turn = (
        (turn < least) | (size_left > size_limit[:, None]) | (count_left > count_limit[:, None])
    )
    leaves = torch.zeros_like(leaves_in_turn).scatter(1, order, leaves_in_turn)
    batch.slot_page[rows, :-1] = torch.where(leaves, EMPTY, page)
    batch.slot_size[rows, :-1] = torch.where(leaves, 0, size)
    batch.slot_retrieved[rows, :-1] = batch.slot_retrieved[rows, :-1] & ~leaves


def bring_in(
    batch: EpisodeBatch, rows: Tensor, page: Tensor, size: Tensor, *, retrieved: bool = False
) -> None:
    """Put a page that fits at the back of the queue, in the lowest free slot.

    Args:
        batch: the batch. rows: (b,). page, size: (b,) int64.
        retrieved: whether the pages were retrieved, which is a use of them.
    """
    slot = (batch.slot_page[rows, :-1] < 0).byte().argmax(dim=1)
    clock, entered = batch.clock[rows], batch.pages_in[rows]
    uses = torch.full_like(page, int(retrieved))
    batch.slots[:, rows, slot] = torch.stack([page, size, entered, clock, clock, uses])
    batch.pages_in[rows] = entered + 1
    if retrieved:
        batch.slot_retrieved[rows, slot] = True


def store(batch: EpisodeBatch, rows: Tensor, page: Tensor) -> None:
    """Copy a page that is not archived, (b,), to archival; a full archive drops its oldest page."""
    places = batch.archive_queue.shape[1]
    number = batch.stores[rows] + batch.num_preloaded[rows]
    place = number % places
    # Before the archive is full there is nothing to drop: the page itself stands in for it.
    dropped = torch.where(number < places, page, batch.archive_queue[rows, place])
    batch.archived[rows, dropped] = False
    batch.archived[rows, page] = True
    batch.archive_queue[rows, place] = page
    batch.stores[rows] += 1


def let_in_what_fits(
    batch: EpisodeBatch, rows: Tensor, events: EventTensors, options: PagingOptions
) -> None:
    """Let messages happen as long as their pages fit and no query comes between."""
    room = int(options.capacity) - batch.slot_size[rows, :-1].sum(dim=1)
    has_room = (room > 0).nonzero()[:, 0]
    if not len(has_room):  # the usual case, and the end of it
        return
    rows, room = rows[has_room], room[has_room]
    free = batch.slot_page[rows, :-1] < 0
    clock, arrived, first_row = batch.clock[rows], batch.pages_arrived[rows], batch.first_row[rows]
    coming = events.messages[batch.episode[rows], clock]
    first = first_row + arrived
    # The last row on the page axis before which no more than fits comes in.
    end = torch.searchsorted(events.size_before, events.size_before[first] + room, right=True) - 1
    number = torch.minimum(torch.minimum(coming, end - first), free.sum(dim=1))
    turn = free.cumsum(dim=1) - 1
    enters = free & (turn < number[:, None])
    page = torch.where(enters, arrived[:, None] + turn, 0)
    time = clock[:, None] + turn + 1
    size = events.page_size[first_row[:, None] + page]
    entered = batch.pages_in[rows, None] + turn
    values = torch.stack([page, size, entered, time, time, torch.zeros_like(page)])
    batch.slots[:, rows, :-1] = torch.where(enters, values, batch.slots[:, rows, :-1])
    batch.clock[rows] += number
    batch.pages_arrived[rows] += number
    batch.pages_in[rows] += number


def next_event(
    batch: EpisodeBatch, rows: Tensor, events: EventTensors, options: PagingOptions
) -> Tensor:
    """Let the next event happen: a page does not fit, a query is asked, or the episode ends.

    Args:
        batch: the batch. rows: (b,), with no page to come that fits.
        events: the table's events. options: resolved options.

    Returns:
        (b,) bool, a query was asked.
    """
    event = events.event[:, batch.episode[rows], batch.clock[rows]]
    asks, arrives, ends, index, page, size = event
    clock, none = batch.clock[rows] + 1 - ends, torch.zeros_like(ends)
    arrived, asked = batch.pages_arrived[rows] + arrives, batch.queries_asked[rows] + asks
    spent = ends * options.operation_budget
    # The order of the first eight `counters`; hits and result page are those of no search.
    batch.counters[:8, rows] = torch.stack([clock, arrived, asked, spent, index, index, none, none])
    flags = torch.stack([asks, asks, ends, none]).bool()
    batch.flags[:, rows] = flags
    batch.slots[:, rows, -1] = torch.stack([page, size, none, clock, clock, none])
    batch.slot_retrieved[rows] = False
    return flags[0]
