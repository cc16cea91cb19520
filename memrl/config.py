"""What a run is: frozen dataclasses, presets in YAML, overrides on the command line.

    train.py --config configs/locomo.yaml --seed 3 --paging.capacity 8

Later `--config` files and options win over earlier ones; an unknown key or a wrong type is an
error. The resolved configuration is stored with the run. This module is the only one that knows the
parser.
"""

from __future__ import annotations

import dataclasses
import math
from collections.abc import Sequence
from dataclasses import dataclass, field
from functools import cache
from pathlib import Path
from typing import TYPE_CHECKING, Any, Literal

from memrl.config_checks import above_0, at_least, device_names, fractions
from memrl.errors import MemrlError
from memrl.llm_config import LlmConfig
from memrl.options import PagingOptions
from memrl.policy_gradient_config import PolicyGradientConfig, PPOConfig
from memrl.prompted_config import PromptedConfig
from memrl.reader_config import ReaderConfig
from memrl.workload_config import SplitConfig, WorkloadConfig

if TYPE_CHECKING:
    from jsonargparse import ArgumentParser


class ConfigurationError(MemrlError):
    """A configuration does not fit its data."""


@dataclass(frozen=True)
class NetworkConfig:
    """Size of the set network.

    Attributes:
        hidden: width of every layer.
        dropout: share of units dropped by gain regression while it fits; the policy gradient, whose
            probabilities must be those that played, drops none.
        slot_pool: whether a summary of all slots is part of every decision's context. Without it a
            decision under pressure reads the victim alone, which makes the policy gradient several
            times as fast.
    """

    hidden: int = 64
    dropout: float = 0.0
    slot_pool: bool = True

    def __post_init__(self) -> None:
        """Refuse a network of nothing."""
        at_least(self, 1, "hidden")
        fractions(self, "dropout")


@dataclass(frozen=True)
class LearnerConfig:
    """Gain regression with DAgger mixing.

    Attributes:
        rounds: rounds of collecting states and fitting.
        episodes_per_round: training episodes played per round.
        updates_per_round: gradient steps per round; the learning rate falls to 0 over them.
        batch_size: decisions per gradient step.
        learning_rate, weight_decay: of AdamW.
        gain_scale: reward that one unit of the network's output stands for.
        gain_margin: gain over YIELD that greedy play has to predict before it does anything; above
            0 where a needless operation is dear and every needed one is worth much more.
        realization: share of a stored page's later value that labels count on.
        staging_realization: the same for evidence that NEXT or SEARCH would stage.
        room_price: share of what a store is expected to push out of a full archive that labels take
            off its value.
        heuristic_frac: share of each later round's episodes that heuristics play.
        exploration: probability that the learner's decision is replaced by a random legal one while
            states are collected.
    """

    rounds: int = 3
    episodes_per_round: int = 200
    updates_per_round: int = 500
    batch_size: int = 512
    learning_rate: float = 3e-3
    weight_decay: float = 0.1
    gain_scale: float = 0.1
    gain_margin: float = 0.0
    realization: float = 0.4
    staging_realization: float = 0.2
    room_price: float = 1.0
    heuristic_frac: float = 0.25
    exploration: float = 0.02

    def __post_init__(self) -> None:
        """Refuse settings that could not learn."""
        at_least(self, 1, "rounds", "episodes_per_round", "updates_per_round", "batch_size")
        at_least(self, 0, "weight_decay", "realization", "staging_realization", "room_price")
        fractions(self, "heuristic_frac", "exploration")
        above_0(self, "learning_rate", "gain_scale")


@dataclass(frozen=True)
class EvaluationConfig:
    """What is tried on validation.

    Attributes:
        top_k: values of k for the retrieving heuristics.
        prior_thresholds: thresholds of the prior rule, as quantiles of the training pages' scores.
        store_offsets: offsets of the tuned control, in reward.
        chain_thresholds: lexical scores from which chain search follows a candidate.
    """

    top_k: tuple[int, ...] = (1, 2, 3, 5)
    prior_thresholds: tuple[float, ...] = (0.2, 0.35, 0.5, 0.6, 0.7, 0.8, 0.9)
    store_offsets: tuple[float, ...] = (
        -0.08, -0.05, -0.03, -0.02, -0.015, -0.01, -0.005, 0.0, 0.01,
    )  # fmt: skip
    chain_thresholds: tuple[float, ...] = (0.15, 0.2, 0.3)

    def __post_init__(self) -> None:
        """Refuse to try nothing."""
        for name in ("top_k", "prior_thresholds", "store_offsets", "chain_thresholds"):
            if not getattr(self, name):
                raise ValueError(f"{name} must name at least one value to try.")
        if min(self.top_k) < 1:
            raise ValueError(f"top_k must hold numbers of at least 1, got {list(self.top_k)}.")
        if not all(0 <= quantile <= 1 for quantile in self.prior_thresholds):
            raise ValueError(
                f"prior_thresholds are quantiles in [0, 1], got {list(self.prior_thresholds)}."
            )
        if not all(math.isfinite(offset) for offset in self.store_offsets):
            raise ValueError(f"store_offsets must be finite, got {list(self.store_offsets)}.")


