"""Learning in fixed shapes gives what the eager reference gives."""

from __future__ import annotations

import warnings
from typing import Any

import pytest
import torch
from small_learners import learner
from torch import Tensor

from memrl.algos.policy_gradient import PolicyGradient
from memrl.algos.rollout import DivergedError
from memrl.algos.static_rollout import StaticRollouts
from memrl.algos.static_update import StaticUpdates
from memrl.policy_gradient_config import Tier

every_learner = pytest.mark.parametrize(
    ("kind", "trained"), [("group", ["loss"]), ("ppo", ["loss", "value loss"])]
)


def assert_same_learning(expected: PolicyGradient, got: PolicyGradient) -> None:
    for _ in range(2):
        reference, metrics = expected.iterate(), got.iterate()
        assert reference.keys() == metrics.keys()
        for name in reference.keys() - {"rollout/steps"}:  # rows that wait take more of them
            assert metrics[name] == pytest.approx(reference[name], rel=1e-3, abs=1e-5), name
    for module, own in expected._modules().items():
        for one, two in zip(own.parameters(), got._modules()[module].parameters(), strict=True):
            torch.testing.assert_close(one, two.cpu(), rtol=1e-3, atol=1e-5)


def eager_rollouts(*args: Any, **settings: Any) -> StaticRollouts:
    return StaticRollouts(*args, **settings | {"tier": "eager"})


@every_learner
def test_compiled_learning_is_eager_learning(
    kind: str, trained: list[str], monkeypatch: pytest.MonkeyPatch
) -> None:
    if kind == "ppo":  # rollouts are those of the other learner, and take long to compile
        monkeypatch.setattr("memrl.algos.policy_gradient.StaticRollouts", eager_rollouts)
    got = learner(kind, kl_coef=0.01, tier="compile")
    with warnings.catch_warnings():
        warnings.simplefilter("error", RuntimeWarning)
        assert_same_learning(learner(kind, kl_coef=0.01), got)
    assert [*got._passes.static] == trained
    assert {static.tier for static in got._passes.static.values()} == {"compile"}


@pytest.mark.gpu
@pytest.mark.skipif(not torch.cuda.is_available(), reason="there is no CUDA device")
@every_learner
@pytest.mark.parametrize("tier", ["eager", "compile", "cudagraph"])
def test_every_tier_on_a_gpu_learns_as_a_cpu_does(
    kind: str, trained: list[str], tier: Tier
) -> None:
    got = learner(kind, kl_coef=0.01, tier=tier, device="cuda", backend="inductor")
    with warnings.catch_warnings():
        warnings.simplefilter("error", RuntimeWarning)
        assert_same_learning(learner(kind, kl_coef=0.01), got)
    if tier != "eager":
        assert [*got._passes.static] == trained
        assert {static.tier for static in got._passes.static.values()} == {tier}


def made_updates(tier: Tier = "eager") -> tuple[StaticUpdates, torch.nn.Linear]:
    network = torch.nn.Linear(1, 1)
    with torch.no_grad():
        network.weight.fill_(2.0)
        network.bias.fill_(0.0)

    def losses(batches: list[dict[str, Tensor]], coefficient: Tensor) -> dict[str, Tensor]:
        value = network(batches[0]["x"][:, None])[:, 0] * batches[0]["weight"]
        return {"loss": value.sum() + coefficient, "losses/value": value.sum().detach()}

    optimizer = torch.optim.SGD(network.parameters(), lr=0.1)
    return StaticUpdates(losses, network, optimizer, 1e9, tier, name="made-up loss"), network


def batch(*values: float) -> list[dict[str, Tensor]]:
    size = len(values)
    return [
        {
            "x": torch.tensor(values),
            "action": torch.zeros(size, dtype=torch.int64),
            "action_mask": torch.ones((size, 2), dtype=torch.bool),
        }
    ]


def test_rows_left_from_a_larger_minibatch_do_not_count() -> None:
    updates, network = made_updates()
    updates.begin_pass(0.0)
    updates(batch(1.0, 2.0, 3.0))  # value 12; the weight falls by .1 x 6
    updates(batch(10.0))  # 10 x 1.4 + bias -.3
    assert network.weight.item() == pytest.approx(2.0 - 0.6 - 1.0)
    assert updates.end_pass(2) == {"losses/value": pytest.approx((12.0 + 13.7) / 2)}
    updates.begin_pass(0.0)
    assert updates.end_pass(1) == {"losses/value": 0.0}


def test_buffers_grow_with_the_minibatch() -> None:
    updates, network = made_updates()
    updates.begin_pass(0.0)
    updates(batch(1.0))
    updates(batch(*[0.001] * 1_000))
    assert network.weight.item() == pytest.approx(2.0 - 0.1 - 0.1)


def test_a_loss_that_is_not_finite_is_named_at_the_end_of_the_pass() -> None:
    updates, _ = made_updates()
    updates.begin_pass(0.0)
    updates(batch(float("nan")))
    with pytest.raises(DivergedError, match="the made-up loss is not finite"):
        updates.end_pass(1)
