"""Nothing that a policy must not know reaches an observation, its text, or `info`."""

from __future__ import annotations

import dataclasses
from collections.abc import Iterator
from typing import Any

import numpy as np
import numpy.typing as npt
import pytest
import torch
from leak_fixtures import LABEL_CHANGES, other_future
from request_tables import cache_options, request_table
from table_fixtures import random_action, small_table

from envs.paging import PagingEnv
from memrl.episode_log import REWARD_TERMS
from memrl.identity import IDENTITY
from memrl.options import PagingOptions
from memrl.table import EpisodeTable

STEP_INFO = {"action_mask", "reward_terms", "elapsed_events", "illegal"}
RESET_INFO = {"action_mask"}

ARCHIVAL = PagingOptions(capacity=3, num_slots=3, archival_capacity=4, num_candidates=3)
BOTH = PagingOptions(
    unit="tokens",
    capacity=16,
    num_slots=5,
    archival_capacity=None,
    num_candidates=3,
    stage_from="both",
    store_scope="any",
    evict_scope="any",
    admission="optional",
    observe_embeddings=True,
)
PLAYS = [
    pytest.param(options, seed, id=f"{name}-{seed}")
    for name, options in (("archival", ARCHIVAL), ("both", BOTH))
    for seed in range(2)
]


@dataclasses.dataclass
class Moment:
    """What can be seen at one decision."""

    event: int
    observation: dict[str, npt.NDArray[Any]]
    text: str
    info: dict[str, Any]
    reward: float
    terminated: bool


def play(table: EpisodeTable, options: PagingOptions, seed: int, episode: int) -> Iterator[Moment]:
    """Play random legal and illegal actions that depend on the mask and the seed alone."""
    env = PagingEnv(table, options)
    rng = np.random.default_rng(seed)
    observation, info = env.reset(seed=seed, options={"episode": episode})
    terminated, reward = False, 0.0
    while True:
        event = int(env.privileged_state().state.clock[0])
        yield Moment(event, observation, env.observation_text(), info, reward, terminated)
        if terminated:
            return
        action = random_action(observation["action_mask"], rng, p_illegal=0.05)
        observation, reward, terminated, _, info = env.step(np.int64(action))


def assert_same(first: Moment, second: Moment, *, but_evidence: bool) -> None:
    assert first.event == second.event
    assert first.observation.keys() == second.observation.keys()
    for key, value in first.observation.items():
        other = second.observation[key]
        assert (value.dtype, value.shape) == (other.dtype, other.shape)
        assert value.tobytes() == other.tobytes(), key
    assert first.text == second.text
    assert _plain(first.info, but_evidence) == _plain(second.info, but_evidence)
    assert but_evidence or first.reward == second.reward


def _plain(info: dict[str, Any], but_evidence: bool) -> dict[str, Any]:
    """Make it comparable; the evidence is the reward, which does depend on what is needed."""
    terms = dict(info.get("reward_terms", {}))
    if but_evidence:
        terms.pop("evidence", None)
    arrays = {name: info[name].tolist() for name in ("action_mask", *IDENTITY) if name in info}
    return info | arrays | {"reward_terms": terms}


@pytest.mark.parametrize(("options", "seed"), PLAYS[::3])
def test_labels_and_ids_cannot_be_seen(options: PagingOptions, seed: int) -> None:
    table = small_table(seed, num_pages=9, coarse=True)
    moments = list(play(table, options, seed, 2))
    assert len(moments) > 8
    for name, change in LABEL_CHANGES.items():
        changed = change(table, np.random.default_rng(seed + 100))
        assert changed.content_hash() != table.content_hash()
        others = list(play(changed, options, seed, 2))
        felt = name in ("other_needs", "other_pays")
        for first, second in zip(moments, others, strict=True):
            assert_same(first, second, but_evidence=felt)
        rewards = [moment.reward for moment in moments], [moment.reward for moment in others]
        assert (rewards[0] != rewards[1]) == felt, "a change of needs changes the reward alone"


@pytest.mark.parametrize("most_preloaded", [0, 4])
@pytest.mark.parametrize(("options", "seed"), PLAYS)
def test_the_future_cannot_be_seen(options: PagingOptions, seed: int, most_preloaded: int) -> None:
    table = small_table(seed, num_pages=11, coarse=True, most_preloaded=most_preloaded)
    rng = np.random.default_rng(seed)
    compared = 0
    for episode in range(2):
        moments = list(play(table, options, seed, episode))
        for num_events in rng.integers(4, table.episode_num_events[episode], size=3).tolist():
            changed = other_future(table, episode, num_events, rng)
            others = play(changed, options, seed, episode)
            for first, second in zip(moments, others, strict=False):
                if min(first.event, second.event) > num_events:
                    break
                if first.terminated or second.terminated:  # nothing was left to come
                    assert max(first.event, second.event) >= num_events
                    break
                assert_same(first, second, but_evidence=True)
                compared += 1
    assert compared > 20


