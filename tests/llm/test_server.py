"""A real server on this machine, with every fault that a batch has to live with."""

from __future__ import annotations

import json
import logging
import socket
import time
from collections import Counter
from collections.abc import Iterator
from dataclasses import replace
from datetime import UTC, datetime, timedelta
from typing import Any

import pytest
from chat_server import Answer, ChatServer, chatting, completion

from memrl.llm.backend import BackendError, ChatMessage, Reply, Request, ToolCall, Usage
from memrl.llm.endpoint import Timeouts, check_url
from memrl.llm.retries import RetryOptions, retry_after_s
from memrl.llm.server import ServerBackend

KEY = "sk-very-secret-0123456789"
RETRIES = RetryOptions(retries=3, first_wait_s=0.001, longest_wait_s=0.5)
TOOL = {"type": "function", "function": {"name": "evict", "parameters": {"type": "object"}}}


@pytest.fixture
def server(monkeypatch: pytest.MonkeyPatch) -> Iterator[ChatServer]:
    for name in ("OPENAI_API_KEY", "HTTP_PROXY", "http_proxy", "ALL_PROXY", "all_proxy"):
        monkeypatch.delenv(name, raising=False)
    with chatting() as chat:
        yield chat


@pytest.fixture
def backend(server: ChatServer) -> Iterator[ServerBackend]:
    made = make(server)
    yield made
    made.close()


def make(server: ChatServer, **options: Any) -> ServerBackend:
    timeouts = options.pop("timeouts", Timeouts(total_s=20.0))
    return ServerBackend("tiny", server.url, retries=RETRIES, timeouts=timeouts, **options)


def ask(text: str = "where", **settings: Any) -> Request:
    return Request((ChatMessage("user", text),), **settings)


def fault_kinds(reply: Reply) -> list[str]:
    return [fault.partition(":")[0] for fault in reply.faults]


# --------------------------------------------------------------------------------- what is sent


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


# --------------------------------------------------------------------------------------- faults


def flaky(name: str) -> Answer:
    """The first answer to a request of that name."""
    return {
        "busy": Answer({"error": "slow down"}, 429, {"Retry-After": "0.05"}),
        "broken": Answer(b"<html>oh</html>", 500),
        "silent": Answer(silent_s=20.0),
        "dripping": Answer(piece_s=0.02),
        "cut early": Answer(sends=0),
        "cut late": Answer(sends=30),
        "garbled": Answer(b'{"choices": [{"mess'),
        "empty": Answer(completion(choices=[])),
        "error": Answer({"error": {"message": "out of memory"}}),
        "good": Answer(),
    }[name]


KINDS = {
    "busy": "rate limit",
    "broken": "HTTP 500",
    "silent": "time-out",
    "dripping": "time-out",
    "cut early": "cut connection",
    "cut late": "cut connection",
    "garbled": "malformed reply",
    "empty": "malformed reply",
    "error": "malformed reply",
}


def test_a_batch_outlives_every_fault_and_counts_nothing_twice(server: ChatServer) -> None:
    names = [*KINDS, "good"] * 2
    server.rule = lambda body, times: (
        flaky(body["messages"][0]["content"].partition("-")[0])
        if times == 0
        else Answer(completion(body["messages"][0]["content"]))
    )
    backend = make(server, concurrency=5, timeouts=Timeouts(total_s=1.5))
    texts = [f"{name}-{index}" for index, name in enumerate(names)]
    replies = backend.complete([ask(text) for text in texts])
    backend.close()
    for name, text, reply in zip(names, texts, replies, strict=True):
        if name == "good":
            assert reply.text == "yes"
            assert (reply.faults, reply.usage.attempts) == ((), 1)
        else:
            assert reply.text == text
            assert fault_kinds(reply) == [KINDS[name]]
            assert reply.usage.attempts == 2
        assert reply.finish == "stop"
        assert replace(reply.usage, attempts=1, seconds=0) == Usage(11, 4, 3)
    said = Counter(body["messages"][0]["content"] for body in server.bodies)
    assert said == {text: 1 if "good" in text else 2 for text in texts}
    assert 1 < server.most_at_once <= 5


@pytest.mark.parametrize("name", KINDS)
def test_a_fault_that_stays_is_a_failed_reply(server: ChatServer, name: str) -> None:
    server.rule = lambda _body, _times: flaky(name)
    total_s = 0.1 if KINDS[name] == "time-out" else 20.0
    backend = make(server, timeouts=Timeouts(total_s=total_s))
    [reply] = backend.complete([ask()])
    backend.close()
    assert (reply.finish, reply.text, reply.calls) == ("failed", "", ())
    assert fault_kinds(reply) == [KINDS[name]] * 4
    assert reply.error.endswith("(asked 4 times).")
    assert reply.usage == Usage(seconds=reply.usage.seconds, attempts=4)
    assert len(server.bodies) == 4


