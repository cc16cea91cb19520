"""Tables of runs in which a language model plays or reads.

Answers and accuracy against budget; what a decision takes, learned beside prompted; why queries
were missed.
"""

from __future__ import annotations

import math
from collections import Counter
from collections.abc import Mapping, Sequence
from typing import Any

from memrl.evaluation.best_read import has_role
from memrl.evaluation.model_notes import COSTS, MISSED, READER, TIMING
from memrl.evaluation.reader_lineup import SAID
from memrl.llm.costs import merged_costs
from memrl.memory.accounting import Durations
from memrl.policies.prompted_log import Failure

Table = tuple[str, list[str], list[list[str]]]
"""Title, columns and rows of text."""
_OF_PAGES = ("evidence_recall", "support", "joint")


def tables(results: Mapping[str, Any]) -> list[Table]:
    """What there is to show of a model; tables without rows where none was asked.

    Args:
        results: of `memrl.evaluation.summary.summarize`.
    """
    return [
        _answers(results),
        _by_category(results),
        _by_budget(results),
        _decisions(results),
        _readers(results),
        _misses(results),
    ]


def _answers(results: Mapping[str, Any]) -> Table:
    """Scores of the reader's answers, and of what players said themselves."""
    answered = [(row["name"], *own) for row in _read(results) for own in _by(row)]
    measures = _measures([scores for _, _, scores in answered])
    rows = [
        [name, by, *(_interval(scores.get(measure)) for measure in measures)]
        for name, by, scores in answered
    ]
    return "scores of answers, mean and 95 % interval", ["policy", "answered by", *measures], rows


def _read(results: Mapping[str, Any]) -> list[Mapping[str, Any]]:
    """Whom the reader answers for: the best of each kind under names that say so, and the others.

    A policy that some run chose as the best has answers of that run alone.
    """
    best = []
    for row in results["best_read"]:
        counts = Counter(row["policies"])
        chosen = ", ".join(counts)
        if len(counts) > 1:
            chosen = ", ".join(f"{count} x {name}" for name, count in counts.most_common())
        best.append({**row, "name": f"{row['name']} (chosen on validation): {chosen}"})
    return best + [policy for policy in results["policies"] if not has_role(policy)]


def _by_category(results: Mapping[str, Any]) -> Table:
    """The same by category of the question, a mean over questions; empty where all are of one."""
    rows, heads = [], dict[tuple[str, str], None]()
    for policy in _read(results):
        own: dict[str, dict[tuple[str, str], float]] = {}
        for category, scores in policy["answers_by_category"].items():
            for measure, score in scores.items():
                by, name = _who(measure)
                own.setdefault(by, {})[category, name] = score["mean"]
        heads |= dict.fromkeys(key for scores in own.values() for key in scores)
        rows += [(policy["name"], by, scores) for by, scores in own.items()]
    keys = [key for key in heads if key[1] in _measures([dict.fromkeys(n for _, n in heads)])]
    cells = [
        [name, by, *(f"{scores[key]:.3f}" if key in scores else "-" for key in keys)]
        for name, by, scores in rows
    ]
    if len({category for category, _ in keys}) < 2:
        cells = []
    columns = [f"{category}: {measure}" for category, measure in keys]
    return "scores of answers by category", ["policy", "answered by", *columns], cells


def _by_budget(results: Mapping[str, Any]) -> Table:
    """Accuracy of the references against the tokens that may be read."""
    points = results["by_budget"]
    measures = _measures([point["answers"] for point in points])
    rows = [
        [
            point["reference"].replace("_", " "),
            "window" if point["budget_tokens"] is None else str(point["budget_tokens"]),
            f"{point['tokens_read_per_question']:.0f}",
            _interval(point["evidence_recall"]),
            *(_interval(point["answers"].get(measure)) for measure in measures),
        ]
        for point in points
    ]
    heads = ["reference", "budget, tokens", "tokens read / q", "evidence recall", *measures]
    return "accuracy against token budget, without paging", heads, rows


