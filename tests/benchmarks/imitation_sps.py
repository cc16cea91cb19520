"""How many states gain regression labels per second, how many samples it fits, and what takes time.

    PYTHONPATH=.:tests python tests/benchmarks/imitation_sps.py [--repeats 3] [--device cpu]
        [--rows 256 1024] [--json FILE]

The workload of `env_sps.py`: generated chats, windows of 150 turns with 10 questions, 24 slots,
archive of 60, K = 16. One measurement collects two rounds, the first played by heuristics, the
second by the network, with minibatches of 512 after each, on one thread; as many episodes as rows,
256 at least. Arms are interleaved, and the medians of wall time and of the process's own CPU time
are shown, because other load on a machine moves the former. Shares are of the CPU time; on a CUDA
device they say what the host did, which does not wait for the device. Nothing is asserted about
time.
"""

from __future__ import annotations

import argparse
import statistics
from contextlib import ExitStack
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any
from unittest import mock

import torch
from benchmarks.env_sps import make_table, save
from benchmarks.timing import Seconds
from rich.console import Console
from rich.progress import track
from rich.table import Table

from envs.batched import BatchedPaging
from memrl.algos import collection
from memrl.algos.gain_regression import GainRegression
from memrl.config import LearnerConfig, NetworkConfig
from memrl.options import PagingOptions
from memrl.seeding import Streams
from memrl.table import EpisodeTable

ROUNDS = ("heuristics", "network")
UPDATES = 20  # timed; one before them merges what was collected
PARTS: dict[str, list[tuple[Any, str]]] = {
    "environment": [(BatchedPaging, "advance"), (BatchedPaging, "begin")],
    "observing": [(BatchedPaging, "observe"), (BatchedPaging, "observe_slots")],
    "hidden truth": [(BatchedPaging, "privileged_state")],
    "labels": [(GainRegression, "_labels")],
    "acting": [(collection._Playing, "choose")],
}
"""Functions of each part; none calls another."""


@dataclass
class Arm:
    """A network and a number of rows, and what was measured with them, by round."""

    rows: int
    hidden: int
    slot_pool: bool
    states: list[int] = field(default_factory=lambda: [0, 0])
    rates: dict[str, list[float]] = field(default_factory=dict)

    def measure(self, table: EpisodeTable, device: torch.device) -> None:
        """Collect and fit two rounds."""
        config = LearnerConfig(episodes_per_round=max(self.rows, 256))
        learner = GainRegression(
            BatchedPaging(table, PagingOptions(), self.rows, device),
            NetworkConfig(self.hidden, slot_pool=self.slot_pool),
            config,
            Streams(0),
            thresholds=(-0.5, 0.0, 0.5),
            device=device,
        )
        for number, name in enumerate(ROUNDS):
            before, parts = len(learner.dataset), {part: Seconds() for part in PARTS}
            collecting, fitting = Seconds(device), Seconds(device)
            with ExitStack() as stack:
                for part, functions in PARTS.items():
                    for owner, function in functions:
                        watched = parts[part].of(getattr(owner, function))
                        stack.enter_context(mock.patch.object(owner, function, watched))
                collecting.of(learner.begin_round)()
            states = len(learner.dataset) - before
            self.states[number] = states
            self._note(f"{name}: states per wall s", states / collecting.wall)
            self._note(f"{name}: states per CPU s", states / collecting.cpu)
            shares = {part: spent.cpu / collecting.cpu for part, spent in parts.items()}
            for part, share in shares.items():
                self._note(f"{name}: {part}", share)
            self._note(f"{name}: rest", 1.0 - sum(shares.values()))
            learner.update()

            def fit() -> None:
                for _ in range(UPDATES):
                    learner.update()

            fitting.of(fit)()
            samples = UPDATES * config.batch_size
            self._note(f"{name}: samples per wall s", samples / fitting.wall)
            self._note(f"{name}: samples per CPU s", samples / fitting.cpu)

    def _note(self, what: str, value: float) -> None:
        self.rates.setdefault(what, []).append(value)


def show(arms: list[Arm]) -> None:
    """Print two rows an arm."""
    table = Table(title="states labelled and samples fitted per second: median (lowest to highest)")
    rates = ("states per wall s", "states per CPU s", "samples per wall s", "samples per CPU s")
    for heading in ("rows", "hidden", "summary", "played by", "states", *rates, *PARTS, "rest"):
        table.add_column(heading, justify="right")
    for arm in arms:
        for number, name in enumerate(ROUNDS):
            values = [arm.rates[f"{name}: {rate}"] for rate in rates]
            shares = [arm.rates[f"{name}: {part}"] for part in (*PARTS, "rest")]
            table.add_row(
                f"{arm.rows:,}",
                str(arm.hidden),
                "yes" if arm.slot_pool else "no",
                name,
                f"{arm.states[number]:,}",
                *(f"{statistics.median(v):,.0f}\n({min(v):,.0f} to {max(v):,.0f})" for v in values),
                *(f"{statistics.median(share):.0%}" for share in shares),
            )
    Console(width=200).print(table)


def main() -> None:
    """Measure, print, and write JSON on demand."""
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawTextHelpFormatter
    )
    parser.add_argument("--repeats", type=int, default=3)
    parser.add_argument("--device", default="cpu")
    parser.add_argument("--rows", type=int, nargs="+", default=[256, 1024])
    parser.add_argument("--json", type=Path, help="write the arms to this file")
    arguments = parser.parse_args()
    torch.set_num_threads(1)
    arms = [Arm(rows, 64, True) for rows in arguments.rows]
    arms.append(Arm(arguments.rows[-1], 32, False))
    table, device = make_table(), torch.device(arguments.device)
    turns = range(arguments.repeats * len(arms))
    for number in track(turns, "Measuring", console=Console(stderr=True)):
        arms[number % len(arms)].measure(table, device)
    show(arms)
    if arguments.json:
        save(arguments.json, [vars(arm) for arm in arms], arguments.device)


if __name__ == "__main__":
    main()
