"""What policy gradients share; what PPO has besides is in `test_ppo.py`."""

from __future__ import annotations

from dataclasses import replace
from typing import Any

import learnable
import numpy as np
import pytest
import torch
from learnable import learnable_table
from small_learners import OPTIONS, SMALL, equal, learner, maker, part, weights

from envs.batched import BatchedPaging
from memrl.actions import Op
from memrl.algos.policy_gradient import PolicyGradient
from memrl.algos.rollout import DivergedError
from memrl.algos.updates import clipped_loss
from memrl.checkpoint import load_checkpoint, save_checkpoint, under
from memrl.config import NetworkConfig
from memrl.evaluation.lineup import Arena
from memrl.evaluation.play import mean_reward_per_question
from memrl.policies.base import Contestant
from memrl.policies.heuristics import YieldOnly
from memrl.policies.network import SetNetwork
from memrl.policy_gradient_config import PolicyGradientConfig
from memrl.seeding import Streams

every_learner = pytest.mark.parametrize("kind", ["group", "ppo"])


# ---------------------------------------------------------------------------------------- objective


@pytest.mark.parametrize(
    ("ratio", "advantage", "loss", "slope"),
    [
        (1.0, 2.0, -2.0, -2.0),
        (1.1, 2.0, -2.2, -2.0),
        (1.5, 2.0, -2.4, 0.0),  # enough has been gained
        (0.5, 2.0, -1.0, -2.0),  # what got worse is taken back
        (0.5, -2.0, 1.6, 0.0),
        (1.5, -2.0, 3.0, 2.0),
    ],
)
def test_the_clipped_objective(ratio: float, advantage: float, loss: float, slope: float) -> None:
    ratios = torch.tensor([ratio], requires_grad=True)
    value = clipped_loss(ratios, torch.tensor([advantage]), 0.2)
    value.backward()  # type: ignore[no-untyped-call]
    assert ratios.grad is not None
    assert float(value.detach()) == pytest.approx(loss)
    assert float(ratios.grad) == pytest.approx(slope)


def test_the_objective_is_a_mean() -> None:
    value = clipped_loss(torch.tensor([1.0, 1.5]), torch.tensor([3.0, 1.0]), 0.2)
    assert float(value) == pytest.approx(-(3.0 + 1.2) / 2)


def test_the_costs_rise_from_nothing_to_what_they_are() -> None:
    made = learner(cost_anneal_frac=0.5)
    rollout_weights = []
    for steps in (0, 1_000, 2_000, 4_000):
        made.steps = steps
        rollout_weights.append(made._cost_weight())
    assert rollout_weights == [0.0, 0.5, 1.0, 1.0]
    assert learner(cost_anneal_frac=0.0)._cost_weight() == 1.0


def test_the_learning_rate_falls_with_the_decisions_played() -> None:
    made = learner()
    first = made.iterate()["charts/learning_rate"]
    second = made.iterate()["charts/learning_rate"]
    assert first == SMALL.learning_rate
    remaining = 1 - first_steps(made) / SMALL.total_timesteps
    assert second == pytest.approx(SMALL.learning_rate * remaining)
    constant = learner(anneal_lr=False)
    for _ in range(2):
        assert constant.iterate()["charts/learning_rate"] == SMALL.learning_rate


def first_steps(made: PolicyGradient) -> float:
    """Decisions of a learner's first iteration."""
    del made
    return learner().iterate()["rollout/decisions"]


def test_operations_begin_about_equally_likely_and_restaging_rarer() -> None:
    """Output weights at 0 leave the initial balance alone."""
    made = learner(options=replace(OPTIONS, num_candidates=5, evict_scope="any"))
    with torch.no_grad():
        made.network.operation_head.weight.zero_()
        for pointer in (made.network.slot_pointer, made.network.candidate_pointer):
            pointer.out.weight.zero_()
            pointer.out.bias.zero_()
    observation = {
        "slots": torch.zeros(1, 4, made.network.slot_encoder.in_features),
        "candidates": torch.zeros(1, 5, made.network.slot_encoder.in_features),
        "globals": torch.zeros(1, made.network.global_encoder.in_features),
    }
    odds = made._logits(observation).exp()[0]
    layout = made._group.layout
    for op, rows in ((Op.NEXT, 1), (Op.EVICT, 3), (Op.STORE, 1), (Op.SEARCH, 3), (Op.RETRIEVE, 5)):
        expected = np.exp(-3.0) if op in (Op.NEXT, Op.SEARCH) else 1.0
        assert float(odds[layout.block(op)][0].detach()) * rows == pytest.approx(expected), op.name


# ---------------------------------------------------------------------------------------- learning


