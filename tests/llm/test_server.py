"""A real server on this machine, with every fault that a batch has to live with."""

from __future__ import annotations

import json
from typing import Any

from chat_server import Answer, ChatServer, ask, completion, fault_kinds, make

from memrl.llm.backend import ChatMessage, Reply, Request, ToolCall, Usage
from memrl.llm.server import ServerBackend

TOOL = {"type": "function", "function": {"name": "evict", "parameters": {"type": "object"}}}


def test_a_chat_is_asked_and_its_usage_is_the_servers(
    server: ChatServer, backend: ServerBackend
) -> None:
    [reply] = backend.complete([ask("a \ud800 lone surrogate", max_reply_tokens=7)])
    assert server.paths == ["/v1/chat/completions"]
    assert server.bodies == [
        {
            "model": "tiny",
            "messages": [{"role": "user", "content": "a \ud800 lone surrogate"}],
            "max_tokens": 7,
            "temperature": 0,
        }
    ]
    assert "Authorization" not in server.headers[0]
    assert reply == Reply("yes", usage=Usage(11, 4, 3, reply.usage.seconds), model="tiny")
    assert 0 < reply.usage.seconds < 20
    assert backend.name == "tiny"
    assert backend.complete([]) == []


def test_tools_are_sent_and_calls_read(server: ChatServer, backend: ServerBackend) -> None:
    body = completion(None)
    calls = [
        {"id": "x1", "type": "function", "function": {"name": "evict", "arguments": '{"slot": 1}'}},
        {"type": "function", "function": {"name": "evict", "arguments": {"slot": 2}}},
    ]
    body["choices"][0]["message"]["tool_calls"] = calls
    body["choices"][0]["finish_reason"] = "tool_calls"
    server.rule = lambda _body, _times: Answer(body)
    [reply] = backend.complete([ask(tools=(TOOL,))])
    assert server.bodies[0]["tools"] == [TOOL]
    assert server.bodies[0]["tool_choice"] == "required"
    assert reply.text == ""
    assert reply.calls == (
        ToolCall("evict", '{"slot": 1}', "x1"),
        ToolCall("evict", '{"slot": 2}'),
    )
    assert reply.finish == "stop"
    free = make(server, constrained=False)
    free.complete([ask(tools=(TOOL,)), ask(choices=("a", "b"))])
    free.close()
    assert {body.get("tool_choice") for body in server.bodies[1:]} == {"auto", None}
    assert not any("response_format" in body for body in server.bodies)


def test_results_name_their_calls_even_where_nobody_gave_an_id(
    server: ChatServer, backend: ServerBackend
) -> None:
    calls = (ToolCall("evict", '{"slot": 1}'), ToolCall("evict", "not json"))
    chat = (
        ChatMessage("user", "go"),
        ChatMessage("assistant", "", calls),
        ChatMessage("tool", "done"),
        ChatMessage("tool", "malformed"),
        ChatMessage("assistant", "again", (ToolCall("evict", "{}", "own"),)),
        ChatMessage("tool", "done", call_id="own"),
    )
    backend.complete([Request(chat)])
    sent = server.bodies[0]["messages"]
    ids = [call["id"] for call in sent[1]["tool_calls"]]
    assert sent[1]["content"] is None
    assert len(set(ids)) == 2
    assert [sent[2]["tool_call_id"], sent[3]["tool_call_id"]] == ids
    assert sent[4]["tool_calls"][0]["id"] == sent[5]["tool_call_id"] == "own"
    written = [json.loads(call["function"]["arguments"]) for call in sent[1]["tool_calls"]]
    assert written == [{"slot": 1}, {"unreadable": "not json"}]


def test_choices_are_a_schema_and_come_back_as_themselves(
    server: ChatServer, backend: ServerBackend
) -> None:
    server.rule = lambda _body, _times: Answer(completion('{"choice": "store it"}'))
    request = ask(choices=("let go", "store it", "let go"))
    [reply] = backend.complete([request])
    schema = server.bodies[0]["response_format"]["json_schema"]["schema"]
    assert schema["properties"]["choice"]["enum"] == ["let go", "store it"]
    assert reply.text == "store it"
    server.rule = lambda _body, _times: Answer(completion('{"choice": "burn it"}'))
    assert backend.complete([request])[0].text == '{"choice": "burn it"}'
    server.rule = lambda _body, _times: Answer(completion("[1]"))
    assert backend.complete([request])[0].text == "[1]"


def test_where_the_schema_is_refused_words_are_asked_for_once_and_for_all(
    server: ChatServer, backend: ServerBackend
) -> None:
    def rule(body: dict[str, Any], _times: int) -> Answer:
        if "response_format" in body:
            return Answer({"error": {"message": "response_format is not supported"}}, 400)
        return Answer(completion("b"))

    server.rule = rule
    first, second = (backend.complete([ask(choices=("a", "b"))])[0] for _ in range(2))
    assert (first.text, second.text) == ("b", "b")
    assert ["response_format" in body for body in server.bodies] == [True, False, False]
    assert fault_kinds(first) == ["HTTP 400", "plain choice"]
    assert fault_kinds(second) == ["plain choice"]
    assert (first.usage.attempts, second.usage.attempts) == (2, 1)


def test_another_bad_request_leaves_the_schema_alone(
    server: ChatServer, backend: ServerBackend
) -> None:
    server.rule = lambda body, _times: (
        Answer({"error": "prompt too long"}, 400)
        if body["messages"][0]["content"] == "long"
        else Answer(completion('{"choice": "a"}'))
    )
    failed, good = (backend.complete([ask(text, choices=("a",))])[0] for text in ("long", "short"))
    assert failed.finish == "failed"
    assert failed.usage.attempts == 2
    assert good.text == "a"
    assert good.faults == ()


def test_missing_usage_is_estimated_and_says_so(server: ChatServer, backend: ServerBackend) -> None:
    server.rule = lambda _body, _times: Answer(completion("two words", usage=None))
    request = ask("where is the key", tools=(TOOL,))
    usage = backend.complete([request])[0].usage
    assert usage.is_estimate
    assert usage.prompt_tokens == backend.count_tokens(request.messages, request.tools) > 10
    assert usage.reply_tokens == 2


def test_a_cut_reply_says_so(server: ChatServer, backend: ServerBackend) -> None:
    body = completion("half a")
    body["choices"][0]["finish_reason"] = "length"
    server.rule = lambda _body, _times: Answer(body)
    assert backend.complete([ask()])[0].finish == "length"
