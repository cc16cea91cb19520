"""A small server of chat completions, which can do what servers should not."""

from __future__ import annotations

import json
import threading
import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from dataclasses import dataclass, field
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from typing import Any

from memrl.llm.backend import ChatMessage, Reply, Request
from memrl.llm.endpoint import Timeouts
from memrl.llm.retries import RetryOptions
from memrl.llm.server import ServerBackend

RETRIES = RetryOptions(retries=3, first_wait_s=0.001, longest_wait_s=0.5)


def completion(text: str | None = "yes", **changes: Any) -> dict[str, Any]:
    """A reply as vLLM writes it; `changes` replace its top-level entries."""
    return {
        "id": "chatcmpl-1",
        "object": "chat.completion",
        "model": "tiny",
        "choices": [
            {
                "index": 0,
                "message": {"role": "assistant", "content": text, "tool_calls": None},
                "finish_reason": "stop",
            }
        ],
        "usage": {
            "prompt_tokens": 11,
            "completion_tokens": 3,
            "total_tokens": 14,
            "prompt_tokens_details": {"cached_tokens": 4},
        },
    } | changes


@dataclass(frozen=True)
class Answer:
    """How a request is answered.

    Attributes:
        body: a JSON value, or bytes as they are. status: of the answer. headers: further ones.
        silent_s: seconds before anything is sent.
        piece_s: seconds between single bytes; 0 to send all at once.
        sends: bytes that are sent before the connection is cut; None for all.
    """

    body: Any = field(default_factory=completion)
    status: int = 200
    headers: dict[str, str] = field(default_factory=dict)
    silent_s: float = 0.0
    piece_s: float = 0.0
    sends: int | None = None


Rule = Callable[[dict[str, Any], int], Answer]
"""Maps a request's body, and how many asked with the same last message before it, to its answer."""


@dataclass
class ChatServer:
    """What was asked, in the order of its arrival: bodies, and times by the monotonic clock."""

    port: int
    rule: Rule = lambda _body, _times: Answer()
    bodies: list[dict[str, Any]] = field(default_factory=list)
    headers: list[dict[str, str]] = field(default_factory=list)
    paths: list[str] = field(default_factory=list)
    times_s: list[float] = field(default_factory=list)
    most_at_once: int = 0
    _now: int = 0
    _lock: Any = field(default_factory=threading.Lock)
    _closing: threading.Event = field(default_factory=threading.Event)

    @property
    def url(self) -> str:
        return f"http://127.0.0.1:{self.port}/v1"

    def asked(self, handler: BaseHTTPRequestHandler) -> Answer:
        length = int(handler.headers["Content-Length"])
        body = json.loads(handler.rfile.read(length))
        said = body["messages"][-1]["content"]
        with self._lock:
            before = sum(earlier["messages"][-1]["content"] == said for earlier in self.bodies)
            self.bodies.append(body)
            self.headers.append(dict(handler.headers))
            self.paths.append(handler.path)
            self.times_s.append(time.monotonic())
            self._now += 1
            self.most_at_once = max(self.most_at_once, self._now)
        return self.rule(body, before)

    def left(self) -> None:
        with self._lock:
            self._now -= 1

    def pause(self, seconds: float) -> None:
        self._closing.wait(seconds)

    def close(self) -> None:
        self._closing.set()


class _Handler(BaseHTTPRequestHandler):
    chat: ChatServer
    protocol_version = "HTTP/1.1"

    def do_POST(self) -> None:
        try:
            self._answer(self.chat.asked(self))
        except (BrokenPipeError, ConnectionResetError):  # the client did not wait
            self.close_connection = True
        finally:
            self.chat.left()

    def _answer(self, answer: Answer) -> None:
        raw = isinstance(answer.body, bytes)
        content: bytes = answer.body if raw else json.dumps(answer.body).encode()
        self.chat.pause(answer.silent_s)
        if answer.sends is not None:
            self.close_connection = True
        if answer.sends == 0:
            return
        self.send_response(answer.status)
        self.send_header("Content-Length", str(len(content)))
        for name, value in answer.headers.items():
            self.send_header(name, value)
        self.end_headers()
        if not answer.piece_s:
            self.wfile.write(content[: answer.sends])
            return
        for byte in content:
            self.wfile.write(bytes([byte]))
            self.wfile.flush()
            self.chat.pause(answer.piece_s)

    def log_message(self, format: str, *args: object) -> None:
        """Say nothing."""


@contextmanager
def chatting() -> Iterator[ChatServer]:
    """A server on a free port of this machine."""
    handler = type("Handler", (_Handler,), {})
    with ThreadingHTTPServer(("127.0.0.1", 0), handler) as server:
        chat = ChatServer(server.server_address[1])
        handler.chat = chat  # type: ignore[attr-defined]
        thread = threading.Thread(target=server.serve_forever, kwargs={"poll_interval": 0.01})
        thread.start()
        try:
            yield chat
        finally:
            chat.close()
            server.shutdown()
            thread.join()


def make(server: ChatServer, **options: Any) -> ServerBackend:
    """A back end that asks this server and does not wait long before it asks again."""
    timeouts = options.pop("timeouts", Timeouts(total_s=20.0))
    return ServerBackend("tiny", server.url, retries=RETRIES, timeouts=timeouts, **options)


def ask(text: str = "where", **settings: Any) -> Request:
    return Request((ChatMessage("user", text),), **settings)


def fault_kinds(reply: Reply) -> list[str]:
    return [fault.partition(":")[0] for fault in reply.faults]
