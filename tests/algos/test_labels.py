from __future__ import annotations

from collections import Counter
from dataclasses import replace
from typing import Any

import numpy as np
import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st
from play_by_hand import TEXTS, apples, chain_table
from slow_gains import SlowGains
from table_fixtures import (
    REWARD,
    paging_options,
    random_action,
    small_table,
    table_of,
    with_room,
    with_scores,
)

from envs.batched import BatchedPaging
from envs.lockstep import LockstepPaging
from memrl.actions import Op
from memrl.algos.labels import gain_labels
from memrl.documents import Query
from memrl.options import PagingOptions
from memrl.state import TableTensors
from memrl.table import EpisodeTable

PLAIN = replace(REWARD, tokens=0.0)


STAGING = 0.25  # `staging_realization` of all tests
ROOM_PRICE = 0.75


def labels_of(group: LockstepPaging | BatchedPaging, realization: float) -> torch.Tensor:
    return gain_labels(
        group.privileged_state(),
        TableTensors.from_table(group.table),
        group.options,
        realization=realization,
        staging_realization=STAGING,
        room_price=ROOM_PRICE,
    )


def is_compared(group: LockstepPaging, op: Op, argument: int) -> bool:
    """Not for how long a page that is on its way in will stay: labels do not look that far."""
    return op is not Op.STORE or argument < group.layout.num_rows - 1


def compare_along_random_play(
    table: EpisodeTable, options: PagingOptions, realization: float, seed: int, steps: int
) -> Counter[str]:
    """Check the label of every legal action of every row at each step; count by operation."""
    rng = np.random.default_rng(seed)
    group = LockstepPaging(table, options, 4)
    episodes = rng.integers(table.num_episodes, size=4).tolist()
    observation = group.reset(episodes)
    running = np.ones(4, dtype=bool)
    compared: Counter[str] = Counter()
    for _ in range(steps):
        labels = labels_of(group, realization)
        assert labels.dtype == torch.float32
        masks = observation["action_mask"].numpy()
        for row in np.flatnonzero(running).tolist():
            slow = SlowGains(group, row, realization, STAGING, ROOM_PRICE)
            for action in np.flatnonzero(masks[row]).tolist():
                op, argument = group.layout.decode(action)
                if is_compared(group, op, argument):
                    expected = slow.gain(op, argument)
                    where = (seed, episodes, row, group.process(row).event, op, argument)
                    assert float(labels[row, action]) == pytest.approx(expected, abs=2e-5), where
                    quiet = expected in (0, -options.reward.next, -options.reward.search)
                    compared[op.name] += not quiet
        actions = np.array([random_action(mask, rng) for mask in masks])
        result = group.step(actions)
        observation = result.observation
        running &= ~result.terminated
        if not running.any():
            break
    return compared


@settings(max_examples=15)
@given(
    options=paging_options(),
    table_seed=st.integers(0, 3),
    realization=st.sampled_from([0.25, 0.6, 1.0]),
    seed=st.integers(0, 2**16),
)
def test_labels_equal_the_slow_ones(
    options: PagingOptions, table_seed: int, realization: float, seed: int
) -> None:
    table = small_table(
        table_seed,
        num_documents=3,
        num_episodes=12,
        num_queries=6,
        coarse=True,
        most_preloaded=4 if table_seed == 3 else 0,
        longest_route=3 if table_seed >= 2 else 0,
    )
    compare_along_random_play(table, with_room(options, table), realization, seed, steps=12)


GENEROUS: dict[str, Any] = {"num_candidates": 1, "evict_scope": "any", "staging": "lexical"}


@pytest.mark.parametrize(
    "fields",
    [
        {"capacity": 3, "archival_capacity": None},
        {"capacity": 2, "archival_capacity": 2, "stage_from": "both"},
        {"capacity": 24, "unit": "tokens", "num_slots": 4, "archival_capacity": 4},
    ],
)
def test_labels_equal_the_slow_ones_in_each_kind_of_setting(fields: dict[str, Any]) -> None:
    """Here every operation is seen with a gain that is more than its cost alone."""
    options = PagingOptions(reward=PLAIN, **(GENEROUS | fields))
    table = small_table(2, num_documents=3, num_episodes=12, num_queries=6, coarse=True)
    compared: Counter[str] = Counter()
    for seed in range(3):
        compared += compare_along_random_play(table, options, 0.6, seed, steps=30)
    assert set(compared) == {"NEXT", "EVICT", "STORE", "SEARCH", "RETRIEVE"}, compared


