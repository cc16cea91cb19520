"""The figures of one condition: quality by policy, learning curve, fronts, funnel."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from itertools import pairwise
from typing import TYPE_CHECKING, Any

from memrl.episode_log import FUNNEL_STEPS
from memrl.evaluation.lineup import FLOORS, LEARNED
from memrl.evaluation.report.curves import Curve
from memrl.evaluation.report.drawing import (
    GRID,
    INK,
    PAPER,
    SERIES,
    Drawing,
    Style,
    add_legend,
    new_axes,
    new_panels,
    wrapped,
)
from memrl.evaluation.report.numbers import COSTS, shown
from memrl.evaluation.verdict import BEST_HEURISTIC

if TYPE_CHECKING:
    from matplotlib.axes import Axes

_ROW_IN = 0.21  # height of a policy's row, at least
_LINE_IN = 0.125  # of its name
_STEPS = {  # what it is called, its color, the height of its bar in the bar of the step before
    "seen": ("seen, outside main context", GRID, 0.86),
    "stored": ("stored at some time", SERIES[5], 0.72),
    "kept": ("kept in archival", SERIES[3], 0.58),
    "staged": ("staged", SERIES[0], 0.44),
    "retrieved": ("retrieved", SERIES[1], 0.3),
    "used": ("used: there at the answer", SERIES[2], 0.16),
}


def quality_intervals(numbers: Mapping[str, Any], look: Mapping[str, Style], key: str) -> Drawing:
    """Every policy's quality with its interval, best at the top."""
    rows = sorted(_own(numbers), key=lambda row: row["mean"]["estimate"])
    names = [wrapped(row["name"], 32) for row in rows]
    figure, axes = new_axes(_height_in(names))
    for place, row in enumerate(rows):
        _with_ends(axes, row["mean"], place, look[row["name"]])
    _name_rows(axes, names)
    axes.set_xlabel(numbers["measure"])
    best = rows[-1]
    return Drawing(
        key,
        f"{numbers['measure'].capitalize()} of every policy, with its 95 % interval",
        f"{len(rows)} policies by {numbers['measure']}; the highest is {best['name']} at "
        f"{best['mean']['estimate']:.3f}, the lowest {rows[0]['name']} at "
        f"{rows[0]['mean']['estimate']:.3f}.",
        ["policy", numbers["measure"], "95 % interval", f"{numbers['cluster']}s", "seeds"],
        [[row["name"], *shown(row["mean"]), *_rests_on(row["mean"])] for row in reversed(rows)],
        figure,
    )


def aggregates(numbers: Mapping[str, Any], look: Mapping[str, Style], key: str) -> Drawing:
    """Every policy's interquartile mean and its place between floor and bound, with intervals."""
    rows = sorted(_own(numbers), key=lambda row: row["iqm"]["estimate"])
    names = [wrapped(row["name"], 24) for row in rows]
    panels = {"iqm": f"IQM of {numbers['measure']}", "normalized_score": "normalised score"}
    panels = {name: title for name, title in panels.items() if rows[0][name] is not None}
    figure, axes = new_panels(_height_in(names), len(panels))
    for panel, (name, title) in zip(axes, panels.items(), strict=True):
        for place, row in enumerate(rows):
            _with_ends(panel, row[name], place, look[row["name"]])
        _name_rows(panel, names)
        panel.set_xlabel(title)
    told = [
        f"{title}: the highest is {best['name']} at {best[name]['estimate']:.3f}"
        for name, title in panels.items()
        for best in [max(rows, key=lambda row: float(row[name]["estimate"]))]
    ]
    return Drawing(
        key,
        f"{' and '.join(panels.values())} of every policy, with 95 % intervals",
        f"{len(rows)} policies. {'; '.join(told)}.",
        [
            "policy",
            *(column for title in panels.values() for column in (title, "95 % interval")),
            *(f"{numbers['cluster']}s", "seeds"),
        ],
        [
            [
                *(row["name"], *(cell for name in panels for cell in shown(row[name]))),
                *_rests_on(row["iqm"]),
            ]
            for row in reversed(rows)
        ],
        figure,
    )


