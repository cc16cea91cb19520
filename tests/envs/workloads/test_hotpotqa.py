from __future__ import annotations

from collections import Counter
from pathlib import Path
from typing import Any

import pytest
from qa_fixtures import happened, hotpot_question, write, write_json

from envs.workloads.files import DataFileMissingError, DataFormatError
from envs.workloads.hotpotqa import FILE_NAMES, read_hotpotqa
from envs.workloads.qa_records import QaRecord


def read(
    folder: Path, *questions: Any, name: str = FILE_NAMES[0]
) -> tuple[list[QaRecord], dict[str, int]]:
    write_json(folder / "hotpotqa" / name, list(questions))
    repairs: Counter[str] = Counter()
    records, _ = read_hotpotqa(folder, repairs)
    return records, happened(repairs)


def test_a_question_and_its_evidence(tmp_path: Path) -> None:
    (record,), repairs = read(tmp_path, hotpot_question())
    assert record.question_id == "h1"
    assert (record.answers, record.category) == (("the green lamp",), "bridge")
    assert [passage.title for passage in record.passages] == ["Ferry", "Keeper h1", "Tarn"]
    assert record.passages[1].text == "He kept a tower. He lit the green lamp."
    assert record.support == (1, 2)
    assert record.facts == {("Keeper h1", 1), ("Tarn", 0)}
    assert not record.is_test
    assert repairs == {"questions with another number of passages than 10 kept": 1}


def test_ten_passages_are_the_rule(tmp_path: Path) -> None:
    more = [[f"Other {n}", [f"Sentence {n}."]] for n in range(7)]
    question = hotpot_question(context=[*hotpot_question()["context"], *more])
    (record,), repairs = read(tmp_path, question)
    assert len(record.passages) == 10
    assert repairs == {}


def test_a_sentence_past_the_end_keeps_its_passage(tmp_path: Path) -> None:
    facts = [["Keeper h1", 7], ["Keeper h1", -1], ["Tarn", 0]]
    (record,), repairs = read(tmp_path, hotpot_question(supporting_facts=facts))
    assert record.support == (1, 2)
    assert record.facts == {("Keeper h1", 7), ("Keeper h1", -1), ("Tarn", 0)}
    assert repairs["supporting sentences past the end of their passage: it is kept"] == 2


def test_facts_of_another_form_or_passage_are_dropped(tmp_path: Path) -> None:
    facts: list[Any] = [["Nowhere", 0], ["Tarn"], ["Tarn", "0"], [3, 0], "Tarn", ["Tarn", True]]
    (record,), repairs = read(tmp_path, hotpot_question(supporting_facts=[*facts, ["Tarn", 0]]))
    assert record.support == (2,)
    assert repairs["supporting facts of passages that are not there dropped"] == 1
    assert repairs["supporting facts that are no title and sentence index dropped"] == 5


def test_of_two_passages_with_a_title_the_first_with_the_sentence_is_meant(tmp_path: Path) -> None:
    context = [["Tarn", ["Short."]], ["Tarn", ["One.", "Two."]], ["Tarn", ["1.", "2."]]]
    facts = [["Tarn", 1]]
    (record,), repairs = read(tmp_path, hotpot_question(context=context, supporting_facts=facts))
    assert record.support == (1,)
    what = "supporting facts whose title two passages have: the first is meant"
    assert repairs[what] == 1


def test_sentences_that_are_empty_or_no_text_keep_their_place(tmp_path: Path) -> None:
    context = [["Tarn", ["", None, " Third.", "Fourth."]]]
    question = hotpot_question(context=context, supporting_facts=[["Tarn", 2]])
    (record,), _ = read(tmp_path, question)
    assert record.passages[0].text == "Third. Fourth."
    assert record.support == (0,)


def test_records_and_passages_that_are_none(tmp_path: Path) -> None:
    broken: list[Any] = [["Tarn"], "Tarn", None, ["Tarn", "text"], ["Keeper h2", ["He."]]]
    question = hotpot_question("h2", context=broken, supporting_facts=[["Keeper h2", 0]])
    (record,), repairs = read(tmp_path, None, 5, [], {}, question)
    assert [passage.title for passage in record.passages] == ["Keeper h2"]
    assert repairs["questions without text dropped"] == 4
    assert repairs["passages without text dropped"] == 4


def test_a_repeated_id_is_read_once(tmp_path: Path) -> None:
    records, repairs = read(tmp_path, hotpot_question(), hotpot_question(answer="another"))
    assert [record.answers for record in records] == [("the green lamp",)]
    assert repairs["questions whose id is there already dropped"] == 1


def test_answers_that_are_no_text(tmp_path: Path) -> None:
    questions = [hotpot_question(str(n), answer=answer) for n, answer in enumerate([7, None])]
    (number, nothing), repairs = read(tmp_path, *questions)
    assert (number.answers, nothing.answers) == (("7",), ())
    assert repairs["numeric answers turned into text"] == 1
    assert repairs["questions without an answer kept"] == 1


@pytest.mark.parametrize("name", FILE_NAMES)
def test_the_official_names_are_read_as_well(tmp_path: Path, name: str) -> None:
    assert len(read(tmp_path, hotpot_question(), name=name)[0]) == 1


def test_the_file_is_named(tmp_path: Path) -> None:
    path = write_json(tmp_path / "hotpotqa" / FILE_NAMES[0], [hotpot_question()])
    assert read_hotpotqa(tmp_path, Counter())[1] == [path]


@pytest.mark.parametrize("content", [b"", b"[{", b"[\xff]", b"[" * 100_000])
def test_a_file_that_is_no_json_is_refused(tmp_path: Path, content: bytes) -> None:
    write(tmp_path / "hotpotqa" / FILE_NAMES[0], content)
    with pytest.raises(DataFormatError, match="not valid JSON"):
        read_hotpotqa(tmp_path, Counter())


@pytest.mark.parametrize("value", [{}, [], [1], {"data": [hotpot_question()]}, "text"])
def test_a_file_without_a_question_is_refused(tmp_path: Path, value: object) -> None:
    path = write_json(tmp_path / "hotpotqa" / FILE_NAMES[0], value)
    with pytest.raises(
        DataFormatError, match=r"holds no question with passages.*hotpotqa"
    ) as caught:
        read_hotpotqa(tmp_path, Counter())
    assert str(path) in str(caught.value)


def test_a_truncated_gzip_is_refused(tmp_path: Path) -> None:
    path = write_json(tmp_path / "hotpotqa" / FILE_NAMES[0], [hotpot_question()])
    path.write_bytes(path.read_bytes()[:-9])
    with pytest.raises(DataFormatError, match="not a whole gzip file"):
        read_hotpotqa(tmp_path, Counter())


def test_a_missing_file_is_one_clear_error(tmp_path: Path) -> None:
    with pytest.raises(DataFileMissingError) as caught:
        read_hotpotqa(tmp_path, Counter())
    message = str(caught.value)
    for part in ("hotpotqa/hotpot_distractor", "hotpotqa.github.io", "CC BY-SA 4.0", "MEMRL_DATA"):
        assert part in message
