"""What is gained at which price: policies learned and scored under several weights of the costs.

A run at `scale` has every cost of operations and tokens that many times as high. Rewards of such
runs cannot be compared; evidence recall and what it took can, and their Pareto front is what a
reader chooses from.
"""

from __future__ import annotations

from collections.abc import Sequence

from memrl.evaluation import stats
from memrl.evaluation.entry import Entry
from memrl.evaluation.lineup import FLOORS
from memrl.evaluation.report.fronts import pareto_front
from memrl.evaluation.verdict import best_heuristic

COLUMNS = (
    "cost scale",
    "policy",
    "recall",
    "95 % interval",
    "ops / q",
    "tokens read / q",
    "on the front",
)


def front_rows(runs: Sequence[tuple[float, Sequence[Entry]]]) -> list[list[str]]:
    """Learned policies, the best heuristic and YIELD alone at each scale, in text, for `COLUMNS`.

    The front is that of evidence recall against operations per question over all rows; both are
    means over documents, and the interval is that of recall (see `stats.summarize_clusters`).

    Args:
        runs: scale and what was played under it; empty for no rows.
    """
    rows: list[list[str]] = []
    points: list[tuple[float, float]] = []
    for scale, entries in runs:
        best = best_heuristic(entries)
        shown = [entry for entry in entries if entry.kind == "learned" or entry.name in FLOORS]
        for entry in [*([best] if best else []), *shown]:
            records = [record for record in entry.records if record.num_scored]
            documents = [record.document for record in records]
            recall = stats.summarize_clusters(
                [record.evidence / record.num_scored for record in records], documents
            )
            operations, tokens = (
                stats.summarize_clusters(values, documents).estimate
                for values in (
                    [r.num_operations / r.num_scored for r in records],
                    [r.tokens_read / r.num_scored for r in records],
                )
            )
            interval = recall.interval
            rows.append(
                [
                    f"{scale:g}",
                    entry.name,
                    f"{recall.estimate:.3f}",
                    f"{interval.low:.3f} to {interval.high:.3f}" if interval else "-",
                    f"{operations:.2f}",
                    f"{tokens:.0f}",
                ]
            )
            points.append((operations, recall.estimate))
    on_front = set(pareto_front(points))
    return [[*row, "yes" if place in on_front else ""] for place, row in enumerate(rows)]
