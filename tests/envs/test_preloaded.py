"""Pages that archival holds from the start, worked out by hand in both environments."""

from __future__ import annotations

import dataclasses
from typing import Any

import numpy as np
import pytest
from table_fixtures import table_of

from envs.batched import BatchedPaging
from envs.lockstep import LockstepPaging
from envs.paging import PagingEnv
from memrl.actions import Op
from memrl.config import ConfigurationError
from memrl.documents import Query
from memrl.memory.paging import EMPTY
from memrl.observation import FEATURES, GLOBALS
from memrl.options import PagingOptions
from memrl.table import EpisodeTable, Event

TEXTS = ["apple one", "pear two", "plum three", "fig four", "lime five"]
Group = LockstepPaging | BatchedPaging


def preloaded_table(num_preloaded: int) -> EpisodeTable:
    """Five pages, of which the first ones are preloaded, then the question for the apple."""
    table = table_of(TEXTS, [(5, Query("where is the apple?", (0,)))])
    return dataclasses.replace(
        table,
        episode_num_preloaded=np.array([num_preloaded]),
        episode_num_events=table.episode_num_events - num_preloaded,
        event_kind=table.event_kind[:, num_preloaded:],
        event_index=table.event_index[:, num_preloaded:],
    )


@pytest.fixture(params=[LockstepPaging, BatchedPaging])
def make(request: pytest.FixtureRequest) -> Any:
    def begin(num_preloaded: int, **fields: Any) -> Group:
        settings: dict[str, Any] = {"capacity": 2, "archival_capacity": None, "num_candidates": 3}
        options = PagingOptions(**(settings | {"staging": "lexical"} | fields))
        group: Group = request.param(preloaded_table(num_preloaded), options, 1)
        group.reset([0])
        return group

    return begin


def act(group: Group, op: Op, argument: int = 0) -> dict[str, float]:
    action = group.layout.encode(op, argument)
    assert group.observation()["action_mask"][0, action]
    result = group.step(np.array([action]))
    terms = zip(group.reward_names, result.reward_terms[0].tolist(), strict=True)
    return {name: value for name, value in terms if value}


def test_nothing_arrives_and_the_answer_can_be_retrieved(make: Any) -> None:
    group = make(5)
    assert group.table.event_kind.tolist() == [[Event.QUERY]]
    state = group.privileged_state().state
    assert state.slot_page.tolist() == [[EMPTY] * 3], "main context is empty"
    assert state.archived.all()
    assert state.candidate_page.tolist() == [[0, 1, 2]], "ties go to the earlier page"
    assert (int(state.clock), int(state.pages_arrived), int(state.queries_asked)) == (1, 5, 1)
    candidates = group.observation()["candidates"][0]
    assert candidates[:, FEATURES.index("stored")].tolist() == [1, 1, 1]
    written_ago = candidates[:, FEATURES.index("written_ago")].numpy()
    assert written_ago == pytest.approx([0.04, 0.03, 0.02])
    assert float(group.observation()["globals"][0, GLOBALS.index("pages_arrived")]) == (
        pytest.approx(0.05)
    )
    assert act(group, Op.RETRIEVE, 0) == {"cost/retrieve": -0.02}
    assert act(group, Op.YIELD) == {"evidence": 1.0}


def test_a_store_drops_the_page_preloaded_first_and_is_the_policys_own(make: Any) -> None:
    group = make(2, archival_capacity=2)
    state = group.privileged_state().state
    assert state.slot_page.tolist() == [[2, 3, 4]]
    assert state.archived.tolist() == [[True, True, False, False, False]]
    assert group.privileged_state().stores.tolist() == [0]
    act(group, Op.STORE, 0)  # page 2 leaves, page 4 comes in, the question is asked
    privileged = group.privileged_state()
    assert privileged.state.archived.tolist() == [[False, True, True, False, False]]
    assert privileged.stores.tolist() == [1]
    act(group, Op.STORE, 1)  # page 3, the victim of a retrieval
    assert group.privileged_state().state.archived.tolist() == [[False, False, True, True, False]]


def test_an_episode_begins_anew_after_another(make: Any) -> None:
    group = make(2, archival_capacity=2)
    act(group, Op.STORE, 0)
    act(group, Op.YIELD)
    group.reset([0])
    privileged = group.privileged_state()
    assert privileged.state.archived.tolist() == [[True, True, False, False, False]]
    assert privileged.stores.tolist() == [0]
    act(group, Op.STORE, 0)
    assert group.privileged_state().state.archived.tolist() == [[False, True, True, False, False]]


@pytest.mark.parametrize("maker", [PagingEnv, LockstepPaging, BatchedPaging])
def test_an_archive_that_is_too_small_is_refused_when_an_environment_is_made(maker: Any) -> None:
    options = PagingOptions(capacity=2, archival_capacity=3)
    arguments = () if maker is PagingEnv else (1,)
    with pytest.raises(ConfigurationError, match=r"archival_capacity is 3, but .* with 4 pages"):
        maker(preloaded_table(4), options, *arguments)
    maker(preloaded_table(3), options, *arguments)