@pytest.mark.parametrize("status", [400, 413, 422, 307])
def test_what_will_not_change_is_not_asked_again(
    server: ChatServer, backend: ServerBackend, status: int
) -> None:
    server.rule = lambda _body, _times: Answer({"error": "the prompt\nis too long"}, status)
    [reply] = backend.complete([ask()])
    assert len(server.bodies) == 1
    assert reply.finish == "failed"
    assert f"HTTP {status}" in reply.error
    assert "\n" not in reply.error
    assert reply.error.endswith("(asked once).")


@pytest.mark.parametrize("as_date", [False, True])
def test_a_server_is_left_alone_as_long_as_it_asks(server: ChatServer, as_date: bool) -> None:
    """By everybody: the other request of the batch waits as well."""
    date = datetime.now(UTC) + timedelta(seconds=2)
    header = date.strftime("%a, %d %b %Y %H:%M:%S GMT") if as_date else "0.4"
    server.rule = lambda _body, _times: Answer(
        status=429 if len(server.bodies) == 1 else 200, headers={"Retry-After": header}
    )
    retries = replace(RETRIES, longest_wait_s=5.0)
    backend = ServerBackend("tiny", server.url, concurrency=1, retries=retries)
    replies = backend.complete([ask("first"), ask("second")])
    backend.close()
    assert fault_kinds(replies[0]) == ["rate limit"]
    least_s = 0.5 if as_date else 0.4  # a date has whole seconds
    assert server.times_s[1] - server.times_s[0] >= least_s


def test_a_server_that_asks_for_too_long_is_not_asked_again(
    server: ChatServer, backend: ServerBackend
) -> None:
    server.rule = lambda _body, _times: Answer({}, 429, {"Retry-After": "3600"})
    [reply] = backend.complete([ask()])
    assert len(server.bodies) == 1
    assert "HTTP 429" in reply.error


def test_waits_double_and_differ_and_are_those_of_the_seed() -> None:
    import numpy as np

    options = RetryOptions(first_wait_s=1.0, longest_wait_s=5.0)
    waits = [
        [options.wait_s(retry, draws) for retry in (1, 2, 3, 4, 500)]
        for draws in (np.random.default_rng((0, number)) for number in (0, 0, 1))
    ]
    assert waits[0] == waits[1] != waits[2]
    for longest, *some in zip((1, 2, 4, 5, 5), *waits, strict=True):
        assert all(longest / 2 <= wait < longest for wait in some)


def test_retry_after_is_read_in_both_forms() -> None:
    assert retry_after_s("7") == 7
    assert retry_after_s("-3") == 0
    assert retry_after_s("Mon, 01 Jan 2001 00:00:00 GMT") == 0
    assert [retry_after_s(value) for value in (None, "soon", "nan", "inf")] == [None] * 4


def test_another_model_is_warned_of_once_and_named(server: ChatServer) -> None:
    server.rule = lambda _body, _times: Answer(completion(model="tiny-2024"))
    backend = make(server)
    with pytest.warns(RuntimeWarning, match="asked for tiny and replies as tiny-2024") as caught:
        replies = backend.complete([ask(), ask()]) + backend.complete([ask()])
    backend.close()
    assert len(caught) == 1
    assert [reply.model for reply in replies] == ["tiny-2024"] * 3


# ------------------------------------------------------------------------- what ends everything


@pytest.mark.parametrize("status", [401, 403])
@pytest.mark.parametrize("key", ["", KEY])
def test_a_refused_key_is_one_error_that_does_not_hold_it(
    server: ChatServer,
    monkeypatch: pytest.MonkeyPatch,
    caplog: pytest.LogCaptureFixture,
    key: str,
    status: int,
) -> None:
    monkeypatch.setenv("MY_KEY", key)
    server.rule = lambda _body, _times: Answer({"error": f"Incorrect key {KEY}"}, status)
    backend = make(server, key_variable="MY_KEY")
    what = "refuses the key" if key else "refuses a request without a key"
    with caplog.at_level(logging.DEBUG), pytest.raises(BackendError, match=what) as raised:
        backend.complete([ask(str(index)) for index in range(50)])
    backend.close()
    assert "MY_KEY" in str(raised.value)
    assert KEY not in f"{raised.value!r} {raised.value.__context__!r} {caplog.text}"
    assert len(server.bodies) < 50  # the rest of the batch is not asked


