"""Gain regression: predict what every legal operation would gain over YIELD; play greedily.

Imitation in the manner of DAgger (Ross et al., arXiv 1011.0686): in the first round heuristics and
a clairvoyant play, in later ones mostly the learner itself, so that it is taught in the states that
its own play reaches; all decisions of all rounds so far are fitted. The targets are not the
clairvoyant's actions but gains (`memrl.algos.labels`): evidence is rarely certain, and a policy
that copies the most likely clairvoyant action never stores.

Every draw is a function of (seed, round, update), so that a resumed run continues to the same
numbers.

Page caches are learned in the same way from other labels, with a ranking loss beside the squared
error: see `memrl.algos.eviction`.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from typing import Any

import numpy as np
import numpy.typing as npt
import torch
from torch import Tensor

from memrl.actions import ActionLayout, Op
from memrl.algos.dataset import DecisionDataset
from memrl.algos.eviction import cache_teachers, eviction_labels, ranking_loss
from memrl.algos.labels import gain_labels
from memrl.checkpoint import flatten_optimizer, load_module, module_tensors, restore_optimizer
from memrl.config import LearnerConfig, NetworkConfig
from memrl.evaluation.play import PagingGroup, play
from memrl.policies.base import Policy
from memrl.policies.clairvoyant import Clairvoyant
from memrl.policies.heuristics import StoreAndRetrieve, UniformRandom
from memrl.policies.network import GreedyGain, SetNetwork
from memrl.privileged import PrivilegedState
from memrl.seeding import Streams
from memrl.state import TableTensors

Snapshot = dict[str, Tensor]


class GainRegression:
    """The learner; see the module docstring.

    Args:
        group: training episodes played side by side.
        network: size of the network. config: the learner's settings. streams: the run's seeds.
        thresholds: thresholds of the prior rule that play among the heuristics.
        device: where the network is trained.

    Attributes:
        network: the network in training.
        optimizer: its AdamW.
        snapshots: weights at the beginning of each round so far; enough to collect its data again.
        round: number of the present round, -1 before the first.
        update_index: gradient steps made in the present round.
    """

    def __init__(
        self,
        group: PagingGroup,
        network: NetworkConfig,
        config: LearnerConfig,
        streams: Streams,
        *,
        thresholds: Sequence[float],
        device: torch.device,
    ) -> None:
        self._group = group
        self._config = config
        self._streams = streams
        self._device = device
        self._tensors = TableTensors.from_table(group.table)
        self._thresholds = tuple(thresholds)
        with torch.random.fork_rng(devices=[]):
            torch.manual_seed(streams.integer("policy", 0))
            self.network = SetNetwork(network.hidden, network.dropout, network.slot_pool).to(device)
        self.optimizer = torch.optim.AdamW(
            self.network.parameters(), lr=config.learning_rate, weight_decay=config.weight_decay
        )
        self.dataset = DecisionDataset()
        self.snapshots: list[Snapshot] = []
        self.round = -1
        self.update_index = 0

    @property
    def global_step(self) -> int:
        """Gradient steps so far."""
        return max(self.round, 0) * self._config.updates_per_round + self.update_index

    @property
    def policy(self) -> GreedyGain:
        """Greedy play of the network as it is."""
        return GreedyGain(self.network, self._config.gain_scale, self._config.gain_margin)

    # ------------------------------------------------------------------ states and labels

    def begin_round(self, on_finished: Callable[[int], None] | None = None) -> None:
        """Collect the states of the next round by the present network, and label them."""
        weights = self.network.state_dict()
        self.snapshots.append({name: value.cpu().clone() for name, value in weights.items()})
        self.round += 1
        self.update_index = 0
        self._collect(self.round, on_finished)

    def _collect(self, number: int, on_finished: Callable[[int], None] | None) -> None:
        rng = self._streams.generator("workload", 10, number)
        episodes = rng.choice(
            self._group.table.num_episodes,
            size=self._config.episodes_per_round,
            replace=self._group.table.num_episodes < self._config.episodes_per_round,
        )
        play(
            self._group,
            self._behaviour(number),
            episodes.tolist(),
            on_decision=self._record,
            needs_privileged=True,
            on_finished=on_finished,
        )

    def _record(
        self,
        observation: Mapping[str, Tensor],
        privileged: PrivilegedState | None,
        running: npt.NDArray[np.bool_],
    ) -> None:
        assert privileged is not None
        labels = self._labels(privileged)
        rows = torch.from_numpy(running)
        kept = {name: values[rows] for name, values in observation.items()}
        self.dataset.append(kept, observation["action_mask"][rows], labels=labels[rows])

    def _labels(self, privileged: PrivilegedState) -> Tensor:
        options = self._group.options
        if self._tensors.has_requests:
            return eviction_labels(privileged, options)
        return gain_labels(
            privileged,
            self._tensors,
            options,
            realization=self._config.realization,
            staging_realization=self._config.staging_realization,
        )

    def _behaviour(self, number: int) -> Policy:
        """Who plays the round: heuristics first, then mostly the learner."""
        generator = self._streams.torch_generator("policy", 1, number)
        heuristics = self._heuristics(generator)
        rng = self._streams.generator("policy", 2, number)
        rows = rng.integers(len(heuristics), size=self._group.num_envs)
        if number > 0:
            learner = _Exploring(self.policy, self._config.exploration, generator)
            plays_learner = rng.random(self._group.num_envs) >= self._config.heuristic_frac
            rows = np.where(plays_learner, len(heuristics), rows)
            heuristics.append(learner)
        return _PerRow(heuristics, torch.from_numpy(rows))

    def _heuristics(self, generator: torch.Generator) -> list[Policy]:
        if self._tensors.has_requests:
            return cache_teachers(generator)
        return [
            StoreAndRetrieve(top_k=3),
            *(StoreAndRetrieve(top_k=2, store_threshold=bound) for bound in self._thresholds),
            UniformRandom(generator),
            Clairvoyant(self._group.options.reward),
        ]

    # ------------------------------------------------------------------ checkpoints

    def checkpoint(self) -> tuple[dict[str, Tensor], dict[str, Any]]:
        """Tensors and JSON state that `restore` continues from."""
        tensors, optimizer = flatten_optimizer(self.optimizer, "optimizer.")
        tensors |= module_tensors(self.network, "network.")
        for number, snapshot in enumerate(self.snapshots):
            tensors |= {f"snapshot{number}.{name}": value for name, value in snapshot.items()}
        state = {"round": self.round, "update_index": self.update_index, "optimizer": optimizer}
        return tensors, state

    def restore(
        self,
        tensors: Mapping[str, Tensor],
        state: Mapping[str, Any],
        on_finished: Callable[[int], None] | None = None,
    ) -> None:
        """Continue from a checkpoint: collect the states of its rounds again, then load it."""
        for number in range(state["round"] + 1):
            load_module(self.network, tensors, f"snapshot{number}.")
            self.begin_round(on_finished)
        self.update_index = state["update_index"]
        load_module(self.network, tensors, "network.")
        restore_optimizer(self.optimizer, tensors, state["optimizer"], "optimizer.")

    # ------------------------------------------------------------------ fitting

    def update(self) -> float:
        """Make one gradient step on decisions of all rounds so far; returns the loss."""
        config = self._config
        rng = self._streams.generator("shuffle", self.round, self.update_index)
        batch = self.dataset.sample(config.batch_size, rng, self._device)
        remaining = 1.0 - self.update_index / config.updates_per_round
        for settings in self.optimizer.param_groups:
            settings["lr"] = config.learning_rate * remaining
        self.network.train()
        with torch.random.fork_rng(devices=[]):  # dropout draws
            torch.manual_seed(int(rng.integers(2**32)))
            loss = self._loss(self.network(batch), batch)
        self.optimizer.zero_grad()
        loss.backward()  # type: ignore[no-untyped-call]
        torch.nn.utils.clip_grad_norm_(self.network.parameters(), 1.0)
        self.optimizer.step()
        self.update_index += 1
        return float(loss.detach())

    def _loss(self, predicted: Tensor, batch: Mapping[str, Tensor]) -> Tensor:
        layout, scale = self._group.layout, self._config.gain_scale
        loss = gain_loss(predicted, batch, layout, scale)
        if self._tensors.has_requests:
            loss = loss + ranking_loss(predicted, batch, layout, scale)
        return loss


def gain_loss(
    predicted: Tensor, batch: Mapping[str, Tensor], layout: ActionLayout, gain_scale: float
) -> Tensor:
    """Squared error over legal operations, every kind of operation counting alike.

    Args:
        predicted: (M, A) in units of `gain_scale`.
        batch: `labels` (M, A) in reward, `action_mask` (M, A).
        layout: the action space.
        gain_scale: reward of one unit.
    """
    legal = batch["action_mask"]
    error = (predicted - batch["labels"] / gain_scale).square() * legal
    losses = [
        error[:, layout.block(op)].sum() / legal[:, layout.block(op)].sum().clamp(min=1)
        for op in Op
        if op is not Op.YIELD
    ]
    return torch.stack(losses).sum()


class _PerRow:
    """A policy of its own for each row of the batch."""

    is_privileged = True

    def __init__(self, policies: Sequence[Policy], choice: Tensor) -> None:
        self._policies = policies
        self._choice = choice

    def act(
        self,
        observation: Mapping[str, Tensor],
        action_mask: Tensor,
        privileged: PrivilegedState | None = None,
    ) -> Tensor:
        actions = torch.zeros(len(action_mask), dtype=torch.int64)
        for number, policy in enumerate(self._policies):
            chosen = policy.act(observation, action_mask, privileged).cpu()
            actions = torch.where(self._choice == number, chosen, actions)
        return actions


class _Exploring:
    """A policy that now and then draws a legal action instead."""

    is_privileged = False

    def __init__(self, policy: Policy, probability: float, generator: torch.Generator) -> None:
        self._policy = policy
        self._probability = probability
        self._generator = generator
        self._random = UniformRandom(generator)

    def act(
        self,
        observation: Mapping[str, Tensor],
        action_mask: Tensor,
        privileged: PrivilegedState | None = None,
    ) -> Tensor:
        chosen = self._policy.act(observation, action_mask, privileged).cpu()
        drawn = self._random.act(observation, action_mask)
        explores = torch.rand(len(chosen), generator=self._generator) < self._probability
        return torch.where(explores, drawn, chosen)
