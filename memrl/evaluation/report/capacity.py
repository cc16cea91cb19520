"""Quality against capacity, and miss ratios of page caches, over conditions that differ in size."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Any

from memrl.evaluation.report.conditions import Condition
from memrl.evaluation.report.drawing import Drawing, Style, add_legend, new_axes, wrapped
from memrl.evaluation.report.numbers import shown
from memrl.evaluation.report.tables import Table, rests_on
from memrl.evaluation.verdict import BEST_HEURISTIC
from memrl.run_files import strict_json

_SIZE = ("paging.capacity", "paging.archival_capacity", "paging.num_slots")
Member = tuple[Condition, Mapping[str, Any]]
"""A condition with its numbers."""


def families(members: Sequence[Member]) -> list[list[Member]]:
    """Conditions that differ in size alone, by rising capacity; at least two of different size.

    Size is capacity with what is often scaled along: archive and slots. Where one capacity comes
    with several of these, only conditions with the same ones belong together.
    """
    found = []
    for loose in _together(members, _SIZE):
        sizes = [condition.capacity for condition, _ in loose]
        parts = [loose] if len(set(sizes)) == len(sizes) else _together(loose, _SIZE[:1])
        for part in parts:
            if len({condition.capacity for condition, _ in part}) > 1:
                found.append(sorted(part, key=lambda member: member[0].capacity))
    return found


def _together(members: Sequence[Member], ignored: Sequence[str]) -> list[list[Member]]:
    groups: dict[str, list[Member]] = {}
    for member in members:
        condition = member[0]
        key = {k: v for k, v in condition.settings.items() if k not in ignored}
        groups.setdefault(strict_json([key, condition.unit]), []).append(member)
    return list(groups.values())


def capacity_table(family: Sequence[Member]) -> Table:
    """Policies as rows and capacities as columns; a cell is the mean over its interval."""
    measure, unit = family[0][1]["measure"], family[0][0].unit
    cells: dict[str, dict[int, str]] = {}
    for place, (_, numbers) in enumerate(family):
        for row in numbers["policies"]:
            # The best heuristic of one capacity need not be that of another.
            name = BEST_HEURISTIC if row["name"] == BEST_HEURISTIC else row["shown_as"]
            mean, ends = shown(row["mean"])
            cells.setdefault(name, {})[place] = mean if ends == "-" else f"{mean}\n{ends}"
    resting = dict.fromkeys(rests_on(numbers) for _, numbers in family)
    return (
        f"{measure} by capacity ({unit}), and 95 % intervals; {'; '.join(resting)}",
        ["policy", *(f"{condition.capacity:g}" for condition, _ in family)],
        [
            [name, *(own.get(place, "-") for place in range(len(family)))]
            for name, own in cells.items()
        ],
    )


def quality_by_capacity(family: Sequence[Member], look: Mapping[str, Style], key: str) -> Drawing:
    """Every policy's quality against capacity on a logarithmic axis, with bands."""
    measure = family[0][1]["measure"]
    title = f"{measure.capitalize()} against capacity, bands of 95 %"
    return _against_capacity(family, look, key, title, measure, is_missed=False)


def miss_ratio_curves(family: Sequence[Member], look: Mapping[str, Style], key: str) -> Drawing:
    """Every policy's miss ratio against the size of the page cache."""
    title = "Miss-ratio curves, bands of 95 %"
    return _against_capacity(family, look, key, title, "miss ratio", is_missed=True)


def _against_capacity(
    family: Sequence[Member],
    look: Mapping[str, Style],
    key: str,
    title: str,
    measure: str,
    *,
    is_missed: bool,
) -> Drawing:
    curves: dict[str, list[tuple[float, dict[str, Any]]]] = {}
    for condition, numbers in family:
        for row in numbers["policies"]:
            if row["name"] != BEST_HEURISTIC:
                quality = row["evidence_recall"] if is_missed else row["mean"]
                point = _missed(quality) if is_missed else quality
                curves.setdefault(row["name"], []).append((condition.capacity, point))
    labels = {name: wrapped(name) for name in curves}
    figure, axes = new_axes(2.7, [*labels.values()])
    for name, points in curves.items():
        sizes = [size for size, _ in points]
        style = look[name]
        axes.plot(sizes, [own["estimate"] for _, own in points], label=labels[name], **style.line())
        if all(own["interval"] is not None for _, own in points):
            low, high = ([own["interval"][end] for _, own in points] for end in ("low", "high"))
            axes.fill_between(sizes, low, high, **style.band())
    ticks = [condition.capacity for condition, _ in family]
    axes.set_xscale("log")
    axes.set_xticks(ticks, [f"{tick:g}" for tick in ticks])
    axes.minorticks_off()
    axes.set_xlabel(f"capacity, {family[0][0].unit}, log scale")
    axes.set_ylabel(measure)
    add_legend(figure, axes)
    ends = [
        f"{name} from {points[0][1]['estimate']:.3f} to {points[-1][1]['estimate']:.3f}"
        for name, points in curves.items()
    ]
    return Drawing(
        key,
        title,
        f"{measure.capitalize()} at capacities {', '.join(f'{tick:g}' for tick in ticks)}: "
        f"{'; '.join(ends)}.",
        ["policy", "capacity", measure, "95 % interval", f"{family[0][1]['cluster']}s", "seeds"],
        [
            [name, f"{size:g}", *shown(own), str(own["num_clusters"]), str(own["num_seeds"])]
            for name, points in curves.items()
            for size, own in points
        ],
        figure,
    )


def _missed(hits: Mapping[str, Any]) -> dict[str, Any]:
    """The miss ratio, of a hit ratio."""
    interval = hits["interval"]
    if interval is not None:
        interval = {**interval, "low": 1 - interval["high"], "high": 1 - interval["low"]}
    return {**hits, "estimate": 1 - hits["estimate"], "interval": interval}
