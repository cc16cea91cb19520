"""`BatchedPaging`: a group of episodes stepped together, as tensors on one device.

It has the interface of `envs.lockstep.LockstepPaging`, and every row always stands at a decision.
"""

from __future__ import annotations

from collections.abc import Sequence
from typing import Literal

import numpy as np
import numpy.typing as npt
import torch
from torch import Tensor

from envs.batched_episodes import EpisodeRows, SavedRows, is_batchable
from envs.batched_rows import Rows
from envs.lockstep import GroupStep, LockstepPaging, LockstepResult, Observation
from memrl.options import PagingOptions
from memrl.table import EpisodeTable


def paging_group(
    table: EpisodeTable,
    options: PagingOptions,
    num_envs: int,
    *,
    environment: Literal["batched", "reference"] = "batched",
    device: torch.device | str = "cpu",
) -> BatchedPaging | LockstepPaging:
    """Episodes side by side.

    Args:
        table, options, num_envs: see `EpisodeRows`.
        environment: "batched" is `BatchedPaging` where it supports the options, else the reference.
        device: where the batched environment lives; the reference is on the CPU.
    """
    if environment == "batched" and is_batchable(options):
        return BatchedPaging(table, options, num_envs, device)
    return LockstepPaging(table, options, num_envs)


class BatchedPaging(EpisodeRows):
    """B episodes that begin and end when the caller says so; see `EpisodeRows` for the arguments.

    Attributes:
        running: (B,) bool, rows whose episode has not been reported as terminated.
    """

    def __init__(
        self,
        table: EpisodeTable,
        options: PagingOptions,
        num_envs: int,
        device: torch.device | str = "cpu",
        *,
        compact: bool = False,
    ) -> None:
        super().__init__(table, options, num_envs, device, compact=compact)
        self.running = torch.zeros(num_envs, dtype=torch.bool, device=self.device)
        # Rows that have changed since they were observed.
        self._is_stale = torch.zeros_like(self.running)
        with self.naming_what_fits():
            self._observation = super().observation()

    def reset(self, episodes: Sequence[int], rows: Sequence[int] | None = None) -> Observation:
        """Begin episodes in the given rows (default: rows 0, 1, ...), and observe all rows.

        A reward earned before the first decision (a query asked while nothing was to be decided) is
        paid with the first step.
        """
        with self.naming_what_fits():
            self.begin(episodes, rows)
            return self.observation()

    def begin(self, episodes: Sequence[int], rows: Sequence[int] | None = None) -> None:
        """`reset` without an observation."""
        rows = range(len(episodes)) if rows is None else rows
        if len(rows) != len(episodes):
            raise ValueError(f"reset() got {len(episodes)} episodes for {len(rows)} rows.")
        for episode in episodes:
            self.table.check_episode(episode)
        if len(set(rows)) != len(rows):
            raise ValueError(f"reset() got a row more than once: {list(rows)}.")
        index = torch.tensor(list(rows), dtype=torch.int64, device=self.device)
        chosen = torch.tensor(list(episodes), dtype=torch.int64, device=self.device)
        self._process.begin(Rows(index), chosen)
        self._process.settle()
        self.running[index] = True
        self._is_stale[index] = True

    def step(self, actions: npt.NDArray[np.int64] | Tensor) -> LockstepResult:
        """Play one action in every running row, with results as `LockstepPaging` gives them."""
        with self.naming_what_fits():
            result = self.advance(torch.as_tensor(actions, device=self.device).long())
            return LockstepResult(self.observation(), *(part.cpu().numpy() for part in result))

    def advance(self, action: Tensor) -> GroupStep:
        """Play one action in every running row without observing; ended rows ignore theirs.

        Args:
            action: (B,) int64 within the action space, on the device; an action that is not legal
                is counted, charged, and acts as YIELD.
        """
        batch = self._process.batch
        before = batch.clock.clone()
        plays = self.running & ~batch.ended
        action = torch.where(plays, action, 0)
        if ((action < 0) | (action >= self.layout.num_actions)).any():
            raise ValueError(f"An action is outside 0..{self.layout.num_actions - 1}.")
        illegal = plays & ~self._process.mask.gather(1, action[:, None])[:, 0]
        action = torch.where(illegal, 0, action)
        self._process.play(self._op_of[action], self._argument_of[action], plays, illegal)
        terminated = self.running & batch.ended
        self.running = self.running & ~terminated
        terms = self._process.take_earned()
        self._is_stale |= plays
        return GroupStep(terms, terminated, illegal, batch.clock - before)

    def observation(self) -> Observation:
        """See `EpisodeRows.observation`.

        Rows that do not change are not observed anew, so these tensors are for reading only.
        """
        changed = self._is_stale.nonzero()[:, 0]
        self._is_stale = torch.zeros_like(self._is_stale)
        if 2 * len(changed) > self.num_envs:
            self._observation = super().observation()
        elif len(changed):
            fresh = self.observe(changed)
            fresh["action_mask"] = self._process.mask[changed]
            self._observation = {
                name: value.index_copy(0, changed, fresh[name])
                for name, value in self._observation.items()
            }
        return dict(self._observation)

    def restore(self, saved: SavedRows, rows: Sequence[int] | Tensor) -> Observation:
        """See `EpisodeRows.restore`."""
        self._is_stale[self._rows(rows)] = True
        return super().restore(saved, rows)

    def _row_tensors(self) -> dict[str, tuple[Tensor, int]]:
        return super()._row_tensors() | {"running": (self.running, 0)}
