from __future__ import annotations

from collections import Counter
from pathlib import Path
from typing import Any

import pytest
from qa_fixtures import (
    happened,
    wiki_question,
    write_json,
    write_lines,
)

from envs.workloads.files import DataFileMissingError, DataFormatError
from envs.workloads.qa_records import MISSING_SUPPORT, Passage, QaRecord
from envs.workloads.two_wiki import (
    ALIASES_NAME,
    CORPUS_NAMES,
    CORPUS_QUERY_NAMES,
    TEST_NAMES,
    TRAIN_NAMES,
    read_2wiki,
    read_2wiki_corpus,
)

FOLDER = "2wikimultihopqa"


def read(folder: Path, test: list[Any], train: list[Any]) -> tuple[list[QaRecord], dict[str, int]]:
    write_json(folder / FOLDER / TEST_NAMES[0], test)
    write_json(folder / FOLDER / TRAIN_NAMES[0], train)
    repairs: Counter[str] = Counter()
    records, paths = read_2wiki(folder, repairs)
    assert {path.name for path in paths} >= {TEST_NAMES[0], TRAIN_NAMES[0]}
    return records, happened(repairs)


def other(name: str, **fields: Any) -> dict[str, Any]:
    """A question that shares no passage with those of another name."""
    context = [[f"Keeper {name}", ["He sang."]], [f"Place {name}", ["It is far."]]]
    facts = [[f"Keeper {name}", 0], [f"Place {name}", 0]]
    return wiki_question(name, context=context, supporting_facts=facts, **fields)


def test_test_questions_come_first(tmp_path: Path) -> None:
    records, repairs = read(tmp_path, [wiki_question("a")], [other("b"), other("c")])
    assert [(record.question_id, record.is_test) for record in records] == [
        *(("a", True), ("b", False), ("c", False))
    ]
    assert repairs == {"questions with another number of passages than 10 kept": 3}


def test_a_training_question_with_the_evidence_of_a_test_question_is_dropped(
    tmp_path: Path,
) -> None:
    # All questions of the fixture need the passage about Tarn; `other` ones have it not at all.
    test, train = [wiki_question("a"), wiki_question("b")], [wiki_question("c"), other("d")]
    records, repairs = read(tmp_path, test, train)
    assert [record.question_id for record in records] == ["a", "b", "d"]
    what = "training questions that share evidence with a test question dropped"
    assert repairs[what] == 1


def test_a_shared_distractor_drops_nothing(tmp_path: Path) -> None:
    context = [*other("b")["context"], *wiki_question("a")["context"]]
    train = [other("b") | {"context": context}]
    records, _ = read(tmp_path, [wiki_question("a")], train)
    assert len(records) == 2


def test_an_id_of_both_files_is_read_once(tmp_path: Path) -> None:
    records, repairs = read(tmp_path, [wiki_question("a")], [other("a"), other("b")])
    assert [record.question_id for record in records] == ["a", "b"]
    assert repairs["questions whose id is there already dropped"] == 1


def test_triples_without_aliases(tmp_path: Path) -> None:
    triples: list[Any] = [["A", "is", "B"], ["A", "is"], ["A", "is", 3], "A is B"]
    ids: list[Any] = [None, [], [["Q1"]]]  # of another number than the triples
    questions = [
        other(str(n), evidences=triples, evidences_id=value, answer_id=None)
        for n, value in enumerate(ids)
    ]
    records, repairs = read(tmp_path, [wiki_question("a")], questions)
    assert list(map(set, records[0].triples)) == [
        {("Keeper a", "lived in", "Tarn")},
        {("Tarn", "has", "a tower")},
    ]
    assert [record.triples for record in records[1:]] == [(frozenset({("A", "is", "B")}),)] * 3
    assert repairs["evidence triples that are no three texts dropped"] == 9


def test_aliases_are_accepted_where_they_are_there(tmp_path: Path) -> None:
    lines = [
        {"Q_id": "Q9", "aliases": ["green light", ""], "demonyms": ["verdant"]},
        {"Q_id": "Q1", "aliases": ["The Keeper"], "demonyms": []},
        {"Q_id": "Q3", "aliases": ["a keep"], "demonyms": None},
        {"aliases": ["of nobody"]},
        "no object",
    ]
    write_lines(tmp_path / FOLDER / ALIASES_NAME, lines)
    records, _ = read(tmp_path, [wiki_question("a")], [other("b", answer_id=None)])
    assert records[0].answers == ("the green lamp", "green light", "verdant")
    assert records[1].answers == ("the green lamp",)
    assert list(map(set, records[0].triples)) == [
        {("Keeper a", "lived in", "Tarn"), ("The Keeper", "lived in", "Tarn")},
        {("Tarn", "has", "a tower"), ("Tarn", "has", "a keep")},
    ]


