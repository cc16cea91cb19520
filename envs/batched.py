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

from envs.batched_episodes import SavedRows, is_batchable
from envs.batched_fixed import FixedShapePaging
from envs.batched_paging import BatchedPaging, paging_group
from envs.draws import EpisodeDraws
from envs.lockstep import Observation
from envs.spaces import observation_space
from memrl.episode_log import EpisodeLog
from memrl.identity import IDENTITY
from memrl.options import PagingOptions
from memrl.privileged import PrivilegedState
from memrl.table import EpisodeTable

__all__ = ["BatchedPaging", "BatchedPagingEnv", "SavedRows", "is_batchable", "paging_group"]


class BatchedPagingEnv(gymnasium.vector.VectorEnv[Observation, Tensor, Tensor]):
    """The decision process of `envs.paging.PagingEnv`, B episodes at once on one device.

    Observations, rewards, flags and infos are torch tensors with a leading axis B; actions may be
    tensors or numpy arrays. Forced moves are played inside `step`, so each row stands at a
    decision, unless its episode has none at all: such an episode ends with its first step, whatever
    is played. With `rounds`, a step plays at most so many rounds of forced moves, in fixed shapes
    and without a look at the host. Rows that are not through by then wait:
    `infos["has_decision"]` is False for them, their actions are ignored, and their rewards come
    with their next decision. Decision by decision both ways give the same.

    Rows that end begin the next episode within the same step (`AutoresetMode.SAME_STEP`); the last
    observation of the ended episodes is in `infos["final_obs"]`, except with `rounds`. Which
    episode a row plays is a function of the seed, the row and the number of episodes it has begun,
    and of nothing else: the number of rows does not change it. With `group_size` G, rows 0..G-1
    play the same episodes in the same order, rows G..2G-1 others, and so on, for learners that
    compare copies.

    Args:
        table: the workload. options: `PagingOptions`, or its fields as keywords; fractions are
            resolved by this table unless they are resolved already.
        num_envs: B.
        group_size: G, rows that play the same episodes; divides B.
        rounds: most rounds of forced moves in a step; None for as many as it takes.
        compact: observe `memrl.observation.COMPACT_FEATURES` in float16, a third of the bytes.
        device: where the tensors live.

    Raises:
        TypeError: if `table` is no `EpisodeTable`.
        ValueError: for options that only `PagingEnv` plays: `store_scope="any"`,
            `observe_embeddings`; or if `group_size` does not divide `num_envs`.
        DeviceMemoryError: here, in `reset` and in `step`, if so many rows do not fit on the device.
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
        rounds: int | None = None,
        compact: bool = False,
        device: torch.device | str = "cpu",
        **fields: Any,
    ) -> None:
        if options is not None and fields:
            raise ValueError(f"Give `options` or its fields {sorted(fields)}, not both.")
        if not isinstance(table, EpisodeTable):
            raise TypeError(f"table must be an EpisodeTable, not {type(table).__name__}.")
        for name, value in (("num_envs", num_envs), ("group_size", group_size)):
            if not isinstance(value, int) or isinstance(value, bool) or value < 1:
                raise ValueError(f"{name} must be an integer of at least 1, got {value!r}.")
        if num_envs % group_size:
            raise ValueError(
                f"group_size must divide num_envs={num_envs} into whole groups, got {group_size}."
            )
        options, device = options or PagingOptions(**fields), torch.device(device)
        self._draws = EpisodeDraws(num_envs, group_size, table.num_episodes, device)
        self._rows: BatchedPaging | FixedShapePaging
        if rounds is None:
            self._rows = BatchedPaging(table, options, num_envs, device, compact=compact)
        else:
            self._rows = FixedShapePaging(
                table,
                options,
                num_envs,
                device,
                rounds=rounds,
                draws=self._draws,
                compact=compact,
            )
        self.table = table
        self.options = self._rows.options
        self.layout = self._rows.layout
        self.num_envs = num_envs
        self.group_size = group_size
        self.device = device
        self.reward_names = self._rows.reward_names
        self.single_observation_space = observation_space(self.layout, compact=compact)
        self.single_action_space = gymnasium.spaces.Discrete(self.layout.num_actions)
        self.observation_space = batch_space(self.single_observation_space, num_envs)
        self.action_space = batch_space(self.single_action_space, num_envs)
        self._is_seeded = False
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
        if seed is not None or not self._is_seeded:
            self._draws.seed = int(self.np_random.integers(2**63))
            self._draws.count.zero_()
            self._is_seeded = True
        given = (options or {}).get("episodes")
        every = torch.ones(self.num_envs, dtype=torch.bool, device=self.device)
        episodes = self._draws.next(every) if given is None else self._checked(given)
        with self._rows.naming_what_fits():
            if isinstance(self._rows, FixedShapePaging):
                self._rows.begin(episodes)
            else:
                self._rows.begin(episodes.tolist())
            observation = self._rows.observation()
        self._is_running = True
        return _told_apart(observation)

    def _checked(self, episodes: Any) -> Tensor:
        chosen = self._integers(episodes, "The option 'episodes'").long()
        for episode in (int(chosen.min()), int(chosen.max())):
            self.table.check_episode(episode)
        return chosen

    def step(
        self, actions: Tensor | npt.NDArray[np.int64]
    ) -> tuple[Observation, Tensor, Tensor, Tensor, dict[str, Any]]:
        """Play one action in every row.

        Returns:
            The observation; rewards (B,) float64; terminations and truncations (B,) bool, the
            latter all False; infos: `action_mask` (B, A) bool, `has_decision` (B,) bool,
            `reward_terms` (B, terms) float64 in the order of `reward_names`, `elapsed_events` (B,)
            int64, `illegal` (B,) bool, of a page cache what `memrl.identity` tells, (B, N) int64
            each, and where a row has ended `final_obs` with `_final_obs` (B,)
            bool, the rows it holds for.

        Raises:
            ValueError: if an action is not an integer of the action space; with `rounds`, where
                values are not looked at, one outside it counts as illegal.
            gymnasium.error.ResetNeeded: before the first reset.
        """
        if not self._is_running:
            raise gymnasium.error.ResetNeeded("Call reset() before step(): no episode is running.")
        action = self._integers(actions, "step()")
        with self._rows.naming_what_fits():
            result = self._rows.advance(action.long())
            # Steps of fixed shape report in buffers of their own, which the next one writes over.
            terms, terminated = result.reward_terms.clone(), result.terminated.clone()
            illegal, elapsed = result.illegal, result.elapsed_events.clone()
            observation, final = self._begin_next(terminated)
        if final:
            final["final_obs"], _ = _told_apart(final["final_obs"])
        infos = {"reward_terms": terms, "elapsed_events": elapsed, "illegal": illegal} | final
        observation, told = _told_apart(observation)
        infos |= told
        truncated = torch.zeros_like(terminated)
        return observation, terms.sum(dim=1), terminated, truncated, infos

    def _integers(self, values: Any, what: str) -> Tensor:
        """(B,) integers on the device.

        Raises:
            ValueError: if they are not as many, or of another type.
        """
        try:
            given = torch.as_tensor(values, device=self.device)
        except (TypeError, ValueError, RuntimeError) as error:
            raise ValueError(f"{what} takes {self.num_envs} integers: {error}.") from error
        is_integer = not given.is_floating_point() and not given.is_complex()
        if given.shape != (self.num_envs,) or given.dtype == torch.bool or not is_integer:
            raise ValueError(
                f"{what} takes {self.num_envs} integers, got {tuple(given.shape)} of {given.dtype}."
            )
        return given

    def _begin_next(self, terminated: Tensor) -> tuple[Observation, dict[str, Any]]:
        """Begin the next episode in rows that have ended; what they saw last goes into infos."""
        observation = self._rows.observation()
        if isinstance(self._rows, FixedShapePaging):
            return observation, {}  # they have begun it themselves
        ended = terminated.nonzero()[:, 0]
        if not len(ended):
            return observation, {}
        episodes = self._draws.next(terminated)[ended]
        final = {"final_obs": observation, "_final_obs": terminated}
        return self._rows.reset(episodes.tolist(), ended.tolist()), final

    # ------------------------------------------------------------------ branching

    def save(self, rows: Sequence[int] | Tensor) -> SavedRows:
        """Copy everything that rows are; see `EpisodeRows.save`."""
        return self._rows.save(rows)

    def restore(self, saved: SavedRows, rows: Sequence[int] | Tensor) -> Observation:
        """Put saved rows in the place of others; see `EpisodeRows.restore`.

        Which episodes a row plays afterwards stays its own affair.
        """
        return _told_apart(self._rows.restore(saved, rows))[0]

    def copy(self, source: Sequence[int] | Tensor, target: Sequence[int] | Tensor) -> Observation:
        """Make the target rows what the source rows are; see `EpisodeRows.copy`."""
        return _told_apart(self._rows.copy(source, target))[0]

    # ------------------------------------------------------------------ views

    def action_masks(self) -> Tensor:
        """(B, A) bool, the legal actions."""
        return self._rows.observation()["action_mask"]

    def privileged_state(self) -> PrivilegedState:
        """The one door to needs and future events: for clairvoyant policies, labels and reports."""
        return self._rows.privileged_state()

    def log(self, row: int) -> EpisodeLog:
        """What happened so far in a row's present episode."""
        return self._rows.log(row)


def _told_apart(observation: Observation) -> tuple[Observation, dict[str, Any]]:
    """The observation, and what infos tell of it: masks, decisions, identities of pages."""
    told = {name: value for name, value in observation.items() if name in IDENTITY}
    mask = observation["action_mask"]
    infos = told | {"action_mask": mask, "has_decision": mask[:, 1:].any(dim=1)}
    return {name: value for name, value in observation.items() if name not in told}, infos
