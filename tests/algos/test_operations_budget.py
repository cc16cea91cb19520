"""A budget of operations: its price follows what rollouts take, and play follows the price."""

from __future__ import annotations

from typing import Any

import numpy as np
import pytest
from small_learners import learner

from memrl.algos.rollout import Rollout
from memrl.learning import beyond

every_learner = pytest.mark.parametrize("kind", ["group", "ppo"])


def test_operations_are_what_costs_were_charged_for(monkeypatch: pytest.MonkeyPatch) -> None:
    made = learner()
    seen: list[Rollout] = []
    play = made._play

    def noting(*arguments: Any) -> Rollout:
        seen.append(play(*arguments))
        return seen[-1]

    monkeypatch.setattr(made, "_play", noting)
    metrics = made.iterate()
    [rollout] = seen
    costs = [n for n, name in enumerate(made._group.reward_names) if name.startswith("cost/")]
    charged = (rollout.reward_terms[..., costs] < 0).any(axis=2)
    operations = rollout.is_operation()
    assert not (charged & ~operations).any(), "YIELD is free"
    assert charged.sum() == operations.sum() > 0
    assert not (operations & ~rollout.is_decision).any()
    assert metrics["rollout/operations_per_question"] > 0


@every_learner
def test_the_price_follows_what_rollouts_take(kind: str) -> None:
    made = learner(kind, operations_budget=1.0, price_rate=0.5)
    price = 0.0
    for _ in range(3):
        metrics = made.iterate()
        assert metrics["charts/operation_price"] == pytest.approx(price)
        price = max(0.0, price + 0.5 * (metrics["rollout/operations_per_question"] - 1.0))
    assert made.price == pytest.approx(price)
    assert made.price > 0
    again = learner(kind, operations_budget=1.0, price_rate=0.5)
    again.restore(*made.checkpoint())
    assert again.price == made.price
    made.restart()
    assert made.price == 0.0


def test_a_budget_that_is_kept_costs_nothing() -> None:
    free, bound = learner(), learner(operations_budget=1e6)
    for made in (free, bound):
        made.iterate()
        made.iterate()
    assert bound.price == 0.0
    for name, value in free.checkpoint()[0].items():
        assert np.array_equal(value.numpy(), bound.checkpoint()[0][name].numpy()), name


def test_under_a_price_fewer_operations_are_chosen() -> None:
    taken = {}
    for budget in (None, 0.0):
        made = learner(operations_budget=budget, price_rate=0.5)
        for _ in range(6):
            metrics = made.iterate()
        taken[budget] = metrics["rollout/operations_per_question"]
    assert taken[0.0] < 0.6 * taken[None]


def test_a_score_beyond_the_budget_is_below_all_within() -> None:
    assert beyond(None, 50.0) == beyond(2.0, 2.0) == beyond(2.0, 0.0) == 0.0
    assert beyond(2.0, 2.1) > 50.0
    assert beyond(2.0, 4.0) > beyond(2.0, 3.0)
