"""Calls in a model's text: what is read as one, what is not, and what of it is kept."""

from __future__ import annotations

import json

import pytest

from memrl.llm.backend import ChatMessage, ToolCall
from memrl.llm.call_text import call_text, holds_call, plain_messages, read_calls

EVICT = ToolCall("evict", '{"page_id": 3}')
TOOL = {"type": "function", "function": {"name": "evict", "parameters": {"type": "object"}}}


@pytest.mark.parametrize(
    ("text", "words", "calls"),
    [
        ('{"name": "evict", "arguments": {"page_id": 3}}', "", (EVICT,)),
        ('Well.\n{"name": "evict", "arguments": {"page_id": 3}} Done.', "Well.\n Done.", (EVICT,)),
        ('```json\n{"name": "evict", "arguments": {"page_id": 3}}\n```', "", (EVICT,)),
        ('{"arguments": {"page_id": 3}, "name": "evict"}', "", (EVICT,)),
        ('{"name": "evict", "parameters": {"page_id": 3}}', "", (EVICT,)),
        (
            '<tool_call>\n{"name": "evict", "arguments": {"page_id": 3}}\n</tool_call>\n'
            '<tool_call>{"name": "b", "arguments": {}}</tool_call>',
            "",
            (EVICT, ToolCall("b", "{}")),
        ),
        # As written: spaces, and numbers that Python would write otherwise.
        ('{"name": "a", "arguments": {"x":  1e2}}', "", (ToolCall("a", '{"x":  1e2}'),)),
        # A string that holds the JSON of the arguments, in the order that is not the usual one.
        ('{"arguments": "{\\"x\\": 1}", "name": "a"}', "", (ToolCall("a", '{"x": 1}'),)),
        # Broken arguments between tags are still a call, to be refused by who runs it.
        (
            '<tool_call>{"name": "a", "arguments": {x: 1}}</tool_call>',
            "",
            (ToolCall("a", "{x: 1}"),),
        ),
        # No calls: words alone, other objects, no name, no end.
        ("I would evict page 3.", "I would evict page 3.", ()),
        ('{"page_id": 3}', '{"page_id": 3}', ()),
        ('{"name": "evict"}', '{"name": "evict"}', ()),
        ('{"name": 7, "arguments": {}}', '{"name": 7, "arguments": {}}', ()),
        ("<tool_call>nothing</tool_call>", "<tool_call>nothing</tool_call>", ()),
        ('<tool_call>{"name": "evict", "argum', '<tool_call>{"name": "evict", "argum', ()),
        ('{"name": "evict", "arguments": {"pa', '{"name": "evict", "arguments": {"pa', ()),
        ("{" * 5000, "{" * 5000, ()),
    ],
)
def test_calls_are_read(text: str, words: str, calls: tuple[ToolCall, ...]) -> None:
    assert read_calls(text) == (words, calls)


def test_an_object_inside_a_call_is_no_second_call() -> None:
    inner = '{"name": "b", "arguments": {}}'
    text = f'{{"name": "a", "arguments": {{"message": {inner}}}}}'
    assert read_calls(text)[1] == (ToolCall("a", f'{{"message": {inner}}}'),)


def test_a_whole_call_is_noticed_at_its_end() -> None:
    text = 'Yes: {"name": "evict", "arguments": {"page_id": 3}}'
    assert [end for end in range(len(text) + 1) if holds_call(text[:end])] == [len(text)]


def test_the_plain_form_keeps_everything_that_was_said() -> None:
    chat = [
        ChatMessage("user", "hello"),
        ChatMessage("assistant", "one moment", calls=(ToolCall("evict", '{"page_id": 3}', "c1"),)),
        ChatMessage("tool", "gone", call_id="c1"),
        ChatMessage("tool", "stray", call_id="c9"),
        ChatMessage("assistant", ""),
    ]
    plain = plain_messages(chat, [TOOL])
    assert [message.role for message in plain] == [
        *("system", "user", "assistant", "user", "user", "assistant")
    ]
    assert json.dumps(TOOL["function"]) in plain[0].content
    assert plain[2].content == 'one moment\n{"name": "evict", "arguments": {"page_id": 3}}'
    assert plain[3].content == "Result of evict: gone"
    assert plain[4].content == "Result of the call: stray"
    assert all(not message.calls for message in plain)


def test_tools_join_the_system_text_that_is_there() -> None:
    plain = plain_messages([ChatMessage("system", "Be brief."), ChatMessage("user", "x")], [TOOL])
    assert [message.role for message in plain] == ["system", "user"]
    assert plain[0].content.startswith("Be brief.\n\nYou can call")
    assert plain_messages([ChatMessage("user", "x")]) == [ChatMessage("user", "x")]


def test_what_is_written_is_read_back() -> None:
    for name, arguments in (("evict", '{"page_id": 3}'), ('q"uote', "{}"), ("evict", "")):
        read = read_calls(call_text(name, arguments))[1]
        assert read == (ToolCall(name, arguments or "{}"),)
