"""`BatchedPaging` and `LockstepPaging` are the same process: both are played side by side.

Generated workloads, options and action sequences; everything a caller can see has to be equal at
every step: 10,000 short episodes here, full-length ones of data sets by `make parity`.
"""

from __future__ import annotations

import dataclasses
import os
from itertools import pairwise
from pathlib import Path

import numpy as np
import numpy.typing as npt
import pytest
import torch
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st
from request_tables import request_table
from table_fixtures import with_room

from envs.batched import BatchedPaging
from envs.lockstep import LockstepPaging, LockstepResult, Observation
from envs.workloads.loading import load_workload
from envs.workloads.tables import split_tables
from memrl.actions import Op
from memrl.config import parse_config
from memrl.documents import Document, Episode, Page, PageKind, Query
from memrl.memory.embedders import HashingEmbedder
from memrl.observation import FEATURES
from memrl.options import DEFAULT_REWARD, STAGINGS, PagingOptions, Unit
from memrl.table import EpisodeTable
from memrl.table_build import build_table, fit_lexical_statistics

FULL_LENGTH_EPISODES = 125
EPISODES_PER_EXAMPLE = 500
MOST_EVENTS = 20
ROOT = Path(__file__).resolve().parents[2]
PRESETS = (
    *("locomo", "locomo_end", "locomo_tokens", "locomo_small"),
    *("longmemeval", "babi", "msc", "dmr", "opener"),
    *("nq", "hotpotqa", "musique", "2wiki", "2wiki_corpus"),
)
PLAYERS = ("legal", "anything", "busy", "store_and_retrieve", "yield")
WORDS = [f"{first}{rest}" for first in "bcdfg" for rest in ("al", "em", "in", "or", "us")]
SPEAKERS = ("Ann", "Bob")


@st.composite
def documents(draw: st.DrawFn, number: int, corpus: Document | None = None) -> Document:
    """A document with pages of its own, or queries about the pages of another one."""
    rng = np.random.default_rng(draw(st.integers(0, 2**32 - 1)))
    num_pages = len(corpus.pages) if corpus else draw(st.integers(4, 14))
    pages = (
        corpus.pages
        if corpus
        else tuple(
            Page(
                " ".join(rng.choice([*WORDS, *SPEAKERS, "Why?", "2024"], rng.integers(1, 13))),
                speaker=("", *SPEAKERS)[rng.integers(3)],
                role=int(rng.integers(2)),
                kind=PageKind(int(rng.integers(2))),
            )
            for _ in range(num_pages)
        )
    )
    queries = []
    for _ in range(draw(st.integers(0, 6))):
        needs = tuple(sorted(draw(st.sets(st.integers(0, num_pages - 1), max_size=3))))
        route = draw(st.lists(st.integers(0, num_pages - 1), max_size=3, unique=True))
        texts = [pages[page].text for page in needs] or ["nothing of the kind"]
        words = rng.permutation(" ".join(texts).split())[:6]
        queries.append(
            Query(
                " ".join([*words, *rng.choice(SPEAKERS, rng.integers(2))]),
                needs,
                category=str(rng.integers(3)),
                answerable=bool(rng.random() < 0.8),
                route=tuple(page for page in route if page not in needs),
            )
        )
    return Document(f"d{number}", pages, tuple(queries), SPEAKERS)


@st.composite
def tables(draw: st.DrawFn) -> EpisodeTable:
    docs = [draw(documents(number)) for number in range(draw(st.integers(1, 3)))]
    if draw(st.booleans()):
        docs.insert(draw(st.integers(0, len(docs))), draw(documents(len(docs), docs[0])))
    episodes = []
    preloads = draw(st.booleans())
    for _ in range(draw(st.integers(2, 5))):
        document = draw(st.integers(0, len(docs) - 1))
        num_doc_pages = len(docs[document].pages)
        first = draw(st.integers(0, 3))
        num_pages = draw(st.integers(1, 3)) if draw(st.integers(0, 5)) == 0 else num_doc_pages
        num_pages = min(num_pages, num_doc_pages - first)
        askable = [
            index
            for index, query in enumerate(docs[document].queries)
            if all(first <= page < first + num_pages for page in query.cited)
        ]
        asked = draw(st.permutations(askable))[: max(0, MOST_EVENTS - num_pages)]
        preloaded = min(num_pages, draw(st.sampled_from((0, 1, 3, num_pages))) * preloads)
        # Few different times, so that several queries are asked at the same one.
        times = draw(st.lists(st.integers(preloaded, num_pages), min_size=1, max_size=3))
        queries = sorted((draw(st.sampled_from(times)), index) for index in asked)
        episodes.append(Episode(document, first, num_pages, tuple(queries), preloaded))
    statistics = fit_lexical_statistics(docs)
    return build_table(docs, episodes, HashingEmbedder(16), statistics, name="made-up")


