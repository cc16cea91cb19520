from __future__ import annotations

import json
from collections import Counter
from pathlib import Path
from typing import Any

import pytest
from qa_fixtures import happened, musique_question, write, write_lines

from envs.workloads.files import DataFileMissingError, DataFormatError
from envs.workloads.musique import FILE_NAMES, read_musique
from envs.workloads.qa_records import QaRecord


def read(folder: Path, *questions: Any) -> tuple[list[QaRecord], dict[str, int]]:
    write_lines(folder / "musique" / FILE_NAMES[0], questions)
    repairs: Counter[str] = Counter()
    records, _ = read_musique(folder, repairs)
    return records, happened(repairs)


def test_paragraphs_are_known_by_their_number(tmp_path: Path) -> None:
    (record,), repairs = read(tmp_path, musique_question("3hop1__7_8_9"))
    assert (record.question_id, record.category) == ("3hop1__7_8_9", "3hop1")
    assert record.answers == ("the sea", "sea", "ocean")
    assert [passage.title for passage in record.passages] == ["Oats", "Ila", "Orm", "Orm"]
    assert record.support == (1, 3), "of the two with one title, the second"
    assert [passage.place for passage in record.passages] == [0, 1, 2, 3]
    assert repairs == {}


def test_numbers_need_not_be_the_order(tmp_path: Path) -> None:
    question = musique_question()
    for paragraph, idx in zip(question["paragraphs"], [9, 8, None, 6], strict=True):
        paragraph["idx"] = idx
    (record,), repairs = read(tmp_path, question)
    assert [passage.place for passage in record.passages] == [9, 8, 2, 6]
    assert record.support == (1, 3)
    assert repairs == {"paragraphs without a number named by their place": 1}


def test_without_marks_the_steps_say_what_supports(tmp_path: Path) -> None:
    question = musique_question()
    for paragraph in question["paragraphs"]:
        del paragraph["is_supporting"]
    (record,), repairs = read(tmp_path, question)
    assert record.support == (1, 3)
    assert repairs == {"questions without marked paragraphs: those of its steps taken": 1}


def test_questions_that_cannot_be_answered_are_left_out(tmp_path: Path) -> None:
    questions = [musique_question(answerable=False), musique_question()]
    records, repairs = read(tmp_path, *questions)
    assert len(records) == 1
    assert repairs == {"questions that cannot be answered left out": 1}


def test_dirty_lines(tmp_path: Path) -> None:
    path = write_lines(tmp_path / "musique" / FILE_NAMES[1], [musique_question(), [], 3])
    with path.open("ab") as file:
        file.write(b'\n\xff\xfe\n{"id": \n  \n' + b"[" * 100_000 + b"\n")
    repairs: Counter[str] = Counter()
    records, _ = read_musique(tmp_path, repairs)
    assert len(records) == 1
    assert happened(repairs) == {
        f"lines of {FILE_NAMES[1]} that are not JSON dropped": 3,
        "questions without text dropped": 2,
    }


def test_a_line_separator_within_a_text_ends_no_line(tmp_path: Path) -> None:
    question = musique_question(question="By\u2028what?")
    write(tmp_path / "musique" / FILE_NAMES[0], json.dumps(question, ensure_ascii=False))
    records, _ = read_musique(tmp_path, Counter())
    assert records[0].question == "By\u2028what?"


def test_a_file_without_a_question_is_refused(tmp_path: Path) -> None:
    with pytest.raises(DataFormatError, match=r"holds no question with paragraphs.*StonyBrookNLP"):
        read(tmp_path, {"id": "x"})


def test_a_missing_file_is_one_clear_error(tmp_path: Path) -> None:
    with pytest.raises(DataFileMissingError, match=r"musique_sample.*StonyBrookNLP.*CC BY 4\.0"):
        read_musique(tmp_path, Counter())
