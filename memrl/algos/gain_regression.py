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
import torch
from torch import Tensor

from memrl.actions import Op
from memrl.algos.collection import Behaviour, Plan, collect
from memrl.algos.dataset import DecisionsByKind
from memrl.algos.decisions import KINDS
from memrl.algos.episode_draws import require_same_shards, shards_record
from memrl.algos.eviction import Parts, cache_teachers, eviction_labels, ranking_loss
from memrl.algos.labels import gain_labels
from memrl.algos.shares import Places, Share, require_decisions
from memrl.checkpoint import flatten_optimizer, load_module, module_tensors, restore_optimizer
from memrl.config import LearnerConfig, NetworkConfig
from memrl.device_memory import naming_what_fits
from memrl.distributed import ALONE
from memrl.groups import PagingGroup
from memrl.policies.base import layout_of
from memrl.policies.clairvoyant import Clairvoyant
from memrl.policies.heuristics import StoreAndRetrieve, YieldOnly
from memrl.policies.network import GreedyGain, SetNetwork
from memrl.privileged import PrivilegedState
from memrl.seeding import Streams
from memrl.state import TableTensors

Snapshot = dict[str, Tensor]


class GainRegression:
    """The learner; see the module docstring.

    Args:
        group: training episodes played side by side; of several ranks, those of this one.
        network: size of the network. config: the learner's settings. streams: the run's seeds.
        thresholds: thresholds of the prior rule that play among the heuristics.
        device: where the network is trained.
        share: which of a round's episodes this rank plays; None for all.

    Attributes:
        ranks: who learns together. network: the network in training.
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
        share: Share | None = None,
    ) -> None:
        self._group = group
        self._share = share or Share.alone(config.episodes_per_round)
        self.ranks = self._share.ranks
        self._config = config
        self._streams = streams
        self._device = device
        self._thresholds = tuple(thresholds)
        with torch.random.fork_rng(devices=[]):
            torch.manual_seed(streams.integer("policy", 0))
            self.network = SetNetwork(network.hidden, network.dropout, network.slot_pool).to(device)
        self.ranks.broadcast_module(self.network)
        self.optimizer = torch.optim.AdamW(
            self.network.parameters(), lr=config.learning_rate, weight_decay=config.weight_decay
        )
        self.dataset = DecisionsByKind(KINDS)
        self._places = {kind: Places(self.ranks) for kind in KINDS}
        self.snapshots: list[Snapshot] = []
        self.round = -1
        self.update_index = 0

    @property
    def global_step(self) -> int:
        """Gradient steps so far."""
        return max(self.round, 0) * self._config.updates_per_round + self.update_index

    @property
    def num_decisions(self) -> int:
        """Decisions of all ranks and rounds so far."""
        return sum(places.total for places in self._places.values())

    @property
    def num_episodes(self) -> int:
        """Episodes that this rank plays in a round."""
        return len(self._share)

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
        before, group = self.dataset.lengths(), self._group
        plan = self._plan(number, episodes.tolist())
        own = plan.part(range(self._share.start, self._share.stop))
        with naming_what_fits(self._device, group.num_envs, lambda: group.row_memory):
            collect(
                group,
                own,
                self._labels,
                self.dataset,
                with_context=self.network.slot_pool,
                on_finished=on_finished,
            )
        require_decisions(self.ranks, len(self.dataset))
        for kind, length in self.dataset.lengths().items():
            # Ranks play one stretch of the plan after the other: no step tells them apart.
            self._places[kind].add(torch.tensor([length - before[kind]]))

    def _labels(self, privileged: PrivilegedState) -> Tensor:
        options = self._group.options
        if self._group.table.has_requests:
            return eviction_labels(privileged, options)
        return gain_labels(
            privileged,
            TableTensors.from_table(self._group.table, self._group.device),
            options,
            realization=self._config.realization,
            staging_realization=self._config.staging_realization,
            room_price=self._config.room_price,
        )

    def _plan(self, number: int, episodes: Sequence[int]) -> Plan:
        """Who plays the round: heuristics first, then mostly the learner."""
        behaviours = self._teachers()
        rng = self._streams.generator("policy", 2, number)
        choice = rng.integers(len(behaviours), size=len(episodes))
        if number > 0:
            plays_learner = rng.random(len(episodes)) >= self._config.heuristic_frac
            choice = np.where(plays_learner, len(behaviours), choice)
            behaviours.append(Behaviour(self.policy, self._config.exploration))
        seed = self._streams.integer("policy", 1, number)
        stream = torch.arange(len(episodes))
        return Plan(episodes, behaviours, torch.from_numpy(choice), stream, seed)

    def _teachers(self) -> list[Behaviour]:
        if self._group.table.has_requests:
            return cache_teachers()
        return [
            Behaviour(StoreAndRetrieve(top_k=3)),
            *(
                Behaviour(StoreAndRetrieve(top_k=2, store_threshold=bound))
                for bound in self._thresholds
            ),
            Behaviour(YieldOnly(), exploration=1.0),
            Behaviour(Clairvoyant(self._group.options.reward)),
        ]

    # ------------------------------------------------------------------ checkpoints

    def checkpoint(self) -> tuple[dict[str, Tensor], dict[str, Any]]:
        """Tensors and JSON state that `restore` continues from."""
        tensors, optimizer = flatten_optimizer(self.optimizer, "optimizer.")
        tensors |= module_tensors(self.network, "network.")
        for number, snapshot in enumerate(self.snapshots):
            tensors |= {f"snapshot{number}.{name}": value for name, value in snapshot.items()}
        state = {"round": self.round, "update_index": self.update_index, "optimizer": optimizer}
        state["shards"] = shards_record(self._group)
        return tensors, state

    def restore(
        self,
        tensors: Mapping[str, Tensor],
        state: Mapping[str, Any],
        on_finished: Callable[[int], None] | None = None,
    ) -> None:
        """Continue from a checkpoint: collect the states of its rounds again, then load it.

        Raises:
            CheckpointError: if it does not fit, or episodes would be played in other shards.
        """
        require_same_shards(self._group, state.get("shards"))
        for number in range(state["round"] + 1):
            load_module(self.network, tensors, f"snapshot{number}.")
            self.begin_round(on_finished)
        self.update_index = state["update_index"]
        load_module(self.network, tensors, "network.")
        restore_optimizer(self.optimizer, tensors, state["optimizer"], "optimizer.")

    # ------------------------------------------------------------------ fitting

    def update(self) -> float:
        """Make one gradient step on decisions of all rounds so far; returns the loss.

        It is that of the whole batch, of which each rank sees the decisions that it has.
        """
        config = self._config
        rng = self._streams.generator("shuffle", self.round, self.update_index)
        batches = self.dataset.sample(config.batch_size, rng, self._device, self._places)
        remaining = 1.0 - self.update_index / config.updates_per_round
        for settings in self.optimizer.param_groups:
            settings["lr"] = config.learning_rate * remaining
        self.network.train()
        own = [self._device] if self._device.type == "cuda" else []
        with torch.random.fork_rng(devices=own):  # dropout draws
            torch.manual_seed((int(rng.integers(2**32)) + self.ranks.rank) % 2**32)
            loss = self._loss([(self.network(batch), batch) for batch in batches.values()])
        self.optimizer.zero_grad()
        loss.backward()  # type: ignore[no-untyped-call]
        (total,) = self.ranks.sum_gradients(self.network, loss.detach()[None]).tolist()
        torch.nn.utils.clip_grad_norm_(self.network.parameters(), 1.0)
        self.optimizer.step()
        self.update_index += 1
        return float(total)

    def _loss(self, parts: Parts) -> Tensor:
        scale, over_ranks = self._config.gain_scale, self.ranks.sum
        loss = gain_loss(parts, scale, over_ranks)
        if self._group.table.has_requests:
            loss = loss + ranking_loss(parts, scale, over_ranks)
        return loss


def gain_loss(
    parts: Parts,
    gain_scale: float,
    sum_over_ranks: Callable[[Tensor], Tensor] = ALONE.sum,
) -> Tensor:
    """Squared error over legal operations, every kind of operation counting alike.

    Each is averaged over the legal operations of the whole batch. Where ranks share the batch, this
    is what the decisions of one add to its loss.

    Args:
        parts: predicted gains (M, a) in units of `gain_scale`, and the batch that they are of:
            its observation, `labels` (M, a) in reward, `action_mask` (M, a).
        gain_scale: reward of one unit.
        sum_over_ranks: of the numbers of legal operations.
    """
    operations = [op for op in Op if op is not Op.YIELD]
    errors, counts = [], []
    for predicted, batch in parts:
        legal, layout = batch["action_mask"], layout_of(batch)
        error = (predicted - batch["labels"] / gain_scale).square() * legal
        blocks = [layout.block(op) for op in operations]
        errors.append(torch.stack([error[:, block].sum() for block in blocks]))
        counts.append(torch.stack([legal[:, block].sum() for block in blocks]))
    count = sum_over_ranks(torch.stack(counts).sum(dim=0)).clamp(min=1)
    return (torch.stack(errors).sum(dim=0) / count).sum()
