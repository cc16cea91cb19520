"""Gradient steps in buffers of fixed size, so that they can be compiled, or captured as a graph.

A minibatch is copied into buffers that are a little larger than it; rows that are left over have
weight 0. Losses and metrics are summed on the device and looked at once a pass.
"""

from __future__ import annotations

import math
from collections.abc import Callable, Sequence

import torch
from torch import Tensor, nn

from memrl.algos.rollout import DivergedError
from memrl.algos.tiers import TieredStep, compiled
from memrl.algos.updates import Batches, descend
from memrl.policy_gradient_config import Tier

Losses = Callable[[Batches, Tensor], dict[str, Tensor]]
"""From a minibatch, with `weight` where not all rows count, and a coefficient to `loss` and further
metrics, all () and made without a look at values."""

_ROOM, _MULTIPLE = 1.25, 256


class StaticUpdates:
    """Makes gradient steps of one network, again and again, in the same buffers.

    Args:
        losses: of a minibatch. network, optimizer: what is changed. max_grad_norm: see `descend`.
        tier: a resolved one. backend: of `torch.compile`. name: of the loss, in messages.
    """

    def __init__(
        self,
        losses: Losses,
        network: nn.Module,
        optimizer: torch.optim.Optimizer,
        max_grad_norm: float,
        tier: Tier,
        backend: str = "inductor",
        *,
        name: str = "loss",
    ) -> None:
        self._name = name
        self._losses = losses
        self._network = network
        self._optimizer = optimizer
        self._max_grad_norm = max_grad_norm
        self._tier: Tier = tier
        self._backend = backend
        self._buffers: Batches = []
        self._sums: dict[str, Tensor] = {}
        device = next(network.parameters()).device
        self._coefficient = torch.zeros((), device=device)
        self._is_finite = torch.ones((), dtype=torch.bool, device=device)
        self._step: TieredStep | None = None
        _begin_state(optimizer)

    @property
    def tier(self) -> Tier:
        """The tier in use; it may be lower than the one that was asked for."""
        return self._tier if self._step is None else self._step.tier

    def begin_pass(self, coefficient: float) -> None:
        """Forget the sums of the pass before.

        Args:
            coefficient: handed to the losses in this pass.
        """
        self._coefficient.fill_(coefficient)
        self._is_finite.fill_(True)
        for value in self._sums.values():
            value.zero_()

    def __call__(self, batches: Batches) -> None:
        """Make a step on a minibatch; the kinds come in the same order each time."""
        if not self._fits(batches):
            self._allocate(batches)
        for buffer, batch in zip(self._buffers, batches, strict=True):
            size = len(batch["action"])
            buffer["weight"].zero_()[:size] = 1.0
            for name, values in batch.items():
                buffer[name][:size] = values
        assert self._step is not None
        self._step()

    def end_pass(self, count: int) -> dict[str, float]:
        """Mean metrics of the pass's `count` steps.

        Raises:
            DivergedError: if one of its losses was not finite.
        """
        if not bool(self._is_finite):
            raise DivergedError(f"the {self._name} is not finite")
        return {name: float(value) / count for name, value in self._sums.items() if name != "loss"}

    def _fits(self, batches: Batches) -> bool:
        return len(self._buffers) == len(batches) and all(
            len(batch["action"]) <= len(buffer["action"])
            for batch, buffer in zip(batches, self._buffers, strict=True)
        )

    def _allocate(self, batches: Batches) -> None:
        if self._step is not None:
            self._tier = self._step.tier  # what failed once is not tried again
        self._buffers = []
        for batch in batches:
            room = _MULTIPLE * math.ceil(_ROOM * len(batch["action"]) / _MULTIPLE)
            buffer = {
                name: values.new_zeros((room, *values.shape[1:])) for name, values in batch.items()
            }
            buffer["action_mask"][:, 0] = True
            buffer["weight"] = torch.zeros(room, device=batch["action"].device)
            self._buffers.append(buffer)
        if not self._sums:
            with torch.no_grad():
                shown = self._losses(self._buffers, self._coefficient)
            self._sums = {name: torch.zeros_like(value) for name, value in shown.items()}

        def step(losses: Losses) -> Callable[[], None]:
            return lambda: self._make_step(losses)

        quick = compiled(self._losses, self._backend)
        self._step = TieredStep(step(self._losses), step(quick), self._state, self._tier)

    def _state(self) -> Sequence[Tensor]:
        own = [*self._network.parameters(), *self._sums.values(), self._is_finite]
        for state in self._optimizer.state.values():
            own += [value for value in state.values() if isinstance(value, Tensor)]
        return own

    def _make_step(self, losses: Losses) -> None:
        shown = losses(self._buffers, self._coefficient)
        descend(shown["loss"], self._network, self._optimizer, self._max_grad_norm)
        with torch.no_grad():
            self._is_finite &= shown["loss"].isfinite()
            for name, value in shown.items():
                self._sums[name] += value


def _begin_state(optimizer: torch.optim.Optimizer) -> None:
    """Make the buffers of gradients, and let an optimizer that has made no step yet make its own.

    All are 0 afterwards; what an optimizer remembers of earlier steps stays.
    """
    for settings in optimizer.param_groups:
        for parameter in settings["params"]:
            parameter.grad = torch.zeros_like(parameter)
    if optimizer.state:
        return
    rates = [settings["lr"] for settings in optimizer.param_groups]
    for settings in optimizer.param_groups:
        settings["lr"] = settings["lr"] * 0.0
    optimizer.step()
    for settings, rate in zip(optimizer.param_groups, rates, strict=True):
        settings["lr"] = rate
    for state in optimizer.state.values():
        for value in state.values():
            if isinstance(value, Tensor):
                value.zero_()
