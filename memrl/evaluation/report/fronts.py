"""Which policies nobody beats at their price, and how much of the plane they cover."""

from __future__ import annotations

from collections.abc import Sequence

import numpy as np

from memrl.evaluation.stats import FloatArray

Point = tuple[float, float]
"""Cost, where less is better, and quality, where more is better."""


def pareto_front(points: Sequence[Point]) -> list[int]:
    """Indices of the points that no other one beats, by rising cost.

    A point is beaten by one that costs no more and is no worse, and differs from it in one of both;
    of equal points the first one stays.
    """
    front: list[int] = []
    best = float("-inf")
    for index in sorted(range(len(points)), key=lambda i: (points[i][0], -points[i][1], i)):
        if points[index][1] > best:
            front.append(index)
            best = points[index][1]
    return front


def hypervolumes(costs: FloatArray, qualities: FloatArray, most_cost: float) -> FloatArray:
    """Areas that sets of points dominate, up to a cost and above a quality of 0.

    What costs more than `most_cost`, or is worth nothing, adds nothing. The unit is that of cost
    times quality; over `most_cost` it is the mean quality that can be had at a price drawn evenly
    from [0, `most_cost`].

    Args:
        costs, qualities: (B, n) of B sets of n points each.

    Returns:
        (B,) float64.
    """
    # What costs too much is moved to where nothing is left to dominate.
    inside = np.minimum(costs, most_cost)
    order = np.argsort(inside, axis=1)
    begins = np.take_along_axis(inside, order, axis=1)
    best = np.maximum.accumulate(np.take_along_axis(qualities, order, axis=1), axis=1)
    widths = np.diff(begins, axis=1, append=most_cost)
    areas: FloatArray = (widths * np.maximum(best, 0.0)).sum(axis=1)
    return areas
