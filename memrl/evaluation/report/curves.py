"""Learning curves: what validation said while the runs learned."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np

from memrl.evaluation.report.folders import FinishedRun

METRIC = "eval/reward_per_question"


@dataclass(frozen=True)
class Curve:
    """Reward per question on validation, over the runs that logged it.

    Attributes:
        steps: (n,) gradient steps of gain regression, or decisions of a policy gradient.
        mean, low, high: (n,) over seeds, folds averaged first; low and high are the lowest and the
            highest seed, because seeds are too few for an interval.
        num_seeds: how many.
    """

    steps: list[int]
    mean: list[float]
    low: list[float]
    high: list[float]
    num_seeds: int


def learning_curve(runs: Sequence[FinishedRun]) -> Curve | None:
    """The curve of the runs of one condition; None where none of them logged any.

    A run that scored itself at other steps is interpolated between its own; the curve ends where
    the first run ends, so that every point is a mean over all of them.
    """
    logged: dict[int, list[dict[int, float]]] = {}
    for run in runs:
        points = {
            int(row["global_step"]): float(row[METRIC])
            for row in run.metrics
            if row.get(METRIC) is not None
        }
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
        steps,
        by_seed.mean(axis=0).tolist(),
        by_seed.min(axis=0).tolist(),
        by_seed.max(axis=0).tolist(),
        len(logged),
    )
