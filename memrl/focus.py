"""The focus of a search, and its scores against pages: look-ups in the table, batch axis first."""

from __future__ import annotations

import torch
from torch import Tensor

from memrl.state import PagingState, TableTensors


def page_scores(
    state: PagingState, table: TableTensors, page: Tensor
) -> tuple[Tensor, Tensor, Tensor]:
    """Scores of the focus against given pages.

    Args:
        state: B episodes.
        table: the tensors of their table.
        page: (B, R) pages of the window, -1 for none.

    Returns:
        Dense and lexical scores, (B, R) int32 in units of 1 / SCORE_SCALE, 0 for none; and (B, R)
        bool, whether the focus names the page's speaker.
    """
    document = state.document
    stride = table.score_stride[document]
    page_focus = torch.where(state.focus_is_query, 0, state.focus) + state.first_page
    query_focus = torch.where(state.focus_is_query, state.focus, 0)
    base = torch.where(
        state.focus_is_query,
        table.query_score_base[document] + query_focus * stride,
        table.page_score_base[document] + page_focus * stride,
    )
    return _look_up(state, table, base, focus_names(state, table), page)


def scores_between_pages(
    state: PagingState, table: TableTensors, focus: Tensor, page: Tensor
) -> tuple[Tensor, Tensor, Tensor]:
    """What `page_scores` would give if certain pages were the focus in turn.

    Args:
        state: B episodes; their focus is not read.
        table: the tensors of their table.
        focus: (B, N) pages of the window. page: (B, R) as in `page_scores`.

    Returns:
        The same, (B, N, R).
    """
    document, first = state.document[:, None], state.first_page[:, None]
    base = table.page_score_base[document] + (first + focus) * table.score_stride[document]
    names = table.page_names[table.page_offset[document] + first + focus]
    return _look_up(state, table, base, names, page[:, None])


def _look_up(
    state: PagingState, table: TableTensors, base: Tensor, names: Tensor, page: Tensor
) -> tuple[Tensor, Tensor, Tensor]:
    """Scores of pages on the rows of the score tables that begin at `base`, with these names.

    Args:
        state: B episodes. table: of theirs.
        base, names: (B, ...). page: (B, ..., R).
    """
    valid = page >= 0
    per_episode = (slice(None), *(None,) * (page.dim() - 1))
    row = torch.where(valid, page, 0) + state.first_page[per_episode]
    index = base[..., None] + row
    dense, lexical = (  # `index_select` is several times as fast as indexing
        (scores.index_select(0, index.reshape(-1)).view(index.shape) * valid).int()
        for scores in (table.dense, table.lexical)
    )
    speaker = table.page_speaker[table.page_offset[state.document][per_episode] + row]
    named = (names[..., None] >> speaker.clamp(min=0)) & 1
    return dense, lexical, valid & (speaker >= 0) & named.bool()


def focus_names(state: PagingState, table: TableTensors) -> Tensor:
    """(B,) int64 bit masks of the speakers that the focus names."""
    return torch.where(
        state.focus_is_query,
        of_query_focus(state, table, table.query_names),
        table.page_names[focus_page_row(state, table)],
    )


def focus_page_row(state: PagingState, table: TableTensors) -> Tensor:
    """(B,) row of the page in focus on the table's page axis; the window's first for a query."""
    page = torch.where(state.focus_is_query, 0, state.focus)
    return table.page_offset[state.document] + state.first_page + page


def of_query_focus(state: PagingState, table: TableTensors, values: Tensor) -> Tensor:
    """Values of the query in focus; of any query where the focus is a page (callers mask it)."""
    if not len(values):
        return values.new_zeros((len(state.focus), *values.shape[1:]))
    row = table.query_offset[state.document] + torch.where(state.focus_is_query, state.focus, 0)
    return values[row.clamp(max=len(values) - 1)]


def resident_pages(state: PagingState) -> Tensor:
    """(B, W) bool: pages in main context; the arriving page is not."""
    page = state.slot_page[:, :-1]
    batch, width = state.archived.shape
    resident = torch.zeros((batch, width + 1), dtype=torch.bool, device=page.device)
    resident.scatter_(
        1, torch.where(page >= 0, page, width), True
    )  # empty slots mark the last column
    return resident[:, :-1]
