from __future__ import annotations

from collections.abc import Mapping
from typing import Any

import numpy as np
import pytest
import torch
from table_fixtures import small_table
from torch import Tensor, nn

from envs.lockstep import LockstepPaging
from memrl.actions import ActionLayout, Op
from memrl.observation import FEATURES, GLOBALS
from memrl.options import PagingOptions
from memrl.policies.base import FEATURE
from memrl.policies.network import GreedyGain, SampledGain, SetNetwork, ValueNetwork

SLOT_OPS = (Op.EVICT, Op.STORE, Op.SEARCH)


def network(hidden: int = 16, dropout: float = 0.0, seed: int = 0) -> SetNetwork:
    with torch.random.fork_rng(devices=[]):
        torch.manual_seed(seed)
        return SetNetwork(hidden, dropout).eval()


def made_up(
    batch: int = 3, num_rows: int = 5, num_candidates: int = 4, seed: int = 1
) -> dict[str, Tensor]:
    """Random features; about a third of the rows are empty, all their features 0."""
    generator = torch.Generator().manual_seed(seed)

    def rows(count: int) -> Tensor:
        features = torch.randn((batch, count, len(FEATURES)), generator=generator)
        occupied = torch.rand((batch, count), generator=generator) > 0.35
        features[..., FEATURE["occupied"]] = 1.0
        return features * occupied[..., None]

    return {
        "slots": rows(num_rows),
        "candidates": rows(num_candidates),
        "globals": torch.randn((batch, len(GLOBALS)), generator=generator),
    }


@torch.no_grad()
def values(net: nn.Module, observation: Mapping[str, Tensor]) -> tuple[Tensor, ActionLayout]:
    layout = ActionLayout(observation["slots"].shape[1], observation["candidates"].shape[1])
    result: Tensor = net(observation)
    assert result.shape == (len(observation["globals"]), layout.num_actions)
    assert result.dtype == torch.float32
    return result, layout


def test_slot_rows_may_come_in_any_order() -> None:
    net, observation = network(), made_up()
    order = torch.tensor([3, 0, 4, 2, 1])
    before, layout = values(net, observation)
    after, _ = values(net, observation | {"slots": observation["slots"][:, order]})
    for op in SLOT_OPS:
        block = layout.block(op)
        torch.testing.assert_close(after[:, block], before[:, block][:, order])
        assert not torch.allclose(after[:, block], before[:, block])
    for op in (Op.YIELD, Op.NEXT, Op.RETRIEVE):
        torch.testing.assert_close(after[:, layout.block(op)], before[:, layout.block(op)])


def test_candidate_rows_may_come_in_any_order() -> None:
    net, observation = network(), made_up()
    order = torch.tensor([2, 3, 1, 0])
    before, layout = values(net, observation)
    after, _ = values(net, observation | {"candidates": observation["candidates"][:, order]})
    block = layout.block(Op.RETRIEVE)
    torch.testing.assert_close(after[:, block], before[:, block][:, order])
    assert not torch.allclose(after[:, block], before[:, block])
    for op in (Op.YIELD, Op.NEXT, *SLOT_OPS):
        torch.testing.assert_close(after[:, layout.block(op)], before[:, layout.block(op)])


def test_episodes_do_not_influence_each_other() -> None:
    net, observation = network(), made_up()
    together, _ = values(net, observation)
    for row in range(3):
        alone, _ = values(net, {name: value[row : row + 1] for name, value in observation.items()})
        torch.testing.assert_close(alone[0], together[row])


def test_empty_rows_change_nothing() -> None:
    """A larger main context with the same pages in it is the same situation."""
    net, observation = network(), made_up()
    before, layout = values(net, observation)
    empty = torch.zeros((3, 6, len(FEATURES)))
    larger = {
        "slots": torch.cat([observation["slots"], empty], dim=1),
        "candidates": torch.cat([observation["candidates"], empty], dim=1),
        "globals": observation["globals"],
    }
    after, wide = values(net, larger)
    for op in Op:
        width = before[:, layout.block(op)].shape[1]
        torch.testing.assert_close(after[:, wide.block(op)][:, :width], before[:, layout.block(op)])


def test_every_row_counts_for_the_rest() -> None:
    net, observation = network(), made_up()
    before, _ = values(net, observation)
    for name in observation:
        changed = observation | {name: observation[name] * 1.5}
        after, _ = values(net, changed)
        assert not torch.allclose(after[:, Op.NEXT], before[:, Op.NEXT])


def test_yield_is_worth_nothing() -> None:
    for seed in range(3):
        assert values(network(seed=seed), made_up(seed=seed))[0][:, Op.YIELD].tolist() == [0.0] * 3


