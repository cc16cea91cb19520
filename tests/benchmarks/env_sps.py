"""How many decisions per second the environments play, and where their time goes.

    python tests/benchmarks/env_sps.py [--seconds 0.5] [--repeats 3] [--device cpu] [--json FILE]

Generated chats, windows of 150 turns with 10 questions, default options (24 slots, archive of 60,
K = 16). A decision is one row that had a choice; forced moves are played inside `step` and not
counted. Only `step` and `reset` are timed, on one thread; arms are interleaved and their medians
shown, because other load on a machine moves single runs by a third. Nothing is asserted about time.
The embedder raises once the table is built: no model is called while anything is played.
"""

from __future__ import annotations

import argparse
import json
import os
import platform
import statistics
import sys
import time
from collections.abc import Callable, Iterator, Sequence
from contextlib import ExitStack, contextmanager
from dataclasses import dataclass
from functools import partial
from pathlib import Path
from typing import Any
from unittest import mock

import numpy as np
import numpy.typing as npt
import torch
from rich.console import Console
from rich.progress import track
from rich.table import Table

from envs.batched import BatchedPaging
from envs.lockstep import LockstepPaging
from envs.paging import PagingEnv
from envs.process import PagingProcess
from envs.workloads.chat import ChatParams, generate_chats
from envs.workloads.episodes import sample_episodes
from memrl import staging
from memrl.masks import action_mask
from memrl.memory.embedders import HashingEmbedder
from memrl.observation import observe
from memrl.options import PagingOptions
from memrl.policies.base import Policy
from memrl.policies.heuristics import StoreAndRetrieve, UniformRandom
from memrl.table import EpisodeTable
from memrl.table_build import build_table, fit_lexical_statistics
from memrl.table_search import TableSearch

LOCKSTEP_BATCHES = (1, 16, 64, 256)
BATCHED_BATCHES = (1, 16, 64, 256, 1024)
PARTS: dict[str, list[Callable[..., Any]]] = {
    "state": [PagingProcess.write_state],
    "mask": [action_mask],
    "observation": [observe],
    "ranking": [
        *(TableSearch.__init__, TableSearch.rank, staging.stage),
        *(staging.window_scores, staging.rank_candidates, staging.first_page),
    ],
}
"""What is timed inside a step, where the environments call it; the rest is called transitions."""


class RefusingEmbedder(HashingEmbedder):
    """Hashes until the table is built, and raises afterwards."""

    is_open = True

    def embed(self, texts: Sequence[str]) -> npt.NDArray[np.float32]:
        """Embed, or fail the benchmark."""
        if not self.is_open:
            raise AssertionError("a text was embedded while an episode was played")
        return super().embed(texts)


def make_table(num_episodes: int = 256, *, window_pages: int = 150) -> EpisodeTable:
    """Build the workload; from then on its embedder raises."""
    embedder = RefusingEmbedder(64)
    documents = generate_chats(ChatParams(num_documents=8), np.random.default_rng(0)).documents
    episodes = sample_episodes(
        documents,
        window_pages=window_pages,
        max_queries=10,
        ask="interleaved",
        episodes_per_document=num_episodes // len(documents),
        rng=np.random.default_rng(0),
    )
    lexical = fit_lexical_statistics(documents)
    table = build_table(documents, episodes, embedder, lexical, name="env_sps")
    embedder.is_open = False
    return table


# ---------------------------------------------------------------------- arms


class Engine:
    """Plays a lockstep or batched environment, beginning the next episode where one ends."""

    def __init__(self, envs: LockstepPaging | BatchedPaging, policy: Policy) -> None:
        self._envs, self._policy = envs, policy
        self._running = np.ones(envs.num_envs, dtype=bool)
        self._next_episode = envs.num_envs
        self._on_gpu = isinstance(envs, BatchedPaging) and envs.device.type == "cuda"
        episodes = [row % envs.table.num_episodes for row in range(envs.num_envs)]
        self._observation = envs.reset(episodes)

    def play(self, seconds: float) -> tuple[int, float]:
        """Return the decisions played and the seconds that `step` and `reset` took."""
        decisions, spent = 0, 0.0
        while spent < seconds:
            action = self._policy.act(self._observation, self._observation["action_mask"])
            decisions += int(self._running.sum())
            start = time.perf_counter()
            result = self._envs.step(action.cpu().numpy())
            self._observation = result.observation
            ended = np.flatnonzero(result.terminated).tolist()
            if ended:
                numbers = range(self._next_episode, self._next_episode + len(ended))
                episodes = [number % self._envs.table.num_episodes for number in numbers]
                self._next_episode += len(ended)
                self._observation = self._envs.reset(episodes, ended)
            if self._on_gpu:
                torch.cuda.synchronize()
            spent += time.perf_counter() - start
        return decisions, spent


class SingleEngine:
    """Plays `PagingEnv` through Gymnasium's interface."""

    def __init__(self, env: PagingEnv, policy: Policy) -> None:
        self._env, self._policy = env, policy
        self._observation, _ = env.reset(seed=0)

    def play(self, seconds: float) -> tuple[int, float]:
        """As `Engine.play`."""
        decisions, spent = 0, 0.0
        while spent < seconds:
            batch = {key: torch.from_numpy(value)[None] for key, value in self._observation.items()}
            action = int(self._policy.act(batch, batch["action_mask"].bool())[0])
            start = time.perf_counter()
            self._observation, _, terminated, _, _ = self._env.step(np.int64(action))
            if terminated:
                self._observation, _ = self._env.reset()
            spent += time.perf_counter() - start
            decisions += 1
        return decisions, spent


