from __future__ import annotations

import math
from collections.abc import Mapping, Sequence
from dataclasses import replace
from typing import Any

import numpy as np
import pytest
import torch
from table_fixtures import REWARD, small_table
from torch import Tensor

from envs.batched import BatchedPaging
from envs.lockstep import LockstepPaging
from envs.workloads.nested_kv import generate_nested_kv, whole_documents
from memrl.actions import ActionLayout, Op
from memrl.evaluation.lineup import SideBySide
from memrl.evaluation.play import EpisodeRecord, play
from memrl.memory.embedders import HashingEmbedder
from memrl.observation import FEATURES, GLOBALS
from memrl.options import PagingOptions
from memrl.policies.base import Policy, first_legal, layout_of
from memrl.policies.heuristics import (
    CacheEviction,
    ChainSearch,
    StoreAndRetrieve,
    UniformRandom,
    YieldOnly,
)
from memrl.table_build import build_table, fit_lexical_statistics

Rows = Mapping[int, Mapping[str, float]]
Move = tuple[Op, int]


def seen(
    *, at_query: bool, slots: Rows, num_slots: int = 3, num_candidates: int = 2
) -> dict[str, Tensor]:
    """One observation with these features set and all others 0; the last row is for arrivals."""
    rows = torch.zeros((1, num_slots + 1, len(FEATURES)))
    for row, features in slots.items():
        for name, value in {"occupied": 1.0, **features}.items():
            rows[0, row, FEATURES.index(name)] = value
    situation = torch.zeros((1, len(GLOBALS)))
    situation[0, GLOBALS.index("at_query" if at_query else "under_pressure")] = 1.0
    candidates = torch.zeros((1, num_candidates, len(FEATURES)))
    return {"slots": rows, "candidates": candidates, "globals": situation}


def legal(observation: Mapping[str, Tensor], *moves: Move) -> Tensor:
    layout = layout_of(observation)
    mask = torch.zeros((1, layout.num_actions), dtype=torch.bool)
    mask[0, 0] = True
    for op, argument in moves:
        mask[0, layout.encode(op, argument)] = True
    return mask


def choice(policy: Policy, observation: Mapping[str, Tensor], *moves: Move) -> Move:
    actions = policy.act(observation, legal(observation, *moves))
    assert actions.shape == (1,)
    assert actions.dtype == torch.int64
    return layout_of(observation).decode(int(actions))


EVICT_ALL = [(Op.EVICT, row) for row in range(3)]
FULL: Rows = {0: {}, 1: {}, 2: {}, 3: {"arriving": 1.0}}


# ---------------------------------------------------------------------------------------- helpers


def test_the_first_legal_action_of_an_operation() -> None:
    layout = ActionLayout(3, 4)
    mask = torch.zeros((3, layout.num_actions), dtype=torch.bool)
    mask[0, layout.encode(Op.RETRIEVE, 2)] = True
    mask[0, layout.encode(Op.RETRIEVE, 3)] = True
    mask[1, layout.encode(Op.STORE, 1)] = True
    action, there_is_one = first_legal(mask, layout, Op.RETRIEVE)
    assert int(action[0]) == layout.encode(Op.RETRIEVE, 2)
    assert there_is_one.tolist() == [True, False, False]


def test_without_candidates_nothing_can_be_retrieved() -> None:
    layout = ActionLayout(3, 0)
    mask = torch.ones((2, layout.num_actions), dtype=torch.bool)
    action, there_is_one = first_legal(mask, layout, Op.RETRIEVE)
    assert action.tolist() == [0, 0]
    assert action.dtype == torch.int64
    assert there_is_one.tolist() == [False, False]


# ---------------------------------------------------------------------------------------- FIFO


def test_yield_only_yields_whatever_is_legal() -> None:
    observation = seen(at_query=False, slots=FULL)
    mask = torch.ones((5, layout_of(observation).num_actions), dtype=torch.bool)
    assert YieldOnly().act(observation, mask).tolist() == [0] * 5
    assert YieldOnly().act(observation, mask).dtype == torch.int64


