"""Policies of page caches, played in both environments, against what the requests alone say."""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from typing import Any

import numpy as np
import pytest
import torch
from request_tables import cache_options, request_table

from envs.batched import BatchedPaging
from envs.lockstep import LockstepPaging
from memrl.actions import ActionLayout
from memrl.evaluation.lineup import SideBySide
from memrl.evaluation.play import play
from memrl.groups import PagingGroup
from memrl.options import PagingOptions
from memrl.policies.base import Policy
from memrl.policies.belady import Belady, least_faults
from memrl.policies.cache_rules import RULES, simulate
from memrl.policies.heuristics import CacheEviction, UniformRandom, YieldOnly
from memrl.policies.rule_eviction import RuleEviction

NUM_PAGES = 40
GROUPS = (LockstepPaging, BatchedPaging)


def made_up_strings(seed: int = 0, count: int = 6) -> list[list[int]]:
    """Some with many hits, some with few, of lengths that differ."""
    rng = np.random.default_rng(seed)
    return [
        (rng.zipf(1.1 + number / 10, int(rng.integers(20, 75))) % NUM_PAGES).tolist()
        for number in range(count)
    ]


TOKENS = np.random.default_rng(1).integers(1, 7, NUM_PAGES).tolist()


def faults(group: PagingGroup, policy: Policy) -> list[int]:
    records = play(group, policy, range(group.table.num_episodes))
    for record in records:
        assert record.episode_return == pytest.approx(record.hits * group.options.reward.evidence)
    return [record.requests - record.hits for record in records]


@pytest.mark.parametrize("name", RULES)
@pytest.mark.parametrize("unit", ["pages", "tokens"])
def test_a_rule_in_an_environment_is_the_rule_on_the_requests(unit: Any, name: str) -> None:
    strings = made_up_strings()
    table = request_table(strings, TOKENS)
    sizes = None if unit == "pages" else dict(enumerate(TOKENS))
    for capacity in (7, 21) if unit == "pages" else (14,):
        options = cache_options(capacity, unit=unit, num_slots=21)
        expected = [len(s) - simulate(RULES[name], s, capacity, sizes) for s in strings]
        # Fewer rows than episodes, and the same policy for all: rows begin anew unasked.
        policy = RuleEviction(RULES[name], options)
        for make_group in GROUPS:
            assert faults(make_group(table, options, 5), policy) == expected


def test_yield_is_fifo_and_features_are_enough_for_lru_and_lfu() -> None:
    strings = made_up_strings(2)
    table, options = request_table(strings), cache_options(7)
    for policy, name in (
        (YieldOnly(), "FIFO"),
        (CacheEviction("recency"), "LRU"),
        (CacheEviction("frequency"), "LFU"),
    ):
        expected = [len(s) - simulate(RULES[name], s, 7) for s in strings]
        assert faults(BatchedPaging(table, options, len(strings)), policy) == expected, name


@pytest.mark.parametrize("name", RULES)
def test_a_rule_goes_on_where_somebody_else_chose(name: str) -> None:
    """With one operation a decision, FIFO takes what is missing for a large page."""
    table = request_table(made_up_strings(3), TOKENS)
    options = cache_options(12, unit="tokens", num_slots=12, operation_budget=1)
    counts = {
        make_group.__name__: faults(
            make_group(table, options, 4), RuleEviction(RULES[name], options)
        )
        for make_group in GROUPS
    }
    assert len(set(map(tuple, counts.values()))) == 1


def test_rules_side_by_side_do_not_mix() -> None:
    strings = made_up_strings(4)
    table, options = request_table(strings), cache_options(6)
    policies = SideBySide([RuleEviction(rule, options) for rule in RULES.values()])
    group = BatchedPaging(table, options, len(RULES) * len(strings))
    records = play(group, policies, list(range(len(strings))) * len(RULES))
    for place, rule in enumerate(RULES.values()):
        own = records[place * len(strings) : (place + 1) * len(strings)]
        assert [r.hits for r in own] == [simulate(rule, s, 6) for s in strings]


