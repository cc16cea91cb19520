from __future__ import annotations

from dataclasses import replace
from typing import Any

import learnable
import numpy as np
import pytest
import torch
from learnable import learnable_table
from table_fixtures import small_table
from torch import Tensor

from envs.batched import BatchedPaging
from memrl.actions import Op
from memrl.algos.group_policy_gradient import GroupPolicyGradient
from memrl.algos.rollout import DivergedError
from memrl.algos.updates import clipped_loss
from memrl.checkpoint import load_checkpoint, save_checkpoint
from memrl.config import NetworkConfig
from memrl.evaluation.lineup import Arena
from memrl.evaluation.summary import mean_reward_per_question
from memrl.options import PagingOptions
from memrl.policies.base import Contestant
from memrl.policies.heuristics import YieldOnly
from memrl.policies.network import SetNetwork
from memrl.policy_gradient_config import PolicyGradientConfig
from memrl.seeding import Streams

CPU = torch.device("cpu")
SMALL = PolicyGradientConfig(
    total_timesteps=4_000,
    num_groups=4,
    group_size=3,
    num_minibatches=3,
    learning_rate=1e-2,
    temperature=0.1,
)
OPTIONS = PagingOptions(
    capacity=3, num_candidates=2, archival_capacity=4, staging="hybrid", operation_budget=4
)


def learner(
    seed: int = 0,
    *,
    slot_pool: bool = False,
    initial: dict[str, Tensor] | None = None,
    options: PagingOptions = OPTIONS,
    **values: Any,
) -> GroupPolicyGradient:
    config = replace(SMALL, **values)
    return GroupPolicyGradient(
        BatchedPaging(small_table(1), options, config.num_groups * config.group_size),
        NetworkConfig(hidden=8, slot_pool=slot_pool),
        config,
        Streams(seed),
        gain_scale=0.1,
        initial=initial,
        device=CPU,
    )


def weights(made: GroupPolicyGradient) -> dict[str, Tensor]:
    return {name: value.clone() for name, value in made.checkpoint()[0].items()}


def equal(first: dict[str, Tensor], second: dict[str, Tensor]) -> bool:
    return first.keys() == second.keys() and all(
        torch.equal(value, second[name]) for name, value in first.items()
    )


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


def first_steps(made: GroupPolicyGradient) -> float:
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


def test_an_iteration_counts_its_decisions_and_says_how_it_went() -> None:
    made = learner()
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


@pytest.mark.parametrize("slot_pool", [False, True])
def test_the_first_minibatch_sees_the_policy_that_played(slot_pool: bool) -> None:
    """With one update the ratio is 1 for all decisions, of both kinds, to rounding."""
    made = learner(slot_pool=slot_pool, update_epochs=1, num_minibatches=1)
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


def test_it_starts_from_the_weights_it_is_given() -> None:
    with torch.random.fork_rng(devices=[]):
        torch.manual_seed(7)
        given = SetNetwork(8, slot_pool=False).state_dict()
    made = learner(initial=given)
    assert equal(dict(made.network.state_dict()), given)
    made.iterate()
    assert not equal(dict(made.network.state_dict()), given)
    made.restart()
    assert equal(dict(made.network.state_dict()), given)


def test_a_restart_is_a_new_attempt() -> None:
    made = learner()
    first = weights(made)
    made.iterate()
    played = made.total_steps
    made.restart()
    assert (made.attempt, made.iteration, made.steps) == (1, 0, 0)
    assert made.total_steps == played
    assert made.checkpoint()[1]["optimizer"]["state"] == {}
    assert not equal(weights(made), first)
    assert made.iterate() != learner().iterate()


def test_it_learns_what_to_store_and_to_retrieve() -> None:
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
    made = GroupPolicyGradient(
        BatchedPaging(table, learnable.OPTIONS, 96),
        NetworkConfig(hidden=16, slot_pool=False),
        config,
        Streams(1),
        gain_scale=0.1,
        initial=None,
        device=CPU,
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


def test_the_same_seed_gives_the_same_learner() -> None:
    first, again, other = (learner(seed) for seed in (0, 0, 1))
    for made in (first, again, other):
        made.iterate()
    assert equal(weights(first), weights(again))
    assert not equal(weights(first), weights(other))


def test_global_random_state_plays_no_part() -> None:
    first, second = learner(), learner()
    first.iterate()
    torch.manual_seed(99)
    np.random.seed(99)  # noqa: NPY002
    state = torch.get_rng_state()
    second.iterate()
    assert torch.equal(torch.get_rng_state(), state)
    assert equal(weights(first), weights(second))


def test_a_restored_learner_continues_to_the_same_numbers(tmp_path: Any) -> None:
    whole, part = learner(), learner()
    for _ in range(4):
        whole.iterate()
    part.iterate()
    part.iterate()
    save_checkpoint(tmp_path, *part.checkpoint())
    resumed = learner(seed=0)
    resumed.restore(*load_checkpoint(tmp_path))
    assert (resumed.iteration, resumed.steps) == (part.iteration, part.steps)
    resumed.iterate()
    resumed.iterate()
    assert equal(weights(resumed), weights(whole))
    assert resumed.checkpoint()[1] == whole.checkpoint()[1]


@pytest.mark.parametrize("before_the_end", [7, 1], ids=["playing", "fitting"])
def test_an_iteration_that_is_stopped_leaves_the_checkpoint_before_it(before_the_end: int) -> None:
    made = learner()
    made.iterate()
    tensors, state = weights(made), made.checkpoint()[1]
    calls = 0

    def count() -> None:
        nonlocal calls
        calls += 1

    made.iterate(count)
    last = calls - before_the_end  # 6 calls are those of the minibatches
    calls = 0

    def stop() -> None:
        count()
        if calls == last:
            raise KeyboardInterrupt

    fresh = learner()
    fresh.restore(tensors, state)
    with pytest.raises(KeyboardInterrupt):
        fresh.iterate(stop)
    assert equal(weights(fresh), tensors)
    assert fresh.checkpoint()[1] == state
    moved = not equal(dict(fresh.network.state_dict()), network_of(tensors))
    assert moved == (before_the_end == 1)
    fresh.restore(*fresh.checkpoint())
    fresh.iterate()
    assert equal(weights(fresh), weights(made))


def network_of(tensors: dict[str, Tensor]) -> dict[str, Tensor]:
    prefix = "network."
    return {k.removeprefix(prefix): v for k, v in tensors.items() if k.startswith(prefix)}


# ------------------------------------------------------------------------------- divergence


def test_a_learner_that_diverges_stops_and_keeps_what_was_good() -> None:
    made = learner(learning_rate=1e30, anneal_lr=False)
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
