"""The observation rendered for an LLM: the same numbers, the text of the pages, the legal actions.

A prompted policy thus has what a learned policy has, and nothing else; the text of candidates,
which a learned policy never reads, is tokens that an LLM has to pay for.
"""

from __future__ import annotations

from collections.abc import Collection, Mapping, Sequence
from dataclasses import dataclass

from torch import Tensor

from memrl.actions import ActionLayout, Op
from memrl.observation import FEATURES, GLOBALS

_HIDDEN_FEATURES = {"occupied"}
_COLUMN = {name: position for position, name in enumerate(GLOBALS)}


@dataclass(frozen=True, slots=True)
class ShownTexts:
    """The texts that belong to one observation; ids are not among them.

    Attributes:
        slots: (N,) text of the page in each slot row, None for none.
        candidates: (K,) text of each candidate, None for none.
        query: the query at hand, or None under pressure.
    """

    slots: tuple[str | None, ...]
    candidates: tuple[str | None, ...]
    query: str | None


def observation_text(
    observation: Mapping[str, Tensor], layout: ActionLayout, texts: ShownTexts
) -> str:
    """Render one observation (without batch axis).

    Args:
        observation: `slots` (N, F), `candidates` (K, F), `globals` (G,), `action_mask` (A,).
        layout: the action space.
        texts: what stands in its rows.
    """
    situation = observation["globals"]
    lines = [_headline(situation, texts.query), numbers_text(GLOBALS, situation)]
    lines += ["", "Main context:"]
    lines += _rows("slot", observation["slots"], texts.slots)
    lines += ["", "Candidates from external storage:"]
    lines += _rows("candidate", observation["candidates"], texts.candidates) or ["(none)"]
    lines += ["", "Legal actions:"]
    for action in observation["action_mask"].nonzero().flatten().tolist():
        lines.append(f"{action}: {describe_action(layout, action)}")
    return "\n".join(lines)


def describe_action(layout: ActionLayout, action: int) -> str:
    """Name an action, for instance "RETRIEVE candidate 3"."""
    op, row = layout.decode(action)
    if op in (Op.YIELD, Op.NEXT):
        return op.name
    return f"{op.name} {'candidate' if op is Op.RETRIEVE else 'slot'} {row}"


def _headline(situation: Tensor, query_text: str | None) -> str:
    if situation[_COLUMN["under_pressure"]] > 0:
        return "A new page has arrived and main context is full. YIELD lets the victim go."
    if query_text is None:
        return "The episode has ended."
    return f"A question is asked: {query_text}\nYIELD answers it from main context."


def numbers_text(names: Sequence[str], values: Tensor, *, hidden: Collection[str] = ()) -> str:
    """The features that are not 0, by name; of one that is 1, the name alone.

    Args:
        names: of the features. values: (len(names),). hidden: names to leave out.
    """
    shown = [
        name if value == 1.0 else f"{name} {value:.3f}"
        for name, value in zip(names, values.tolist(), strict=True)
        if value != 0.0 and name not in hidden
    ]
    return ", ".join(shown)


def _rows(label: str, features: Tensor, texts: Sequence[str | None]) -> list[str]:
    lines = []
    for row, (values, text) in enumerate(zip(features, texts, strict=True)):
        if text is not None:
            numbers = numbers_text(FEATURES, values, hidden=_HIDDEN_FEATURES)
            lines.append(f"[{label} {row}] {text}\n    ({numbers})")
    return lines
