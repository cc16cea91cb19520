"""Files of answers: read, scored by the measures of their workload, reported by category."""

from __future__ import annotations

import json
from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest
import yaml
from tiny_runs import ROOT, called

from envs.workloads.citations import cited_scores
from envs.workloads.official import official_scores
from memrl.documents import Citations, Document, Page, Query, Workload
from memrl.evaluation import __main__ as program
from memrl.evaluation.answer_scores import ScoredAnswer
from memrl.evaluation.predictions import (
    Prediction,
    PredictionError,
    read_predictions,
    score_predictions,
)

PAGES = (Page("one", source_id="p1"), Page("two", source_id="p2"), Page("three", source_id="p2"))
WORKLOAD = Workload(
    "hotpotqa",
    (
        Document("d1", PAGES, (Query("?", (0, 1), "bridge", ("oslo",), source_id="q1"),)),
        Document("d2", PAGES[:1], (Query("?", (0,), "yes", (), source_id="q2"),), cluster="d1"),
    ),
)


def written(folder: Path, *lines: object) -> Path:
    path = folder / "said.jsonl"
    path.write_text("".join(f"{json.dumps(line)}\n\n" for line in lines))
    return path


def test_answers_are_read_line_by_line(tmp_path: Path) -> None:
    path = written(
        tmp_path,
        {"query_id": "q1", "answer": "Oslo", "page_ids": ["p1"], "seconds": 3},
        {"query_id": "q2", "answer": ""},
        {"query_id": "q2", "answer": "x", "page_ids": []},
    )
    assert read_predictions(path) == [
        Prediction("q1", "Oslo", ("p1",)),
        Prediction("q2", ""),
        Prediction("q2", "x", ()),
    ]


@pytest.mark.parametrize(
    "line",
    [
        "nonsense",
        {"query_id": "q1"},
        {"query_id": 1, "answer": "x"},
        {"query_id": "q1", "answer": None},
        {"query_id": "q1", "answer": "x", "page_ids": "p1"},
        {"query_id": "q1", "answer": "x", "page_ids": [1]},
        {"query_id": "q1", "answer": "x", "page_ids": 1},
        {"query_id": "q1", "answer": "x", "ranking": [["p1"]]},
        {"query_id": "q1", "answer": "x", "facts": ["one", 0]},
        {"query_id": "q1", "answer": "x", "facts": [["one", "0"]]},
        {"query_id": "q1", "answer": "x", "facts": [["one", True]]},
        {"query_id": "q1", "answer": "x", "triples": [["a", "b"]]},
    ],
)
def test_a_line_that_is_no_answer_is_named(tmp_path: Path, line: Any) -> None:
    path = written(tmp_path, {"query_id": "q1", "answer": "Oslo"}, line)
    with pytest.raises(PredictionError, match=r"Line 3 of .*said.jsonl is no answer"):
        read_predictions(path)


def test_an_answer_may_hold_marks_that_end_lines_elsewhere(tmp_path: Path) -> None:
    path = tmp_path / "said.jsonl"
    line = json.dumps({"query_id": "q1", "answer": "a\u2028b"}, ensure_ascii=False)
    path.write_text(line, encoding="utf-8")
    assert read_predictions(path) == [Prediction("q1", "a\u2028b")]


def test_a_file_that_holds_no_answer_is_refused(tmp_path: Path) -> None:
    with pytest.raises(PredictionError, match="cannot be read"):
        read_predictions(tmp_path / "gone.jsonl")
    (tmp_path / "binary").write_bytes(b"\xff\n")
    with pytest.raises(PredictionError, match=r"Line 1 of .*binary is no answer"):
        read_predictions(tmp_path / "binary")
    with pytest.raises(PredictionError, match="holds no answer"):
        read_predictions(written(tmp_path))
    (tmp_path / "said.jsonl").write_text("{")
    with pytest.raises(PredictionError, match="Line 1"):
        read_predictions(tmp_path / "said.jsonl")


def test_answers_are_scored_with_the_pages_that_they_cite() -> None:
    said = [Prediction("q1", "Oslo", ("p1", "p2")), Prediction("q2", "no"), Prediction("q1", "")]
    first, second, third = score_predictions(said, WORKLOAD, official_scores, cited_scores)
    assert set(first.scores.values()) == {1.0}
    assert len(first.scores) == 6
    assert second == ScoredAnswer("yes", "d1", {"em": None, "f1": None})
    assert third == ScoredAnswer("bridge", "d1", {"em": 0.0, "f1": 0.0})


def test_answers_to_another_workload_are_refused() -> None:
    with pytest.raises(PredictionError, match="hotpotqa has no question with the id 'q9'"):
        score_predictions([Prediction("q9", "x")], WORKLOAD, official_scores, cited_scores)
    with pytest.raises(PredictionError, match="The answer to 'q2' cites 'p2'"):
        score_predictions(
            [Prediction("q2", "x", ("p1", "p2"))], WORKLOAD, official_scores, cited_scores
        )


CITATIONS = Citations(
    frozenset({("One", 0), ("Two", 3)}),
    (frozenset({("a", "in", "b")}), frozenset({("b", "of", "c")})),
)


