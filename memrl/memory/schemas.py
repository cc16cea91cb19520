"""The functions that a model may call: each declared once, as a schema and as its own checker.

The set is MemGPT's (Packer et al., arXiv 2310.08560v2, section 2.3; memgpt/presets.py of its
version 0.1.12) without timers, and with `retrieve` and `evict`, which move single pages. A
declaration gives the JSON schema that a server or a constrained decoder reads, and checks the
arguments that come back.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from typing import Any, Literal

from memrl.memory.columns import LIMIT_INTEGER
from memrl.memory.refusals import Reason, RefusedError, quoted
from memrl.memory.results import parse_day

LIMIT_TEXT_CHARS = 100_000
"""Most characters of a text argument."""
HEARTBEAT = "request_heartbeat"

Kind = Literal["text", "date", "integer", "boolean"]


@dataclass(frozen=True, slots=True)
class Parameter:
    """One parameter of a function.

    Attributes:
        name: of the argument. kind: of its value; integers are 0 or more.
        description: for the model.
        is_required: whether a call without it is refused.
        may_be_blank: whether a text without a visible character is a value.
        choices: the only texts allowed; empty for any.
    """

    name: str
    kind: Kind
    description: str
    is_required: bool = True
    may_be_blank: bool = False
    choices: tuple[str, ...] = ()

    def schema(self) -> dict[str, Any]:
        """JSON schema of the value."""
        schema: dict[str, Any] = {"type": "string", "description": self.description}
        if self.kind in ("integer", "boolean"):
            schema["type"] = self.kind
        if self.kind == "integer":
            schema |= {"minimum": 0, "maximum": LIMIT_INTEGER}
        if self.kind == "date":
            schema["format"] = "date"
        if self.choices:
            schema["enum"] = list(self.choices)
        elif self.kind == "text":
            schema |= {"minLength": 0 if self.may_be_blank else 1, "maxLength": LIMIT_TEXT_CHARS}
        return schema

    def check(self, value: object) -> None:
        """Raise RefusedError if the value is not one that the schema allows."""
        _CHECKS[self.kind](self, value)


def _check_boolean(parameter: Parameter, value: object) -> None:
    if not isinstance(value, bool):
        raise _wrong_type(parameter, value, "true or false")


def _check_integer(parameter: Parameter, value: object) -> None:
    # To Python a bool is an int, to JSON it is not.
    if not isinstance(value, int) or isinstance(value, bool):
        raise _wrong_type(parameter, value, "an integer")
    if not 0 <= value <= LIMIT_INTEGER:  # not quoted: it may have thousands of digits
        raise RefusedError(
            Reason.OUT_OF_RANGE, f"{parameter.name} must lie between 0 and {LIMIT_INTEGER}."
        )


def _check_text(parameter: Parameter, value: object) -> None:
    if not isinstance(value, str):
        raise _wrong_type(parameter, value, "a string")
    if parameter.choices and value not in parameter.choices:
        raise RefusedError(
            Reason.NOT_A_CHOICE,
            f"{parameter.name} must be one of {', '.join(parameter.choices)}, not {quoted(value)}.",
        )
    if len(value) > LIMIT_TEXT_CHARS:
        raise RefusedError(
            Reason.TEXT_TOO_LONG,
            f"{parameter.name} has {len(value):,} characters, above the limit of "
            f"{LIMIT_TEXT_CHARS:,}: give it in parts.",
        )
    if not parameter.may_be_blank and not value.strip():
        raise RefusedError(Reason.BLANK_TEXT, f"{parameter.name} must hold some text.")


def _check_date(parameter: Parameter, value: object) -> None:
    if not isinstance(value, str):
        raise _wrong_type(parameter, value, "a date, as the string YYYY-MM-DD")
    parse_day(parameter.name, value)


_CHECKS: dict[Kind, Callable[[Parameter, object], None]] = {
    "text": _check_text,
    "date": _check_date,
    "integer": _check_integer,
    "boolean": _check_boolean,
}


def _wrong_type(parameter: Parameter, value: object, expected: str) -> RefusedError:
    return RefusedError(
        Reason.WRONG_TYPE,
        f"{parameter.name} must be {expected}, not a value of type {type(value).__name__}.",
    )


@dataclass(frozen=True, slots=True)
class Function:
    """A function that a model may call.

    Attributes:
        name: unique. description: for the model.
        parameters: in the order shown.
    """

    name: str
    description: str
    parameters: tuple[Parameter, ...]

    def schema(self) -> dict[str, Any]:
        """The function as an OpenAI tool."""
        return {
            "type": "function",
            "function": {
                "name": self.name,
                "description": self.description,
                "parameters": {
                    "type": "object",
                    "properties": {p.name: p.schema() for p in self.parameters},
                    "required": [p.name for p in self.parameters if p.is_required],
                    "additionalProperties": False,
                },
            },
        }

    def check(self, arguments: Mapping[Any, object]) -> None:
        """Raise RefusedError unless the arguments are exactly what the schema allows."""
        known = {parameter.name: parameter for parameter in self.parameters}
        for name in arguments:
            if not isinstance(name, str) or name not in known:
                shown = quoted(name) if isinstance(name, str) else "that is no string"
                raise RefusedError(
                    Reason.UNKNOWN_ARGUMENT,
                    f"{self.name} has no argument {shown}: it takes {', '.join(known)}.",
                )
        for parameter in self.parameters:
            if parameter.name in arguments:
                parameter.check(arguments[parameter.name])
            elif parameter.is_required:
                raise RefusedError(
                    Reason.MISSING_ARGUMENT, f"{self.name} needs the argument {parameter.name}."
                )


def memory_functions(block_labels: Sequence[str]) -> dict[str, Function]:
    """Every function by its name.

    Args:
        block_labels: of the working context; without any, the two that edit it are left out.
    """
    functions = [
        Function(
            "send_message",
            "Say something to the user. Nothing else you write reaches them.",
            (Parameter("message", "text", "What the user will read."),),
        ),
        *(_block_functions(tuple(block_labels)) if block_labels else ()),
        *_SEARCHES_AND_MOVES,
    ]
    return {function.name: function for function in functions}


_HEARTBEAT = Parameter(
    HEARTBEAT,
    "boolean",
    "true to go on with another call once this one has run; false to wait for the next event.",
    is_required=False,
)
_PAGE = Parameter("page", "integer", "Which page of results, from 0.", is_required=False)


def _block_functions(labels: tuple[str, ...]) -> tuple[Function, ...]:
    label = Parameter("name", "text", "Label of the block.", choices=labels)
    return (
        Function(
            "core_memory_append",
            "Add a line to a block of working context, which you always see.",
            (label, Parameter("content", "text", "The line to add."), _HEARTBEAT),
        ),
        Function(
            "core_memory_replace",
            "Replace a text in a block of working context; an empty new text deletes it.",
            (
                label,
                Parameter("old_content", "text", "Exactly as it stands there, and only once."),
                Parameter("new_content", "text", "What takes its place.", may_be_blank=True),
                _HEARTBEAT,
            ),
        ),
    )


_SEARCHES_AND_MOVES = (
    Function(
        "conversation_search",
        "Search what you and the user said, also what has left this context, by its words. Calls, "
        "their results and system messages are not searched.",
        (Parameter("query", "text", "Words to look for."), _PAGE, _HEARTBEAT),
    ),
    Function(
        "conversation_search_date",
        "List what you and the user said between two days, both included; no calls, results or "
        "system messages.",
        (
            Parameter("start_date", "date", "First day, YYYY-MM-DD."),
            Parameter("end_date", "date", "Last day, YYYY-MM-DD."),
            _PAGE,
            _HEARTBEAT,
        ),
    ),
    Function(
        "archival_memory_insert",
        "Write a text to archival storage, to be found by its meaning later.",
        (Parameter("content", "text", "A text that can be understood alone."), _HEARTBEAT),
    ),
    Function(
        "archival_memory_search",
        "Search archival storage by meaning.",
        (Parameter("query", "text", "What the text sought is about."), _PAGE, _HEARTBEAT),
    ),
    Function(
        "retrieve",
        "Bring one message back into this context, whole, by the page id that a search showed.",
        (Parameter("page_id", "integer", "Page id of the message."), _HEARTBEAT),
    ),
    Function(
        "evict",
        "Take one message out of this context to make room; it can still be found by searching.",
        (Parameter("page_id", "integer", "Page id of the message."), _HEARTBEAT),
    ),
)