@st.composite
def request_tables(draw: st.DrawFn) -> EpisodeTable:
    """Strings of few pages, so that runs of hits are longer than one look ahead."""
    strings = [
        draw(st.lists(st.integers(0, draw(st.integers(0, 9))), min_size=1, max_size=MOST_EVENTS))
        for _ in range(draw(st.integers(2, 12)))
    ]
    return request_table(strings, draw(st.lists(st.integers(1, 30), min_size=10, max_size=10)))


@st.composite
def paging_options(draw: st.DrawFn) -> PagingOptions:
    unit: Unit = draw(st.sampled_from(("pages", "tokens")))
    # Pages have up to about 40 tokens: more than the smallest capacities.
    capacity = draw(st.integers(1, 6) if unit == "pages" else st.sampled_from((1, 9, 25, 60)))
    return PagingOptions(
        unit=unit,
        capacity=capacity,
        num_slots=draw(st.sampled_from((None, 1, 2, 4, 7))),
        archival_capacity=draw(st.sampled_from((None, 0, 1, 2, 5, 0.5))),
        num_candidates=draw(st.sampled_from((0, 1, 2, 3, 6))),
        staging=draw(st.sampled_from(STAGINGS)),
        stage_from=draw(st.sampled_from(("archival", "both"))),
        evict_scope=draw(st.sampled_from(("victim", "any"))),
        admission=draw(st.sampled_from(("forced", "optional"))),
        evict_fraction=draw(st.sampled_from((0.0, 0.5, 0.9))),
        operation_budget=draw(st.sampled_from((1, 2, 4, 16))),
        reward=dataclasses.replace(DEFAULT_REWARD, tokens=0.0007),
    )


def choose(
    player: str,
    rng: np.random.Generator,
    legal: npt.NDArray[np.bool_],
    num_retrieved: int,
    edges: list[int],
) -> int:
    """The action of a player; the actions of operation k are `edges[k]` to `edges[k + 1]`."""
    moves = np.flatnonzero(legal)
    if player == "anything":
        return int(rng.integers(edges[-1]))
    if player == "yield" or len(moves) == 1:
        return int(Op.YIELD)
    if player == "store_and_retrieve":
        stores = moves[(edges[Op.STORE] <= moves) & (moves < edges[Op.STORE + 1])]
        retrieves = moves[moves >= edges[Op.RETRIEVE]]
        if len(stores):
            return int(stores[0])
        return int(retrieves[0]) if len(retrieves) and num_retrieved < 3 else int(Op.YIELD)
    # By kind first: there are many more slots to evict or to search than there are other moves.
    places = np.searchsorted(moves, edges[int(player == "busy") :]).tolist()
    kinds = [moves[start:stop] for start, stop in pairwise(places) if start < stop]
    own = kinds[rng.integers(len(kinds))]
    return int(own[rng.integers(len(own))])


def assert_same_fields(left: object, right: object, where: str) -> None:
    """Compare dataclasses of tensors, also nested ones."""
    for field in dataclasses.fields(left):  # type: ignore[arg-type]
        one, two = getattr(left, field.name), getattr(right, field.name)
        if isinstance(one, torch.Tensor):
            assert one.dtype == two.dtype, f"{where}: {field.name}"
            assert torch.equal(one, two), f"{where}: {field.name}\n{one}\n{two}"
        else:
            assert_same_fields(one, two, where)


def assert_same_observation(expected: Observation, got: Observation, where: str) -> None:
    assert expected.keys() == got.keys()
    for name, value in expected.items():
        assert value.dtype == got[name].dtype, f"{where}: {name}"
        assert torch.equal(value, got[name]), f"{where}: {name}"


