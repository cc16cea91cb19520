"""Policy gradient on whole episodes with PPO's clipped objective, whatever its advantages are.

An iteration plays E episodes, G copies of each, with actions drawn from softmax(gain / temperature)
over the legal ones, and makes a few passes of clipped updates over the decisions (Schulman et al.,
arXiv 1707.06347). A learner says what a decision is compared with, in `_learn`: with the other
copies of its episode (`memrl.algos.group_policy_gradient`), or with what a critic expected
(`memrl.algos.ppo`).

Every draw is a function of (seed, attempt, iteration, epoch), so that a resumed run continues to
the same numbers.
"""

from __future__ import annotations

import math
from abc import ABC, abstractmethod
from collections.abc import Callable, Mapping, Sequence
from functools import partial
from typing import Any, ClassVar, cast

import numpy as np
import numpy.typing as npt
import torch
from torch import Tensor, nn

from memrl.actions import Op
from memrl.algos.decisions import shows_victim_alone
from memrl.algos.episode_draws import draw_episodes, require_same_shards, shards_record
from memrl.algos.passes import Passes, Trained
from memrl.algos.rollout import Rollout, roll_out
from memrl.algos.shares import Share
from memrl.algos.static_rollout import StaticRollouts
from memrl.algos.updates import (
    Batches,
    clipped_loss,
    require_finite,
    row_weights,
    weighted_mean,
)
from memrl.checkpoint import flatten_optimizer, load_module, module_tensors, restore_optimizer
from memrl.config import NetworkConfig
from memrl.device_memory import naming_what_fits
from memrl.groups import FixedShapeGroup, PagingGroup
from memrl.policies.network import GreedyGain, SampledGain, SetNetwork, log_policy
from memrl.policy_gradient_config import PolicyGradientConfig, Tier
from memrl.privileged import num_scored
from memrl.seeding import Streams

_STREAM = 20  # first index of such learners' places in the named streams
_RARITY = 3.0  # by which e-fold NEXT and SEARCH are rarer in the beginning
_COUNTS = ("attempt", "iteration", "steps", "total_steps")
Floats = npt.NDArray[np.float64]
Play = Callable[[Sequence[int], int, Callable[[], None] | None], Rollout]
"""Of episodes, with a seed, calling something now and then."""


