from __future__ import annotations

from typing import Any

import pytest

from memrl.evaluation import by_category
from memrl.evaluation.by_category import summarize_by_category
from memrl.evaluation.play import EpisodeRecord


def record(
    category: str, *, evidence: float, search: int, turns: int = 0, scored: int = 1
) -> EpisodeRecord:
    """An episode of two questions of one category; a search costs .125."""
    operations = {"yield": 1, "store": 2, "retrieve": 3, "next": turns, "evict": 1}
    return EpisodeRecord(
        episode=0,
        document="d",
        num_queries=2,
        num_scored=scored,
        evidence=evidence,
        reward_terms={"evidence": evidence, "cost/search": -0.125 * search},
        operations=operations | {"search": search},
        illegal=0,
        decisions=9,
        events=2,
        tokens_retrieved=0,
        tokens_read=0,
        decision_s=0.0,
        funnel={},
        evidence_by_category={category: [evidence, float(scored)]},
    )


def test_numbers_by_category() -> None:
    records = [
        record("two", evidence=1.0, search=4, scored=2),
        record("one", evidence=1.0, search=2),
        record("one", evidence=0.0, search=1, turns=4),
    ]
    assert summarize_by_category(records) == {
        "one": {
            "episodes": 2,
            "reward_per_question": (1 - 0.25 - 0.125) / 2,
            "evidence_recall": 0.5,
            "searches_per_question": (4 + 7) / 2,
            "most_searches_per_question": 7,
        },
        "two": {
            "episodes": 1,
            "reward_per_question": 0.25,
            "evidence_recall": 0.5,
            "searches_per_question": 3,
            "most_searches_per_question": 3,
        },
    }
    assert list(summarize_by_category(records)) == ["one", "two"]


@pytest.mark.parametrize("categories", [{}, {"one": [1.0, 1.0], "two": [0.0, 1.0]}])
def test_episodes_that_mix_categories_have_no_such_numbers(categories: Any) -> None:
    mixed = record("one", evidence=1.0, search=2)
    mixed.evidence_by_category = categories
    assert summarize_by_category([record("one", evidence=1.0, search=2), mixed]) == {}
    assert summarize_by_category([]) == {}


def test_the_longer_axis_of_the_table_goes_down() -> None:
    numbers = summarize_by_category(
        [record("two", evidence=1.0, search=4), record("one", evidence=0.5, search=2)]
    )
    policies = [{"name": name, "by_category": numbers} for name in "xyz"]
    cells = ["0.250, 0.500, 4.00 <=4", "0.500, 1.000, 6.00 <=6"]
    played = {"workload": "nested_kv"}
    assert by_category.table({"policies": policies[:2], "played": played}) == (
        ["policy", "one", "two"],
        [["x", *cells], ["y", *cells]],
    )
    # More categories than policies: they are rows.
    assert by_category.table({"policies": policies[:1], "played": played}) == (
        ["category", "x"],
        [["one", cells[0]], ["two", cells[1]]],
    )
    results: dict[str, Any] = {"policies": policies[:2], "played": {"workload": "page_cache"}}
    ratios = by_category.table(results)[1]
    assert ratios == [[name, "0.500", "1.000"] for name in "xy"], "the hit ratio alone"
    results["policies"] = [{"name": "x", "by_category": {}}]
    assert by_category.table(results) == ([], [])