@pytest.mark.parametrize("stage_from", ["archival", "both"])
def test_labels_equal_the_slow_ones_along_routes(stage_from: Any) -> None:
    """Preloaded pages, so that much can be retrieved, searched from and turned to."""
    options = PagingOptions(
        capacity=4,
        archival_capacity=None,
        num_candidates=2,
        staging="hybrid",
        stage_from=stage_from,
        reward=replace(PLAIN, retrieve=0.0625, search=0.03125, next=0.015625),
    )
    table = small_table(
        5,
        num_documents=3,
        num_episodes=12,
        num_queries=6,
        coarse=True,
        most_preloaded=11,
        longest_route=4,
    )
    compared: Counter[str] = Counter()
    for seed in range(3):
        compared += compare_along_random_play(table, options, 0.6, seed, steps=30)
    assert min(compared[name] for name in ("NEXT", "SEARCH", "RETRIEVE")) > 20, compared


def test_what_the_archive_has_dropped_since_the_search_is_not_turned_to() -> None:
    """A small archive, so that storing at a query pushes out pages that it has staged."""
    options = PagingOptions(
        capacity=3, archival_capacity=2, num_candidates=1, staging="hybrid", reward=PLAIN
    )
    table = small_table(0, num_documents=3, num_episodes=12, num_queries=6, coarse=True)
    compared: Counter[str] = Counter()
    for seed in (9, 12, 16):  # in each of them NEXT would have shown evidence that is gone
        compared += compare_along_random_play(table, options, 0.6, seed, steps=40)
    assert compared["NEXT"] > 0


def test_both_environments_give_the_same_labels() -> None:
    options = PagingOptions(
        capacity=3, num_candidates=2, evict_scope="any", archival_capacity=4, reward=REWARD
    )
    table = small_table(1, num_documents=3, num_episodes=12, num_queries=6, coarse=True)
    groups: list[LockstepPaging | BatchedPaging] = [
        LockstepPaging(table, options, 12),
        BatchedPaging(table, options, 12),
    ]
    rng = np.random.default_rng(0)
    observations = [group.reset(range(12)) for group in groups]
    for _ in range(15):
        slow, fast = (labels_of(group, 0.6) for group in groups)
        mask = observations[0]["action_mask"]
        assert torch.equal(slow[mask], fast[mask])
        actions = np.array([random_action(row, rng) for row in mask.numpy()])
        observations = [group.step(actions).observation for group in groups]


# ---------------------------------------------------------------------------------------- by hand


class Decision:
    """An episode at a decision reached by these moves, and the labels there."""

    def __init__(
        self, table: EpisodeTable, moves: list[tuple[Op, int]], realization: float, **fields: Any
    ) -> None:
        settings: dict[str, Any] = {"reward": PLAIN, "staging": "dense", "capacity": 3, **fields}
        options = PagingOptions(**settings)
        self.group = LockstepPaging(table, options, 1)
        self.group.reset([0])
        for op, argument in moves:
            action = self.group.layout.encode(op, argument)
            assert not self.group.step(np.array([action])).illegal[0]
        self.labels = labels_of(self.group, realization)[0]

    def __call__(self, op: Op, argument: int = 0) -> float:
        action = self.group.layout.encode(op, argument)
        assert self.group.observation()["action_mask"][0, action]
        return float(self.labels[action])


STORE_THREE = [(Op.STORE, 0), (Op.STORE, 1), (Op.STORE, 2)]  # forced YIELDs follow each
FREE_STORE_THREE = [(op, row) for row in range(3) for op, row in ((Op.STORE, row), (Op.YIELD, 0))]
"""The same with `evict_scope="any"`, where nothing is forced."""


