"""Calibration: what a network predicted that operations gain, against what they gained."""

from __future__ import annotations

from collections.abc import Sequence

from memrl.actions import Op
from memrl.evaluation.calibration import BIN_WIDTH, Calibration
from memrl.evaluation.report.drawing import INK, SERIES, Drawing, new_figure

_MARKERS = {"next": "P", "evict": "X", "store": "^", "search": "s", "retrieve": "o"}
_COLORS = dict(zip([op.name.lower() for op in Op][1:], SERIES, strict=False))
_FEW = 10  # actions; a bin with fewer is in the table, and not joined to the others

Means = dict[int, tuple[int, float, float]]
"""Place of a bin -> count, mean prediction, mean gain."""


def calibration(calibrations: Sequence[Calibration], key: str) -> Drawing:
    """Mean gain against mean prediction by operation, and below it how many actions that is.

    Args:
        calibrations: of the runs of a condition, at least one; their bins are put together.
    """
    together = _together(calibrations)
    figure = new_figure(3.9)
    upper, lower = figure.subplots(2, 1, sharex=True, height_ratios=(3, 1))
    ends = [mean for own in together.values() for _, *pair in own.values() for mean in pair]
    diagonal = [min(ends), max(ends)]
    upper.plot(diagonal, diagonal, color=INK, linestyle=":", linewidth=1, label="as predicted")
    for operation, own in together.items():
        many = {place: bin for place, bin in own.items() if bin[0] >= _FEW}
        look = {"color": _COLORS[operation], "marker": _MARKERS[operation], "markersize": 4.0}
        predicted = [mean for _, mean, _ in many.values()]
        gained = [gain for _, _, gain in many.values()]
        counts = [count for count, _, _ in many.values()]
        upper.plot(predicted, gained, linewidth=1.3, label=operation, **look)
        lower.plot(predicted, counts, linewidth=0.8, **look)
    lower.set_yscale("log")
    lower.yaxis.set_major_formatter("{x:,.0f}")
    lower.minorticks_off()
    upper.set_ylabel("gain by the known needs")
    lower.set_ylabel("actions")
    lower.set_xlabel("predicted gain over YIELD, reward")
    figure.legend(*upper.get_legend_handles_labels(), loc="outside lower left", ncols=3)
    policy, episodes = calibrations[0].policy, sum(own.episodes for own in calibrations)
    errors = {operation: _error(own) for operation, own in together.items()}
    return Drawing(
        key,
        f"Calibration of {policy}: predicted gains of all legal operations against their gains by "
        f"the known needs, {episodes} test episodes; bins of {BIN_WIDTH}, those of {_FEW} actions "
        "or more",
        "Predictions are off by, in the mean over actions: "
        f"{', '.join(f'{operation} {error:.3f}' for operation, error in errors.items())}.",
        ["operation", "predicted gain", "mean prediction", "gain by the known needs", "actions"],
        [
            [
                operation,
                f"{place * BIN_WIDTH:.1f} to {(place + 1) * BIN_WIDTH:.1f}",
                f"{predicted:.3f}",
                f"{gained:.3f}",
                str(count),
            ]
            for operation, own in together.items()
            for place, (count, predicted, gained) in own.items()
        ],
        figure,
    )


def _together(calibrations: Sequence[Calibration]) -> dict[str, Means]:
    """The bins of several runs as those of one, by operation and place."""
    bins: dict[tuple[str, int], list[tuple[int, float, float]]] = {}
    for own in calibrations:
        for one in own.bins:
            parts = bins.setdefault((one.operation, one.place), [])
            parts.append((one.count, one.predicted, one.realised))
    together: dict[str, Means] = {}
    order = {operation: number for number, operation in enumerate(_COLORS)}
    for operation, place in sorted(bins, key=lambda own: (order[own[0]], own[1])):
        parts = bins[operation, place]
        total = sum(count for count, _, _ in parts)
        means = [sum(part[0] * part[axis] for part in parts) / total for axis in (1, 2)]
        together.setdefault(operation, {})[place] = (total, means[0], means[1])
    return together


def _error(bins: Means) -> float:
    """Mean distance of prediction and gain over bins, each counted by its actions."""
    total = sum(count for count, _, _ in bins.values())
    return sum(count * abs(gain - mean) for count, mean, gain in bins.values()) / total
