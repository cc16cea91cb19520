"""Staging: how a search ranks the pages outside main context against a focus.

Written once, over a leading batch axis, in integer arithmetic on the table's quantised scores, so
that every device and both environments rank alike; ties go to the page that came first.

The ranking rules, weakest first:
- `dense`: cosine of embeddings; `lexical`: BM25 as a share of the focus's own upper bound;
- `hybrid`: their sum;
- `hybrid_neighbours`: the sum, plus .3 of the better dense score among the previous and the next
page
  in time (a reply often holds what its neighbour asks about), plus .2 when the focus names the
  page's speaker. A neighbour counts only while it is resident or stored: what is lost cannot be
  looked at.

A page that only recall holds has no embedding there: its lexical score stands for both, and it is a
hit only when that is above 0.
"""

from __future__ import annotations

from typing import NamedTuple

import torch
from torch import Tensor

from memrl.focus import page_scores, resident_pages, scores_between_pages
from memrl.memory.paging import EMPTY
from memrl.memory.scores import SCORE_SCALE
from memrl.options import PagingOptions, Staging
from memrl.state import PagingState, TableTensors


def neighbour_max(scores: Tensor, available: Tensor) -> Tensor:
    """Better score of the previous and the next page, 0 where neither is available.

    Args:
        scores: (..., W) integers, one per page of the window.
        available: (..., W) bool, pages that may be looked at.
    """
    none = torch.full_like(scores[..., :1], -SCORE_SCALE - 1)
    visible = torch.where(available, scores, none)
    best = torch.maximum(
        torch.cat([none, visible[..., :-1]], dim=-1), torch.cat([visible[..., 1:], none], dim=-1)
    )
    return torch.where(best > none, best, torch.zeros_like(best))


def staging_scores(
    dense: Tensor, lexical: Tensor, names_speaker: Tensor, available: Tensor, method: Staging
) -> Tensor:
    """Integer scores by which candidates are ranked; larger is better.

    Args:
        dense, lexical: (..., W) integers of 32 bits or more, quantised scores of every page of the
            window.
        names_speaker: (..., W) bool, whether the focus names the page's speaker.
        available: (..., W) bool, pages that are resident or stored.
        method: the ranking rule.

    Returns:
        (..., W), integers of the same kind.
    """
    if method == "dense":
        return torch.where(available, dense, lexical)
    if method == "lexical":
        return lexical
    hybrid = dense * available + lexical
    if method == "hybrid":
        return hybrid
    bonus = 2 * SCORE_SCALE * names_speaker.to(hybrid.dtype)
    return 10 * hybrid + 3 * neighbour_max(dense, available) + bonus


def rank_pages(scores: Tensor, is_hit: Tensor) -> tuple[Tensor, Tensor]:
    """Order hits by score, ties by page order.

    Args:
        scores: (B, W) int64.
        is_hit: (B, W) bool.

    Returns:
        (B, W) int64 page indices, hits first and best first; and (B,) int64, the number of hits.
    """
    return _sort_keys(scores, is_hit).argsort(dim=1, descending=True), is_hit.sum(dim=1)


def first_page(scores: Tensor, is_hit: Tensor) -> Tensor:
    """(B,) int64: the page that `rank_pages` puts first; any page where there is no hit."""
    return _sort_keys(scores, is_hit).argmax(dim=1)


def _sort_keys(scores: Tensor, is_hit: Tensor) -> Tensor:
    """(..., W) int64, all different within a row; hits above the rest."""
    width = scores.shape[-1]
    tie_break = torch.arange(width - 1, -1, -1, device=scores.device)
    lowest = torch.iinfo(torch.int64).min // (2 * max(width, 1))
    return torch.where(is_hit, scores.long(), lowest) * width + tie_break


class WindowScores(NamedTuple):
    """What a search with the present focus knows of every page of the window.

    Attributes:
        scores: (B, W) int32, see `staging_scores`. lexical: (B, W) int32.
        resident: (B, W) bool, pages in main context.
    """

    scores: Tensor
    lexical: Tensor
    resident: Tensor


def window_scores(state: PagingState, table: TableTensors, options: PagingOptions) -> WindowScores:
    """Score every page of the window against the present focus.

    Args:
        state: B episodes; `candidate_page` is not read.
        table: the tensors of their table.
        options: `staging` applies.
    """
    dense, lexical, named = page_scores(state, table, _window(state))
    resident = resident_pages(state)
    scores = staging_scores(dense, lexical, named, resident | state.archived, options.staging)
    return WindowScores(scores, lexical, resident)


def _window(state: PagingState) -> Tensor:
    """(B, W) pages of each window, -1 after its end."""
    pages = torch.arange(state.archived.shape[1], device=state.archived.device)
    return torch.where(pages < state.num_pages[:, None], pages, EMPTY)


def rank_candidates(
    window: WindowScores, state: PagingState, options: PagingOptions
) -> tuple[Tensor, Tensor]:
    """Rank all pages outside main context that may become candidates.

    Args:
        window: scores of the present focus. state: B episodes.
        options: `stage_from` applies. With "both", pages that have arrived and that only recall
            holds are hits when their lexical score is above 0.

    Returns:
        (B, W) int64 ranking, best first, -1 after the last hit; and (B,) int64, the number of hits.
    """
    order, num_hits = rank_pages(window.scores, _hits(window, state, options))
    pages = torch.arange(order.shape[1], device=order.device)
    return torch.where(pages < num_hits[:, None], order, EMPTY), num_hits


def _hits(window: WindowScores, state: PagingState, options: PagingOptions) -> Tensor:
    """Pages that may become candidates, bool in the shape of the scores."""
    lead = (slice(None), *(None,) * (window.scores.dim() - 2))
    is_hit = state.archived[lead]
    if options.stage_from == "both":
        pages = torch.arange(is_hit.shape[-1], device=is_hit.device)
        has_arrived = (pages < state.pages_arrived[:, None])[lead]
        is_hit = is_hit | (has_arrived & (window.lexical > 0))
    return is_hit & ~window.resident


def stage(state: PagingState, table: TableTensors, options: PagingOptions) -> tuple[Tensor, Tensor]:
    """Search with the present focus; `rank_candidates` after `window_scores`."""
    return rank_candidates(window_scores(state, table, options), state, options)


def places_from_pages(
    state: PagingState, table: TableTensors, options: PagingOptions, focus: Tensor, page: Tensor
) -> Tensor:
    """Where searches from certain pages would rank another page, without sorting.

    Args:
        state: B episodes; their focus is not read. table: the tensors of their table.
        options: as in `stage`.
        focus: (B, N) pages of the window to search from. page: (B,) the page to be found.

    Returns:
        (B, N) int64, hits that `stage` would put before the page; W where it is no hit.
    """
    dense, lexical, named = scores_between_pages(state, table, focus, _window(state))
    resident = resident_pages(state)[:, None]
    available = resident | state.archived[:, None]
    scores = staging_scores(dense, lexical, named, available, options.staging)
    is_hit = _hits(WindowScores(scores, lexical, resident), state, options)
    own_place = page[:, None, None].expand(-1, focus.shape[1], 1)
    own = scores.gather(2, own_place)
    earlier = torch.arange(scores.shape[2], device=page.device) < page[:, None, None]
    before = is_hit & (scores + earlier > own)  # ties go to the page that came first
    is_found = is_hit.expand_as(scores).gather(2, own_place)[..., 0]
    return torch.where(is_found, before.sum(dim=2), scores.shape[2])
