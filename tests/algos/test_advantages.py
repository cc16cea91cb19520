from __future__ import annotations

import gymnasium
import numpy as np
import numpy.typing as npt
import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st

from memrl.algos.advantages import gae_advantages, group_advantages

Floats = npt.NDArray[np.float64]


def slow_advantages(
    reward: Floats, clock: npt.NDArray[np.int64], is_decision: npt.NDArray[np.bool_], size: int
) -> Floats:
    """The definition, row by row."""
    steps, rows = reward.shape
    advantage = np.zeros((steps, rows))
    for row in range(rows):
        first = row - row % size
        others = [other for other in range(first, first + size) if other != row]
        for step in range(steps):
            if not is_decision[step, row]:
                continue
            values = []
            for other in others:
                later = [
                    t
                    for t in range(steps)
                    if is_decision[t, other] and clock[t, other] >= clock[step, row]
                ]
                values.append(reward[later[0] :, other].sum() if later else 0.0)
            advantage[step, row] = reward[step:, row].sum() - np.mean(values)
    return advantage


def made_up(
    seed: int, steps: int = 12, groups: int = 3, size: int = 4
) -> tuple[Floats, npt.NDArray[np.int64], npt.NDArray[np.bool_], int]:
    """Rows of different lengths, several decisions at one event, steps without a choice."""
    rng = np.random.default_rng(seed)
    rows = groups * size
    clock = np.cumsum(rng.integers(0, 3, (steps, rows)), axis=0)
    clock -= clock[0]
    length = rng.integers(1, steps + 1, rows)
    running = np.arange(steps)[:, None] < length
    is_decision = running & (rng.random((steps, rows)) < 0.8)
    return rng.normal(size=(steps, rows)) * running, clock, is_decision, size


@pytest.mark.parametrize("seed", range(8))
def test_it_is_what_the_definition_says(seed: int) -> None:
    case = made_up(seed)
    np.testing.assert_allclose(group_advantages(*case), slow_advantages(*case), atol=1e-12)


def test_a_case_by_hand() -> None:
    """Two copies; the first decides twice at event 3, the second skips from event 0 to 5."""
    reward = np.array([[1.0, 10.0], [2.0, 20.0], [4.0, 0.0]])
    clock = np.array([[0, 0], [3, 5], [3, 5]])
    is_decision = np.array([[True, True], [True, True], [True, False]])
    advantage = group_advantages(reward, clock, is_decision, 2)
    assert advantage.tolist() == [
        [7.0 - 30.0, 30.0 - 7.0],
        [6.0 - 20.0, 20.0 - 0.0],  # at event 5 no decision of the first copy is left
        [4.0 - 20.0, 0.0],
    ]


def test_copies_that_do_the_same_have_no_advantage() -> None:
    reward, _, is_decision, _ = made_up(3, groups=1, size=1)
    clock = np.arange(len(reward))[:, None]  # one decision at an event
    advantage = group_advantages(
        np.repeat(reward, 5, axis=1),
        np.repeat(clock, 5, axis=1),
        np.repeat(is_decision, 5, axis=1),
        5,
    )
    assert not advantage.round(12).any()


def test_groups_do_not_influence_each_other() -> None:
    reward, clock, is_decision, size = made_up(0)
    alone = group_advantages(reward[:, :size], clock[:, :size], is_decision[:, :size], size)
    np.testing.assert_allclose(
        group_advantages(reward, clock, is_decision, size)[:, :size], alone, atol=1e-12
    )


@pytest.mark.parametrize("probability", [0.2, 0.5, 0.7])
def test_the_leave_one_out_mean_leaves_the_gradient_unbiased(probability: float) -> None:
    """Two actions, rewards 1 and 3: the exact mean over all plays of a group is the gradient.

    With the mean over the whole group instead, it would be (G - 1) / G of it.
    """
    size, rewards = 3, (1.0, 3.0)
    expected = 0.0
    for plays in np.ndindex(*(2,) * size):
        chance = np.prod([probability if play else 1 - probability for play in plays])
        reward = np.array([[rewards[play] for play in plays]])
        clock, is_decision = np.zeros((1, size), dtype=np.int64), np.ones((1, size), dtype=bool)
        advantage = group_advantages(reward, clock, is_decision, size)[0]
        score = np.array([play - probability for play in plays])  # d log p / d logit
        expected += float(chance * (advantage * score).mean())
    gradient = probability * (1 - probability) * (rewards[1] - rewards[0])
    assert expected == pytest.approx(gradient)


# ---------------------------------------------------------------------------------------- GAE


def slow_gae(
    reward: Floats,
    clock: npt.NDArray[np.int64],
    is_decision: npt.NDArray[np.bool_],
    value: Floats,
    gamma: float,
    gae_lambda: float,
) -> Floats:
    """The sum of a row's later temporal differences, each weighed by the events until it."""
    steps, rows = reward.shape
    advantage = np.zeros((steps, rows))
    for row in range(rows):
        chain = [step for step in range(steps) if is_decision[step, row]]
        differences = []
        for first, second in zip(chain, [*chain, None][1:], strict=True):
            paid = reward[first:second, row].sum()
            later = 0.0
            if second is not None:
                elapsed = int(clock[second, row] - clock[first, row])
                later = gamma**elapsed * value[second, row]
            differences.append(paid + later - value[first, row])
        for place, step in enumerate(chain):
            for further in range(place, len(chain)):
                elapsed = int(clock[chain[further], row] - clock[step, row])
                advantage[step, row] += (gamma * gae_lambda) ** elapsed * differences[further]
    return advantage


