"""The report as one HTML page that needs nothing beside itself.

The template escapes every text; only the drawings, whose texts matplotlib has escaped, go in as
they are. The page names no other file that a browser would fetch, and forbids it to.
"""

from __future__ import annotations

import re
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

from jinja2 import Environment, StrictUndefined

from memrl.errors import listed
from memrl.evaluation import stats, terminal
from memrl.evaluation.report import bootstrap, tables
from memrl.evaluation.report.conditions import Condition
from memrl.evaluation.report.contents import Report
from memrl.evaluation.report.drawing import (
    SERIES_DARK,
    VARIABLES,
    Drawing,
    inline_svg,
)
from memrl.evaluation.report.numbers import MARGIN, RESAMPLES_STREAM

_DARK = ("#e8eaed", "#3a4047", "#14171a", *SERIES_DARK)
_MOST_NAMES = 3  # in the title
_NUMBER = re.compile(r"[+-]?\d|<|-?$")


def page_text(report: Report, command: str, provenance: Mapping[str, Any]) -> str:
    """The page; inside `drawing.theme`, after `contents.draw`.

    Args:
        report: with its drawings. command: what makes it again. provenance: of this program.
    """
    template = Path(__file__).with_name("page.html").read_text(encoding="utf-8")
    environment = Environment(
        autoescape=True, undefined=StrictUndefined, trim_blocks=True, lstrip_blocks=True
    )
    sections = [
        {
            "id": f"condition-{number}",
            "label": condition.label,
            "footnote": _what_was_played(condition, numbers),
            "verdicts": tables.verdicts(condition, numbers),
            "tables": [_table(own) for own in tables.condition_tables(condition, numbers)],
            "drawn": [_drawn(drawing) for drawing in drawings],
        }
        for number, ((condition, numbers), drawings) in enumerate(
            zip(report.members, report.of_condition, strict=True), start=1
        )
    ]
    commit = provenance["code"]["commit"]
    return environment.from_string(template).render(
        title=listed([condition.label for condition, _ in report.members], _MOST_NAMES),
        made=f"Made {provenance['started_utc']} at commit {commit or 'unknown'}.",
        command=command,
        light=_variables([*VARIABLES]),
        dark=_variables(_DARK),
        notes=report.notes,
        side_by_side=[_table(own) for own in report.side_by_side],
        drawn=[_drawn(drawing) for drawing in report.across],
        sections=sections,
        speed=[_drawn(drawing) for drawing in report.speed],
        method=_method(),
        left_out=report.left_out,
        runs=_table(tables.runs_table([condition for condition, _ in report.members])),
    )


def _what_was_played(condition: Condition, numbers: Mapping[str, Any]) -> str:
    played = terminal.what_was_played(condition.results["played"])
    return (
        f"{played} {tables.rests_on(numbers)}. Verdicts: an interval that holds Student's t over "
        f"{numbers['cluster']}s and that of the resamples."
    )


def _variables(colors: Sequence[str]) -> str:
    """Colours of the page, for its style sheet."""
    pairs = zip(VARIABLES.values(), colors, strict=True)
    return " ".join(f"{name}: {color};" for name, color in pairs)


def _table(table: tables.Table) -> dict[str, Any]:
    title, columns, rows = table
    return {"title": title, "columns": columns, "rows": rows, "numeric": _numeric(columns, rows)}


def _drawn(drawing: Drawing) -> dict[str, Any]:
    return {
        "key": drawing.key,
        "title": drawing.title,
        "svg": inline_svg(drawing),
        "columns": drawing.columns,
        "rows": drawing.rows,
        "numeric": _numeric(drawing.columns, drawing.rows),
    }


def _numeric(columns: Sequence[str], rows: Sequence[Sequence[str]]) -> list[bool]:
    """Which columns hold numbers, or nothing, and stand to the right."""
    return [all(_NUMBER.match(row[place]) for row in rows) for place in range(len(columns))]


def _method() -> list[str]:
    stream, index = RESAMPLES_STREAM
    return [
        "Values are averaged over seeds and episodes within each document, and each document "
        "counts once; the IQM is over episodes, seeds averaged first.",
        f"Intervals of {bootstrap.LEVEL:.0%}: {bootstrap.METHOD}, {bootstrap.NUM_RESAMPLES:,} "
        f"resamples from the stream {stream!r} at {index} of seed 0, the same draws for every "
        "policy. Beside paired differences stands Student's t over documents, which covers better "
        "where documents are few.",
        f"With fewer than {stats.MIN_CLUSTERS} documents no interval is given, and the values of "
        "each are listed.",
        "Normalised: 0 is what doing nothing reaches, 1 the bound; none where their gap is below "
        f"{stats.MIN_GAP}. P(improvement): share of documents in which the policy is better, ties "
        "half. Gap closed: the difference as a share of what lies between the control and the "
        "first bound. The best heuristic and the best unlearned rule, which fits nothing to the "
        "training documents, are each run's choice on its own validation documents.",
        f"Hypervolume: area under the front of evidence recall up to {MARGIN} times the highest "
        "cost of all policies that do not see the needs, as a share of that box.",
    ]
