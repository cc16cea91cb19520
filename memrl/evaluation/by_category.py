"""One row a policy, one column a kind of question, where every episode asks questions of one kind.

Reward and operations are noted by episode, so there is no such table for conversations, whose
episodes mix kinds; their evidence recall by kind is in `evidence_recall_by_category`.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Any

from memrl.evaluation.play import EpisodeRecord

CELL = "reward / question, evidence recall, mean and most searches / question"
"""What stands in a cell of `table`; a query's own staging, SEARCH and NEXT are searches."""
CACHE_CELL = "hit ratio"
"""The same for page caches, whose requests are of one kind in an episode."""


def summarize_by_category(records: Sequence[EpisodeRecord]) -> dict[str, dict[str, float]]:
    """Numbers of one policy by category; empty where an episode mixes categories.

    Args:
        records: episodes with queries that pay evidence.

    Returns:
        By category: `episodes`, `reward_per_question`, `evidence_recall`,
        `searches_per_question`, and `most_searches_per_question` of an episode.
    """
    by_category: dict[str, list[EpisodeRecord]] = {}
    for record in records:
        if len(record.evidence_by_category) != 1:
            return {}
        by_category.setdefault(next(iter(record.evidence_by_category)), []).append(record)
    return {category: _numbers(own) for category, own in sorted(by_category.items())}


def _numbers(records: Sequence[EpisodeRecord]) -> dict[str, float]:
    questions = sum(record.num_scored for record in records)
    searches = [
        record.num_queries + record.operations["search"] + record.operations["next"]
        for record in records
    ]
    return {
        "episodes": len(records),
        "reward_per_question": sum(record.episode_return for record in records) / questions,
        "evidence_recall": sum(record.evidence for record in records) / questions,
        "searches_per_question": sum(searches) / questions,
        "most_searches_per_question": max(
            count / record.num_scored for count, record in zip(searches, records, strict=True)
        ),
    }


def table(results: Mapping[str, Any]) -> tuple[list[str], list[list[str]]]:
    """Columns and rows of text; both empty where episodes mix categories.

    Categories are columns; where there are more of them than policies, they are rows.
    """
    policies = [policy for policy in results["policies"] if policy["by_category"]]
    if not policies:
        return [], []
    categories = list(policies[0]["by_category"])
    write = _cell if cell(results) == CELL else _cache_cell
    names = [policy["name"] for policy in policies]
    cells = [[write(policy["by_category"][name]) for name in categories] for policy in policies]
    if len(categories) > len(names):
        return ["category", *names], [
            [category, *row]
            for category, row in zip(categories, zip(*cells, strict=True), strict=True)
        ]
    return ["policy", *categories], [[name, *row] for name, row in zip(names, cells, strict=True)]


def cell(results: Mapping[str, Any]) -> str:
    """What stands in a cell of these results."""
    return CACHE_CELL if results["played"]["workload"] == "page_cache" else CELL


def _cache_cell(numbers: Mapping[str, float]) -> str:
    return f"{numbers['evidence_recall']:.3f}"


def _cell(numbers: Mapping[str, float]) -> str:
    return (
        f"{numbers['reward_per_question']:.3f}, {numbers['evidence_recall']:.3f}, "
        f"{numbers['searches_per_question']:.2f} <={numbers['most_searches_per_question']:.0f}"
    )