# ---------------------------------------------------------------------------------------- random


@pytest.mark.usefixtures("poison_global_rng")
def test_random_play_is_uniform_over_the_legal_actions_alone() -> None:
    observation = seen(at_query=False, slots=FULL)
    layout = layout_of(observation)
    mask = torch.zeros((8000, layout.num_actions), dtype=torch.bool)
    mask[:, [0, 3, 7, 12]] = True
    mask[4000:, 12] = False
    actions = UniformRandom(torch.Generator().manual_seed(1)).act(observation, mask)
    first, second = actions[:4000].bincount(minlength=13), actions[4000:].bincount(minlength=13)
    # 4 standard deviations of a binomial share.
    assert first[[0, 3, 7, 12]] / 4000 == pytest.approx([0.25] * 4, abs=0.028)
    assert second[[0, 3, 7]] / 4000 == pytest.approx([1 / 3] * 3, abs=0.030)
    assert int(first[[0, 3, 7, 12]].sum()) == 4000
    assert int(second[[0, 3, 7]].sum()) == 4000


def test_random_play_depends_on_its_generator_alone() -> None:
    observation = seen(at_query=False, slots=FULL)
    mask = torch.ones((50, layout_of(observation).num_actions), dtype=torch.bool)
    draws = [
        UniformRandom(torch.Generator().manual_seed(seed)).act(observation, mask).tolist()
        for seed in (3, 3, 4)
    ]
    assert draws[0] == draws[1]
    assert draws[0] != draws[2]


# ---------------------------------------------------------------------------------------- caches


def cache_rows(since: Sequence[float], uses: Sequence[float]) -> Rows:
    slots = {
        row: {"since_last_use": age, "uses": used / 4}
        for row, (age, used) in enumerate(zip(since, uses, strict=True))
    }
    return {**slots, 3: {"arriving": 1.0, "since_last_use": 9.0}}


@pytest.mark.parametrize(
    ("by", "since", "uses", "row"),
    [
        ("recency", [0.2, 0.9, 0.5], [0, 3, 0], 1),
        ("recency", [0.5, 0.2, 0.5], [5, 0, 0], 0),  # a tie: the first row
        ("frequency", [0.2, 0.9, 0.5], [1, 3, 2], 0),
        ("frequency", [0.2, 0.9, 0.5], [1, 2, 1], 2),  # a tie: the least recently used
        ("frequency", [0.0, 10.0, 10.0], [0, 1, 1], 0),  # no age outweighs a use
        ("frequency", [0.5, 0.5, 0.2], [1, 1, 1], 0),
    ],
)
def test_caches_evict_the_least_used_page(
    by: Any, since: list[float], uses: list[float], row: int
) -> None:
    observation = seen(at_query=False, slots=cache_rows(since, uses))
    assert choice(CacheEviction(by), observation, *EVICT_ALL) == (Op.EVICT, row)


@pytest.mark.parametrize("by", ["recency", "frequency"])
def test_caches_choose_among_legal_rows_and_never_the_arriving_page(by: Any) -> None:
    observation = seen(at_query=False, slots=cache_rows([0.2, 0.9, 0.5], [3, 0, 1]))
    moves = [(Op.EVICT, 0), (Op.EVICT, 2), (Op.EVICT, 3), (Op.STORE, 0)]
    assert choice(CacheEviction(by), observation, *moves) == (Op.EVICT, 2)
    assert choice(CacheEviction(by), observation, (Op.EVICT, 3), (Op.STORE, 0)) == (Op.YIELD, 0)


@pytest.mark.parametrize("by", ["recency", "frequency"])
def test_caches_yield_at_queries(by: Any) -> None:
    observation = seen(at_query=True, slots=cache_rows([0.2, 0.9, 0.5], [3, 0, 1]))
    assert choice(CacheEviction(by), observation, *EVICT_ALL) == (Op.YIELD, 0)


# ---------------------------------------------------------------------------------------- storing


def victim_with_logit(logit: float, **features: float) -> Rows:
    return {
        0: {"prior": 5.0},
        1: {"victim": 1.0, "prior": logit / 4, **features},
        2: {"prior": 5.0},
        3: {"arriving": 1.0, "prior": 5.0},
    }