def test_the_key_goes_to_the_server_and_nowhere_else(
    server: ChatServer, monkeypatch: pytest.MonkeyPatch, caplog: pytest.LogCaptureFixture
) -> None:
    monkeypatch.setenv("OPENAI_API_KEY", f"{KEY}\n")
    server.rule = lambda _body, times: (
        Answer({"error": f"key {KEY} is over its quota"}, 429) if times == 0 else Answer()
    )
    backend = make(server)
    with caplog.at_level(logging.DEBUG):
        [reply] = backend.complete([ask()])
        server.rule = lambda _body, _times: Answer({"error": f"bad key {KEY}"}, 400)
        [failed] = backend.complete([ask()])
    assert server.headers[0]["Authorization"] == f"Bearer {KEY}"
    assert "***" in reply.faults[0]
    assert "***" in failed.error
    held = [backend, vars(backend), vars(backend._endpoint), vars(backend._endpoint._client)]
    assert KEY not in f"{held} {backend.identity} {reply} {failed} {caplog.text}"
    assert KEY[:8] not in f"{reply} {failed}"
    backend.close()


def test_a_key_that_is_none_is_refused_without_showing_it(
    server: ChatServer, monkeypatch: pytest.MonkeyPatch
) -> None:
    backend = make(server)
    for key in (f"{KEY}\nX-Other: 1", f"{KEY}\u00e9"):
        monkeypatch.setenv("OPENAI_API_KEY", key)
        with pytest.raises(BackendError, match="characters that no key has") as raised:
            backend.complete([ask()])
        assert KEY not in f"{raised.value!r} {raised.value.__context__!r}"
    backend.close()
    assert server.bodies == []


def test_an_unknown_model_is_one_error(server: ChatServer, backend: ServerBackend) -> None:
    server.rule = lambda _body, _times: Answer({"error": "model 'tiny' not found"}, 404)
    with pytest.raises(BackendError, match=r"no such model or address.*not found"):
        backend.complete([ask()])
    assert len(server.bodies) == 1


def test_nobody_there_is_one_error() -> None:
    with socket.socket() as taken:  # bound and not listening: the port stays free of others
        taken.bind(("127.0.0.1", 0))
        url = f"http://127.0.0.1:{taken.getsockname()[1]}/v1"
        backend = ServerBackend("tiny", url, retries=RETRIES)
        with pytest.raises(BackendError, match=r"cannot be reached.*start the server"):
            backend.complete([ask(), ask()])
        backend.close()


def test_an_error_ends_the_waiting_of_others(server: ChatServer) -> None:
    def rule(body: dict[str, Any], _times: int) -> Answer:
        if body["messages"][0]["content"] == "patient":
            return Answer({}, 503)
        return Answer({}, 404, silent_s=0.1)

    server.rule = rule
    retries = RetryOptions(first_wait_s=60.0)
    backend = ServerBackend("tiny", server.url, retries=retries)
    start_s = time.monotonic()
    with pytest.raises(BackendError, match="no such model"):
        backend.complete([ask("patient"), ask("wrong")])
    assert time.monotonic() - start_s < 25  # the wait alone is 30 s or more
    backend.close()


def test_scores_are_refused(backend: ServerBackend) -> None:
    assert not backend.can_score
    with pytest.raises(BackendError, match="no likelihoods"):
        backend.score([ask(choices=("a", "b"))])


@pytest.mark.parametrize(
    "url",
    [
        *("", "localhost:8000/v1", "ftp://host/v1", "http://", "http:///v1", "http://h:port/v1"),
        *("http://[::1/v1", "http://a b/v1", f"http://user:{KEY}@host/v1", f"https://h/?key={KEY}"),
        *("http://host/v1#part", "http://host/v1/chat/completions/", "http://h:0/v1"),
    ],
)
def test_urls_that_are_no_servers_are_refused(url: str) -> None:
    with pytest.raises(ValueError, match="The URL of a server") as raised:
        ServerBackend("tiny", url)
    assert KEY not in str(raised.value)


def test_urls_of_servers_are_taken() -> None:
    for url in ("http://127.0.0.1:8000/v1", "https://api.example.org/v1", "http://[::1]:11434/v1"):
        assert check_url(f"{url}/") == url


@pytest.mark.parametrize(
    ("make_options", "message"),
    [
        (lambda: ServerBackend("", "http://h/v1"), "model"),
        (lambda: ServerBackend("m", "http://h/v1", concurrency=0), "concurrency"),
        (lambda: ServerBackend("m", "http://h/v1", key_variable=""), "key_variable"),
        (lambda: Timeouts(total_s=0), "total_s"),
        (lambda: Timeouts(read_s=float("inf")), "finite"),
        (lambda: RetryOptions(retries=-1), "retries"),
        (lambda: RetryOptions(first_wait_s=2, longest_wait_s=1), "longest_wait_s"),
    ],
)
def test_options_that_cannot_be_are_refused(make_options: Any, message: str) -> None:
    with pytest.raises(ValueError, match=message):
        make_options()