def _with_ends(axes: Axes, estimate: Mapping[str, Any], place: int, style: Style) -> None:
    """A point with its interval, in the row of a policy."""
    if estimate["interval"] is not None:
        ends = [estimate["interval"]["low"], estimate["interval"]["high"]]
        axes.plot(ends, [place, place], color=style.color, linewidth=1.6)
    axes.plot([estimate["estimate"]], [place], linestyle="none", **style.point())


def pareto(
    numbers: Mapping[str, Any], front: Mapping[str, Any], look: Mapping[str, Style], key: str
) -> Drawing:
    """Evidence against one cost; who is not beaten at its price is joined by a line."""
    cost = front["cost"]
    # A reference that does not page has no price of its own here.
    rows = [row for row in _own(numbers) if row["kind"] != "reference"]
    labels = [wrapped(row["name"]) for row in rows]
    figure, axes = new_axes(2.5, labels)
    by_name = {row["name"]: row for row in rows}
    on_front = [by_name[name] for name in front["front"]]
    best = [(row[cost], row["evidence_recall"]["estimate"]) for row in on_front]
    most = front["reference"]["cost"]
    corners = [*best, (most, best[-1][1])] if best else []
    axes.plot(
        [x for x, _ in corners],
        [y for _, y in corners],
        drawstyle="steps-post",
        color=INK,
        linewidth=0.8,
        zorder=1,
    )
    for row, label in zip(rows, labels, strict=True):
        where = [row[cost]], [row["evidence_recall"]["estimate"]]
        axes.plot(*where, linestyle="none", label=label, zorder=2, **look[row["name"]].point())
    if front["scale"] == "log":
        axes.set_xscale("log")
        axes.xaxis.set_major_formatter("{x:g}")
    axes.set_xlabel(COSTS[cost])
    axes.set_ylabel("evidence recall")
    add_legend(figure, axes)
    return Drawing(
        key,
        f"Evidence recall against {COSTS[cost]}: the front, {_volume(front)}",
        f"{len(rows)} policies by {COSTS[cost]} and evidence recall; on the front, by rising "
        f"cost: {', '.join(front['front'])}.",
        [
            *("policy", COSTS[cost], "evidence recall", "95 % interval"),
            *(f"{numbers['cluster']}s", "seeds", "on the front"),
        ],
        [
            [
                row["name"],
                _cost(row[cost]),
                *shown(row["evidence_recall"]),
                *_rests_on(row["evidence_recall"]),
                "sees the needs"
                if row["is_privileged"]
                else ("yes" if row["name"] in front["front"] else "no"),
            ]
            for row in rows
        ],
        figure,
    )


def _volume(front: Mapping[str, Any]) -> str:
    """The area under a front with its interval, and what learning adds to it."""
    if front["hypervolume"] is None:
        return "no cost at all"
    area, ends = shown(front["hypervolume"])
    text = f"hypervolume {area}" + (f" ({ends})" if ends != "-" else "")
    gain = front["hypervolume_gain"]
    return text if gain < 0.0005 else f"{text}, {gain:.3f} of it by what is learned"


def learning(
    numbers: Mapping[str, Any],
    curve: Curve,
    references: Mapping[str, float],
    look: Mapping[str, Style],
    key: str,
) -> Drawing:
    """Validation while learning, over seeds, with what others reached there."""
    labels = [wrapped(f"{curve.learner}, mean of seeds"), *(wrapped(name) for name in references)]
    figure, axes = new_axes(2.3, labels)
    color = look[curve.learner].color if curve.learner in look else SERIES[0]
    axes.fill_between(curve.steps, curve.low, curve.high, color=color, alpha=0.18, linewidth=0)
    axes.plot(curve.steps, curve.mean, color=color, marker="o", markersize=3, label=labels[0])
    dashes = (":", "--", "-.")
    for place, (name, score) in enumerate(references.items()):
        axes.axhline(
            score,
            color=look[name].color if name != BEST_HEURISTIC else INK,
            linestyle=dashes[place % len(dashes)],
            linewidth=1.1,
            label=labels[1 + place],
        )
    unit = "gradient steps" if curve.learner == LEARNED else "decisions"
    axes.set_xlabel(unit)
    axes.set_ylabel(f"{numbers['measure']}, validation")
    add_legend(figure, axes)
    seeds = f"{curve.num_seeds} seed{'s' if curve.num_seeds > 1 else ''}"
    rows = [
        [str(step), f"{mean:.3f}", f"{low:.3f}..{high:.3f}"]
        for step, mean, low, high in zip(
            curve.steps, curve.mean, curve.low, curve.high, strict=True
        )
    ]
    rows += [[name, f"{score:.3f}", ""] for name, score in references.items()]
    return Drawing(
        key,
        f"Learning curve of {curve.learner} on validation, {seeds}; the band is the lowest and the "
        "highest seed",
        f"{curve.learner}: mean over {seeds} from {curve.mean[0]:.3f} after {curve.steps[0]} "
        f"{unit} to {curve.mean[-1]:.3f} after {curve.steps[-1]}.",
        [f"{unit}, or reference", f"{numbers['measure']}, validation", "seeds"],
        rows,
        figure,
    )


