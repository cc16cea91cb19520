from __future__ import annotations

from collections.abc import Mapping
from dataclasses import replace
from typing import Any

import numpy as np
import pytest
import torch
from table_fixtures import small_table
from torch import Tensor

from envs.batched import BatchedPaging
from envs.lockstep import LockstepPaging
from memrl.actions import ActionLayout, Op
from memrl.algos.decisions import decision_views, shows_victim_alone
from memrl.algos.rollout import DivergedError, Rollout, roll_out
from memrl.evaluation.play import play
from memrl.options import PagingOptions
from memrl.policies.heuristics import YieldOnly
from memrl.policies.network import SetNetwork, log_policy, sample_actions
from memrl.privileged import num_scored

CPU = torch.device("cpu")
OPTIONS = PagingOptions(
    capacity=3, num_candidates=2, archival_capacity=4, staging="hybrid", operation_budget=4
)
SCALE = 3.0  # logits of an untrained network are close to 0


def network(slot_pool: bool = False) -> SetNetwork:
    with torch.random.fork_rng(devices=[]):
        torch.manual_seed(0)
        return SetNetwork(8, slot_pool=slot_pool).eval()


NETWORK = network()


def rollout_of(
    group: BatchedPaging | LockstepPaging,
    episodes: list[int],
    *,
    seed: int = 0,
    victim_alone: bool = True,
    net: SetNetwork | None = None,
) -> Rollout:
    net = net or NETWORK

    def logits(inputs: Mapping[str, Tensor]) -> Tensor:
        values: Tensor = net(inputs) * SCALE
        return values

    return roll_out(
        group,
        logits,
        episodes,
        seed,
        victim_alone=victim_alone,
        device=CPU,
    )


# ---------------------------------------------------------------------------------------- sampling


def test_actions_are_drawn_as_often_as_they_are_likely() -> None:
    probabilities = torch.tensor([0.5, 0.0, 0.3, 0.2, 0.0])
    count = 20_000
    uniforms = torch.from_numpy(np.random.default_rng(0).random(count))
    drawn = sample_actions(probabilities.log().expand(count, 5), uniforms).bincount(minlength=5)
    assert drawn[1] == drawn[4] == 0
    assert (drawn / count).tolist() == pytest.approx(probabilities.tolist(), abs=0.012)


def test_the_uniform_decides_the_action() -> None:
    log_probs = torch.tensor([0.25, 0.5, 0.25]).log().expand(5, 3)
    uniforms = torch.tensor([0.0, 0.2499, 0.2501, 0.7499, 0.7501], dtype=torch.float64)
    assert sample_actions(log_probs, uniforms).tolist() == [0, 0, 1, 1, 2]


@pytest.mark.parametrize("uniform", [0.0, 1 - 2**-53])
def test_the_ends_of_the_interval_draw_legal_actions(uniform: float) -> None:
    mask = torch.tensor([[True, False, True, False], [True, False, False, False]])
    logits = torch.tensor([[-1000.0, 9.0, 1.0, 9.0], [0.0, 9.0, 9.0, 9.0]])
    drawn = sample_actions(log_policy(logits, mask), torch.full((2,), uniform, dtype=torch.float64))
    assert drawn.tolist() == [2, 0]


def test_illegal_actions_have_no_probability() -> None:
    mask = torch.tensor([[True, False, True]])
    log_probs = log_policy(torch.tensor([[0.0, 50.0, 1.0]]), mask)
    assert log_probs.exp()[0, 1] == 0.0
    torch.testing.assert_close(log_probs[0, [0, 2]], torch.tensor([0.0, 1.0]).log_softmax(dim=0))


# ---------------------------------------------------------------------------------------- views


@pytest.mark.parametrize(
    ("slot_pool", "victim_alone", "with_context"),
    [(False, True, False), (False, False, False), (True, False, False), (True, True, True)],
)
def test_a_view_has_the_values_and_the_actions_of_the_full_observation(
    slot_pool: bool, victim_alone: bool, with_context: bool
) -> None:
    net = network(slot_pool)
    group = BatchedPaging(small_table(1), OPTIONS, 8)
    observation = group.reset(list(range(8)))
    generator = torch.Generator().manual_seed(0)
    layout, seen = group.layout, set()
    for _ in range(25):
        mask = observation["action_mask"]
        rows = mask[:, 1:].any(dim=1).nonzero()[:, 0]
        if not len(rows):
            break
        half = {name: value.half().float() for name, value in observation.items()}
        full = net(half)
        views = decision_views(
            group, mask, rows, victim_alone=victim_alone, with_context=with_context
        )
        assert sorted(torch.cat([view.row for view in views.values()]).tolist()) == rows.tolist()
        for kind, view in views.items():
            inputs = {name: value.float() for name, value in view.inputs.items()}
            values = net(inputs)
            shown = ActionLayout(inputs["slots"].shape[1], inputs["candidates"].shape[1])
            assert view.action_mask.shape == (len(view.row), shown.num_actions)
            assert int(view.action_mask.sum()) == int(mask[view.row].sum())
            some = view.rows(torch.arange(0, len(view.row), 2))
            torch.testing.assert_close(net(some.inputs), values[::2])
            assert torch.equal(some.actions(some.row * 0 + 3), view.actions(view.row * 0 + 3)[::2])
            for choice in range(shown.num_actions):
                legal = view.action_mask[:, choice]
                action = view.actions(torch.full_like(view.row, choice))
                assert mask[view.row[legal], action[legal]].all()
                expected = full[view.row].gather(1, action[:, None])[:, 0]
                torch.testing.assert_close(values[legal, choice], expected[legal])
                assert torch.equal(view.values(full[view.row])[legal, choice], expected[legal])
                seen |= {(kind, layout.decode(int(a))[0]) for a in action[legal]}
        action = torch.multinomial(mask.float(), 1, generator=generator)[:, 0]
        observation = group.step(action.numpy()).observation
    assert ("pressure", Op.STORE) in seen
    assert {("query", op) for op in (Op.YIELD, Op.SEARCH, Op.RETRIEVE)} <= seen