class PolicyGradient(ABC):
    """What such learners share; see the module docstring.

    Args:
        group: `num_groups * group_size` rows on the training episodes, or this rank's share; with
            a tier other than "eager", one that steps in fixed shapes.
        network: size of the network. config: the learner's settings. streams: the run's seeds.
        gain_scale: reward that one unit of the network's output stands for.
        initial: weights to start from; None for random ones.
        device: where the network is trained.
        tier: a resolved one of `memrl.algos.tiers`; the updates of several ranks are made eagerly.
        backend: of `torch.compile`.
        share: which of all ranks' rows the group's are; None for all.

    Attributes:
        ranks: who learns together. network: the network in training.
        attempt: fresh starts so far. iteration, steps: iterations and decisions of this attempt.
        total_steps: decisions of all attempts.
        price: reward that an operation costs now on top, for the sake of `operations_budget`.
        rates: names of the settings to lower when learning diverges.
    """

    rates: ClassVar[tuple[str, ...]] = ("policy_gradient.learning_rate",)

    def __init__(
        self,
        group: PagingGroup | FixedShapeGroup,
        network: NetworkConfig,
        config: PolicyGradientConfig,
        streams: Streams,
        *,
        gain_scale: float,
        initial: Mapping[str, Tensor] | None,
        device: torch.device,
        tier: Tier = "eager",
        backend: str = "inductor",
        share: Share | None = None,
    ) -> None:
        self._group = group
        self._share = share or Share.alone(group.num_envs)
        self.ranks = self._share.ranks
        self._passes = Passes(config, self.ranks, device, tier, backend)
        self.tier: Tier = tier
        self._backend = backend
        self._config = config
        self._streams = streams
        self._initial = initial
        self._device = device
        self._gain_scale = gain_scale
        self._logit_scale = gain_scale / config.temperature
        self._victim_alone = shows_victim_alone(group.options, network.slot_pool)
        self._num_scored = num_scored(group.table)
        self.network = self._made(network)
        self._reference = self._made(network)
        self._play = self._player()
        self.attempt = -1
        self.total_steps = 0
        self.restart()

    def _player(self) -> Play:
        """Rollouts of the tier that was asked for."""
        if self.tier == "eager":
            return partial(
                roll_out,
                cast(PagingGroup, self._group),
                self._logits,
                victim_alone=self._victim_alone,
                device=self._device,
                first_row=self._share.start,
            )
        return StaticRollouts(
            cast(FixedShapeGroup, self._group),
            self._logits,
            victim_alone=self._victim_alone,
            tier=self.tier,
            backend=self._backend,
            first_row=self._share.start,
        ).play

    def _made(self, size: NetworkConfig) -> SetNetwork:
        with torch.random.fork_rng(devices=[]):
            network = SetNetwork(size.hidden, size.dropout, size.slot_pool)
        return network.to(self._device).eval()

    def restart(self) -> None:
        """Begin a further attempt, with random numbers of its own."""
        self.attempt += 1
        self.iteration, self.steps = 0, 0
        self.price = 0.0
        self._begin()
        self._keep()

    def _begin(self) -> None:
        """Take the weights that an attempt starts from, and optimizers that know nothing yet."""
        with torch.random.fork_rng(devices=[]):
            torch.manual_seed(self._streams.integer("policy", _STREAM, self.attempt))
            fresh = SetNetwork(
                self.network.slot_encoder.out_features, slot_pool=self.network.slot_pool
            )
        if self._initial is None:
            self._balance(fresh)
            weights = fresh.state_dict()
        else:
            weights = dict(self._initial)
        self.network.load_state_dict(weights)
        self.ranks.broadcast_module(self.network)
        self._reference.load_state_dict(self.network.state_dict())
        self._optimizer = self._adam(self.network, self._config.learning_rate)
        self._passes.forget()

    def _adam(self, network: nn.Module, learning_rate: float) -> torch.optim.Optimizer:
        captures = self._device.type == "cuda"  # then neither rate nor step may be on the host
        return torch.optim.AdamW(
            network.parameters(),
            lr=torch.tensor(learning_rate, device=self._device) if captures else learning_rate,
            weight_decay=self._config.weight_decay,
            eps=1e-5,
            capturable=captures,
        )

    def _balance(self, network: SetNetwork) -> None:
        """Let every legal operation begin about equally likely, however many rows it has.

        NEXT and SEARCH begin rarer. They put other candidates in the place of those that the query
        itself has staged, so that RETRIEVE finds nothing, and is given up before it is learned.
        """
        options, layout = self._group.options, self._group.layout
        rows = {op: layout.num_rows - 1 for op in (Op.EVICT, Op.SEARCH)}
        rows[Op.STORE] = 1 if options.store_scope == "victim" else layout.num_rows - 1
        rows[Op.RETRIEVE] = max(layout.num_candidates, 1)
        with torch.no_grad():
            for op in Op:
                if op is not Op.YIELD:
                    rarity = _RARITY if op in (Op.NEXT, Op.SEARCH) else 0.0
                    network.operation_head.bias[op - 1] = (
                        -(math.log(rows.get(op, 1)) + rarity) / self._logit_scale
                    )

    # ------------------------------------------------------------------ who plays

    @property
    def progress(self) -> float:
        """Share of this attempt's decisions that has been played, at most 1."""
        return min(self.steps / self._config.total_timesteps, 1.0)

    @property
    def policy(self) -> GreedyGain:
        """Greedy play of the network as it is."""
        return GreedyGain(self.network, self._gain_scale)

    def sampled_policy(self, rng: np.random.Generator) -> SampledGain:
        """Play of the network as in rollouts."""
        return SampledGain(self.network, self._gain_scale, self._config.temperature, rng)

    def _logits(self, inputs: Mapping[str, Tensor]) -> Tensor:
        values: Tensor = self.network(inputs) * self._logit_scale
        return values

    # ------------------------------------------------------------------ learning

    def iterate(self, on_step: Callable[[], None] | None = None) -> dict[str, float]:
        """Play one batch of groups and learn from it; returns metrics.

        Args:
            on_step: called after every step and every minibatch; may raise to stop there, and
                then `checkpoint` is that of the beginning of the iteration.

        Raises:
            DivergedError: if a logit, a value, a loss or a weight is not finite.
            DeviceMemoryError: if what so many rows have played does not fit on the device.
        """
        config, place = self._config, (_STREAM, self.attempt, self.iteration)
        chosen = draw_episodes(self._group, config.num_groups, self._streams, *place)
        rollout = self._play(
            np.repeat(chosen, config.group_size)[self._share.own].tolist(),
            self._streams.integer("policy", *place),
            on_step,
        )
        with naming_what_fits(self._device, self._group.num_envs, lambda: self._group.row_memory):
            metrics = self._learn(rollout, on_step)
        questions = float(max(self._num_scored[chosen].sum() * config.group_size, 1))
        reward, evidence, decisions, operations = self._share.sums(
            rollout.reward_terms.sum(),
            rollout.reward_terms[..., self._evidence].sum(),
            rollout.num_decisions,
            rollout.is_operation().sum(),
        )
        metrics |= {
            "rollout/reward_per_question": reward / questions,
            "rollout/evidence_recall": evidence
            / questions
            / (self._group.options.reward.evidence or 1.0),
            "rollout/operations_per_question": operations / questions,
            "rollout/decisions": decisions,
            "rollout/steps": self._share.highest(len(rollout.clock)),
        }
        if config.operations_budget is not None:
            excess = operations / questions - config.operations_budget
            metrics["charts/operation_price"] = self.price  # that of this iteration
            self.price = max(0.0, self.price + config.price_rate * excess)
        self.iteration += 1
        self.steps += int(decisions)
        self.total_steps += int(decisions)
        self._keep()
        return metrics

    @abstractmethod
    def _learn(self, rollout: Rollout, on_step: Callable[[], None] | None) -> dict[str, float]:
        """Find the decisions' advantages and `_fit`; returns metrics."""

    @property
    def _evidence(self) -> int:
        return self._group.reward_names.index("evidence")

    def _reward(self, rollout: Rollout) -> Floats:
        """(T, B), with the costs as heavy as they are by now, less the price of operations."""
        weight = np.full(len(self._group.reward_names), self._cost_weight())
        weight[self._evidence] = 1.0
        reward = np.asarray(rollout.reward_terms @ weight)
        return reward - self.price * rollout.is_operation() if self.price else reward

    def _cost_weight(self) -> float:
        frac = self._config.cost_anneal_frac
        return min(self.progress / frac, 1.0) if frac else 1.0

    def _fit(
        self, rollout: Rollout, advantages: Floats, on_step: Callable[[], None] | None
    ) -> dict[str, float]:
        """Make `update_epochs` passes with advantages, (T, B), brought to a deviation of 1.

        Returns:
            The means of the last pass's metrics.
        """
        config = self._config
        deviation = self._share.std(advantages[rollout.is_decision])
        normalized = torch.from_numpy(advantages / (deviation + 1e-8)).float().to(self._device)
        ent_coef = config.ent_coef * (1.0 - self.progress)
        self._anneal(self._optimizer, config.learning_rate)
        metrics: dict[str, float] = {}
        for epoch in range(config.update_epochs):
            metrics = self._passes(
                Trained("loss", self.network, self._optimizer, self._losses, ent_coef),
                rollout,
                {"advantage": normalized},
                self._order(_STREAM, epoch),
                on_step,
            )
        require_finite("network", self.network)
        return metrics | {
            "rollout/advantage_std": deviation,
            "charts/learning_rate": float(self._optimizer.param_groups[0]["lr"]),
            "charts/cost_weight": self._cost_weight(),
        }

    def _anneal(self, optimizer: torch.optim.Optimizer, learning_rate: float) -> None:
        remaining = 1.0 - self.progress
        rate = learning_rate * (remaining if self._config.anneal_lr else 1.0)
        for settings in optimizer.param_groups:
            if isinstance(settings["lr"], Tensor):
                settings["lr"].fill_(rate)
            else:
                settings["lr"] = rate

    def _order(self, stream: int, epoch: int) -> np.random.Generator:
        """Of the random order of a pass over this iteration's decisions."""
        return self._streams.generator("shuffle", stream, self.attempt, self.iteration, epoch)

    def _losses(self, batches: Batches, ent_coef: Tensor) -> dict[str, Tensor]:
        """Of decisions of several kinds, the `loss` and metrics, all () without a look at values.

        Args:
            batches: with `weight` where not all rows count. ent_coef: ().
        """
        config = self._config
        parts = [self._evaluate(batch) for batch in batches]
        ratio, entropy, divergence = (torch.cat(values) for values in zip(*parts, strict=True))
        advantage = torch.cat([batch["advantage"] for batch in batches])
        weight = row_weights(batches)
        policy_loss = clipped_loss(ratio, advantage, config.clip_coef, weight)
        mean_entropy = weighted_mean(entropy, weight)
        anchor_kl = weighted_mean(divergence, weight)
        loss = policy_loss - ent_coef * mean_entropy + config.kl_coef * anchor_kl
        moved = (ratio - 1.0).abs() > config.clip_coef
        metrics = {
            "losses/policy_loss": policy_loss,
            "losses/entropy": mean_entropy,
            "losses/approx_kl": weighted_mean(ratio - 1.0 - ratio.log(), weight),
            "losses/clipfrac": weighted_mean(moved.float(), weight),
            "losses/anchor_kl": anchor_kl,
        }
        return {"loss": loss} | {name: value.detach() for name, value in metrics.items()}

    def _evaluate(self, batch: Mapping[str, Tensor]) -> tuple[Tensor, Tensor, Tensor]:
        """Probability ratio, entropy and divergence from the start, each (M,)."""
        log_probs = log_policy(self._logits(batch), batch["action_mask"])
        taken = log_probs.gather(1, batch["action"][:, None])[:, 0]
        probabilities = log_probs.exp()
        entropy = -(probabilities * log_probs).sum(dim=1)
        divergence = torch.zeros_like(entropy.detach())
        if self._config.kl_coef:
            with torch.no_grad():
                start = log_policy(self._reference(batch) * self._logit_scale, batch["action_mask"])
            divergence = (probabilities * (log_probs - start)).sum(dim=1)
        return (taken - batch["log_prob"]).exp(), entropy, divergence

    # ------------------------------------------------------------------ checkpoints

    def checkpoint(self) -> tuple[dict[str, Tensor], dict[str, Any]]:
        """Tensors and JSON state at the end of the latest whole iteration."""
        return dict(self._kept[0]), dict(self._kept[1])

    def _modules(self) -> dict[str, nn.Module]:
        """What a checkpoint holds, by the prefix of its tensors."""
        return {"network": self.network, "reference": self._reference}

    def _optimizers(self) -> dict[str, torch.optim.Optimizer]:
        return {"optimizer": self._optimizer}

    def _keep(self) -> None:
        tensors: dict[str, Tensor] = {}
        state: dict[str, Any] = {name: getattr(self, name) for name in (*_COUNTS, "price")}
        state["shards"] = shards_record(self._group)
        for name, optimizer in self._optimizers().items():
            own, state[name] = flatten_optimizer(optimizer, f"{name}.")
            tensors |= own
        for name, module in self._modules().items():
            tensors |= module_tensors(module, f"{name}.")
        self._kept = {name: value.cpu().clone() for name, value in tensors.items()}, state

    def restore(self, tensors: Mapping[str, Tensor], state: Mapping[str, Any]) -> None:
        """Continue from a checkpoint.

        Raises:
            CheckpointError: if it does not fit, or episodes would be drawn from other shards.
        """
        require_same_shards(self._group, state.get("shards"))
        for name, module in self._modules().items():
            load_module(module, tensors, f"{name}.")
        for name, optimizer in self._optimizers().items():
            restore_optimizer(optimizer, tensors, state[name], f"{name}.")
        for name in _COUNTS:
            setattr(self, name, int(state[name]))
        self.price = float(state["price"])
        self._passes.forget()
        self._keep()
