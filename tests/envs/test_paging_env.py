"""`PagingEnv`: its interface, its spaces, and what it refuses."""

from __future__ import annotations

from typing import Any

import gymnasium
import numpy as np
import pytest
from gymnasium import spaces
from table_fixtures import REWARD, random_action, small_table, table_of

from envs.paging import PagingEnv
from memrl.actions import Op
from memrl.documents import Query
from memrl.episode_log import REWARD_TERMS
from memrl.observation import FEATURES, GLOBALS, LIMIT
from memrl.options import PagingOptions

FIELDS: dict[str, Any] = {
    "capacity": 4,
    "archival_capacity": 5,
    "num_candidates": 3,
    "stage_from": "both",
    "store_scope": "any",
    "evict_scope": "any",
    "admission": "optional",
    "reward": REWARD,
}


@pytest.fixture
def env() -> PagingEnv:
    env = PagingEnv(small_table(0), **FIELDS)
    env.reset(seed=0)
    return env


def test_spaces() -> None:
    env = PagingEnv(small_table(0), **FIELDS)
    rows, num_actions = 5, 2 + 3 * 5 + 3
    assert env.action_space == spaces.Discrete(num_actions)
    space: Any = env.observation_space
    assert type(space) is spaces.Dict
    assert space.spaces.keys() == {"slots", "candidates", "globals", "action_mask"}
    assert space["slots"] == spaces.Box(-LIMIT, LIMIT, (rows, len(FEATURES)), np.float32)
    assert space["candidates"] == spaces.Box(-LIMIT, LIMIT, (3, len(FEATURES)), np.float32)
    assert space["globals"] == spaces.Box(-LIMIT, LIMIT, (len(GLOBALS),), np.float32)
    assert space["action_mask"] == spaces.MultiBinary(num_actions)
    embedding: Any = PagingEnv(small_table(0), observe_embeddings=True, **FIELDS).observation_space
    assert embedding["slot_embeddings"].shape == (rows, 16)
    assert embedding["candidate_embeddings"].shape == (3, 16)
    assert embedding["focus_embedding"].shape == (16,)


def test_the_mask_is_the_same_in_its_three_places(env: PagingEnv) -> None:
    rng = np.random.default_rng(0)
    observation, info = env.reset(seed=1)
    for _ in range(40):
        mask = env.action_masks()
        assert mask.dtype == np.bool_
        assert observation["action_mask"].dtype == np.int8
        assert np.array_equal(observation["action_mask"], mask)
        assert np.array_equal(info["action_mask"], mask)
        assert env.observation_space.contains(observation)
        observation, _, terminated, truncated, info = env.step(np.int64(random_action(mask, rng)))
        assert not truncated
        if terminated:
            observation, info = env.reset()


def test_the_reward_is_the_sum_of_its_terms(env: PagingEnv) -> None:
    rng = np.random.default_rng(1)
    totals = dict.fromkeys(REWARD_TERMS, 0.0)
    num_events = 0
    for episode in range(4):
        _, info = env.reset(options={"episode": episode})
        num_events += int(env.privileged_state().state.clock[0])
        terminated = False
        while not terminated:
            action = random_action(info["action_mask"], rng, p_illegal=0.1)
            _, reward, terminated, _, info = env.step(np.int64(action))
            terms = info["reward_terms"]
            assert type(reward) is float
            assert reward == sum(terms.values())
            assert info["illegal"] == (terms["cost/illegal"] == -REWARD.illegal)
            for name, value in terms.items():
                totals[name] += value
                assert value >= 0 if name == "evidence" else value <= 0
            assert info["elapsed_events"] >= 0
            num_events += info["elapsed_events"]
    assert all(totals.values()), f"every term was met: {totals}"
    # The step after the last event is an event's decision, and adds none.
    assert num_events == env.table.episode_num_events[:4].sum()


def test_rewards_before_the_first_decision_and_episodes_without_any() -> None:
    query = Query("apples?", (0,))
    env = PagingEnv(table_of(["apples", "pears"], [(0, query)]), capacity=4)
    observation, info = env.reset()
    assert np.flatnonzero(observation["action_mask"]).tolist() == [0]
    observation, reward, terminated, truncated, info = env.step(np.int64(0))
    assert (reward, terminated, truncated) == (0.0, True, False)
    assert env.observation_space.contains(observation)
    assert info["reward_terms"] == dict.fromkeys(REWARD_TERMS, 0.0)