@every_learner
def test_an_iteration_counts_its_decisions_and_says_how_it_went(kind: str) -> None:
    made = learner(kind)
    metrics = made.iterate()
    assert made.steps == made.total_steps == metrics["rollout/decisions"] > 100
    assert made.iteration == 1
    assert metrics["losses/entropy"] > 0
    assert 0 <= metrics["losses/clipfrac"] < 1
    assert metrics["losses/anchor_kl"] == 0.0
    assert all(np.isfinite(value) for value in metrics.values())
    assert -2 < metrics["rollout/reward_per_question"] < metrics["rollout/evidence_recall"] < 1


def test_the_first_iterations_are_those_that_were_recorded() -> None:
    """What is shared with other learners may change in form, not in what it computes."""
    made = learner(seed=3)
    recorded = [
        {
            "rollout/decisions": 194.0,
            "rollout/evidence_recall": 0.1830065359477124,
            "rollout/advantage_std": 0.3301485026430197,
            "losses/policy_loss": 0.06500428666671117,
            "losses/entropy": 0.8234316905339559,
            "losses/approx_kl": 0.0017661708407104015,
            "losses/clipfrac": 0.0,
            "charts/learning_rate": 0.01,
            "charts/cost_weight": 0.0,
        },
        {
            "rollout/decisions": 195.0,
            "rollout/evidence_recall": 0.1797385620915033,
            "rollout/advantage_std": 0.513198399827217,
            "losses/policy_loss": -0.0486793319384257,
            "losses/entropy": 0.8695158759752909,
            "losses/approx_kl": 0.00016047463577706367,
            "losses/clipfrac": 0.0,
            "charts/learning_rate": 0.009515000000000001,
            "charts/cost_weight": 0.2425,
        },
        {
            "rollout/decisions": 199.0,
            "rollout/evidence_recall": 0.10784313725490197,
            "rollout/advantage_std": 0.36163723163212197,
            "losses/policy_loss": -0.02216954529285431,
            "losses/entropy": 0.8786607583363851,
            "losses/approx_kl": 0.0005443268067513903,
            "losses/clipfrac": 0.0,
            "charts/learning_rate": 0.009027499999999999,
            "charts/cost_weight": 0.48625,
        },
    ]
    for expected in recorded:
        metrics = made.iterate()
        assert {name: metrics[name] for name in expected} == pytest.approx(expected, rel=1e-4)


@every_learner
@pytest.mark.parametrize("slot_pool", [False, True])
def test_the_first_minibatch_sees_the_policy_that_played(kind: str, slot_pool: bool) -> None:
    """With one update the ratio is 1 for all decisions, of both kinds, to rounding."""
    made = learner(kind, slot_pool=slot_pool, update_epochs=1, num_minibatches=1)
    metrics = made.iterate()
    assert metrics["losses/approx_kl"] == pytest.approx(0.0, abs=1e-6)
    assert metrics["losses/clipfrac"] == 0.0
    assert made.iterate()["losses/entropy"] != metrics["losses/entropy"]


def test_an_anchor_keeps_the_policy_near_its_start() -> None:
    drifts = []
    for kl_coef in (1e-6, 10.0):
        made = learner(kl_coef=kl_coef, learning_rate=3e-2)
        drifts.append([made.iterate()["losses/anchor_kl"] for _ in range(4)][-1])
    assert drifts[0] > 0
    assert drifts[1] < 0.3 * drifts[0]


@every_learner
def test_it_starts_from_the_weights_it_is_given(kind: str) -> None:
    with torch.random.fork_rng(devices=[]):
        torch.manual_seed(7)
        given = SetNetwork(8, slot_pool=False).state_dict()
    made = learner(kind, initial=given)
    assert equal(dict(made.network.state_dict()), given)
    made.iterate()
    assert not equal(dict(made.network.state_dict()), given)
    made.restart()
    assert equal(dict(made.network.state_dict()), given)


@every_learner
def test_a_restart_is_a_new_attempt(kind: str) -> None:
    made = learner(kind)
    first = weights(made)
    made.iterate()
    played = made.total_steps
    made.restart()
    assert (made.attempt, made.iteration, made.steps) == (1, 0, 0)
    assert made.total_steps == played
    assert made.checkpoint()[1]["optimizer"]["state"] == {}
    assert not equal(weights(made), first)
    assert made.iterate() != learner(kind).iterate()


