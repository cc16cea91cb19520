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
        Dense and lexical scores, (B, R) int64 in units of 1 / SCORE_SCALE, 0 for none; and (B, R)
        bool, whether the focus names the page's speaker.
    """
    valid = page >= 0
    document = state.document
    stride = table.score_stride[document]
    page_focus = torch.where(state.focus_is_query, 0, state.focus) + state.first_page
    query_focus = torch.where(state.focus_is_query, state.focus, 0)
    base = torch.where(
        state.focus_is_query,
        table.query_score_base[document] + query_focus * stride,
        table.page_score_base[document] + page_focus * stride,
    )
    row = torch.where(valid, page, 0) + state.first_page[:, None]
    index = base[:, None] + row
    dense = torch.where(valid, table.dense[index].long(), 0)
    lexical = torch.where(valid, table.lexical[index].long(), 0)
    names = focus_names(state, table)
    speaker = table.page_speaker[table.page_offset[document][:, None] + row]
    named = (names[:, None] >> speaker.clamp(min=0)) & 1
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
