"""How many decisions per second PPO learns from: memrl, stable-baselines3, and a plain loop.

    PYTHONPATH=.:tests python tests/benchmarks/ppo_sps.py [--repeats 3] [--seconds 1]
        [--device cpu] [--sizes 16 1024] [--tiers eager] [--epochs 1 4] [--hidden 32]
        [--slot-pool] [--pages 150] [--json FILE]

The workload of `env_sps.py`: generated chats, windows of 150 turns with 10 questions, 24 slots,
archive of 60, K = 16. A measurement is whole iterations, played and learned from, for `--seconds`
at least. Arms are interleaved, on one thread; medians, lowest and highest of wall time and of the
process's own CPU time. Only rows that had a choice are counted, on every side. On CUDA each arm
learns once before it is measured: that is where compiling and capturing happen (`first_s` in the
JSON). The learning rate is so low that all repeats play the policy they began with.

Equal on all sides: networks (a `SetNetwork` and a `ValueNetwork` of their own weights), the
policy's first weights, epochs of policy and critic, decisions of a minibatch (8 a row), masked
actions, lambda, clip and entropy coefficient. With 16 rows, as many decisions an iteration in
memrl as in stable-baselines3. What differs:

- memrl plays episodes to their ends and shows the networks what a decision needs, without
  `--slot-pool` the victim alone under pressure; the others play a fixed number of steps, bootstrap
  where they are cut, and see full observations.
- stable-baselines3 steps `PagingEnv`s one after the other (`DummyVecEnv`), always on the CPU.
- The plain loop plays 32 steps of `BatchedPagingEnv`, eagerly.
- memrl discounts per event, the others per decision; no discount is set, lambda is .95.

Nothing is asserted about time.
"""

from __future__ import annotations

import argparse
import os
import statistics
from collections.abc import Iterator
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any, Protocol

import torch
from benchmarks.env_sps import make_table, save
from benchmarks.plain_ppo import PlainPPO
from benchmarks.sb3_ppo import LibraryPPO
from benchmarks.timing import Seconds, spread
from rich.console import Console
from rich.progress import track
from rich.table import Table

from envs.batched import BatchedPaging, BatchedPagingEnv
from envs.batched_fixed import FixedShapePaging
from memrl.algos.ppo import PPO
from memrl.config import NetworkConfig
from memrl.options import PagingOptions
from memrl.policies.network import SetNetwork, ValueNetwork
from memrl.policy_gradient_config import PolicyGradientConfig, PPOConfig, Tier
from memrl.seeding import Streams
from memrl.table import EpisodeTable

NUM_LIBRARY = 16
MINIBATCH_PER_ROW = 8
LEARNING_RATE = 1e-6
RATES = ("wall", "CPU", "rollout wall", "rollout CPU", "update wall", "update CPU")


class Learner(Protocol):
    """Something that plays and learns, and knows what playing has taken."""

    rollout: Seconds

    def iterate(self) -> int:
        """Make one iteration; returns the decisions."""
        ...


class OurPPO:
    """`memrl.algos.ppo.PPO`: one episode in each of `num_envs` rows an iteration."""

    def __init__(
        self,
        table: EpisodeTable,
        *,
        num_envs: int,
        network: NetworkConfig,
        epochs: int,
        num_minibatches: int,
        tier: Tier,
        device: torch.device,
    ) -> None:
        group: BatchedPaging | FixedShapePaging
        if tier == "eager":
            group = BatchedPaging(table, PagingOptions(), num_envs, device)
        else:
            group = FixedShapePaging(table, PagingOptions(), num_envs, device)
        self._learner = PPO(
            group,
            network,
            PolicyGradientConfig(
                num_groups=num_envs,
                group_size=1,
                update_epochs=epochs,
                num_minibatches=num_minibatches,
                learning_rate=LEARNING_RATE,
            ),
            Streams(0),
            ppo=PPOConfig(critic_epochs=epochs, critic_learning_rate=LEARNING_RATE),
            gain_scale=0.1,  # and a temperature of as much: the network's outputs are the logits
            initial=None,
            device=device,
            tier=tier,
        )
        self.rollout = Seconds(device)
        self._learner._play = self.rollout.of(self._learner._play)

    def iterate(self) -> int:
        """See `Learner`."""
        return int(self._learner.iterate()["rollout/decisions"])

    def weights(self) -> dict[str, torch.Tensor]:
        """Of the policy."""
        return {
            name: value.cpu().clone() for name, value in self._learner.network.named_parameters()
        }


