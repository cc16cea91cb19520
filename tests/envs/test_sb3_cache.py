"""A learner that knows nothing of this project learns to evict; by `make caches`."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import gymnasium
import numpy as np
import numpy.typing as npt
import pytest
from gymnasium.wrappers import FlattenObservation

from envs.workloads.page_cache import generate_streams, whole_streams
from memrl.request_table import build_request_table
from memrl.table import EpisodeTable

NUM_EPISODES = 16
Choose = Callable[[Any, npt.NDArray[np.bool_]], np.int64]


def small_caches() -> EpisodeTable:
    """Loops of 5 to 10 pages, 60 requests of each: FIFO and LRU miss them all."""
    streams = generate_streams(
        kinds=("loop",),
        streams_per_kind=NUM_EPISODES,
        num_requests=60,
        num_pages=10,
        most_tokens=1,
        rng=np.random.default_rng(0),
    ).streams
    return build_request_table(streams, whole_streams(streams, range(NUM_EPISODES)), name="small")


def hit_ratios(env: gymnasium.Env[Any, Any], choose: Choose) -> npt.NDArray[np.float64]:
    """(episodes,) of every episode."""
    ratios = np.zeros(NUM_EPISODES)
    for episode in range(NUM_EPISODES):
        observation, info = env.reset(options={"episode": episode})
        terminated = False
        while not terminated:
            action = choose(observation, info["action_mask"].astype(bool))
            observation, reward, terminated, _, info = env.step(action)
            ratios[episode] += float(reward) / 60
    return ratios


@pytest.mark.slow
def test_maskable_ppo_ends_above_random_by_three_standard_errors() -> None:
    contrib = pytest.importorskip("sb3_contrib")
    table = small_caches()
    env = FlattenObservation(gymnasium.make("memrl/PageCache-v0", table=table, capacity=4))
    model = contrib.MaskablePPO(
        "MlpPolicy",
        env,
        n_steps=256,
        batch_size=64,
        n_epochs=6,
        learning_rate=2e-3,
        gamma=0.9,
        seed=0,
        device="cpu",
        policy_kwargs={"net_arch": [32]},
    )
    model.learn(2048)
    rng = np.random.default_rng(0)
    learned = hit_ratios(
        env, lambda seen, mask: model.predict(seen, action_masks=mask, deterministic=True)[0]
    )
    drawn = hit_ratios(env, lambda _, mask: np.int64(rng.choice(np.flatnonzero(mask))))
    difference = learned - drawn
    standard_error = difference.std(ddof=1) / np.sqrt(NUM_EPISODES)
    assert difference.mean() > 3 * standard_error > 0, (difference.mean(), standard_error)
