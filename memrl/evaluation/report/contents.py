"""What a report holds: conditions with their numbers, notes, drawings."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

from memrl.evaluation import stats
from memrl.evaluation.report import capacity, figures, gains, strips, tables
from memrl.evaluation.report.conditions import (
    Condition,
    group_runs,
    make_conditions,
    require_seeds,
)
from memrl.evaluation.report.curves import learning_curve
from memrl.evaluation.report.drawing import Drawing, Style, save, styles, theme
from memrl.evaluation.report.folders import FinishedRun, require_alike, version_notes
from memrl.evaluation.report.numbers import condition_numbers
from memrl.evaluation.report.speed import Rate, decisions_per_second
from memrl.evaluation.report.workers import of_each
from memrl.run_files import CALIBRATION_FILE, STRIP_FILE

_FEW_SEEDS = 5


@dataclass
class Report:
    """All that a report shows.

    Attributes:
        members: conditions with their numbers. notes: what a reader has to know first.
        side_by_side: tables over several capacities.
        across: drawings over several conditions. of_condition: those of each, by its place.
        rates: of environments, for a figure of their own; none where no file was given.
        speed: that figure. left_out: figures that are not drawn, and why.
    """

    members: list[capacity.Member]
    notes: list[str]
    side_by_side: list[tables.Table] = field(default_factory=list)
    across: list[Drawing] = field(default_factory=list)
    of_condition: list[list[Drawing]] = field(default_factory=list)
    left_out: list[str] = field(default_factory=list)
    rates: list[Rate] = field(default_factory=list)
    speed: list[Drawing] = field(default_factory=list)

    @property
    def drawings(self) -> list[Drawing]:
        """All of them, in the order of the page."""
        own = [drawing for part in self.of_condition for drawing in part]
        return [*self.across, *own, *self.speed]


def make_report(
    runs: Sequence[FinishedRun],
    *,
    mix: bool,
    rates: Sequence[Rate] = (),
    processes: int | None = None,
) -> Report:
    """Numbers and notes of runs; drawings come when it is written.

    Args:
        runs: finished ones. mix: see `memrl.evaluation.report.build.write_report`.
        rates: of environments. processes: see `of_each`.

    Raises:
        RunError: if the runs cannot be reported together.
    """
    notes = require_alike(runs, mix=mix)
    groups = group_runs(runs)
    notes += require_seeds(groups, mix=mix)
    conditions = make_conditions(groups)
    numbers = of_each(condition_numbers, conditions, "resampling", processes)
    members: list[capacity.Member] = [*zip(conditions, numbers, strict=True)]
    changed = sum(run.is_dirty for run in runs)
    if changed:
        notes.append(f"{changed} of {len(runs)} runs were made with changes on top of the commit")
    notes += version_notes(runs)
    notes += _few(members)
    families = capacity.families(members)
    side_by_side = [capacity.capacity_table(family) for family in families]
    return Report(members, notes, side_by_side, rates=[*rates])


def _few(members: Sequence[capacity.Member]) -> list[str]:
    """What intervals cannot say, and of which conditions."""
    labels: dict[str, list[str]] = {}
    for condition, numbers in members:
        if len(numbers["documents"]) < stats.MIN_CLUSTERS:
            labels.setdefault(tables.rests_on(numbers), []).append(condition.label)
        seeds = len(condition.seeds)
        if seeds == 1:
            note = "one seed, so that intervals say nothing of training"
            labels.setdefault(note, []).append(condition.label)
        elif seeds < _FEW_SEEDS:
            note = f"{seeds} seeds, fewer than {_FEW_SEEDS}"
            labels.setdefault(note, []).append(condition.label)
    return [f"{'; '.join(those)}: {note}" for note, those in labels.items()]


def draw(report: Report, folder: Path, processes: int | None = None) -> None:
    """Draw all figures of a report, and write each of them into a folder.

    Args:
        report: its drawings are set. folder: is there. processes: see `of_each`.

    Raises:
        OSError: if a file cannot be written.
    """
    kinds = [
        (row["name"], row["kind"]) for _, numbers in report.members for row in numbers["policies"]
    ]
    look = styles(kinds)
    with theme():
        for number, family in enumerate(capacity.families(report.members), start=1):
            report.across.append(capacity.quality_by_capacity(family, look, f"capacity-{number}"))
            if family[0][0].is_cache:
                report.across.append(capacity.miss_ratio_curves(family, look, f"misses-{number}"))
        if report.rates:
            report.speed.append(decisions_per_second(report.rates, "speed"))
        for drawing in [*report.across, *report.speed]:
            save(drawing, folder)
    if not report.across:
        report.left_out.append(
            "quality against capacity: no two conditions differ in paging.capacity alone"
        )
    tasks = [
        _Task(condition, numbers, look, number, folder)
        for number, (condition, numbers) in enumerate(report.members, start=1)
    ]
    for own, left_out in of_each(_drawn, tasks, "drawing", processes):
        report.of_condition.append(own)
        report.left_out += left_out
    if not report.rates:
        report.left_out.append("steps per second: no file of a benchmark was given with --bench")


@dataclass(frozen=True)
class _Task:
    """A condition to be drawn; see `_of_condition`."""

    condition: Condition
    numbers: Mapping[str, Any]
    look: Mapping[str, Style]
    number: int
    folder: Path


def _drawn(task: _Task) -> tuple[list[Drawing], list[str]]:
    """Draw and write the figures of a condition; them, and what is left out."""
    with theme():
        drawn, left_out = _of_condition(task.condition, task.numbers, task.look, task.number)
        for drawing in drawn:
            save(drawing, task.folder)
    return drawn, left_out


def _of_condition(
    condition: Condition, numbers: Mapping[str, Any], look: Mapping[str, Style], number: int
) -> tuple[list[Drawing], list[str]]:
    drawn = [
        figures.quality_intervals(numbers, look, f"quality-{number}"),
        figures.aggregates(numbers, look, f"aggregates-{number}"),
    ]
    left_out = []
    for front in numbers["fronts"]:
        name = front["cost"].removesuffix("_per_question").replace("_", "-")
        drawn.append(figures.pareto(numbers, front, look, f"front-{name}-{number}"))
    if not numbers["fronts"]:
        left_out.append(f"{condition.label}, Pareto fronts: in a page cache operations are free")
    curve = learning_curve(condition.runs)
    if curve is None:
        left_out.append(f"{condition.label}, learning curve: no run logged validation scores")
    else:
        best = condition.results["best_heuristic"]
        rows = [*condition.results["policies"], *([] if best is None else [best])]
        marks = figures.references(rows, curve.learner)
        drawn.append(figures.learning(numbers, curve, marks, look, f"learning-{number}"))
    funnel = figures.funnel(numbers, f"funnel-{number}")
    if funnel is None:
        left_out.append(f"{condition.label}, funnel: no needed page was outside main context")
    else:
        drawn.append(funnel)
    calibrations = [run.calibration for run in condition.runs if run.calibration is not None]
    if any(own.bins for own in calibrations):
        drawn.append(gains.calibration(calibrations, f"calibration-{number}"))
    else:
        why = f"no run has a {CALIBRATION_FILE}"
        if condition.is_cache:
            why = "in a page cache predictions are no rewards"
        left_out.append(f"{condition.label}, calibration: {why}")
    first = condition.runs[0]
    if first.strip is None:
        left_out.append(f"{condition.label}, episode: {first.folder} has no {STRIP_FILE}")
    else:
        drawn.append(strips.strip(first.strip, first.folder.as_posix(), f"episode-{number}"))
    return drawn, left_out
