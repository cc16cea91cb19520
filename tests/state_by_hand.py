"""Builds a `PagingState` of one episode from the few values that a case is about."""

from __future__ import annotations

from collections.abc import Iterable, Sequence
from typing import Any

import torch

from memrl.state import PagingState

EMPTY = -1


def hand_state(
    slots: Sequence[int],
    *,
    arriving: int = EMPTY,
    sizes: Sequence[int] | None = None,
    arriving_size: int = 1,
    queue: Sequence[int] | None = None,
    retrieved: Iterable[int] = (),
    archived: Iterable[int] = (),
    candidates: Sequence[int] = (),
    candidate_sizes: Sequence[int] | None = None,
    query: int | None = None,
    focus_page: int | None = None,
    num_pages: int = 8,
    **scalars: int,
) -> PagingState:
    """Make the state of one episode.

    Args:
        slots: page in each slot, -1 for none.
        arriving, arriving_size: what waits to be let in.
        sizes, candidate_sizes: sizes of those pages; 1 each by default.
        queue: slots by order of entry; slot order by default.
        retrieved: pages brought in for this query.
        archived, candidates: pages.
        query: the query at hand, None under pressure.
        focus_page: the focus, where it is a page; the arriving page by default.
        num_pages: W.
        scalars: any other field of shape (B,).
    """
    rows = [*slots, arriving]
    sizes = [int(page != EMPTY) for page in slots] if sizes is None else sizes
    candidate_sizes = (
        [int(page != EMPTY) for page in candidates] if candidate_sizes is None else candidate_sizes
    )
    order = (
        list(range(len(slots)))
        if queue is None
        else [list(queue).index(s) for s in range(len(slots))]
    )
    clock = scalars.get("clock", 0)
    fields: dict[str, Any] = {
        "slot_page": rows,
        "slot_size": [*sizes, arriving_size if arriving != EMPTY else 0],
        "slot_time_in": [0] * len(slots) + [clock],
        "slot_last_use": [0] * len(slots) + [clock],
        "slot_uses": [0] * len(rows),
        "slot_sequence": [*order, 0],
        "slot_retrieved": [page != EMPTY and page in set(retrieved) for page in rows],
        "archived": [page in set(archived) for page in range(num_pages)],
        "candidate_page": list(candidates),
        "candidate_size": list(candidate_sizes),
    }
    is_query_focus = query is not None and focus_page is None
    page = arriving if focus_page is None else focus_page
    defaults = {
        "document": 0,
        "first_page": 0,
        "num_pages": num_pages,
        "more_candidates": False,
        "at_query": query is not None,
        "focus_is_query": is_query_focus,
        "focus": query if is_query_focus else max(page, 0),
        "clock": 0,
        "pages_arrived": 0,
        "queries_asked": 0,
        "operations_used": 0,
    }
    fields |= defaults | scalars
    flags = {"more_candidates", "at_query", "focus_is_query", "slot_retrieved", "archived"}
    return PagingState(
        **{
            name: torch.tensor([value], dtype=torch.bool if name in flags else torch.int64)
            for name, value in fields.items()
        }
    )


def stack(states: Sequence[PagingState]) -> PagingState:
    """One state of all of them, along the batch axis."""
    names = states[0].__dataclass_fields__
    return PagingState(**{n: torch.cat([getattr(state, n) for state in states]) for n in names})
