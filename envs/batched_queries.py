"""What the batched process does at a query: stage, show candidates, count needs, pay evidence.

Every function changes the given rows of an `EpisodeBatch` in place; rows are (b,) int64, distinct,
and at a query. How a search ranks is in `memrl.staging`.
"""

from __future__ import annotations

import torch
from torch import Tensor

from envs.batched_events import EventTensors
from envs.batched_log import BatchLog
from envs.batched_state import EpisodeBatch
from memrl.memory.paging import EMPTY
from memrl.options import PagingOptions
from memrl.staging import first_page, rank_candidates, window_scores
from memrl.state import TableTensors


def is_resident(
    batch: EpisodeBatch, rows: Tensor, page: Tensor, *, retrieved: bool = False
) -> Tensor:
    """(b, R) bool: whether pages are in main context, or also retrieved; page is (b, R), not -1."""
    same: Tensor = page[:, :, None] == batch.slot_page[rows, None, :-1]
    if retrieved:
        same &= batch.slot_retrieved[rows, None, :-1]
    return same.any(dim=2)


def open_query(batch: EpisodeBatch, log: BatchLog, rows: Tensor, events: EventTensors) -> None:
    """Look up what a new query needs, and what of that is outside main context."""
    query = batch.query[rows]
    table_row = events.query_offset[batch.document[rows]] + query
    needs = events.needs[table_row]
    needs = torch.where(needs >= 0, needs - batch.first_page[rows, None], EMPTY)
    absent = (needs >= 0) & ~is_resident(batch, rows, needs)
    stored = absent & batch.archived[rows[:, None], needs.clamp(min=0)]
    batch.needs[rows] = needs
    batch.was_absent[rows] = absent
    batch.was_staged[rows] = False
    place = batch.queries_asked[rows] - 1
    log.query[rows, place] = query
    log.category[rows, place] = events.category[table_row]
    log.absent[rows, place] = absent.sum(dim=1)
    log.stored[rows, place] = stored.sum(dim=1)


def search(
    batch: EpisodeBatch, rows: Tensor, is_new: Tensor, table: TableTensors, options: PagingOptions
) -> None:
    """Rank what is outside main context against the focus, and go to the first page of results.

    Args:
        batch: the batch. rows: (b,).
        is_new: (b,) bool, whether the query has just been asked; then the resident that the search
            ranks first is used.
        table, options: as in `memrl.staging.window_scores`.
    """
    state = batch.paging_state(rows)
    window = window_scores(state, table, options)
    best = first_page(window.scores, window.resident)
    slot = (state.slot_page[:, :-1] == best[:, None]).byte().argmax(dim=1)
    is_used = is_new & (batch.slot_page[rows, slot] == best)
    last_use, uses = batch.slot_last_use[rows, slot], batch.slot_uses[rows, slot]
    batch.slot_last_use[rows, slot] = torch.where(is_used, state.clock, last_use)
    batch.slot_uses[rows, slot] = uses + is_used
    batch.ranking[rows], batch.num_hits[rows] = rank_candidates(window, state, options)
    batch.result_page[rows] = 0


def show_candidates(
    batch: EpisodeBatch, rows: Tensor, events: EventTensors, options: PagingOptions
) -> None:
    """Fill the candidate rows; one is empty while its page of the ranking cannot be retrieved."""
    num_candidates = options.num_candidates
    if not num_candidates:
        return
    result_page, num_hits = batch.result_page[rows, None], batch.num_hits[rows, None]
    rank = result_page * num_candidates + torch.arange(num_candidates, device=rows.device)
    page = batch.ranking[rows[:, None], rank.clamp(max=batch.ranking.shape[1] - 1)]
    shows = (rank < num_hits) & ~is_resident(batch, rows, page)
    page = page.clamp(min=0)
    if options.stage_from == "archival":
        shows &= batch.archived[rows[:, None], page]
    size = events.page_size[batch.first_row[rows, None] + page]
    page = torch.where(shows, page, EMPTY)
    batch.candidate_page[rows] = page
    batch.candidate_size[rows] = size * shows
    batch.more_candidates[rows] = ((result_page + 1) * num_candidates < num_hits)[:, 0]
    shown = (batch.needs[rows, :, None] == page[:, None]).any(dim=2)
    batch.was_staged[rows] |= batch.was_absent[rows] & shown


def answer(
    batch: EpisodeBatch, log: BatchLog, rows: Tensor, events: EventTensors, weight: float
) -> None:
    """Pay the evidence of the query at hand, write it down, and take the candidates away."""
    needs, page = batch.needs[rows], batch.slot_page[rows, :-1]
    found = ((needs >= 0) & is_resident(batch, rows, needs)).sum(dim=1)
    evidence = found.double() / (needs >= 0).sum(dim=1).clamp(min=1)
    pays = events.pays[events.query_offset[batch.document[rows]] + batch.query[rows]]
    batch.reward_terms[rows, 0] += torch.where(pays, weight * evidence, 0.0)
    retrieved = batch.was_absent[rows] & is_resident(batch, rows, needs, retrieved=True)
    tokens = events.page_tokens[batch.first_row[rows, None] + page.clamp(min=0)] * (page >= 0)
    place = batch.queries_asked[rows] - 1
    log.evidence[rows, place] = torch.where(pays, evidence, torch.nan)
    log.staged[rows, place] = batch.was_staged[rows].sum(dim=1)
    log.retrieved[rows, place] = retrieved.sum(dim=1)
    log.tokens_read[rows] += tokens.sum(dim=1)
    batch.candidate_page[rows] = EMPTY
    batch.candidate_size[rows] = 0
