"""The tables of a report as columns and rows of text, for the terminal and the page."""

from __future__ import annotations

import shlex
from collections.abc import Mapping, Sequence
from typing import Any

from memrl.evaluation import stats, terminal, verdict
from memrl.evaluation.report.conditions import Condition
from memrl.evaluation.report.numbers import shown

Table = tuple[str, list[str], list[list[str]]]
"""Title, columns and rows."""


def quality_table(numbers: Mapping[str, Any]) -> Table:
    """What each policy reaches, in the order in which they played."""
    measure, is_cache = numbers["measure"], numbers["measure"] == "hit ratio"
    bounds = [*numbers["policies"][0]["regret"]]
    columns = ["policy", measure, "95 % interval", "IQM", "95 % interval", "normalised"]
    columns += ["95 % interval", *(f"regret to {bound}" for bound in bounds)]
    if not is_cache:
        columns += ["recall", "tokens read / q"]
    columns += ["operations / q", "policy ms / q"]
    rows = []
    for row in numbers["policies"]:
        cells = [row["shown_as"], *shown(row["mean"]), *shown(row["iqm"])]
        cells += [*shown(row["normalized_score"])]
        cells += [shown(row["regret"][bound])[0] for bound in bounds]
        if not is_cache:
            cells += [shown(row["evidence_recall"])[0]]
            cells += [f"{row['tokens_read_per_question']:.0f}"]
        cells += [f"{row['operations_per_question']:.2f}"]
        rows.append([*cells, f"{row['policy_ms_per_question']:.2g}"])
    return f"{measure} of every policy; {rests_on(numbers)}", columns, rows


def paired_table(numbers: Mapping[str, Any]) -> Table:
    """Differences of the policies in focus, on the same episodes."""
    columns = ["policy", "less", "difference", "95 % interval", "t-interval", "better / worse"]
    columns += ["P(improvement)", "95 % interval", "gap closed", "95 % interval"]
    rows = []
    for pair in numbers["paired"]:
        t_interval, sign = pair["t_interval"], pair["sign_test"]
        over_t = "-"
        if t_interval is not None:
            over_t = f"{t_interval['low']:+.3f}..{t_interval['high']:+.3f}"
        rows.append(
            [
                *(pair["policy"], pair["control"]),
                *shown(pair["difference"], "+"),
                over_t,
                "-" if sign is None else _signs(sign),
                *shown(pair["probability_of_improvement"]),
                *shown(pair["gap_closed"]),
            ]
        )
    return f"paired differences in {numbers['measure']}; {rests_on(numbers)}", columns, rows


def _signs(sign: Mapping[str, Any]) -> str:
    """In how many documents it is better and worse, and the p-value of the sign test."""
    p_value = sign["p_value"]
    text = "<0.001" if p_value < 0.001 else f"{p_value:.3f}"
    return f"{sign['num_positive']} / {sign['num_negative']} (p {text})"


def document_table(numbers: Mapping[str, Any]) -> Table | None:
    """Values of each document, where these are too few for an interval; None where they are not."""
    if len(numbers["documents"]) >= stats.MIN_CLUSTERS:
        return None
    rows = [
        [row["shown_as"], *(f"{value:.3f}" for value in row["by_document"].values())]
        for row in numbers["policies"]
    ]
    return f"{numbers['measure']} by {numbers['cluster']}", ["policy", *numbers["documents"]], rows


def rests_on(numbers: Mapping[str, Any]) -> str:
    """The counts that stand beside intervals, and why there are none where there are none."""
    count, seeds = len(numbers["documents"]), len(numbers["seeds"])
    unit = numbers["cluster"]
    text = f"{count} {unit}{'s' if count > 1 else ''}, {seeds} seed{'s' if seeds > 1 else ''}"
    if count == 1:
        return text + f": of one {unit} alone no interval can be given"
    if count < stats.MIN_CLUSTERS:
        return text + f": fewer than {stats.MIN_CLUSTERS} {unit}s, no interval is given"
    return text


def condition_tables(condition: Condition, numbers: Mapping[str, Any]) -> list[Table]:
    """All tables of a condition, those that only some workloads have at the end."""
    made = [quality_table(numbers), paired_table(numbers), document_table(numbers)]
    tables = [table for table in made if table is not None and table[2]]
    return tables + terminal.detail_tables(condition.results)


def verdicts(condition: Condition, numbers: Mapping[str, Any]) -> list[str]:
    """Whether what was learned beats the best heuristic.

    By an interval that holds both that of the results, over documents alone, and that of the
    report's resamples: the one is too narrow where training seeds differ, the other where there are
    few documents.
    """
    drawn = {(pair["policy"], pair["control"]): pair for pair in numbers["paired"]}
    results, paired = condition.results, []
    for pair in results["paired"]:
        other = drawn.get((pair["policy"], pair["control"]))
        interval = None if other is None else other["difference"]["interval"]
        paired.append({**pair, "interval": hull(pair["interval"], interval)})
    best = results["best_heuristic"]
    if best is not None:
        best = {**best, "verdicts": verdict.verdicts(results["policies"], paired)}
    return verdict.sentences(
        {**results, "paired": paired, "best_heuristic": best}, terminal.cluster_name(results)
    )


def hull(
    first: Mapping[str, Any] | None, second: Mapping[str, Any] | None
) -> Mapping[str, Any] | None:
    """The interval that holds both; the first where there is one alone."""
    if first is None or second is None:
        return first
    low, high = min(first["low"], second["low"]), max(first["high"], second["high"])
    return {**first, "low": low, "high": high}


def runs_table(conditions: Sequence[Condition]) -> Table:
    """Where the records come from."""
    rows = []
    for condition in conditions:
        for run in condition.runs:
            commit = "unknown" if run.commit is None else run.commit[:12]
            test = run.data.get("tables", {}).get("test")
            rows.append(
                [
                    run.folder.as_posix(),
                    condition.label,
                    ", ".join(map(str, run.seeds)),
                    commit + (" with changes" if run.is_dirty else ""),
                    "-" if test is None else test[:12],
                    shlex.join(run.start.get("command", [])),
                ]
            )
    columns = ["run", "condition", "seed", "commit", "test data", "command"]
    return "", columns, rows
