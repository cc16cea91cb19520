"""Passes of updates over a rollout's decisions: eagerly, or in fixed shapes."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from typing import NamedTuple

import numpy as np
import torch
from torch import Tensor, nn

from memrl.algos.rollout import Rollout
from memrl.algos.static_update import Losses, StaticUpdates
from memrl.algos.updates import Minibatch, gradient_step, minibatches
from memrl.distributed import Ranks
from memrl.policy_gradient_config import PolicyGradientConfig, Tier


class Trained(NamedTuple):
    """What the updates of a pass change, and by what.

    Attributes:
        name: of the loss, in messages. losses: see `memrl.algos.static_update`.
        coefficient: handed to the losses.
    """

    name: str
    network: nn.Module
    optimizer: torch.optim.Optimizer
    losses: Losses
    coefficient: float = 0.0


class Passes:
    """Makes passes, each with `num_minibatches` updates.

    Args:
        config: settings of the updates. ranks: who learns together; several make them eagerly.
        device: where is learned. tier: a resolved one. backend: of `torch.compile`.

    Attributes:
        static: the updates of fixed shape that have been made ready, by the name of their loss.
    """

    def __init__(
        self,
        config: PolicyGradientConfig,
        ranks: Ranks,
        device: torch.device,
        tier: Tier,
        backend: str,
    ) -> None:
        self._config = config
        self._ranks = ranks
        self._device = device
        self._tier: Tier = tier
        self._backend = backend
        self.static: dict[str, StaticUpdates] = {}

    def forget(self) -> None:
        """Make everything ready anew: an optimizer remembers in other tensors now."""
        self.static = {}

    def __call__(
        self,
        trained: Trained,
        rollout: Rollout,
        columns: Mapping[str, Tensor],
        rng: np.random.Generator,
        on_step: Callable[[], None] | None,
    ) -> dict[str, float]:
        """Make one pass; returns the mean metrics of its updates.

        Args:
            trained: what is updated. rollout, columns, rng: see `minibatches`.
            on_step: called after every minibatch; may raise to stop there.
        """
        count, made = self._config.num_minibatches, 0
        sums: dict[str, float] = {}
        static = None
        if self._tier != "eager" and self._ranks.is_alone:
            static = self._static_updates(trained)
            static.begin_pass(trained.coefficient)
        for minibatch in minibatches(rollout, columns, count, rng, self._device, self._ranks):
            if minibatch is not None and static is not None:
                static(minibatch.batches)
                made += 1
            elif minibatch is not None:
                for name, value in self._update(trained, minibatch).items():
                    sums[name] = sums.get(name, 0.0) + value
            if on_step is not None and self._ranks.wakes_others:
                on_step()
        if static is not None:
            return static.end_pass(made)
        return {name: value / count for name, value in sums.items()}

    def _static_updates(self, trained: Trained) -> StaticUpdates:
        if trained.name not in self.static:
            self.static[trained.name] = StaticUpdates(
                trained.losses,
                trained.network,
                trained.optimizer,
                self._config.max_grad_norm,
                self._tier,
                self._backend,
                name=trained.name,
            )
        return self.static[trained.name]

    def _update(self, trained: Trained, minibatch: Minibatch) -> dict[str, float]:
        """Make one gradient step on decisions of several kinds."""
        return gradient_step(
            trained.name,
            trained.losses(minibatch.batches, torch.tensor(trained.coefficient)),
            trained.network,
            trained.optimizer,
            self._config.max_grad_norm,
            self._ranks,
            minibatch.weight,
        )
