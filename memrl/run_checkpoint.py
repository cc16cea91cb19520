"""The checkpoint of a run whose learning has stages: each stage replaces its part of one whole."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

from torch import Tensor

from memrl.checkpoint import has_checkpoint, load_checkpoint, save_checkpoint, under
from memrl.distributed import ALONE, Ranks
from memrl.tracking import Run

POLICY_GRADIENT = "policy_gradient"
"""Stage of the policy gradient, whichever it is; the first stage, gain regression, has no name."""


class RunCheckpoint:
    """Everything that a run continues from.

    Made from a resumed run it holds what was saved last, and the run's metrics are rewound to that
    step; a run that ended before its first checkpoint begins again. Of several ranks the first one
    reads and writes.

    Args:
        record: the open run. ranks: who learns.

    Attributes:
        tensors, state: of all stages so far; empty before the first.
    """

    def __init__(self, record: Run, ranks: Ranks = ALONE) -> None:
        self._record = record
        self._ranks = ranks
        self.tensors, self.state = ranks.from_first(self._read)

    def _read(self) -> tuple[dict[str, Tensor], dict[str, Any]]:
        record = self._record
        tensors: dict[str, Tensor] = {}
        state: dict[str, Any] = {}
        if record.resumed and has_checkpoint(record.folder):
            tensors, state = load_checkpoint(record.folder)
        if record.resumed:
            record.rewind(state.get("global_step", 0))
        return tensors, state

    def save(
        self,
        global_step: int,
        tensors: Mapping[str, Tensor],
        state: Mapping[str, Any],
        stage: str | None = None,
    ) -> None:
        """Write a checkpoint in which one stage's part is new.

        Args:
            global_step: of the metrics logged so far.
            tensors, state: of the stage.
            stage: its name, a prefix of its tensors and the key of its state; None for the first.
        """
        prefix = f"{stage}." if stage else ""
        self.tensors |= {prefix + name: value for name, value in tensors.items()}
        self.state |= {stage: dict(state)} if stage else state
        self.state["global_step"] = global_step
        if self._ranks.is_first:
            save_checkpoint(self._record.folder, self.tensors, self.state)

    def part(self, stage: str) -> tuple[dict[str, Tensor], dict[str, Any]]:
        """Tensors and state of a stage, without its prefix."""
        return under(f"{stage}.", self.tensors), self.state[stage]
