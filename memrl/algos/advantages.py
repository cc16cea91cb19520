"""Advantages of decisions: over the other copies of an episode, and over what a critic expected."""

from __future__ import annotations

import numpy as np
import numpy.typing as npt
import torch
from torch import Tensor


def group_advantages(
    reward: npt.NDArray[np.float64],
    clock: npt.NDArray[np.int64],
    is_decision: npt.NDArray[np.bool_],
    group_size: int,
) -> npt.NDArray[np.float64]:
    """Reward-to-go of each decision less what the other copies still got from the same event on.

    The value of a copy at event e is the undiscounted sum of its rewards from its first decision at
    or after e on, 0 when no decision comes any more; several decisions at one event count from the
    first. A decision's advantage is its own reward-to-go less the mean of the other copies' values
    at its event. What is subtracted does not depend on the decision, so the gradient is unbiased.

    A reward is paid with the decision after which it falls due. What forced moves earn between two
    decisions, an answer without a choice say, therefore belongs to the decision before them.

    Args:
        reward: (T, B) paid with step t; copies of an episode are `group_size` rows side by side.
        clock: (T, B) events before step t, from any origin that a group shares.
        is_decision: (T, B), whether there was a choice at step t.
        group_size: G, at least 2; divides B.

    Returns:
        (T, B), 0 where there was no decision.
    """
    to_go = np.cumsum(reward[::-1], axis=0)[::-1]
    value = _values(to_go, clock, is_decision)  # (E, B)
    groups = value.reshape(len(value), -1, group_size)
    others = (groups.sum(axis=2, keepdims=True) - groups) / (group_size - 1)
    baseline = np.take_along_axis(others.reshape(value.shape), clock, axis=0)
    return np.where(is_decision, to_go - baseline, 0.0)


def _values(
    to_go: npt.NDArray[np.float64],
    clock: npt.NDArray[np.int64],
    is_decision: npt.NDArray[np.bool_],
) -> npt.NDArray[np.float64]:
    """(E, B) reward still to come at each event, E one more than the latest clock."""
    value = np.full((int(clock.max()) + 1, clock.shape[1]), np.nan)
    for step in reversed(range(len(clock))):  # the first decision at an event is written last
        rows = np.flatnonzero(is_decision[step])
        value[clock[step, rows], rows] = to_go[step, rows]
    later = np.zeros(clock.shape[1])
    for event in reversed(range(len(value))):
        later = np.where(np.isnan(value[event]), later, value[event])
        value[event] = later
    return value


def gae_advantages(
    reward: Tensor,
    clock: Tensor,
    is_decision: Tensor,
    value: Tensor,
    *,
    gamma: float,
    gae_lambda: float,
) -> Tensor:
    """Generalised advantage estimation (Schulman et al., arXiv 1506.02438) between decisions.

    Forced moves have no value: a row's chain holds its decisions alone, and what is paid between
    two of them belongs to the earlier one, undiscounted. Both factors count per event: e events
    lie between two decisions, then the later one weighs `gamma ** e`, and its advantage also
    `gae_lambda ** e`. Several operations at one event are not discounted against each other. An
    episode ends by termination, so nothing is expected after its last decision.

    Args:
        reward: (T, B) paid with step t. clock: (T, B) int64, events before step t, never falling.
        is_decision: (T, B) bool, whether there was a choice at step t.
        value: (T, B) expected discounted reward from step t on; ignored where there was no choice.
        gamma, gae_lambda: in [0, 1]; with `gae_lambda` 1 the advantage is all that was paid, less
            the value.

    Returns:
        (T, B) in the dtype of `reward`, 0 where there was no decision.
    """
    advantages = torch.zeros_like(reward)
    # Of the next decision of each row; before any is met, of the end.
    paid, later_value, later_advantage = reward.new_zeros(3, reward.shape[1])
    later_clock = clock[-1]
    for step in reversed(range(len(reward))):
        here = is_decision[step]
        paid = paid + reward[step]
        elapsed = (later_clock - clock[step]).to(reward.dtype)
        expected = paid + gamma**elapsed * later_value
        own = expected - value[step] + (gamma * gae_lambda) ** elapsed * later_advantage
        advantages[step] = torch.where(here, own, advantages[step])
        paid = torch.where(here, 0.0, paid)
        later_value = torch.where(here, value[step], later_value)
        later_advantage = torch.where(here, own, later_advantage)
        later_clock = torch.where(here, clock[step], later_clock)
    return advantages
