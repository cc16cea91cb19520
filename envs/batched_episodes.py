"""Episodes of the decision process as rows of tensors: what both ways of stepping them share.

The same process as `envs.process.PagingProcess`. Only the transitions are written a second time, in
`envs.batched_process`, and a test plays both side by side; observation, mask, ranking and the
privileged state are the shared functions of `memrl`.
"""

from __future__ import annotations

from collections.abc import Sequence
from contextlib import AbstractContextManager
from dataclasses import dataclass

import torch
from torch import Tensor

from envs.batched_process import BatchedProcess
from envs.lockstep import Observation
from envs.process import options_for
from memrl.device_memory import RowMemory, naming_what_fits
from memrl.episode_log import REWARD_TERMS, EpisodeLog
from memrl.memory.paging import EMPTY
from memrl.observation import observe, observe_slots
from memrl.options import PagingOptions
from memrl.privileged import PrivilegedState, QueryTimetable, privileged_state
from memrl.shown import shown_state
from memrl.state import PagingState, TableTensors
from memrl.table import EpisodeTable


def is_batchable(options: PagingOptions) -> bool:
    """Whether the batched environment plays these options; only `LockstepPaging` plays the rest."""
    return options.store_scope == "victim" and not options.observe_embeddings


@dataclass(frozen=True)
class SavedRows:
    """Rows of a batch as they were when `save` was called.

    Attributes:
        tensors: their part of every tensor. table, options: what they were played with.
    """

    tensors: dict[str, Tensor]
    table: EpisodeTable
    options: PagingOptions

    def __len__(self) -> int:
        """Number of rows."""
        return len(self.tensors["mask"])


