"""Each workload's measures by its name, against cases worked out by hand."""

from __future__ import annotations

import re
import uuid
from pathlib import Path
from typing import get_args, get_type_hints

import pytest

from envs.workloads import official
from envs.workloads.locomo import load_locomo
from envs.workloads.official import UNOFFICIAL, official_question, official_scores, posed_question
from memrl.document_config import DocumentQaConfig
from memrl.documents import Query

FIXTURES = Path(__file__).resolve().parents[2] / "fixtures"


def query(*answers: str, category: str = "", needs: tuple[int, ...] = (0, 2)) -> Query:
    return Query("Where?", needs, category=category, answers=answers)


@pytest.mark.parametrize(
    ("category", "answers", "prediction", "f1"),
    [
        # Gold parts "oslo" and "the red boat": 1 and 2 * 1 / (1 + 2).
        ("multi_hop", ("Oslo, the red boat",), "boat, Oslo", (1 + 2 / 3) / 2),
        ("single_hop", ("Oslo, the red boat",), "boat, Oslo", 2 * 2 / (2 + 3)),
        ("temporal", ("7 May 2023",), "in May 2023", 2 * 2 / (3 + 3)),
        ("open_domain", ("Yes; she sails",), "yes", 1.0),
        ("single_hop", ("Yes; she sails",), "yes", 2 * 1 / (1 + 3)),
        ("adversarial", (), "That is not mentioned.", 1.0),
        ("adversarial", (), "Oslo", 0.0),
        ("single_hop", (), "Oslo", None),
    ],
)
def test_locomo(category: str, answers: tuple[str, ...], prediction: str, f1: float | None) -> None:
    scores = official_scores("locomo", query(*answers, category=category), prediction)
    assert scores == {"f1": None if f1 is None else pytest.approx(f1)}


def test_locomo_with_the_pages_that_were_read() -> None:
    asked = query("Oslo", category="single_hop")
    assert official_scores("locomo", asked, "Oslo", support=[2, 7]) == {
        "f1": 1.0,
        "evidence_recall": 0.5,
    }
    nothing = query("Oslo", category="single_hop", needs=())
    assert official_scores("locomo", nothing, "", support=[2])["evidence_recall"] is None


def test_locomo_asks_for_dates_in_its_own_way() -> None:
    temporal = query("May", category="temporal")
    assert official_question("locomo", temporal).startswith("Where? Use DATE of CONVERSATION")
    assert official_question("chat", temporal) == "Where?"


def test_a_bare_key_is_asked_for_in_words() -> None:
    key = str(uuid.UUID(int=2**128 - 1))
    asked = posed_question("nested_kv", key)
    assert asked == f"What is the value of {key}? If it is a key too, go on to its value."
    assert official_question("nested_kv", query("x", category="level 0")) == posed_question(
        "nested_kv", "Where?"
    )
    assert posed_question("locomo", "Where?") == "Where?"


def test_a_wrong_gold_answer_is_masked_only_if_asked_for() -> None:
    scored = {}
    for masks in (False, True):
        documents = load_locomo(FIXTURES, mask_wrong_answers=masks).documents
        scored[masks] = {
            own.source_id: official_scores("locomo", own, "Oslo")["f1"]
            for document in documents
            for own in document.queries
        }
    masked = {name for name, f1 in scored[True].items() if f1 != scored[False][name]}
    assert masked
    assert all(scored[True][name] is None for name in masked)
    assert all(scored[False][name] is not None for name in masked)


def test_question_answering_over_documents() -> None:
    # "red boat in oslo" against "boat": 1 of 4 given, 1 of 1 right.
    asked = query("A boat", "ship")
    for workload in ("hotpotqa", "2wiki", "musique", "generated", "chat"):
        scores = official_scores(workload, asked, "The red boat in Oslo")
        assert scores == {"em": 0.0, "f1": pytest.approx(2 * 0.25 / 1.25)}
        assert official_scores(workload, query(), "boat") == {"em": None, "f1": None}
    assert official_scores("nq", asked, "The red boat.\nOslo") == {"best_subspan_em": 1.0}
    assert official_scores("nq", asked, "Oslo\nA boat") == {"best_subspan_em": 0.0}
    assert official_scores("babi", query("boat,oar"), "Boat, oar") == {"em": 1.0}