def references(policies: Sequence[Mapping[str, Any]], learner: str) -> dict[str, float]:
    """What floor, best heuristic and bound reached on validation, the mean over runs.

    Args:
        policies: of the condition's results, and the best heuristic of it.
        learner: whose curve it is; beside any other one stands gain regression.
    """
    marks = {*FLOORS, BEST_HEURISTIC, LEARNED} - {learner}
    made = {}
    for row in policies:
        scores = [score for score in row["validation"] if score is not None]
        if scores and (row["name"] in marks or row["kind"] == "bound"):
            made[row["name"]] = sum(scores) / len(scores)
    return made


def funnel(numbers: Mapping[str, Any], key: str) -> Drawing | None:
    """How far the pages came that were needed and not there; None where none was missing."""
    rows = [row for row in _own(numbers) if row["absent_needs_per_question"]]
    if not rows:
        return None
    rows = rows[::-1]
    names = [wrapped(row["name"], 32) for row in rows]
    known = [step for step in FUNNEL_STEPS if all(step in row["funnel"] for row in rows)]
    steps = ["seen", *known]
    labels = [_STEPS[step][0] for step in steps]
    figure, axes = new_axes(_height_in(names), labels)
    shares = [[1.0, *(row["funnel"][step] for step in known)] for row in rows]
    for place, step in enumerate(steps):
        label, color, height = _STEPS[step]
        axes.barh(
            range(len(rows)),
            [of_row[place] for of_row in shares],
            height=height,
            color=color,
            edgecolor=PAPER,
            linewidth=0.4,
            label=label,
        )
    _name_rows(axes, names)
    axes.set_xlim(0, 1)
    axes.grid(visible=False)
    axes.set_xlabel("share of needed pages that were\noutside main context when asked")
    add_legend(figure, axes)
    best = max(rows, key=lambda row: float(row["funnel"]["used"]))
    return Drawing(
        key,
        "Funnel of needed pages that were outside main context when a question came",
        f"{len(rows)} policies; of such pages {best['name']} has the most at the "
        f"answer, {best['funnel']['used']:.2f} of them.",
        ["policy", "outside / question", *(labels[1:])],
        [
            [row["name"], f"{row['absent_needs_per_question']:.2f}", *_shares(of_row[1:])]
            for row, of_row in zip(reversed(rows), reversed(shares), strict=True)
        ],
        figure,
    )


def _own(numbers: Mapping[str, Any]) -> list[Mapping[str, Any]]:
    """The policies themselves: the best heuristic is one of them."""
    return [row for row in numbers["policies"] if row["name"] != BEST_HEURISTIC]


def _name_rows(axes: Axes, names: Sequence[str]) -> None:
    """A row for each name, the first one at the bottom."""
    axes.set_yticks(range(len(names)), names)
    axes.set_ylim(-0.6, len(names) - 0.4)
    axes.grid(axis="y", visible=False)


def _height_in(names: Sequence[str]) -> float:
    """Of a plot with a row for each name; no two names touch, which may have several lines."""
    lines = [1 + name.count("\n") for name in names]
    needed = [_LINE_IN * (one + other) / 2 + 0.04 for one, other in pairwise(lines)]
    return 0.55 + max([_ROW_IN, *needed]) * len(names)


def _rests_on(estimate: Mapping[str, Any]) -> list[str]:
    return [str(estimate["num_clusters"]), str(estimate["num_seeds"])]


def _shares(values: Sequence[float]) -> list[str]:
    return [f"{value:.2f}" for value in values]


def _cost(value: float) -> str:
    return f"{value:.0f}" if value >= 100 else f"{value:.3g}"
