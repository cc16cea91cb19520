"""`LockstepPaging` against the reference model, and against one episode at a time."""

from __future__ import annotations

import copy

import numpy as np
import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st
from play_against_model import SideBySide
from request_tables import request_table
from table_fixtures import paging_options, random_action, small_table, table_of, with_room

from envs.lockstep import LockstepPaging
from memrl.documents import Query
from memrl.episode_log import REWARD_TERMS
from memrl.options import PagingOptions

WORLDS, OPTIONS = st.integers(0, 5), paging_options(table_pages=9)
SEEDS, P_ILLEGAL = st.integers(0, 2**32 - 1), st.sampled_from([0.0, 0.1, 0.5])


def play_world(options: PagingOptions, world: int, seed: int, p_illegal: float) -> None:
    """Play the 16 episodes of a generated world.

    Every other world is full of ties, every third one preloads pages.
    """
    most_preloaded = 6 if world % 3 == 0 else 0
    table = small_table(
        world,
        num_pages=10,
        num_episodes=16,
        coarse=world % 2 == 1,
        most_preloaded=most_preloaded,
    )
    pair = SideBySide(table, with_room(options, table), list(range(table.num_episodes)))
    pair.play(np.random.default_rng(seed), p_illegal)
    assert all(model.phase == "end" for model in pair.models)


@settings(max_examples=16)
@given(OPTIONS, WORLDS, SEEDS, P_ILLEGAL)
def test_lockstep_equals_the_model_on_random_play(
    options: PagingOptions, world: int, seed: int, p_illegal: float
) -> None:
    play_world(options, world, seed, p_illegal)


@settings(max_examples=8)
@given(
    OPTIONS,
    st.lists(st.lists(st.integers(0, 5), min_size=1, max_size=16), min_size=8, max_size=8),
    st.lists(st.integers(1, 12), min_size=6, max_size=6),
    SEEDS,
    P_ILLEGAL,
)
def test_lockstep_equals_the_model_on_requests(
    options: PagingOptions, strings: list[list[int]], tokens: list[int], seed: int, p_illegal: float
) -> None:
    pair = SideBySide(request_table(strings, tokens), options, list(range(len(strings))))
    pair.play(np.random.default_rng(seed), p_illegal)
    assert all(model.phase == "end" for model in pair.models)


@pytest.mark.slow
@settings(max_examples=600)
@given(OPTIONS, WORLDS, SEEDS, P_ILLEGAL)
def test_lockstep_equals_the_model_on_much_random_play(
    options: PagingOptions, world: int, seed: int, p_illegal: float
) -> None:
    play_world(options, world, seed, p_illegal)


@pytest.mark.parametrize("embeddings", [False, True])
def test_a_batch_equals_its_singles(embeddings: bool) -> None:
    table = small_table(1, num_pages=10)
    options = PagingOptions(
        capacity=4,
        archival_capacity=6,
        num_candidates=3,
        stage_from="both",
        store_scope="any",
        observe_embeddings=embeddings,
    )
    rng = np.random.default_rng(0)
    batch = LockstepPaging(table, options, 3)
    singles = [LockstepPaging(table, options, 1) for _ in range(3)]
    seen = batch.reset(range(3))
    alone = [single.reset([episode]) for episode, single in enumerate(singles)]
    running = np.ones(3, dtype=bool)
    while running.any():
        for row in np.flatnonzero(running):
            assert seen.keys() == alone[row].keys()
            for key, value in seen.items():
                assert torch.equal(value[row], alone[row][key][0]), key
        actions = np.array([random_action(mask.numpy(), rng) for mask in seen["action_mask"]])
        result = batch.step(actions)
        seen = result.observation
        for row in np.flatnonzero(running):
            single = singles[row].step(actions[row : row + 1])
            alone[row] = single.observation
            assert np.array_equal(result.reward_terms[row], single.reward_terms[0])
            assert result.terminated[row] == single.terminated[0]
            assert result.elapsed_events[row] == single.elapsed_events[0]
        running &= ~result.terminated


def test_rows_that_have_ended_ignore_their_action_and_can_begin_again() -> None:
    table = small_table(0)
    play = LockstepPaging(table, PagingOptions(capacity=4, archival_capacity=6), 2)
    play.reset([0, 1])
    while not (result := play.step(np.array([0, 0]))).terminated.any():
        pass
    ended = int(np.flatnonzero(result.terminated)[0])
    before = copy.deepcopy(play.log(ended))
    result = play.step(np.array([0, 0]) + 10**6 * (np.arange(2) == ended))
    assert not result.terminated[ended]
    assert not result.reward_terms[ended].any()
    assert play.log(ended) == before
    other = 1 - ended
    kept = play.observation()["slots"][other].clone()
    fresh = play.reset([3], rows=[ended])
    assert torch.equal(fresh["slots"][other], kept), "the other row plays on"
    alone = LockstepPaging(table, play.options, 1).reset([3])
    assert torch.equal(fresh["slots"][ended], alone["slots"][0])


