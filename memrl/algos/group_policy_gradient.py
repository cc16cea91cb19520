"""Group policy gradient: PPO's clipped objective on advantages within groups, without a critic.

An iteration plays E episodes, G copies of each, with actions drawn from softmax(gain / temperature)
over the legal ones, and compares the copies of an episode with each other event by event
(`memrl.algos.advantages`). There is no discount and no value function: episodes are short, and the
copies are a better baseline than what could be learned. The clip is PPO's (Schulman et al., arXiv
1707.06347), the baseline within a group that of RLOO (Ahmadian et al., arXiv 2402.14740), taken at
every event instead of once.

Every draw is a function of (seed, attempt, iteration, epoch), so that a resumed run continues to
the same numbers.
"""

from __future__ import annotations

import math
from collections.abc import Callable, Mapping
from typing import Any

import numpy as np
import torch
from torch import Tensor

from memrl.actions import Op
from memrl.algos.advantages import group_advantages
from memrl.algos.decisions import shows_victim_alone
from memrl.algos.rollout import DivergedError, Rollout, roll_out, scored_queries
from memrl.checkpoint import flatten_optimizer, load_module, module_tensors, restore_optimizer
from memrl.config import NetworkConfig
from memrl.evaluation.play import PagingGroup
from memrl.policies.network import GreedyGain, SampledGain, SetNetwork, log_policy
from memrl.policy_gradient_config import PolicyGradientConfig
from memrl.seeding import Streams

_STREAM = 20  # first index of this learner's places in the named streams


