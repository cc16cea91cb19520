"""What a policy is shown of a large cache, and that it acts on what it is shown."""

from __future__ import annotations

from typing import Any

import numpy as np
import pytest
import torch
from gymnasium import spaces
from request_tables import cache_options, request_table
from state_by_hand import hand_state
from table_fixtures import small_table

from envs.batched import BatchedPaging, BatchedPagingEnv
from envs.lockstep import LockstepPaging
from envs.paging import PagingEnv
from envs.process import options_for
from memrl.actions import Op
from memrl.config import ConfigurationError
from memrl.masks import action_mask
from memrl.observation import FEATURES, observe
from memrl.options import PagingOptions
from memrl.shown import shown_slots, shown_state
from memrl.state import PagingState, TableTensors

NUM_SLOTS = 12


def full_cache(clock: int = 20, **fields: Any) -> PagingState:
    """Pages 1..12 in slots of that order; page 0 arrives and the page in slot 4 is the victim."""
    queue = [4, *(slot for slot in range(NUM_SLOTS) if slot != 4)]
    pages = list(range(1, NUM_SLOTS + 1))
    return hand_state(pages, arriving=0, queue=queue, clock=clock, num_pages=13, **fields)


def test_the_victim_comes_first_and_the_arriving_page_last() -> None:
    options = cache_options(NUM_SLOTS, shown_slots=5)
    for clock in range(40):
        slot = shown_slots(full_cache(clock), options)[0].tolist()
        assert (slot[0], slot[-1]) == (4, NUM_SLOTS)
        assert len(set(slot)) == len(slot) == 7
    assert options.num_rows == 7


def test_the_others_are_drawn_uniformly_and_anew_at_each_decision() -> None:
    options = cache_options(NUM_SLOTS, shown_slots=3)
    counts = np.zeros((NUM_SLOTS, 3))
    for clock in range(4000):
        for place, slot in enumerate(shown_slots(full_cache(clock), options)[0, 1:-1].tolist()):
            counts[slot, place] += 1
    assert not counts[4].any(), "the victim has its own row"
    others = np.delete(counts, 4, axis=0)
    expected = 4000 / 11
    assert np.abs(others - expected).max() < 5 * np.sqrt(expected)
    drawn = [shown_slots(full_cache(20, operations_used=n), options).tolist() for n in range(5)]
    assert len(set(map(str, drawn))) > 1, "after an operation the sample is another one"


@pytest.mark.parametrize("shown", [None, 11, 12, 40])
def test_all_slots_are_shown_where_the_sample_would_hold_them(shown: int | None) -> None:
    options = cache_options(NUM_SLOTS, shown_slots=shown)
    state = full_cache()
    assert shown_slots(state, options)[0].tolist() == list(range(NUM_SLOTS + 1))
    assert shown_state(state, options) is state
    assert options.num_rows == NUM_SLOTS + 1


def test_rows_without_a_page_are_empty() -> None:
    pages = [-1] * NUM_SLOTS
    pages[3], pages[9] = 7, 5
    state = hand_state(pages, arriving=0, queue=[9, 3, *({*range(12)} - {3, 9})], num_pages=13)
    shown = shown_state(state, cache_options(NUM_SLOTS, shown_slots=4))
    assert shown.slot_page.tolist() == [[5, 7, -1, -1, -1, 0]]
    assert shown.slot_size.tolist() == [[1, 1, 0, 0, 0, 1]]
    assert shown.victim_rows().tolist() == [[True] + [False] * 5]


def test_rows_and_mask_are_those_of_the_slots_shown() -> None:
    table = TableTensors.from_table(request_table([list(range(13))]))
    every = cache_options(NUM_SLOTS, admission="optional")
    some = cache_options(NUM_SLOTS, admission="optional", shown_slots=4)
    state = full_cache()
    slot = shown_slots(state, some)[0]
    whole, part = (observe(state, table, options) for options in (every, some))
    assert torch.equal(part["slots"], whole["slots"][:, slot])
    assert torch.equal(part["globals"], whole["globals"]), "what is counted is counted over all"
    assert torch.equal(part["handles"], whole["handles"][:, slot])
    assert part["slots"][0, :, FEATURES.index("victim")].tolist() == [1, 0, 0, 0, 0, 0]
    evict = action_mask(state, some)[0, 2 : 2 + 6]
    assert evict.tolist() == [True] * 6
    assert action_mask(state, some).shape == (1, 2 + 3 * 6)


@pytest.mark.parametrize("make_group", [LockstepPaging, BatchedPaging])
def test_the_page_that_is_shown_is_the_one_that_leaves(make_group: Any) -> None:
    rng = np.random.default_rng(0)
    table = request_table([rng.integers(0, 40, 150).tolist() for _ in range(3)])
    group = make_group(table, cache_options(NUM_SLOTS, shown_slots=3), 3)
    observation = group.reset([0, 1, 2])
    checked = 0
    for _ in range(60):
        row = int(rng.integers(4))
        page = observation["handles"][:, row].tolist()
        before = [handles.tolist() for handles in observation["handles"]]
        result = group.step(np.full(3, group.layout.encode(Op.EVICT, row)))
        observation = result.observation
        state = group.privileged_state().state
        assert state.slot_page.shape == (3, 5)
        for env in range(3):
            if result.terminated[env] or not observation["action_mask"][env, 1:].any():
                continue
            assert page[env] in before[env]
            assert page[env] not in observation["handles"][env, :-1].tolist()
            checked += 1
    assert checked > 60


def test_both_environments_have_the_space_of_what_is_shown() -> None:
    table, options = request_table([[0, 1, 2, 3, 4, 5, 6]]), cache_options(5, shown_slots=2)
    env = PagingEnv(table, options)
    assert env.action_space == spaces.Discrete(2 + 3 * 4)
    observation, info = env.reset()
    assert env.observation_space.contains(observation)
    assert info["handles"].shape == (4,)
    assert "slot 3" in env.observation_text()
    vector = BatchedPagingEnv(table, options, num_envs=2)
    assert vector.single_observation_space == env.observation_space


def test_what_cannot_be_sampled_is_refused() -> None:
    with pytest.raises(ConfigurationError, match="shown_slots is for page caches"):
        options_for(small_table(0), PagingOptions(capacity=9, shown_slots=2))
    with pytest.raises(ValueError, match="shown_slots must be an integer of at least 1"):
        PagingOptions(shown_slots=0)
