"""Scores of answers by category: means over questions, and what they rest on."""

from __future__ import annotations

import json
from typing import Any

import pytest
from scipy import stats

from memrl.evaluation.answer_scores import (
    ALL,
    COLUMNS,
    ScoredAnswer,
    score_table,
    summarize_scores,
)
from memrl.run_files import strict_json


def answer(category: str, cluster: str, f1: float | None, **further: float | None) -> ScoredAnswer:
    return ScoredAnswer(category, cluster, {"f1": f1, **further})


# Two conversations: "a" with three questions, "b" with one; one answer has no gold.
FEW = [
    answer("multi_hop", "a", 0.5),
    answer("multi_hop", "b", 1.0),
    answer("temporal", "a", 0.0),
    answer("temporal", "a", None),
]


def measure(summary: dict[str, Any], category: str, name: str = "f1") -> dict[str, Any]:
    own: dict[str, Any] = summary["by_category"][category]["measures"][name]
    return own


def test_means_are_over_questions_and_over_clusters() -> None:
    summary = summarize_scores(FEW)
    assert list(summary["by_category"]) == ["multi_hop", "temporal"]
    everything = summary["all"]["measures"]["f1"]
    assert summary["all"]["answers"] == 4
    assert everything["scored"] == 3
    assert everything["mean"] == 0.5
    assert everything["clusters"]["cluster_values"] == {"a": 0.25, "b": 1.0}
    assert everything["clusters"]["estimate"] == 0.625
    assert everything["clusters"]["interval"] is None, "two clusters are too few"
    assert (measure(summary, "temporal")["scored"], measure(summary, "temporal")["mean"]) == (1, 0)
    assert summary["by_category"]["temporal"]["answers"] == 2
    assert json.loads(strict_json(summary)) == summary


def test_intervals_are_over_clusters() -> None:
    means = [0.1, 0.2, 0.3, 0.4, 0.5, 0.6]
    answers = [answer("x", str(n), own) for n, own in enumerate(means) for _ in range(10 * n + 1)]
    clusters = measure(summarize_scores(answers), "x")["clusters"]
    low, high = stats.t.interval(0.95, 5, loc=0.35, scale=stats.sem(means))
    assert clusters["interval"]["low"] == pytest.approx(low)
    assert clusters["interval"]["high"] == pytest.approx(high)
    assert clusters["interval"]["num_clusters"] == 6


def test_a_measure_that_is_never_defined_has_no_mean() -> None:
    summary = summarize_scores([answer("x", "a", None), answer("y", "a", 1.0, em=None)])
    assert measure(summary, "x") == {"scored": 0, "mean": None, "clusters": None}
    assert measure(summary, "y", "em")["scored"] == 0
    assert "em" not in summary["by_category"]["x"]["measures"]
    assert summarize_scores([]) == {"all": {"answers": 0, "measures": {}}, "by_category": {}}


def test_the_table_shows_what_is_scored() -> None:
    columns, rows = score_table(summarize_scores(FEW))
    assert columns == list(COLUMNS)
    assert rows == [
        [ALL, "f1", "0.500", "3 of 4", "0.625", "a 0.250, b 1.000"],
        ["multi_hop", "f1", "0.750", "2", "0.750", "a 0.500, b 1.000"],
        ["temporal", "f1", "0.000", "1 of 2", "0.000", "a 0.000"],
    ]
    _, rows = score_table(summarize_scores([answer("x", "a", None)]))
    assert rows[1] == ["x", "f1", "-", "0 of 1", "-", "-"]
    many = [answer("x", str(number), number % 2) for number in range(6)]
    _, rows = score_table(summarize_scores(many))
    # Student's t of six values 0, 1, ...: .5 -+ 2.5706 * .5477 / sqrt(6).
    assert rows[1] == ["x", "f1", "0.500", "6", "0.500", "-0.075..1.075"]
