"""What a language model's rows add to the results: answers, their categories, budgets."""

from __future__ import annotations

from typing import Any

import pytest

from memrl.config import RunConfig, run_settings
from memrl.evaluation import model_tables
from memrl.evaluation.budgets import POINT, REFERENCE
from memrl.evaluation.entry import Entry
from memrl.evaluation.play import EpisodeRecord
from memrl.evaluation.summary import summarize
from memrl.reader_config import ReaderConfig

SETTINGS = run_settings(RunConfig())


def record(document: str, episode: int) -> EpisodeRecord:
    """Four questions, half of their evidence, 40 tokens read."""
    return EpisodeRecord(
        episode=episode,
        document=document,
        num_queries=4,
        num_scored=4,
        evidence=2.0,
        reward_terms={"evidence": 2.0},
        operations={"yield": 4, "store": 0, "retrieve": 0, "next": 0, "evict": 0, "search": 0},
        illegal=0,
        decisions=4,
        events=20,
        tokens_retrieved=0,
        tokens_read=40,
        decision_s=0.0,
        funnel={"absent": 0.0, "stored": 0.0, "staged": 0.0, "retrieved": 0.0},
    )


def answered(name: str, scores: dict[str, list[float]], **settings: Any) -> Entry:
    """Two episodes each of six documents; each has these [summed score, number] by measure."""
    records = [record(f"doc{number % 6}", number) for number in range(12)]
    for number, own in enumerate(records):
        own.answer_scores = scores
        own.answer_scores_by_category = {("odd" if number % 2 else "even"): scores}
    return Entry(name, False, {}, [settings], records, [0] * len(records))


def reference(name: str, budget: int | None, **settings: Any) -> Entry:
    told = {REFERENCE: name, "reader": {"budget_tokens": budget}}
    return answered(f"{name} {budget}", {"f1": [1.0, 2.0]}, **told, **settings)


def tables_of(*entries: Entry) -> dict[str, tuple[list[str], list[list[str]]]]:
    results = summarize(entries, [], SETTINGS)
    return {title: (heads, rows) for title, heads, rows in model_tables.tables(results)}


def test_answers_of_reader_and_player_are_rows_of_their_own() -> None:
    scores = {"f1": [1.0, 4.0], "said/f1": [3.0, 4.0], "evidence_recall": [0.0, 4.0]}
    tables = tables_of(answered("x", scores), answered("y", {"f1": [1.0, 2.0], "em": [0.0, 2.0]}))
    heads, rows = tables["scores of answers, mean and 95 % interval"]
    assert heads == ["policy", "answered by", "f1", "em"]
    assert rows == [
        ["x", "the reader", "0.250 (0.250..0.250)", "-"],
        ["x", "the player", "0.750 (0.750..0.750)", "-"],
        ["y", "the reader", "0.500 (0.500..0.500)", "0.000 (0.000..0.000)"],
    ]
    heads, rows = tables["scores of answers by category"]
    assert heads == ["policy", "answered by", "even: f1", "odd: f1", "even: em", "odd: em"]
    assert rows[1] == ["x", "the player", "0.750", "0.750", "-", "-"]


def test_categories_are_means_over_questions() -> None:
    made = answered("x", {"f1": [1.0, 1.0]})
    made.records[0].answer_scores_by_category = {"even": {"f1": [0.0, 15.0]}}
    (policy,) = summarize([made], [], SETTINGS)["policies"]
    assert policy["answers_by_category"]["even"]["f1"] == {"mean": 5 / 20, "scored": 20}


def test_points_of_a_curve_are_no_rows_and_compared_with_nobody() -> None:
    entries = [
        answered("x", {}),
        reference("rag_top_k", None),
        reference("no_memory", None),
        reference("rag_top_k", 200, **{POINT: True}),
        reference("rag_top_k", 50, **{POINT: True}),
        reference("full_context_newest", 50, **{POINT: True}),
    ]
    results = summarize(entries, ["x"], SETTINGS)
    assert [row["name"] for row in results["policies"]] == ["x", "rag_top_k None", "no_memory None"]
    assert {pair["policy"] for pair in results["paired"]} == {"rag_top_k None", "no_memory None"}
    assert [(point["reference"], point["budget_tokens"]) for point in results["by_budget"]] == [
        ("full_context_newest", 50),
        ("rag_top_k", 50),
        ("rag_top_k", 200),
        ("rag_top_k", None),
    ]
    _, rows = tables_of(*entries)["accuracy against token budget, without paging"]
    assert rows[-1] == [
        *("rag top k", "window", "10", "0.500 (0.500..0.500)", "0.500 (0.500..0.500)"),
    ]


def test_without_a_model_there_is_nothing_to_show() -> None:
    results = summarize([answered("x", {}), reference("rag_top_k", 50)], [], SETTINGS)
    assert results["by_budget"] == [], "one budget is no curve"
    assert all(not rows for _, rows in tables_of(answered("x", {})).values())


@pytest.mark.parametrize(
    ("settings", "message"),
    [
        ({"top_k": 0}, "top_k"),
        ({"max_reply_tokens": 0}, "max_reply_tokens"),
        ({"budget_tokens": 0}, "budget_tokens"),
        ({"reads": ("learned", "learned")}, "reads must be different"),
        ({"reads": ("rag_top_k",), "budgets": (5, 5)}, "budgets must be different"),
        ({"reads": ("rag_top_k",), "budgets": (0,)}, "budgets must be at least 1"),
        ({"reads": ("learned", "no_memory"), "budgets": (5,)}, "references that read"),
    ],
)
def test_a_reader_that_cannot_be_is_refused(settings: dict[str, Any], message: str) -> None:
    with pytest.raises(ValueError, match=message):
        ReaderConfig(**settings)
