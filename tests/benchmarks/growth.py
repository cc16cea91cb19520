"""How `BatchedPagingEnv` grows: decisions per second and bytes against what an episode holds.

    PYTHONPATH=.:tests python tests/benchmarks/growth.py [--seconds 0.5] [--repeats 3]
        [--device cpu] [--num-envs 16 64 256 1024 4096] [--base-envs 256] [--json FILE]

One number is changed at a time, from 256 environments, an archive of 250, 24 slots and 16
candidates. Pages and questions are made up and scores random: only their number matters. Archival
is full from the first event to the last, and every episode fills main context, then brings 128
pages under pressure and 10 questions, so that the mix of decisions is always about the same. Random
legal actions; only `step` is timed, resets are part of it, on one thread; arms are interleaved.
Slopes are of straight lines through the medians on logarithmic axes: 1 is proportional, 0 is flat.

Bytes: of the state and of one observation, full and compact, and of what a learner keeps of a
decision (features in half precision, and the mask; `memrl.algos.decisions`). Nothing is asserted.
"""

from __future__ import annotations

import argparse
import dataclasses
import os
import statistics
from dataclasses import dataclass, field
from functools import lru_cache
from pathlib import Path
from typing import Any, NamedTuple

import numpy as np
import torch
from benchmarks.env_sps import save
from benchmarks.timing import spread
from benchmarks.vector_env_sps import Arm, BatchedEngine
from rich.console import Console
from rich.progress import track
from rich.table import Table

from envs.batched import BatchedPaging
from memrl.algos.decisions import decision_views
from memrl.documents import Document, Episode, Page, Query
from memrl.memory.embedders import HashingEmbedder
from memrl.memory.scores import SCORE_SCALE
from memrl.options import PagingOptions
from memrl.table import EpisodeTable
from memrl.table_build import build_table, fit_lexical_statistics

NUM_EPISODES = 64
PRESSED, QUERIES = 128, 10
GROWTH = {
    "archive": (60, 250, 1000, 4000),
    "slots": (8, 16, 32, 64, 128),
    "candidates": (4, 8, 16, 32, 64),
}


class Point(NamedTuple):
    """What is changed, one at a time."""

    num_envs: int
    archive: int
    slots: int
    candidates: int


@dataclass(eq=False)
class Measured:
    """What one point gave.

    Attributes:
        arms: by name of the observation. wall, cpu: decisions per second by that name and repeat.
        bytes: per environment or decision. load: of the machine, by repeat.
    """

    point: Point
    arms: dict[str, Arm]
    wall: dict[str, list[float]] = field(default_factory=lambda: {"full": [], "compact": []})
    cpu: dict[str, list[float]] = field(default_factory=lambda: {"full": [], "compact": []})
    bytes: dict[str, int] = field(default_factory=dict)
    load: list[float] = field(default_factory=list)

    def measure(self, name: str, seconds: float) -> None:
        """Play one of the arms."""
        played = self.arms[name].play(seconds)
        self.wall[name].append(played.per_wall_s)
        self.cpu[name].append(played.per_cpu_s)
        self.load.append(os.getloadavg()[0])

    def weigh(self) -> None:
        """Fill in the bytes."""
        for name, arm in self.arms.items():
            observation = arm.engine.observation().values()
            shown = sum(tensor.nbytes for tensor in observation)
            self.bytes[f"observation, {name}"] = shown // self.point.num_envs
            state = arm.engine.memory_bytes() - shown
            self.bytes["state"] = state // self.point.num_envs
        self.bytes |= kept_bytes(self.arms["full"])

    def row(self) -> dict[str, Any]:
        """For the JSON."""
        kept = {name: value for name, value in vars(self).items() if name not in ("arms", "point")}
        return self.point._asdict() | kept


@lru_cache
def made_up_table(archive: int, slots: int) -> EpisodeTable:
    """One document; episodes ask other questions at other times."""
    rng = np.random.default_rng(0)
    num_pages, early = archive + slots + PRESSED, archive + slots
    pages = tuple(Page(f"page {number}") for number in range(num_pages))
    needs = rng.integers(num_pages, size=num_pages).tolist()
    queries = tuple(Query(f"What says page {page}?", (page,)) for page in needs)
    documents = [Document("made up", pages, queries)]
    episodes = []
    for _ in range(NUM_EPISODES):
        times = np.sort(rng.integers(early, num_pages + 1, size=QUERIES)).tolist()
        asked = rng.choice(num_pages, size=QUERIES, replace=False).tolist()
        episodes.append(Episode(0, 0, num_pages, tuple(zip(times, asked, strict=True)), archive))
    statistics_of = fit_lexical_statistics(documents)
    table = build_table(documents, episodes, HashingEmbedder(16), statistics_of, name="made up")
    dense, lexical = rng.integers(SCORE_SCALE, size=(2, len(table.dense)), dtype=np.int16)
    return dataclasses.replace(table, dense=dense, lexical=lexical)


