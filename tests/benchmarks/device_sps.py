"""How many steps a second fixed shapes play on a device: eager, compiled, captured.

    PYTHONPATH=.:tests python tests/benchmarks/device_sps.py [--device cuda] [--sizes 16384]
        [--tiers compile cudagraph] [--views none compact full] [--rounds 2] [--searches 0.4]
        [--play random] [--steps 200] [--repeats 5] [--profile] [--json FILE]

The workload of `env_sps.py`. A step is one row in one call, a decision a row that had a choice in
it. Rows begin the next episode by themselves. Random legal play, or what an untrained `SetNetwork`
of `--hidden` units draws, is part of the step, as is the observation of the view that is named:
"full" is what policies see, "compact" the same in 16 features or fewer of half precision, "none"
the mask alone. Arms are interleaved; medians, lowest and highest; bytes are those of a row. The
first step of an arm compiles it. Nothing is asserted about time.
"""

from __future__ import annotations

import argparse
import math
import os
import time
from collections.abc import Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import torch
from benchmarks.env_sps import make_table, save
from benchmarks.timing import Seconds, spread
from rich.console import Console
from rich.progress import track
from rich.table import Table
from torch import Tensor

from envs.batched_fixed import FixedShapePaging
from envs.draws import EpisodeDraws
from memrl.algos.tiers import TieredStep, compiled
from memrl.draws import random_uniforms
from memrl.options import PagingOptions
from memrl.policies.network import SetNetwork, log_policy, sample_actions
from memrl.policy_gradient_config import Tier
from memrl.table import EpisodeTable


class Player:
    """Steps of B rows, as one function of tensors that stay where they are.

    Args:
        table: the workload. num_envs: B. device: of the rows. tier: a resolved one.
        view: "none", "compact" or "full". rounds: see `FixedShapePaging`.
        searches: most of them in a step, a share of the rows.
        network: plays, with full observations; None for random legal play.
    """

    def __init__(
        self,
        table: EpisodeTable,
        num_envs: int,
        device: torch.device,
        tier: Tier,
        *,
        view: str,
        rounds: int,
        searches: float,
        network: SetNetwork | None,
    ) -> None:
        draws = EpisodeDraws(num_envs, 1, table.num_episodes, device)
        self._rows = FixedShapePaging(
            table,
            PagingOptions(),
            num_envs,
            device,
            rounds=rounds,
            max_searches=math.ceil(searches * num_envs),
            draws=draws,
            compact=view == "compact",
        )
        self._view, self._network = view, network
        self._row = torch.arange(num_envs, device=device)
        self._count = torch.zeros_like(self._row)
        self._decisions = torch.zeros((), dtype=torch.int64, device=device)
        self._reward = torch.zeros((), dtype=torch.float64, device=device)
        self._rows.begin(self._row % table.num_episodes)
        shown = self._rows.observation() if view != "none" else {}
        self._shown = {name: torch.zeros_like(value) for name, value in shown.items()}
        self.bytes_shown = sum(value.nbytes for value in self._shown.values()) / num_envs
        self.bytes_state = sum(value.nbytes for value in self._rows.state()) / num_envs
        step = TieredStep(self._make_step, compiled(self._make_step), self._state, tier)
        self._step = step

    @property
    def tier(self) -> Tier:
        """The tier in use."""
        return self._step.tier

    def _state(self) -> Sequence[Tensor]:
        own = [self._count, self._decisions, self._reward, *self._shown.values()]
        return [*own, *self._rows.state()]

    def _make_step(self) -> None:
        with torch.no_grad():
            if self._view == "none":
                mask = self._rows.action_masks()
                logits = torch.zeros_like(mask, dtype=torch.float32)
            else:
                for name, value in self._rows.observation().items():
                    self._shown[name].copy_(value)
                mask = self._shown["action_mask"]
                if self._network is None:
                    logits = torch.zeros_like(mask, dtype=torch.float32)
                else:
                    logits = self._network(self._shown)
            uniforms = random_uniforms(0, self._row, self._count)
            action = sample_actions(log_policy(logits, mask), uniforms)
            chooses = mask[:, 1:].any(dim=1)
            self._count += chooses
            self._decisions += chooses.sum()
            self._reward += self._rows.advance(action).reward_terms.sum()

    def play(self, steps: int) -> int:
        """Make so many steps; returns the decisions so far."""
        for _ in range(steps):
            self._step()
        return int(self._decisions)


@dataclass(eq=False)
class Arm:
    """A player, and what was measured with it."""

    view: str
    num_envs: int
    player: Player
    device: torch.device
    first_s: float = 0.0
    tier: str = ""
    steps_per_s: list[float] = field(default_factory=list)
    decisions_per_s: list[float] = field(default_factory=list)
    cpu_share: list[float] = field(default_factory=list)
    load: list[float] = field(default_factory=list)

    def warm_up(self) -> None:
        """Make the first steps: compile, perhaps capture."""
        start = time.perf_counter()
        self.player.play(3)
        self.first_s, self.tier = time.perf_counter() - start, self.player.tier

    def measure(self, steps: int) -> None:
        """Time so many steps."""
        before, spent = self.player.play(0), Seconds(self.device)
        decisions = spent.of(self.player.play)(steps) - before
        self.steps_per_s.append(steps * self.num_envs / spent.wall)
        self.decisions_per_s.append(decisions / spent.wall)
        self.cpu_share.append(spent.cpu / spent.wall)
        self.load.append(os.getloadavg()[0])

    def row(self) -> dict[str, Any]:
        """For the JSON."""
        kept = {name: value for name, value in vars(self).items() if name != "player"}
        sizes = {"bytes_shown": self.player.bytes_shown, "bytes_state": self.player.bytes_state}
        return kept | sizes | {"device": str(self.device)}


