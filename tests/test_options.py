"""Options: what is refused, and how fractions become numbers."""

from __future__ import annotations

import dataclasses
import math
from typing import Any

import pytest

from memrl.options import DEFAULT_REWARD, PagingOptions, RewardWeights

MEDIANS = {
    "median_episode_pages": 150.0,
    "median_episode_tokens": 6000.0,
    "median_page_tokens": 40.0,
}
WEIGHTS = dataclasses.asdict(DEFAULT_REWARD)


def test_defaults_are_those_of_the_trials() -> None:
    options = PagingOptions()
    assert (options.unit, options.capacity, options.archival_capacity) == ("pages", 24, 60)
    assert (options.num_candidates, options.staging) == (16, "hybrid_neighbours")
    assert (options.stage_from, options.store_scope, options.evict_scope) == (
        "archival",
        "victim",
        "victim",
    )
    assert options.operation_budget == 16
    costs = (0.005, 0.01, 0.02, 0.005, 0.005)
    assert (WEIGHTS["store"], WEIGHTS["evict"], WEIGHTS["retrieve"]) == costs[:3]
    assert (WEIGHTS["search"], WEIGHTS["next"]) == costs[3:]


@pytest.mark.parametrize(
    ("fields", "message"),
    [
        ({"unit": "bytes"}, r"unit must be one of \('pages', 'tokens'\), got 'bytes'"),
        ({"staging": "magic"}, "staging must be one of .*hybrid_neighbours"),
        ({"stage_from": "recall"}, "stage_from must be one of"),
        ({"store_scope": "all"}, "store_scope must be one of"),
        ({"evict_scope": None}, "evict_scope must be one of"),
        ({"admission": True}, "admission must be one of"),
        ({"capacity": 0}, "capacity must be at least 1, got 0"),
        ({"capacity": 1.0}, r"capacity given as a float is a fraction .* write an int"),
        ({"capacity": 24.0}, r"must lie in \(0, 1\), got 24.0"),
        ({"capacity": 0.0}, r"must lie in \(0, 1\)"),
        ({"capacity": math.nan}, r"must lie in \(0, 1\)"),
        ({"capacity": True}, "capacity must be a number, got True"),
        ({"capacity": "8"}, "capacity must be a number, got '8'"),
        ({"archival_capacity": -1}, "archival_capacity must be at least 0"),
        ({"archival_capacity": 1.5}, "archival_capacity given as a float"),
        ({"num_slots": 0}, "num_slots must be an integer of at least 1, or None, got 0"),
        ({"num_candidates": -1}, "num_candidates must be an integer of at least 0"),
        ({"evict_fraction": 1.0}, r"evict_fraction must lie in \[0, 1\)"),
        ({"evict_fraction": -0.1}, "evict_fraction"),
        ({"evict_fraction": math.nan}, "evict_fraction"),
        ({"operation_budget": 0}, "operation_budget must be an integer of at least 1"),
        ({"time_scale": 0.0}, "time_scale must be finite and above 0"),
        ({"time_scale": math.nan}, "time_scale must be finite and above 0"),
    ],
)
def test_impossible_options_are_refused(fields: dict[str, Any], message: str) -> None:
    with pytest.raises(ValueError, match=message):
        PagingOptions(**fields)


def test_reward_weights_are_all_required() -> None:
    for name in WEIGHTS:
        rest = {other: weight for other, weight in WEIGHTS.items() if other != name}
        with pytest.raises(ValueError, match=rf"missing \['{name}'\], unknown \[\]"):
            RewardWeights.from_mapping(rest)
    with pytest.raises(ValueError, match=r"unknown \['answer'\]"):
        RewardWeights.from_mapping(WEIGHTS | {"answer": 1.0})
    assert RewardWeights.from_mapping(WEIGHTS) == DEFAULT_REWARD


@pytest.mark.parametrize("value", [-0.1, math.nan, math.inf])
def test_reward_weights_are_finite_and_costs_positive(value: float) -> None:
    with pytest.raises(ValueError, match="weight store must be finite and 0 or more"):
        RewardWeights.from_mapping(WEIGHTS | {"store": value})


def test_reward_may_be_a_mapping() -> None:
    mapping: Any = WEIGHTS | {"store": 0.5}
    assert PagingOptions(reward=mapping).reward == dataclasses.replace(DEFAULT_REWARD, store=0.5)


@pytest.mark.parametrize(
    ("fields", "capacity", "num_slots", "archival_capacity"),
    [
        ({}, 24, 24, 60),
        ({"capacity": 0.1, "archival_capacity": 0.4}, 15, 15, 60),
        ({"capacity": 0.001, "archival_capacity": 0.001}, 1, 1, 1),
        ({"capacity": 24, "num_slots": 7, "archival_capacity": None}, 24, 7, None),
        ({"unit": "tokens", "capacity": 0.1}, 600, 23, 60),  # 1.5 * 600 / 40 = 22.5
        ({"unit": "tokens", "capacity": 800, "archival_capacity": 0.2}, 800, 30, 30),
        ({"unit": "tokens", "capacity": 10}, 10, 1, 60),
        ({"archival_capacity": 0}, 24, 24, 0),
    ],
)
def test_fractions_are_resolved_by_the_training_medians(
    fields: dict[str, Any], capacity: int, num_slots: int, archival_capacity: int | None
) -> None:
    resolved = PagingOptions(**fields).resolved(**MEDIANS)
    assert resolved.is_resolved
    assert isinstance(resolved.capacity, int)
    assert (resolved.capacity, resolved.num_slots, resolved.archival_capacity) == (
        capacity,
        num_slots,
        archival_capacity,
    )
    assert resolved.resolved(**dict.fromkeys(MEDIANS, 1.0)) == resolved, "resolving is final"


@pytest.mark.parametrize(
    "fields", [{"capacity": 0.5, "num_slots": 3}, {}, {"archival_capacity": 0.5, "num_slots": 3}]
)
def test_is_resolved_needs_every_limit(fields: dict[str, Any]) -> None:
    assert not PagingOptions(**fields).is_resolved
    assert PagingOptions(**fields).resolved(**MEDIANS).is_resolved