def test_a_reset_before_the_end_leaves_nothing_behind() -> None:
    table = small_table(2)
    play = LockstepPaging(table, PagingOptions(capacity=3, archival_capacity=4), 1)
    first = {key: value.clone() for key, value in play.reset([1]).items()}
    rng = np.random.default_rng(1)
    for _ in range(12):
        play.step(np.array([random_action(play.observation()["action_mask"][0].numpy(), rng)]))
    again = play.reset([1])
    assert all(torch.equal(first[key], again[key]) for key in first)
    assert sum(play.log(0).operations.values()) == 0


def test_observations_share_no_memory_with_the_next_step() -> None:
    play = LockstepPaging(small_table(0), PagingOptions(capacity=3, archival_capacity=4), 2)
    first = play.reset([0, 1])
    kept = {key: value.clone() for key, value in first.items()}
    for value in play.observation().values():
        value.fill_(1)
    play.step(np.array([0, 0]))
    assert all(torch.equal(first[key], kept[key]) for key in kept)


@pytest.mark.parametrize("num_candidates", [0, 4])
def test_no_evidence_is_lost_between_decisions(num_candidates: int) -> None:
    query = Query("what about apples?", (0,))
    times = (0, 1, 2, 4, 4)
    table = table_of(["apples", "pears", "plums", "figs"], [(time, query) for time in times])
    play = LockstepPaging(table, PagingOptions(capacity=3, num_candidates=num_candidates), 1)
    play.reset([0])
    terms = np.zeros(len(REWARD_TERMS))
    terminated = False
    while not terminated:
        result = play.step(np.array([0]))
        terms += result.reward_terms[0]
        terminated = bool(result.terminated[0])
    assert [answer.evidence for answer in play.log(0).answers] == [0.0, 1.0, 1.0, 0.0, 0.0]
    assert terms.tolist() == [2.0, *[0.0] * (len(REWARD_TERMS) - 1)]


def test_an_episode_without_any_decision_ends_with_its_only_step() -> None:
    table = table_of(["apples", "pears"], [(0, Query("what about apples?", (0,)))])
    play = LockstepPaging(table, PagingOptions(capacity=4), 1)
    observation = play.reset([0])
    assert observation["action_mask"][0].nonzero().flatten().tolist() == [0]
    result = play.step(np.array([0]))
    assert result.terminated.all()
    assert not result.reward_terms.any()
    assert [answer.evidence for answer in play.log(0).answers] == [0.0]
    assert sum(play.log(0).operations.values()) == 0


@pytest.mark.parametrize("episode", [-1, 8])
def test_unknown_episode_is_refused(episode: int) -> None:
    play = LockstepPaging(small_table(0), PagingOptions(capacity=4), 1)
    with pytest.raises(ValueError, match=rf"Episode {episode} is outside 0\.\.7"):
        play.reset([episode])


@pytest.mark.parametrize("action", [-1, 33])
def test_an_action_outside_the_space_is_refused_before_any_row_moves(action: int) -> None:
    play = LockstepPaging(small_table(0), PagingOptions(capacity=4), 2)
    play.reset([0, 1])
    assert play.layout.num_actions == 33
    before = [play.process(row).event for row in range(2)]
    with pytest.raises(ValueError, match=r"outside 0\.\.32"):
        play.step(np.array([0, action]))
    assert [play.process(row).event for row in range(2)] == before


def test_at_least_one_environment() -> None:
    with pytest.raises(ValueError, match="num_envs must be at least 1, got 0"):
        LockstepPaging(small_table(0), PagingOptions(capacity=4), 0)


def test_fractions_are_resolved_by_the_table_unless_they_are_resolved_already() -> None:
    table = small_table(0)
    play = LockstepPaging(table, PagingOptions(capacity=0.25, archival_capacity=0.5), 1)
    median = float(np.median(table.episode_num_pages))
    assert play.options.capacity == round(0.25 * median)
    assert play.options.archival_capacity == round(0.5 * median)
    fixed = PagingOptions(capacity=3, num_slots=5, archival_capacity=2)
    assert LockstepPaging(table, fixed, 1).options == fixed