@pytest.mark.parametrize(
    ("values", "slot_pool", "alone"),
    [
        ({}, False, True),
        ({}, True, False),
        ({"evict_scope": "any"}, False, False),
        ({"store_scope": "any"}, False, False),
        ({"admission": "optional"}, False, False),
    ],
)
def test_the_victim_is_shown_alone_where_nothing_else_is_legal(
    values: dict[str, Any], slot_pool: bool, alone: bool
) -> None:
    assert shows_victim_alone(replace(OPTIONS, **values), slot_pool) is alone


# ---------------------------------------------------------------------------------------- rollouts


@pytest.mark.usefixtures("poison_global_rng")
def test_a_rollout_depends_on_the_generator_alone() -> None:
    group = BatchedPaging(small_table(1), OPTIONS, 6)
    first, again, other = (rollout_of(group, [0, 0, 0, 3, 3, 3], seed=seed) for seed in (5, 5, 6))
    assert np.array_equal(first.reward_terms, again.reward_terms)
    assert np.array_equal(first.clock, again.clock)
    assert torch.equal(
        first.decisions["pressure"].column("action"), again.decisions["pressure"].column("action")
    )
    assert not np.array_equal(first.is_decision, other.is_decision) or not np.array_equal(
        first.reward_terms, other.reward_terms
    )


def test_both_environments_give_the_same_rollout() -> None:
    table, episodes = small_table(1), [0, 0, 5, 5]
    batched = rollout_of(BatchedPaging(table, OPTIONS, 4), episodes)
    reference = rollout_of(LockstepPaging(table, OPTIONS, 4), episodes)
    assert np.array_equal(batched.is_decision, reference.is_decision)
    np.testing.assert_allclose(batched.reward_terms, reference.reward_terms)
    decided = batched.is_decision
    assert np.array_equal(batched.clock[decided], reference.clock[decided])


def test_showing_the_victim_alone_changes_nothing() -> None:
    group = BatchedPaging(small_table(1), OPTIONS, 6)
    alone, full = (
        rollout_of(group, [0, 0, 0, 3, 3, 3], victim_alone=victim_alone)
        for victim_alone in (True, False)
    )
    assert np.array_equal(alone.reward_terms, full.reward_terms)
    assert np.array_equal(alone.is_decision, full.is_decision)


def test_only_real_decisions_of_running_rows_are_kept() -> None:
    group = BatchedPaging(small_table(1), OPTIONS, 6)
    rollout = rollout_of(group, list(range(6)))
    kept = np.zeros_like(rollout.is_decision)
    for decisions in rollout.decisions.values():
        step, row = (decisions.column(name).numpy() for name in ("step", "row"))
        assert not kept[step, row].any()
        kept[step, row] = True
        assert decisions.column("action_mask")[:, 1:].any(dim=1).all()
    assert np.array_equal(kept, rollout.is_decision)
    assert rollout.num_decisions == kept.sum() > 50
    ends = rollout.is_decision[::-1].argmax(axis=0)
    assert len(set(ends.tolist())) > 1, "all rows ended together: nothing was tested"


def test_the_clock_is_that_of_the_episode() -> None:
    """Copies begin at the same event, and no clock runs past the episode's end."""
    table = small_table(1)
    rollout = rollout_of(BatchedPaging(table, OPTIONS, 4), [2, 2, 4, 4])
    assert (np.diff(rollout.clock, axis=0) >= 0).all()
    assert (rollout.clock[0] == 0).all()
    assert (rollout.clock[-1] < table.episode_num_events[[2, 2, 4, 4]]).all()


def test_rewards_are_those_of_the_scoring_path() -> None:
    """Logits that always YIELD play what YIELD alone plays."""
    table = small_table(1)

    def yields(inputs: Mapping[str, Tensor]) -> Tensor:
        layout = ActionLayout(inputs["slots"].shape[1], inputs["candidates"].shape[1])
        logits = torch.full((len(inputs["globals"]), layout.num_actions), -100.0)
        logits[:, 0] = 0.0
        return logits

    group = BatchedPaging(table, OPTIONS, 8)
    rollout = roll_out(
        group,
        yields,
        list(range(8)),
        0,
        victim_alone=True,
        device=CPU,
    )
    records = play(group, YieldOnly(), list(range(8)))
    returns = rollout.reward_terms.sum(axis=(0, 2))
    assert returns.tolist() == pytest.approx([record.episode_return for record in records])
    assert num_scored(table).tolist() == [record.num_scored for record in records]


def test_logits_that_are_not_finite_are_named() -> None:
    net = network()
    with torch.no_grad():
        net.operation_head.bias[2] = torch.nan
    with pytest.raises(DivergedError, match="logits"):
        rollout_of(BatchedPaging(small_table(1), OPTIONS, 2), [0, 0], net=net)
