"""Accuracy against token budget: references of further budgets are points of a curve, no rows."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Any

REFERENCE = "reference"
"""Key of which reference an entry is, among its settings."""
BUDGET = "budget_tokens"
"""Key of the most tokens that it read for a question, None for the model's window."""
POINT = "budget_point"
"""Key, among the settings, of an entry that is a point of a curve and no row of the table."""


def is_point(settings: Sequence[Mapping[str, Any]]) -> bool:
    """Whether an entry with these settings, one a run, is a point."""
    return POINT in settings[0]


def by_budget(summaries: Sequence[Mapping[str, Any]]) -> list[dict[str, Any]]:
    """The curve of every reference.

    Args:
        summaries: numbers of all entries, see `memrl.evaluation.summary`; rows of the table that
            are references are points as well.

    Returns:
        By reference, then by budget (None, the model's window, last): `reference`,
        `budget_tokens`, `tokens_read_per_question`, `evidence_recall` and `answers`; empty unless a
        further budget was read.
    """
    references = [own for own in summaries if REFERENCE in own["settings"][0]]
    if not any(is_point(own["settings"]) for own in references):
        return []
    points: dict[tuple[str, float], dict[str, Any]] = {}
    for own in references:
        first = own["settings"][0]
        reference, budget = first[REFERENCE], first[BUDGET]
        order = float("inf") if budget is None else budget
        if reference != "no_memory":
            points[reference, order] = {
                REFERENCE: reference,
                BUDGET: budget,
                **{name: own[name] for name in ("tokens_read_per_question", "evidence_recall")},
                "answers": own["answers"],
            }
    return [points[key] for key in sorted(points)]