def test_a_rule_begins_anew_when_its_choice_was_not_played() -> None:
    """Another policy plays now and then; the rule keeps naming pages that are there."""
    table, options = request_table(made_up_strings(5)), cache_options(5)
    group = BatchedPaging(table, options, table.num_episodes)
    rule, other = (
        RuleEviction(RULES["ARC"], options),
        UniformRandom(torch.Generator().manual_seed(0)),
    )
    observation = group.reset(range(table.num_episodes))
    rng = np.random.default_rng(0)
    while group.running.any():
        actions = torch.stack(
            [policy.act(observation, observation["action_mask"]) for policy in (rule, other)]
        )
        pressed = observation["action_mask"][:, 2:].any(dim=1)
        assert observation["action_mask"].gather(1, actions[0][:, None])[:, 0].all()
        assert (actions[0] > 0).equal(pressed)
        choice = torch.from_numpy(rng.integers(2, size=actions.shape[1]))
        observation = group.step(actions.gather(0, choice[None])[0].numpy()).observation


# ---------------------------------------------------------------------- Belady


def canonical_strings(longest: int, num_pages: int) -> Iterator[tuple[int, ...]]:
    """All strings up to the names of pages."""

    def grow(string: tuple[int, ...]) -> Iterator[tuple[int, ...]]:
        yield string
        if len(string) < longest:
            for page in range(min(max(string) + 2, num_pages)):
                yield from grow((*string, page))

    return grow((0,))


@pytest.mark.parametrize("make_group", GROUPS)
@pytest.mark.parametrize("capacity", [1, 2, 3])
def test_belady_played_has_the_faults_of_the_requests_alone(make_group: Any, capacity: int) -> None:
    short = list(canonical_strings(6, 4))
    assert len(short) == 1 + 2 + 5 + 15 + 51 + 187
    strings: list[Sequence[int]] = [*short, *made_up_strings(6)]
    table = request_table(strings)
    for admission in ("forced", "optional"):
        options = cache_options(capacity, admission=admission)
        group = make_group(table, options, table.num_episodes)
        expected = [
            least_faults(string, capacity, may_pass=admission == "optional") for string in strings
        ]
        assert faults(group, Belady(options)) == expected


def test_next_requests_are_those_of_the_string() -> None:
    table = request_table([[0, 1, 0, 2, 1, 0, 3]])
    for make_group in GROUPS:
        group = make_group(table, cache_options(2), 1)
        group.reset([0])
        assert group.privileged_state().next_request.tolist() == [[2, 1, 0]]
        group.step(np.array([0]))  # page 0 leaves
        assert group.privileged_state().state.slot_page.tolist() == [[2, 1, 0]]
        assert group.privileged_state().next_request.tolist() == [[0, 0, 0]]


@pytest.mark.parametrize(
    "fields", [{"unit": "tokens", "num_slots": 9}, {"evict_scope": "victim"}, {"shown_slots": 1}]
)
def test_belady_is_refused_where_it_is_no_bound(fields: dict[str, Any]) -> None:
    with pytest.raises(ValueError, match="Belady's rule is optimal for pages of one size"):
        Belady(cache_options(3, **fields))


def test_rules_and_bounds_need_what_they_play_by() -> None:
    with pytest.raises(ValueError, match="evict_scope must be 'any' and shown_slots None"):
        RuleEviction(RULES["LRU"], PagingOptions())
    layout = ActionLayout(2, 0)
    with pytest.raises(ValueError, match="privileged state; none was given"):
        Belady(cache_options(1)).act({}, torch.ones((1, layout.num_actions), dtype=torch.bool))


def test_strings_are_long_enough_to_matter() -> None:
    assert max(request_table(made_up_strings()).episode_num_pages) > 21
