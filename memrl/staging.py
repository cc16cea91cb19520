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

from memrl.focus import page_scores, resident_pages
from memrl.memory.paging import EMPTY
from memrl.memory.scores import SCORE_SCALE
from memrl.options import PagingOptions, Staging
from memrl.state import PagingState, TableTensors


def neighbour_max(scores: Tensor, available: Tensor) -> Tensor:
    """Better score of the previous and the next page, 0 where neither is available.

    Args:
        scores: (B, W) integers, one per page of the window.
        available: (B, W) bool, pages that may be looked at.
    """
    none = torch.full_like(scores[:, :1], -SCORE_SCALE - 1)
    visible = torch.where(available, scores, none)
    best = torch.maximum(
        torch.cat([none, visible[:, :-1]], dim=1), torch.cat([visible[:, 1:], none], dim=1)
    )
    return torch.where(best > none, best, torch.zeros_like(best))


def staging_scores(
    dense: Tensor, lexical: Tensor, names_speaker: Tensor, available: Tensor, method: Staging
) -> Tensor:
    """Integer scores by which candidates are ranked; larger is better.

    Args:
        dense, lexical: (B, W) int64, quantised scores of every page of the window.
        names_speaker: (B, W) bool, whether the focus names the page's speaker.
        available: (B, W) bool, pages that are resident or stored.
        method: the ranking rule.

    Returns:
        (B, W) int64.
    """
    if method == "dense":
        return torch.where(available, dense, lexical)
    if method == "lexical":
        return lexical
    hybrid = torch.where(available, dense, torch.zeros_like(dense)) + lexical
    if method == "hybrid":
        return hybrid
    return 10 * hybrid + 3 * neighbour_max(dense, available) + 2 * SCORE_SCALE * names_speaker


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
    """(B, W) int64, all different within a row; hits above the rest."""
    width = scores.shape[1]
    tie_break = torch.arange(width - 1, -1, -1, device=scores.device)
    lowest = torch.iinfo(torch.int64).min // (2 * max(width, 1))
    return torch.where(is_hit, scores, lowest) * width + tie_break


class WindowScores(NamedTuple):
    """What a search with the present focus knows of every page of the window.

    Attributes:
        scores: (B, W) int64, see `staging_scores`. lexical: (B, W) int64.
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
    pages = torch.arange(state.archived.shape[1], device=state.archived.device)
    window = torch.where(pages < state.num_pages[:, None], pages, EMPTY)
    dense, lexical, named = page_scores(state, table, window)
    resident = resident_pages(state)
    scores = staging_scores(dense, lexical, named, resident | state.archived, options.staging)
    return WindowScores(scores, lexical, resident)


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
    pages = torch.arange(state.archived.shape[1], device=state.archived.device)
    is_hit = state.archived
    if options.stage_from == "both":
        is_hit = is_hit | ((pages < state.pages_arrived[:, None]) & (window.lexical > 0))
    order, num_hits = rank_pages(window.scores, is_hit & ~window.resident)
    return torch.where(pages < num_hits[:, None], order, EMPTY), num_hits


def stage(state: PagingState, table: TableTensors, options: PagingOptions) -> tuple[Tensor, Tensor]:
    """Search with the present focus; `rank_candidates` after `window_scores`."""
    return rank_candidates(window_scores(state, table, options), state, options)
