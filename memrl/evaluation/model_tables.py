"""Tables of runs in which a language model plays or reads: answers, and accuracy against budget."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Any

from memrl.evaluation.reader_lineup import SAID

Table = tuple[str, list[str], list[list[str]]]
"""Title, columns and rows of text."""
_OF_PAGES = ("evidence_recall", "support", "joint")


def tables(results: Mapping[str, Any]) -> list[Table]:
    """What there is to show of a model; tables without rows where none was asked.

    Args:
        results: of `memrl.evaluation.summary.summarize`.
    """
    return [_answers(results), _by_category(results), _by_budget(results)]


def _answers(results: Mapping[str, Any]) -> Table:
    """Scores of the reader's answers, and of what players said themselves."""
    answered = [(policy["name"], *own) for policy in results["policies"] for own in _by(policy)]
    measures = _measures([scores for _, _, scores in answered])
    rows = [
        [name, by, *(_interval(scores.get(measure)) for measure in measures)]
        for name, by, scores in answered
    ]
    return "scores of answers, mean and 95 % interval", ["policy", "answered by", *measures], rows


def _by_category(results: Mapping[str, Any]) -> Table:
    """The same by category of the question, a mean over questions."""
    rows, heads = [], dict[tuple[str, str], None]()
    for policy in results["policies"]:
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
