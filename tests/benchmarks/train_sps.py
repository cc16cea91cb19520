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
import statistics
from dataclasses import dataclass, field
from pathlib import Path
from unittest import mock

import torch
from benchmarks.env_sps import make_table, save
from benchmarks.timing import Seconds, spread
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
        whole, environment, fit = Seconds(), Seconds(), Seconds()
        with (
            mock.patch.object(BatchedPaging, "advance", environment.of(BatchedPaging.advance)),
            mock.patch.object(BatchedPaging, "begin", environment.of(BatchedPaging.begin)),
            mock.patch.object(GroupPolicyGradient, "_fit", fit.of(GroupPolicyGradient._fit)),
        ):
            decisions = whole.of(learner.iterate)()["rollout/decisions"]
        self.wall.append(decisions / whole.wall)
        self.cpu.append(decisions / whole.cpu)
        seconds = {"environment": environment.cpu, "fit": fit.cpu}
        seconds["acting"] = whole.cpu - sum(seconds.values())
        for part, value in seconds.items():
            self.shares.setdefault(part, []).append(value / whole.cpu)


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
            spread(arm.wall),
            spread(arm.cpu),
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
        save(arguments.json, [vars(arm) for arm in arms], arguments.device)


if __name__ == "__main__":
    main()
