from __future__ import annotations

from collections import Counter
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from qa_fixtures import happened, oracle_question, write_lines

from envs.workloads.answer_scoring import normalize_answer
from envs.workloads.files import DataFileMissingError, DataFormatError
from envs.workloads.natural_questions import (
    ORACLE_NAMES,
    PUBLISHED_POSITIONS,
    published_names,
    read_oracle,
    read_published,
    with_distractors,
)
from envs.workloads.qa_records import Passage, QaRecord

FOLDER = "lost_in_the_middle"


def read(folder: Path, *questions: Any) -> tuple[list[QaRecord], dict[str, int]]:
    write_lines(folder / FOLDER / ORACLE_NAMES[0], questions)
    repairs: Counter[str] = Counter()
    records, _ = read_oracle(folder, repairs)
    return records, happened(repairs)


def pool_of(records: list[QaRecord]) -> list[Passage]:
    return list({p.content: p for record in records for p in record.passages}.values())


def spread(
    records: list[QaRecord],
    num_passages: int = 4,
    *,
    best_matches: bool = False,
    positions: tuple[int, ...] = (),
    seed: int = 0,
) -> tuple[list[QaRecord], dict[str, int]]:
    repairs: Counter[str] = Counter()
    made = with_distractors(
        records,
        pool_of(records),
        num_passages=num_passages,
        best_matches=best_matches,
        positions=positions,
        rng=np.random.default_rng(seed),
        repairs=repairs,
    )
    return made, dict(repairs)


@pytest.fixture
def oracle(tmp_path: Path) -> list[QaRecord]:
    return read(tmp_path, *(oracle_question(n) for n in range(12)))[0]


def test_a_question_is_named_by_its_text(oracle: list[QaRecord]) -> None:
    record = oracle[3]
    assert record.question_id == record.question == "what is told of topic 3"
    assert record.answers == ("answer03",)
    assert [passage.title for passage in record.passages] == ["Topic 3"]
    assert (record.support, record.category) == ((0,), "nq")


def test_dirty_questions(tmp_path: Path) -> None:
    questions = [
        oracle_question(0),
        oracle_question(0),
        oracle_question(1, answers=["the", "An answer"]),
        oracle_question(2, answers=[]),
        oracle_question(3, ctxs=[]),
        oracle_question(4, ctxs=[{"title": "x", "text": "y", "isgold": False}]),
        oracle_question(5, ctxs=None, question=None),
    ]
    records, repairs = read(tmp_path, *questions)
    assert [record.answers for record in records] == [("answer00",), ("An answer",), ()]
    assert repairs == {
        "questions whose id is there already dropped": 1,
        "answers of which normalisation leaves nothing dropped": 1,
        "questions without an answer kept": 1,
        "questions without a supporting passage dropped": 2,
        "questions without text dropped": 1,
    }


# ---------------------------------------------------------------------- made from the oracle file


@pytest.mark.parametrize("best_matches", [False, True])
def test_distractors_hold_no_answer(oracle: list[QaRecord], best_matches: bool) -> None:
    made, repairs = spread(oracle, 5, best_matches=best_matches)
    assert repairs == {}
    places = []
    for record, plain in zip(made, oracle, strict=True):
        assert record.question_id == plain.question_id
        assert len({passage.content for passage in record.passages}) == 5
        assert [passage.place for passage in record.passages] == list(range(5))
        (gold,) = record.support
        places.append(gold)
        for place, passage in enumerate(record.passages):
            holds = normalize_answer(record.answers[0]) in normalize_answer(passage.text)
            assert holds == (place == gold)
    assert len(set(places)) > 2, "the gold passage stands anywhere"


def test_a_passage_of_another_question_with_the_answer_is_no_distractor(tmp_path: Path) -> None:
    """Topics 1 to 3 tell of the same; the answer may stand in the title as well."""
    same = [
        {"title": f"Topic {n}", "text": f"Once more answer00, number {n}.", "isgold": True}
        for n in (1, 2)
    ]
    titled = {"title": "Answer00", "text": "Of nothing else.", "isgold": True}
    questions = [
        oracle_question(0),
        *(oracle_question(n, ctxs=[same[n - 1]]) for n in (1, 2)),
        oracle_question(3, ctxs=[titled]),
        *(oracle_question(n) for n in range(4, 9)),
    ]
    records, _ = read(tmp_path, *questions)
    for seed in range(5):
        made, _ = spread(records, 6, seed=seed)
        contents = {passage.content for passage in made[0].passages}
        assert contents == {records[n].passages[0].content for n in (0, 4, 5, 6, 7, 8)}


