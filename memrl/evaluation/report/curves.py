"""Learning curves: what validation said while the runs learned."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np

from memrl.evaluation import lineup
from memrl.evaluation.report.folders import FinishedRun

METRIC = "eval/reward_per_question"
_ATTEMPT = "charts/attempt"
"""Logged by policy gradients alone."""


@dataclass(frozen=True)
class Curve:
    """Reward per question on validation, over the runs that logged it.

    Attributes:
        learner: whose it is: gain regression, or the policy gradient that learned after it.
        steps: (n,) gradient steps of gain regression, or decisions of the policy gradient.
        mean, low, high: (n,) over seeds, folds averaged first; low and high are the lowest and the
            highest seed, because seeds are too few for an interval.
        num_seeds: how many.
    """

    learner: str
    steps: list[int]
    mean: list[float]
    low: list[float]
    high: list[float]
    num_seeds: int


def learning_curve(runs: Sequence[FinishedRun]) -> Curve | None:
    """The curve of the runs of one condition; None where none of them logged any.

    A run that scored itself at other steps is interpolated between its own; the curve ends where
    the first run ends, so that every point is a mean over all of them. Where a policy gradient
    learned, the curve is its own, counted from where gain regression ended.
    """
    gradients = lineup.POLICY_GRADIENTS.get(runs[0].config.get("algorithm", ""))
    logged: dict[int, list[dict[int, float]]] = {}
    for run in runs:
        points = _points(run, is_gradient=gradients is not None)
        if points:
            logged.setdefault(run.seeds[0], []).append(points)
    own = [points for of_seed in logged.values() for points in of_seed]
    if not own:
        return None
    start, end = max(min(points) for points in own), min(max(points) for points in own)
    steps = sorted({step for points in own for step in points if start <= step <= end})
    by_seed = np.array(
        [
            np.mean([np.interp(steps, [*points], [*points.values()]) for points in of_seed], axis=0)
            for of_seed in logged.values()
        ]
    )
    if not steps:
        return None
    return Curve(
        lineup.LEARNED if gradients is None else gradients[0],
        steps,
        by_seed.mean(axis=0).tolist(),
        by_seed.min(axis=0).tolist(),
        by_seed.max(axis=0).tolist(),
        len(logged),
    )


def _points(run: FinishedRun, *, is_gradient: bool) -> dict[int, float]:
    """Step -> value."""
    rows = [row for row in run.metrics if row.get(METRIC) is not None]
    rows.sort(key=lambda row: int(row["global_step"]))
    if not is_gradient:
        return {int(row["global_step"]): float(row[METRIC]) for row in rows}
    learner = run.config["learner"]
    first_step = learner["rounds"] * learner["updates_per_round"]
    own = [row for row in rows if _ATTEMPT in row]
    return {int(row["global_step"]) - first_step: float(row[METRIC]) for row in own}