def test_sentences_and_triples_are_scored_where_they_are_cited(tmp_path: Path) -> None:
    line = {"query_id": "q1", "answer": "red Oslo", "facts": [["one", 0], ["One", 1]]}
    path = written(tmp_path, {**line, "triples": [["A", "in", "b"]]}, line)
    said = read_predictions(path)
    assert said[0].facts == (("one", 0), ("One", 1))
    assert said[0].triples == (("A", "in", "b"),)
    workload = replace(WORKLOAD, name="2wiki", citations={"q1": CITATIONS})
    both, facts = score_predictions(said, workload, official_scores, cited_scores)
    # Precision and recall of the answer 1/2, 1; of facts, in any case, 1/2, 1/2; of triples 1, 1/2.
    precision, recall = 1 / 4, 1 / 4
    assert both.scores == {
        "em": 0.0,
        "f1": pytest.approx(2 / 3),
        "support_em": 0.0,
        "support_f1": 0.5,
        "evidence_em": 0.0,
        "evidence_f1": pytest.approx(2 / 3),
        "joint_em": 0.0,
        "joint_f1": pytest.approx(2 * precision * recall / (precision + recall)),
    }
    assert list(facts.scores) == ["em", "f1", "support_em", "support_f1"]
    hotpot = replace(WORKLOAD, citations={"q1": CITATIONS})
    [scored] = score_predictions([said[1]], hotpot, official_scores, cited_scores)
    assert scored.scores["support_f1"] == 0.0, "HotpotQA's script minds the case"
    assert scored.scores["joint_f1"] == 0.0
    [unknown] = score_predictions([said[1]], WORKLOAD, official_scores, cited_scores)
    assert unknown.scores["support_f1"] is unknown.scores["joint_f1"] is None


def test_a_ranking_is_scored_as_the_benchmark_does() -> None:
    pages = tuple(Page("x", role=0, session=n, source_id=f"p{n}") for n in range(3))
    document = Document("d", pages, (Query("?", (1,), "c", ("a",), source_id="q"),))
    workload = Workload("longmemeval", (document,))
    said = Prediction("q", "a", ranking=("p2", "p1", "p0"))
    [scored] = score_predictions([said], workload, official_scores, cited_scores)
    assert scored.scores["turn_recall_any@1"] == 0.0
    assert scored.scores["turn_recall_all@3"] == 1.0
    assert scored.scores["session_recall_any@3"] == 1.0
    twice = Prediction("q", "a", ranking=("p2", "p2"))
    with pytest.raises(PredictionError, match="ranking of 'q' has a page twice"):
        score_predictions([twice], workload, official_scores, cited_scores)


def test_what_no_benchmark_measures_is_refused() -> None:
    said = Prediction("q1", "x", triples=())
    with pytest.raises(ValueError, match=r"hotpotqa has no measure of triples.*are facts"):
        score_predictions([said], WORKLOAD, official_scores, cited_scores)
    nq = replace(WORKLOAD, name="nq")
    with pytest.raises(ValueError, match=r"nq has no measure of ranking.*are none"):
        score_predictions([Prediction("q1", "x", ranking=())], nq, official_scores, cited_scores)


# ---------------------------------------------------------------------- the program


@pytest.fixture
def locomo(tmp_path: Path) -> Path:
    """A preset of the made-up conversations, and answers to some of their questions."""
    preset = tmp_path / "preset.yaml"
    workload = {"name": "locomo", "data_dir": str(ROOT / "tests" / "fixtures")}
    preset.write_text(yaml.safe_dump({"workload": {**workload, "window_pages": 100}}))
    said = [
        {"query_id": f"made-up-1/qa/{number}", "answer": "not mentioned"} for number in range(4)
    ]
    return written(tmp_path, *said)


def scored(locomo: Path, *arguments: str) -> tuple[str, dict[str, Any]]:
    preset, out = locomo.with_name("preset.yaml"), locomo.with_name("out")
    outcome = called(
        *(program.main, "memrl.evaluation", "answers", str(locomo), "--config", str(preset)),
        *("--out", str(out), *arguments),
    )
    assert outcome.code == 0, outcome.err
    return outcome.out, json.loads((out / "answer_scores.json").read_text())


def test_the_program_scores_a_file_by_category(locomo: Path) -> None:
    out, record = scored(locomo)
    assert "said.jsonl: 4 answers to 4 of" in out
    assert record["data"]["workload"] == "locomo"
    assert record["scores"]["all"]["answers"] == 4
    assert len(record["answers_sha256"]) == 64
    assert "2 of 4" in out
    _, unmasked = scored(locomo, "--workload.mask_wrong_answers", "false")
    scores = [own["scores"]["all"]["measures"]["f1"]["scored"] for own in (record, unmasked)]
    assert scores == [2, 4], "two of the four gold answers are masked as wrong"


def test_the_program_names_what_is_wrong(locomo: Path, tmp_path: Path) -> None:
    preset = locomo.with_name("preset.yaml")
    written(tmp_path, {"query_id": "made-up-9/qa/0", "answer": "x"})
    arguments = ("answers", str(locomo), "--config", str(preset))
    outcome = called(program.main, "memrl.evaluation", *arguments)
    assert outcome.code == 1
    assert "no question with the id 'made-up-9/qa/0'" in outcome.error
