"""The legal actions on states built by hand; random states are compared in `envs/test_lockstep`."""

from __future__ import annotations

import itertools
from typing import Any

import numpy as np
import pytest
import torch
from state_by_hand import hand_state, stack

from memrl.actions import ActionLayout, Op
from memrl.masks import action_mask
from memrl.options import PagingOptions
from memrl.state import PagingState

Moves = set[tuple[Op, int]]
YIELD: Moves = {(Op.YIELD, 0)}
SCOPES = list(itertools.product(["victim", "any"], ["victim", "any"], ["forced", "optional"]))


def options(**fields: Any) -> PagingOptions:
    return PagingOptions(**{"capacity": 3, "num_slots": 3, "num_candidates": 3} | fields)


def legal(state: PagingState, **fields: Any) -> Moves:
    layout = ActionLayout(state.slot_page.shape[1], state.candidate_page.shape[1])
    mask = action_mask(state, options(num_candidates=layout.num_candidates, **fields))
    assert mask.shape == (1, layout.num_actions)
    assert mask.dtype == torch.bool
    return {layout.decode(action) for action in mask[0].nonzero().flatten().tolist()}


def of(op: Op, *rows: int) -> Moves:
    return {(op, row) for row in rows}


# Slot 1 holds the victim; page 5 (slot 2) is stored; page 6 arrives.
PRESSURE = hand_state([3, 4, 5], queue=[1, 0, 2], archived=[5], arriving=6, candidates=[-1, -1, -1])


@pytest.mark.parametrize(
    ("store_scope", "evict_scope", "admission"),
    SCOPES,
)
def test_under_pressure(store_scope: str, evict_scope: str, admission: str) -> None:
    expected = set(YIELD)
    expected |= of(Op.STORE, 1) if store_scope == "victim" else of(Op.STORE, 0, 1, 3)
    expected |= of(Op.EVICT, 0, 1, 2) if evict_scope == "any" else set()
    expected |= of(Op.EVICT, 3) if admission == "optional" else set()
    scopes = {"store_scope": store_scope, "evict_scope": evict_scope, "admission": admission}
    assert legal(PRESSURE, **scopes) == expected


def test_a_stored_victim_asks_nothing() -> None:
    state = hand_state([3, 4, 5], archived=[3], arriving=6)
    assert legal(state) == YIELD


def test_an_archive_without_room_takes_nothing() -> None:
    assert legal(PRESSURE, archival_capacity=0) == YIELD
    assert legal(PRESSURE, archival_capacity=0, store_scope="any") == YIELD


def test_the_budget_leaves_only_yield() -> None:
    everything = {"store_scope": "any", "evict_scope": "any", "admission": "optional"}
    for spent in (1, 2, 3):
        state = hand_state([3, 4, 5], arriving=6, operations_used=spent)
        moves = legal(state, operation_budget=2, **everything)
        assert (moves == YIELD) == (spent >= 2)
    at_query = hand_state(
        [3, 4, 5], query=0, candidates=[1, 2], archived=[1, 2], operations_used=2, more_candidates=1
    )
    assert legal(at_query, operation_budget=2, **everything) == YIELD
    assert len(legal(at_query, operation_budget=3, **everything)) > 1


QUERY = hand_state([3, 4, 5], queue=[1, 0, 2], archived=[1, 2, 5], query=0, candidates=[1, -1, 2])


@pytest.mark.parametrize(
    ("store_scope", "evict_scope", "admission"),
    SCOPES,
)
def test_at_a_query(store_scope: str, evict_scope: str, admission: str) -> None:
    expected = YIELD | of(Op.RETRIEVE, 0, 2) | of(Op.SEARCH, 0, 1, 2)
    expected |= of(Op.STORE, 1) if store_scope == "victim" else of(Op.STORE, 0, 1)
    expected |= of(Op.EVICT, 0, 1, 2) if evict_scope == "any" else set()
    scopes = {"store_scope": store_scope, "evict_scope": evict_scope, "admission": admission}
    assert legal(QUERY, **scopes) == expected