def _decisions(results: Mapping[str, Any]) -> Table:
    """What a decision takes: of a model its own seconds and tokens, of others their seconds."""
    rows = []
    for policy in results["policies"]:
        costs, timing = (_noted(policy, key) for key in (COSTS, TIMING))
        if costs:
            told = merged_costs(costs)
            rows.append([policy["name"], *_seconds(told["decisions"], costs), *_asked(told)])
        elif timing:
            count = sum(own["decisions"] for own in timing)
            rows.append([policy["name"], *_seconds(count, timing), *["-"] * len(_ASKED_HEADS)])
    heads = ["policy", "decisions", "s / decision p50", "p95", *_ASKED_HEADS]
    return "what a decision takes, seconds amortised over a batch", heads, rows


def _readers(results: Mapping[str, Any]) -> Table:
    """The same of a reader, whose decisions are answers."""
    rows = []
    for policy in _read(results):
        costs = [own[COSTS] for own in _noted(policy, READER)]
        if costs:
            told = merged_costs(costs)
            rows.append([policy["name"], *_seconds(told["decisions"], costs), *_asked(told)])
    heads = ["read for", "answers", "s / answer p50", "p95", *_ASKED_HEADS]
    return "what reading takes", heads, rows


_ASKED_HEADS = (
    *("calls", "prompt tokens", "of these cached", "reply tokens", "tokens / decision"),
    *("tokens / q", "failed calls", "parse failures"),
)


def _asked(told: Mapping[str, Any]) -> list[str]:
    tokens = told["prompt_tokens"] + told["reply_tokens"]
    of_decision, of_query = tokens / max(told["decisions"], 1), told["tokens_per_query"]
    return [
        *(f"{told[name]:,}" for name in ("calls", "prompt_tokens", "cached_tokens")),
        f"{told['reply_tokens']:,}",
        f"{of_decision:,.0f}",
        "-" if of_query is None else f"{of_query:,.0f}",
        str(sum(told["failures"].values())),
        str(told["parse_failures"]),
    ]


def _seconds(count: int, told: Sequence[Mapping[str, Any]]) -> list[str]:
    """Decisions, and two quantiles of their seconds, over all runs."""
    durations = Durations()
    for own in told:
        durations.include(own["durations"])
    quantiles = [durations.quantile(fraction) for fraction in (0.5, 0.95)]
    return [f"{count:,}", *map(_two_digits, quantiles)]


def _two_digits(seconds: float) -> str:
    """As many as hold: quantiles are within 4.5 %."""
    if math.isnan(seconds):
        return "-"
    return f"{seconds:.0f}" if seconds >= 100 else f"{seconds:.2g}"


def _misses(results: Mapping[str, Any]) -> Table:
    """How many of the queries that pay evidence were missed for which reason."""
    rows = []
    for policy in results["policies"]:
        counts = Counter[str]()
        for own in _noted(policy, MISSED):
            counts.update(own)
        if counts["scored"]:
            missed = counts.total() - counts["scored"]
            reasons = [str(counts[str(reason)]) for reason in Failure]
            rows.append([policy["name"], f"{missed} of {counts['scored']}", *reasons])
    heads = ["policy", "missed", *(str(reason).replace("_", " ") for reason in Failure)]
    return "why queries were missed", heads, rows


def _noted(policy: Mapping[str, Any], key: str) -> list[Any]:
    """What the runs noted under a key."""
    return [notes[key] for notes in policy["notes"] if key in notes]


def _by(policy: Mapping[str, Any]) -> list[tuple[str, dict[str, Any]]]:
    """Who answered, with the scores by measure."""
    answered: dict[str, dict[str, Any]] = {}
    for measure, summary in policy["answers"].items():
        by, name = _who(measure)
        answered.setdefault(by, {})[name] = summary
    return list(answered.items())


def _who(measure: str) -> tuple[str, str]:
    """Who answered, and the measure's own name."""
    is_said = measure.startswith(SAID)
    return ("the player" if is_said else "the reader"), measure.removeprefix(SAID)


def _measures(scores: Sequence[Mapping[str, Any]]) -> list[str]:
    """Measures of answers; those of the pages that were read are in the results alone."""
    names = dict.fromkeys(name for own in scores for name in own)
    return [name for name in names if not any(part in name for part in _OF_PAGES)]


def _interval(summary: Mapping[str, Any] | None) -> str:
    if summary is None:
        return "-"
    interval = summary["interval"]
    certain = f" ({interval['low']:.3f}..{interval['high']:.3f})" if interval else ""
    return f"{summary['estimate']:.3f}{certain}"
