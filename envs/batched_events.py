"""What happens when in each episode of a table, as tensors for the batched process."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any

import numpy as np
import numpy.typing as npt
import torch
from torch import Tensor

from memrl.memory.paging import EMPTY
from memrl.on_device import made_once, on_device
from memrl.options import PagingOptions
from memrl.table import EpisodeTable, Event


@dataclass(frozen=True)
class EventTensors:
    """The arrays of an `EpisodeTable` that transitions need and observations do not; all int64.

    Attributes:
        episode: (7, E) number, document, first page of the window, its row on the page axis, pages,
            events and preloaded pages of each episode.
        event: (6, E, T+1) what happens at each clock: whether a query is asked, a page that was
            not seen before arrives, or the episode is over; the page or query; the page or -1; the
            page's size in the unit of capacity. A page is requested as if it arrived.
        messages: (E, T+1) pages that arrive from this clock on before the next query, or the end.
        requested: (E, T+1) the page that is requested at each clock, -1 for none; None in a table
            without requests.
        page_size: (P,) size in the unit of capacity. page_tokens: (P,).
        size_before: (P+1,) sizes of all pages before a row of the page axis.
        needs: (Q, R) pages of the document, -1 padded. pays: (Q,) bool. category: (Q,).
        query_offset: (D+1,).
        max_queries: most queries that an episode asks.
    """

    episode: Tensor
    event: Tensor
    messages: Tensor
    page_size: Tensor
    page_tokens: Tensor
    size_before: Tensor
    needs: Tensor
    pays: Tensor
    category: Tensor
    query_offset: Tensor
    max_queries: int
    requested: Tensor | None = None

    @classmethod
    def from_table(
        cls, table: EpisodeTable, options: PagingOptions, device: torch.device
    ) -> EventTensors:
        """What is needed, made once for a table, a device and what options say of sizes."""
        key = cls.key(options)
        return made_once(table, device, key, lambda place: cls._made(table, key[1], place))

    @classmethod
    def key(cls, options: PagingOptions) -> tuple[str, int | None]:
        """What tells these tensors from those under other options: where pages are truncated."""
        return cls.__name__, int(options.capacity) if options.unit == "tokens" else None

    @classmethod
    def _made(cls, table: EpisodeTable, cut: int | None, device: torch.device) -> EventTensors:
        """Copy what is needed; pages count 1 each, or their tokens up to `cut`."""

        def tensor(array: npt.NDArray[Any]) -> Tensor:
            return on_device(array, device)

        tokens = table.page_tokens.astype(np.int64)
        size = np.ones_like(tokens)
        if cut is not None:  # a page larger than main context is truncated to it
            size = tokens = np.minimum(tokens, cut)
        first_row = table.page_offset[table.episode_document] + table.episode_first_page
        asks, comes, event = _events(table, first_row, size)
        requested = None
        if table.has_requests:  # then there are no messages
            requested, messages = tensor(event[4]), np.zeros_like(event[4])
        else:
            messages = _run_lengths(comes)
        episode = [
            np.arange(table.num_episodes),
            table.episode_document,
            table.episode_first_page,
            first_row,
            table.episode_num_pages,
            table.episode_num_events,
            table.episode_num_preloaded,
        ]
        return cls(
            episode=tensor(np.stack(episode).astype(np.int64)),
            event=tensor(event),
            messages=tensor(messages),
            requested=requested,
            page_size=tensor(size),
            page_tokens=tensor(tokens),
            size_before=tensor(np.concatenate([[0], np.cumsum(size)])),
            needs=tensor(_at_least_one(table.query_needs.astype(np.int64))),
            pays=tensor(_at_least_one(table.query_pays)),
            category=tensor(_at_least_one(table.query_category.astype(np.int64))),
            query_offset=tensor(table.query_offset.astype(np.int64)),
            max_queries=max(int(asks.sum(axis=1).max()), 1),
        )


def _at_least_one(rows: npt.NDArray[Any]) -> npt.NDArray[Any]:
    """A table without queries gets a row that is looked up but never meant."""
    return rows if len(rows) else np.zeros((1, *rows.shape[1:]), dtype=rows.dtype)


def _events(
    table: EpisodeTable, first_row: npt.NDArray[np.int64], page_size: npt.NDArray[np.int64]
) -> tuple[npt.NDArray[np.bool_], npt.NDArray[np.bool_], npt.NDArray[np.int64]]:
    """Whether a query is asked and whether a page comes, (E, T+1); and `EventTensors.event`."""
    kind, index = (
        np.pad(array, ((0, 0), (0, 1))) for array in (table.event_kind, table.event_index)
    )
    happens = np.arange(kind.shape[1]) < table.episode_num_events[:, None]
    asks, comes = happens & (kind == Event.QUERY), happens & (kind != Event.QUERY)
    event = np.zeros((6, *kind.shape), dtype=np.int64)
    event[3] = np.where(happens, index, 0)
    page = event[4]
    page[:] = np.where(comes, index, EMPTY)
    # Pages are numbered as they arrive: one that is new has the highest number so far.
    before = np.pad(np.maximum.accumulate(page, axis=1), ((0, 0), (1, 0)), constant_values=EMPTY)
    event[0], event[1], event[2] = asks, comes & (page > before[:, :-1]), ~happens
    event[5] = page_size[first_row[:, None] + np.maximum(page, 0)] * comes
    return asks, comes, event


def _run_lengths(flags: npt.NDArray[np.bool_]) -> npt.NDArray[np.int64]:
    """How many entries from each one on are set without a gap; the last column is not set."""
    runs = np.zeros(flags.shape, dtype=np.int64)
    for place in range(flags.shape[1] - 2, -1, -1):
        runs[:, place] = np.where(flags[:, place], runs[:, place + 1] + 1, 0)
    return runs