def test_store_counts_the_later_queries_that_need_the_page() -> None:
    # Page 3 arrives; the victim is page 0, needed twice by one query each.
    decision = Decision(apples(5, 6), [], 0.5)
    assert decision(Op.STORE, 0) == 0.5 * 2 * (1 - PLAIN.retrieve) - PLAIN.store
    assert decision(Op.YIELD) == 0


def test_store_counts_shares_and_leaves_out_what_is_not_worth_retrieving() -> None:
    decision = Decision(apples(6, needs=(0, 1)), [], 1.0)
    assert decision(Op.STORE, 0) == 0.5 - PLAIN.retrieve - PLAIN.store
    dear = Decision(apples(6, needs=(0, 1)), [], 1.0, reward=replace(PLAIN, retrieve=0.75))
    assert dear(Op.STORE, 0) == -PLAIN.store


def test_store_counts_only_while_the_page_would_be_absent() -> None:
    # With store_scope="any", page 2 (third in the queue) leaves after about two more events.
    def label(asked_after: int) -> float:
        table = apples(asked_after, needs=(2,))
        return Decision(table, [], 1.0, store_scope="any")(Op.STORE, 2)

    # Page 3 has arrived. A query after 4 pages comes in one event, after 6 in three.
    assert label(4) == label(5) == -PLAIN.store
    assert label(6) == 1 - PLAIN.retrieve - PLAIN.store


@pytest.mark.parametrize(("asked_after", "counts"), [(6, True), (8, True), (9, False)])
def test_store_counts_only_until_the_archive_drops_the_page(asked_after: int, counts: bool) -> None:
    """Two stores in six events: an archive of one keeps what is stored now for three events."""
    texts = [f"page {number}" for number in range(10)]
    table = table_of(texts, [(asked_after, Query("what about page 2?", (2,)))])
    decision = Decision(table, STORE_THREE[:2], 1.0, archival_capacity=1)
    assert decision.group.process(0).event == 6
    value = 1 - PLAIN.retrieve if counts else 0.0
    assert decision(Op.STORE, 2) == value - PLAIN.store


@pytest.mark.parametrize(("asked_after", "counts"), [(13, True), (14, False)])
def test_the_events_that_the_archive_keeps_a_page_are_not_rounded_off(
    asked_after: int, counts: bool
) -> None:
    """One store in seven events: an archive of one keeps what is stored now for seven more."""
    texts = [f"page {number}" for number in range(14)]
    table = table_of(texts, [(asked_after, Query("what about page 1?", (1,)))])
    decision = Decision(table, [(Op.STORE, 0)], 1.0, archival_capacity=1, capacity=5)
    process = decision.group.process(0)
    assert (process.event, process.core.counts.stores, process.core.victim) == (7, 1, 1)
    value = 1 - PLAIN.retrieve if counts else 0.0
    assert decision(Op.STORE, 1) == value - PLAIN.store


@pytest.mark.parametrize(("capacity", "lost"), [(3, 0.0), (2, 0.5), (1, 0.0)])
def test_a_store_pays_for_what_the_archive_drops_for_it(capacity: int, lost: float) -> None:
    """Pages 0 and 1 are stored by event 6; page 0 is asked for three events later: one store more.

    An archive of three does not overflow by then. One of two drops either page. One of one holds
    page 1 alone, and page 0 is gone.
    """
    texts = [f"page {number}" for number in range(10)]
    table = table_of(texts, [(8, Query("what about page 0?", (0,)))])
    decision = Decision(table, STORE_THREE[:2], 0.5, archival_capacity=capacity)
    process = decision.group.process(0)
    assert (process.event, process.core.counts.stores) == (6, 2)
    value = -ROOM_PRICE * lost * (1 - PLAIN.retrieve)
    assert decision(Op.STORE, 2) == pytest.approx(0.5 * value - PLAIN.store)


