"""How many decisions per second `BatchedPagingEnv` plays beside vector environments of `PagingEnv`.

    PYTHONPATH=.:tests python tests/benchmarks/vector_env_sps.py [--seconds 1] [--repeats 5]
        [--device cpu] [--sizes 16 256 1024] [--rounds 2] [--compile] [--json FILE]

The workload and options of `env_sps.py`; every arm plays random legal actions. A decision is a row
that had a choice when `step` was called. Only `step` is timed, resets are part of it, on one thread
(`AsyncVectorEnv`: one process more for each environment). Arms are interleaved; medians are shown,
and how many times as fast as `SyncVectorEnv` each arm is in the same repeat. Nothing is asserted.
"""

from __future__ import annotations

import argparse
import statistics
import time
from collections.abc import Callable
from dataclasses import dataclass
from functools import partial
from pathlib import Path
from typing import Any

import numpy as np
import torch
from benchmarks.env_sps import make_table, save
from gymnasium.vector import AsyncVectorEnv, AutoresetMode, SyncVectorEnv
from rich.console import Console
from rich.progress import track
from rich.table import Table

from envs.batched import BatchedPagingEnv
from envs.paging import PagingEnv
from memrl.options import PagingOptions
from memrl.table import EpisodeTable

NUM_REFERENCE = 16


class ReferenceEngine:
    """Plays Gymnasium's own vector environments of `PagingEnv`."""

    device = torch.device("cpu")

    def __init__(self, table: EpisodeTable, kind: type[SyncVectorEnv] | type[AsyncVectorEnv]):
        makers = [partial(PagingEnv, table, PagingOptions()) for _ in range(NUM_REFERENCE)]
        self._env = kind(makers, autoreset_mode=AutoresetMode.SAME_STEP)
        self.num_envs = NUM_REFERENCE
        self._observation, _ = self._env.reset(seed=0)

    def mask(self) -> torch.Tensor:
        """(B, A) bool, the legal actions."""
        return torch.from_numpy(self._observation["action_mask"]).bool()

    def step(self, action: torch.Tensor) -> None:
        """Play one action in every row."""
        self._observation, *_ = self._env.step(action.numpy())

    def memory_bytes(self) -> int:
        """Not known."""
        return 0


class BatchedEngine:
    """Plays `BatchedPagingEnv`."""

    def __init__(
        self, table: EpisodeTable, device: str, num_envs: int, rounds: int | None, compiles: bool
    ):
        self._env = BatchedPagingEnv(
            table, PagingOptions(), num_envs=num_envs, rounds=rounds, device=device
        )
        self.device, self.num_envs = self._env.device, num_envs
        self._step: Callable[..., Any] = self._env.step
        if compiles:
            rows: Any = self._env._rows
            rows.advance = torch.compile(rows.advance, fullgraph=True, dynamic=False)
        _, infos = self._env.reset(seed=0)
        self._mask: torch.Tensor = infos["action_mask"]

    def mask(self) -> torch.Tensor:
        """(B, A) bool, the legal actions."""
        return self._mask

    def step(self, action: torch.Tensor) -> None:
        """Play one action in every row, and wait for the device."""
        *_, infos = self._step(action)
        self._mask = infos["action_mask"]
        if self.device.type == "cuda":
            torch.cuda.synchronize()

    def memory_bytes(self) -> int:
        """Of the state and the observation of all rows."""
        saved = self._env.save(range(self.num_envs)).tensors.values()
        return sum(tensor.numel() * tensor.element_size() for tensor in saved)


Engine = ReferenceEngine | BatchedEngine


@dataclass
class Arm:
    """One row of the result."""

    name: str
    engine: Engine
    generator: torch.Generator

    def play(self, seconds: float) -> tuple[float, float]:
        """Return decisions per second of `step`, and the share of rows that had a decision."""
        decisions, rows, spent = 0, 0, 0.0
        while spent < seconds:
            mask = self.engine.mask()
            decisions += int(mask[:, 1:].any(dim=1).sum())
            rows += len(mask)
            action = torch.multinomial(mask.float(), 1, generator=self.generator)[:, 0]
            start = time.perf_counter()
            self.engine.step(action)
            spent += time.perf_counter() - start
        return decisions / spent, decisions / rows