def test_best_matches_are_alike(tmp_path: Path) -> None:
    """Passages of one subject are the distractors of its questions."""
    questions = []
    for n in range(12):
        subject = ("violins", "glaciers", "bicycles")[n % 3]
        text = f"All about {subject}: answer{n:02d} of {subject}."
        passage = {"title": f"Topic {n}", "text": text, "isgold": True}
        question = f"what do {subject} have ({n})"
        questions.append(oracle_question(n, question=question, ctxs=[passage]))
    records, _ = read(tmp_path, *questions)
    made, _ = spread(records, 4, best_matches=True)
    for n, record in enumerate(made):
        assert {passage.title for passage in record.passages} == {
            f"Topic {other}" for other in range(n % 3, 12, 3)
        }
    random, _ = spread(records, 4)
    assert [{p.title for p in r.passages} for r in random] != [
        {p.title for p in r.passages} for r in made
    ]


def test_a_record_for_each_position(oracle: list[QaRecord]) -> None:
    made, _ = spread(oracle, 4, positions=(0, 3))
    assert len(made) == 24
    assert [record.support for record in made[:2]] == [(0,), (3,)]
    assert [record.category for record in made[:2]] == ["gold at 00", "gold at 03"]
    assert len({record.question_id for record in made}) == 24
    first, last = made[0], made[1]
    assert first.passages[0].content == last.passages[3].content == oracle[0].passages[0].content
    # The same distractors in the same order.
    rest = [p.content for p in first.passages[1:]]
    assert rest == [p.content for p in last.passages[:3]]


def test_the_seed_decides(oracle: list[QaRecord]) -> None:
    assert spread(oracle)[0] == spread(oracle)[0]
    assert spread(oracle, seed=1)[0] != spread(oracle)[0]
    assert spread(oracle[:5] + oracle[5:])[0][:3] == spread(oracle)[0][:3]


def test_questions_with_too_few_passages_are_dropped(tmp_path: Path) -> None:
    questions = [
        *(oracle_question(n) for n in range(5)),
        oracle_question(5, answers=["tea"]),  # every passage tells of tea
        oracle_question(6, answers=["the"]),  # no answer is left to look for
    ]
    records, _ = read(tmp_path, *questions)
    made, repairs = spread(records, 5)
    assert len(made) == 5
    assert repairs == {"questions with too few passages without their answer dropped": 2}
    with pytest.raises(DataFormatError, match="None of the 7 questions has 7 passages without"):
        spread(records, 8)


# ---------------------------------------------------------------------- published files


def published(folder: Path, num_documents: int, position: int, *numbers: int) -> None:
    questions = []
    for number in numbers:
        gold = oracle_question(number)["ctxs"]
        others = [
            {"id": f"{n}", "title": f"Other {n}", "text": f"Of {number}.{n}.", "isgold": False}
            for n in range(num_documents - 1)
        ]
        context = [*others[:position], *gold, *others[position:]]
        questions.append(oracle_question(number, ctxs=context))
    write_lines(folder / FOLDER / published_names(num_documents, position)[1], questions)


def test_published_files_keep_their_order(tmp_path: Path) -> None:
    for position in PUBLISHED_POSITIONS[10]:
        published(tmp_path, 10, position, 1, 2)
    repairs: Counter[str] = Counter()
    records, files = read_published(tmp_path, repairs, num_documents=10, positions=())
    assert [record.support[0] for record in records] == [0, 0, 4, 4, 9, 9]
    assert records[2].category == "gold at 04"
    assert records[2].question_id == "what is told of topic 1 [gold at 04]"
    assert [p.title for p in records[2].passages][3:6] == ["Other 3", "Topic 1", "Other 4"]
    assert len(files) == 3
    assert happened(repairs) == {}
    some, _ = read_published(tmp_path, repairs, num_documents=10, positions=(9,))
    assert [record.support for record in some] == [(9,), (9,)]


@pytest.mark.parametrize(("num_documents", "positions"), [(15, ()), (10, (1,)), (10, (0, 14))])
def test_what_is_not_published_is_refused(
    tmp_path: Path, num_documents: int, positions: tuple[int, ...]
) -> None:
    with pytest.raises(ValueError, match=r"publishes no .* documents with the gold one at"):
        read_published(tmp_path, Counter(), num_documents=num_documents, positions=positions)


def test_a_missing_file_is_one_clear_error(tmp_path: Path) -> None:
    with pytest.raises(DataFileMissingError, match=r"nq-open-oracle.*nelson-liu.*CC BY-SA 3\.0"):
        read_oracle(tmp_path, Counter())
    name = "nq-open-20_total_documents_gold_at_14"
    with pytest.raises(DataFileMissingError, match=name):
        read_published(tmp_path, Counter(), num_documents=20, positions=(14,))
    write_lines(tmp_path / FOLDER / ORACLE_NAMES[0], [{"question": "q"}])
    with pytest.raises(DataFormatError, match=r"holds no question with a gold passage.*nelson-liu"):
        read_oracle(tmp_path, Counter())