@pytest.mark.parametrize(
    ("logit", "threshold", "stores"),
    [
        (2.0, 2.0, True),
        (2.0, 2.25, False),
        (-2.0, -2.25, True),
        (-2.0, -1.75, False),
        (-40.0, -math.inf, True),
        (40.0, math.inf, False),
    ],
)
def test_what_is_about_to_be_lost_is_stored_from_the_threshold_on(
    logit: float, threshold: float, stores: bool
) -> None:
    observation = seen(at_query=False, slots=victim_with_logit(logit))
    policy = StoreAndRetrieve(top_k=1, store_threshold=threshold)
    expected = (Op.STORE, 1) if stores else (Op.YIELD, 0)
    assert choice(policy, observation, (Op.STORE, 1)) == expected


def test_only_the_victim_is_stored_though_others_may_be() -> None:
    observation = seen(at_query=False, slots=victim_with_logit(0.0))
    policy = StoreAndRetrieve(top_k=1)
    others = [(Op.STORE, 0), (Op.STORE, 2), (Op.STORE, 3)]
    assert choice(policy, observation, *others, (Op.STORE, 1)) == (Op.STORE, 1)
    assert choice(policy, observation, *others) == (Op.YIELD, 0)  # the victim is stored already


def test_everything_is_stored_unless_a_threshold_is_given() -> None:
    observation = seen(at_query=False, slots=victim_with_logit(-1000.0))
    assert choice(StoreAndRetrieve(top_k=3), observation, (Op.STORE, 1)) == (Op.STORE, 1)


# ---------------------------------------------------------------------------------------- bringing

RETRIEVE_BOTH = [(Op.RETRIEVE, 0), (Op.RETRIEVE, 1)]


def test_candidates_are_retrieved_in_order_of_rank() -> None:
    observation = seen(at_query=True, slots=victim_with_logit(0.0))
    policy = StoreAndRetrieve(top_k=2)
    assert choice(policy, observation, *RETRIEVE_BOTH) == (Op.RETRIEVE, 0)
    assert choice(policy, observation, (Op.RETRIEVE, 1)) == (Op.RETRIEVE, 1)
    assert choice(policy, observation, (Op.NEXT, 0), (Op.SEARCH, 0)) == (Op.YIELD, 0)


@pytest.mark.parametrize(("retrieved", "goes_on"), [(0, True), (1, True), (2, False), (3, False)])
def test_retrieving_stops_at_top_k(retrieved: int, goes_on: bool) -> None:
    slots = {row: {"retrieved": float(row < retrieved)} for row in range(3)}
    observation = seen(at_query=True, slots=slots)
    expected = (Op.RETRIEVE, 0) if goes_on else (Op.YIELD, 0)
    assert choice(StoreAndRetrieve(top_k=2), observation, *RETRIEVE_BOTH) == expected


def test_nothing_is_retrieved_under_pressure() -> None:
    observation = seen(at_query=False, slots=victim_with_logit(0.0))
    assert choice(StoreAndRetrieve(top_k=2), observation, *RETRIEVE_BOTH) == (Op.YIELD, 0)


def test_a_victim_is_stored_at_a_query_only_for_something_retrieved_into_its_place() -> None:
    observation = seen(at_query=True, slots=victim_with_logit(1.0))
    store = (Op.STORE, 1)
    policy = StoreAndRetrieve(top_k=1)
    assert choice(policy, observation, store, *RETRIEVE_BOTH) == store
    assert choice(policy, observation, store) == (Op.YIELD, 0)
    picky = replace(policy, store_threshold=1.5)
    assert choice(picky, observation, store, *RETRIEVE_BOTH) == (Op.RETRIEVE, 0)
    done = seen(at_query=True, slots=victim_with_logit(1.0, retrieved=1.0))
    assert choice(policy, done, store, *RETRIEVE_BOTH) == (Op.YIELD, 0)


