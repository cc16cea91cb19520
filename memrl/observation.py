"""The observation: one torch function with a batch axis, for both environments and the agent.

`memrl.state.PagingState` is what an environment knows about B episodes in progress; `observe` turns
it into what a policy may see. Needs, future events, gold answers and source ids are in neither. The
legal actions are in `memrl.masks`.

Axes: B episodes, N slot rows (those of `memrl.shown`, usually `num_slots` + 1; the last one shows
the arriving page), K candidate rows, W pages of the longest window, F = len(FEATURES), G =
len(GLOBALS).
"""

from __future__ import annotations

from typing import NamedTuple

import torch
from torch import Tensor

from memrl.focus import focus_page_row, of_query_focus, page_scores, resident_pages
from memrl.identity import identity
from memrl.memory.paging import EMPTY
from memrl.memory.scores import SCORE_SCALE
from memrl.options import PagingOptions
from memrl.shown import shown_state
from memrl.state import PagingState, TableTensors
from memrl.table import QUERY_SURFACE, SURFACE

FEATURES = (
    "occupied",  # the row holds a page
    "tokens_share",  # size / capacity, in the unit of capacity
    "age",  # events since it came into main context / time_scale; 0 for candidates
    "since_last_use",  # events since its last use / time_scale; 0 for candidates
    "uses",  # since it came in / 4: hits; its retrieval, queries that rank it first, SEARCHes
    "written_ago",  # pages that arrived after it / time_scale
    "stored",  # archival holds a copy
    "retrieved",  # brought in for this query
    "victim",  # FIFO evicts it next
    "arriving",  # waits to be let in
    "from_recall",  # a candidate that only recall holds
    "dense",  # cosine against the focus; 0 for a page that only recall holds
    "lexical",  # share of the focus's BM25 upper bound
    "previous_dense",  # the same scores of the pages before and after it in time,
    "next_dense",  # while those are resident or stored
    "previous_lexical",
    "next_lexical",
    "names_speaker",  # the focus names its speaker
    "rank",  # 1 / (1 + row) among the candidates; 0 for slots
    "prior",  # logit of the fitted page scorer / 4
    *SURFACE,
)
"""Columns of `slots` and `candidates`; rows without a page are all 0."""

COMPACT_FEATURES = (
    *("occupied", "tokens_share", "age", "stored", "retrieved", "victim", "arriving"),
    *("dense", "lexical", "previous_dense", "next_dense", "names_speaker", "rank", "prior"),
    *("length", "digits"),
)
"""Columns of a compact observation, in the order of `FEATURES`."""

GLOBALS = (
    "under_pressure",
    "at_query",
    "focus_is_page",  # at a query: the focus was chosen with SEARCH
    "occupancy",  # occupied / capacity
    "slots_used",  # resident pages / num_slots
    "archive_fill",  # archived / archival_capacity; with no limit, archived / 4 num_slots
    "elapsed_events",  # / time_scale
    "pages_arrived",  # / time_scale
    "queries_asked",  # / 10
    "operations_used",  # at this decision point / operation_budget
    "retrieved_share",  # pages brought in for this query / 4
    "candidates_share",  # candidate rows in use / K
    "more_candidates",  # NEXT would show further ones
    *(f"focus_{name}" for name in QUERY_SURFACE),
)
"""Entries of `globals`."""

LIMIT = 10.0
"""Observations are clipped to [-LIMIT, LIMIT]."""

_QUERY_COLUMNS = [SURFACE.index(name) for name in QUERY_SURFACE]


