"""How many decisions per second `BatchedPagingEnv` plays beside vector environments of `PagingEnv`.

    PYTHONPATH=.:tests python tests/benchmarks/vector_env_sps.py [--seconds 1] [--repeats 5]
        [--device cpu] [--sizes 16 256 1024] [--rounds 2] [--compile] [--hidden 32] [--json FILE]

The workload and options of `env_sps.py`. A decision is a row that had a choice when `step` was
called. Arms play random legal actions, and only `step` is timed, resets are part of it; or, named
"greedy", what an untrained `SetNetwork` values most, and then the network is timed too: it reads
the full observation of every row. One thread (`AsyncVectorEnv`: one process more for each
environment, whose CPU time is not counted). Arms are interleaved; medians are shown, and how many
times as fast as `SyncVectorEnv` each arm is in the same repeat. Nothing is asserted.
"""

from __future__ import annotations

import argparse
import statistics
from collections.abc import Callable
from dataclasses import dataclass
from functools import partial
from pathlib import Path
from typing import Any, NamedTuple

import numpy as np
import torch
from benchmarks.env_sps import make_table, save
from benchmarks.timing import Seconds, spread
from gymnasium.vector import AsyncVectorEnv, AutoresetMode, SyncVectorEnv
from rich.console import Console
from rich.progress import track
from rich.table import Table

from envs.batched import BatchedPagingEnv
from envs.paging import PagingEnv
from memrl.options import PagingOptions
from memrl.policies.network import GreedyGain, SetNetwork
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

    def observation(self) -> dict[str, torch.Tensor]:
        """Of all rows, with their masks."""
        observation = {name: torch.from_numpy(part) for name, part in self._observation.items()}
        return observation | {"action_mask": observation["action_mask"].bool()}

    def step(self, action: torch.Tensor) -> None:
        """Play one action in every row."""
        self._observation, *_ = self._env.step(action.numpy())

    def memory_bytes(self) -> int:
        """Not known."""
        return 0


class BatchedEngine:
    """Plays `BatchedPagingEnv`.

    Attributes:
        env: the environment.
    """

    def __init__(
        self,
        table: EpisodeTable,
        options: PagingOptions,
        device: str,
        num_envs: int,
        *,
        rounds: int | None = None,
        compiles: bool = False,
        compact: bool = False,
    ):
        self.env = BatchedPagingEnv(
            table, options, num_envs=num_envs, rounds=rounds, compact=compact, device=device
        )
        self.device, self.num_envs = self.env.device, num_envs
        self._step: Callable[..., Any] = self.env.step
        if compiles:
            rows: Any = self.env._rows
            rows.advance = torch.compile(rows.advance, fullgraph=True, dynamic=False)
        self._observation, _ = self.env.reset(seed=0)

    def observation(self) -> dict[str, torch.Tensor]:
        """Of all rows, with their masks."""
        return self._observation

    def step(self, action: torch.Tensor) -> None:
        """Play one action in every row."""
        self._observation, *_ = self._step(action)

    def memory_bytes(self) -> int:
        """Of the state and the observation of all rows."""
        saved = self.env.save(range(self.num_envs)).tensors.values()
        return sum(tensor.nbytes for tensor in (*saved, *self._observation.values()))


Engine = ReferenceEngine | BatchedEngine


@dataclass
class Arm:
    """One row of the result.

    Attributes:
        generator: of random actions. policy: plays in their place, and is timed.
    """

    name: str
    engine: Engine
    generator: torch.Generator
    policy: GreedyGain | None = None

    def play(self, seconds: float) -> Played:
        """Play for so many seconds of `step`, the work of the device included."""
        decisions, rows = 0, 0
        spent = Seconds(self.engine.device)
        while spent.wall < seconds:
            observation = self.engine.observation()
            mask = observation["action_mask"]
            decisions += int(mask[:, 1:].any(dim=1).sum())
            rows += len(mask)
            if self.policy is None:
                action = torch.multinomial(mask.float(), 1, generator=self.generator)[:, 0]
            else:
                action = spent.of(self.policy.act)(observation, mask)
            spent.of(self.engine.step)(action)
        return Played(decisions / spent.wall, decisions / spent.cpu, decisions / rows)


