from __future__ import annotations

import numpy as np
import numpy.typing as npt
import pytest

from memrl.algos.advantages import group_advantages

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