def assert_same_step(expected: LockstepResult, got: LockstepResult, where: str) -> None:
    for name in ("reward_terms", "terminated", "illegal", "elapsed_events"):
        one, two = getattr(expected, name), getattr(got, name)
        assert one.dtype == two.dtype, f"{where}: {name}"
        np.testing.assert_array_equal(one, two, err_msg=f"{where}: {name}")
    assert_same_observation(expected.observation, got.observation, where)


def play_side_by_side(
    table: EpisodeTable,
    options: PagingOptions,
    seed: int,
    num_envs: int = 250,
    num_episodes: int = EPISODES_PER_EXAMPLE,
) -> None:
    """Play so many episodes; rows that end begin another one at once or later."""
    rng = np.random.default_rng(seed)
    options = with_room(options, table)
    reference = LockstepPaging(table, options, num_envs)
    batched = BatchedPaging(table, options, num_envs)
    players = rng.choice(PLAYERS, num_envs)
    layout = reference.layout
    edges = [*map(layout.start, Op), layout.num_actions]

    def begin(rows: list[int]) -> Observation:
        players[rows] = rng.choice(PLAYERS, len(rows))
        episodes = rng.integers(table.num_episodes, size=len(rows)).tolist()
        observation = batched.reset(episodes, rows)
        assert_same_observation(reference.reset(episodes, rows), observation, f"reset of {rows}")
        return observation

    observation = begin(rng.permutation(num_envs).tolist())
    waiting = num_episodes - num_envs
    ended: set[int] = set()
    step = 0
    while len(ended) < num_envs:
        where = f"{options}, step {step}"
        assert_same_fields(reference.privileged_state(), batched.privileged_state(), where)
        masks = observation["action_mask"].numpy()
        retrieved = observation["slots"][:, :, FEATURES.index("retrieved")].sum(dim=1).tolist()
        actions = np.array(
            [
                choose(player, rng, legal, num_retrieved, edges)
                for player, legal, num_retrieved in zip(players, masks, retrieved, strict=True)
            ]
        )
        expected, got = reference.step(actions), batched.step(actions)
        assert_same_step(expected, got, where)
        observation = got.observation
        ended |= set(np.flatnonzero(expected.terminated).tolist())
        assert batched.running.tolist() == [row not in ended for row in range(num_envs)]
        for row in {step % num_envs, *np.flatnonzero(expected.terminated).tolist()}:
            assert reference.log(row) == batched.log(row), f"{where}: log of row {row}"
        again = sorted(ended)[: min(waiting, int(rng.integers(0, num_envs)))]
        if again:
            waiting -= len(again)
            ended -= set(again)
            observation = begin(rng.permutation(again).tolist())
        step += 1
    assert_same_observation(reference.observation(), batched.observation(), "at the end")
    for row in range(num_envs):
        assert reference.log(row) == batched.log(row), f"at the end: log of row {row}"


@given(table=tables(), options=paging_options(), seed=st.integers(0, 2**32 - 1))
@settings(
    max_examples=10_000 // EPISODES_PER_EXAMPLE,
    deadline=None,
    suppress_health_check=list(HealthCheck),
)
def test_ten_thousand_generated_episodes(
    table: EpisodeTable, options: PagingOptions, seed: int
) -> None:
    play_side_by_side(table, options, seed)


@given(
    table=request_tables(),
    options=paging_options(),
    shown_slots=st.sampled_from((None, 1, 2, 3)),
    seed=st.integers(0, 2**32 - 1),
)
@settings(
    max_examples=2_000 // EPISODES_PER_EXAMPLE,
    deadline=None,
    suppress_health_check=list(HealthCheck),
)
def test_two_thousand_generated_episodes_of_requests(
    table: EpisodeTable, options: PagingOptions, shown_slots: int | None, seed: int
) -> None:
    reward = dataclasses.replace(options.reward, evidence=0.1)  # sums of which are not exact
    options = dataclasses.replace(options, reward=reward, shown_slots=shown_slots)
    play_side_by_side(table, options, seed)