def test_next_is_legal_while_there_are_more() -> None:
    for more in (0, 1):
        state = hand_state([3], query=0, candidates=[1], archived=[1], more_candidates=more)
        assert ((Op.NEXT, 0) in legal(state)) == bool(more)


def test_next_is_never_legal_under_pressure() -> None:
    state = hand_state([3, 4, 5], arriving=6, candidates=[-1], more_candidates=1)
    assert (Op.NEXT, 0) not in legal(state)


def test_search_leaves_out_the_page_in_focus_and_empty_slots() -> None:
    state = hand_state([3, -1, 5], query=0, focus_page=5)
    assert legal(state) == YIELD | of(Op.SEARCH, 0)
    # A query with the number of a resident page is not that page.
    state = hand_state([3, -1, 5], query=5)
    assert legal(state) == YIELD | of(Op.SEARCH, 0, 2)


def test_a_victim_is_stored_only_where_a_retrieval_would_lose_it() -> None:
    free = hand_state([3, 4, -1], query=0, candidates=[1], archived=[1])
    assert legal(free) == YIELD | of(Op.RETRIEVE, 0) | of(Op.SEARCH, 0, 1)
    full = hand_state([3, 4, 5], query=0, candidates=[1], archived=[1])
    assert of(Op.STORE, 0) <= legal(full)
    nothing_staged = hand_state([3, 4, 5], query=0, candidates=[-1], archived=[1])
    assert not {move for move in legal(nothing_staged) if move[0] is Op.STORE}
    assert of(Op.STORE, 0, 1, 2) <= legal(nothing_staged, store_scope="any")


def test_a_retrieval_never_evicts_what_was_retrieved_for_this_query() -> None:
    state = hand_state(
        [3, 1, 2], query=0, retrieved=[1, 2], candidates=[6, -1, -1], archived=[1, 2, 6]
    )
    assert of(Op.RETRIEVE, 0) <= legal(state), "the victim, page 3, was not retrieved"
    state = hand_state(
        [0, 1, 2], query=0, retrieved=[0, 1, 2], candidates=[6], archived=[0, 1, 2, 6]
    )
    assert legal(state) == YIELD | of(Op.SEARCH, 0, 1, 2)


TOKENS = {"unit": "tokens", "capacity": 10}


@pytest.mark.parametrize(
    ("size", "is_legal"), [(1, True), (4, True), (7, True), (8, False), (10, False)]
)
def test_a_candidate_must_fit_beside_what_was_retrieved(size: int, is_legal: bool) -> None:
    state = hand_state(
        [3, 1, -1],
        sizes=[4, 3, 0],
        query=0,
        retrieved=[1],
        candidates=[6],
        candidate_sizes=[size],
        archived=[1, 6],
    )
    moves = legal(state, **TOKENS)
    assert (of(Op.RETRIEVE, 0) <= moves) == is_legal
    # Above 3 free tokens page 3 would have to go, and it is not stored.
    assert (of(Op.STORE, 0) <= moves) == (is_legal and size > 3)


def test_slots_limit_as_tokens_do() -> None:
    state = hand_state(
        [1, 2, 3], sizes=[1, 1, 1], query=0, retrieved=[2, 3], candidates=[6], archived=[2, 3, 6]
    )
    moves = legal(state, **TOKENS)
    assert of(Op.RETRIEVE, 0) | of(Op.STORE, 0) <= moves, "tokens would do, but no slot is free"


def test_the_end_leaves_only_yield() -> None:
    end = hand_state([3, 4, 5], operations_used=16, candidates=[-1])
    assert legal(end, store_scope="any", evict_scope="any", admission="optional") == YIELD


def test_empty_main_context() -> None:
    state = hand_state([-1, -1, -1], query=0, candidates=[1, 2], archived=[1, 2])
    assert legal(state, evict_scope="any", store_scope="any") == YIELD | of(Op.RETRIEVE, 0, 1)


def test_batch_of_states_equals_the_states() -> None:
    states = [PRESSURE, QUERY, PRESSURE]
    together = action_mask(stack(states), options(evict_scope="any"))
    for row, state in enumerate(states):
        alone = action_mask(state, options(evict_scope="any"))[0]
        assert np.array_equal(together[row].numpy(), alone.numpy())