@dataclass(frozen=True)
class RunConfig:
    """One run of `train.py`.

    Attributes:
        name: name of the preset; folder and wandb group of its runs.
        seed: seed of everything learned; data and evaluation episodes do not depend on it.
        runs_dir: where run folders are made.
        if_used: what to do when the run folder exists: refuse, or append a number to its name.
        resume: continue an interrupted run in its folder.
        folds: leave one document out in turn, a run for each, and a table over all of them.
        cost_scales: learn and score once for each, with the costs of `paging.reward` so many times
            as high, a run (or its folds) for each, and a table of quality against operations.
        device: where networks are trained and the batched environment plays; "auto" takes CUDA when
            there is one.
        environment: what plays, in learning and in scoring. "batched": all episodes as tensors,
            where it supports the options; "reference": process by process on the CPU. Both play
            alike.
        num_envs: episodes that gain regression plays side by side.
        shard_bytes: most bytes of the training table on the device that plays; a larger table is
            played shard by shard, with the next one made ready beside it. None for as much as CUDA
            memory allows, and for the whole table on the CPU. A run is resumed with the same.
        wandb_mode: None respects WANDB_MODE, and is offline without it.
        algorithm: who learns. With "group_policy_gradient" or "ppo" gain regression learns first:
            it is the control that every table carries, and may be the start.
        workload, split, paging, network, learner, policy_gradient, ppo, evaluation, llm, prompted,
            reader: the groups below; `learner` is gain regression, `policy_gradient` what both
            policy gradients share, `llm` the language model that plays as `prompted` and reads as
            `reader` says.
    """

    name: str = "default"
    seed: int = 0
    runs_dir: str = "runs"
    if_used: Literal["refuse", "number"] = "refuse"
    resume: bool = False
    folds: bool = False
    cost_scales: tuple[float, ...] = ()
    device: str = "auto"
    environment: Literal["batched", "reference"] = "batched"
    num_envs: int = 1024
    shard_bytes: int | None = None
    wandb_mode: Literal["online", "offline", "disabled"] | None = None
    algorithm: Literal["gain_regression", "group_policy_gradient", "ppo"] = "gain_regression"
    workload: WorkloadConfig = field(default_factory=WorkloadConfig)
    split: SplitConfig = field(default_factory=SplitConfig)
    paging: PagingOptions = field(default_factory=PagingOptions)
    network: NetworkConfig = field(default_factory=NetworkConfig)
    learner: LearnerConfig = field(default_factory=LearnerConfig)
    policy_gradient: PolicyGradientConfig = field(default_factory=PolicyGradientConfig)
    ppo: PPOConfig = field(default_factory=PPOConfig)
    evaluation: EvaluationConfig = field(default_factory=EvaluationConfig)
    llm: LlmConfig = field(default_factory=LlmConfig)
    prompted: PromptedConfig = field(default_factory=PromptedConfig)
    reader: ReaderConfig = field(default_factory=ReaderConfig)

    def __post_init__(self) -> None:
        """Refuse what no run could begin with."""
        at_least(self, 0, "seed")
        at_least(self, 1, "num_envs")
        if self.shard_bytes is not None:
            at_least(self, 1, "shard_bytes")
        device_names(self, "device")
        if self.workload.name == "nested_kv":
            self._check_chains()
        self._check_requests()
        if self.asks_model and self.workload.name == "page_cache":
            raise ValueError(
                "prompted.modes and reader.reads: the pages of page caches have no text that a "
                "model could read."
            )
        if (self.folds or self.cost_scales) and self.if_used == "number":
            raise ValueError(
                "folds and cost_scales are runs of their own and are not numbered: add --if_used "
                "refuse, and --name for a second time."
            )
        self._check_cost_scales()
        if self.algorithm == "group_policy_gradient" and self.policy_gradient.group_size < 2:
            raise ValueError(
                "policy_gradient.group_size must be at least 2 for the group policy gradient, "
                f"which compares the copies of an episode, got {self.policy_gradient.group_size}."
            )
        if self.policy_gradient.start == "brief_imitation" and self.learner.rounds < 2:
            raise ValueError(
                "policy_gradient.start brief_imitation is the network after the first of several "
                f"rounds: set learner.rounds to 2 or more, got {self.learner.rounds}."
            )
        if self.paging.observe_embeddings:
            raise ValueError(
                "paging.observe_embeddings adds arrays that the network of train.py does not read: "
                "leave it false here, and use it with PagingEnv."
            )

    def _check_cost_scales(self) -> None:
        """Refuse scales that draw no front."""
        scales = self.cost_scales
        if len(set(scales)) < len(scales) or not all(0 <= own < math.inf for own in scales):
            raise ValueError(
                f"cost_scales must be different finite numbers of 0 or more, got {list(scales)}."
            )
        if scales and self.workload.name == "page_cache":
            raise ValueError(
                "cost_scales: in a page cache operations cost nothing, so there is no front to "
                "draw: leave them out."
            )

    def _check_requests(self) -> None:
        """Refuse splits and scopes that do not fit the workload."""
        is_cache, halves = self.workload.name == "page_cache", self.split.kind == "halves"
        if halves and not is_cache:
            raise ValueError(
                "split.kind halves divides streams of requests in time: it is for "
                f"workload.name page_cache, not {self.workload.name}."
            )
        if is_cache and self.workload.page_cache.source == "trace" and not halves:
            raise ValueError(
                "one trace is one stream and cannot be divided by streams: give --split.kind "
                "halves."
            )
        if is_cache and halves and self.folds:
            raise ValueError("folds leave streams out, and split.kind halves divides each of them.")
        if is_cache and self.paging.evict_scope != "any":
            raise ValueError(
                "a page cache under paging.evict_scope victim is FIFO and has nothing to learn: "
                "give --paging.evict_scope any."
            )

    @property
    def asks_model(self) -> bool:
        """Whether a language model plays or reads."""
        return bool(self.prompted.modes or self.reader.reads)

    def _check_chains(self) -> None:
        """Refuse chains that no policy could follow to their end."""
        pages = max(self.workload.nested_kv.levels) + 1
        capacity, budget = self.paging.capacity, self.paging.operation_budget
        is_too_small = (
            self.paging.unit == "pages" and isinstance(capacity, int) and capacity < pages
        )
        if is_too_small or budget < 2 * pages:
            raise ValueError(
                f"workload.nested_kv.levels go to {pages - 1}: such a chain holds {pages} pages in "
                f"main context at once and takes {2 * pages} operations; give paging.capacity "
                f"{pages} or more (now {capacity}) and paging.operation_budget {2 * pages} or more "
                f"(now {budget}), or lower levels."
            )


