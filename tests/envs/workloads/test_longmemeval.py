from __future__ import annotations

import gzip
import json
import os
from collections import Counter
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from qa_fixtures import write

from envs.workloads.files import DataFileMissingError, DataFormatError
from envs.workloads.loading import load_workload
from envs.workloads.longmemeval import FILE_NAMES, load_longmemeval
from envs.workloads.longmemeval_scoring import (
    RetrievalScores,
    official_retrieval,
    session_scores,
    turn_scores,
)
from envs.workloads.tables import split_tables
from memrl.config import ConfigurationError
from memrl.documents import Document, Workload
from memrl.evaluation.answer_scores import ScoredAnswer, summarize_scores
from memrl.longmemeval_config import LongMemEvalConfig
from memrl.table import Event
from memrl.workload_config import SplitConfig, WorkloadConfig

ORACLE, HAYSTACK = FILE_NAMES["oracle"][0], FILE_NAMES["s"][0]


def turns(*texts: str, marked: int | None = None) -> list[dict[str, Any]]:
    """A session that the user begins; one turn may be marked as evidence."""
    made: list[dict[str, Any]] = []
    for place, text in enumerate(texts):
        made.append({"role": ("user", "assistant")[place % 2], "content": text})
        if marked is not None:
            made[-1]["has_answer"] = place == marked
    return made


def record(question_id: str = "q1", **fields: Any) -> dict[str, Any]:
    """A record of two sessions, the later one first, as the oracle file has them."""
    return {
        "question_id": question_id,
        "question_type": "single-session-user",
        "question": "Which instrument do I play?",
        "answer": "the oboe",
        "question_date": "2023/05/30 (Tue) 23:40",
        "haystack_dates": ["2023/05/25 (Thu) 20:21", "2023/05/20 (Sat) 02:21"],
        "haystack_session_ids": ["answer_b", "answer_a"],
        "haystack_sessions": [
            turns("The rain stopped.", "Good.", "I play the oboe.", "Lovely.", marked=2),
            turns("What is a fugue?", "A piece of music.", marked=1),
        ],
        "answer_session_ids": ["answer_b"],
    } | fields


def load(folder: Path, *records: object, **settings: Any) -> Workload:
    write(folder / "longmemeval" / ORACLE, json.dumps(records))
    return load_longmemeval(folder, LongMemEvalConfig(**settings), np.random.default_rng(0))


def only(workload: Workload) -> Document:
    (document,) = workload.documents
    return document


def test_turns_are_pages_in_the_order_of_time(tmp_path: Path) -> None:
    workload = load(tmp_path, record())
    document, (query,) = only(workload), only(workload).queries
    assert [page.text for page in document.pages] == [
        *("What is a fugue?", "A piece of music.", "The rain stopped.", "Good."),
        *("I play the oboe.", "Lovely."),
    ]
    assert [page.role for page in document.pages] == [0, 1, 0, 1, 0, 1]
    assert [page.session for page in document.pages] == [0, 0, 1, 1, 1, 1]
    assert document.pages[0].timestamp == "2023/05/20 (Sat) 02:21"
    assert document.speakers == ("user", "assistant")
    assert (query.needs, query.answers, query.asked_after) == ((1, 4), ("the oboe",), 6)
    assert query.category == "single-session-user"
    assert query.pays_evidence
    assert workload.repairs == {"histories put into the order of time": 1}


def test_without_marks_a_turn_of_each_evidence_session_is_derived(tmp_path: Path) -> None:
    sessions = [
        turns("I play something.", "The oboe?", "Yes, I play the oboe.", "I play the oboe too."),
        turns("My oboe broke.", "Oh."),
        turns("The oboe is an instrument that I play.", "Yes."),  # no evidence session
    ]
    fields: dict[str, Any] = {
        "haystack_sessions": sessions,
        "haystack_session_ids": ["answer_1", "answer_2", "other"],
        "haystack_dates": ["2023/05/20", "2023/05/21", "2023/05/22"],
        "answer_session_ids": ["answer_1", "answer_2"],
    }
    assert only(load(tmp_path, record(**fields))).queries[0].needs == (2, 4)
    fields["question_type"] = "single-session-assistant"
    workload = load(tmp_path, record(**fields))
    assert only(workload).queries[0].needs == (3, 5)
    assert workload.repairs == {
        "derived evidence: a turn of each session, with all of the answer's words": 1,
    }