@pytest.mark.parametrize(("num_rows", "num_candidates"), [(2, 0), (2, 1), (25, 16)])
def test_one_network_plays_with_any_number_of_rows(num_rows: int, num_candidates: int) -> None:
    observation = made_up(num_rows=num_rows, num_candidates=num_candidates)
    result, _ = values(network(), observation)
    assert result.isfinite().all()


def test_with_all_rows_empty_values_are_finite() -> None:
    observation = {name: value * 0 for name, value in made_up().items()}
    assert values(network(), observation)[0].isfinite().all()


def test_the_number_of_parameters() -> None:
    hidden = 24
    row_encoders = 2 * (len(FEATURES) * hidden + hidden)
    situation = len(GLOBALS) * hidden + hidden
    context = 5 * hidden * hidden + hidden
    # Each pointer: rows with a bias, context without one, one output for each operation.
    pointers = 2 * (hidden * hidden + hidden + hidden * hidden) + (3 + 1) * (hidden + 1)
    operations = 5 * (hidden + 1)
    expected = row_encoders + situation + context + pointers + operations
    assert sum(parameter.numel() for parameter in network(hidden).parameters()) == expected


def test_it_takes_what_the_environment_observes() -> None:
    group = LockstepPaging(small_table(0), PagingOptions(capacity=3, num_candidates=2), 4)
    observation = group.reset(range(4))
    result, layout = values(network(), observation)
    assert layout == group.layout
    assert result.isfinite().all()


# ---------------------------------------------------------------------------------------- greedy


class Fixed(nn.Module):
    """Predicts these values, whatever it sees."""

    def __init__(self, predicted: Tensor) -> None:
        super().__init__()
        self.predicted = nn.Parameter(predicted)

    def forward(self, observation: Mapping[str, Tensor]) -> Tensor:
        del observation
        return self.predicted.clone()


LAYOUT = ActionLayout(3, 2)  # YIELD, NEXT, EVICT x 3, STORE x 3, SEARCH x 3, RETRIEVE x 2


def greedy(gains: Mapping[tuple[Op, int], float], **settings: float) -> GreedyGain:
    """Plays greedily where one decision has these values and all others -1."""
    predicted = torch.full((1, LAYOUT.num_actions), -1.0)
    predicted[0, 0] = 0.0
    for (op, argument), gain in gains.items():
        predicted[0, LAYOUT.encode(op, argument)] = gain
    net: Any = Fixed(predicted)
    return GreedyGain(net, **({"gain_scale": 1.0} | settings))


def choice(policy: GreedyGain, *illegal: tuple[Op, int]) -> tuple[Op, int]:
    mask = torch.ones((1, LAYOUT.num_actions), dtype=torch.bool)
    for op, argument in illegal:
        mask[0, LAYOUT.encode(op, argument)] = False
    action = policy.act(made_up(1, 3, 2), mask)
    assert action.shape == (1,)
    assert action.dtype == torch.int64
    assert not action.requires_grad
    return LAYOUT.decode(int(action))


def test_the_best_legal_gain_is_played() -> None:
    policy = greedy({(Op.STORE, 1): 0.5, (Op.RETRIEVE, 0): 0.75, (Op.NEXT, 0): 0.25})
    assert choice(policy) == (Op.RETRIEVE, 0)
    assert choice(policy, (Op.RETRIEVE, 0)) == (Op.STORE, 1)
    assert choice(policy, (Op.RETRIEVE, 0), (Op.STORE, 1)) == (Op.NEXT, 0)


def test_a_gain_must_exceed_the_margin() -> None:
    gains = {(Op.STORE, 1): 0.25, (Op.RETRIEVE, 0): 0.5}
    assert choice(greedy(gains, margin=0.25)) == (Op.RETRIEVE, 0)
    assert choice(greedy(gains, margin=0.25), (Op.RETRIEVE, 0)) == (Op.YIELD, 0)
    assert choice(greedy(gains, margin=0.25, store_offset=0.5)) == (Op.STORE, 1)


@pytest.mark.parametrize("gain", [-0.5, 0.0])
def test_without_a_gain_it_yields(gain: float) -> None:
    assert choice(greedy({(Op.STORE, 1): gain, (Op.RETRIEVE, 0): gain})) == (Op.YIELD, 0)


@pytest.mark.parametrize(
    ("offset", "expected"),
    [
        (0.0, (Op.STORE, 1)),  # .3 x .1 = .03 against .02
        (-0.02, (Op.RETRIEVE, 1)),
        (0.02, (Op.STORE, 1)),
    ],
)
def test_the_store_offset_is_in_reward(offset: float, expected: tuple[Op, int]) -> None:
    gains = {(Op.STORE, 1): 0.3, (Op.RETRIEVE, 1): 0.2}
    assert choice(greedy(gains, gain_scale=0.1, store_offset=offset)) == expected