@dataclass(eq=False)
class Arm:
    """A learner, and what was measured with it.

    Attributes:
        tier: of memrl, else "".
        decisions: of an iteration, the latest one. first_s: of the iteration before measuring.
        rates: decisions per second of each of `RATES`, by repeat. load: of the machine, likewise.
    """

    side: str
    num_envs: int
    epochs: int
    learner: Learner
    device: torch.device
    tier: str = ""
    decisions: int = 0
    first_s: float | None = None
    rates: dict[str, list[float]] = field(default_factory=lambda: {name: [] for name in RATES})
    load: list[float] = field(default_factory=list)

    def warm_up(self) -> None:
        """Learn once without counting."""
        spent = Seconds(self.device)
        spent.of(self.learner.iterate)()
        self.first_s = spent.wall

    def measure(self, seconds: float) -> None:
        """Learn for so long, and one iteration at least."""
        whole, rollout = Seconds(self.device), self.learner.rollout
        before_wall, before_cpu = rollout.wall, rollout.cpu
        iterate, total = whole.of(self.learner.iterate), 0
        while not total or whole.wall < seconds:
            self.decisions = iterate()
            total += self.decisions
        wall, cpu = rollout.wall - before_wall, rollout.cpu - before_cpu
        spent = (whole.wall, whole.cpu, wall, cpu, whole.wall - wall, whole.cpu - cpu)
        for name, value in zip(RATES, spent, strict=True):
            self.rates[name].append(total / value)
        self.load.append(os.getloadavg()[0])

    @property
    def median(self) -> float:
        """Decisions per second of wall time."""
        return statistics.median(self.rates["wall"])

    def row(self) -> dict[str, Any]:
        """For the JSON."""
        kept = {name: value for name, value in vars(self).items() if name != "learner"}
        return kept | {"device": str(self.device)}


def make_arms(table: EpisodeTable, arguments: argparse.Namespace) -> Iterator[Arm]:
    """Every side with every number of rows and of epochs."""
    device, cpu = torch.device(arguments.device), torch.device("cpu")
    network = NetworkConfig(arguments.hidden, slot_pool=arguments.slot_pool)

    def ours(num_envs: int, epochs: int, num_minibatches: int, tier: Tier) -> OurPPO:
        return OurPPO(
            table,
            num_envs=num_envs,
            network=network,
            epochs=epochs,
            num_minibatches=num_minibatches,
            tier=tier,
            device=device,
        )

    probe = ours(NUM_LIBRARY, 1, 1, "eager")
    initial = probe.weights()
    num_minibatches = max(1, round(probe.iterate() / NUM_LIBRARY / MINIBATCH_PER_ROW))
    num_steps = num_minibatches * MINIBATCH_PER_ROW
    for epochs in arguments.epochs:
        shared = {"epochs": epochs, "learning_rate": LEARNING_RATE}
        library = LibraryPPO(
            table,
            num_envs=NUM_LIBRARY,
            num_steps=num_steps,
            network=network,
            initial=initial,
            minibatch=MINIBATCH_PER_ROW * NUM_LIBRARY,
            **shared,
        )
        yield Arm("stable-baselines3", NUM_LIBRARY, epochs, library, cpu)
        for size in arguments.sizes:
            for tier in arguments.tiers:
                learner = ours(size, epochs, num_minibatches, tier)
                yield Arm(f"memrl, {tier}", size, epochs, learner, device, tier)
            if size != NUM_LIBRARY:
                actor = SetNetwork(network.hidden, slot_pool=network.slot_pool)
                actor.load_state_dict(initial)
                plain = PlainPPO(
                    BatchedPagingEnv(table, PagingOptions(), num_envs=size, device=device),
                    actor.to(device),
                    ValueNetwork(network.hidden).to(device),
                    minibatch=MINIBATCH_PER_ROW * size,
                    **shared,
                )
                yield Arm("plain loop", size, epochs, plain, device)


def measure(arms: list[Arm], seconds: float, repeats: int) -> None:
    """Let the arms learn in turn, `repeats` times."""
    for arm in arms:
        if arm.device.type == "cuda" or arm.tier not in ("", "eager"):
            arm.warm_up()
    for number in track(range(repeats * len(arms)), "Measuring", console=Console(stderr=True)):
        arms[number % len(arms)].measure(seconds)