@pytest.mark.parametrize("workload", ["hotpotqa", "2wiki", "musique"])
def test_support_is_scored_where_it_is_known(workload: str) -> None:
    # Answer: precision 1/2, recall 1. Support, 1 and 2 for 0 and 2: precision and recall 1/2.
    scores = official_scores(workload, query("boat"), "red boat", support={1, 2})
    support_f1 = "support_f1" if workload == "musique" else "unofficial_support_f1"
    precision, recall = 1 / 4, 1 / 2
    assert scores == {
        "em": 0.0,
        "f1": pytest.approx(2 / 3),
        "unofficial_support_em": 0.0,
        support_f1: 0.5,
        "unofficial_joint_em": 0.0,
        "unofficial_joint_f1": pytest.approx(2 * precision * recall / (precision + recall)),
    }
    whole = official_scores(workload, query("boat"), "Boat", support=[2, 0])
    assert set(whole.values()) == {1.0}
    nothing_read = official_scores(workload, query("boat"), "Boat", support=[])
    assert (nothing_read["em"], nothing_read[support_f1]) == (1.0, 0.0)
    without_answer = official_scores(workload, query(), "boat", support=[0, 2])
    assert without_answer[support_f1] == 1.0
    assert without_answer["unofficial_joint_f1"] is None
    without_needs = official_scores(workload, query("boat", needs=()), "boat", support=[0])
    assert without_needs["f1"] == 1.0
    assert without_needs[support_f1] is without_needs["unofficial_support_em"] is None
    assert without_needs["unofficial_joint_em"] is None


def test_support_changes_nothing_where_no_measure_takes_it() -> None:
    for workload in ("nq", "babi", "nested_kv", "longmemeval"):
        with_support = official_scores(workload, query("a1"), "a1", support=[0])
        assert with_support == official_scores(workload, query("a1"), "a1")


def test_nested_kv_takes_the_value_and_nothing_else() -> None:
    asked = query("ab-12")
    contained = f"{UNOFFICIAL}contained_value"
    assert official_scores("nested_kv", asked, " ab-12\n") == {"exact_value": 1.0, contained: 1.0}
    assert official_scores("nested_kv", asked, "It is AB-12.") == {
        "exact_value": 0.0,
        contained: 1.0,
    }
    assert official_scores("nested_kv", query(), "ab-12") == {
        "exact_value": None,
        contained: None,
    }


def test_longmemeval_has_no_official_measure_of_text() -> None:
    asked = query("45 minutes", category="single-session-user")
    scores = official_scores("longmemeval", asked, "It took 45 minutes each way")
    # 2 of 6 given words ("it took 45 minutes each way"), 2 of 2 right ones.
    assert scores == {
        "unofficial_contains": 1.0,
        "unofficial_token_f1": pytest.approx(2 * (2 / 6) / (2 / 6 + 1)),
    }
    assert all(name.startswith(UNOFFICIAL) for name in scores)
    assert official_scores("longmemeval", asked, "145 minutes")["unofficial_contains"] == 0.0
    nothing = official_scores("longmemeval", query(category="abstention"), "I do not know")
    assert nothing == {"unofficial_contains": None, "unofficial_token_f1": None}


def test_a_workload_without_a_measure_is_refused() -> None:
    with pytest.raises(ValueError, match=r"workload 'page_cache', only for locomo, .*, babi"):
        official_scores("page_cache", query("x"), "x")


def test_the_table_names_every_data_set_and_its_measures() -> None:
    text = official.__doc__ or ""
    rows = re.findall(r"^\| ([a-z0-9_, ]+) \| (.*?) \|", text, flags=re.MULTILINE)
    measures = {name: cell for names, cell in rows for name in names.split(", ")}
    datasets = get_args(get_type_hints(DocumentQaConfig)["dataset"])
    for name in (*datasets, "locomo", "longmemeval", "nested_kv", "babi", "chat"):
        asked = query("x", category="single_hop")
        for measure in official_scores(name, asked, "x"):
            assert f"`{measure}`" in measures[name], (name, measure)