def make_arms(table: EpisodeTable, arguments: argparse.Namespace) -> list[Arm]:
    """Every size, view and tier."""
    device = torch.device(arguments.device)

    def network() -> SetNetwork | None:
        if arguments.play == "random":
            return None
        with torch.random.fork_rng(devices=[]):
            torch.manual_seed(0)
            return SetNetwork(arguments.hidden).to(device).eval()

    def arm(size: int, view: str, tier: Tier) -> Arm:
        player = Player(
            table,
            size,
            device,
            tier,
            view=view,
            rounds=arguments.rounds,
            searches=arguments.searches,
            network=network(),
        )
        return Arm(view, size, player, device)

    return [
        arm(size, view, tier)
        for size in arguments.sizes
        for view in arguments.views
        for tier in arguments.tiers
    ]


def show(arms: list[Arm]) -> None:
    """Print the arms as a table."""
    table = Table(title="per second of wall time: median (lowest to highest)")
    headings = ("rows", "view", "tier", "steps", "decisions", "observation B", "state B", "first s")
    for heading in headings:
        table.add_column(heading, justify="left" if heading in ("view", "tier") else "right")
    for arm in arms:
        table.add_row(
            f"{arm.num_envs:,}",
            arm.view,
            arm.tier,
            spread(arm.steps_per_s),
            spread(arm.decisions_per_s),
            f"{arm.player.bytes_shown:,.0f}",
            f"{arm.player.bytes_state:,.0f}",
            f"{arm.first_s:.0f}",
        )
    Console(width=170).print(table)


def profiled(arm: Arm, steps: int = 5) -> str:
    """The kernels that take the most time on the device, and how many a step launches."""
    activity = torch.profiler.ProfilerActivity
    kinds = [activity.CPU] + ([activity.CUDA] if arm.device.type == "cuda" else [])
    with torch.profiler.profile(activities=kinds) as profile:
        arm.player.play(steps)
        if arm.device.type == "cuda":
            torch.cuda.synchronize(arm.device)
    on_device = [event for event in profile.key_averages() if event.self_device_time_total > 0]
    count = sum(event.count for event in on_device) / steps
    order = "self_cuda_time_total" if on_device else "self_cpu_time_total"
    listing = profile.key_averages().table(sort_by=order, row_limit=30, max_name_column_width=70)
    return f"{arm.num_envs:,} rows, {arm.view}, {arm.tier}: {count:.0f} kernels a step\n{listing}"


def main() -> None:
    """Measure, print, and write JSON on demand."""
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawTextHelpFormatter
    )
    parser.add_argument("--device", default="cuda")
    parser.add_argument("--sizes", type=int, nargs="+", default=[16384])
    tiers = ("eager", "compile", "cudagraph")
    parser.add_argument("--tiers", nargs="+", choices=tiers, default=["cudagraph"])
    views = ("none", "compact", "full")
    parser.add_argument("--views", nargs="+", choices=views, default=["compact", "full"])
    parser.add_argument("--play", choices=("random", "network"), default="random")
    parser.add_argument("--hidden", type=int, default=32, help="width of the network that plays")
    parser.add_argument("--rounds", type=int, default=2)
    parser.add_argument("--searches", type=float, default=0.4, help="share of rows, at most")
    parser.add_argument("--steps", type=int, default=200, help="per arm and repeat")
    parser.add_argument("--repeats", type=int, default=5)
    parser.add_argument("--profile", action="store_true", help="list the kernels of each arm")
    parser.add_argument("--json", type=Path, help="write the arms to this file")
    arguments = parser.parse_args()
    if arguments.play == "network" and set(arguments.views) != {"full"}:
        parser.error("a network sees full observations: give --views full.")
    torch.set_num_threads(1)
    torch._dynamo.config.recompile_limit = 64  # arms share code, each has shapes of its own
    arms = make_arms(make_table(), arguments)
    for arm in arms:
        arm.warm_up()
        print(
            f"{arm.num_envs:,} {arm.view} {arm.tier}: ready after {arm.first_s:.1f} s", flush=True
        )
    for number in track(
        range(arguments.repeats * len(arms)), "Measuring", console=Console(stderr=True)
    ):
        arms[number % len(arms)].measure(arguments.steps)
    show(arms)
    if arguments.profile:
        for arm in arms:
            print(profiled(arm), flush=True)
    if arguments.json:
        save(arguments.json, [arm.row() for arm in arms], arguments.device)


if __name__ == "__main__":
    main()