def test_a_store_costs_no_room_where_all_would_be_dropped_anyway() -> None:
    """Two stores in six events: what an archive of two holds is gone after six events more."""
    texts = [f"page {number}" for number in range(14)]
    for asked_after, lost in [(10, 0.5), (11, 0.5), (12, 0.0)]:
        table = table_of(texts, [(asked_after, Query("what about page 0?", (0,)))])
        decision = Decision(table, STORE_THREE[:2], 1.0, archival_capacity=2)
        value = -ROOM_PRICE * lost * (1 - PLAIN.retrieve)
        assert decision(Op.STORE, 2) == pytest.approx(value - PLAIN.store), asked_after


def test_retrieve_gains_the_share_that_it_newly_covers() -> None:
    decision = Decision(apples(6, needs=(0, 4)), STORE_THREE, 0.5)
    assert decision(Op.RETRIEVE, 0) == 0.5 - PLAIN.retrieve  # page 0; the victim, 3, is not needed
    assert decision(Op.RETRIEVE, 1) == -PLAIN.retrieve  # page 2
    tokens = Decision(apples(6, needs=(0,)), STORE_THREE, 0.5, reward=REWARD)
    page_tokens = int(tokens.group.table.page_tokens[0])
    assert tokens(Op.RETRIEVE, 0) == 1 - REWARD.retrieve - REWARD.tokens * page_tokens


def test_retrieve_loses_what_it_pushes_out() -> None:
    # The victim at the query is page 3, which the query needs as well.
    decision = Decision(apples(6, needs=(0, 3)), STORE_THREE, 0.5)
    assert decision(Op.RETRIEVE, 0) == 0.5 - 0.5 - PLAIN.retrieve
    # A later query needs page 3. It is not stored: half of its share is counted on.
    table = table_of(TEXTS, [(6, Query("first?", (0,))), (6, Query("second?", (3,)))])
    for query in (0, 1):
        table = with_scores(table, query=query, dense=[0.9, 0.5, 0.8, 0.3, 0.2, 0.1])
    decision = Decision(table, STORE_THREE, 0.5)
    assert decision(Op.RETRIEVE, 0) == 1 - 0.5 - PLAIN.retrieve
    # Once it is stored, it has to be retrieved again.
    decision = Decision(table, [*STORE_THREE, (Op.STORE, 0)], 0.5)
    assert decision(Op.RETRIEVE, 0) == 1 - PLAIN.retrieve - PLAIN.retrieve


def test_retrieve_loses_nothing_where_there_is_room() -> None:
    table = apples(6, 6, needs=(0,))
    fields: dict[str, Any] = {"evict_scope": "any"}
    evicted = Decision(table, [*FREE_STORE_THREE, (Op.EVICT, 0)], 0.5, **fields)
    assert evicted.group.process(0).core.num_resident == 2
    assert evicted(Op.RETRIEVE, 0) == 1 - PLAIN.retrieve


def test_next_gains_what_it_stages_less_what_it_gives_up() -> None:
    fields: dict[str, Any] = {"num_candidates": 1}
    worth = STAGING * (1 - PLAIN.retrieve)
    # Ranked 0, 2, 1: page 2 is on the second page of results, page 1 on the third.
    second = Decision(apples(6, needs=(2,)), STORE_THREE, 0.5, **fields)
    assert second(Op.NEXT) == worth - PLAIN.next
    third = Decision(apples(6, needs=(1,)), STORE_THREE, 0.5, **fields)
    assert third(Op.NEXT) == -PLAIN.next
    turned = Decision(apples(6, needs=(1,)), [*STORE_THREE, (Op.NEXT, 0)], 0.5, **fields)
    assert turned(Op.NEXT) == worth - PLAIN.next
    shown = Decision(apples(6, needs=(0,)), STORE_THREE, 0.5, **fields)
    assert shown(Op.NEXT) == -worth - PLAIN.next
    both = Decision(apples(6, needs=(0, 2)), STORE_THREE, 0.5, **fields)
    assert both(Op.NEXT) == -PLAIN.next
    retrieved = Decision(apples(6, needs=(0, 2)), [*STORE_THREE, (Op.RETRIEVE, 0)], 0.5, **fields)
    assert retrieved(Op.NEXT) == STAGING * (0.5 - PLAIN.retrieve) - PLAIN.next