class EpisodeRows:
    """B episodes on one device.

    Args:
        table: the workload.
        options: options; fractions are resolved by this table unless they are resolved already.
        num_envs: B.
        device: where the tensors live.
        rounds, max_searches: see `envs.batched_process.BatchedProcess`.
        compact: see `memrl.observation.observe`.

    Raises:
        ValueError: for options that only `LockstepPaging` supports.
        ConfigurationError: for options that do not fit the table.
        DeviceMemoryError: if so many rows, or the table, do not fit on the device.
    """

    reward_names = REWARD_TERMS

    def __init__(
        self,
        table: EpisodeTable,
        options: PagingOptions,
        num_envs: int,
        device: torch.device | str = "cpu",
        rounds: int | None = None,
        *,
        max_searches: int | None = None,
        compact: bool = False,
    ) -> None:
        if num_envs < 1:
            raise ValueError(f"num_envs must be at least 1, got {num_envs}.")
        if not is_batchable(options):
            raise ValueError(
                "BatchedPaging plays store_scope='victim' without observe_embeddings, got "
                f"store_scope={options.store_scope!r} and observe_embeddings="
                f"{options.observe_embeddings}; use LockstepPaging for these."
            )
        self.table = table
        self.options = options = options_for(table, options)
        self.num_envs = num_envs
        self.device = torch.device(device)
        self._compact = compact
        self._tensors = TableTensors.from_table(table, self.device)
        self._timetable = QueryTimetable.from_table(table, self.device)
        with naming_what_fits(self.device, num_envs, self._prospect):
            self._process = BatchedProcess(
                table, self._tensors, options, num_envs, self.device, rounds, max_searches
            )
        self.layout = self._process.layout
        decoded = [self.layout.decode(action) for action in range(self.layout.num_actions)]
        self._op_of = torch.tensor([int(op) for op, _ in decoded], device=self.device)
        self._argument_of = torch.tensor([argument for _, argument in decoded], device=self.device)

    # ------------------------------------------------------------------ memory

    @property
    def row_memory(self) -> RowMemory:
        """Bytes of a row: its state, its observation, and what a step works in."""
        state = sum(tensor.nbytes for tensor, _ in self._row_tensors().values()) / self.num_envs
        shown = self.observe(torch.zeros(1, dtype=torch.int64, device=self.device))
        seen = sum(value.nbytes for value in shown.values()) + self.layout.num_actions
        return RowMemory.of_row(state + seen)

    def naming_what_fits(self) -> AbstractContextManager[None]:
        """Within it, running out of memory raises `DeviceMemoryError`.

        `reset` and `step` of a group and of `BatchedPagingEnv` are within one; `begin` and
        `advance`, which may be compiled, are not.
        """
        return naming_what_fits(self.device, self.num_envs, lambda: self.row_memory)

    def _prospect(self) -> RowMemory:
        """The same before there are rows, which hold nothing yet."""
        one = EpisodeRows(self.table, self.options, 1, compact=self._compact)
        return one.row_memory._replace(held=0.0)

    # ------------------------------------------------------------------ branching

    def save(self, rows: Sequence[int] | Tensor) -> SavedRows:
        """Copy everything that rows are, so that they can be continued from here more than once."""
        index = self._rows(rows)
        tensors = self._row_tensors()
        return SavedRows(
            {name: tensor.index_select(axis, index) for name, (tensor, axis) in tensors.items()},
            self.table,
            self.options,
        )

    def restore(self, saved: SavedRows, rows: Sequence[int] | Tensor) -> Observation:
        """Put saved rows in the place of the given ones, in order; returns all observations.

        Raises:
            ValueError: if the numbers of rows differ, a row is given twice, or they were saved from
                a group of another table or other options.
        """
        index = self._rows(rows)
        if len(index) != len(saved):
            raise ValueError(f"restore() got {len(saved)} saved rows for {len(index)} rows.")
        if len(set(index.tolist())) != len(index):
            raise ValueError(f"restore() got a row more than once: {index.tolist()}.")
        if saved.table is not self.table or saved.options != self.options:
            raise ValueError("restore() got rows of another table or of other options.")
        for name, (tensor, axis) in self._row_tensors().items():
            tensor.index_copy_(axis, index, saved.tensors[name].to(self.device))
        return self.observation()

    def copy(self, source: Sequence[int] | Tensor, target: Sequence[int] | Tensor) -> Observation:
        """Make the target rows what the source rows are; a source may stand there repeatedly."""
        return self.restore(self.save(source), target)

    def _rows(self, rows: Sequence[int] | Tensor) -> Tensor:
        index = torch.as_tensor(rows, dtype=torch.int64, device=self.device).reshape(-1)
        if len(index) and not 0 <= int(index.min()) <= int(index.max()) < self.num_envs:
            raise ValueError(f"A row is outside 0..{self.num_envs - 1}: {index.tolist()}.")
        return index

    def _row_tensors(self) -> dict[str, tuple[Tensor, int]]:
        process = self._process
        return {
            **{f"batch.{name}": held for name, held in process.batch.row_tensors().items()},
            **{f"log.{name}": held for name, held in process.log.row_tensors().items()},
            "mask": (process.mask, 0),
        }

    # ------------------------------------------------------------------ views

    def observation(self) -> Observation:
        """`slots` (B, N, F), `candidates` (B, K, F), `globals` (B, G), `action_mask` (B, A)."""
        observation = self._observed(self._process.batch.paging_state())
        observation["action_mask"] = self._process.mask.clone()
        return observation

    def action_masks(self) -> Tensor:
        """(B, A) bool, the legal actions."""
        return self._process.mask.clone()

    def at_query(self) -> Tensor:
        """(B,) bool, rows that stand at a query."""
        return self._process.batch.at_query.clone()

    def observe(self, rows: Tensor) -> Observation:
        """What `observation` gives of the given rows, (M,), without masks."""
        return self._observed(self._process.batch.paging_state(rows))

    def _observed(self, state: PagingState) -> Observation:
        return observe(state, self._tensors, self.options, compact=self._compact)

    def observe_slots(self, rows: Tensor, slot: Tensor) -> Observation:
        """The same with the given slot rows, (M, n), alone; see `memrl.observation`."""
        state = self._process.batch.paging_state(rows)
        return observe_slots(state, self._tensors, self.options, slot)

    def log(self, row: int) -> EpisodeLog:
        """What happened so far in a row's episode."""
        batch = self._process.batch
        num_answered = int(batch.queries_asked[row]) - int(batch.at_query[row])
        return self._process.log.of_row(row, num_answered)

    def privileged_state(self, rows: Tensor | None = None) -> PrivilegedState:
        """The hidden truth of the given rows, (M,), or of all; see `memrl.privileged`."""
        batch = self._process.batch
        if rows is None:
            rows = torch.arange(self.num_envs, device=self.device)
        pages = torch.arange(self.table.max_pages, device=self.device)
        is_hit = pages < batch.num_hits[rows, None]
        return privileged_state(
            shown_state(batch.paging_state(rows), self.options),
            self._timetable,
            batch.episode[rows],
            ranking=torch.where(is_hit, batch.ranking[rows], EMPTY),
            result_page=batch.result_page[rows],
            stores=batch.stores[rows],
        )
