"""What PPO has besides what policy gradients share: the critic, and advantages by its values."""

from __future__ import annotations

from typing import Any

import numpy as np
import numpy.typing as npt
import pytest
import torch
from small_learners import SMALL, equal, learner, part
from torch import Tensor

from memrl.algos.advantages import gae_advantages
from memrl.algos.ppo import PPO, explained_variance, value_loss
from memrl.algos.rollout import DivergedError, Rollout
from memrl.policy_gradient_config import PPOConfig


def ppo(seed: int = 0, *, settings: dict[str, Any] | None = None, **values: Any) -> PPO:
    """A learner on the small table; `settings` are those of `PPOConfig`."""
    own = PPOConfig(**{"critic_learning_rate": 1e-2} | (settings or {}))
    made = learner("ppo", seed, ppo=own, **values)
    assert isinstance(made, PPO)
    return made


Judged = tuple[Rollout, npt.NDArray[np.float64]]


def judged(made: PPO, monkeypatch: pytest.MonkeyPatch) -> list[Judged]:
    """Rollouts and the advantages that the policy is fitted with, filled in by `iterate`."""
    seen: list[Judged] = []
    fit = made._fit

    def recording(rollout: Rollout, advantages: Any, on_step: Any) -> dict[str, float]:
        seen.append((rollout, advantages))
        return fit(rollout, advantages, on_step)

    monkeypatch.setattr(made, "_fit", recording)
    return seen


# ---------------------------------------------------------------------------------------- losses


@pytest.mark.parametrize(
    ("value", "before", "target", "plain", "bounded"),
    [
        (1.0, 1.0, 3.0, 2.0, 2.0),
        (2.0, 1.0, 3.0, 0.5, 1.62),  # counts as 1.2 only
        (0.0, 1.0, 3.0, 4.5, 4.5),  # what got worse is not hidden
        (1.1, 1.0, 3.0, 1.805, 1.805),
    ],
)
def test_the_value_loss(
    value: float, before: float, target: float, plain: float, bounded: float
) -> None:
    values = torch.tensor([value], requires_grad=True)
    others = torch.tensor([before]), torch.tensor([target])
    assert float(value_loss(values.detach(), *others, None)) == pytest.approx(plain)
    loss = value_loss(values, *others, 0.2)
    assert float(loss.detach()) == pytest.approx(bounded)
    loss.backward()  # type: ignore[no-untyped-call]
    assert values.grad is not None
    slope = 0.0 if bounded > plain else value - target
    assert float(values.grad) == pytest.approx(slope)


def test_the_value_loss_is_a_mean() -> None:
    loss = value_loss(torch.tensor([1.0, 2.0]), torch.zeros(2), torch.tensor([0.0, 4.0]), None)
    assert float(loss) == pytest.approx((0.5 + 2.0) / 2)


@pytest.mark.parametrize(
    ("values", "returns", "share"),
    [
        ([1.0, 2.0, 3.0], [1.0, 2.0, 3.0], 1.0),
        ([5.0, 5.0, 5.0], [1.0, 2.0, 3.0], 0.0),
        ([3.0, 2.0, 1.0], [1.0, 2.0, 3.0], -3.0),
        ([10.5, 11.0, 11.5], [1.0, 2.0, 3.0], 0.75),  # a constant too much explains no less
        ([1.0, 2.0, 3.0], [4.0, 4.0, 4.0], 0.0),
    ],
)
def test_explained_variance(values: list[float], returns: list[float], share: float) -> None:
    assert explained_variance(torch.tensor(values), torch.tensor(returns)) == pytest.approx(share)


# ---------------------------------------------------------------------------------------- critic


def test_learning_the_values_moves_no_weight_of_the_policy() -> None:
    """Two critics that learn differently: after one iteration the policies are the same bits."""
    first = ppo()
    second = ppo(settings={"critic_learning_rate": 1e-4, "critic_epochs": 5})
    for made in (first, second):
        start = part(made, "network")
        made.iterate()
        assert not equal(part(made, "network"), start)
    assert equal(part(first, "network"), part(second, "network"))
    assert not equal(part(first, "critic"), part(second, "critic"))


def test_the_critic_has_weights_of_its_own() -> None:
    made = ppo()
    shared = {value.data_ptr() for value in made.network.parameters()} & {
        value.data_ptr() for value in made.critic.parameters()
    }
    assert not shared


@pytest.mark.parametrize("gamma", [1.0, 0.8])
def test_the_critic_begins_at_the_mean_of_what_was_paid(
    gamma: float, monkeypatch: pytest.MonkeyPatch
) -> None:
    made = ppo(settings={"gamma": gamma}, cost_anneal_frac=0.0)
    seen = judged(made, monkeypatch)
    metrics = made.iterate()
    ((rollout, _),) = seen
    paid = []
    for row in range(rollout.clock.shape[1]):
        steps = np.flatnonzero(rollout.is_decision[:, row])
        reward, clock = rollout.reward_terms[:, row].sum(axis=1), rollout.clock[:, row]
        for step in steps:
            weights = gamma ** (clock[steps] - clock[step]) * (steps >= step)
            sums = np.add.reduceat(reward, steps)
            paid.append(float((weights * sums).sum()))
    assert float(made.critic.shift) == pytest.approx(np.mean(paid), rel=1e-5)
    assert float(made.critic.scale) == pytest.approx(np.std(paid), rel=1e-5)
    assert metrics["losses/explained_variance"] == pytest.approx(0.0, abs=1e-6)
    before = float(made.critic.shift), float(made.critic.scale)
    made.iterate()
    assert (float(made.critic.shift), float(made.critic.scale)) == before