def search_table() -> EpisodeTable:
    """Page 1 is needed; it ranks first with page 4 as the focus, page 0 does with the query."""
    table = apples(6, needs=(1,))
    dense = table.dense.copy()
    base = int(table.page_score_base[0]) + 4 * 6
    dense[base : base + 6] = [0, 20000, 0, 0, 32767, 0]
    dense[base - 6 : base] = [20000, 0, 0, 32767, 0, 0]  # with page 3 it is page 0
    return replace(table, dense=dense)


def test_search_gains_what_its_first_page_stages_less_what_it_gives_up() -> None:
    worth = STAGING * (1 - PLAIN.retrieve)
    decision = Decision(search_table(), STORE_THREE, 0.5, num_candidates=1)
    slots = {page: decision.group.process(0).core.slot_of(page) for page in (3, 4)}
    slot = slots[4]
    assert decision(Op.SEARCH, slot) == worth - PLAIN.search
    # Afterwards page 1 is shown: page 3 as the focus would give it up.
    searched = Decision(search_table(), [*STORE_THREE, (Op.SEARCH, slot)], 0.5, num_candidates=1)
    assert searched(Op.SEARCH, slots[3]) == -worth - PLAIN.search
    # With three candidates the query stages it by itself.
    staged = Decision(search_table(), STORE_THREE, 0.5, num_candidates=3)
    assert staged(Op.SEARCH, slot) == -PLAIN.search


CHEAP = replace(PLAIN, retrieve=0.0625, search=0.03125, next=0.015625)


def test_a_step_of_a_route_is_worth_the_evidence_less_the_steps_to_go() -> None:
    fields: dict[str, Any] = {"num_candidates": 1, "reward": CHEAP}
    step = CHEAP.search + CHEAP.retrieve
    begun = Decision(chain_table(), STORE_THREE, 0.5, **fields)
    slot_of_3 = begun.group.process(0).core.slot_of(3)
    assert begun(Op.RETRIEVE, 0) == 1 - 2 * step - CHEAP.retrieve
    shown = 1 - 2 * step - CHEAP.retrieve  # what the candidate holds, given up by what follows
    assert begun(Op.NEXT) == (1 - CHEAP.retrieve) - shown - CHEAP.next  # page 2: the evidence
    assert begun(Op.SEARCH, slot_of_3) == (1 - CHEAP.retrieve) - shown - CHEAP.search

    retrieved = Decision(chain_table(), [*STORE_THREE, (Op.RETRIEVE, 0)], 0.5, **fields)
    slot_of_0 = retrieved.group.process(0).core.slot_of(0)
    assert retrieved(Op.SEARCH, slot_of_0) == 1 - step - CHEAP.retrieve - CHEAP.search
    # The ranking is 0, 2, 1: page 1 is two turns away, and the evidence is one.
    assert retrieved(Op.NEXT) == 1 - CHEAP.retrieve - CHEAP.next

    moves = [*STORE_THREE, (Op.RETRIEVE, 0), (Op.SEARCH, slot_of_0), (Op.RETRIEVE, 0)]
    last = Decision(chain_table(), moves, 0.5, **fields)
    slot_of_1 = last.group.process(0).core.slot_of(1)
    assert last(Op.SEARCH, slot_of_1) == 1 - CHEAP.retrieve - CHEAP.search


def test_what_the_page_before_it_does_not_stage_at_once_does_not_count() -> None:
    table = replace(chain_table(), query_needs=np.array([[1]]), query_route=np.array([[0]]))
    fields: dict[str, Any] = {"num_candidates": 1, "reward": CHEAP}
    decision = Decision(table, [*STORE_THREE, (Op.RETRIEVE, 0)], 0.5, **fields)
    # The ranking is 0, 2, 1, of which 0 was shown: the evidence is two turns away.
    assert decision(Op.NEXT) == -CHEAP.next
    begun = Decision(table, STORE_THREE, 0.5, **fields)
    slots = [begun.group.process(0).core.slot_of(page) for page in (3, 4)]
    gives_up = 1 - CHEAP.search - 2 * CHEAP.retrieve
    assert [begun(Op.SEARCH, slot) for slot in slots] == [-gives_up - CHEAP.search] * 2


