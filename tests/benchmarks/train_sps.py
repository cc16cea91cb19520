"""How many decisions per second the group policy gradient learns from, and where the time goes.

    PYTHONPATH=.:tests python tests/benchmarks/train_sps.py [--repeats 3] [--device cpu]
        [--json FILE]

The workload of `env_sps.py`: generated chats, windows of 150 turns with 10 questions, 24 slots,
archive of 60, K = 16. One measurement is one whole iteration, played and learned from (2 epochs of
16 minibatches), on one thread; arms are interleaved, and the medians of wall time and of the
process's own CPU time are shown, because other load on a machine moves the former. Every iteration
begins from the same random weights. Nothing is asserted about time.
"""

from __future__ import annotations

import argparse
import json
import platform
import statistics
import time
from collections.abc import Callable
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any
from unittest import mock

import torch
from benchmarks.env_sps import make_table
from rich.console import Console
from rich.progress import track
from rich.table import Table

from envs.batched import BatchedPaging
from memrl.algos.group_policy_gradient import GroupPolicyGradient
from memrl.config import NetworkConfig
from memrl.options import PagingOptions
from memrl.policy_gradient_config import PolicyGradientConfig
from memrl.seeding import Streams
from memrl.table import EpisodeTable


@dataclass
class Arm:
    """A network and a number of rows, and what was measured with them."""

    num_groups: int
    group_size: int
    hidden: int
    slot_pool: bool
    wall: list[float] = field(default_factory=list)
    cpu: list[float] = field(default_factory=list)
    shares: dict[str, list[float]] = field(default_factory=dict)

    def make(self, table: EpisodeTable, device: torch.device) -> GroupPolicyGradient:
        """A learner that has learned nothing."""
        rows = self.num_groups * self.group_size
        return GroupPolicyGradient(
            BatchedPaging(table, PagingOptions(), rows, device),
            NetworkConfig(self.hidden, slot_pool=self.slot_pool),
            PolicyGradientConfig(num_groups=self.num_groups, group_size=self.group_size),
            Streams(0),
            gain_scale=0.1,
            initial=None,
            device=device,
        )

    def measure(self, learner: GroupPolicyGradient) -> None:
        """Time one iteration."""
        seconds = {"environment": 0.0, "fit": 0.0}
        with (
            mock.patch.object(
                BatchedPaging, "advance", timed(BatchedPaging.advance, seconds, "environment")
            ),
            mock.patch.object(
                BatchedPaging, "begin", timed(BatchedPaging.begin, seconds, "environment")
            ),
            mock.patch.object(
                GroupPolicyGradient, "_fit", timed(GroupPolicyGradient._fit, seconds, "fit")
            ),
        ):
            wall, cpu = time.perf_counter(), time.process_time()
            decisions = learner.iterate()["rollout/decisions"]
            cpu, wall = time.process_time() - cpu, time.perf_counter() - wall
        self.wall.append(decisions / wall)
        self.cpu.append(decisions / cpu)
        seconds["acting"] = cpu - sum(seconds.values())
        for part, value in seconds.items():
            self.shares.setdefault(part, []).append(value / cpu)


def timed(function: Callable[..., Any], seconds: dict[str, float], part: str) -> Callable[..., Any]:
    """The function, which adds the CPU time of its calls to a part's seconds."""

    def call(*args: Any, **kwargs: Any) -> Any:
        start = time.process_time()
        try:
            return function(*args, **kwargs)
        finally:
            seconds[part] += time.process_time() - start

    return call


def measure(arms: list[Arm], table: EpisodeTable, device: torch.device, repeats: int) -> None:
    """Let the arms learn in turn, `repeats` times."""
    for number in track(range(repeats * len(arms)), "Measuring", console=Console(stderr=True)):
        arm = arms[number % len(arms)]
        arm.measure(arm.make(table, device))


def show(arms: list[Arm]) -> None:
    """Print the arms as a table."""
    table = Table(title="decisions learned from per second: median (lowest to highest)")
    parts = list(arms[0].shares)
    for heading in ("rows", "hidden", "slot summary", "per wall s", "per CPU s", *parts):
        table.add_column(heading, justify="right")
    for arm in arms:
        table.add_row(
            f"{arm.num_groups} x {arm.group_size}",
            str(arm.hidden),
            "yes" if arm.slot_pool else "no",
            *(
                f"{statistics.median(rates):,.0f} ({min(rates):,.0f} to {max(rates):,.0f})"
                for rates in (arm.wall, arm.cpu)
            ),
            *(f"{statistics.median(arm.shares[part]):.0%}" for part in parts),
        )
    Console(width=140).print(table)


def main() -> None:
    """Measure, print, and write JSON on demand."""
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawTextHelpFormatter
    )
    parser.add_argument("--repeats", type=int, default=3)
    parser.add_argument("--device", default="cpu")
    parser.add_argument("--json", type=Path, help="write the arms to this file")
    arguments = parser.parse_args()
    torch.set_num_threads(1)
    arms = [
        Arm(num_groups, 16, hidden, slot_pool)
        for num_groups, hidden, slot_pool in (
            (16, 32, False),
            (64, 32, False),
            (64, 64, False),
            (64, 32, True),
        )
    ]
    measure(arms, make_table(), torch.device(arguments.device), arguments.repeats)
    show(arms)
    if arguments.json:
        machine = {
            "platform": platform.platform(),
            "torch": torch.__version__,
            "device": arguments.device,
        }
        rows = [vars(arm) for arm in arms]
        arguments.json.write_text(json.dumps({"machine": machine, "arms": rows}, indent=2))


if __name__ == "__main__":
    main()
