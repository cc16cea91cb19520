"""What ends everything with one error: keys, models, addresses; and where the key never is."""

from __future__ import annotations

import logging
import socket
import time
from typing import Any

import pytest
from chat_server import RETRIES, Answer, ChatServer, ask, make

from memrl.llm.backend import BackendError
from memrl.llm.endpoint import Timeouts, check_url
from memrl.llm.retries import RetryOptions
from memrl.llm.server import ServerBackend

KEY = "sk-very-secret-0123456789"


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