def test_the_store_offset_is_for_stores_alone() -> None:
    every: dict[tuple[Op, int], float] = {(op, 0): -0.3 for op in Op if op is not Op.YIELD}
    assert choice(greedy(every, gain_scale=0.1, store_offset=0.04)) == (Op.STORE, 0)
    assert choice(greedy(every, gain_scale=0.1, store_offset=0.02)) == (Op.YIELD, 0)


def test_the_offset_leaves_the_network_as_it_is() -> None:
    policy = greedy({(Op.STORE, 1): 0.5}, store_offset=0.25)
    net: Any = policy.network
    before = net.predicted.clone()
    choice(policy)
    choice(policy)
    assert torch.equal(net.predicted, before)


@pytest.mark.usefixtures("poison_global_rng")
def test_play_is_deterministic_though_training_drops_units() -> None:
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(torch, "manual_seed", torch.random.manual_seed)  # inside fork_rng only
        net = network(dropout=0.9)
    net.train()
    observation = made_up(batch=64)
    mask = torch.ones((64, ActionLayout(5, 4).num_actions), dtype=torch.bool)
    policy = GreedyGain(net, 0.1)
    assert torch.equal(policy.act(observation, mask), policy.act(observation, mask))
    assert len(set(policy.act(observation, mask).tolist())) > 1


def test_dropout_drops_units_in_training() -> None:
    net, observation = network(dropout=0.5).train(), made_up()
    with torch.random.fork_rng(devices=[]):
        torch.manual_seed(0)
        assert not torch.equal(values(net, observation)[0], values(net, observation)[0])
    assert torch.equal(values(net.eval(), observation)[0], values(net, observation)[0])


@pytest.mark.usefixtures("poison_global_rng")
def test_sampled_play_follows_the_gains_over_the_temperature() -> None:
    """Gains of .03 and 0 at a temperature of .02: odds of e to the 1.5."""
    count = 4_000
    predicted = torch.zeros((count, LAYOUT.num_actions))
    store = LAYOUT.encode(Op.STORE, 1)
    predicted[:, store] = 0.3
    mask = torch.zeros((count, LAYOUT.num_actions), dtype=torch.bool)
    mask[:, [0, store]] = True
    net: Any = Fixed(predicted)

    def drawn(seed: int) -> Tensor:
        policy = SampledGain(net, 0.1, 0.02, np.random.default_rng(seed))
        return policy.act(made_up(1, 3, 2), mask)

    odds = float(np.exp(1.5))
    assert set(drawn(0).tolist()) == {0, store}
    assert float((drawn(0) == store).float().mean()) == pytest.approx(odds / (1 + odds), abs=0.03)
    assert torch.equal(drawn(0), drawn(0))
    assert not torch.equal(drawn(0), drawn(1))


def test_without_a_slot_summary_other_slots_do_not_matter() -> None:
    observation = made_up()
    changed = observation["slots"].clone()
    changed[:, 1:] += 1.0
    for slot_pool in (False, True):
        with torch.random.fork_rng(devices=[]):
            torch.manual_seed(0)
            net = SetNetwork(16, slot_pool=slot_pool).eval()
        before, layout = values(net, observation)
        after, _ = values(net, observation | {"slots": changed})
        first = [layout.encode(op, 0) for op in SLOT_OPS]
        same = torch.allclose(before[:, first], after[:, first])
        assert same is not slot_pool
        assert not torch.allclose(before, after)


# ---------------------------------------------------------------------------------------- critic


def critic() -> ValueNetwork:
    """One with a last layer that is not 0."""
    with torch.random.fork_rng(devices=[]):
        torch.manual_seed(0)
        net = ValueNetwork(16).eval()
        torch.nn.init.normal_(net.value_head.weight)
    return net


@torch.no_grad()
def test_a_value_does_not_depend_on_the_order_of_rows() -> None:
    net, observation = critic(), made_up()
    before: Tensor = net(observation)
    assert before.shape == (3,)
    mixed = observation | {
        "slots": observation["slots"][:, [3, 0, 4, 2, 1]],
        "candidates": observation["candidates"][:, [2, 3, 1, 0]],
    }
    torch.testing.assert_close(net(mixed), before)
    for name in ("slots", "candidates", "globals"):
        other = observation | {name: observation[name] * 0.5}
        assert (net(other) != before).any(), name


@torch.no_grad()
def test_rows_without_a_page_have_no_value() -> None:
    net, observation = critic(), made_up()
    empty = {
        name: torch.cat([rows, torch.zeros_like(rows[:, :2])], dim=1)
        for name, rows in observation.items()
        if name != "globals"
    }
    torch.testing.assert_close(net(observation | empty), net(observation))


@torch.no_grad()
def test_an_untrained_critic_expects_the_same_everywhere() -> None:
    values: Tensor = ValueNetwork(16)(made_up())
    assert values.tolist() == [0.0, 0.0, 0.0]
