"""Gradient steps on the decisions of a rollout: minibatches, the clipped objective, checks."""

from __future__ import annotations

from collections.abc import Iterator, Mapping

import numpy as np
import torch
from torch import Tensor, nn

from memrl.algos.rollout import DivergedError, Rollout

Batches = list[dict[str, Tensor]]
"""A minibatch: of each kind of decision some rows, as `DecisionDataset.rows` gives them."""


def minibatches(
    rollout: Rollout,
    columns: Mapping[str, Tensor],
    count: int,
    rng: np.random.Generator,
    device: torch.device,
) -> Iterator[Batches]:
    """All decisions once, in random order, of every kind the same share in each minibatch.

    Args:
        columns: (T, B) each, on the device; a decision gets the value of its step and row.
        count: minibatches; where there are fewer decisions, some are empty.
    """
    kinds = [decisions for decisions in rollout.decisions.values() if len(decisions)]
    orders = [torch.from_numpy(rng.permutation(len(kind))) for kind in kinds]
    for indices in zip(*(order.tensor_split(count) for order in orders), strict=True):
        parts = zip(kinds, indices, strict=True)
        batches = [kind.rows(index, device) for kind, index in parts if len(index)]
        for batch in batches:
            place = batch["step"], batch["row"]
            batch |= {name: grid[place] for name, grid in columns.items()}
        yield batches


def gradient_step(
    name: str,
    loss: Tensor,
    network: nn.Module,
    optimizer: torch.optim.Optimizer,
    max_grad_norm: float,
) -> None:
    """Make a step of the optimizer with clipped gradients.

    Raises:
        DivergedError: if the loss, which the message calls `name`, is not finite.
    """
    if not loss.isfinite():
        raise DivergedError(f"the {name} is {float(loss.detach())}")
    optimizer.zero_grad()
    descend(loss, network, optimizer, max_grad_norm)


def descend(
    loss: Tensor, network: nn.Module, optimizer: torch.optim.Optimizer, max_grad_norm: float
) -> None:
    """Add the loss's gradients to those that are there, clip them, and make the step."""
    loss.backward()  # type: ignore[no-untyped-call]
    nn.utils.clip_grad_norm_(network.parameters(), max_grad_norm)
    optimizer.step()


def require_finite(name: str, network: nn.Module) -> None:
    """Raise DivergedError if a weight is not finite."""
    for own, value in network.named_parameters():
        if not value.isfinite().all():
            raise DivergedError(f"{name}.{own} is not finite")


def clipped_loss(
    ratio: Tensor, advantage: Tensor, clip_coef: float, weight: Tensor | None = None
) -> Tensor:
    """PPO's objective, negated: mean of the worse of the plain and the clipped product.

    Args:
        ratio: (M,) probability of the action taken now over that when it was taken.
        advantage: (M,). clip_coef: bound on |ratio - 1|. weight: see `weighted_mean`.
    """
    clipped = ratio.clamp(1.0 - clip_coef, 1.0 + clip_coef)
    return -weighted_mean(torch.minimum(ratio * advantage, clipped * advantage), weight)


def row_weights(batches: Batches) -> Tensor | None:
    """(M,) weights of a minibatch's decisions; None where all of them count."""
    if "weight" not in batches[0]:
        return None
    return torch.cat([batch["weight"] for batch in batches])


def weighted_mean(values: Tensor, weight: Tensor | None) -> Tensor:
    """Mean over M decisions, (M,); with weights, (M,) of 0 and 1, over those of weight 1."""
    if weight is None:
        return values.mean()
    return (values * weight).sum() / weight.sum().clamp(min=1.0)
