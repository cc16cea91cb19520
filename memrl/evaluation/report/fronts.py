"""Which policies nobody beats at their price, and how much of the plane they cover."""

from __future__ import annotations

from collections.abc import Sequence

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


def hypervolume(points: Sequence[Point], most_cost: float, least_quality: float = 0.0) -> float:
    """Area that the points dominate, up to a cost and from a quality on.

    What costs more than `most_cost`, or is worth no more than `least_quality`, adds nothing. The
    unit is that of cost times quality; over `most_cost` it is the mean quality that can be had at a
    price drawn evenly from [0, `most_cost`].
    """
    inside = [(cost, quality) for cost, quality in points if cost <= most_cost]
    front = [inside[index] for index in pareto_front(inside)]
    if not front:
        return 0.0
    ends = [cost for cost, _ in front[1:]] + [most_cost]
    return sum(
        (end - cost) * max(quality - least_quality, 0.0)
        for (cost, quality), end in zip(front, ends, strict=True)
    )