@pytest.mark.parametrize(
    ("fields", "how_much"),
    [
        ({"answer": "the old oboe"}, "with some of the answer's words"),
        ({"answer": 3}, "with none of the answer's words"),
        ({"answer": "The"}, "without an answer to compare it with"),
        ({"question_type": "single-session-preference"}, "without an answer to compare it with"),
    ],
)
def test_how_much_derived_evidence_holds_is_counted(
    tmp_path: Path, fields: dict[str, Any], how_much: str
) -> None:
    sessions = [turns("I play the oboe.", "Old?"), turns("What is a fugue?", "Music.")]
    repairs = load(tmp_path, record(haystack_sessions=sessions, **fields)).repairs
    derived = {what: count for what, count in repairs.items() if what.startswith("derived")}
    assert derived == {f"derived evidence: a turn of each session, {how_much}": 1}


def test_abstentions_pay_nothing_and_rubrics_are_no_answers(tmp_path: Path) -> None:
    rubric = {"question_type": "single-session-preference", "answer": "They would like music."}
    workload = load(tmp_path, record("x_abs"), record("y", **rubric), record("z", answer=32))
    abstention, preference, number = (document.queries[0] for document in workload.documents)
    assert abstention.category == "abstention"
    assert (abstention.answerable, abstention.pays_evidence, abstention.answers) == (
        *(False, False),
        (),
    )
    assert preference.answers == ()
    assert preference.pays_evidence
    assert number.answers == ("32",)
    assert workload.repairs["rubrics of preferences not taken for answers"] == 1
    assert workload.repairs["numeric answers turned into text"] == 1


@pytest.mark.parametrize("date", ["2023/05/30 (Tue) 23:40", "2023-05-30T00:00:00+00:00"])
def test_temporal_questions_tell_their_date(tmp_path: Path, date: str) -> None:
    temporal = record(question_type="temporal-reasoning", question_date=date)
    text = only(load(tmp_path, temporal)).queries[0].text
    assert text == "Which instrument do I play? (Asked on 2023/05/30.)"
    assert only(load(tmp_path, record())).queries[0].text == "Which instrument do I play?"


def test_dirty_records_are_mended_or_dropped_and_counted(tmp_path: Path) -> None:
    dirty = record(
        "d",
        haystack_dates=["soon"],
        haystack_sessions=[
            [{"role": "user", "content": " "}, {"role": "system", "content": "x"}, 7],
            turns("I play the oboe.", "Yes."),
        ],
        haystack_session_ids=["answer_a", "answer_b"],
        answer_session_ids=["answer_b", "answer_gone"],
    )
    workload = load(tmp_path, dirty, dirty, {"question_id": "e"}, 5, record(""))
    assert only(workload).queries[0].needs == (0,)
    assert workload.repairs == {
        "turns without content or of an unknown role dropped": 6,
        "sessions without turns dropped": 2,
        "sessions without a date kept": 2,
        "histories with a date that cannot be read left in the order of the file": 2,
        "evidence sessions that are not there ignored": 2,
        "histories put into the order of time": 1,
        "questions whose id is there already dropped": 1,
        "questions without an id, a text or a session dropped": 3,
        "derived evidence: a turn of each session, with all of the answer's words": 1,
    }


def test_questions_that_share_a_turn_are_one_cluster(tmp_path: Path) -> None:
    other = record("q3", haystack_sessions=[turns("It snows.", "Yes.", marked=0)])
    documents = load(tmp_path, record("q1"), record("q2"), other).documents
    assert [document.cluster_id for document in documents] == ["q1", "q1", "q3"]


# ---------------------------------------------------------------------- longer histories


def haystack(folder: Path, count: int) -> None:
    """An S file with so many sessions that are nobody's evidence, beside one that is."""
    sessions = [turns(f"Chat {number}.", "I see.") for number in range(count)]
    sessions.append(turns("I play the oboe, still.", "Yes.", marked=0))
    ids = [f"chat_{number}" for number in range(count)] + ["answer_s"]
    made = record(
        "s1",
        haystack_sessions=sessions,
        haystack_session_ids=ids,
        haystack_dates=["2022/01/01"] * (count + 1),
        answer_session_ids=["answer_s"],
    )
    write(folder / "longmemeval" / HAYSTACK, json.dumps([made]))