def observe(
    state: PagingState, table: TableTensors, options: PagingOptions, *, compact: bool = False
) -> dict[str, Tensor]:
    """Features of every row and of the situation; all float32 in [-LIMIT, LIMIT].

    Args:
        state: B episodes at a decision point.
        table: the episodes' table on the same device.
        options: resolved options.
        compact: give `COMPACT_FEATURES` in float16, a third of the bytes.

    Returns:
        `slots` (B, N, F), `candidates` (B, K, F), `globals` (B, G); and, of a page cache, what
        `memrl.identity` tells beside them.
    """
    shown = shown_state(state, options)
    num_rows = shown.slot_page.shape[1]
    names = COMPACT_FEATURES if compact else FEATURES
    rows = _row_features(_all_rows(shown), state, table, options, names)
    observation = {
        "slots": rows[:, :num_rows],
        "candidates": rows[:, num_rows:],
        "globals": _global_features(state, table, options),
    }
    if compact:
        observation = {name: values.half() for name, values in observation.items()}
    return observation | identity(shown) if table.has_requests else observation


def observe_slots(
    state: PagingState, table: TableTensors, options: PagingOptions, slot: Tensor
) -> dict[str, Tensor]:
    """The same with some slot rows and no candidates: all that some decisions need.

    Args:
        state, table, options: as for `observe`.
        slot: (B, n) int64, the slot rows to describe.

    Returns:
        `slots` (B, n, F), `candidates` (B, 0, F), `globals` (B, G); each equal to that part of
        what `observe` gives.
    """
    rows = _row_features(
        _some_slots(shown_state(state, options), slot), state, table, options, FEATURES
    )
    return {
        "slots": rows,
        "candidates": rows[:, :0],
        "globals": _global_features(state, table, options),
    }


class _Rows(NamedTuple):
    """R rows of each of B episodes, slots before candidates: what `PagingState` says of them.

    Attributes:
        page: (B, R), -1 for none. size: (B, R).
        age, since_last_use, uses: (B, R) in events; 0 for candidates.
        retrieved, victim, arriving: (B, R) bool, False for candidates.
        num_slots: how many of the R are slots.
    """

    page: Tensor
    size: Tensor
    age: Tensor
    since_last_use: Tensor
    uses: Tensor
    retrieved: Tensor
    victim: Tensor
    arriving: Tensor
    num_slots: int


def _some_slots(state: PagingState, slot: Tensor) -> _Rows:
    clock = state.clock[:, None]
    num_rows = state.slot_page.shape[1]
    return _Rows(
        page=state.slot_page.gather(1, slot),
        size=state.slot_size.gather(1, slot),
        age=clock - state.slot_time_in.gather(1, slot),
        since_last_use=clock - state.slot_last_use.gather(1, slot),
        uses=state.slot_uses.gather(1, slot),
        retrieved=state.slot_retrieved.gather(1, slot),
        victim=state.victim_rows().gather(1, slot),
        arriving=slot == num_rows - 1,
        num_slots=slot.shape[1],
    )


def _all_rows(state: PagingState) -> _Rows:
    num_rows, num_candidates = state.slot_page.shape[1], state.candidate_page.shape[1]
    clock = state.clock[:, None]

    def padded(values: Tensor) -> Tensor:
        return torch.nn.functional.pad(values, (0, num_candidates))

    row = torch.arange(num_rows + num_candidates, device=clock.device)
    return _Rows(
        page=torch.cat([state.slot_page, state.candidate_page], dim=1),
        size=torch.cat([state.slot_size, state.candidate_size], dim=1),
        age=padded(clock - state.slot_time_in),
        since_last_use=padded(clock - state.slot_last_use),
        uses=padded(state.slot_uses),
        retrieved=padded(state.slot_retrieved),
        victim=padded(state.victim_rows()),
        arriving=(row == num_rows - 1).expand(len(clock), -1),
        num_slots=num_rows,
    )


