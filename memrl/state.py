"""B episodes in progress, and the table's arrays beside them, as tensors on one device.

Both environments fill a `PagingState`; `memrl.observation` and `memrl.masks` read it.
"""

from __future__ import annotations

import dataclasses
from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np
import torch
from torch import Tensor

from memrl.on_device import made_once, on_device
from memrl.table import EpisodeTable


@dataclass(frozen=True)
class TableTensors:
    """The arrays of an `EpisodeTable` that observing and ranking need, on one device.

    Attributes:
        has_requests: as in `EpisodeTable`.
    """

    page_offset: Tensor
    page_count: Tensor
    query_offset: Tensor
    page_score_base: Tensor
    query_score_base: Tensor
    score_stride: Tensor
    page_tokens: Tensor
    page_surface: Tensor
    page_speaker: Tensor
    page_names: Tensor
    page_prior: Tensor
    query_surface: Tensor
    query_names: Tensor
    dense: Tensor
    lexical: Tensor
    has_requests: bool

    @classmethod
    def from_table(cls, table: EpisodeTable, device: torch.device | str = "cpu") -> TableTensors:
        """What is needed: on the CPU the table's own arrays, elsewhere copies, made once."""

        def make(place: torch.device) -> TableTensors:
            arrays = {name: on_device(getattr(table, name), place) for name in cls.arrays()}
            return cls(**arrays, has_requests=table.has_requests)

        return made_once(table, device, cls.__name__, make)

    @classmethod
    def arrays(cls) -> tuple[str, ...]:
        """Names of the arrays."""
        names = (field.name for field in dataclasses.fields(cls))
        return tuple(name for name in names if name != "has_requests")


@dataclass(frozen=True)
class PagingState:
    """B episodes in progress. All (B, ...) tensors; pages are indices within the episode's window.

    Attributes:
        document: document of the episode. first_page: first page of its window in the document.
        num_pages: pages of the window.
        slot_page: (B, N) page in each slot row, -1 for none; the last row is the arriving page.
        slot_size: (B, N) its size in the unit of capacity, 0 for none.
        slot_time_in, slot_last_use, slot_uses: (B, N), in events.
        slot_sequence: (B, N) order of entry; the resident page with the lowest is the victim.
        slot_retrieved: (B, N) bool, brought in for the query at hand.
        archived: (B, W) bool.
        candidate_page: (B, K), -1 for none. candidate_size: (B, K).
        more_candidates: (B,) bool.
        at_query: (B,) bool; otherwise the decision is under pressure.
        focus_is_query: (B,) bool. focus: (B,) query of the document, or page of the window.
        clock: (B,) events so far. pages_arrived, queries_asked, operations_used: (B,).
    """

    document: Tensor
    first_page: Tensor
    num_pages: Tensor
    slot_page: Tensor
    slot_size: Tensor
    slot_time_in: Tensor
    slot_last_use: Tensor
    slot_uses: Tensor
    slot_sequence: Tensor
    slot_retrieved: Tensor
    archived: Tensor
    candidate_page: Tensor
    candidate_size: Tensor
    more_candidates: Tensor
    at_query: Tensor
    focus_is_query: Tensor
    focus: Tensor
    clock: Tensor
    pages_arrived: Tensor
    queries_asked: Tensor
    operations_used: Tensor

    def rows(self, index: Tensor) -> PagingState:
        """Select episodes; index is (M,) int64."""
        return PagingState(
            **{field.name: getattr(self, field.name)[index] for field in dataclasses.fields(self)}
        )

    def victim_rows(self) -> Tensor:
        """(B, N) bool: the row of the page that FIFO would evict next."""
        resident = self.slot_page >= 0
        resident[:, -1] = False
        last = torch.iinfo(torch.int64).max
        order = torch.where(resident, self.slot_sequence, last)
        return resident & (order == order.min(dim=1, keepdim=True).values)


_SCALARS = (
    "document",
    "first_page",
    "num_pages",
    "more_candidates",
    "at_query",
    "focus_is_query",
    "focus",
    "clock",
    "pages_arrived",
    "queries_asked",
    "operations_used",
)
_SLOTS = (
    "slot_page",
    "slot_size",
    "slot_sequence",
    "slot_time_in",
    "slot_last_use",
    "slot_uses",
    "slot_retrieved",
)
_CANDIDATES = ("candidate_page", "candidate_size")
_FLAGS = ("more_candidates", "at_query", "focus_is_query", "slot_retrieved")


class StateBuffer:
    """Host memory that the reference process fills, one row of integers an episode.

    Args:
        batch: B. num_rows: N. num_candidates: K. width: W.

    Attributes:
        packed: (B, columns) int64: `SCALARS`, then each of `SLOTS` (N), then each of `CANDIDATES`
            (K).
        archived: (B, W) bool.
    """

    SCALARS, SLOTS, CANDIDATES = _SCALARS, _SLOTS, _CANDIDATES

    def __init__(self, batch: int, num_rows: int, num_candidates: int, width: int) -> None:
        sizes = [(name, 1) for name in _SCALARS]
        sizes += [(name, num_rows) for name in _SLOTS]
        sizes += [(name, num_candidates) for name in _CANDIDATES]
        self._columns: dict[str, slice] = {}
        end = 0
        for name, size in sizes:
            self._columns[name] = slice(end, end + size)
            end += size
        self.packed = np.zeros((batch, end), dtype=np.int64)
        self.archived = np.zeros((batch, width), dtype=bool)

    def state(self, rows: Sequence[int] | None = None) -> PagingState:
        """Return the given rows (default: all) as tensors that share no memory with the buffer."""
        index = slice(None) if rows is None else list(rows)
        packed = torch.from_numpy(self.packed[index].copy())
        tensors = {name: packed[:, columns] for name, columns in self._columns.items()}
        tensors |= {name: tensors[name][:, 0] for name in _SCALARS}
        tensors |= {name: tensors[name] != 0 for name in _FLAGS}
        return PagingState(archived=torch.from_numpy(self.archived[index].copy()), **tensors)