class Played(NamedTuple):
    """Decisions per second of wall time and of CPU time; share of rows that had a decision."""

    per_wall_s: float
    per_cpu_s: float
    share: float


def make_arms(table: EpisodeTable, arguments: argparse.Namespace) -> list[Arm]:
    """Every environment at every size."""

    def arm(name: str, engine: Engine, policy: GreedyGain | None = None) -> Arm:
        generator = torch.Generator(engine.device).manual_seed(0)
        return Arm(name, engine, generator, policy)

    def batched(size: int, rounds: int | None, compiles: bool) -> BatchedEngine:
        return BatchedEngine(
            table, PagingOptions(), arguments.device, size, rounds=rounds, compiles=compiles
        )

    def greedy(compiles: bool) -> GreedyGain:
        with torch.random.fork_rng(devices=[]):
            torch.manual_seed(0)
            network = SetNetwork(arguments.hidden)
        if compiles:
            network.compile(fullgraph=True, dynamic=False)
        return GreedyGain(network.to(arguments.device), 1.0)

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
            name = f"BatchedPagingEnv of {size:,}{suffix}"
            arms.append(arm(name, batched(size, rounds, compiles)))
            if rounds is None or compiles:
                policy = greedy(compiles)
                arms.append(arm(f"{name}, greedy", batched(size, rounds, compiles), policy))
    return arms


def measure(arms: list[Arm], seconds: float, repeats: int) -> list[dict[str, Any]]:
    """Play the arms in turn, `repeats` times, after a first step each that compiles."""
    for arm in arms:
        arm.play(0.01)
    played: list[list[Played]] = [[] for _ in arms]
    for number in track(range(repeats * len(arms)), "Measuring", console=Console(stderr=True)):
        place = number % len(arms)
        played[place].append(arms[place].play(seconds))
    first = np.array([own.per_wall_s for own in played[0]])
    return [
        {
            "environment": arm.name,
            "num_envs": arm.engine.num_envs,
            "per_wall_s": [one.per_wall_s for one in own],
            "per_cpu_s": [one.per_cpu_s for one in own],
            "times_sync": statistics.median([one.per_wall_s for one in own] / first),
            "rows_with_decision": own[-1].share,
            "bytes_per_env": arm.engine.memory_bytes() // arm.engine.num_envs,
        }
        for arm, own in zip(arms, played, strict=True)
    ]


def show(rows: list[dict[str, Any]]) -> None:
    """Print the rows as a table."""
    table = Table(title="decisions per second: median (lowest to highest)")
    headings = ("environment", "per wall s", "per CPU s", "x Sync", "with a decision", "bytes/env")
    for heading in headings:
        table.add_column(heading, justify="left" if heading == "environment" else "right")
    for row in rows:
        table.add_row(
            row["environment"],
            spread(row["per_wall_s"]),
            spread(row["per_cpu_s"]),
            f"{row['times_sync']:.1f}",
            f"{row['rows_with_decision']:.0%}",
            f"{row['bytes_per_env']:,}" if row["bytes_per_env"] else "-",
        )
    Console(width=150).print(table)


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
    parser.add_argument("--hidden", type=int, default=32, help="width of the greedy network")
    parser.add_argument("--json", type=Path, help="write the rows to this file")
    arguments = parser.parse_args()
    torch.set_num_threads(1)
    rows = measure(make_arms(make_table(), arguments), arguments.seconds, arguments.repeats)
    show(rows)
    if arguments.json:
        save(arguments.json, rows, arguments.device)


if __name__ == "__main__":
    main()
