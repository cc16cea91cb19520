"""Groups of episodes stepped together, as learners and the evaluation see them."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Protocol, runtime_checkable

import numpy as np
import numpy.typing as npt
import torch
from torch import Tensor

from memrl.actions import ActionLayout
from memrl.device_memory import RowMemory
from memrl.episode_log import EpisodeLog
from memrl.observation_text import ShownTexts
from memrl.options import PagingOptions
from memrl.privileged import PrivilegedState
from memrl.table import EpisodeTable


class StepTensors(Protocol):
    """What a step gives as tensors, without an observation; see `envs.lockstep.GroupStep`."""

    @property
    def reward_terms(self) -> Tensor:
        """(B, terms) float64."""
        ...

    @property
    def terminated(self) -> Tensor:
        """(B,) bool."""
        ...

    @property
    def elapsed_events(self) -> Tensor:
        """(B,) int64, events since the decision before."""
        ...


class StepResult(Protocol):
    """What a step of a group of episodes gives; see `envs.lockstep.LockstepResult`."""

    @property
    def observation(self) -> dict[str, Tensor]:
        """Observations of all rows."""
        ...

    @property
    def reward_terms(self) -> npt.NDArray[np.float64]:
        """(B, terms)."""
        ...

    @property
    def terminated(self) -> npt.NDArray[np.bool_]:
        """(B,)."""
        ...

    @property
    def elapsed_events(self) -> npt.NDArray[np.int64]:
        """(B,) events since the decision before."""
        ...


class EpisodeGroup(Protocol):
    """A group of episodes stepped together: what all of them have."""

    @property
    def table(self) -> EpisodeTable:
        """The workload."""
        ...

    @property
    def options(self) -> PagingOptions:
        """Resolved options."""
        ...

    @property
    def num_envs(self) -> int:
        """B."""
        ...

    @property
    def layout(self) -> ActionLayout:
        """The action space."""
        ...

    @property
    def reward_names(self) -> tuple[str, ...]:
        """Names of the reward terms."""
        ...

    @property
    def device(self) -> torch.device:
        """Where its tensors live."""
        ...

    @property
    def row_memory(self) -> RowMemory:
        """Bytes of a row."""
        ...

    def advance(self, action: Tensor) -> StepTensors:
        """Play one action, (B,), in every row that has a decision, without an observation."""
        ...

    def at_query(self) -> Tensor:
        """(B,) bool, rows that stand at a query."""
        ...


class PagingGroup(EpisodeGroup, Protocol):
    """One whose rows begin and end when the caller says so; see `envs.lockstep.LockstepPaging`."""

    def reset(
        self, episodes: Sequence[int], rows: Sequence[int] | None = None
    ) -> dict[str, Tensor]:
        """Begin episodes in rows, and observe all rows."""
        ...

    def begin(self, episodes: Sequence[int], rows: Sequence[int] | None = None) -> None:
        """Begin episodes in rows."""
        ...

    def step(self, actions: npt.NDArray[np.int64]) -> StepResult:
        """Play one action in every running row."""
        ...

    def action_masks(self) -> Tensor:
        """(B, A) bool, the legal actions."""
        ...

    def observe(self, rows: Tensor) -> dict[str, Tensor]:
        """Observations of the given rows, (M,)."""
        ...

    def observe_slots(self, rows: Tensor, slot: Tensor) -> dict[str, Tensor]:
        """The same with the given slot rows, (M, n), and no candidates."""
        ...

    def privileged_state(self, rows: Tensor | None = None) -> PrivilegedState:
        """The hidden truth of the given rows, (M,), or of all."""
        ...

    def log(self, row: int) -> EpisodeLog:
        """What happened so far in a row's episode."""
        ...


@runtime_checkable
class TextGroup(Protocol):
    """One that can show the texts of its rows, as the reference does and tensors cannot."""

    def shown_texts(self, rows: Sequence[int]) -> list[ShownTexts]:
        """The texts of what the given rows are shown."""
        ...


class FixedShapeGroup(EpisodeGroup, Protocol):
    """One that is stepped in fixed shapes; see `envs.batched_fixed.FixedShapePaging`."""

    def begin(self, episodes: Tensor) -> None:
        """Begin episodes, (B,), in all rows; none follows them."""
        ...

    def observation(self) -> dict[str, Tensor]:
        """Observations of all rows, with `action_mask`."""
        ...

    def state(self) -> list[Tensor]:
        """Every tensor that `advance` changes."""
        ...
