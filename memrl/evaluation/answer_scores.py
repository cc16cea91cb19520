"""Scores of a reader's answers by category: means over questions, intervals over clusters.

A benchmark's number is the mean over all its questions. What is certain of it rests on documents,
not on questions (`memrl.evaluation.stats`), so that both are given. The measures belong to the
workloads (`envs.workloads.official`); programs hand the scores in.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import asdict, dataclass
from typing import Any, Protocol

from memrl.documents import Query
from memrl.evaluation import stats

ALL = "all"
"""First row of `score_table`: questions of all categories."""
COLUMNS = (
    "category",
    "measure",
    "mean",
    "answers",
    "mean of clusters",
    "95 % interval, or clusters",
)


class ScoreAnswer(Protocol):
    """Scores an answer by the workload's own measures; programs hand it in."""

    def __call__(
        self, workload: str, query: Query, prediction: str, *, support: Sequence[int] | None = None
    ) -> Mapping[str, float | None]:
        """Scores in [0, 1] by measure, None where one is not defined for the question.

        Args:
            workload: its name. query: the question. prediction: what was answered.
            support: pages that were read, numbered as `query.needs` is; None for unknown ones.
        """
        ...


@dataclass(frozen=True, slots=True)
class ScoredAnswer:
    """What a reader's answer to one question was worth.

    Attributes:
        category: of the question. cluster: unit of statistics (`Document.cluster_id`).
        scores: by measure; None where one is not defined for the question.
    """

    category: str
    cluster: str
    scores: Mapping[str, float | None]


def summarize_scores(answers: Sequence[ScoredAnswer]) -> dict[str, Any]:
    """Summarise the answers of one reader, whatever number of runs they come from.

    Args:
        answers: scored by the same measures.

    Returns:
        JSON-able: `all` and, in `by_category`, each category by name, with `answers` (how many) and
        `measures`; there by name `scored` (answers of which it is defined), `mean` over these, and
        `clusters`, see `stats.ClusterSummary`. The last two are None where it is never defined.
    """
    by_category: dict[str, list[ScoredAnswer]] = {}
    for answer in answers:
        by_category.setdefault(answer.category, []).append(answer)
    return {
        "all": _summary(answers),
        "by_category": {name: _summary(own) for name, own in sorted(by_category.items())},
    }


def _summary(answers: Sequence[ScoredAnswer]) -> dict[str, Any]:
    names = dict.fromkeys(name for answer in answers for name in answer.scores)
    return {"answers": len(answers), "measures": {name: _measure(name, answers) for name in names}}


def _measure(name: str, answers: Sequence[ScoredAnswer]) -> dict[str, Any]:
    rows = [
        (score, answer.cluster)
        for answer in answers
        if (score := answer.scores.get(name)) is not None
    ]
    if not rows:
        return {"scored": 0, "mean": None, "clusters": None}
    values, clusters = zip(*rows, strict=True)
    return {
        "scored": len(rows),
        "mean": stats.mean(values),
        "clusters": asdict(stats.summarize_clusters(values, clusters)),
    }


def score_table(summary: Mapping[str, Any]) -> tuple[list[str], list[list[str]]]:
    """Columns and rows of text of what `summarize_scores` gives, a row for category and measure.

    Where clusters are too few for an interval, the value of each stands in its place.
    """
    rows = [
        [category, measure, *_cells(numbers, own["answers"])]
        for category, own in ((ALL, summary["all"]), *summary["by_category"].items())
        for measure, numbers in own["measures"].items()
    ]
    return list(COLUMNS), rows


def _cells(numbers: Mapping[str, Any], num_answers: int) -> list[str]:
    scored, clusters = numbers["scored"], numbers["clusters"]
    counted = str(scored) if scored == num_answers else f"{scored} of {num_answers}"
    if clusters is None:
        return ["-", counted, "-", "-"]
    interval = clusters["interval"]
    certain = ", ".join(f"{name} {own:.3f}" for name, own in clusters["cluster_values"].items())
    if interval is not None:
        certain = f"{interval['low']:.3f}..{interval['high']:.3f}"
    return [f"{numbers['mean']:.3f}", counted, f"{clusters['estimate']:.3f}", certain]
