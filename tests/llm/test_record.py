"""Recordings: whole after a kill, gone on with, replayed without the model."""

from __future__ import annotations

import json
import math
import os
import signal
import subprocess
import sys
from pathlib import Path
from typing import Any

import pytest

from memrl.llm.backend import BackendError, ChatMessage, Reply, Request, Scores, ToolCall, Usage
from memrl.llm.costs import LlmCosts, merged_costs
from memrl.llm.record import RecordingBackend, ReplayBackend, exchanges
from memrl.llm.scripted import ScriptedBackend

TOOL = {"type": "function", "function": {"name": "evict", "parameters": {"b": 1, "a": [2, None]}}}
REPLY = Reply(
    "lone \ud800 and\nlines \u2028",
    (ToolCall("evict", '{"slot": 1}', "x"),),
    "length",
    Usage(10, 4, 3, 0.1 + 0.2, 2, is_estimate=True),
    model="tiny-2024",
    faults=("time-out: slow",),
)


def ask(text: str = "where", **settings: Any) -> Request:
    return Request((ChatMessage("user", text),), **settings)


def shouting() -> ScriptedBackend:
    return ScriptedBackend(
        lambda request: request.messages[-1].content.upper(),
        scores=lambda request: [-float(len(choice)) for choice in request.choices],
    )


class Other(ScriptedBackend):
    @property
    def identity(self) -> dict[str, Any]:
        return {"backend": "scripted", "temperature": 1}


def test_a_replay_is_the_run_without_the_model(tmp_path: Path) -> None:
    path = tmp_path / "new" / "llm.jsonl"
    chat = (
        ChatMessage("system", "s"),
        ChatMessage("assistant", "", REPLY.calls),
        ChatMessage("tool", "done \ud800", call_id="x"),
    )
    requests = [Request(chat, tools=(TOOL,), max_reply_tokens=9), ask("b"), ask("c")]
    scored = ask(choices=("a", "bcd"))
    inner = ScriptedBackend(
        [REPLY, "plain", Reply("", finish="failed", error="It is broken.")],
        scores=lambda _: [-math.inf, -1 / 3],
    )
    with RecordingBackend(inner, path) as recording:
        assert (recording.name, recording.can_score) == ("scripted", True)
        replies = recording.complete(requests)
        scores = recording.score([scored])
        counts = [recording.count_tokens(chat, (TOOL,)), recording.count_tokens(chat)]
    assert replies[0] == REPLY
    replay = ReplayBackend(path)
    assert replay.complete(requests) == replies
    assert replay.complete(requests[::-1]) == replies[::-1]
    assert replay.score([scored]) == scores == [Scores((-math.inf, -1 / 3))]
    assert [replay.count_tokens(chat, (TOOL,)), replay.count_tokens(chat)] == counts
    assert (replay.name, replay.identity, replay.window_tokens, replay.can_score) == (
        *("scripted", inner.identity, None, True),
    )
    assert list(exchanges(path)) == list(zip(requests, replies, strict=True))
    for line in path.read_bytes().splitlines():
        json.loads(line, parse_constant=pytest.fail)  # JSON that any reader takes


@pytest.mark.parametrize(
    "other",
    [
        ask("there"),
        ask(max_reply_tokens=8),
        ask(choices=("a", "b")),
        ask(choices=("b", "a")),
        ask(tools=({"type": "function", "function": {"name": "evict"}},)),
        ask(tools=({"function": {"name": "evict"}, "type": "function"},)),
        Request((ChatMessage("system", "where"),)),
    ],
)
def test_only_what_was_asked_is_answered(tmp_path: Path, other: Request) -> None:
    path = tmp_path / "llm.jsonl"
    first = ask(tools=({"name": "evict"},)) if other.tools else ask()
    with RecordingBackend(shouting(), path) as recording:
        recording.complete([first])
    replay = ReplayBackend(path)
    assert replay.complete([first])[0].text == "WHERE"
    with pytest.raises(BackendError, match=r"does not hold what is asked \(it ends in '"):
        replay.complete([other])
    with pytest.raises(BackendError, match="does not hold what is asked"):
        replay.score([first])
    with pytest.raises(BackendError, match="does not hold what is asked"):
        replay.count_tokens(first.messages)