def test_histories_are_lengthened_by_sessions_that_no_other_has(tmp_path: Path) -> None:
    haystack(tmp_path, 6)
    short = load(tmp_path, record("q1"), record("q2"))
    workload = load(tmp_path, record("q1"), record("q2"), haystack_sessions=5)
    added: Counter[str] = Counter()
    for before, document in zip(short.documents, workload.documents, strict=True):
        assert document.pages[-1].session == 4
        (query,), (old,) = document.queries, before.queries
        assert query.asked_after == len(document.pages) == 12
        texts = [document.pages[page].text for page in query.needs]
        assert texts == [before.pages[page].text for page in old.needs]
        times = [page.timestamp for page in document.pages]
        assert times == sorted(times)
        added.update(page.text for page in document.pages if page.text.startswith("Chat"))
    assert len(added) == 6
    assert set(added.values()) == {1}
    assert len(workload.provenance["files"]) == 2  # type: ignore[arg-type]
    again = load(tmp_path, record("q1"), record("q2"), haystack_sessions=5)
    assert again.documents == workload.documents


def test_more_sessions_than_there_are_is_refused(tmp_path: Path) -> None:
    with pytest.raises(DataFileMissingError, match="taken from the S or M file"):
        load(tmp_path, record(), haystack_sessions=3)
    haystack(tmp_path, 2)
    load(tmp_path, record(), haystack_sessions=4)
    config = LongMemEvalConfig(haystack_sessions=5)
    with pytest.raises(ConfigurationError, match="takes 3 sessions to add to 1 histories"):
        load_workload(
            WorkloadConfig(name="longmemeval", data_dir=str(tmp_path), longmemeval=config)
        )


# ---------------------------------------------------------------------- files


@pytest.mark.parametrize(
    ("content", "message"),
    [
        (b"{", "not valid JSON"),
        (b'"\xff"', "not valid JSON"),
        (b"{}", "holds a dict where LongMemEval has a list"),
        (b"[1]", "no question with a history"),
    ],
)
def test_damaged_files_are_refused(tmp_path: Path, content: bytes, message: str) -> None:
    write(tmp_path / "longmemeval" / ORACLE, content)
    with pytest.raises(DataFormatError, match=message):
        load_longmemeval(tmp_path, LongMemEvalConfig(), np.random.default_rng(0))


def test_a_cut_file_is_refused(tmp_path: Path) -> None:
    whole = gzip.compress(json.dumps([record()]).encode())
    (tmp_path / "longmemeval").mkdir()
    (tmp_path / "longmemeval" / f"{ORACLE}.gz").write_bytes(whole[:-9])
    with pytest.raises(DataFormatError, match="not a whole gzip file"):
        load_longmemeval(tmp_path, LongMemEvalConfig(), np.random.default_rng(0))


def test_an_episode_is_the_history_and_its_question(tmp_path: Path) -> None:
    made = [record(f"q{number}", question=f"Where, {number}?") for number in range(4)]
    for number, own in enumerate(made):
        own["haystack_sessions"] = [turns(f"In {number}.", "Yes.", marked=0)]
    load(tmp_path, *made)
    config = WorkloadConfig(name="longmemeval", data_dir=str(tmp_path), embedder="hashing")
    tables = split_tables(load_workload(config), SplitConfig(), config)
    page, query = int(Event.MESSAGE), int(Event.QUERY)
    assert tables.test.event_kind[0].tolist() == [page, page, query]


def test_the_sample_files() -> None:
    if not os.environ.get("MEMRL_DATA"):
        pytest.skip("MEMRL_DATA names no folder with the data sets")
    workload = load_longmemeval(None, LongMemEvalConfig(), np.random.default_rng(0))
    assert len(workload.documents) == 21
    assert sum(document.queries[0].pays_evidence for document in workload.documents) == 20
    settings = LongMemEvalConfig(layout="s")
    whole = load_longmemeval(None, settings, np.random.default_rng(0)).documents[0]
    assert len(whole.pages) == 550
    assert len(whole.queries[0].needs) == 2


