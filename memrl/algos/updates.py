"""Gradient steps on the decisions of a rollout: minibatches, the clipped objective, checks."""

from __future__ import annotations

import math
from collections.abc import Iterator, Mapping
from dataclasses import dataclass

import numpy as np
import torch
from torch import Tensor, nn

from memrl.algos.dataset import DecisionDataset
from memrl.algos.rollout import DivergedError, Rollout
from memrl.algos.shares import Places, require_decisions
from memrl.distributed import ALONE, Ranks

Batches = list[dict[str, Tensor]]
"""Of each kind of decision some rows, as `DecisionDataset.rows` gives them."""


@dataclass(frozen=True)
class Minibatch:
    """This rank's part of a minibatch.

    Attributes:
        batches: its decisions. weight: their part of the decisions that all ranks have of the
            minibatch. A rank with none is given one of weight 0, so that every loss has a value.
    """

    batches: Batches
    weight: float


def minibatches(
    rollout: Rollout,
    columns: Mapping[str, Tensor],
    count: int,
    rng: np.random.Generator,
    device: torch.device,
    ranks: Ranks = ALONE,
) -> Iterator[Minibatch | None]:
    """All decisions once, in random order, of every kind the same share in each minibatch.

    Args:
        columns: (T, B) each, on the device; a decision gets the value of its step and row.
        count: minibatches; where there are fewer decisions, some are None.
        ranks: who shares the decisions.

    Raises:
        RankError: if this rank has none of the decisions.
    """
    require_decisions(ranks, rollout.num_decisions)
    kinds = [(own, _places(rollout, own, ranks)) for own in rollout.decisions.values()]
    orders = [torch.from_numpy(rng.permutation(places.total)) for _, places in kinds]
    for drawn in zip(*(order.tensor_split(count) for order in orders), strict=True):
        total = sum(map(len, drawn))
        if not total:
            yield None
            continue
        parts = [
            (decisions, places.own(index))
            for (decisions, places), index in zip(kinds, drawn, strict=True)
        ]
        own = sum(len(index) for _, index in parts)
        if not own:
            parts = [(decisions, torch.tensor([0])) for decisions, _ in parts if len(decisions)][:1]
        batches = [decisions.rows(index, device) for decisions, index in parts if len(index)]
        for batch in batches:
            place = batch["step"], batch["row"]
            batch |= {name: grid[place] for name, grid in columns.items()}
        yield Minibatch(batches, own / total)


def _places(rollout: Rollout, decisions: DecisionDataset, ranks: Ranks) -> Places:
    """Where decisions of one kind stand among those of all ranks.

    A kind's decisions are kept in the order of their number in their row, then of the row.
    """
    counts = torch.tensor([len(decisions)])
    if not ranks.is_alone:
        number = torch.from_numpy(rollout.is_decision.cumsum(axis=0) - 1)
        own = torch.zeros(0, dtype=torch.int64)
        if len(decisions):
            own = number[decisions.column("step").cpu(), decisions.column("row").cpu()]
        counts = own.bincount(minlength=len(number))
    places = Places(ranks)
    places.add(counts)
    return places


def gradient_step(
    name: str,
    shown: Mapping[str, Tensor],
    network: nn.Module,
    optimizer: torch.optim.Optimizer,
    max_grad_norm: float,
    ranks: Ranks,
    weight: float,
) -> dict[str, float]:
    """Make a step of the optimizer with clipped gradients, those of all ranks together.

    Args:
        shown: the `loss` and metrics, means over this rank's decisions. weight: see `Minibatch`.

    Returns:
        The metrics, over all ranks' decisions.

    Raises:
        DivergedError: if the loss, which the message calls `name`, is not finite on some rank.
    """
    optimizer.zero_grad()
    shown["loss"].backward()  # type: ignore[no-untyped-call]
    numbers = torch.stack(list(shown.values())).detach()
    summed = ranks.sum_gradients(network, numbers, weight).tolist()
    means = dict(zip(shown, summed, strict=True))
    loss = means.pop("loss")
    if not math.isfinite(loss):
        raise DivergedError(f"the {name} is {loss}")
    _step(network, optimizer, max_grad_norm)
    return means


def descend(
    loss: Tensor, network: nn.Module, optimizer: torch.optim.Optimizer, max_grad_norm: float
) -> None:
    """Make a step by the loss's gradients, clipped, in the buffers that hold gradients already.

    They are written there rather than added up by `backward`: the nodes of the graph that add up
    remember the stream on which they were made, which a captured step cannot leave.
    """
    parameters = list(network.parameters())
    gradients = torch.autograd.grad(loss, parameters, materialize_grads=True)
    for parameter, gradient in zip(parameters, gradients, strict=True):
        assert parameter.grad is not None
        parameter.grad.copy_(gradient)
    _step(network, optimizer, max_grad_norm)


def _step(network: nn.Module, optimizer: torch.optim.Optimizer, max_grad_norm: float) -> None:
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
