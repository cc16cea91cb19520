"""What the batched process does at a query: stage, show candidates, count needs, pay evidence.

Every function changes the given rows of an `EpisodeBatch` in place; those that are meant stand at a
query. What it takes has one entry for each of `rows.index`, (b,). How a search ranks is in
`memrl.staging`.
"""

from __future__ import annotations

import torch
from torch import Tensor

from envs.batched_events import EventTensors
from envs.batched_log import BatchLog
from envs.batched_rows import Rows
from envs.batched_state import EpisodeBatch
from memrl.flags import first_true
from memrl.memory.paging import EMPTY
from memrl.options import PagingOptions
from memrl.staging import first_page, rank_candidates, window_scores
from memrl.state import TableTensors


def is_resident(batch: EpisodeBatch, rows: Rows, page: Tensor) -> Tensor:
    """(b, R) bool: whether pages are in main context; page is (b, R), not -1."""
    same: Tensor = page[:, :, None] == batch.slot_page[rows.index, None, :-1]
    return same.any(dim=2)


def open_query(batch: EpisodeBatch, log: BatchLog, rows: Rows, events: EventTensors) -> None:
    """Look up what a new query needs, and what of that is outside main context."""
    index = rows.index
    query = batch.query[index]
    # Rows that are not meant may hold a page's number here.
    table_row = (events.query_offset[batch.document[index]] + query).clamp(max=len(events.pays) - 1)
    needs = events.needs[table_row]
    needs = torch.where(needs >= 0, needs - batch.first_page[index, None], EMPTY)
    absent = (needs >= 0) & ~is_resident(batch, rows, needs)
    page = _page(batch, needs)
    stored = absent & batch.was_stored[index[:, None], page]
    kept = absent & batch.archived[index[:, None], page]
    rows.write(batch.needs, needs)
    rows.write(batch.was_absent, absent)
    rows.write(batch.was_staged, False)
    rows.write(batch.was_retrieved, False)
    place = batch.queries_asked[index] - 1
    rows.write(log.query, query, place)
    rows.write(log.category, events.category[table_row], place)
    rows.write(log.absent, absent.sum(dim=1), place)
    rows.write(log.stored, stored.sum(dim=1), place)
    rows.write(log.kept, kept.sum(dim=1), place)


def search(
    batch: EpisodeBatch,
    rows: Rows,
    is_new: Tensor,
    table: TableTensors,
    options: PagingOptions,
) -> None:
    """Rank what is outside main context against the focus, and go to the first page of results.

    Args:
        batch: the batch. rows: of b rows.
        is_new: (b,) bool, whether the query has just been asked; then the resident that the search
            ranks first is used.
        table, options: as in `memrl.staging.window_scores`.
    """
    index = rows.index
    state = batch.paging_state(index)
    window = window_scores(state, table, options)
    best = first_page(window.scores, window.resident)
    slot = first_true(state.slot_page[:, :-1] == best[:, None])
    is_used = is_new & (batch.slot_page[index, slot] == best)
    last_use, uses = batch.slot_last_use[index, slot], batch.slot_uses[index, slot]
    rows.write(batch.slot_last_use, torch.where(is_used, state.clock, last_use), slot)
    rows.write(batch.slot_uses, uses + is_used, slot)
    ranking, num_hits = rank_candidates(window, state, options)
    rows.write(batch.ranking, ranking)
    rows.write(batch.num_hits, num_hits)
    rows.write(batch.result_page, 0)


def show_candidates(
    batch: EpisodeBatch, rows: Rows, events: EventTensors, options: PagingOptions
) -> None:
    """Fill the candidate rows; one is empty while its page of the ranking cannot be retrieved."""
    num_candidates = options.num_candidates
    if not num_candidates:
        return
    index = rows.index
    result_page, num_hits = batch.result_page[index, None], batch.num_hits[index, None]
    rank = result_page * num_candidates + torch.arange(num_candidates, device=index.device)
    page = batch.ranking[index[:, None], rank.clamp(max=batch.ranking.shape[1] - 1)]
    shows = (rank < num_hits) & ~is_resident(batch, rows, page)
    page = page.clamp(min=0)
    if options.stage_from == "archival":
        shows &= batch.archived[index[:, None], page]
    size = events.page_size[batch.first_row[index, None] + page]
    page = torch.where(shows, page, EMPTY)
    rows.write(batch.candidate_page, page)
    rows.write(batch.candidate_size, size * shows)
    more = ((result_page + 1) * num_candidates < num_hits)[:, 0]
    rows.write(batch.more_candidates, more)
    note_absent(batch, rows, batch.was_staged, page)


def note_absent(batch: EpisodeBatch, rows: Rows, noted: Tensor, page: Tensor) -> None:
    """Set where the absent needs are among pages.

    Args:
        batch: the batch. rows: of b rows. noted: (B, R) bool, changed in place.
        page: (b, any) pages, `EMPTY` for none.
    """
    index = rows.index
    is_one = (batch.needs[index, :, None] == page[:, None]).any(dim=2)
    rows.write(noted, noted[index] | (batch.was_absent[index] & is_one))


def answer(
    batch: EpisodeBatch, log: BatchLog, rows: Rows, events: EventTensors, weight: float
) -> None:
    """Pay the evidence of the query at hand, write it down, and take the candidates away."""
    index = rows.index
    needs, page = batch.needs[index], batch.slot_page[index, :-1]
    resident = (needs >= 0) & is_resident(batch, rows, needs)
    found = resident.sum(dim=1)
    num_needs = (needs >= 0).sum(dim=1)
    evidence = found.double() / num_needs.clamp(min=1)
    table_row = events.query_offset[batch.document[index]] + batch.query[index]
    pays = events.pays[table_row.clamp(max=len(events.pays) - 1)]
    paid = batch.reward_terms[index, 0] + torch.where(pays, weight * evidence, 0.0)
    rows.write(batch.reward_terms, paid, 0)
    tokens = events.page_tokens[batch.first_row[index, None] + page.clamp(min=0)] * (page >= 0)
    place = batch.queries_asked[index] - 1
    rows.write(log.evidence, torch.where(pays, evidence, torch.nan), place)
    rows.write(log.staged, batch.was_staged[index].sum(dim=1), place)
    rows.write(log.retrieved, batch.was_retrieved[index].sum(dim=1), place)
    rows.write(log.used, (batch.was_absent[index] & resident).sum(dim=1), place)
    rows.write(log.num_needs, num_needs, place)
    rows.write(log.num_resident, (page >= 0).sum(dim=1), place)
    rows.write(log.tokens_read, log.tokens_read[index] + tokens.sum(dim=1))
    rows.write(batch.candidate_page, EMPTY)
    rows.write(batch.candidate_size, 0)


def _page(batch: EpisodeBatch, page: Tensor) -> Tensor:
    """Pages as indices of the window; those of rows that are not meant may lie outside it."""
    return page.clamp(min=0, max=batch.archived.shape[1] - 1)
