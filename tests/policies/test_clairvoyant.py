from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import replace
from typing import Any, ClassVar, Literal

import numpy as np
import pytest
import torch
from play_by_hand import chain_table
from table_fixtures import REWARD, made_up_document, small_table, table_of, with_scores
from torch import Tensor

from envs.batched import BatchedPaging
from envs.lockstep import LockstepPaging
from envs.workloads.episodes import sample_episodes
from memrl.actions import Op
from memrl.config import EvaluationConfig
from memrl.documents import Document, Query
from memrl.evaluation import lineup
from memrl.evaluation.lineup import Arena
from memrl.evaluation.play import EpisodeRecord, play
from memrl.memory.embedders import HashingEmbedder
from memrl.options import DEFAULT_REWARD, PagingOptions
from memrl.policies.base import layout_of
from memrl.policies.clairvoyant import Clairvoyant
from memrl.policies.heuristics import YieldOnly
from memrl.privileged import PrivilegedState
from memrl.table import EpisodeTable, Event
from memrl.table_build import build_table, fit_lexical_statistics

Ask = Literal["interleaved", "end"]
PLAIN = replace(REWARD, tokens=0.0)


def with_needs(document: Document, rng: np.random.Generator, most: int) -> Document:
    """The document with queries that all pay, each needing 1..most pages."""
    num_pages = len(document.pages)
    queries = []
    for query in document.queries:
        count = int(rng.integers(1, most + 1))
        needs = sorted(rng.choice(num_pages, count, replace=False).tolist())
        queries.append(replace(query, needs=tuple(needs), answerable=True))
    return replace(document, queries=tuple(queries))


def asking_table(seed: int, *, most_needs: int, ask: Ask, num_pages: int = 14) -> EpisodeTable:
    """Four episodes in each of three documents, four questions in an episode."""
    rng = np.random.default_rng(seed)
    documents = [
        with_needs(made_up_document(rng, f"doc{i}", num_pages), rng, most_needs) for i in range(3)
    ]
    episodes = sample_episodes(
        documents,
        window_pages=num_pages,
        max_queries=4,
        ask=ask,
        episodes_per_document=4,
        rng=rng,
    )
    statistics = fit_lexical_statistics(documents)
    return build_table(documents, episodes, HashingEmbedder(16), statistics, name="asking")


def later_needs(table: EpisodeTable, episode: int, clock: int) -> set[int]:
    """Pages that queries after the first `clock` events of an episode need."""
    needed: set[int] = set()
    for event in range(clock, int(table.episode_num_events[episode])):
        if table.event_kind[episode, event] == Event.QUERY:
            query = int(table.event_index[episode, event])
            needed |= set(table.needs_in_window(episode, query))
    return needed


class Watched:
    """Plays as the clairvoyant and notes what it stores and retrieves in each row."""

    is_privileged: ClassVar[bool] = True

    def __init__(self, policy: Clairvoyant) -> None:
        self.policy = policy
        self.notes: list[tuple[Op, int, int, int]] = []  # operation, row, clock, page

    def act(
        self,
        observation: Mapping[str, Tensor],
        action_mask: Tensor,
        privileged: PrivilegedState | None = None,
    ) -> Tensor:
        assert privileged is not None
        actions = self.policy.act(observation, action_mask, privileged)
        state = privileged.state
        for row, action in enumerate(actions.tolist()):
            op, argument = layout_of(observation).decode(action)
            if op in (Op.STORE, Op.RETRIEVE):
                pages = state.slot_page if op is Op.STORE else state.candidate_page
                self.notes.append((op, row, int(state.clock[row]), int(pages[row, argument])))
        return actions


def one_episode(table: EpisodeTable, **fields: Any) -> EpisodeRecord:
    settings: dict[str, Any] = {"reward": PLAIN, "staging": "dense", **fields}
    options = PagingOptions(**settings)
    (record,) = play(LockstepPaging(table, options, 1), Clairvoyant(options.reward), [0])
    return record


def asks(*queries: tuple[int, ...], arrived: int = 6, num_pages: int = 6) -> EpisodeTable:
    """Pages 0, 1, ... and then one query for each of these needs; earlier pages rank higher."""
    table = table_of(
        [f"page {i}" for i in range(num_pages)],
        [(arrived, Query(f"number {n}?", needs)) for n, needs in enumerate(queries)],
    )
    for number in range(len(queries)):
        table = with_scores(table, query=number, dense=[0.9 - 0.1 * i for i in range(num_pages)])
    return table