def made(point: Point, device: str) -> Measured:
    """The environments of a point, with full and with compact observations."""
    table = made_up_table(point.archive, point.slots)
    options = PagingOptions(
        capacity=point.slots,
        archival_capacity=point.archive,
        num_candidates=point.candidates,
    )
    arms = {}
    for name in ("full", "compact"):
        engine = BatchedEngine(table, options, device, point.num_envs, compact=name == "compact")
        arms[name] = Arm(name, engine, torch.Generator(device).manual_seed(0))
    return Measured(point, arms)


def kept_bytes(arm: Arm) -> dict[str, int]:
    """What learners keep of a decision, by its kind."""
    assert isinstance(arm.engine, BatchedEngine)
    group = arm.engine.env._rows
    assert isinstance(group, BatchedPaging)
    sizes: dict[str, int] = {}
    while len(sizes) < 3:
        mask = group.action_masks()
        rows = mask[:, 1:].any(dim=1).nonzero()[:, 0]
        for victim_alone in (True, False):
            views = decision_views(group, mask, rows, victim_alone=victim_alone)
            for kind, view in views.items():
                total = sum(t.nbytes for t in (*view.inputs.values(), view.action_mask))
                name = f"{kind}, victim alone" if view.slot is not None else kind
                sizes[f"kept, {name}"] = total // len(view.row)
        arm.play(1e-9)  # a step
    return sizes


def growth_of(arguments: argparse.Namespace) -> dict[str, list[Point]]:
    """By what is changed, the points in order."""
    base = Point(arguments.base_envs, archive=250, slots=24, candidates=16)
    values = {"num_envs": tuple(arguments.num_envs), **GROWTH}
    return {name: [base._replace(**{name: value}) for value in own] for name, own in values.items()}


def slope(sizes: list[int], values: list[float]) -> float:
    """Of a straight line through the values on logarithmic axes."""
    return float(np.polyfit(np.log(sizes), np.log(values), 1)[0])


def slopes(points: dict[str, list[Point]], measured: dict[Point, Measured]) -> list[dict[str, Any]]:
    """How rates and bytes grow with each number."""
    rows = []
    for name, own in points.items():
        sizes = [getattr(point, name) for point in own]
        here = [measured[point] for point in own]
        series = {
            f"per {clock} s, {shown}": [
                statistics.median(getattr(one, clock)[shown]) for one in here
            ]
            for clock in ("wall", "cpu")
            for shown in ("full", "compact")
        }
        series |= {what: [float(one.bytes[what]) for one in here] for what in here[0].bytes}
        own_slopes = {what: slope(sizes, values) for what, values in series.items()}
        rows.append({"grows": name, "sizes": sizes, "slopes": own_slopes})
    return rows


def show(points: dict[str, list[Point]], measured: dict[Point, Measured]) -> None:
    """Print rates, bytes and their slopes as two tables."""
    rates = {
        point: [*map(spread, one.wall.values()), *map(spread, one.cpu.values())]
        for point, one in measured.items()
    }
    sizes = {point: [f"{size:,}" for size in one.bytes.values()] for point, one in measured.items()}
    grown = slopes(points, measured)
    columns = list(grown[0]["slopes"])
    first_size = len(columns) - len(next(iter(sizes.values())))
    for title, cells, shown in (
        ("decisions per second: median (lowest to highest)", rates, columns[:first_size]),
        ("bytes of an environment, and of a decision that is kept", sizes, columns[first_size:]),
    ):
        table = Table(title=title)
        for heading in ("", "of", *shown):
            table.add_column(heading, justify="right")
        for row in grown:
            name = row["grows"]
            for point in points[name]:
                table.add_row(name, f"{getattr(point, name):,}", *cells[point])
            table.add_row("slope", "", *(f"{row['slopes'][what]:.2f}" for what in shown))
            table.add_section()
        Console(width=150).print(table)


def main() -> None:
    """Measure, print, and write JSON on demand."""
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawTextHelpFormatter
    )
    parser.add_argument("--seconds", type=float, default=0.5, help="per arm and repeat")
    parser.add_argument("--repeats", type=int, default=3)
    parser.add_argument("--device", default="cpu")
    parser.add_argument("--num-envs", type=int, nargs="+", default=[16, 64, 256, 1024, 4096])
    parser.add_argument("--base-envs", type=int, default=256, help="while others are changed")
    parser.add_argument("--json", type=Path, help="write points and slopes to this file")
    arguments = parser.parse_args()
    torch.set_num_threads(1)
    points = growth_of(arguments)
    distinct = dict.fromkeys(point for own in points.values() for point in own)
    console = Console(stderr=True)
    measured = {
        point: made(point, arguments.device)
        for point in track(distinct, "Making environments", console=console)
    }
    turns = [(one, name) for one in measured.values() for name in one.arms]
    for one, name in turns:
        one.arms[name].play(0.01)
    for number in track(range(arguments.repeats * len(turns)), "Measuring", console=console):
        one, name = turns[number % len(turns)]
        one.measure(name, arguments.seconds)
    for one in measured.values():
        one.weigh()
    show(points, measured)
    if arguments.json:
        rows = [one.row() for one in measured.values()]
        save(arguments.json, rows + slopes(points, measured), arguments.device)


if __name__ == "__main__":
    main()