@cache
def _parser() -> ArgumentParser:
    """The parser of all settings, made once: it reads hundreds of signatures and docstrings."""
    from jsonargparse import ArgumentParser

    parser = ArgumentParser(
        prog="train.py",
        usage="train.py [--config PRESET.yaml ...] [--group.key value ...] (see --help)",
        description="Learn a memory policy and score it beside others.",
    )
    parser.add_argument("--config", action="config", help="a preset; may be given several times")
    parser.add_class_arguments(RunConfig, None)
    return parser


def parse_config(arguments: Sequence[str] | None = None) -> RunConfig:
    """Read presets and overrides; exits with a message on `--help` and on any mistake.

    Args:
        arguments: command line without the program's name; None for `sys.argv`.
    """
    parser = _parser()
    try:
        values = parser.instantiate(parser.parse_args(arguments))
        names = [entry.name for entry in dataclasses.fields(RunConfig)]
        return RunConfig(**{name: values[name] for name in names})
    except (TypeError, ValueError) as error:  # the right type, and yet no run could use it
        parser.error(str(error))


def run_settings(config: RunConfig) -> dict[str, Any]:
    """What defines a run's results: the configuration less what may differ when it is resumed.

    Folders of this machine are left out or shortened; the data's hashes are in the provenance. How
    the table is divided into shards is in the checkpoint, because memory may decide it.
    """
    settings = dataclasses.asdict(config)
    of_the_machine = ("device", "environment", "shard_bytes", "wandb_mode")
    for name in ("runs_dir", "if_used", "resume", "folds", "cost_scales", *of_the_machine):
        del settings[name]
    del settings["workload"]["data_dir"]
    settings["workload"]["embedder"] = Path(config.workload.embedder).name
    # The model's hash is with its rows; where it runs and is recorded is the machine's.
    settings["llm"]["model"] = Path(config.llm.model).name
    for name in ("url", "key_variable", "record", "device", "concurrency", "timeout_s", "retries"):
        del settings["llm"][name]
    return settings
