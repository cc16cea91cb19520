"""What the benchmarks share: clocks, and how measured rates are shown."""

from __future__ import annotations

import statistics
import time
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from typing import ParamSpec, TypeVar

import torch

P = ParamSpec("P")
R = TypeVar("R")


@dataclass
class Seconds:
    """Wall time and CPU time of this process, summed over calls.

    Attributes:
        device: its work is waited for at the end of each call, so that wall time includes it; None
            or a CPU for no such wait.
    """

    device: torch.device | None = None
    wall: float = 0.0
    cpu: float = 0.0

    def of(self, function: Callable[P, R]) -> Callable[P, R]:
        """The function, whose calls add to these seconds."""

        def call(*args: P.args, **kwargs: P.kwargs) -> R:
            wall, cpu = time.perf_counter(), time.process_time()
            try:
                return function(*args, **kwargs)
            finally:
                if self.device is not None and self.device.type == "cuda":
                    torch.cuda.synchronize(self.device)
                self.wall += time.perf_counter() - wall
                self.cpu += time.process_time() - cpu

        return call


def spread(values: Sequence[float], digits: int = 0) -> str:
    """Median, lowest and highest as a cell of a table."""
    median, lowest, highest = (
        f"{value:,.{digits}f}" for value in (statistics.median(values), min(values), max(values))
    )
    return f"{median} ({lowest} to {highest})"
