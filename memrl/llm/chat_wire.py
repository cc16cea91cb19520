"""Requests and replies as the chat-completions protocol of OpenAI writes them."""

from __future__ import annotations

import json
from collections.abc import Mapping, Sequence
from typing import Any

from memrl.llm.backend import ChatMessage, Reply, Request, ToolCall, Usage
from memrl.memory.tokens import count_tokens

_CHOICE = "choice"  # the one key of a reply that is held to choices
_MARKUP_TOKENS = 4  # an estimate of what a chat template adds to a message


class MalformedReplyError(Exception):
    """What a server sent is no chat completion."""


def request_body(request: Request, model: str, *, constrained: bool) -> dict[str, Any]:
    """The JSON body that asks for a greedy reply.

    Args:
        request: what is asked.
        model: the name that the server knows.
        constrained: whether a tool must be called, or the reply be an object with one of the
            choices.
    """
    body: dict[str, Any] = {
        "model": model,
        "messages": _messages(request.messages),
        "max_tokens": request.max_reply_tokens,
        "temperature": 0,
    }
    if request.tools:
        body["tools"] = [dict(tool) for tool in request.tools]
        body["tool_choice"] = "required" if constrained else "auto"
    elif request.choices and constrained:
        body["response_format"] = {
            "type": "json_schema",
            "json_schema": {"name": _CHOICE, "strict": True, "schema": _schema(request.choices)},
        }
    return body


def _schema(choices: Sequence[str]) -> dict[str, Any]:
    return {
        "type": "object",
        # An enum holds each value once.
        "properties": {_CHOICE: {"type": "string", "enum": list(dict.fromkeys(choices))}},
        "required": [_CHOICE],
        "additionalProperties": False,
    }


def _messages(messages: Sequence[ChatMessage]) -> list[dict[str, Any]]:
    """The chat; calls without an id get one, and results without one follow their order."""
    written: list[dict[str, Any]] = []
    open_ids: list[str] = []
    num_calls = 0
    for message in messages:
        entry: dict[str, Any] = {"role": message.role, "content": message.content}
        if message.calls:
            open_ids = []
            for call in message.calls:
                open_ids.append(call.call_id or f"call_{num_calls}")
                num_calls += 1
            entry["content"] = message.content or None
            entry["tool_calls"] = [
                {
                    "id": call_id,
                    "type": "function",
                    "function": {"name": call.name, "arguments": _as_object(call.arguments)},
                }
                for call_id, call in zip(open_ids, message.calls, strict=True)
            ]
        if message.role == "tool":
            call_id = message.call_id or (open_ids[0] if open_ids else "call_0")
            if call_id in open_ids:
                open_ids.remove(call_id)
            entry["tool_call_id"] = call_id
        written.append(entry)
    return written


def _as_object(arguments: str) -> str:
    """The arguments, wrapped if they are no JSON object: servers refuse a chat with such a call."""
    try:
        is_object = isinstance(json.loads(arguments), dict)
    except ValueError:
        is_object = False
    return arguments if is_object else json.dumps({"unreadable": arguments})


def read_reply(content: bytes, request: Request, *, in_schema: bool) -> Reply:
    """Read a completion; its usage has no `seconds` yet.

    Args:
        content: the body of the server's response. request: what was asked.
        in_schema: whether an object with a choice was asked for. A text that is none is left as it
            is: the caller sees that it is no choice.

    Raises:
        MalformedReplyError: if it is no chat completion.
    """
    try:
        body = json.loads(content)
    except (ValueError, RecursionError) as error:
        raise MalformedReplyError("the reply is no JSON") from error
    try:
        choice = body["choices"][0]
        message = choice["message"]
        text = message.get("content") or ""
        calls = tuple(_call(call) for call in message.get("tool_calls") or ())
    except (KeyError, IndexError, TypeError, AttributeError) as error:
        raise MalformedReplyError("the reply has no choices with a message") from error
    if not isinstance(text, str):
        raise MalformedReplyError("the reply's content is no text")
    usage = _usage(body.get("usage")) or _estimated_usage(request, text, calls)
    if in_schema:
        text = _chosen(text, request.choices)
    model = body.get("model")
    return Reply(
        text,
        calls,
        "length" if choice.get("finish_reason") == "length" else "stop",
        usage,
        model=model if isinstance(model, str) else "",
    )


def _call(call: Mapping[str, Any]) -> ToolCall:
    function = call["function"]
    arguments = function.get("arguments") or ""
    if not isinstance(arguments, str):  # some servers parse them already
        arguments = json.dumps(arguments)
    return ToolCall(str(function["name"]), arguments, str(call.get("id") or ""))


def _chosen(text: str, choices: Sequence[str]) -> str:
    try:
        chosen = json.loads(text)[_CHOICE]
    except (ValueError, RecursionError, KeyError, TypeError, IndexError):
        return text
    return chosen if chosen in choices else text


def _usage(counted: object) -> Usage | None:
    """The server's counts, or None where it does not give them."""
    if not isinstance(counted, dict):
        return None
    prompt, written = counted.get("prompt_tokens"), counted.get("completion_tokens")
    if not isinstance(prompt, int) or not isinstance(written, int):
        return None
    details = counted.get("prompt_tokens_details")
    cached = details.get("cached_tokens") if isinstance(details, dict) else None
    return Usage(prompt, cached if isinstance(cached, int) else 0, written)


def _estimated_usage(request: Request, text: str, calls: Sequence[ToolCall]) -> Usage:
    prompt = estimate_tokens(request.messages, request.tools)
    return Usage(prompt, reply_tokens=_tokens(text, calls), is_estimate=True)


def estimate_tokens(
    messages: Sequence[ChatMessage], tools: Sequence[Mapping[str, Any]] = ()
) -> int:
    """Estimate the tokens of a prompt whose tokenizer is the server's."""
    said = sum(_MARKUP_TOKENS + _tokens(message.content, message.calls) for message in messages)
    return said + sum(count_tokens(json.dumps(dict(tool))) for tool in tools)


def _tokens(text: str, calls: Sequence[ToolCall]) -> int:
    return count_tokens(text) + sum(
        count_tokens(call.name) + count_tokens(call.arguments) for call in calls
    )