def test_what_is_recorded_is_not_asked_again(tmp_path: Path) -> None:
    path = tmp_path / "llm.jsonl"
    first = shouting()
    with RecordingBackend(first, path) as recording:
        texts = [reply.text for reply in recording.complete([ask("a"), ask("b"), ask("a")])]
        recording.score([ask(choices=("x",))])
        recording.count_tokens(ask("a").messages)
        assert recording.num_answered == 1
    assert texts == ["A", "B", "A"]
    assert len(first.requests) == 3
    lines = path.read_bytes()
    second = shouting()
    with RecordingBackend(second, path) as recording:
        replies = recording.complete([ask("c"), ask("b"), ask("a")])
        recording.score([ask(choices=("x",))])
        recording.count_tokens(ask("a").messages)
        assert recording.num_answered == 3
    assert [reply.text for reply in replies] == ["C", "B", "A"]
    assert second.requests == [ask("c")]
    assert path.read_bytes().startswith(lines)
    assert path.read_bytes().count(b"\n") == lines.count(b"\n") + 1


def test_what_failed_is_asked_again_by_the_next_run_only(tmp_path: Path) -> None:
    path = tmp_path / "llm.jsonl"
    failed = Reply("", finish="failed", error="The server sleeps.")
    with RecordingBackend(ScriptedBackend([failed]), path) as recording:
        assert recording.complete([ask()]) == recording.complete([ask()]) == [failed]
    with RecordingBackend(ScriptedBackend(["awake"]), path) as recording:
        assert recording.complete([ask()])[0].text == "awake"
    assert ReplayBackend(path).complete([ask()])[0].text == "awake"
    assert [reply.text for _, reply in exchanges(path)] == ["", "awake"]


@pytest.mark.parametrize("cut", [1, 30])
def test_a_cut_last_line_is_taken_off_and_asked_again(tmp_path: Path, cut: int) -> None:
    path = tmp_path / "llm.jsonl"
    with RecordingBackend(shouting(), path) as recording:
        recording.complete([ask("a"), ask("b")])
    whole = path.read_bytes()
    path.write_bytes(whole[:-cut])
    assert [reply.text for _, reply in exchanges(path)] == ["A"]
    assert ReplayBackend(path).complete([ask("a")])[0].text == "A"
    assert path.read_bytes() == whole[:-cut]  # who only reads changes nothing
    inner = shouting()
    with pytest.warns(RuntimeWarning, match="last line of the recording .* was cut"):
        recording = RecordingBackend(inner, path)
    with recording:
        assert recording.cut_lines == 1
        recording.complete([ask("a"), ask("b")])
    assert inner.requests == [ask("b")]
    assert path.read_bytes() == whole
    with RecordingBackend(inner, path) as recording:
        assert recording.cut_lines == 0


def test_a_cut_header_is_written_again(tmp_path: Path) -> None:
    path = tmp_path / "llm.jsonl"
    path.write_bytes(b"")
    with RecordingBackend(shouting(), path):
        pass
    whole = path.read_bytes()
    path.write_bytes(whole[:10])
    with pytest.raises(BackendError, match="is empty"):
        ReplayBackend(path)
    with pytest.warns(RuntimeWarning, match="was cut"):
        RecordingBackend(shouting(), path).close()
    assert path.read_bytes() == whole


@pytest.mark.parametrize("content", [b"my diary", b"my diary\n", b'{"a": 1}\n', b"[1]\n"])
def test_files_of_others_are_left_alone(tmp_path: Path, content: bytes) -> None:
    path = tmp_path / "diary.txt"
    path.write_bytes(content)
    with pytest.raises(BackendError, match="is no recording"):
        RecordingBackend(shouting(), path)
    assert path.read_bytes() == content


@pytest.mark.parametrize(
    "line", [b"\x00\x00\n", b"[]\n", b'{"kind": "reply", "key": "k", "reply": {}}\n', b"{}\n"]
)
def test_a_damaged_line_is_named(tmp_path: Path, line: bytes) -> None:
    path = tmp_path / "llm.jsonl"
    RecordingBackend(shouting(), path).close()
    path.write_bytes(path.read_bytes() + line)
    for opened in (lambda: RecordingBackend(shouting(), path), lambda: ReplayBackend(path)):
        with pytest.raises(BackendError, match=r"Line 2 of the recording .* is damaged"):
            opened()


def test_a_recording_of_another_model_is_refused(tmp_path: Path) -> None:
    path = tmp_path / "llm.jsonl"
    RecordingBackend(shouting(), path).close()
    with pytest.raises(BackendError, match="they differ in temperature: take the same model"):
        RecordingBackend(Other(), path)


def test_a_missing_recording_is_one_error(tmp_path: Path) -> None:
    with pytest.raises(BackendError, match="cannot be read"):
        ReplayBackend(tmp_path / "none.jsonl")
    with pytest.raises(BackendError, match="cannot be read"):
        list(exchanges(tmp_path))
    with pytest.raises(ValueError, match="most_at_once"):
        RecordingBackend(shouting(), tmp_path / "llm.jsonl", most_at_once=0)