# ---------------------------------------------------------------------------------------- bound


@pytest.mark.parametrize("ask", ["interleaved", "end"])
@pytest.mark.parametrize("evict_scope", ["victim", "any"])
@pytest.mark.parametrize("unit", ["pages", "tokens"])
def test_it_finds_all_evidence_when_the_archive_is_large_enough(
    ask: Ask, evict_scope: Any, unit: Any
) -> None:
    """With one need a query, no retrieval can push out other evidence."""
    table = asking_table(5, most_needs=1, ask=ask)
    if unit == "tokens":  # pages of one size: a retrieval pushes out one page, which can be stored
        table = replace(table, page_tokens=np.full_like(table.page_tokens, 7))
    options = PagingOptions(
        unit=unit,
        capacity=3 if unit == "pages" else 24,
        num_slots=3,
        archival_capacity=None,
        num_candidates=2,
        evict_scope=evict_scope,
    )
    watched = Watched(Clairvoyant(options.reward))
    episodes = range(table.num_episodes)
    records = play(LockstepPaging(table, options, len(episodes)), watched, episodes)
    assert [record.evidence for record in records] == [r.num_scored for r in records]
    assert all(record.num_scored == 4 for record in records)
    assert all(record.illegal == 0 for record in records)
    if evict_scope == "victim":  # who may choose the victim keeps what is needed in sight
        assert sum(record.operations["next"] for record in records) > 0
    stored = [(row, page) for op, row, _, page in watched.notes if op is Op.STORE]
    assert len(stored) == len(set(stored)) > 0
    for op, row, clock, page in watched.notes:
        if op is Op.STORE:
            assert page in later_needs(table, row, clock)
        else:
            assert page in later_needs(table, row, clock - 1)


@pytest.mark.parametrize(("ask", "archival_capacity"), [("interleaved", 5), ("end", None)])
def test_it_beats_every_heuristic(ask: Ask, archival_capacity: int | None) -> None:
    table = asking_table(8, most_needs=2, ask=ask)
    options = PagingOptions(
        capacity=4, num_slots=4, num_candidates=4, archival_capacity=archival_capacity
    )
    prior = np.linspace(-2, 2, 9, dtype=np.float32)
    config = EvaluationConfig(top_k=(2,), prior_thresholds=(0.0, 0.6))
    lines = lineup.heuristic_lines(config, prior, torch.Generator().manual_seed(0))
    contestants = [contestant for line in lines for contestant in line]
    (bound,) = lineup.bound_lines(options)
    played = Arena(table, options, BatchedPaging).play([*contestants, *bound])
    returns = [sum(record.episode_return for record in records) for records in played]
    assert len(returns) == 12
    assert returns[-1] > max(returns[:-1])


SETTINGS: list[dict[str, Any]] = [
    {"capacity": 3},
    {"capacity": 3, "num_candidates": 0},
    {"capacity": 2, "archival_capacity": 0},
    {"capacity": 4, "evict_scope": "any", "store_scope": "any", "archival_capacity": 2},
    {"capacity": 3, "evict_scope": "any", "admission": "optional", "stage_from": "both"},
    {"capacity": 12, "unit": "tokens", "num_slots": 4, "operation_budget": 2},
    {"capacity": 12, "unit": "tokens", "num_slots": 5, "evict_fraction": 0.5},
]


@pytest.mark.parametrize("fields", SETTINGS)
def test_it_never_plays_an_illegal_action(fields: dict[str, Any]) -> None:
    table = small_table(9, num_documents=3, num_episodes=12, coarse=True)
    for reward in (REWARD, DEFAULT_REWARD):
        settings: dict[str, Any] = {"num_candidates": 2, "reward": reward, **fields}
        options = PagingOptions(**settings)
        records = play(LockstepPaging(table, options, 12), Clairvoyant(reward), range(12))
        assert [record.illegal for record in records] == [0] * 12


# ---------------------------------------------------------------------------------------- by hand