CACHES = [
    cache_options(3),
    cache_options(9, num_slots=5, unit="tokens", admission="optional", operation_budget=3),
]


@pytest.mark.parametrize("seed", range(3))
@pytest.mark.parametrize("options", CACHES)
def test_neither_the_ids_nor_the_future_of_requests_can_be_seen(
    options: PagingOptions, seed: int
) -> None:
    rng = np.random.default_rng(seed)
    past = rng.integers(0, 7, 25).tolist()
    sizes, others = (rng.integers(1, 6, 60).tolist() for _ in range(2))
    renamed = rng.permutation(60)
    other_sizes = [0] * 60
    for page in range(60):
        other_sizes[renamed[page]] = sizes[page] if page in past else others[page]
    first = [*past, *rng.integers(0, 12, 9).tolist()]
    second = [*past, *rng.integers(0, 20, 22).tolist()]
    tables = (
        request_table([[0], first], sizes),
        request_table([[0, 1], [int(renamed[page]) for page in second]], other_sizes),
    )
    compared = 0
    for one, two in zip(*(play(table, options, seed, 1) for table in tables), strict=False):
        if min(one.event, two.event) > len(past) or one.terminated or two.terminated:
            break
        assert_same(one, two, but_evidence=False)
        assert set(one.info) >= set(IDENTITY)
        compared += 1
    assert compared > 8


@pytest.mark.parametrize("options", [ARCHIVAL, BOTH])
def test_info_holds_nothing_but_what_is_documented(options: PagingOptions) -> None:
    moments = list(play(small_table(1), options, 0, 0))
    assert moments[0].info.keys() == RESET_INFO
    for moment in moments[1:]:
        assert moment.info.keys() == STEP_INFO
        assert tuple(moment.info["reward_terms"]) == REWARD_TERMS
        assert {type(value) for value in moment.info["reward_terms"].values()} == {float}
        assert type(moment.info["elapsed_events"]) is int
        assert type(moment.info["illegal"]) is bool


def _arrays(value: Any) -> list[npt.NDArray[Any]]:
    if isinstance(value, torch.Tensor):
        return [value.numpy()]
    if isinstance(value, np.ndarray):
        return [value]
    if dataclasses.is_dataclass(value) and not isinstance(value, type):
        value = {field.name: getattr(value, field.name) for field in dataclasses.fields(value)}
    if isinstance(value, dict):
        return [array for part in value.values() for array in _arrays(part)]
    return []


def test_nothing_privileged_and_no_state_is_aliased() -> None:
    env = PagingEnv(small_table(0), ARCHIVAL)
    observation, info = env.reset(options={"episode": 0})
    rng = np.random.default_rng(0)
    for _ in range(12):
        hidden = _arrays(env.privileged_state()) + list(env.table.arrays().values())
        shown = _arrays(observation) + _arrays(info)
        assert len(hidden) > 25
        assert len(shown) >= 5
        assert not np.shares_memory(observation["action_mask"], info["action_mask"])
        for array in shown:
            assert not any(np.shares_memory(array, other) for other in hidden)
        expected = env.observation_text()
        mask = env.action_masks().copy()
        action = random_action(mask, rng)
        for array in [*shown, *_arrays(env.privileged_state())]:
            array.fill(0)
        env.action_masks().fill(False)
        assert env.observation_text() == expected, "the environment shows copies"
        assert np.array_equal(env.action_masks(), mask)
        observation, _, terminated, _, info = env.step(np.int64(action))
        assert not info["illegal"]
        if terminated:
            observation, info = env.reset(options={"episode": 1})


def test_the_privileged_door_is_not_forwarded_by_wrappers() -> None:
    from gymnasium.wrappers import FlattenObservation, OrderEnforcing

    env = OrderEnforcing(FlattenObservation(PagingEnv(small_table(0), ARCHIVAL)))
    env.reset()
    with pytest.raises(AttributeError):
        env.privileged_state()  # type: ignore[attr-defined]
    assert env.unwrapped.privileged_state().needs.shape[0] == 1  # type: ignore[attr-defined]
