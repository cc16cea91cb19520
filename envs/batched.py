"""`BatchedPaging`: many episodes of the decision process at once, as tensors on one device.

The same process as `envs.process.PagingProcess` behind the interface of
`envs.lockstep.LockstepPaging`. Only the transitions are written a second time, in
`envs.batched_process`, and a test plays both side by side; observation, mask, ranking and the
privileged state are the shared functions of `memrl`.
"""

from __future__ import annotations

from collections.abc import Sequence

import numpy as np
import numpy.typing as npt
import torch
from torch import Tensor

from envs.batched_process import BatchedProcess
from envs.lockstep import LockstepPaging, LockstepResult, Observation
from envs.process import options_for
from memrl.episode_log import REWARD_TERMS, EpisodeLog
from memrl.memory.paging import EMPTY
from memrl.observation import observe
from memrl.options import PagingOptions
from memrl.privileged import PrivilegedState, QueryTimetable, privileged_state
from memrl.state import TableTensors
from memrl.table import EpisodeTable


def paging_group(
    table: EpisodeTable, options: PagingOptions, num_envs: int
) -> BatchedPaging | LockstepPaging:
    """Episodes side by side: `BatchedPaging` where it supports the options, else the reference."""
    if options.store_scope == "victim" and not options.observe_embeddings:
        return BatchedPaging(table, options, num_envs)
    return LockstepPaging(table, options, num_envs)


class BatchedPaging:
    """B episodes on one device.

    Args:
        table: the workload.
        options: options; fractions are resolved by this table unless they are resolved already.
        num_envs: B.
        device: where the tensors live.

    Attributes:
        running: (B,) bool, rows whose episode has not been reported as terminated.

    Raises:
        ValueError: for options that only `LockstepPaging` supports.
        ConfigurationError: for options that do not fit the table.
    """

    reward_names = REWARD_TERMS

    def __init__(
        self,
        table: EpisodeTable,
        options: PagingOptions,
        num_envs: int,
        device: torch.device | str = "cpu",
    ) -> None:
        if num_envs < 1:
            raise ValueError(f"num_envs must be at least 1, got {num_envs}.")
        if options.store_scope != "victim" or options.observe_embeddings:
            raise ValueError(
                "BatchedPaging plays store_scope='victim' without observe_embeddings, got "
                f"store_scope={options.store_scope!r} and observe_embeddings="
                f"{options.observe_embeddings}; use LockstepPaging for these."
            )
        options = options_for(table, options)
        self.table = table
        self.options = options
        self.num_envs = num_envs
        self.device = torch.device(device)
        self._tensors = TableTensors.from_table(table, self.device)
        self._timetable = QueryTimetable.from_table(table, self.device)
        self._process = BatchedProcess(table, self._tensors, options, num_envs, self.device)
        self.layout = self._process.layout
        self.running = torch.zeros(num_envs, dtype=torch.bool, device=self.device)
        self._observe(torch.arange(num_envs, device=self.device))
        decoded = [self.layout.decode(action) for action in range(self.layout.num_actions)]
        self._op_of = torch.tensor([int(op) for op, _ in decoded], device=self.device)
        self._argument_of = torch.tensor([argument for _, argument in decoded], device=self.device)

    # ------------------------------------------------------------------ stepping

    def reset(self, episodes: Sequence[int], rows: Sequence[int] | None = None) -> Observation:
        """Begin episodes in the given rows (default: rows 0, 1, ...).

        A reward earned before the first decision (a query asked while nothing was to be decided) is
        paid with the first step.
        """
        rows = range(len(episodes)) if rows is None else rows
        if len(rows) != len(episodes):
            raise ValueError(f"reset() got {len(episodes)} episodes for {len(rows)} rows.")
        for episode in episodes:
            if not 0 <= episode < self.table.num_episodes:
                raise ValueError(
                    f"Episode {episode} is outside 0..{self.table.num_episodes - 1} of the table."
                )
        if len(set(rows)) != len(rows):
            raise ValueError(f"reset() got a row more than once: {list(rows)}.")
        index = torch.tensor(list(rows), dtype=torch.int64, device=self.device)
        chosen = torch.tensor(list(episodes), dtype=torch.int64, device=self.device)
        self._process.begin(index, chosen)
        self.running[index] = True
        return self._observe(index)

    def step(self, actions: npt.NDArray[np.int64] | Tensor) -> LockstepResult:
        """Play one action in every running row; rows that have ended ignore theirs.

        Args:
            actions: (B,) integers within the action space; an action that is not legal is counted,
                charged, and acts as YIELD.
        """
        batch = self._process.batch
        action = torch.as_tensor(actions, device=self.device).long()
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
        terms = batch.reward_terms.clone()
        batch.reward_terms.zero_()
        return LockstepResult(
            self._observe(plays.nonzero()[:, 0]),
            terms.cpu().numpy(),
            terminated.cpu().numpy(),
            illegal.cpu().numpy(),
            (batch.clock - before).cpu().numpy(),
        )

    # ------------------------------------------------------------------ views

    def observation(self) -> Observation:
        """`slots` (B, N, F), `candidates` (B, K, F), `globals` (B, G), `action_mask` (B, A) bool.

        Rows that do not change are not observed anew, so these tensors are for reading only.
        """
        return dict(self._observation)

    def _observe(self, changed: Tensor) -> Observation:
        """Observe the rows that have changed, and return all rows."""
        if 2 * len(changed) > self.num_envs:
            self._observation = observe(
                self._process.batch.paging_state(), self._tensors, self.options
            )
            self._observation["action_mask"] = self._process.mask.clone()
        elif len(changed):
            fresh = observe(self._process.batch.paging_state(changed), self._tensors, self.options)
            fresh["action_mask"] = self._process.mask[changed]
            self._observation = {
                name: value.index_copy(0, changed, fresh[name])
                for name, value in self._observation.items()
            }
        return self.observation()

    def log(self, row: int) -> EpisodeLog:
        """What happened so far in a row's episode."""
        batch = self._process.batch
        num_answered = int(batch.queries_asked[row]) - int(batch.at_query[row])
        return self._process.log.of_row(row, num_answered)

    def privileged_state(self) -> PrivilegedState:
        """The hidden truth of all rows; see `memrl.privileged`."""
        batch, rows = self._process.batch, torch.arange(self.num_envs, device=self.device)
        is_hit = torch.arange(self.table.max_pages, device=self.device) < batch.num_hits[:, None]
        return privileged_state(
            batch.paging_state(rows),
            self._timetable,
            batch.episode,
            ranking=torch.where(is_hit, batch.ranking, EMPTY),
            result_page=batch.result_page.clone(),
            stores=batch.stores.clone(),
        )