class GroupPolicyGradient:
    """The learner; see the module docstring.

    Args:
        group: `num_groups * group_size` rows on the training episodes.
        network: size of the network. config: the learner's settings. streams: the run's seeds.
        gain_scale: reward that one unit of the network's output stands for.
        initial: weights to start from; None for random ones.
        device: where the network is trained.

    Attributes:
        network: the network in training.
        attempt: fresh starts so far. iteration, steps: iterations and decisions of this attempt.
        total_steps: decisions of all attempts.
    """

    def __init__(
        self,
        group: PagingGroup,
        network: NetworkConfig,
        config: PolicyGradientConfig,
        streams: Streams,
        *,
        gain_scale: float,
        initial: Mapping[str, Tensor] | None,
        device: torch.device,
    ) -> None:
        self._group = group
        self._config = config
        self._streams = streams
        self._initial = initial
        self._device = device
        self._gain_scale = gain_scale
        self._logit_scale = gain_scale / config.temperature
        self._victim_alone = shows_victim_alone(group.options, network.slot_pool)
        self._scored_queries = scored_queries(group.table)
        self.network = self._made(network)
        self._reference = self._made(network)
        self.attempt = -1
        self.total_steps = 0
        self.restart()

    def _made(self, size: NetworkConfig) -> SetNetwork:
        with torch.random.fork_rng(devices=[]):
            network = SetNetwork(size.hidden, size.dropout, size.slot_pool)
        return network.to(self._device).eval()

    def restart(self) -> None:
        """Begin a further attempt, with random numbers of its own."""
        self.attempt += 1
        self.iteration, self.steps = 0, 0
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
        self._reference.load_state_dict(weights)
        self._optimizer = torch.optim.AdamW(
            self.network.parameters(),
            lr=self._config.learning_rate,
            weight_decay=self._config.weight_decay,
            eps=1e-5,
        )
        self._keep()

    def _balance(self, network: SetNetwork) -> None:
        """Let every legal operation begin about equally likely, however many rows it has."""
        options, layout = self._group.options, self._group.layout
        rows = {op: layout.num_rows - 1 for op in (Op.EVICT, Op.SEARCH)}
        rows[Op.STORE] = 1 if options.store_scope == "victim" else layout.num_rows - 1
        rows[Op.RETRIEVE] = max(layout.num_candidates, 1)
        with torch.no_grad():
            for op in Op:
                if op is not Op.YIELD:
                    network.operation_head.bias[op - 1] = (
                        -math.log(rows.get(op, 1)) / self._logit_scale
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
            DivergedError: if a logit, the loss or a weight is not finite.
        """
        config, place = self._config, (_STREAM, self.attempt, self.iteration)
        table = self._group.table
        chosen = self._streams.generator("workload", *place).choice(
            table.num_episodes,
            size=config.num_groups,
            replace=table.num_episodes < config.num_groups,
        )
        rollout = roll_out(
            self._group,
            np.repeat(chosen, config.group_size).tolist(),
            self._logits,
            self._streams.generator("policy", *place),
            victim_alone=self._victim_alone,
            device=self._device,
            on_step=on_step,
        )
        advantages = self._advantages(rollout)
        metrics = self._fit(rollout, advantages, on_step)
        questions = self._scored_queries[chosen].sum() * config.group_size
        metrics |= {
            "rollout/reward_per_question": float(rollout.reward_terms.sum() / max(questions, 1)),
            "rollout/evidence_recall": float(
                rollout.reward_terms[..., self._evidence].sum() / max(questions, 1)
            )
            / (self._group.options.reward.evidence or 1.0),
            "rollout/decisions": float(rollout.num_decisions),
            "rollout/steps": float(len(rollout.clock)),
            "rollout/advantage_std": float(advantages[rollout.is_decision].std()),
        }
        self.iteration += 1
        self.steps += rollout.num_decisions
        self.total_steps += rollout.num_decisions
        self._keep()
        return metrics

    @property
    def _evidence(self) -> int:
        return self._group.reward_names.index("evidence")

    def _advantages(self, rollout: Rollout) -> np.ndarray[Any, np.dtype[np.float64]]:
        """(T, B), with the costs as heavy as they are by now."""
        weight = np.full(len(self._group.reward_names), self._cost_weight())
        weight[self._evidence] = 1.0
        reward = rollout.reward_terms @ weight
        return group_advantages(reward, rollout.clock, rollout.is_decision, self._config.group_size)

    def _cost_weight(self) -> float:
        frac = self._config.cost_anneal_frac
        return min(self.progress / frac, 1.0) if frac else 1.0

    def _fit(
        self,
        rollout: Rollout,
        advantages: np.ndarray[Any, np.dtype[np.float64]],
        on_step: Callable[[], None] | None,
    ) -> dict[str, float]:
        """Make `update_epochs` passes; returns the means of the last one's metrics."""
        config = self._config
        scale = float(advantages[rollout.is_decision].std()) + 1e-8
        kinds = [decisions for decisions in rollout.decisions.values() if len(decisions)]
        normalized = torch.from_numpy(advantages / scale).float().to(self._device)
        own = [normalized[kind.column("step"), kind.column("row")] for kind in kinds]
        remaining = 1.0 - self.progress
        for settings in self._optimizer.param_groups:
            settings["lr"] = config.learning_rate * (remaining if config.anneal_lr else 1.0)
        sums: dict[str, float] = {}
        for epoch in range(config.update_epochs):
            rng = self._streams.generator("shuffle", _STREAM, self.attempt, self.iteration, epoch)
            orders = [torch.from_numpy(rng.permutation(len(kind))) for kind in kinds]
            sums = {}
            # Of every kind the same share in each minibatch.
            pieces = [order.tensor_split(config.num_minibatches) for order in orders]
            for number in range(config.num_minibatches):
                indices = [piece[number] for piece in pieces]
                batches = [
                    kind.rows(index, self._device) | {"advantage": advantage[index]}
                    for kind, index, advantage in zip(kinds, indices, own, strict=True)
                    if len(index)
                ]
                if batches:
                    for name, value in self._update(batches, config.ent_coef * remaining).items():
                        sums[name] = sums.get(name, 0.0) + value
                if on_step is not None:
                    on_step()
        self._require_finite_weights()
        metrics = {name: value / config.num_minibatches for name, value in sums.items()}
        return metrics | {
            "charts/learning_rate": self._optimizer.param_groups[0]["lr"],
            "charts/cost_weight": self._cost_weight(),
        }

    def _update(self, batches: list[dict[str, Tensor]], ent_coef: float) -> dict[str, float]:
        """Make one gradient step on decisions of several kinds."""
        config = self._config
        parts = [self._evaluate(batch) for batch in batches]
        ratio, entropy, divergence = (torch.cat(values) for values in zip(*parts, strict=True))
        advantage = torch.cat([batch["advantage"] for batch in batches])
        policy_loss = clipped_loss(ratio, advantage, config.clip_coef)
        loss = policy_loss - ent_coef * entropy.mean() + config.kl_coef * divergence.mean()
        if not loss.isfinite():
            raise DivergedError(f"the loss is {float(loss.detach())}")
        self._optimizer.zero_grad()
        loss.backward()  # type: ignore[no-untyped-call]
        torch.nn.utils.clip_grad_norm_(self.network.parameters(), config.max_grad_norm)
        self._optimizer.step()
        with torch.no_grad():
            moved = (ratio - 1.0).abs() > config.clip_coef
            metrics = {
                "losses/policy_loss": policy_loss,
                "losses/entropy": entropy.mean(),
                "losses/approx_kl": (ratio - 1.0 - ratio.log()).mean(),
                "losses/clipfrac": moved.float().mean(),
                "losses/anchor_kl": divergence.mean(),
            }
            return {name: float(value) for name, value in metrics.items()}

    def _evaluate(self, batch: Mapping[str, Tensor]) -> tuple[Tensor, Tensor, Tensor]:
        """Probability ratio, entropy and divergence from the start, each (M,)."""
        log_probs = log_policy(self._logits(batch), batch["action_mask"])
        taken = log_probs.gather(1, batch["action"][:, None])[:, 0]
        probabilities = log_probs.exp()
        entropy = -(probabilities * log_probs).sum(dim=1)
        divergence = torch.zeros_like(entropy)
        if self._config.kl_coef:
            with torch.no_grad():
                start = log_policy(self._reference(batch) * self._logit_scale, batch["action_mask"])
            divergence = (probabilities * (log_probs - start)).sum(dim=1)
        return (taken - batch["log_prob"]).exp(), entropy, divergence

    def _require_finite_weights(self) -> None:
        for name, value in self.network.named_parameters():
            if not value.isfinite().all():
                raise DivergedError(f"network.{name} is not finite")

    # ------------------------------------------------------------------ checkpoints

    def checkpoint(self) -> tuple[dict[str, Tensor], dict[str, Any]]:
        """Tensors and JSON state at the end of the latest whole iteration."""
        return dict(self._kept[0]), dict(self._kept[1])

    def _keep(self) -> None:
        tensors, optimizer = flatten_optimizer(self._optimizer, "optimizer.")
        tensors |= module_tensors(self.network, "network.")
        tensors |= module_tensors(self._reference, "reference.")
        state = {
            "attempt": self.attempt,
            "iteration": self.iteration,
            "steps": self.steps,
            "total_steps": self.total_steps,
            "optimizer": optimizer,
        }
        self._kept = {name: value.cpu().clone() for name, value in tensors.items()}, state

    def restore(self, tensors: Mapping[str, Tensor], state: Mapping[str, Any]) -> None:
        """Continue from a checkpoint."""
        load_module(self.network, tensors, "network.")
        load_module(self._reference, tensors, "reference.")
        restore_optimizer(self._optimizer, tensors, state["optimizer"], "optimizer.")
        for name in ("attempt", "iteration", "steps", "total_steps"):
            setattr(self, name, int(state[name]))
        self._keep()


def clipped_loss(ratio: Tensor, advantage: Tensor, clip_coef: float) -> Tensor:
    """PPO's objective, negated: mean of the worse of the plain and the clipped product.

    Args:
        ratio: (M,) probability of the action taken now over that when it was taken.
        advantage: (M,). clip_coef: bound on |ratio - 1|.
    """
    clipped = ratio.clamp(1.0 - clip_coef, 1.0 + clip_coef)
    return -torch.minimum(ratio * advantage, clipped * advantage).mean()