def make_arms(table: EpisodeTable, arguments: argparse.Namespace) -> list[Arm]:
    """Every environment at every size."""

    def arm(name: str, engine: Engine) -> Arm:
        return Arm(name, engine, torch.Generator(engine.device).manual_seed(0))

    arms = [
        arm(f"SyncVectorEnv of {NUM_REFERENCE}", ReferenceEngine(table, SyncVectorEnv)),
        arm(f"AsyncVectorEnv of {NUM_REFERENCE}", ReferenceEngine(table, AsyncVectorEnv)),
    ]
    for size in arguments.sizes:
        kinds: list[tuple[str, int | None, bool]] = [("", None, False)]
        kinds.append((f", rounds={arguments.rounds}", arguments.rounds, False))
        if arguments.compile:
            kinds.append((f", rounds={arguments.rounds}, compiled", arguments.rounds, True))
        for suffix, rounds, compiles in kinds:
            engine = BatchedEngine(table, arguments.device, size, rounds, compiles)
            arms.append(arm(f"BatchedPagingEnv of {size:,}{suffix}", engine))
    return arms


def measure(arms: list[Arm], seconds: float, repeats: int) -> list[dict[str, Any]]:
    """Play the arms in turn, `repeats` times, after a first step each that compiles."""
    for arm in arms:
        arm.play(0.01)
    rates: list[list[float]] = [[] for _ in arms]
    shares = [0.0] * len(arms)
    for number in track(range(repeats * len(arms)), "Measuring", console=Console(stderr=True)):
        place = number % len(arms)
        rate, shares[place] = arms[place].play(seconds)
        rates[place].append(rate)
    return [
        {
            "environment": arm.name,
            "num_envs": arm.engine.num_envs,
            "decisions_per_s": statistics.median(values),
            "lowest": min(values),
            "highest": max(values),
            "times_sync": statistics.median(np.array(values) / np.array(rates[0])),
            "rows_with_decision": share,
            "bytes_per_env": arm.engine.memory_bytes() // arm.engine.num_envs,
        }
        for arm, values, share in zip(arms, rates, shares, strict=True)
    ]


def show(rows: list[dict[str, Any]]) -> None:
    """Print the rows as a table."""
    table = Table(title="decisions per second: median (lowest to highest)")
    for heading in ("environment", "decisions/s", "x Sync", "rows with a decision", "bytes/env"):
        table.add_column(heading, justify="left" if heading == "environment" else "right")
    for row in rows:
        rates = (row["decisions_per_s"], row["lowest"], row["highest"])
        table.add_row(
            row["environment"],
            "{:,.0f} ({:,.0f} to {:,.0f})".format(*rates),
            f"{row['times_sync']:.1f}",
            f"{row['rows_with_decision']:.0%}",
            f"{row['bytes_per_env']:,}" if row["bytes_per_env"] else "-",
        )
    Console(width=120).print(table)


def main() -> None:
    """Measure, print, and write JSON on demand."""
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawTextHelpFormatter
    )
    parser.add_argument("--seconds", type=float, default=1.0, help="per arm and repeat")
    parser.add_argument("--repeats", type=int, default=5)
    parser.add_argument("--device", default="cpu", help="of BatchedPagingEnv")
    parser.add_argument("--sizes", type=int, nargs="+", default=[16, 256, 1024])
    parser.add_argument("--rounds", type=int, default=2, help="of the arms of fixed shape")
    parser.add_argument("--compile", action="store_true", help="measure compiled steps too")
    parser.add_argument("--json", type=Path, help="write the rows to this file")
    arguments = parser.parse_args()
    torch.set_num_threads(1)
    rows = measure(make_arms(make_table(), arguments), arguments.seconds, arguments.repeats)
    show(rows)
    if arguments.json:
        save(arguments.json, rows, arguments.device)


if __name__ == "__main__":
    main()