@every_learner
def test_it_learns_what_to_store_and_to_retrieve(kind: str) -> None:
    """From random weights and the reward alone, in a few seconds; the clairvoyant gets .975."""
    table = learnable_table()
    config = PolicyGradientConfig(
        total_timesteps=20_000,
        num_groups=8,
        group_size=12,
        num_minibatches=4,
        learning_rate=5e-3,
        temperature=0.02,
        ent_coef=0.003,
    )
    made = maker(kind)(
        BatchedPaging(table, learnable.OPTIONS, 96),
        NetworkConfig(hidden=16, slot_pool=False),
        config,
        Streams(1),
        gain_scale=0.1,
        initial=None,
        device=torch.device("cpu"),
    )
    while made.steps < config.total_timesteps:
        made.iterate()
    arena = Arena(table, learnable.OPTIONS, BatchedPaging)
    greedy, sampled, alone = arena.play(
        [
            Contestant("greedy", made.policy),
            Contestant("sampled", made.sampled_policy(np.random.default_rng(0))),
            Contestant("alone", YieldOnly()),
        ]
    )
    assert mean_reward_per_question(alone) == 0.0
    assert mean_reward_per_question(greedy) > 0.5
    assert 0.2 < mean_reward_per_question(sampled) < mean_reward_per_question(greedy)


# ---------------------------------------------------------------------------------------- seeds


@every_learner
def test_the_same_seed_gives_the_same_learner(kind: str) -> None:
    first, again, other = (learner(kind, seed) for seed in (0, 0, 1))
    for made in (first, again, other):
        made.iterate()
    assert equal(weights(first), weights(again))
    assert not equal(weights(first), weights(other))


@every_learner
def test_global_random_state_plays_no_part(kind: str) -> None:
    first, second = learner(kind), learner(kind)
    first.iterate()
    torch.manual_seed(99)
    np.random.seed(99)  # noqa: NPY002
    state = torch.get_rng_state()
    second.iterate()
    assert torch.equal(torch.get_rng_state(), state)
    assert equal(weights(first), weights(second))


@every_learner
def test_a_restored_learner_continues_to_the_same_numbers(tmp_path: Any, kind: str) -> None:
    whole, first = learner(kind), learner(kind)
    for _ in range(4):
        whole.iterate()
    first.iterate()
    first.iterate()
    save_checkpoint(tmp_path, *first.checkpoint())
    resumed = learner(kind)
    resumed.restore(*load_checkpoint(tmp_path))
    assert (resumed.iteration, resumed.steps) == (first.iteration, first.steps)
    resumed.iterate()
    resumed.iterate()
    assert equal(weights(resumed), weights(whole))
    assert resumed.checkpoint()[1] == whole.checkpoint()[1]


@pytest.mark.parametrize(
    ("kind", "before_the_end", "moved"),
    [  # the policy is fitted in 6 minibatches, then the critic in 6
        pytest.param("group", 7, (), id="playing"),
        pytest.param("group", 1, ("network",), id="fitting"),
        pytest.param("ppo", 13, (), id="playing-ppo"),
        pytest.param("ppo", 7, ("network",), id="fitting-policy"),
        pytest.param("ppo", 1, ("network", "critic"), id="fitting-critic"),
    ],
)
def test_an_iteration_that_is_stopped_leaves_the_checkpoint_before_it(
    kind: str, before_the_end: int, moved: tuple[str, ...]
) -> None:
    made = learner(kind)
    made.iterate()
    tensors, state = weights(made), made.checkpoint()[1]
    calls = 0

    def count() -> None:
        nonlocal calls
        calls += 1

    made.iterate(count)
    last = calls - before_the_end
    calls = 0

    def stop() -> None:
        count()
        if calls == last:
            raise KeyboardInterrupt

    fresh = learner(kind)
    fresh.restore(tensors, state)
    with pytest.raises(KeyboardInterrupt):
        fresh.iterate(stop)
    assert equal(weights(fresh), tensors)
    assert fresh.checkpoint()[1] == state
    for name in ("network", "critic")[: 1 + (kind == "ppo")]:
        before = under(f"{name}.", tensors)
        assert equal(part(fresh, name), before) == (name not in moved), name
    fresh.restore(*fresh.checkpoint())
    fresh.iterate()
    assert equal(weights(fresh), weights(made))


# ------------------------------------------------------------------------------- divergence


@every_learner
def test_a_learner_that_diverges_stops_and_keeps_what_was_good(kind: str) -> None:
    made = learner(kind, learning_rate=1e30, anneal_lr=False)
    with pytest.raises(DivergedError, match=r"not finite|the loss is"):
        made.iterate()
    assert all(value.isfinite().all() for value in made.checkpoint()[0].values())


def test_a_weight_that_is_not_finite_is_named() -> None:
    made = learner(update_epochs=1, num_minibatches=1)
    made.network.global_encoder.weight.register_hook(  # type: ignore[no-untyped-call]
        lambda grad: grad * torch.nan
    )
    with pytest.raises(DivergedError, match=r"network\.slot_encoder\.weight is not finite"):
        made.iterate()
    assert made.steps == 0
