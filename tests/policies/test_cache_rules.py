"""Eviction rules on cases worked out by hand, their laws, and the bound on them."""

from __future__ import annotations

import itertools

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from memrl.policies.belady import least_faults, next_requests
from memrl.policies.cache_rules import RULES, CacheRule, MakeRule, Sieve, simulate
from memrl.policies.ghost_rules import S3Fifo

TEXTBOOK = [1, 2, 3, 4, 1, 2, 5, 1, 2, 3, 4, 5]
STRINGS = st.lists(st.integers(0, 12), min_size=1, max_size=120)


def faults(name: str, requests: list[int], capacity: int) -> int:
    return len(requests) - simulate(RULES[name], requests, capacity)


def evictions(make_rule: MakeRule, requests: list[int], capacity: int) -> list[int]:
    """Pages in the order in which they leave."""
    left: list[int] = []

    def noting(places: int) -> CacheRule:
        rule = make_rule(places)
        evict = rule.evict

        def noted() -> int:
            left.append(evict())
            return left[-1]

        rule.evict = noted  # type: ignore[method-assign]
        return rule

    simulate(noting, requests, capacity)
    return left


def test_fifo_shows_beladys_anomaly_on_the_textbook_string() -> None:
    assert faults("FIFO", TEXTBOOK, 3) == 9
    assert faults("FIFO", TEXTBOOK, 4) == 10
    assert faults("LRU", TEXTBOOK, 3) == 10
    assert faults("LRU", TEXTBOOK, 4) == 8
    assert least_faults(TEXTBOOK, 3) == 7
    assert least_faults(TEXTBOOK, 4) == 6


@pytest.mark.parametrize(
    ("name", "requests", "expected"),
    [
        # 0 has been hit: FIFO lets it go all the same, LRU and LFU do not.
        ("FIFO", [0, 1, 2, 0, 3], [0]),
        ("LRU", [0, 1, 2, 0, 3], [1]),
        ("LFU", [0, 1, 2, 0, 3], [1]),
        # 1 has two hits, 0 and 2 one each, 2 the later one.
        ("LFU", [0, 1, 2, 1, 1, 0, 2, 3, 4], [0, 3]),
        # The hand spares 0 and takes 1; from there it goes on to 2, which was hit, and takes 3.
        ("SIEVE", [0, 1, 2, 0, 3, 2, 4], [1, 3]),
        # All were hit: the hand clears every mark and comes back to 0.
        ("SIEVE", [0, 1, 2, 0, 1, 2, 3], [0]),
        # 0 was hit and is in t2; 1 and 2 are in t1, whose target is 0.
        ("ARC", [0, 1, 2, 0, 3, 4], [1, 2]),
        # The ghost of 1 raises the target of t1 to 1; then t1 = {3} may stay and t2 gives 0.
        ("ARC", [0, 1, 2, 0, 3, 1, 4], [1, 2, 0]),
    ],
)
def test_who_leaves_a_cache_of_three(name: str, requests: list[int], expected: list[int]) -> None:
    assert evictions(RULES[name], requests, 3) == expected


def test_s3_fifo_passes_on_what_was_hit_twice_and_remembers_the_rest() -> None:
    # 20 places: 2 small, 18 main, 18 ghosts. While it fills, 0 and 1 take the small queue, the
    # others go to the main one.
    filling = list(range(20))
    assert evictions(S3Fifo, [*filling, 20], 20) == [0]
    # 0 with two hits moves on to the main queue, which now holds one more than its share: from
    # there the oldest without a hit leaves, 2.
    assert evictions(S3Fifo, [*filling, 0, 0, 1, 1, 20], 20) == [2]
    # One hit is not enough.
    assert evictions(S3Fifo, [*filling, 0, 20], 20) == [0]
    # 0 comes back as a ghost, to the main queue, which then is over its share.
    assert evictions(S3Fifo, [*filling, 20, 0, 21], 20) == [0, 1, 2]


@pytest.mark.parametrize("name", RULES)
@given(requests=STRINGS, capacity=st.integers(1, 15))
@settings(max_examples=40)
def test_no_rule_beats_belady_and_all_fill_the_cache_first(
    name: str, requests: list[int], capacity: int
) -> None:
    count = faults(name, requests, capacity)
    assert least_faults(requests, capacity) <= count <= len(requests)
    if len(set(requests)) <= capacity:
        assert count == len(set(requests))


@given(requests=STRINGS)
@settings(max_examples=60)
def test_a_larger_lru_cache_holds_all_that_a_smaller_one_holds(requests: list[int]) -> None:
    for capacity in range(1, 12):
        small, large = RULES["LRU"](capacity), RULES["LRU"](capacity + 1)
        held: list[set[int]] = [set(), set()]
        for page in requests:
            for rule, resident, places in zip(
                (small, large), held, (capacity, capacity + 1), strict=True
            ):
                if page in resident:
                    rule.hit(page)
                    continue
                rule.miss(page, 1)
                if len(resident) == places:
                    resident.remove(rule.evict())
                rule.admit(page, 1)
                resident.add(page)
            assert held[0] <= held[1]


@pytest.mark.parametrize("name", RULES)
def test_a_page_that_left_otherwise_is_forgotten(name: str) -> None:
    rng = np.random.default_rng(0)
    rule, resident = RULES[name](6), set[int]()
    for page in rng.integers(0, 14, 3000).tolist():
        if page in resident:
            rule.hit(page)
            continue
        rule.miss(page, 1)
        while len(resident) == 6 or (resident and rng.random() < 0.2):
            if rng.random() < 0.5:
                gone = int(rng.choice(sorted(resident)))
                rule.forget(gone)
            else:
                gone = rule.evict()
            resident.remove(gone)
        rule.admit(page, 1)
        resident.add(page)


@pytest.mark.parametrize("make_rule", [S3Fifo, Sieve])
def test_sizes_are_what_capacity_counts(make_rule: MakeRule) -> None:
    """Pages of size 3 in a cache of 60 are pages of size 1 in one of 20."""
    rng = np.random.default_rng(1)
    requests = (rng.zipf(1.3, 2000) % 40).tolist()
    large = simulate(make_rule, requests, 60, dict.fromkeys(range(40), 3))
    assert large == simulate(make_rule, requests, 20)


# ---------------------------------------------------------------------- Belady


def brute_force(requests: tuple[int, ...], capacity: int, *, may_pass: bool) -> int:
    """Try every eviction."""

    def fewest(held: frozenset[int], place: int) -> int:
        if place == len(requests):
            return 0
        page = requests[place]
        if page in held:
            return fewest(held, place + 1)
        if len(held) < capacity:
            choices = [held | {page}]
        else:
            choices = [held - {gone} | {page} for gone in held]
        if may_pass:
            choices.append(held)
        return 1 + min(fewest(choice, place + 1) for choice in choices)

    return fewest(frozenset(), 0)


@pytest.mark.parametrize("capacity", [1, 2, 3])
@pytest.mark.parametrize("may_pass", [False, True])
def test_belady_equals_brute_force_on_all_short_strings(capacity: int, may_pass: bool) -> None:
    for length in range(1, 7):
        for requests in itertools.product(range(4), repeat=length):
            if requests[0] != 0:  # the same strings under other names
                continue
            expected = brute_force(requests, capacity, may_pass=may_pass)
            assert least_faults(requests, capacity, may_pass=may_pass) == expected, requests


def test_next_requests() -> None:
    assert next_requests([5, 6, 5, 5, 7]) == [2, 5, 3, 5, 5]
    assert next_requests([]) == []