def test_each_row_of_a_batch_is_decided_by_itself() -> None:
    cases = [
        (seen(at_query=False, slots=victim_with_logit(3.0)), [(Op.STORE, 1)]),
        (seen(at_query=False, slots=victim_with_logit(-3.0)), [(Op.STORE, 1)]),
        (seen(at_query=True, slots=victim_with_logit(-3.0)), [(Op.STORE, 1), (Op.RETRIEVE, 1)]),
        (seen(at_query=True, slots=FULL), [(Op.NEXT, 0)]),
    ]
    together = {name: torch.cat([o[name] for o, _ in cases]) for name in cases[0][0]}
    mask = torch.cat([legal(observation, *moves) for observation, moves in cases])
    actions = StoreAndRetrieve(top_k=1, store_threshold=0.0).act(together, mask)
    layout = layout_of(together)
    assert [layout.decode(int(action)) for action in actions] == [
        (Op.STORE, 1),
        (Op.YIELD, 0),
        (Op.RETRIEVE, 1),
        (Op.YIELD, 0),
    ]


# ---------------------------------------------------------------------------------------- in play


def policies() -> list[Policy]:
    return [
        YieldOnly(),
        UniformRandom(torch.Generator().manual_seed(0)),
        CacheEviction("recency"),
        CacheEviction("frequency"),
        StoreAndRetrieve(top_k=2),
        StoreAndRetrieve(top_k=4, store_threshold=0.0),
        StoreAndRetrieve(top_k=3, store_threshold=math.inf),
    ]


SETTINGS: list[dict[str, Any]] = [
    {"capacity": 4},
    {"capacity": 3, "num_candidates": 0},
    {"capacity": 1, "archival_capacity": 0},
    {"capacity": 4, "evict_scope": "any", "store_scope": "any", "archival_capacity": 2},
    {"capacity": 3, "evict_scope": "any", "admission": "optional", "stage_from": "both"},
    {"capacity": 20, "unit": "tokens", "num_slots": 3, "operation_budget": 2},
    {"capacity": 20, "unit": "tokens", "num_slots": 5, "evict_fraction": 0.5},
]


def played(fields: dict[str, Any], num_episodes: int = 10) -> list[list[EpisodeRecord]]:
    """Records of each policy on the same episodes, all of them in one group."""
    table = small_table(7, num_documents=3, num_episodes=num_episodes, coarse=True)
    settings: dict[str, Any] = {"num_candidates": 3, "reward": REWARD, **fields}
    options = PagingOptions(**settings)
    can_batch = options.store_scope == "victim"
    make_group = BatchedPaging if can_batch else LockstepPaging
    group = make_group(table, options, num_episodes * len(policies()))
    episodes = list(range(num_episodes)) * len(policies())
    records = play(group, SideBySide(policies()), episodes)
    return [records[i : i + num_episodes] for i in range(0, len(records), num_episodes)]


@pytest.mark.parametrize("fields", SETTINGS)
def test_no_heuristic_ever_plays_an_illegal_action(fields: dict[str, Any]) -> None:
    for records in played(fields):
        assert [record.illegal for record in records] == [0] * 10
        assert [record.episode for record in records] == list(range(10))


def test_in_play_each_uses_the_operations_that_it_is_known_for() -> None:
    used = []
    for records in played({"capacity": 4, "num_candidates": 1, "evict_scope": "any"}):
        totals = {op.name: sum(r.operations[op.name.lower()] for r in records) for op in Op}
        used.append({name for name, count in totals.items() if count and name != "YIELD"})
    everything = {"NEXT", "EVICT", "STORE", "SEARCH", "RETRIEVE"}
    assert used == [
        set(),
        everything,
        {"EVICT"},
        {"EVICT"},
        {"STORE", "RETRIEVE"},
        {"STORE", "RETRIEVE"},
        set(),
    ]


