"""Policies that read: they are handed the texts of their own rows, and nothing else changes."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Any, ClassVar

import numpy as np
import pytest
import torch
from play_by_hand import TEXTS, apples
from request_tables import cache_options, request_table
from table_fixtures import REWARD, small_table, table_of
from torch import Tensor

from envs.batched import BatchedPaging
from envs.lockstep import LockstepPaging
from memrl.config import ConfigurationError
from memrl.documents import Query
from memrl.episode_log import EpisodeLog
from memrl.evaluation.lineup import Arena
from memrl.evaluation.play import play
from memrl.observation import FEATURES
from memrl.observation_text import ShownTexts
from memrl.options import PagingOptions
from memrl.page_texts import CUT_MARKER
from memrl.policies.base import Contestant, reads_text
from memrl.policies.heuristics import StoreAndRetrieve, YieldOnly
from memrl.privileged import PrivilegedState
from memrl.table import EpisodeTable

OPTIONS = PagingOptions(
    capacity=3, num_slots=3, num_candidates=2, archival_capacity=6, reward=REWARD
)


def shown(table: EpisodeTable, **fields: Any) -> list[ShownTexts]:
    options = PagingOptions(**({"capacity": 3, "num_candidates": 2} | fields))
    group = LockstepPaging(table, options, 1)
    group.reset([0])
    return group.shown_texts([0])


class Reader:
    """Plays as a rule does, and checks that the texts are those of its rows."""

    is_privileged: ClassVar[bool] = False
    reads_text: ClassVar[bool] = True

    def __init__(self, top_k: int) -> None:
        self._rule = StoreAndRetrieve(top_k)
        self.seen: list[ShownTexts] = []

    def act(
        self,
        observation: Mapping[str, Tensor],
        action_mask: Tensor,
        privileged: PrivilegedState | None = None,
        *,
        texts: Sequence[ShownTexts] = (),
    ) -> Tensor:
        assert privileged is None
        assert len(texts) == len(action_mask)
        for row, told in enumerate(texts):
            for name, own in (("slots", told.slots), ("candidates", told.candidates)):
                occupied = observation[name][row, :, FEATURES.index("occupied")] > 0
                assert [text is not None for text in own] == occupied.tolist()
        self.seen.extend(texts)
        return self._rule.act(observation, action_mask)


def test_texts_come_with_the_rows_and_change_no_record() -> None:
    table = small_table(6, num_documents=3, num_pages=10, num_episodes=6, num_queries=4)
    assert reads_text(Reader(1))
    assert not reads_text(YieldOnly())
    for num_envs in (1, 4):
        reader = Reader(1)
        read = play(LockstepPaging(table, OPTIONS, num_envs), reader, range(6))
        assert read == play(LockstepPaging(table, OPTIONS, num_envs), StoreAndRetrieve(1), range(6))
        queries = {told.query for told in reader.seen if told.query is not None}
        assert queries
        assert queries <= set(table.text.queries)
        pages = {text for told in reader.seen for text in told.slots if text is not None}
        assert pages <= set(table.text.pages)


def test_policies_that_read_play_beside_those_that_do_not() -> None:
    table = small_table(6, num_documents=3, num_pages=10, num_episodes=6, num_queries=4)
    contestants = [
        Contestant("a", YieldOnly()),
        Contestant("b", Reader(2)),
        Contestant("c", StoreAndRetrieve(2)),
    ]
    heard: list[tuple[int, int, int]] = []

    def hear(number: int, episode: int, log: EpisodeLog) -> None:
        heard.append((number, episode, len(log.answers)))

    played = Arena(table, OPTIONS, LockstepPaging).play(contestants, on_log=hear)
    told = {(number, episode): count for number, episode, count in heard}
    assert len(told) == len(heard) == 18
    for number, records in enumerate(played):
        for record in records:
            record.decision_s = 0.0
            assert told[number, record.episode] == record.num_queries
    assert played[1] == played[2]


def test_without_texts_a_reading_policy_is_refused() -> None:
    group = BatchedPaging(small_table(0), OPTIONS, 2)
    with pytest.raises(ConfigurationError, match="reference environment"):
        play(group, Reader(1), [0])


def test_page_ids_are_in_no_text() -> None:
    (told,) = shown(apples(6))
    said = tuple(f"{('Ann', 'Bob')[page % 2]}: {TEXTS[page]}" for page in range(4))
    assert told == ShownTexts(said, (None, None), None)


def test_a_page_larger_than_main_context_is_read_as_it_is_shown() -> None:
    table = table_of(["kiwi six " * 50], [(1, Query("what?", (0,)))])
    (told,) = shown(table, unit="tokens", capacity=20, num_slots=2)
    assert told.slots[0] is not None
    assert told.slots[0].endswith(CUT_MARKER)
    assert told.query == "what?"
    (whole,) = shown(table)
    assert whole.slots[0] == table.text.pages[0]


def test_pages_of_a_cache_are_told_apart_by_their_handles() -> None:
    group = LockstepPaging(request_table([[0, 1, 2, 0, 3]]), cache_options(2), 1)
    observation = group.reset([0])
    (told,) = group.shown_texts([0])
    assert told.slots == tuple(f"page {handle}" for handle in observation["handles"][0].tolist())
    assert told.query is None


def test_contexts_are_the_pages_in_main_context_oldest_first() -> None:
    group = LockstepPaging(apples(6, 6), PagingOptions(capacity=3, staging="dense"), 1)
    logs: list[EpisodeLog] = []
    play(group, YieldOnly(), [0], on_log=lambda _, log: logs.append(log))
    assert logs[0].contexts == [(3, 4, 5), (3, 4, 5)], "also where the answer was forced"

    play(group, StoreAndRetrieve(1), [0], on_log=lambda _, log: logs.append(log))
    # The first question brings back page 0 for page 3; the second finds it there, and takes page 2.
    assert logs[1].contexts == [(4, 5, 0), (5, 0, 2)]
    assert [len(pages) for pages in logs[1].contexts] == [
        answer.num_resident for answer in logs[1].answers
    ]
    batched: list[EpisodeLog] = []
    play(
        BatchedPaging(apples(6, 6), group.options, 1),
        StoreAndRetrieve(1),
        [0],
        on_log=lambda _, log: batched.append(log),
    )
    assert batched[0].contexts == []
    assert batched[0] == logs[1], "and comparisons pass over it"


def test_actions_of_rows_that_have_ended_are_not_asked_for_again() -> None:
    """Rows that wait for the others have only YIELD; a model must not be asked there."""
    group = LockstepPaging(apples(6), OPTIONS, 2)
    group.reset([0])
    mask = group.action_masks()
    assert torch.equal(mask[1].nonzero().flatten(), torch.tensor([0]))
    assert np.count_nonzero(mask[0]) > 1