@dataclass
class Arm:
    """One row of the result."""

    engine: str
    num_envs: int
    play: str
    make: Callable[[], Engine | SingleEngine]


def make_arms(table: EpisodeTable, device: str) -> list[Arm]:
    """Every environment at every batch size, under random and under store-all play."""
    options = PagingOptions()

    def policy(play: str, on: str) -> Policy:
        if play == "store all":
            return StoreAndRetrieve(top_k=3)
        return UniformRandom(torch.Generator(on).manual_seed(0))

    def single(play: str) -> SingleEngine:
        return SingleEngine(PagingEnv(table, options), policy(play, "cpu"))

    def lockstep(play: str, size: int) -> Engine:
        return Engine(LockstepPaging(table, options, size), policy(play, "cpu"))

    def batched(play: str, size: int) -> Engine:
        return Engine(BatchedPaging(table, options, size, device), policy(play, device))

    arms = []
    for play in ("random", "store all"):
        arms.append(Arm("PagingEnv", 1, play, partial(single, play)))
        for size in LOCKSTEP_BATCHES:
            arms.append(Arm("LockstepPaging", size, play, partial(lockstep, play, size)))
        for size in BATCHED_BATCHES:
            name = f"BatchedPaging ({device})"
            arms.append(Arm(name, size, play, partial(batched, play, size)))
    return arms


# ---------------------------------------------------------------------- measuring


@contextmanager
def timed_parts() -> Iterator[dict[str, float]]:
    """Count the seconds spent in each of `PARTS`; the timers themselves cost a little."""
    seconds = dict.fromkeys(PARTS, 0.0)

    def timed(function: Callable[..., Any], part: str) -> Callable[..., Any]:
        def call(*args: Any, **kwargs: Any) -> Any:
            start = time.perf_counter()
            try:
                return function(*args, **kwargs)
            finally:
                seconds[part] += time.perf_counter() - start

        return call

    with ExitStack() as stack:
        for part, functions in PARTS.items():
            for owner, name, function in _uses(functions):
                stack.enter_context(mock.patch.object(owner, name, timed(function, part)))
        yield seconds


def _uses(functions: list[Callable[..., Any]]) -> list[tuple[Any, str, Callable[..., Any]]]:
    """Every place in `envs` that calls one of the functions: its module or class, and its name."""
    modules = [module for name, module in sys.modules.items() if name.startswith("envs.")]
    return [
        (owner, name, function)
        for owner in (*modules, PagingProcess, TableSearch)
        for name, value in vars(owner).items()
        for function in functions
        if value is function
    ]


def measure(arms: list[Arm], seconds: float, repeats: int) -> list[dict[str, Any]]:
    """Play the arms in turn, `repeats` times."""
    engines = [arm.make() for arm in arms]
    for engine in engines:
        engine.play(min(seconds, 0.1))
    rates: list[list[float]] = [[] for _ in arms]
    for number in track(range(repeats * len(arms)), "Measuring", console=Console(stderr=True)):
        decisions, spent = engines[number % len(arms)].play(seconds)
        rates[number % len(arms)].append(decisions / spent)
    rows = []
    for arm, engine, values in zip(arms, engines, rates, strict=True):
        with timed_parts() as parts:
            _, spent = engine.play(seconds)
        shares = {part: value / spent for part, value in parts.items()}
        shares["transitions"] = 1.0 - sum(shares.values())
        rows.append(
            {
                "engine": arm.engine,
                "num_envs": arm.num_envs,
                "play": arm.play,
                "decisions_per_s": statistics.median(values),
                "lowest": min(values),
                "highest": max(values),
                "shares": shares,
            }
        )
    return rows


def show(rows: list[dict[str, Any]]) -> None:
    """Print the rows as a table."""
    table = Table(title="decisions per second: median (lowest to highest); shares of the time")
    parts = list(rows[0]["shares"])
    for heading in ("environment", "B", "play", "decisions/s", *parts):
        table.add_column(heading, justify="left" if heading in ("environment", "play") else "right")
    for row in rows:
        rates = (row["decisions_per_s"], row["lowest"], row["highest"])
        table.add_row(
            row["engine"],
            str(row["num_envs"]),
            row["play"],
            "{:,.0f} ({:,.0f} to {:,.0f})".format(*rates),
            *(f"{row['shares'][part]:.0%}" for part in parts),
        )
    Console(width=140).print(table)


def save(path: Path, rows: list[dict[str, Any]], device: str) -> None:
    """Write the rows as JSON, with what they were measured on."""
    machine = {
        "platform": platform.platform(),
        "python": platform.python_version(),
        "torch": torch.__version__,
        "device": device if device == "cpu" else torch.cuda.get_device_name(device),
        "load": os.getloadavg()[0],
    }
    path.write_text(json.dumps({"machine": machine, "rows": rows}, indent=2))


def main() -> None:
    """Measure, print, and write JSON on demand."""
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawTextHelpFormatter
    )
    parser.add_argument("--seconds", type=float, default=0.5, help="per arm and repeat")
    parser.add_argument("--repeats", type=int, default=3)
    parser.add_argument("--device", default="cpu", help="of BatchedPaging")
    parser.add_argument("--json", type=Path, help="write the rows to this file")
    arguments = parser.parse_args()
    torch.set_num_threads(1)
    rows = measure(make_arms(make_table(), arguments.device), arguments.seconds, arguments.repeats)
    show(rows)
    if arguments.json:
        save(arguments.json, rows, arguments.device)


if __name__ == "__main__":
    main()