def test_fifo_keeps_the_latest_pages() -> None:
    """Its evidence is the share of needs among the last `capacity` pages that have arrived."""
    table = small_table(3, num_documents=3, num_episodes=20)
    group = LockstepPaging(table, PagingOptions(capacity=4, reward=REWARD), 20)
    records = play(group, YieldOnly(), range(20))
    total = 0.0
    for record in records:
        arrived, expected = 0, 0.0
        document = int(table.episode_document[record.episode])
        for event in range(record.events):
            index = int(table.event_index[record.episode, event])
            if table.event_kind[record.episode, event] == 0:
                arrived += 1
            elif table.query_pays[table.query_offset[document] + index]:
                needs = table.needs_in_window(record.episode, index)
                expected += sum(arrived - 4 <= need < arrived for need in needs) / len(needs)
        assert record.evidence == pytest.approx(expected)
        assert record.episode_return == pytest.approx(expected)
        total += expected
    assert total > 0


# ---------------------------------------------------------------------------------------- chains


def with_lexical(observation: dict[str, Tensor], *scores: float) -> dict[str, Tensor]:
    observation["candidates"][0, :, FEATURES.index("lexical")] = torch.tensor(scores)
    return observation


SEARCHES = [(Op.SEARCH, row) for row in range(3)]
RETRIEVES = [(Op.RETRIEVE, 0), (Op.RETRIEVE, 1)]
FOUND = {"retrieved": 1.0, "uses": 0.25}
SEARCHED = {"retrieved": 1.0, "uses": 0.5}


def test_chain_search_retrieves_the_first_candidate_that_matches() -> None:
    policy = ChainSearch(0.25)
    observation = with_lexical(seen(at_query=True, slots={0: FOUND}), 0.2, 0.25)
    assert choice(policy, observation, *SEARCHES, *RETRIEVES) == (Op.RETRIEVE, 1)
    both = with_lexical(seen(at_query=True, slots={0: FOUND}), 0.3, 0.9)
    assert choice(policy, both, *SEARCHES, *RETRIEVES) == (Op.RETRIEVE, 0)
    assert choice(policy, both, *SEARCHES, (Op.RETRIEVE, 1)) == (Op.RETRIEVE, 1)


def test_chain_search_searches_once_from_each_page_that_it_retrieved() -> None:
    policy = ChainSearch(0.25)
    slots: Rows = {0: {"uses": 0.25}, 1: SEARCHED, 2: FOUND}
    observation = with_lexical(seen(at_query=True, slots=slots), 0.1, 0.2)
    assert choice(policy, observation, *SEARCHES, *RETRIEVES) == (Op.SEARCH, 2)
    done = with_lexical(seen(at_query=True, slots={0: {"uses": 0.25}, 1: SEARCHED}), 0.1, 0.2)
    assert choice(policy, done, *SEARCHES, *RETRIEVES) == (Op.YIELD, 0)


def test_chain_search_does_what_is_legal_only() -> None:
    observation = with_lexical(seen(at_query=True, slots={0: FOUND}), 0.5, 0.5)
    assert choice(ChainSearch(0.25), observation) == (Op.YIELD, 0)
    pressed = seen(at_query=False, slots=FULL)
    assert choice(ChainSearch(0.0), pressed, *EVICT_ALL, (Op.STORE, 0)) == (Op.YIELD, 0)


def test_chain_search_needs_a_search_more_than_look_ups() -> None:
    """The last search finds that the value is no key; every level costs one more."""
    workload = generate_nested_kv(
        levels=range(7), documents_per_level=3, num_pairs=30, rng=np.random.default_rng(1)
    )
    documents = workload.documents
    table = build_table(
        documents,
        whole_documents(documents),
        HashingEmbedder(16),
        fit_lexical_statistics(documents),
        name="nested_kv",
    )
    options = PagingOptions(
        capacity=8, archival_capacity=None, num_candidates=10, staging="lexical"
    )
    group = BatchedPaging(table, options, table.num_episodes)
    for record in play(group, ChainSearch(0.15), range(table.num_episodes)):
        level = int(next(iter(record.evidence_by_category)).removeprefix("level "))
        assert record.evidence == 1.0
        assert record.operations == {
            **{"yield": 1, "retrieve": level + 1, "search": level + 1},
            **{"next": 0, "store": 0, "evict": 0},
        }