def test_it_stores_only_what_is_needed_and_retrieves_only_that() -> None:
    record = one_episode(asks((0,), (1,)), capacity=3, num_candidates=2)
    assert record.evidence == 2
    assert (record.operations["store"], record.operations["retrieve"]) == (2, 2)
    assert record.operations["next"] == 0
    assert record.episode_return == pytest.approx(2 - 2 * PLAIN.store - 2 * PLAIN.retrieve)


def test_what_no_later_query_needs_is_not_stored() -> None:
    record = one_episode(asks((5,), (4,)), capacity=3)  # both are still there
    assert record.operations["store"] == record.operations["retrieve"] == 0
    assert record.episode_return == 2


def test_it_turns_to_the_page_of_results_that_holds_the_evidence() -> None:
    reward = replace(PLAIN, next=0.25)
    record = one_episode(asks((2,), (0,), (1,)), capacity=3, num_candidates=1, reward=reward)
    assert record.evidence == 3
    assert record.operations["store"] == 3
    assert record.operations["retrieve"] == 3
    # Pages 0, 1, 2 are stored. For query 0 page 2 stands third; for query 1 page 0 stands first;
    # for query 2 page 1 does, because page 0 is resident.
    assert record.operations["next"] == 2


@pytest.mark.parametrize(("cost", "turns"), [(0.43, 2), (0.44, 0)])
def test_it_turns_only_when_the_evidence_is_worth_it(cost: float, turns: int) -> None:
    reward = replace(PLAIN, next=cost)  # two turns and the retrieval, .125, against evidence of 1
    record = one_episode(asks((2,), (0,), (1,)), capacity=3, num_candidates=1, reward=reward)
    assert record.operations["next"] == turns


@pytest.mark.parametrize(("cost", "stores"), [(0.87, 1), (0.88, 0)])
def test_it_stores_only_when_the_evidence_is_worth_it(cost: float, stores: int) -> None:
    record = one_episode(asks((0,)), capacity=3, reward=replace(PLAIN, store=cost))
    assert record.operations["store"] == stores
    assert record.evidence == stores


@pytest.mark.parametrize(("cost", "retrieves"), [(0.45, 2), (0.51, 0)])
def test_it_retrieves_only_when_the_share_is_worth_it(cost: float, retrieves: int) -> None:
    reward = replace(PLAIN, retrieve=cost, store=0.03125)
    record = one_episode(asks((0, 1)), capacity=3, reward=reward)
    assert record.operations["retrieve"] == retrieves


def test_a_page_that_retrieving_would_push_out_is_stored_for_later_queries() -> None:
    # At query 0 the residents are 3, 4, 5; page 0 pushes out 3, which query 1 needs.
    record = one_episode(asks((0,), (3,)), capacity=3)
    assert record.evidence == 2
    assert record.operations["store"] == 2


def test_free_to_choose_it_evicts_what_is_needed_least() -> None:
    record = one_episode(asks((0,), (2,)), capacity=3, evict_scope="any", archival_capacity=0)
    assert record.evidence == 2
    assert record.operations["evict"] == 3
    assert record.operations["store"] == record.operations["retrieve"] == 0


@pytest.mark.parametrize(
    ("ask", "evidence"), [("interleaved", 0.1), ("end", 0.01), ("interleaved", 4.0)]
)
def test_it_weighs_costs_against_the_weight_of_evidence(ask: Ask, evidence: float) -> None:
    """No policy is a bound that earns less than doing nothing."""
    table = asking_table(6, most_needs=2, ask=ask)
    reward = replace(DEFAULT_REWARD, evidence=evidence, retrieve=0.08)
    options = PagingOptions(capacity=3, num_slots=3, num_candidates=4, reward=reward)
    group = LockstepPaging(table, options, table.num_episodes)
    returns = [
        sum(r.episode_return for r in play(group, policy, range(table.num_episodes)))
        for policy in (Clairvoyant(reward), YieldOnly())
    ]
    assert returns[0] >= returns[1]
    if evidence == 4.0:  # then two needs are worth their cost
        assert returns[0] > 2 * returns[1]


def test_it_stores_nothing_where_nothing_can_be_retrieved() -> None:
    record = one_episode(asks((0,), (1,)), capacity=3, num_candidates=0)
    assert record.operations["store"] == 0


