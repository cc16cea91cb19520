"""Why queries were missed: each reason by hand, and in sessions that miss in that way."""

from __future__ import annotations

from collections import Counter
from typing import Any

import pytest
from prompted_players import Played, at_query, call, fruit, is_warning, say, search

from memrl.episode_log import AnsweredQuery
from memrl.llm.backend import Reply, Request
from memrl.policies.prompted_log import (
    End,
    Failure,
    SearchTrace,
    TurnTrace,
    failure_of,
    missed_by_actions,
)

RECALL = SearchTrace("conversation_search", "apple", 0, 2, 2)
ARCHIVAL = SearchTrace("archival_memory_search", "apple", 0, 2, 2)
MORE = SearchTrace("conversation_search", "apple", 0, 2, 5)
BAD = Counter({"not_json": 1})


def turn(**fields: Any) -> TurnTrace:
    defaults: dict[str, Any] = {"is_query": True, "has_recall": True, "end": End.MESSAGE}
    return TurnTrace(**(defaults | fields))


def answer(
    evidence: float | None, *, absent: int = 2, kept: float = 0.0, staged: float = 0.0
) -> AnsweredQuery:
    return AnsweredQuery(0, 0, evidence, absent, kept, kept, staged, 0.0, 0.0, 2, 3)


@pytest.mark.parametrize(
    ("trace", "answered", "failure"),
    [
        (turn(said=True), answer(1.0), None),
        (turn(), answer(None), None),
        (turn(end=End.STOPPED), answer(1.0), Failure.PREMATURE_STOP),
        (turn(end=End.NO_CALL), answer(1.0), Failure.BAD_CALL),
        (turn(end=End.MANY_CALLS), answer(1.0), Failure.FOUND_NOT_ANSWERED),
        (turn(said=True, searches=[RECALL]), answer(0.5, staged=1.0), Failure.FOUND_NOT_ANSWERED),
        (turn(said=True), answer(0.5, absent=0), Failure.FOUND_NOT_ANSWERED),
        (turn(said=True), answer(0.0), Failure.NO_SEARCH),
        (turn(said=True, refused=BAD), answer(0.0), Failure.BAD_CALL),
        (turn(end=End.MODEL_FAILED), answer(0.0), Failure.BAD_CALL),
        (turn(said=True, searches=[ARCHIVAL], has_recall=False), answer(0.0), Failure.NOT_STORED),
        (
            turn(said=True, searches=[ARCHIVAL], has_recall=False),
            answer(0.0, kept=0.5),
            Failure.WRONG_SEARCH,
        ),
        (turn(said=True, searches=[ARCHIVAL]), answer(0.0), Failure.WRONG_TIER),
        (turn(said=True, searches=[ARCHIVAL, RECALL]), answer(0.0), Failure.WRONG_SEARCH),
        (turn(said=True, searches=[ARCHIVAL]), answer(0.0, kept=1.0), Failure.WRONG_SEARCH),
        (turn(end=End.FAILED_CALLS, searches=[RECALL]), answer(0.0), Failure.BAD_CALL),
        (turn(said=True, searches=[MORE]), answer(0.0), Failure.PREMATURE_STOP),
        (turn(end=End.STOPPED, searches=[RECALL]), answer(0.0), Failure.PREMATURE_STOP),
        (turn(end=End.MANY_CALLS, searches=[MORE]), answer(0.0), Failure.WRONG_SEARCH),
        (turn(said=True, searches=[RECALL], refused=BAD), answer(0.5), Failure.WRONG_SEARCH),
    ],
)
def test_the_reason_of_a_miss(
    trace: TurnTrace, answered: AnsweredQuery, failure: Failure | None
) -> None:
    assert failure_of(trace, answered) == failure


def test_further_results_are_those_of_the_last_search_that_were_not_seen() -> None:
    def pages(*numbers: int, query: str = "apple") -> list[SearchTrace]:
        hits = {0: 2, 1: 2, 2: 1}
        return [SearchTrace("conversation_search", query, n, hits.get(n, 0), 5) for n in numbers]

    assert not turn().has_more
    assert turn(searches=pages(0, 1)).has_more
    assert not turn(searches=pages(0, 1, 2)).has_more
    assert turn(searches=pages(2)).has_more, "the first pages were never looked at"
    assert turn(searches=[*pages(0, 1, 2), *pages(0, query="pear")]).has_more
    assert turn(searches=pages(0, 0, 0)).has_more, "the same page again shows nothing new"


def missed(*replies: Reply | str, needs: int = 0, **session: Any) -> dict[str, int]:
    return Played(at_query(*replies), fruit(needs), session=session).log.missed


def archival(query: str) -> Reply:
    return call("archival_memory_search", query=query, request_heartbeat=True)


def test_sessions_that_miss_in_each_way() -> None:
    assert missed(search("apple"), say("one")) == {}
    assert missed(say("?")) == {"no_search": 1}
    assert missed(search("kiwi"), say("?")) == {"wrong_search": 1}
    assert missed(archival("apple"), say("?")) == {"wrong_tier": 1}
    assert missed(archival("apple"), say("?"), with_recall=False) == {"not_stored": 1}
    assert missed(search("apple"), call("evict", page_id=0)) == {"found_not_answered": 1}
    assert missed(call("conversation_search", query="apple")) == {"premature_stop": 1}
    by_one = {"needs": 2, "page_size": 1}
    both, second = search("apple plum"), search("apple plum", page=1)
    assert missed(both, say("?"), **by_one) == {"premature_stop": 1}
    assert missed(both, second, say("three"), **by_one) == {}
    assert missed(Reply("", calls=search("a").calls[:0]), "no") == {"bad_call": 1}


def test_what_was_saved_is_in_the_right_tier() -> None:
    """With recall, looking into archival alone is right once the message was saved there."""

    def saves(request: Request) -> Reply:
        if is_warning(request):
            if request.messages[-1].role == "tool":
                return Reply("done")
            return call("archival_memory_insert", content="Ann: apple one", request_heartbeat=True)
        return say("?") if request.messages[-1].role == "tool" else archival("kiwi")

    # One entry is all that archival holds, so every search finds it, and it comes in.
    assert Played(saves, fruit(0)).log.missed == {}


@pytest.mark.parametrize(
    ("answered", "without_recall", "with_recall"),
    [
        (answer(1.0), None, None),
        (answer(None), None, None),
        (answer(0.5, absent=0), Failure.FOUND_NOT_ANSWERED, Failure.FOUND_NOT_ANSWERED),
        (answer(0.0, kept=1.0, staged=1.0), *[Failure.FOUND_NOT_ANSWERED] * 2),
        (answer(0.0, kept=0.5, staged=0.5), Failure.NOT_STORED, Failure.WRONG_SEARCH),
        (answer(0.0), Failure.NOT_STORED, Failure.WRONG_SEARCH),
        (answer(0.5, kept=1.0, staged=0.5), Failure.WRONG_SEARCH, Failure.WRONG_SEARCH),
    ],
)
def test_a_policy_of_actions_misses_for_what_was_lost_or_not_found(
    answered: AnsweredQuery, without_recall: Failure | None, with_recall: Failure | None
) -> None:
    assert missed_by_actions(answered, has_recall=False) is without_recall
    assert missed_by_actions(answered, has_recall=True) is with_recall
