"""How a decision is put to a model that picks one legal action: a compact view and a full one.

First the operation is asked for, then, where it could go to several pages, its argument; so every
legal action can be chosen, and no question has more choices than there are rows. Rows have the
numbers that they have in the observation. The compact view shows texts alone, few of them and
shortened, behind examples: what small models can follow. The full one shows
`memrl.observation_text`.
"""

from __future__ import annotations

import json
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from typing import Literal

from torch import Tensor

from memrl.actions import ActionLayout, Op
from memrl.flags import first_true
from memrl.llm import prompts
from memrl.llm.backend import ChatMessage, Request
from memrl.memory.display import make_display
from memrl.memory.tokens import count_tokens, truncate
from memrl.observation_text import ShownTexts, describe_action, observation_text
from memrl.policies.base import FEATURE

ViewName = Literal["compact", "full"]

MOST_SHOWN = 3
"""Messages and notes that the compact view shows where an operation is asked for."""
LINE_TOKENS = 48
"""Most tokens of a text in the compact view, unless told otherwise."""
REPLY_TOKENS = 24
"""Room for any choice, in any tokenizer."""
_CUT = "..."

_display = make_display()


@dataclass(frozen=True)
class Decision:
    """One decision of one row.

    Attributes:
        observation: without batch axis. layout: the action space. texts: what stands in the rows.
        legal: operations that are legal -> rows that they may go to (0 for YIELD and NEXT).
        line_tokens: most tokens of a text in the compact view.
    """

    observation: Mapping[str, Tensor]
    layout: ActionLayout
    texts: ShownTexts
    legal: Mapping[Op, tuple[int, ...]]
    line_tokens: int = LINE_TOKENS

    @classmethod
    def of(
        cls,
        observation: Mapping[str, Tensor],
        action_mask: Tensor,
        layout: ActionLayout,
        texts: ShownTexts,
        line_tokens: int = LINE_TOKENS,
    ) -> Decision:
        """The decision with this mask, (A,) bool."""
        legal: dict[Op, list[int]] = {}
        for action in action_mask.nonzero().flatten().tolist():
            op, row = layout.decode(action)
            legal.setdefault(op, []).append(row)
        rows = {op: tuple(own) for op, own in legal.items()}
        seen = dict(observation) | {"action_mask": action_mask}
        return cls(seen, layout, texts, rows, line_tokens)

    def quoted(self, text: str | None) -> str:
        """A text on one line, shortened, which cannot end its own quotation."""
        short = truncate(_display(text or ""), self.line_tokens, count_tokens, marker=_CUT)
        return json.dumps(short, ensure_ascii=False)

    @property
    def at_query(self) -> bool:
        """Whether a question is asked; otherwise memory is under pressure."""
        return self.texts.query is not None

    @property
    def arriving_row(self) -> int:
        """Slot row of the page that waits to be let in."""
        return self.layout.num_rows - 1


def _compact_operations(decision: Decision) -> Request:
    choices = tuple(_phrase(decision, op, rows) for op, rows in decision.legal.items())
    if decision.at_query:
        instructions, examples = prompts.QUERY_INSTRUCTIONS, prompts.QUERY_EXAMPLES
    else:
        instructions, examples = prompts.PRESSURE_INSTRUCTIONS, prompts.PRESSURE_EXAMPLES
    return _asked(instructions, examples, _situation(decision), choices)


def _compact_arguments(decision: Decision, op: Op) -> Request:
    rows = decision.legal[op]
    names = [_row_name(decision, op, row) for row in rows]
    texts = decision.texts.candidates if op is Op.RETRIEVE else decision.texts.slots
    lines = [f"question {decision.quoted(decision.texts.query)}"] if decision.at_query else []
    lines += [
        f"{name}: {decision.quoted(texts[row])}" for name, row in zip(names, rows, strict=True)
    ]
    return _asked(
        prompts.ARGUMENT_INSTRUCTIONS[op.name],
        prompts.ARGUMENT_EXAMPLES[op.name],
        "\n".join(lines),
        _ended(names),
    )


def _full_operations(decision: Decision) -> Request:
    layout = decision.layout
    choices = tuple(
        describe_action(layout, layout.encode(op, rows[0])) if len(rows) == 1 else op.name
        for op, rows in decision.legal.items()
    )
    return _asked(prompts.FULL_INSTRUCTIONS, (), _whole(decision), choices)


