"""A line of `episodes.jsonl`, checked field by field against the types of what it was made from."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any, ClassVar

from pydantic import ConfigDict, TypeAdapter, ValidationError

from memrl.evaluation.play import EpisodeRecord
from memrl.policies.base import Kind
from memrl.run_files import first_mistake


@dataclass
class EntryLine:
    """One episode of one contestant; see `Entry` for what the fields are."""

    __pydantic_config__: ClassVar[ConfigDict] = ConfigDict(
        strict=True, extra="forbid", allow_inf_nan=False
    )
    policy: str
    kind: Kind
    is_privileged: bool
    overrides: dict[str, Any]
    seed: int
    run: int
    settings: dict[str, Any]
    validation: float | None
    notes: dict[str, Any]
    record: EpisodeRecord


_ADAPTER = TypeAdapter(EntryLine)
# Until November 2026 two steps were not counted, and two of these had other names.
_OLD_FUNNEL = {"absent": "absent", "stored": "kept", "staged": "staged", "retrieved": "used"}


def entry_line(text: str) -> EntryLine:
    """Read a line.

    Raises:
        ValueError: if it is no JSON, or lacks a field, or has one more or one of another type, or a
            number is not finite, or a count is negative, or a sum has no number beside it.
    """
    try:
        line = _ADAPTER.validate_json(text)
    except ValidationError as error:
        raise ValueError(first_mistake(error)) from error
    record = line.record
    if record.funnel.keys() == _OLD_FUNNEL.keys():
        record.funnel = {_OLD_FUNNEL[step]: count for step, count in record.funnel.items()}
    counts = {
        name: getattr(record, name)
        for name in ("num_queries", "num_scored", "illegal", "decisions", "events", "decision_s")
    }
    counts |= {name: getattr(record, name) for name in ("tokens_read", "tokens_retrieved")}
    counts |= {"requests": record.requests, "hits": record.hits, "run": line.run}
    negative = [name for name, count in counts.items() if count < 0]
    if negative:
        raise ValueError(f"{negative[0]}: a count cannot be negative")
    scores = [record.evidence_by_category, record.answer_scores]
    for sums in [*scores, *record.answer_scores_by_category.values()]:
        for name, pair in sums.items():
            if len(pair) != 2:
                raise ValueError(f"{name}: a sum and a number are due")
    return line
