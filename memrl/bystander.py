"""The run as ranks other than the first one hold it: they write nothing into its folder."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

from memrl.tracking import Run
from memrl.wandb_mirror import NullMirror


class Bystander(Run):
    """A run that another process writes.

    Args:
        folder: where it does. name, seed: of the run.
    """

    def __init__(self, folder: Path, name: str, seed: int) -> None:
        super().__init__(folder, name, seed, resumed=False, mirror=NullMirror())

    def log(self, global_step: int, metrics: Mapping[str, Any]) -> None:
        """Ignore the metrics."""

    def log_table(self, name: str, columns: Sequence[str], rows: Sequence[Sequence[Any]]) -> None:
        """Ignore the table."""

    def finish(self, results: Mapping[str, Any]) -> None:
        """Ignore the results."""