def test_a_restart_begins_with_a_fresh_critic() -> None:
    made = ppo()
    made.iterate()
    learned = part(made, "critic")
    made.restart()
    fresh = part(made, "critic")
    assert not equal(fresh, learned)
    assert float(made.critic.shift) == 0.0
    assert not fresh["value_head.weight"].any()
    assert made.checkpoint()[1]["critic_optimizer"]["state"] == {}
    again = ppo()
    assert not torch.equal(
        fresh["slot_encoder.weight"], part(again, "critic")["slot_encoder.weight"]
    )


def test_the_critic_learns_what_is_still_to_come() -> None:
    """The policy hardly moves, so later values are of the play that earlier ones learned from."""
    made = ppo(
        settings={"critic_epochs": 8},
        num_groups=24,
        group_size=1,
        learning_rate=1e-5,
        anneal_lr=False,
        cost_anneal_frac=0.0,
    )
    explained = [made.iterate()["losses/explained_variance"] for _ in range(7)]
    assert explained[0] == pytest.approx(0.0, abs=1e-6)
    assert np.mean(explained[3:]) > 0.15


def test_the_rate_of_the_critic_falls_with_that_of_the_policy() -> None:
    made = ppo()
    made.iterate()
    metrics = made.iterate()
    share = metrics["charts/learning_rate"] / SMALL.learning_rate
    assert 0 < share < 1
    (settings,) = made._critic_optimizer.param_groups
    assert settings["lr"] == pytest.approx(1e-2 * share)


def test_values_can_be_bounded() -> None:
    """By as much as the ratio: 0.001 is soon passed."""
    free, bounded = (
        ppo(settings={"clip_vloss": clip_vloss}, clip_coef=1e-3) for clip_vloss in (False, True)
    )
    for made in (free, bounded):
        made.iterate()
    assert not equal(part(free, "critic"), part(bounded, "critic"))
    assert equal(part(free, "network"), part(bounded, "network"))


# ------------------------------------------------------------------------------- advantages


def test_advantages_are_what_was_paid_over_what_the_critic_expected(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    made = ppo(settings={"gamma": 0.9, "gae_lambda": 0.7}, cost_anneal_frac=0.0)
    made.iterate()
    seen = judged(made, monkeypatch)
    critic = {name: value.clone() for name, value in made.critic.state_dict().items()}
    metrics = made.iterate()
    ((rollout, advantages),) = seen
    made.critic.load_state_dict(critic)
    value = torch.zeros(rollout.clock.shape, dtype=torch.float64)
    for decisions in rollout.decisions.values():
        batch = decisions.rows(torch.arange(len(decisions)), torch.device("cpu"))
        with torch.no_grad():
            own: Tensor = made.critic(batch) * critic["scale"] + critic["shift"]
        value[batch["step"], batch["row"]] = own.double()
    chose = rollout.is_decision
    assert len(set(value[torch.from_numpy(chose)].tolist())) > 50
    expected = gae_advantages(
        torch.from_numpy(rollout.reward_terms.sum(axis=2)),
        torch.from_numpy(rollout.clock),
        torch.from_numpy(chose),
        value,
        gamma=0.9,
        gae_lambda=0.7,
    ).numpy()
    expected = np.where(chose, expected - expected[chose].mean(), 0.0)
    np.testing.assert_allclose(advantages, expected, atol=1e-6)
    assert advantages[chose].mean() == pytest.approx(0.0, abs=1e-12)
    assert metrics["rollout/advantage_std"] == pytest.approx(advantages[chose].std())


def test_it_needs_no_copies_of_an_episode() -> None:
    made = ppo(num_groups=12, group_size=1)
    for _ in range(2):
        metrics = made.iterate()
    assert all(np.isfinite(value) for value in metrics.values())
    assert metrics["rollout/decisions"] > 100


# ------------------------------------------------------------------------------- divergence


@pytest.mark.parametrize(
    ("bias", "message"),
    [(torch.nan, "the values of the critic are not finite"), (1e25, "the value loss is inf")],
)
def test_a_critic_that_diverges_stops_learning(bias: float, message: str) -> None:
    made = ppo()
    made.iterate()
    steps = made.steps
    with torch.no_grad():
        made.critic.value_head.bias.fill_(bias)
    with pytest.raises(DivergedError, match=message):
        made.iterate()
    assert made.steps == steps
    assert all(value.abs().max() < 1e3 for value in made.checkpoint()[0].values())


def test_a_weight_of_the_critic_that_is_not_finite_is_named() -> None:
    made = ppo(num_minibatches=1, settings={"critic_epochs": 1})
    made.critic.value_head.weight.register_hook(  # type: ignore[no-untyped-call]
        lambda grad: grad * torch.nan
    )
    with pytest.raises(DivergedError, match=r"critic\.slot_encoder\.weight is not finite"):
        made.iterate()
    assert made.steps == 0
    assert all(value.isfinite().all() for value in made.checkpoint()[0].values())