def test_both_files_are_needed(tmp_path: Path) -> None:
    write_json(tmp_path / FOLDER / TEST_NAMES[1], [wiki_question()])
    with pytest.raises(DataFileMissingError, match=r"2wiki_train_sample.*Alab-NII.*Apache-2\.0"):
        read_2wiki(tmp_path, Counter())


# ---------------------------------------------------------------------- the corpus


CORPUS: list[Any] = [
    {"title": "Tarn", "text": "Tarn has a tower."},
    {"title": "Ferry", "text": "A ferry crosses."},
    {"title": "Keeper", "text": "He lit the lamp."},
]


def read_corpus(
    folder: Path, corpus: Any, queries: list[Any], name: str = CORPUS_QUERY_NAMES[0]
) -> tuple[list[QaRecord], list[Passage], dict[str, int]]:
    write_json(folder / FOLDER / CORPUS_NAMES[0], corpus)
    writer = write_lines if ".jsonl" in name else write_json
    writer(folder / FOLDER / name, queries)
    repairs: Counter[str] = Counter()
    records, pool, _ = read_2wiki_corpus(folder, repairs)
    return records, pool, happened(repairs)


def test_questions_name_titles_of_the_corpus(tmp_path: Path) -> None:
    query = {"question": "Who lit it?", "gold_titles": ["Keeper", "Tarn"]}
    (record,), pool, repairs = read_corpus(tmp_path, CORPUS, [query])
    assert [passage.title for passage in pool] == ["Tarn", "Ferry", "Keeper"]
    assert [passage.title for passage in record.passages] == ["Keeper", "Tarn"]
    assert record.support == (0, 1)
    assert (record.question_id, record.category) == ("Who lit it?", "2 passages")
    assert record.answers == ()
    assert repairs == {"questions without an answer kept": 1}


def test_the_layout_of_the_questions_is_read_as_well(tmp_path: Path) -> None:
    question = wiki_question("w", supporting_facts=[["Keeper", 0], ["Tarn", 0], ["Keeper", 1]])
    (record,), _, repairs = read_corpus(tmp_path, CORPUS, [question], CORPUS_QUERY_NAMES[1])
    assert [passage.title for passage in record.passages] == ["Keeper", "Tarn"]
    assert (record.question_id, record.category) == ("w", "compositional")
    assert record.answers == ("the green lamp",)
    assert repairs == {}


def test_dirty_corpora_and_questions(tmp_path: Path) -> None:
    corpus = [*CORPUS, CORPUS[0], {"title": "Tarn", "text": "Another."}, {"title": "x"}, None]
    queries: list[Any] = [
        {"question": "a?", "gold_titles": ["Tarn", "Nowhere", 7, "Tarn"]},
        {"question": "a?", "gold_titles": ["Tarn"]},
        {"question": "b?", "gold_titles": ["Nowhere"]},
        {"question": "c?"},
        {"gold_titles": ["Tarn"]},
        5,
    ]
    (record,), pool, repairs = read_corpus(tmp_path, corpus, queries)
    assert len(pool) == 4
    assert [passage.content for passage in record.passages] == [pool[0].content]
    assert repairs == {
        MISSING_SUPPORT: 3,  # "Nowhere" twice, and what is no title
        "passages of the corpus without title or text dropped": 2,
        "passages that the corpus has twice merged": 1,
        "titles of several passages of the corpus: the first one is meant": 1,
        "questions whose id is there already dropped": 1,
        "questions without a supporting passage dropped": 2,
        "questions without text dropped": 2,
        "questions without an answer kept": 1,
    }


@pytest.mark.parametrize(("corpus", "queries"), [([], [{}]), ({}, [{}]), (CORPUS, [])])
def test_a_corpus_or_questions_of_nothing_are_refused(
    tmp_path: Path, corpus: Any, queries: list[Any]
) -> None:
    with pytest.raises(DataFormatError, match=r"holds no .*HippoRAG"):
        read_corpus(tmp_path, corpus, queries)