def test_an_error_of_the_model_leaves_what_was_done(tmp_path: Path) -> None:
    path = tmp_path / "llm.jsonl"
    with (
        RecordingBackend(ScriptedBackend(["1", "2"]), path, most_at_once=2) as recording,
        pytest.raises(BackendError, match="script has ended"),
    ):
        recording.complete([ask("a"), ask("b"), ask("c")])
    assert [reply.text for _, reply in exchanges(path)] == ["1", "2"]


KILLED = """
import os, signal, sys
from pathlib import Path
from memrl.llm.backend import ChatMessage, Request
from memrl.llm.record import RecordingBackend
from memrl.llm.scripted import ScriptedBackend

def reply(request):
    if request.messages[-1].content == "2":
        os.kill(os.getpid(), signal.SIGKILL)
    return "said " + request.messages[-1].content

recording = RecordingBackend(ScriptedBackend(reply), Path(sys.argv[1]), most_at_once=1)
recording.complete([Request((ChatMessage("user", str(i)),)) for i in range(4)])
"""


def test_a_killed_run_has_written_what_it_was_told(tmp_path: Path) -> None:
    path = tmp_path / "llm.jsonl"
    environment = {**os.environ, "PYTHONPATH": str(Path(__file__).parents[2])}
    done = subprocess.run([sys.executable, "-c", KILLED, path], env=environment, check=False)
    assert done.returncode == -signal.SIGKILL
    assert [reply.text for _, reply in exchanges(path)] == ["said 0", "said 1"]


# ----------------------------------------------------------------------------------- accounting


def test_costs_count_each_exchange_once() -> None:
    costs = LlmCosts()
    assert costs.as_dict(0)["seconds_per_decision_p50"] is None
    costs.add(REPLY)
    costs.add(Reply("ok", usage=Usage(5, 0, 1, 1.0), model="tiny"))
    busy = ("HTTP 500: oh: no", "rate limit: slow down")
    costs.add(
        Reply("", finish="failed", error="Busy.", usage=Usage(seconds=2.0, attempts=2), faults=busy)
    )
    costs.add(Reply("", finish="failed", error="The prompt is too long.", usage=Usage(90)))
    costs.add(Scores((-1.0,), Usage(7, 7, 0, 0.5)))
    for seconds in (0.5, 0.5, 2.0):
        costs.decided(seconds)
    found = json.loads(json.dumps(costs.as_dict(4)))
    assert merged_costs([found]) == found
    quantiles = [found.pop(f"seconds_per_decision_p{percent}") for percent in (50, 95)]
    assert [*quantiles, found.pop("seconds")] == pytest.approx([0.5, 2.0, 3.8], rel=0.05)
    assert sum(found.pop("durations")["buckets"].values()) == 3
    assert found == {
        "calls": 5,
        "attempts": 7,
        "prompt_tokens": 112,
        "cached_tokens": 11,
        "reply_tokens": 4,
        "decisions": 3,
        "parse_failures": 0,
        "estimates": 1,
        "cut": 1,
        "failures": {"other": 1, "rate limit": 1},
        "faults": {"HTTP 500": 1, "rate limit": 1, "time-out": 1},
        "models": {"tiny": 1, "tiny-2024": 1},
        "queries": 4,
        "tokens_per_query": 116 / 4,
    }


def test_costs_of_several_runs_are_those_of_one() -> None:
    whole, parts = LlmCosts(), [LlmCosts(), LlmCosts(), LlmCosts()]
    for seconds in (0.1, 0.4, 0.2, 3.0, 0.1):
        for costs in (whole, parts[int(seconds > 0.15)]):
            costs.add(REPLY)
            costs.decided(seconds)
    together = merged_costs([costs.as_dict(2) for costs in parts])
    assert together.pop("seconds") == pytest.approx(whole.seconds)
    expected = whole.as_dict(6)
    expected.pop("seconds")
    assert together == expected


def test_costs_of_a_replay_are_those_of_the_run(tmp_path: Path) -> None:
    path = tmp_path / "llm.jsonl"
    live, replayed = LlmCosts(), LlmCosts()
    with RecordingBackend(ScriptedBackend([REPLY, "b"]), path) as recording:
        for reply in recording.complete([ask("a"), ask("b")]):
            live.add(reply)
    for _, reply in exchanges(path):
        replayed.add(reply)
    assert replayed.as_dict(2) == live.as_dict(2)