def test_forced_moves_are_skipped(env: PagingEnv) -> None:
    rng = np.random.default_rng(2)
    for episode in range(3):
        _, info = env.reset(options={"episode": episode})
        terminated = False
        while not terminated:
            assert info["action_mask"][1:].any(), "something besides YIELD can be done"
            action = random_action(info["action_mask"], rng)
            _, _, terminated, _, info = env.step(np.int64(action))


@pytest.mark.parametrize("seed", range(2))
def test_every_action_is_taken_as_long_as_it_is_in_the_space(seed: int) -> None:
    """Unmasked random play, as the checkers do it: no illegal action raises or breaks anything."""
    env = PagingEnv(small_table(seed), **FIELDS)
    env.reset(seed=seed)
    env.action_space.seed(seed)
    for _ in range(80):
        observation, _, terminated, _, _ = env.step(env.action_space.sample())
        assert env.observation_space.contains(observation)
        core = env._lockstep.process(0).core
        assert core.occupied_tokens <= core.capacity_tokens
        if terminated:
            env.reset()


@pytest.mark.parametrize(
    "action",
    [0, np.int64(0), np.int8(0), np.uint32(0), np.array(0), np.array([0]), np.array([[0]])],
    ids=repr,
)
def test_integers_of_every_kind_are_actions(env: PagingEnv, action: Any) -> None:
    env.step(action)


@pytest.mark.parametrize(
    "action",
    [
        True,
        np.True_,
        np.array([True]),
        0.0,
        np.float32(0),
        np.array([0.0]),
        np.array([0, 1]),
        np.array([], dtype=np.int64),
        "0",
        None,
        [0],
    ],
    ids=repr,
)
def test_what_is_no_integer_is_refused(env: PagingEnv, action: Any) -> None:
    before = env.observation_text()
    with pytest.raises(ValueError, match="An action is an integer, got"):
        env.step(action)
    assert env.observation_text() == before


@pytest.mark.parametrize("action", [-1, 20, 2**40])
def test_an_action_outside_the_space_is_refused(env: PagingEnv, action: int) -> None:
    before = env.observation_text()
    with pytest.raises(ValueError, match=rf"Action {action} is outside 0\.\.19"):
        env.step(np.int64(action))
    assert env.observation_text() == before


def test_step_needs_a_reset() -> None:
    env = PagingEnv(small_table(0), **FIELDS)
    with pytest.raises(gymnasium.error.ResetNeeded, match=r"Call reset\(\) before step"):
        env.step(np.int64(0))
    env.reset()
    terminated = False
    while not terminated:
        terminated = env.step(np.int64(0))[2]
    with pytest.raises(gymnasium.error.ResetNeeded):
        env.step(np.int64(0))
    env.reset()
    env.step(np.int64(0))


def test_reset_plays_the_episode_that_is_asked_for(env: PagingEnv) -> None:
    for episode in (3, 0, 7):
        env.reset(options={"episode": episode})
        assert env._lockstep.process(0).episode == episode


@pytest.mark.parametrize("episode", [-1, 8])
def test_reset_refuses_an_unknown_episode(env: PagingEnv, episode: int) -> None:
    with pytest.raises(ValueError, match=rf"Episode {episode} is outside 0\.\.7"):
        env.reset(options={"episode": episode})


def test_reset_refuses_an_unknown_option(env: PagingEnv) -> None:
    with pytest.raises(ValueError, match=r"the option 'episode' only, got \['sedd'\]"):
        env.reset(options={"sedd": 3})


def test_bad_arguments_are_refused() -> None:
    table = small_table(0)
    with pytest.raises(ValueError, match=r"render_mode must be one of .*got 'human'"):
        PagingEnv(table, render_mode="human")
    with pytest.raises(ValueError, match=r"Give `options` or its fields \['capacity'\], not both"):
        PagingEnv(table, PagingOptions(), capacity=3)
    with pytest.raises(TypeError, match="capazity"):
        PagingEnv(table, capazity=3)


