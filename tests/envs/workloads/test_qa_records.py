"""What is mended and what is dropped of one question, whatever its data set."""

from __future__ import annotations

from collections import Counter
from typing import Any

import pytest

from envs.workloads.qa_records import MISSING_SUPPORT, QaRecord, RecordMaker


@pytest.fixture
def maker() -> RecordMaker:
    return RecordMaker(Counter())


def made(maker: RecordMaker, **changes: Any) -> QaRecord | None:
    fields: dict[str, Any] = {
        "question_id": "q",
        "question": " Who? ",
        "answers": ["Ada"],
        "category": "kind",
        "passages": [("A", "one"), ("B", "two"), ("C", "three")],
        "support": [2, 0],
    }
    return maker.make(**(fields | changes))


def counts(maker: RecordMaker) -> dict[str, int]:
    return {what: count for what, count in maker.repairs.items() if count}


def test_a_clean_question(maker: RecordMaker) -> None:
    record = made(maker)
    assert record is not None
    assert (record.question_id, record.question, record.answers) == ("q", "Who?", ("Ada",))
    assert [(p.title, p.text, p.place) for p in record.passages] == [
        *(("A", "one", 0), ("B", "two", 1), ("C", "three", 2))
    ]
    assert record.support == (0, 2)
    assert (record.category, record.is_test, record.facts) == ("kind", False, frozenset())
    assert counts(maker) == {}


@pytest.mark.parametrize(
    ("changes", "why"),
    [
        ({"question": None}, "questions without text dropped"),
        ({"question": "  "}, "questions without text dropped"),
        ({"question": 7}, "questions without text dropped"),
        ({"support": []}, "questions without a supporting passage dropped"),
        ({"passages": []}, "questions without a supporting passage dropped"),
        ({"passages": [("A", "")] * 3}, "questions without a supporting passage dropped"),
    ],
)
def test_a_question_that_cannot_be_asked_is_dropped(
    maker: RecordMaker, changes: dict[str, Any], why: str
) -> None:
    assert made(maker, **changes) is None
    assert counts(maker)[why] == 1


def test_an_id_that_is_there_already_is_dropped(maker: RecordMaker) -> None:
    assert made(maker) is not None
    assert made(maker, question="Another?") is None
    assert counts(maker) == {"questions whose id is there already dropped": 1}
    # A question that was dropped leaves its id free.
    assert made(maker, question_id="r", support=[]) is None
    assert made(maker, question_id="r") is not None


def test_a_question_without_an_id_is_named(maker: RecordMaker) -> None:
    made(maker)
    record = made(maker, question_id=None)
    assert record is not None
    assert record.question_id == "question-1"
    assert counts(maker) == {"questions without an id named by their number": 1}


def test_empty_and_repeated_passages(maker: RecordMaker) -> None:
    passages = [("A", None), ("B", "two"), ("B", " two "), ("B", "other"), ("", "untitled")]
    record = made(maker, passages=passages, support=[2, 4], places=[5, 6, 7, 8, 9])
    assert record is not None
    assert [(p.title, p.text, p.place) for p in record.passages] == [
        *(("B", "two", 6), ("B", "other", 8), ("", "untitled", 9))
    ]
    assert record.support == (0, 2), "the evidence moves to the passage it is merged with"
    assert counts(maker) == {
        "passages without text dropped": 1,
        "passages that a question has twice merged": 1,
    }


def test_support_that_is_not_there(maker: RecordMaker) -> None:
    record = made(maker, support=[0, 3, -1], passages=[("A", "one"), ("B", "")])
    assert record is not None
    assert record.support == (0,)
    assert counts(maker) == {MISSING_SUPPORT: 2, "passages without text dropped": 1}


def test_answers(maker: RecordMaker) -> None:
    record = made(maker, answers=["the", " Ada ", 4, 2.5, True, None, "Ada", ""])
    assert record is not None
    assert record.answers == ("Ada", "4", "2.5")
    assert counts(maker) == {
        "answers of which normalisation leaves nothing dropped": 1,
        "numeric answers turned into text": 2,
    }
    record = made(maker, question_id="r", answers=[None])
    assert record is not None
    assert record.answers == ()
    assert counts(maker)["questions without an answer kept"] == 1