def gae(
    reward: npt.ArrayLike,
    clock: npt.ArrayLike,
    is_decision: npt.ArrayLike,
    value: npt.ArrayLike,
    gamma: float,
    gae_lambda: float,
) -> Floats:
    result = gae_advantages(
        torch.as_tensor(reward, dtype=torch.float64),
        torch.as_tensor(clock),
        torch.as_tensor(is_decision),
        torch.as_tensor(value, dtype=torch.float64),
        gamma=gamma,
        gae_lambda=gae_lambda,
    )
    assert result.dtype == torch.float64
    return result.numpy()


factors = st.sampled_from([0.0, 0.5, 0.9, 0.99, 1.0])


@settings(max_examples=40)
@given(seed=st.integers(0, 10**6), steps=st.integers(1, 14), gamma=factors, gae_lambda=factors)
def test_gae_is_what_the_definition_says(
    seed: int, steps: int, gamma: float, gae_lambda: float
) -> None:
    reward, clock, is_decision, _ = made_up(seed, steps, groups=2, size=3)
    value = np.random.default_rng(seed + 1).normal(size=reward.shape)
    case = (reward, clock, is_decision, value, gamma, gae_lambda)
    np.testing.assert_allclose(gae(*case), slow_gae(*case), atol=1e-12)


def column(*values: float) -> npt.NDArray[np.float64]:
    return np.array(values)[:, None]


def test_gae_by_hand() -> None:
    """Decisions at events 0, 0 and 2; a forced move at event 1 earns 4 and ends no chain."""
    advantage = gae(
        column(1.0, 2.0, 4.0, 8.0),
        column(0, 0, 1, 2).astype(int),
        column(1, 1, 0, 1).astype(bool),
        column(10.0, 20.0, 999.0, 40.0),
        0.5,
        0.4,
    )[:, 0]
    last = 8.0 - 40.0  # nothing is expected after the end
    second = (2.0 + 4.0 + 0.5**2 * 40.0 - 20.0) + (0.5 * 0.4) ** 2 * last
    first = (1.0 + 20.0 - 10.0) + second  # at the same event: neither discount nor lambda
    assert advantage.tolist() == pytest.approx([first, second, 0.0, last])


@pytest.mark.parametrize(("gamma", "gae_lambda"), [(0.5, 0.5), (0.9, 0.0)])
def test_operations_at_one_event_are_not_discounted_against_each_other(
    gamma: float, gae_lambda: float
) -> None:
    """However many come before a reward at the same event, each gets all of it."""
    size = 6
    reward = np.zeros((size, 1))
    reward[-1] = 3.0
    at_once = gae(
        reward,
        np.zeros((size, 1), dtype=int),
        np.ones((size, 1), dtype=bool),
        np.zeros((size, 1)),
        gamma,
        gae_lambda,
    )
    assert at_once[:, 0].tolist() == [3.0] * size
    apart = gae(
        reward,
        np.arange(size)[:, None],
        np.ones((size, 1), dtype=bool),
        np.zeros((size, 1)),
        gamma,
        gae_lambda,
    )
    assert apart[:, 0].tolist() == pytest.approx(
        [3.0 * (gamma * gae_lambda) ** (size - 1 - step) for step in range(size)]
    )


def test_with_lambda_1_it_is_all_that_was_paid_less_the_value() -> None:
    reward, clock, is_decision, _ = made_up(5)
    value = np.random.default_rng(0).normal(size=reward.shape)
    to_go = np.cumsum(reward[::-1], axis=0)[::-1]
    expected = np.where(is_decision, to_go - value, 0.0)
    advantage = gae(reward, clock, is_decision, value, 1.0, 1.0)
    np.testing.assert_allclose(advantage, expected, atol=1e-12)


def test_a_critic_that_knows_everything_leaves_no_advantage() -> None:
    reward, clock, is_decision, _ = made_up(6)
    value = gae(reward, clock, is_decision, np.zeros_like(reward), 0.9, 1.0)
    for gae_lambda in (0.0, 0.7, 1.0):
        left = gae(reward, clock, is_decision, value, 0.9, gae_lambda)
        assert not left.round(12).any()


def test_with_a_decision_at_every_event_it_is_that_of_stable_baselines3() -> None:
    buffers = pytest.importorskip("stable_baselines3.common.buffers")
    steps, rows, gamma, gae_lambda = 9, 4, 0.97, 0.8
    rng = np.random.default_rng(3)
    reward, value = rng.normal(size=(2, steps, rows)).astype(np.float32)
    box = gymnasium.spaces.Box(-1.0, 1.0, (1,))
    buffer = buffers.RolloutBuffer(
        steps, box, box, device="cpu", gae_lambda=gae_lambda, gamma=gamma, n_envs=rows
    )
    buffer.rewards[:], buffer.values[:] = reward, value
    buffer.compute_returns_and_advantage(torch.zeros(rows), np.ones(rows))
    clock = np.repeat(np.arange(steps)[:, None], rows, axis=1)
    advantage = gae(reward, clock, np.ones_like(clock, dtype=bool), value, gamma, gae_lambda)
    np.testing.assert_allclose(advantage, buffer.advantages, rtol=1e-5, atol=1e-5)