def ratios(arms: list[Arm]) -> list[dict[str, Any]]:
    """How many times as fast memrl is as the others, in the same repeat."""
    rows = []
    for epochs in sorted({arm.epochs for arm in arms}):
        same = [arm for arm in arms if arm.epochs == epochs]
        ours = [arm for arm in same if arm.tier]
        best = max(ours, key=lambda arm: arm.median)
        for other in same:
            if other not in ours:
                pairs = [arm for arm in ours if arm.num_envs == other.num_envs]
                if other.side == "stable-baselines3" and best not in pairs:
                    pairs.append(best)
                rows += [_ratio(arm, other) for arm in pairs]
    return rows


def _ratio(arm: Arm, other: Arm) -> dict[str, Any]:
    names = {"of": arm, "to": other}
    quotients = {
        name: [a / b for a, b in zip(arm.rates[name], other.rates[name], strict=True)]
        for name in RATES
    }
    described = {key: f"{side.side} of {side.num_envs:,}" for key, side in names.items()}
    return {"epochs": arm.epochs, **described, "ratios": quotients}


def show(arms: list[Arm]) -> None:
    """Print the arms and the ratios as tables."""
    table = Table(title="decisions learned from per second: median (lowest to highest)")
    for heading in ("side", "rows", "epochs", "decisions", *RATES):
        table.add_column(heading, justify="left" if heading == "side" else "right", no_wrap=True)
    for arm in arms:
        rates = [spread(arm.rates[name]) for name in RATES[:2]]
        rates += [f"{statistics.median(arm.rates[name]):,.0f}" for name in RATES[2:]]
        counts = (f"{arm.num_envs:,}", str(arm.epochs), f"{arm.decisions:,}")
        table.add_row(arm.side, *counts, *rates)
    Console(width=180).print(table)
    table = Table(title="how many times as fast, in the same repeat: median (lowest to highest)")
    for heading in ("", "compared with", "epochs", *RATES):
        is_number = heading in ("epochs", *RATES)
        table.add_column(heading, justify="right" if is_number else "left", no_wrap=True)
    for row in ratios(arms):
        times = [spread(row["ratios"][name], 1) for name in RATES[:2]]
        times += [f"{statistics.median(row['ratios'][name]):.1f}" for name in RATES[2:]]
        table.add_row(row["of"], row["to"], str(row["epochs"]), *times)
    Console(width=180).print(table)


def main() -> None:
    """Measure, print, and write JSON on demand."""
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawTextHelpFormatter
    )
    parser.add_argument("--repeats", type=int, default=3)
    parser.add_argument("--seconds", type=float, default=1.0, help="at least, per measurement")
    parser.add_argument("--device", default="cpu", help="of memrl and of the plain loop")
    parser.add_argument("--sizes", type=int, nargs="+", default=[NUM_LIBRARY, 1024])
    parser.add_argument("--tiers", nargs="+", choices=("eager", "compile", "cudagraph"))
    parser.add_argument("--epochs", type=int, nargs="+", default=[1, 4])
    parser.add_argument("--hidden", type=int, default=32, help="width of the networks")
    parser.add_argument("--slot-pool", action="store_true", help="with a summary of all slots")
    parser.add_argument("--pages", type=int, default=150, help="of an episode")
    parser.add_argument("--json", type=Path, help="write arms and ratios to this file")
    arguments = parser.parse_args()
    if not arguments.tiers:
        on_cuda = torch.device(arguments.device).type == "cuda"
        arguments.tiers = ["eager", "compile", "cudagraph"] if on_cuda else ["eager"]
    torch.set_num_threads(1)
    # Arms share code, and each is compiled for shapes of its own.
    torch._dynamo.config.recompile_limit = 64
    arms = list(make_arms(make_table(window_pages=arguments.pages), arguments))
    measure(arms, arguments.seconds, arguments.repeats)
    show(arms)
    if arguments.json:
        settings = {name: str(value) for name, value in vars(arguments).items()}
        rows = [{"settings": settings, **arm.row()} for arm in arms]
        save(arguments.json, rows + ratios(arms), arguments.device)


if __name__ == "__main__":
    main()
