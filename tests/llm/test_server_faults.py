"""Faults of a server, which a batch outlives: every kind, injected by a real one."""

from __future__ import annotations

from collections import Counter
from dataclasses import replace
from datetime import UTC, datetime, timedelta

import pytest
from chat_server import RETRIES, Answer, ChatServer, ask, completion, fault_kinds, make

from memrl.llm.backend import Usage
from memrl.llm.endpoint import Timeouts
from memrl.llm.retries import RetryOptions, retry_after_s
from memrl.llm.server import ServerBackend


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
    """By everybody: what has not been sent yet waits as well."""
    date = datetime.now(UTC) + timedelta(seconds=2)
    header = date.strftime("%a, %d %b %Y %H:%M:%S GMT") if as_date else "0.6"
    answers = {
        "first": [Answer(status=429, headers={"Retry-After": header}), Answer()],
        "second": [Answer(silent_s=0.1)],
        "third": [Answer()],
    }
    server.rule = lambda body, times: answers[body["messages"][0]["content"]][times]
    retries = replace(RETRIES, longest_wait_s=5.0)
    backend = ServerBackend("tiny", server.url, concurrency=2, retries=retries)
    replies = backend.complete([ask(text) for text in answers])
    backend.close()
    assert [fault_kinds(reply) for reply in replies] == [["rate limit"], [], []]
    times_s = {
        body["messages"][0]["content"]: time_s  # of the last attempt
        for body, time_s in zip(server.bodies, server.times_s, strict=True)
    }
    least_s = 0.5  # a date has whole seconds; "first" came at most 0.1 s after the first of all
    assert times_s["first"] - server.times_s[0] >= least_s
    assert times_s["third"] - server.times_s[0] >= least_s


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