def _row_features(
    rows: _Rows,
    state: PagingState,
    table: TableTensors,
    options: PagingOptions,
    names: tuple[str, ...],
) -> Tensor:
    """(B, R, len(names)); names are in the order of `FEATURES`, those of `SURFACE` last."""
    page = rows.page
    safe = page.clamp(min=0)
    row = (table.page_offset[state.document] + state.first_page)[:, None] + safe
    archived = state.archived.gather(1, safe)
    is_candidate = torch.arange(page.shape[1], device=page.device) >= rows.num_slots
    rank = 1.0 / (1.0 + torch.arange(page.shape[1], device=page.device) - rows.num_slots)
    columns = {
        "occupied": page >= 0,
        "tokens_share": rows.size / options.capacity,
        "age": rows.age / options.time_scale,
        "since_last_use": rows.since_last_use / options.time_scale,
        "uses": rows.uses / 4.0,
        "written_ago": (state.pages_arrived[:, None] - 1 - page) / options.time_scale,
        "stored": archived,
        "retrieved": rows.retrieved,
        "victim": rows.victim,
        "arriving": rows.arriving,
        "from_recall": is_candidate & ~archived,
        **_score_columns(state, table, page, archived | ~is_candidate),
        "rank": torch.where(is_candidate, rank, 0.0).expand(len(page), -1),
        "prior": table.page_prior[row] / 4.0,
    }
    surface, own = table.page_surface[row], [name for name in names if name in SURFACE]
    if len(own) < len(SURFACE):
        surface = surface[..., [SURFACE.index(name) for name in own]]
    dynamic = torch.stack([columns[name].float() for name in names if name in columns], dim=-1)
    features = torch.cat([dynamic, surface], dim=-1)
    return (features * (page >= 0)[..., None]).clamp_(-LIMIT, LIMIT)


def _score_columns(
    state: PagingState, table: TableTensors, page: Tensor, was_embedded: Tensor
) -> dict[str, Tensor]:
    """Scores of every row's page, (B, R), and of its neighbours in time.

    Args:
        state, table: as for `observe`. page: (B, R).
        was_embedded: (B, R) bool; what only recall holds never was.
    """
    width = page.shape[1]
    available = resident_pages(state) | state.archived
    near = torch.cat([page - 1, page + 1], dim=1)
    known = torch.cat([page, page], dim=1) >= 0
    known &= (near >= 0) & (near < state.num_pages[:, None])
    known &= available.gather(1, torch.where(known, near, 0))
    looked_at = torch.cat([page, torch.where(known, near, EMPTY)], dim=1)
    dense, lexical, named = page_scores(state, table, looked_at)
    dense_share, lexical_share = dense / SCORE_SCALE, lexical / SCORE_SCALE
    return {
        "dense": dense_share[:, :width] * was_embedded,
        "lexical": lexical_share[:, :width],
        "previous_dense": dense_share[:, width : 2 * width],
        "next_dense": dense_share[:, 2 * width :],
        "previous_lexical": lexical_share[:, width : 2 * width],
        "next_lexical": lexical_share[:, 2 * width :],
        "names_speaker": named[:, :width],
    }


def _global_features(state: PagingState, table: TableTensors, options: PagingOptions) -> Tensor:
    """(B, G)."""
    num_candidates = max(state.candidate_page.shape[1], 1)
    resident = (state.slot_page[:, :-1] >= 0).sum(dim=1)
    num_slots = state.slot_page.shape[1] - 1
    archive_places = options.archival_capacity
    if archive_places is None:
        archive_places = 4 * num_slots
    page_surface = table.page_surface[focus_page_row(state, table)][:, _QUERY_COLUMNS]
    focus_surface = torch.where(
        state.focus_is_query[:, None],
        of_query_focus(state, table, table.query_surface),
        page_surface,
    )
    columns = [
        state.slot_page[:, -1] >= 0,
        state.at_query,
        state.at_query & ~state.focus_is_query,
        state.slot_size[:, :-1].sum(dim=1) / options.capacity,
        resident / num_slots,
        state.archived.sum(dim=1) / max(archive_places, 1),
        state.clock / options.time_scale,
        state.pages_arrived / options.time_scale,
        state.queries_asked / 10.0,
        state.operations_used / options.operation_budget,
        state.slot_retrieved.sum(dim=1) / 4.0,
        (state.candidate_page >= 0).sum(dim=1) / num_candidates,
        state.more_candidates,
    ]
    dynamic = torch.stack([column.float() for column in columns], dim=-1)
    return torch.cat([dynamic, focus_surface], dim=-1).clamp(-LIMIT, LIMIT)