def test_options_and_their_fields_make_the_same_environment() -> None:
    table = small_table(0)
    assert PagingEnv(table, PagingOptions(**FIELDS)).options == PagingEnv(table, **FIELDS).options


def test_rendering_without_a_mode_warns_and_returns_nothing(env: PagingEnv) -> None:
    with pytest.warns(UserWarning, match="needs render_mode"):
        assert env.render() is None


def test_embeddings_are_shown_where_they_may_be_looked_at() -> None:
    table = small_table(1, coarse=True)
    env = PagingEnv(table, observe_embeddings=True, **FIELDS)
    rng = np.random.default_rng(0)
    observation, _ = env.reset(options={"episode": 2})
    vectors = table.page_embedding[table.episode_pages(2)].astype(np.float32)
    queries = table.query_embedding[table.query_offset[table.episode_document[2]] :]
    hidden = 0
    terminated = False
    while not terminated:
        process = env._lockstep.process(0)
        for page, row in zip(process.slot_pages(), observation["slot_embeddings"], strict=True):
            assert np.array_equal(row, vectors[page] if page >= 0 else np.zeros(16))
        for page, row in zip(
            process.candidates(), observation["candidate_embeddings"], strict=True
        ):
            shown = page >= 0 and process.core.is_archived(page)
            hidden += page >= 0 and not shown
            assert np.array_equal(row, vectors[page] if shown else np.zeros(16))
        focus = process.query if process.focus_is_query else process.focus_page
        source = queries.astype(np.float32) if process.focus_is_query else vectors
        assert np.array_equal(observation["focus_embedding"], source[focus])
        action = random_action(observation["action_mask"], rng)
        observation, _, terminated, _, _ = env.step(np.int64(action))
    assert hidden > 0, "a candidate that only recall holds was met"


def test_embeddings_of_a_workload_without_queries() -> None:
    env = PagingEnv(table_of(["a", "b", "c"]), capacity=2, observe_embeddings=True)
    observation, _ = env.reset()
    assert env.observation_space.contains(observation)
    arriving = env._lockstep.process(0).arriving
    expected = env.table.page_embedding[arriving].astype(np.float32)
    assert np.array_equal(observation["focus_embedding"], expected)


def test_privileged_state_knows_the_needs() -> None:
    asked = [(2, Query("apples?", (0,))), (4, Query("figs and apples?", (0, 3)))]
    table = table_of(["apples", "pears", "plums", "figs"], asked)
    env = PagingEnv(table, capacity=2, archival_capacity=4, staging="dense")
    env.reset()
    hidden = env.privileged_state()
    assert hidden.needs.tolist() == [[0, -1]]
    assert hidden.future_events.tolist() == [[0, 3]]
    assert hidden.future_needs.tolist() == [[[-1, -1], [0, 3]]]
    env.step(np.int64(0))  # answer; page 2 presses
    hidden = env.privileged_state()
    assert hidden.needs.tolist() == [[-1, -1]]
    assert hidden.future_events.tolist() == [[0, 2]]
    assert hidden.stores.tolist() == [0]
    env.step(np.int64(env.layout.encode(Op.STORE, 0)))  # page 0; page 3 presses
    env.step(np.int64(env.layout.encode(Op.STORE, 1)))  # page 1; the query comes
    hidden = env.privileged_state()
    assert hidden.needs.tolist() == [[0, 3]]
    assert hidden.stores.tolist() == [2]
    assert sorted(page for page in hidden.ranking[0].tolist() if page >= 0) == [0, 1]
    assert hidden.result_page.tolist() == [0]


@pytest.mark.parametrize("unit", ["tokens", "pages"])
def test_a_page_larger_than_main_context_is_shown_as_far_as_it_counts(unit: Any) -> None:
    long = "one two three four five six seven eight nine ten"
    env = PagingEnv(table_of([long, "short"]), unit=unit, capacity=5, num_slots=2)
    env.reset(options={"episode": 0})
    text = env.observation_text()
    assert ("[cut]" in text) == (unit == "tokens")
    assert (long in text) == (unit == "pages")
