"""What Gymnasium, Stable-Baselines3 and their users expect of an environment."""

from __future__ import annotations

import copy
import pickle
import warnings
from collections.abc import Iterator
from typing import Any

import gymnasium
import numpy as np
import numpy.typing as npt
import pytest
from gymnasium.utils.env_checker import check_env
from gymnasium.wrappers import FlattenObservation
from table_fixtures import RefusingEmbedder, made_up_document, made_up_episode, random_action
from table_fixtures import small_table as small

from envs.paging import PagingEnv
from memrl.table_build import build_table, fit_lexical_statistics

OPTION_SETS: dict[str, dict[str, Any]] = {
    "default scopes": {"capacity": 4, "archival_capacity": 5, "num_candidates": 3},
    "every choice": {
        "unit": "tokens",
        "capacity": 30,
        "archival_capacity": None,
        "stage_from": "both",
        "store_scope": "any",
        "evict_scope": "any",
        "admission": "optional",
        "num_candidates": 3,
    },
    "embeddings": {"capacity": 4, "num_candidates": 2, "observe_embeddings": True},
    "no candidates": {"capacity": 4, "num_candidates": 0, "archival_capacity": 0},
    "fractions": {"capacity": 0.3, "archival_capacity": 0.5, "num_candidates": 3},
    "memgpt queue": {"capacity": 6, "evict_fraction": 0.5, "num_candidates": 3},
}
ANY_OPTIONS = pytest.mark.parametrize("fields", OPTION_SETS.values(), ids=OPTION_SETS)


def make(fields: dict[str, Any], render_mode: str | None = None) -> PagingEnv:
    return PagingEnv(small(0, num_pages=10), render_mode=render_mode, **fields)


@pytest.fixture
def registered() -> Iterator[str]:
    """An id of its own: the checker makes the environment again, once for each render mode."""
    gymnasium.register("memrl-tests/Paging-v0", entry_point="envs.paging:PagingEnv")
    yield "memrl-tests/Paging-v0"
    del gymnasium.registry["memrl-tests/Paging-v0"]


@ANY_OPTIONS
def test_gymnasium_checker_has_nothing_to_say(registered: str, fields: dict[str, Any]) -> None:
    env = gymnasium.make(registered, table=small(0, num_pages=10), **fields)
    with warnings.catch_warnings():
        warnings.simplefilter("error")
        check_env(env.unwrapped)


@pytest.mark.parametrize("render_mode", ["ansi", "rgb_array"])
def test_gymnasium_checker_has_nothing_to_say_with_rendering(
    registered: str, render_mode: str
) -> None:
    fields = OPTION_SETS["default scopes"]
    table = small(0, num_pages=10)
    env = gymnasium.make(registered, table=table, render_mode=render_mode, **fields)
    with warnings.catch_warnings():
        warnings.simplefilter("error")
        check_env(env.unwrapped)


@ANY_OPTIONS
def test_sb3_checker_has_nothing_to_say(fields: dict[str, Any]) -> None:
    checker = pytest.importorskip("stable_baselines3.common.env_checker")
    with warnings.catch_warnings():
        warnings.simplefilter("error")
        checker.check_env(FlattenObservation(make(fields)))
        # Set encoders want rows; SB3 recommends the flattened view, which is checked above.
        warnings.filterwarnings("ignore", message=".*unconventional shape")
        checker.check_env(make(fields))


def test_maskable_ppo_plays_legal_actions_only() -> None:
    contrib = pytest.importorskip("sb3_contrib")
    env = FlattenObservation(make(OPTION_SETS["every choice"]))
    model = contrib.MaskablePPO(
        "MlpPolicy",
        env,
        n_steps=128,
        batch_size=128,
        n_epochs=1,
        seed=0,
        device="cpu",
        policy_kwargs={"net_arch": [16]},
    )
    illegal = []

    def watch(local: dict[str, Any], _: dict[str, Any]) -> bool:
        illegal.append(local["infos"][0]["illegal"])
        return True

    model.learn(256, callback=watch)
    assert len(illegal) == 256
    assert not any(illegal)


Step = tuple[dict[str, npt.NDArray[Any]], float, bool, bool, dict[str, Any]]


