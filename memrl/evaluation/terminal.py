"""The results table in the terminal, and the same as Markdown."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Any

from rich.console import Console
from rich.table import Table

from memrl.evaluation import by_category, model_tables, retrieval, verdict
from memrl.evaluation.lineup import FLOORS, LEARNED, LEARNED_OFFSET

CONSOLE_WIDTH = 197
TABLE_WIDTH = 185
"""Columns of text that the whole table needs."""

FOCUS = (LEARNED, LEARNED_OFFSET)
"""Policies whose paired differences are printed; the results file has all of them."""

COLUMNS = (
    "policy",
    "reward / question",
    "95 % interval",
    "recall",
    "normalised",
    "validation",
    "stores / q",
    "retrieves / q",
    "other ops / q",
    "tokens read / q",
    "policy us / decision",
)
CACHE_COLUMNS = (
    "policy",
    "hit ratio",
    "95 % interval",
    "normalised",
    "validation",
    "decisions / request",
    "policy us / decision",
)
"""The same for page caches, where nothing is stored and operations cost nothing."""


def columns(results: Mapping[str, Any]) -> tuple[str, ...]:
    """Heads of `table_rows`."""
    return CACHE_COLUMNS if results["played"]["workload"] == "page_cache" else COLUMNS


def table_rows(results: Mapping[str, Any]) -> list[list[str]]:
    """One row of text per policy and one of the best heuristic, in the order of `columns`."""
    is_cache = results["played"]["workload"] == "page_cache"
    return [(_cache_row if is_cache else _row)(policy) for policy in _shown_policies(results)]


def _shown_policies(results: Mapping[str, Any]) -> list[Mapping[str, Any]]:
    """The policies, and behind the heuristics the best one under the name that says so."""
    policies, best = [*results["policies"]], results["best_heuristic"]
    if best is not None:
        place = sum(policy["kind"] == "heuristic" for policy in policies)
        policies.insert(place, {**best, "name": verdict.title(best)})
    return policies


def print_table(results: Mapping[str, Any], title: str, console: Console | None = None) -> None:
    """Print the results; what the intervals rest on stands below.

    A console too narrow for a table gets one paragraph per policy, so that no number is cut.
    """
    console = console or Console(width=CONSOLE_WIDTH)
    if console.width < TABLE_WIDTH:
        console.print(title, style="bold")
        for row in table_rows(results):
            pairs = zip(columns(results)[1:], row[1:], strict=True)
            console.print(f"\n{row[0]}\n" + ", ".join(f"{name} {cell}" for name, cell in pairs))
        console.print("\n" + "\n".join([footnote(results), *_verdicts(results)]))
        return
    table = Table(title=title, title_justify="left", header_style="bold", caption_justify="left")
    for column in columns(results):
        is_name = column == "policy"
        table.add_column(column, justify="left" if is_name else "right", no_wrap=not is_name)
    for row, policy in zip(table_rows(results), _shown_policies(results), strict=True):
        table.add_row(*row, style="dim" if policy["is_privileged"] else None)
    table.caption = footnote(results)
    console.print(table)
    console.print("\n".join(_verdicts(results)))


def print_paired(
    results: Mapping[str, Any], console: Console | None = None, *, all_pairs: bool = False
) -> None:
    """Print the differences between the learned policies and the others, document by document.

    Args:
        results: see `memrl.evaluation.summary.summarize`. console: where.
        all_pairs: print every pair of the results, whatever the policies are called.
    """
    table = Table(title="differences in reward / question, by document", title_justify="left")
    level = "95 % interval" if _has_blocks(results) else "95 % t-interval"
    for column in ("policy", "less", "mean", level, "better in", "sign p", "by document"):
        table.add_column(column, no_wrap=column != "by document")
    for pair in results["paired"]:
        # Two policies in focus are compared once: the later one less the earlier.
        name = pair["policy"]
        if all_pairs or (name in FOCUS and pair["control"] not in FOCUS[FOCUS.index(name) :]):
            table.add_row(*_paired_row(pair))
    (console or Console(width=CONSOLE_WIDTH)).print(table)


def print_details(results: Mapping[str, Any], console: Console | None = None) -> None:
    """Print the tables that only some workloads have (see `detail_tables`)."""
    for title, heads, rows in detail_tables(results):
        print_rows(title, heads, rows, console)


def print_rows(
    title: str,
    heads: Sequence[str],
    rows: Sequence[Sequence[str]],
    console: Console | None = None,
) -> None:
    """Print columns and rows of text as a table."""
    table = Table(title=title, title_justify="left")
    for column in heads:
        table.add_column(column)
    for row in rows:
        table.add_row(*row)
    (console or Console(width=CONSOLE_WIDTH)).print(table)


def detail_tables(results: Mapping[str, Any]) -> list[tuple[str, list[str], list[list[str]]]]:
    """Title, columns and rows of the tables that only some workloads have.

    By kind of question where every episode asks questions of one kind; support where main context
    holds what was retrieved and nothing else; recall@k of the rankings, which a run may add as
    `results["ranking_recall"]`; and those of a language model.
    """
    tables = [(f"by category: {by_category.cell(results)}", *by_category.table(results))]
    if results["played"]["workload"] == "document_qa":
        title = "pages in main context at the answer against the needs"
        tables.append((title, *retrieval.support_table(results["policies"])))
    recalls = results.get("ranking_recall", {})
    tables.append(("what the first k pages of a ranking hold", *retrieval.recall_table(recalls)))
    tables += model_tables.tables(results)
    return [table for table in tables if table[2]]


def _paired_row(pair: Mapping[str, Any]) -> list[str]:
    interval, differences, sign = pair["interval"], pair["cluster_differences"], pair["sign"]
    better = sum(value > 0 for value in differences.values())
    return [
        pair["policy"],
        pair["control"],
        f"{pair['estimate']:+.3f}",
        f"{interval['low']:+.3f}..{interval['high']:+.3f}" if interval else "-",
        f"{better}/{len(differences)}",
        f"{sign['p_value']:.3f}" if sign else "-",
        " ".join(f"{value:+.2f}" for value in differences.values())
        if len(differences) < 20
        else "",
    ]


def markdown_table(results: Mapping[str, Any]) -> str:
    """The results as a Markdown table with its footnote, the verdicts, and `detail_tables`."""
    lines = [*markdown_rows(columns(results), table_rows(results)), "", footnote(results), ""]
    lines += [f"- {sentence}" for sentence in _verdicts(results)]
    for title, heads, rows in detail_tables(results):
        lines += ["", f"{title[0].upper()}{title[1:]}.", "", *markdown_rows(heads, rows)]
    return "\n".join(lines)


def markdown_rows(columns: Sequence[str], rows: Sequence[Sequence[str]]) -> list[str]:
    """Lines of a Markdown table: text first, then numbers."""
    lines = [columns, ["---"] + ["---:"] * (len(columns) - 1), *rows]
    return ["| " + " | ".join(_cell(text) for text in line) + " |" for line in lines]


def _cell(text: str) -> str:
    return text.replace("|", "\\|").replace("\n", " ")


def footnote(results: Mapping[str, Any]) -> str:
    """What the numbers rest on."""
    clusters, seeds = len(results["clusters"]), results["num_seeds"]
    policies = results["policies"]
    unit = cluster_name(results)
    note = (
        f"{what_was_played(results['played'])}{_landmarks(policies)} "
        f"{clusters} {unit}{'s' if clusters > 1 else ''}, "
        f"{seeds} seed{'s' if seeds > 1 else ''}, "
        f"{policies[0]['episodes'] // seeds} episodes per seed."
    )
    if policies[0]["reward_per_question"]["interval"] is None:
        return note + f" Fewer than 6 {unit}s: no interval is given."
    if _has_blocks(results):
        return note + " Intervals: bootstrap over blocks, which begin with an empty cache."
    return note + f" Intervals: Student's t over {unit}s."


def what_was_played(played: Mapping[str, Any]) -> str:
    """Workload and options in a sentence; `played` of the results."""
    paging = played["paging"]
    if played["workload"] != "page_cache":
        return (
            f"{played['workload']}, ask {played['ask']}; capacity {paging['capacity']} "
            f"{paging['unit']}, archive {paging['archival_capacity']}, "
            f"stage_from {paging['stage_from']}, staging {paging['staging']}."
        )
    cache = played["parameters"]
    source = cache["trace"] if cache["source"] == "trace" else ", ".join(cache["kinds"])
    return (
        f"{played['workload']} ({source}), {cache['window_requests']} requests an episode; "
        f"capacity {paging['capacity']} {paging['unit']}, admission {paging['admission']}, "
        f"shown slots {_shown(paging['shown_slots'])}."
    )


def _shown(shown_slots: int | None) -> str:
    return "all" if shown_slots is None else f"{shown_slots} (rules and bound: all)"


def _landmarks(policies: Sequence[Mapping[str, Any]]) -> str:
    """What the validation column holds, which row is YIELD-only, and where there is no bound."""
    names = [policy["name"] for policy in policies]
    note = " Validation: reward where settings and the best heuristic were chosen."
    note += "".join(f" YIELD-only is the row '{name}'." for name in FLOORS if name in names)
    if not any(policy["kind"] == "bound" for policy in policies):
        note += " No bound is known for these options."
    return note


def _verdicts(results: Mapping[str, Any]) -> list[str]:
    return verdict.sentences(results, cluster_name(results))


def cluster_name(results: Mapping[str, Any]) -> str:
    """What one unit of statistics is called."""
    if _has_blocks(results):
        return "block"
    return "stream" if results["played"]["workload"] == "page_cache" else "document"


def _has_blocks(results: Mapping[str, Any]) -> bool:
    """Whether clusters are parts of one stream."""
    return bool(results["played"].get("split") == "halves")


def _name(policy: Mapping[str, Any]) -> str:
    name: str = policy["name"]
    options = {k: v for k, v in policy["overrides"].items() if k != "staging"}
    if options:
        name += " (" + ", ".join(f"{key}={value}" for key, value in options.items()) + ")"
    return name


def _estimate(summary: Mapping[str, Any]) -> list[str]:
    """Estimate and interval."""
    interval = summary["interval"]
    return [
        f"{summary['estimate']:.3f}",
        f"{interval['low']:.3f}..{interval['high']:.3f}" if interval else "-",
    ]


def _score(policy: Mapping[str, Any]) -> str:
    score = policy.get("normalized_score")
    return "-" if score is None else f"{score:.3f}"


def _validation(policy: Mapping[str, Any]) -> str:
    """Reward per question on validation, the mean over runs."""
    scores = [score for score in policy["validation"] if score is not None]
    return f"{sum(scores) / len(scores):.3f}" if scores else "-"


def _cache_row(policy: Mapping[str, Any]) -> list[str]:
    decisions = sum(policy["operations_per_question"].values())
    return [
        policy["name"],  # what rules see is in the footnote
        *_estimate(policy["hit_ratio"]),
        _score(policy),
        _validation(policy),
        f"{decisions:.2f}",
        f"{1e3 * policy['decision_ms']:.0f}",
    ]


def _row(policy: Mapping[str, Any]) -> list[str]:
    operations = policy["operations_per_question"]
    other = sum(operations[name] for name in ("next", "evict", "search"))
    return [
        _name(policy),
        *_estimate(policy["reward_per_question"]),
        f"{policy['evidence_recall']['estimate']:.3f}",
        _score(policy),
        _validation(policy),
        f"{operations['store']:.1f}",
        f"{operations['retrieve']:.1f}",
        f"{other:.1f}",
        f"{policy['tokens_read_per_question']:.0f}",
        f"{1e3 * policy['decision_ms']:.0f}",
    ]
