"""A report from beginning to end: read, summarise, print, draw, write."""

from __future__ import annotations

import csv
import io
import json
import re
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

from rich.console import Console
from rich.markup import escape

from memrl.evaluation import terminal
from memrl.evaluation.report import bootstrap, tables
from memrl.evaluation.report.command import report_command
from memrl.evaluation.report.contents import Report, draw, make_report
from memrl.evaluation.report.folders import read_run
from memrl.evaluation.report.headline import headline, require_marks, write_headline
from memrl.evaluation.report.numbers import RESAMPLES_STREAM
from memrl.evaluation.report.page import page_text
from memrl.evaluation.report.speed import read_rates
from memrl.progress import progress_bar
from memrl.run_files import RESULTS_FILE, RunError, plain, replace_text, strict_json

REPORT_SCHEMA = 2
"""Version of the report's results.json; docs/report.md says what is in it."""
PAGE_FILE = "report.html"
TABLE_FILE = "results.csv"
PAIRS_FILE = "paired.csv"
_ESTIMATES = ("mean", "iqm", "normalized_score", "evidence_recall")
_COUNTS = ("episodes", "questions")
_PLAIN = (
    *("tokens_read_per_question", "operations_per_question", "policy_ms_per_question"),
    "absent_needs_per_question",
)


def write_report(
    folders: Sequence[Path],
    out: Path,
    *,
    mix: bool,
    provenance: Mapping[str, Any],
    bench: Sequence[Path] = (),
    readme: Path | None = None,
) -> None:
    """Report on finished runs: print tables, write files.

    Args:
        folders: of the runs. out: folder of the report; files of the same names are replaced.
        mix: whether runs of different versions, data or seeds may stand in one report.
        provenance: of this program, see `memrl.provenance.collect_provenance`.
        bench: files that benchmarks of environments wrote.
        readme: Markdown file whose headline is written anew (`memrl.evaluation.report.headline`).

    Raises:
        RunError: if the runs cannot be reported, or the report cannot be written.
    """
    if readme is not None:
        require_marks(readme)  # better now than after the drawing
    rates = [rate for path in bench for rate in read_rates(path)]
    with progress_bar("reading runs", len(folders)) as advance:
        runs = []
        for folder in folders:
            runs.append(read_run(folder))
            advance(1)
    report = make_report(runs, mix=mix, rates=rates)
    print_report(report)
    try:
        write_files(report, out, provenance)
    except OSError as error:
        raise RunError(f"The report cannot be written to {out} ({error}).") from error
    if readme is not None:
        write_headline(readme, headline(report, report_command(provenance["command"][1:])))


def print_report(report: Report, console: Console | None = None) -> None:
    """Print the tables of all conditions."""
    console = console or Console(width=terminal.CONSOLE_WIDTH)
    for condition, numbers in report.members:
        console.print(f"\n{condition.label}", style="bold", markup=False)
        _print_table(tables.quality_table(numbers), console)
        _print_table(tables.paired_table(numbers), console)
        console.print("\n".join(tables.verdicts(condition, numbers)), markup=False)
    for table in report.side_by_side:
        _print_table(table, console)
    for note in report.notes:
        console.print(f"note: {note}", markup=False)


def _print_table(table: tables.Table, console: Console) -> None:
    title, columns, rows = table
    safe = [[escape(cell) for cell in row] for row in rows]
    terminal.print_rows(escape(title), columns, safe, console)


# ---------------------------------------------------------------------- files


def write_files(report: Report, out: Path, provenance: Mapping[str, Any]) -> None:
    """Draw, and write results.json, results.csv, paired.csv, report.html and figures/.

    Figures of an earlier report in the same folder are taken away first.

    Raises:
        OSError: if a file cannot be written.
    """
    (out / "figures").mkdir(parents=True, exist_ok=True)
    for key in _drawn_before(out / RESULTS_FILE):
        for ending in ("svg", "png"):
            (out / "figures" / f"{key}.{ending}").unlink(missing_ok=True)
    draw(report, out / "figures")
    page = page_text(report, report_command(provenance["command"][1:]), provenance)
    replace_text(out / PAGE_FILE, page)
    record = plain(_record(report, provenance))
    replace_text(out / RESULTS_FILE, strict_json(record, indent=1) + "\n")
    replace_text(out / TABLE_FILE, csv_text(report))
    replace_text(out / PAIRS_FILE, pairs_csv_text(report))