# ---------------------------------------------------------------------- scores


def test_scores_of_turns() -> None:
    ranking = [4, 0, 2, 1]
    assert turn_scores(ranking, {0, 2}, 1) == RetrievalScores(0.0, 0.0, 0.0)
    assert turn_scores(ranking, {0, 2}, 2) == RetrievalScores(1.0, 0.0, 1 / 2)
    # The second place counts 1, the third 1 / log2(3); the best order has both first: 1 + 1.
    scores = turn_scores(ranking, {0, 2}, 3)
    assert scores is not None
    assert (scores.recall_any, scores.recall_all) == (1.0, 1.0)
    assert scores.ndcg == pytest.approx((1 + 0.6309297535714575) / 2)
    assert turn_scores(ranking, (), 3) is None
    # A ranking that ends early misses what it does not hold: the best order of 2 places has 1 + 1.
    assert turn_scores([2], {0, 2}, 2) == RetrievalScores(1.0, 0.0, 1 / 2)


def test_scores_of_sessions() -> None:
    sessions = [0, 0, 1, 1, 2]
    ranking = [4, 3, 2, 1, 0]
    # Read: turn 4 of session 2; then turn 3 of session 1, whose evidence is 2; then that.
    assert session_scores(ranking, {2}, sessions, 1) == RetrievalScores(0.0, 0.0, 0.0)
    assert session_scores(ranking, {2}, sessions, 2) == RetrievalScores(0.0, 0.0, 0.0)
    scores = session_scores(ranking, {2}, sessions, 3)
    assert scores is not None
    assert (scores.recall_any, scores.recall_all) == (1.0, 1.0)
    assert scores.ndcg == pytest.approx(0.6309297535714575), "third place, of one that is right"
    # Two turns of evidence are one session: both are read before a third session is there.
    scores = session_scores([3, 2, 4, 0, 1], {2, 3, 0}, sessions, 2)
    assert scores is not None
    assert (scores.recall_any, scores.recall_all) == (1.0, 0.0)
    # Gain 1 + 1 of three places, whose best order has 1 + 1 + 1 / log2(3).
    assert scores.ndcg == pytest.approx(2 / 2.6309297535714575)
    assert session_scores(ranking, (), sessions, 3) is None


def test_sessions_of_a_ranking_that_ends_are_scored_against_all_evidence() -> None:
    # One of two sessions is found, and the ranking ends; the best order has 1 + 1.
    scores = session_scores([3], {3, 0}, [0, 0, 1, 1, 2], 4)
    assert scores == RetrievalScores(1.0, 0.0, 1 / 2)


def test_retrieval_is_scored_on_what_the_user_says(tmp_path: Path) -> None:
    # Pages: 0 user, 1 assistant (evidence), then session 1: 2 user, 3 assistant, 4 user (evidence).
    document = only(load(tmp_path, record()))
    scores = official_retrieval(document, [1, 0, 5, 4, 3, 2])
    assert scores["turn_recall_all@1"] == 0.0
    assert scores["turn_recall_all@3"] == 1.0, "the assistant's evidence is not asked for"
    assert scores["turn_ndcg@3"] == 1.0, "of the user's turns it is the second, which counts 1"
    assert scores["session_recall_any@3"] == 1.0
    assert scores["turn_recall_any@50"] == 1.0


def test_retrieval_by_type_leaves_out_what_is_not_defined(tmp_path: Path) -> None:
    told = {"haystack_sessions": [turns("Hm.", "An oboe.", marked=1)], "haystack_dates": []}
    records = (
        record("a"),
        record("b_abs"),
        record("c", question_type="single-session-assistant", **told),
    )
    rows = [
        ScoredAnswer(
            document.queries[0].category,
            document.cluster_id,
            official_retrieval(document, range(len(document.pages))),
        )
        for document in load(tmp_path, *records).documents
    ]
    by_type = summarize_scores(rows)["by_category"]
    scored = {name: own["measures"]["turn_ndcg@5"]["scored"] for name, own in by_type.items()}
    assert scored == {"abstention": 0, "single-session-assistant": 0, "single-session-user": 1}