def _full_arguments(decision: Decision, op: Op) -> Request:
    layout = decision.layout
    names = [describe_action(layout, layout.encode(op, row)) for row in decision.legal[op]]
    return _asked(prompts.FULL_INSTRUCTIONS, (), _whole(decision), _ended(names))


def _ended(names: Sequence[str]) -> tuple[str, ...]:
    """End each name: "note 1" would be as likely as "note 10" and all that begin like it."""
    return tuple(f"{name}." for name in names)


@dataclass(frozen=True)
class View:
    """How decisions are put.

    Attributes:
        operations: asks for the operation: a choice for each of `Decision.legal`, in its order.
        arguments: asks for the row of an operation: a choice for each of its rows, in their order.
    """

    operations: Callable[[Decision], Request]
    arguments: Callable[[Decision, Op], Request]


VIEWS: dict[ViewName, View] = {
    "compact": View(_compact_operations, _compact_arguments),
    "full": View(_full_operations, _full_arguments),
}


# ---------------------------------------------------------------------- requests


def _asked(
    instructions: str, examples: prompts.Examples, situation: str, choices: tuple[str, ...]
) -> Request:
    lines = [instructions, *(["Examples:"] if examples else [])]
    lines += [f"{example} -> {choice}" for example, choice in examples]
    lines.append(f"Reply with one of: {', '.join(choices)}.")
    messages = (ChatMessage("system", "\n".join(lines)), ChatMessage("user", f"{situation} ->"))
    return Request(messages, choices=choices, max_reply_tokens=REPLY_TOKENS)


def without_situation(request: Request) -> Request:
    """The same question about a situation that tells nothing."""
    system, _ = request.messages
    messages = (system, ChatMessage("user", f"{prompts.NOTHING} ->"))
    return Request(messages, choices=request.choices, max_reply_tokens=REPLY_TOKENS)


# ---------------------------------------------------------------------- compact


def _phrase(decision: Decision, op: Op, rows: Sequence[int]) -> str:
    if op is Op.YIELD:
        return "answer" if decision.at_query else "let go"
    if op is Op.NEXT:
        return "look for others"
    if op is Op.STORE and len(rows) == 1 and not decision.at_query:
        return "keep"
    if len(rows) > 1:
        return f"{_VERBS[op]} a {'note' if op is Op.RETRIEVE else 'message'}"
    return f"{_VERBS[op]} {_row_name(decision, op, rows[0])}"


_VERBS = {
    Op.EVICT: "take out",
    Op.STORE: "keep",
    Op.SEARCH: "search from",
    Op.RETRIEVE: "bring back",
}


def _row_name(decision: Decision, op: Op, row: int) -> str:
    if op is Op.RETRIEVE:
        return f"note {row}"
    if row == decision.arriving_row and not decision.at_query:
        return "the new message"
    return f"message {row}"


def _situation(decision: Decision) -> str:
    slots, candidates = decision.texts.slots, decision.texts.candidates
    features = decision.observation
    if decision.at_query:
        asked = decision.quoted(decision.texts.query)
        in_view = _shown(decision, features["slots"], slots)
        found = _shown(decision, features["candidates"], candidates)
        return f"question {asked} | in view: {in_view} | found: {found}"
    victim = first_true(features["slots"][None, :, FEATURE["victim"]] > 0)
    situation = f"oldest message {decision.quoted(slots[int(victim)])}"
    if Op.EVICT in decision.legal:
        situation += f" | new message {decision.quoted(slots[decision.arriving_row])}"
    return situation


def _shown(decision: Decision, features: Tensor, texts: Sequence[str | None]) -> str:
    """The texts of the rows that score best against the focus, ties by row."""
    scores = features[:, FEATURE["dense"]] + features[:, FEATURE["lexical"]]
    order = scores.argsort(descending=True, stable=True).tolist()
    best = [row for row in order if texts[row] is not None][:MOST_SHOWN]
    return ", ".join(decision.quoted(texts[row]) for row in best) or "nothing"


# ---------------------------------------------------------------------- full


def _whole(decision: Decision) -> str:
    def on_a_line(text: str | None) -> str | None:
        return None if text is None else " ".join(_display(text).split())

    texts = ShownTexts(
        tuple(map(on_a_line, decision.texts.slots)),
        tuple(map(on_a_line, decision.texts.candidates)),
        on_a_line(decision.texts.query),
    )
    return observation_text(decision.observation, decision.layout, texts)