@pytest.mark.slow
@pytest.mark.parametrize("preset", PRESETS)
def test_full_length_episodes_of_data_sets(preset: str) -> None:
    if "MEMRL_DATA" not in os.environ:
        pytest.skip("MEMRL_DATA names no folder with the data sets")
    config = parse_config(["--config", str(ROOT / f"configs/{preset}.yaml")])
    workload_config = dataclasses.replace(config.workload, embedder="hashing", train_episodes=20)
    tables = split_tables(load_workload(workload_config), config.split, workload_config)
    options = config.paging.resolved(**tables.train.medians())
    for staging, evict_scope in (("hybrid_neighbours", "victim"), ("lexical", "any")):
        play_side_by_side(
            tables.train,
            dataclasses.replace(options, staging=staging, evict_scope=evict_scope),  # type: ignore[arg-type]
            seed=1,
            num_envs=FULL_LENGTH_EPISODES,
            num_episodes=FULL_LENGTH_EPISODES,
        )


@pytest.mark.slow
@pytest.mark.parametrize("shown_slots", [None, 8])
@pytest.mark.parametrize("unit", ["pages", "tokens"])
@pytest.mark.parametrize("preset", ["page_cache", "page_cache_trace"])
def test_full_length_episodes_of_page_caches(
    preset: str, unit: Unit, shown_slots: int | None
) -> None:
    if preset == "page_cache_trace" and "MEMRL_DATA" not in os.environ:
        pytest.skip("MEMRL_DATA names no folder with the traces")
    # 125 windows of 2,000 requests, one request at a time, would take the reference an hour.
    shorter = ["--workload.page_cache.window_requests", "300"] if "trace" in preset else []
    config = parse_config(["--config", str(ROOT / f"configs/{preset}.yaml"), *shorter])
    table = split_tables(load_workload(config.workload), config.split, config.workload).validation
    options = dataclasses.replace(
        config.paging, unit=unit, capacity=24 if unit == "pages" else 90, shown_slots=shown_slots
    )
    play_side_by_side(table, options, 1, FULL_LENGTH_EPISODES, FULL_LENGTH_EPISODES)


@pytest.fixture
def small_table() -> EpisodeTable:
    document = Document("d", (Page("one"), Page("two"), Page("three")), ())
    statistics = fit_lexical_statistics([document])
    episodes = [Episode(0, 0, 3), Episode(0, 0, 1)]
    return build_table([document], episodes, HashingEmbedder(16), statistics, name="made-up")


@pytest.mark.parametrize("refused", [{"store_scope": "any"}, {"observe_embeddings": True}])
def test_what_is_not_supported_is_refused_by_name(
    small_table: EpisodeTable, refused: dict[str, object]
) -> None:
    options = dataclasses.replace(PagingOptions(capacity=1), **refused)  # type: ignore[arg-type]
    with pytest.raises(ValueError, match=f"{next(iter(refused))}.*use LockstepPaging"):
        BatchedPaging(small_table, options, 2)


@pytest.mark.parametrize(
    ("episodes", "rows", "message"),
    [([2], [0], "outside 0..1"), ([0, 0], [1, 1], "more than once"), ([0], [0, 1], "for 2 rows")],
)
def test_reset_refuses_what_it_cannot_begin(
    small_table: EpisodeTable, episodes: list[int], rows: list[int], message: str
) -> None:
    batched = BatchedPaging(small_table, PagingOptions(capacity=1), 2)
    with pytest.raises(ValueError, match=message):
        batched.reset(episodes, rows)
    assert not batched.running.any()


def test_an_action_outside_the_space_is_refused_and_changes_nothing(
    small_table: EpisodeTable,
) -> None:
    batched = BatchedPaging(small_table, PagingOptions(capacity=1), 2)
    before = batched.reset([0, 0])
    with pytest.raises(ValueError, match="outside"):
        batched.step(np.array([0, batched.layout.num_actions]))
    assert_same_observation(before, batched.observation(), "after the refusal")
    assert batched.log(1).illegal == 0


def test_rows_that_do_not_run_ignore_their_actions(small_table: EpisodeTable) -> None:
    # Row 0 never begins; the episode of row 1 has no decision and ends with the first step.
    batched = BatchedPaging(small_table, PagingOptions(capacity=1), 2)
    batched.reset([1], [1])
    result = batched.step(np.array([10**6, 10**6]))
    assert result.terminated.tolist() == [False, True]
    assert not result.illegal.any()
    assert not batched.running.any()
    assert not batched.step(np.array([-1, -1])).terminated.any()
