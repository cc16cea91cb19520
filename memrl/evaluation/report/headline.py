"""What a report comes to, in a few lines of Markdown, and its place in a README."""

from __future__ import annotations

from collections.abc import Mapping
from pathlib import Path
from typing import Any

from memrl.evaluation.report.contents import Report
from memrl.evaluation.report.numbers import shown
from memrl.evaluation.report.tables import hull, rests_on
from memrl.evaluation.terminal import markdown_rows
from memrl.evaluation.verdict import BEST_HEURISTIC, BEST_UNLEARNED
from memrl.run_files import RunError, replace_text

BEGIN, END = "<!-- report:begin -->", "<!-- report:end -->"


def headline(report: Report, command: str) -> str:
    """Sentences, one table over all conditions, and the command that wrote them."""
    parts = [_sentences(numbers) for _, numbers in report.members]
    notes = [f"Note: {note}." for note in report.notes]
    return "\n\n".join([*parts, _table(report), *notes, f"```bash\n{command}\n```"])


def _sentences(numbers: Mapping[str, Any]) -> str:
    """How much of the gap each learned policy closes."""
    bounds = [row["name"] for row in numbers["policies"] if row["kind"] == "bound"]
    learned = [row["name"] for row in numbers["policies"] if row["kind"] == "learned"]
    pairs = {(pair["policy"], pair["control"]): pair for pair in numbers["paired"]}
    told = [
        f"**{numbers['label']}** ({rests_on(numbers)}; intervals hold Student's t over "
        f"{numbers['cluster']}s and that of resamples of these and of seeds)."
    ]
    for name in learned:
        against = next(
            (pairs[name, own] for own in (BEST_UNLEARNED, BEST_HEURISTIC) if (name, own) in pairs),
            None,
        )
        if against is None or against["gap_closed"] is None:
            continue
        closed = against["gap_closed"]
        text = (
            f"{name} closes {_percent(closed)} of the gap between the {against['control']} and "
            f"{bounds[0]} ({_difference(against)}, in {numbers['measure']}"
        )
        if against["control"] == BEST_UNLEARNED:
            best = pairs[name, BEST_HEURISTIC]
            text += f"; over the {BEST_HEURISTIC} {_difference(best)}"
        told.append(text + ").")
    return " ".join(told)


def _percent(estimate: Mapping[str, Any]) -> str:
    interval = estimate["interval"]
    text = f"{estimate['estimate']:.0%}"
    return text if interval is None else f"{text} ({interval['low']:.0%} to {interval['high']:.0%})"


def _difference(pair: Mapping[str, Any]) -> str:
    text, interval = _with_hull(pair["difference"], pair, "+")
    return text if interval == "-" else f"{text}, {interval}"


def _with_hull(
    estimate: Mapping[str, Any], owner: Mapping[str, Any], sign: str = ""
) -> tuple[str, str]:
    """Text of an estimate, and of the interval on which verdicts rest too."""
    widest = hull(owner["t_interval"], estimate["interval"])
    text, interval = shown({**estimate, "interval": widest}, sign)
    return text, interval.replace("..", " to ")


def _table(report: Report) -> str:
    """Policies as rows; of each condition the measure with its interval, and the operations."""
    names = dict.fromkeys(
        row["name"] for _, numbers in report.members for row in numbers["policies"]
    )
    columns = ["policy"]
    cells: dict[str, list[str]] = {name: [] for name in names if name != BEST_HEURISTIC}
    for condition, numbers in report.members:
        columns += [f"{condition.label}: {numbers['measure']}", "95 % interval", "operations / q"]
        rows = {row["name"]: row for row in numbers["policies"]}
        for name, own in cells.items():
            row = rows.get(name)
            if row is None:
                own += ["-", "-", "-"]
            else:
                own += [
                    *_with_hull(row["mean"], row),
                    f"{row['operations_per_question']:.1f}",
                ]
    return "\n".join(markdown_rows(columns, [[name, *own] for name, own in cells.items()]))


def require_marks(path: Path) -> tuple[str, str]:
    """What stands before and after the place of the headline in a Markdown file.

    Raises:
        RunError: if the file cannot be read, or has not each mark once, in order.
    """
    try:
        text = path.read_bytes().decode("utf-8")
    except (OSError, UnicodeDecodeError) as error:
        raise RunError(f"{path} cannot be read ({error}): name a Markdown file.") from error
    if not text.count(BEGIN) == text.count(END) == 1 or text.index(BEGIN) > text.index(END):
        raise RunError(
            f"{path} has no place for the headline: put the lines {BEGIN} and {END}, once and in "
            "this order, where it should stand."
        )
    return text.partition(BEGIN)[0], text.partition(END)[2]


def write_headline(path: Path, text: str) -> None:
    """Replace what stands between the marks in a Markdown file.

    Raises:
        RunError: if it cannot be read or written, or has no such place.
    """
    before, after = require_marks(path)
    try:
        replace_text(path, f"{before}{BEGIN}\n\n{text}\n\n{END}{after}")
    except OSError as error:
        raise RunError(f"{path} cannot be written ({error}).") from error
