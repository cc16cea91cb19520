"""`BatchedPagingEnv`: thousands of episodes at once, as a vector environment over torch tensors."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any, ClassVar

import gymnasium
import numpy as np
import numpy.typing as npt
import torch
from gymnasium.vector import AutoresetMode
from gymnasium.vector.utils import batch_space
from torch import Tensor

from envs.batched_paging import BatchedPaging, SavedRows, paging_group
from envs.draws import draw_episodes
from envs.lockstep import Observation
from envs.spaces import observation_space
from memrl.episode_log import EpisodeLog
from memrl.options import PagingOptions
from memrl.privileged import PrivilegedState
from memrl.table import EpisodeTable

__all__ = ["BatchedPaging", "BatchedPagingEnv", "SavedRows", "paging_group"]


class BatchedPagingEnv(gymnasium.vector.VectorEnv[Observation, Tensor, Tensor]):
    """The decision process of `envs.paging.PagingEnv`, B episodes at once on one device.

    Observations, rewards, flags and infos are torch tensors with a leading axis B; actions may be
    tensors or numpy arrays. Forced moves are played inside `step`, so each row that has been reset
    stands at a decision, unless its episode has none at all: such an episode ends with its first
    step, whatever is played.

    Rows that end begin the next episode within the same step (`AutoresetMode.SAME_STEP`); the last
    observation of the ended episodes is in `infos["final_obs"]`. Which episode a row plays is a
    function of the seed, the row and the number of episodes it has begun, and of nothing else: the
    number of rows does not change it. With `group_size` G, rows 0..G-1 play the same episodes in
    the same order, rows G..2G-1 others, and so on, for learners that compare copies.

    Args:
        table: the workload. options: `PagingOptions`, or its fields as keywords; fractions are
            resolved by this table unless they are resolved already.
        num_envs: B.
        group_size: G, rows that play the same episodes; divides B.
        device: where the tensors live.

    Raises:
        ValueError: for options that only `PagingEnv` plays: `store_scope="any"`,
            `observe_embeddings`; or if `group_size` does not divide `num_envs`.
    """

    metadata: ClassVar[dict[str, Any]] = {  # type: ignore[misc]
        "autoreset_mode": AutoresetMode.SAME_STEP,
        "render_modes": [],
    }

    def __init__(
        self,
        table: EpisodeTable,
        options: PagingOptions | None = None,
        *,
        num_envs: int,
        group_size: int = 1,
        device: torch.device | str = "cpu",
        **fields: Any,
    ) -> None:
        if options is not None and fields:
            raise ValueError(f"Give `options` or its fields {sorted(fields)}, not both.")
        if group_size < 1 or num_envs % group_size:
            raise ValueError(
                f"group_size must divide num_envs={num_envs} into whole groups, got {group_size}."
            )
        self._group = BatchedPaging(table, options or PagingOptions(**fields), num_envs, device)
        self.table = table
        self.options = self._group.options
        self.layout = self._group.layout
        self.num_envs = num_envs
        self.group_size = group_size
        self.device = self._group.device
        self.reward_names = self._group.reward_names
        self.single_observation_space = observation_space(self.layout)
        self.single_action_space = gymnasium.spaces.Discrete(self.layout.num_actions)
        self.observation_space = batch_space(self.single_observation_space, num_envs)
        self.action_space = batch_space(self.single_action_space, num_envs)
        self._row_group = torch.arange(num_envs, device=self.device) // group_size
        self._count = torch.zeros(num_envs, dtype=torch.int64, device=self.device)
        self._seed: int | None = None
        self._is_running = False

    # ------------------------------------------------------------------ Gymnasium

    def reset(
        self, *, seed: int | None = None, options: dict[str, Any] | None = None
    ) -> tuple[Observation, dict[str, Any]]:
        """Begin an episode in every row.

        Args:
            seed: begins the stream of episodes anew; without one it goes on, from a seed of the
                operating system if there never was one.
            options: `{"episodes": (B,) numbers}` to play these first instead of drawn ones.
        """
        super().reset(seed=seed)
        unknown = set(options or {}) - {"episodes"}
        if unknown:
            raise ValueError(f"reset() knows the option 'episodes' only, got {sorted(unknown)}.")
        if seed is not None or self._seed is None:
            self._seed = int(self.np_random.integers(2**63))
            self._count.zero_()
        rows = list(range(self.num_envs))
        given = (options or {}).get("episodes")
        episodes = self._next_episodes(rows) if given is None else torch.as_tensor(given).tolist()
        observation = self._group.reset(episodes, rows)
        self._is_running = True
        return observation, {"action_mask": observation["action_mask"]}

    def step(
        self, actions: Tensor | npt.NDArray[np.int64]
    ) -> tuple[Observation, Tensor, Tensor, Tensor, dict[str, Any]]:
        """Play one action in every row.

        Returns:
            The observation; rewards (B,) float64; terminations and truncations (B,) bool, the
            latter all False; infos: `action_mask` (B, A) bool, `reward_terms` (B, terms) float64 in
            the order of `reward_names`, `elapsed_events` (B,) int64, `illegal` (B,) bool, and where
            a row has ended `final_obs` with `_final_obs` (B,) bool, the rows it holds for.

        Raises:
            ValueError: if an action is not an integer of the action space.
            gymnasium.error.ResetNeeded: before the first reset.
        """
        if not self._is_running:
            raise gymnasium.error.ResetNeeded("Call reset() before step(): no episode is running.")
        action = torch.as_tensor(actions)
        if action.shape != (self.num_envs,) or action.is_floating_point():
            raise ValueError(
                f"step() takes {self.num_envs} integers, got {tuple(action.shape)} of "
                f"{action.dtype}."
            )
        result = self._group.step(action)
        observation = result.observation
        terms, terminated, illegal, elapsed = (
            torch.from_numpy(array).to(self.device)
            for array in (
                *(result.reward_terms, result.terminated, result.illegal),
                result.elapsed_events,
            )
        )
        infos: dict[str, Any] = {
            "reward_terms": terms,
            "elapsed_events": elapsed,
            "illegal": illegal,
        }
        ended = np.flatnonzero(result.terminated).tolist()
        if ended:
            infos |= {"final_obs": observation, "_final_obs": terminated}
            observation = self._group.reset(self._next_episodes(ended), ended)
        infos["action_mask"] = observation["action_mask"]
        truncated = torch.zeros_like(terminated)
        return observation, terms.sum(dim=1), terminated, truncated, infos

    def _next_episodes(self, rows: Sequence[int]) -> list[int]:
        """Draw the next episode of each row."""
        index = torch.tensor(rows, dtype=torch.int64, device=self.device)
        count = self._count[index]
        self._count[index] = count + 1
        drawn = draw_episodes(
            self._seed or 0, self._row_group[index], count, self.table.num_episodes
        )
        return drawn.tolist()

    # ------------------------------------------------------------------ branching

    def save(self, rows: Sequence[int] | Tensor) -> SavedRows:
        """Copy everything that rows are; see `BatchedPaging.save`."""
        return self._group.save(rows)

    def restore(self, saved: SavedRows, rows: Sequence[int] | Tensor) -> Observation:
        """Put saved rows in the place of others; see `BatchedPaging.restore`.

        Which episodes a row plays afterwards stays its own affair.
        """
        return self._group.restore(saved, rows)

    def copy(self, source: Sequence[int] | Tensor, target: Sequence[int] | Tensor) -> Observation:
        """Make the target rows what the source rows are; see `BatchedPaging.copy`."""
        return self._group.copy(source, target)

    # ------------------------------------------------------------------ views

    def action_masks(self) -> Tensor:
        """(B, A) bool, the legal actions."""
        return self._group.observation()["action_mask"]

    def privileged_state(self) -> PrivilegedState:
        """The one door to needs and future events: for clairvoyant policies, labels and reports."""
        return self._group.privileged_state()

    def log(self, row: int) -> EpisodeLog:
        """What happened so far in a row's present episode."""
        return self._group.log(row)