def test_it_cannot_play_without_the_hidden_truth() -> None:
    table = asks((0,))
    group = LockstepPaging(table, PagingOptions(capacity=3), 1)
    observation = group.reset([0])
    policy = Clairvoyant(DEFAULT_REWARD)
    assert policy.is_privileged
    with pytest.raises(ValueError, match="privileged"):
        policy.act(observation, observation["action_mask"])


# ---------------------------------------------------------------------------------------- limits


def plan(table: EpisodeTable, moves: Sequence[tuple[Op, int]], **fields: Any) -> float:
    """Return of an episode played by this plan, YIELD at its end."""
    settings: dict[str, Any] = {"reward": PLAIN, "staging": "dense", **fields}
    options = PagingOptions(**settings)
    group = LockstepPaging(table, options, 1)
    group.reset([0])
    total = 0.0
    for op, argument in [*moves, (Op.YIELD, 0)]:
        result = group.step(np.array([group.layout.encode(op, argument)]))
        assert not result.illegal[0]
        total += float(result.reward_terms.sum())
    assert result.terminated[0]
    return total


def test_limit_a_retrieval_can_push_out_other_evidence() -> None:
    """The query needs page 0, which was stored, and page 2, the next victim of main context."""
    table = asks((0, 2), arrived=4, num_pages=4)
    fields: dict[str, Any] = {"capacity": 2, "num_candidates": 2}
    costs = 2 * PLAIN.store + 2 * PLAIN.retrieve + PLAIN.search
    ideal = [(Op.STORE, 0), (Op.YIELD, 0), (Op.STORE, 0), (Op.RETRIEVE, 0), (Op.SEARCH, 0)]
    ranked = plan_candidates(table, ideal, **fields)
    found = plan(table, [*ideal, (Op.RETRIEVE, ranked.index(2))], **fields)
    assert found == pytest.approx(1 - costs)
    assert one_episode(table, **fields).evidence == 0.5


def plan_candidates(
    table: EpisodeTable, moves: Sequence[tuple[Op, int]], **fields: Any
) -> list[int]:
    """Candidates after these moves."""
    settings: dict[str, Any] = {"reward": PLAIN, "staging": "dense", **fields}
    options = PagingOptions(**settings)
    group = LockstepPaging(table, options, 1)
    group.reset([0])
    for op, argument in moves:
        group.step(np.array([group.layout.encode(op, argument)]))
    return group.process(0).candidates()


def test_limit_needed_pages_push_each_other_out_of_a_small_archive() -> None:
    """Of pages 0, 1, 2 an archive of two keeps the last two; the first was stored for nothing."""
    table = asks((0,), (1,), (2,))
    record = one_episode(table, capacity=3, archival_capacity=2)
    assert record.operations["store"] >= 3  # the first of them for nothing
    assert record.evidence == 2


# ---------------------------------------------------------------------------------------- routes


@pytest.mark.parametrize(
    ("fields", "operations", "costs"),
    [
        ({"next": 0.5}, {"retrieve": 3, "search": 2, "next": 0}, 3 * 0.125 + 2 * 0.0625),
        ({"next": 0.03125}, {"retrieve": 1, "search": 0, "next": 1}, 0.125 + 0.03125),
        ({"next": 1.0, "search": 0.25}, {"retrieve": 3, "search": 2, "next": 0}, 0.875),
        ({"next": 1.0, "search": 0.5}, {"retrieve": 0, "search": 0, "next": 0}, None),
    ],
)
def test_a_route_is_followed_where_that_is_the_cheapest_way_and_pays(
    fields: dict[str, float], operations: dict[str, int], costs: float | None
) -> None:
    """The query ranks page 0, the first of the route, then the evidence, then the other one."""
    reward = replace(PLAIN, **({"search": 0.0625, "store": 0.0} | fields))
    # Nothing on a route is stored for a later query: here all of it is in the archive.
    table = replace(
        chain_table(),
        episode_num_preloaded=np.array([6]),
        episode_num_events=np.array([1]),
        event_kind=np.array([[Event.QUERY]], dtype=np.int16),
        event_index=np.array([[0]], dtype=np.int16),
    )
    record = one_episode(table, reward=reward, num_candidates=1, archival_capacity=None)
    assert {name: record.operations[name] for name in operations} == operations
    assert record.episode_return == (0.0 if costs is None else 1.0 - costs)
