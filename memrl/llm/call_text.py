"""Tools, calls and results as text: what is written for a model, and what is read in its reply.

The plain form, for models whose chat template knows no tools: the schemas stand in the system text,
and a call is one JSON object, `{"name": ..., "arguments": {...}}`, with or without words around it.
Models whose template knows tools often write the same object between `<tool_call>` and
`</tool_call>`; both are read alike, whichever was asked for.
"""

from __future__ import annotations

import json
import re
from collections.abc import Iterator, Mapping, Sequence
from typing import Any

from memrl.llm.backend import ChatMessage, ToolCall

OPEN, CLOSE = "<tool_call>", "</tool_call>"

_INTRODUCTION = (
    "You can call the functions below. To call one, reply with nothing but one JSON object of the "
    'form {"name": <function>, "arguments": {<argument>: <value>, ...}}.'
)
_BLOCK = re.compile(f"{OPEN}(.*?){CLOSE}", re.DOTALL)
_FENCES = re.compile(r"```(?:json)?\s*```")
# The usual order of keys: the arguments are then kept as they were written, well formed or not.
_WRITTEN_CALL = re.compile(
    r'\s*\{\s*"name"\s*:\s*"([^"\\]*)"\s*,\s*"(?:arguments|parameters)"\s*:\s*(.*?)\s*\}\s*',
    re.DOTALL,
)
_DECODER = json.JSONDecoder()


def describe_tools(tools: Sequence[Mapping[str, Any]]) -> str:
    """What the system text of the plain form says of the tools."""
    schemas = (json.dumps(tool.get("function", tool), ensure_ascii=False) for tool in tools)
    return "\n".join([_INTRODUCTION, *schemas])


def call_text(name: str, arguments: str) -> str:
    """A call in the plain form; the arguments as they were written."""
    return f'{{"name": {json.dumps(name, ensure_ascii=False)}, "arguments": {arguments or "{}"}}}'


def plain_messages(
    messages: Sequence[ChatMessage], tools: Sequence[Mapping[str, Any]] = ()
) -> list[ChatMessage]:
    """The same chat without tools, calls and results: only system, user and assistant speak.

    Tools are described at the end of the first system message, which is made if there is none;
    calls stand in what the assistant says, and a result is said by the user, with its function.
    """
    plain: list[ChatMessage] = []
    names: dict[str, str] = {}
    for message in messages:
        if message.role == "tool":
            name = names.get(message.call_id, "the call")
            plain.append(ChatMessage("user", f"Result of {name}: {message.content}"))
            continue
        names |= {call.call_id: call.name for call in message.calls}
        calls = [call_text(call.name, call.arguments) for call in message.calls]
        said = [message.content] if message.content or not calls else []
        plain.append(ChatMessage(message.role, "\n".join([*said, *calls])))
    if tools:
        if plain[0].role != "system":
            plain.insert(0, ChatMessage("system", ""))
        system = f"{plain[0].content}\n\n{describe_tools(tools)}".lstrip("\n")
        plain[0] = ChatMessage("system", system)
    return plain


def read_calls(text: str) -> tuple[str, tuple[ToolCall, ...]]:
    """Split a reply into words and calls.

    A call between tags whose arguments are no JSON is still a call, so that whoever runs it can say
    what is wrong; text between tags that names no function, and a call that never ends, are words.

    Returns:
        The words, calls left out, and the calls in order.
    """
    if OPEN in text:
        found = [(block.span(), _written(block[1])) for block in _BLOCK.finditer(text)]
    else:
        found = list(_bare_calls(text))
    calls = tuple(call for _, call in found if call is not None)
    if not calls:
        return text.strip(), ()
    words, end = "", 0
    for (start, stop), call in found:
        if call is not None:
            words += text[end:start]
            end = stop
    words += text[end:]
    return _FENCES.sub("", words).strip(), calls


def holds_call(text: str) -> bool:
    """Whether a whole call stands in a reply."""
    return text.rstrip().endswith(("}", CLOSE)) and bool(read_calls(text)[1])


def _written(text: str) -> ToolCall | None:
    """The call that a block is, None if it names no function."""
    written = _WRITTEN_CALL.fullmatch(text)
    if written:
        return ToolCall(written[1], written[2])
    try:
        return _from_json(json.loads(text))
    except (ValueError, RecursionError):
        return None


def _bare_calls(text: str) -> Iterator[tuple[tuple[int, int], ToolCall]]:
    """Calls that stand in a text as JSON objects, with where they begin and end."""
    start = text.find("{")
    while start >= 0:
        try:
            value, end = _DECODER.raw_decode(text, start)
        except (ValueError, RecursionError):
            start = text.find("{", start + 1)
            continue
        if _from_json(value) is not None:
            call = _written(text[start:end])
            if call is not None:
                yield (start, end), call
        start = text.find("{", end)


def _from_json(value: object) -> ToolCall | None:
    if not isinstance(value, dict) or not isinstance(value.get("name"), str):
        return None
    # Llama 3 says parameters.
    arguments = value.get("arguments", value.get("parameters"))
    if arguments is None:
        return None
    # Some models write the arguments as a string that holds their JSON.
    text = arguments if isinstance(arguments, str) else json.dumps(arguments, ensure_ascii=False)
    return ToolCall(value["name"], text)