def rollout(env: PagingEnv, num_steps: int, *, seed: int) -> list[Step]:
    """Play random legal actions, beginning new episodes as they end."""
    rng = np.random.default_rng(seed)
    observation, info = env.reset(seed=seed)
    steps: list[Step] = [(observation, 0.0, False, False, info)]
    for _ in range(num_steps):
        action = np.int64(random_action(info["action_mask"], rng))
        step = env.step(action)
        steps.append(step)
        info = step[4]
        if step[2]:
            observation, info = env.reset()
            steps.append((observation, 0.0, False, False, info))
    return steps


def assert_equal_steps(first: list[Step], second: list[Step]) -> None:
    assert len(first) == len(second)
    for one, other in zip(first, second, strict=True):
        assert one[0].keys() == other[0].keys()
        for key, value in one[0].items():
            assert value.dtype == other[0][key].dtype
            assert value.tobytes() == other[0][key].tobytes(), key
        assert one[1:4] == other[1:4]
        assert np.array_equal(one[4].pop("action_mask"), other[4].pop("action_mask"))
        assert one[4] == other[4]


def test_same_seed_same_rollout() -> None:
    fields = OPTION_SETS["every choice"]
    first, second = (rollout(make(fields), 200, seed=3) for _ in range(2))
    assert sum(step[2] for step in first) >= 2
    assert_equal_steps(first, second)


def test_seed_chooses_the_episodes() -> None:
    def episodes(seed: int) -> list[int]:
        env = make(OPTION_SETS["default scopes"])
        env.reset(seed=seed)
        return [_episode_of(env)] + [(env.reset(), _episode_of(env))[1] for _ in range(12)]

    assert episodes(0) == episodes(0)
    assert episodes(0) != episodes(1)
    assert len(set(episodes(0))) > 3


def _episode_of(env: PagingEnv) -> int:
    return env._lockstep.process(0).episode


def test_no_global_random_state_is_used(poison_global_rng: None) -> None:
    del poison_global_rng
    rng = np.random.default_rng(0)
    documents = [made_up_document(rng, "doc", 8)]
    episodes = [made_up_episode(rng, documents, 8, 4) for _ in range(2)]
    embedder = RefusingEmbedder()
    statistics = fit_lexical_statistics(documents)
    table = build_table(documents, episodes, embedder, statistics, name="poisoned")
    for render_mode in ("ansi", "rgb_array"):
        env = PagingEnv(table, capacity=3, render_mode=render_mode)
        rollout(env, 20, seed=0)
        env.render()
        env.observation_text()
        env.privileged_state()


def test_nothing_is_embedded_after_the_table_is_built() -> None:
    rng = np.random.default_rng(0)
    documents = [made_up_document(rng, "doc", 10)]
    episodes = [made_up_episode(rng, documents, 10, 6) for _ in range(2)]
    embedder = RefusingEmbedder()
    statistics = fit_lexical_statistics(documents)
    table = build_table(documents, episodes, embedder, statistics, name="refusing")
    embedder.is_open = False
    env = PagingEnv(table, **OPTION_SETS["every choice"])
    steps = rollout(env, 80, seed=0)
    env.observation_text()
    assert embedder.calls == 1
    assert any(step[4].get("reward_terms", {}).get("cost/search") for step in steps)


@pytest.mark.parametrize("how", ["pickle", "deepcopy"])
def test_a_copy_in_mid_episode_plays_on_alike(how: str) -> None:
    env = make(OPTION_SETS["every choice"])
    rng = np.random.default_rng(0)
    _, info = env.reset(seed=1)
    for _ in range(8):
        info = env.step(np.int64(random_action(info["action_mask"], rng)))[4]
    twin = pickle.loads(pickle.dumps(env)) if how == "pickle" else copy.deepcopy(env)
    untouched = env.observation_text()
    played = _play_on(twin)
    assert env.observation_text() == untouched, "the copy shares nothing with the original"
    assert _play_on(env) == played


def _play_on(env: PagingEnv) -> list[tuple[str, float]]:
    rng = np.random.default_rng(5)
    trail = []
    for _ in range(12):
        _, reward, terminated, _, _ = env.step(np.int64(random_action(env.action_masks(), rng)))
        trail.append((env.observation_text(), reward))
        if terminated:
            env.reset()
    return trail