def test_a_route_that_costs_more_than_the_evidence_is_worth_nothing() -> None:
    dear = replace(CHEAP, search=0.5)
    decision = Decision(chain_table(), STORE_THREE, 0.5, num_candidates=1, reward=dear)
    assert decision(Op.RETRIEVE, 0) == -dear.retrieve


def test_evict_loses_more_or_less_than_the_victim() -> None:
    table = table_of(TEXTS, [(6, Query("one?", (0,))), (6, Query("two?", (2, 5)))])
    decision = Decision(table, [], 0.5, evict_scope="any", admission="optional")
    # The victim, 0, is worth .5 x 1; page 1 nothing; page 2 .5 x .5; the arriving page 3 nothing.
    assert decision(Op.EVICT, 0) == 0
    assert decision(Op.EVICT, 1) == 0.5
    assert decision(Op.EVICT, 2) == 0.25
    assert decision(Op.EVICT, 3) == 0.5


def test_evict_at_a_query_costs_and_gains_nothing() -> None:
    decision = Decision(apples(6, 6, needs=(4, 0)), FREE_STORE_THREE, 0.5, evict_scope="any")
    slots = {page: decision.group.process(0).core.slot_of(page) for page in (3, 4)}
    assert decision(Op.EVICT, slots[3]) == -PLAIN.evict
    # Page 4 is needed now, .5, and by the next query, .5 x .5.
    assert decision(Op.EVICT, slots[4]) == -PLAIN.evict - 0.5 - 0.25


def test_a_query_that_pays_nothing_makes_nothing_worth_retrieving() -> None:
    table = table_of(TEXTS, [(6, Query("unknown?", (0,), answerable=False))])
    table = with_scores(table, query=0, dense=[0.9, 0.5, 0.8, 0.3, 0.2, 0.1])
    under_pressure = Decision(table, [], 1.0)
    assert under_pressure(Op.STORE, 0) == -PLAIN.store
    decision = Decision(table, STORE_THREE, 1.0, num_candidates=1)
    assert decision(Op.RETRIEVE, 0) == -PLAIN.retrieve
    assert decision(Op.NEXT) == -PLAIN.next
    assert decision(Op.SEARCH, 0) == -PLAIN.search


# ---------------------------------------------------------------------------------------- weights


@pytest.mark.parametrize("evidence", [0.5, 4.0])
def test_evidence_is_weighted_and_costs_are_not(evidence: float) -> None:
    """Gains are in reward: `retrieve` is paid in full whatever evidence weighs."""
    options = PagingOptions(
        capacity=3,
        num_candidates=2,
        archival_capacity=None,
        evict_scope="any",
        reward=replace(PLAIN, evidence=evidence),
    )
    table = small_table(2, num_documents=3, num_episodes=12, num_queries=6, coarse=True)
    compare_along_random_play(table, options, 0.6, seed=0, steps=30)


def test_retrieve_loses_every_page_that_it_pushes_out() -> None:
    # Page 0 has 4 tokens; pages 1 to 4 have 2 each, and the query needs three of them.
    queries = [(5, Query("what?", (0, 1, 2)))]
    table = table_of([f"page {i}" for i in range(5)], queries, tokens=[4, 2, 2, 2, 2])
    table = with_scores(table, query=0, dense=[0.9, 0.1, 0.1, 0.1, 0.1])
    decision = Decision(
        table, [(Op.STORE, 0)], 0.5, unit="tokens", capacity=8, num_slots=5, num_candidates=1
    )
    process = decision.group.process(0)
    assert process.core.queue == [1, 2, 3, 4]
    assert process.core.victims_for(0) == [1, 2]
    assert decision(Op.RETRIEVE, 0) == pytest.approx(1 / 3 - 2 / 3 - PLAIN.retrieve)