def _drawn_before(path: Path) -> list[str]:
    """Keys of the figures that an earlier report has left; none where its record is no more."""
    try:
        figures = json.loads(path.read_text(encoding="utf-8"))["figures"]
        keys = [str(figure["key"]) for figure in figures]
    except (OSError, ValueError, KeyError, TypeError, RecursionError):
        return []
    return [key for key in keys if re.fullmatch(r"[\w-]+", key)]


def _record(report: Report, provenance: Mapping[str, Any]) -> dict[str, Any]:
    return {
        "schema": REPORT_SCHEMA,
        "provenance": dict(provenance),
        "bootstrap": {
            "method": bootstrap.METHOD,
            "resamples": bootstrap.NUM_RESAMPLES,
            "level": bootstrap.LEVEL,
            "seed": 0,
            "stream": [*RESAMPLES_STREAM],
        },
        "notes": report.notes,
        "conditions": [numbers for _, numbers in report.members],
        "figures": [
            {
                "key": drawing.key,
                "title": drawing.title,
                "columns": drawing.columns,
                "rows": drawing.rows,
            }
            for drawing in report.drawings
        ],
        "not_drawn": report.left_out,
    }


def csv_text(report: Report) -> str:
    """One row a condition and policy; estimates with both ends of their intervals."""
    return _csv(
        [
            _csv_row(condition.label, numbers, policy)
            for condition, numbers in report.members
            for policy in numbers["policies"]
        ]
    )


def pairs_csv_text(report: Report) -> str:
    """One row a condition and pair of policies."""
    return _csv(
        [
            _pair_row(condition.label, pair)
            for condition, numbers in report.members
            for pair in numbers["paired"]
        ]
    )


def _csv(rows: Sequence[Mapping[str, Any]]) -> str:
    file = io.StringIO()
    writer = csv.DictWriter(file, list(dict.fromkeys(key for row in rows for key in row)))
    writer.writeheader()
    writer.writerows(rows)
    return file.getvalue()


def _csv_row(label: str, numbers: Mapping[str, Any], policy: Mapping[str, Any]) -> dict[str, Any]:
    paging = numbers["played"]["paging"]
    row: dict[str, Any] = {
        "condition": label,
        "workload": numbers["played"]["workload"],
        "capacity": paging["capacity"],
        "unit": paging["unit"],
        **{key: policy[key] for key in ("name", "kind", "is_privileged", *_COUNTS)},
        "clusters": policy["mean"]["num_clusters"],
        "seeds": policy["mean"]["num_seeds"],
    }
    estimates = {name: policy[name] for name in _ESTIMATES}
    estimates |= {f"regret to {bound}": own for bound, own in policy["regret"].items()}
    row |= _with_ends(estimates)
    return row | {name: policy[name] for name in _PLAIN}


def _pair_row(label: str, pair: Mapping[str, Any]) -> dict[str, Any]:
    t_interval, sign = pair["t_interval"] or {}, pair["sign_test"] or {}
    names = ("difference", "gap_closed", "probability_of_improvement")
    return {
        "condition": label,
        "policy": pair["policy"],
        "less": pair["control"],
        "clusters": pair["difference"]["num_clusters"],
        "seeds": pair["difference"]["num_seeds"],
        **_with_ends({name: pair[name] for name in names}),
        "t low": t_interval.get("low"),
        "t high": t_interval.get("high"),
        "better in": sign.get("num_positive"),
        "worse in": sign.get("num_negative"),
        "sign p": sign.get("p_value"),
    }


def _with_ends(estimates: Mapping[str, Mapping[str, Any] | None]) -> dict[str, float | None]:
    """Each estimate with both ends of its interval."""
    row: dict[str, float | None] = {}
    for name, estimate in estimates.items():
        interval = None if estimate is None else estimate["interval"]
        row[name] = None if estimate is None else estimate["estimate"]
        row[f"{name} low"] = None if interval is None else interval["low"]
        row[f"{name} high"] = None if interval is None else interval["high"]
    return row
