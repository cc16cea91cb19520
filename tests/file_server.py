"""A small HTTP server for files, which can do what servers should not."""

from __future__ import annotations

import gzip
import threading
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass, field
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer


@dataclass(frozen=True)
class Answer:
    """How a request is answered.

    Attributes:
        content: the file. tag: its `ETag`.
        status: of an answer without the file, or 0 to send it.
        has_ranges: whether it goes on where it is asked to; else it sends the whole file.
        sends: bytes that are sent before the connection is cut; None for all.
        length: what it calls the length of what it sends; None for the truth, -1 for nothing.
        headers: further ones.
        compresses: whether it compresses for those who accept that.
    """

    content: bytes = b""
    tag: str = ""
    status: int = 0
    has_ranges: bool = True
    sends: int | None = None
    length: int | None = None
    headers: dict[str, str] = field(default_factory=dict)
    compresses: bool = False


@dataclass
class FileServer:
    """Files by path: a list of answers for each, of which the last one is repeated.

    `asked` has for each request its path, `Range` and `If-Range`.
    """

    port: int
    answers: dict[str, list[Answer]] = field(default_factory=dict)
    asked: list[tuple[str, str, str]] = field(default_factory=list)

    def url(self, path: str) -> str:
        return f"http://127.0.0.1:{self.port}{path}"

    def put(self, path: str, *answers: Answer) -> str:
        """Answer so under that path; returns its URL."""
        self.answers[path] = list(answers)
        return self.url(path)

    @property
    def ranges(self) -> list[str]:
        return [asked[1] for asked in self.asked]


class _Handler(BaseHTTPRequestHandler):
    files: FileServer

    def do_GET(self) -> None:
        asked = self.headers.get("Range", ""), self.headers.get("If-Range", "")
        self.files.asked.append((self.path, *asked))
        answers = self.files.answers.get(self.path, [Answer(status=404)])
        answer = answers.pop(0) if len(answers) > 1 else answers[0]
        if answer.status:
            self.send_response(answer.status)
            self._end(answer, 0)
            return
        start = int(asked[0].removeprefix("bytes=").removesuffix("-") or 0)
        if not answer.has_ranges or (asked[1] and asked[1] != answer.tag):
            start = 0
        total = len(answer.content)
        if start and start >= total:
            self.send_response(416)
            self.send_header("Content-Range", f"bytes */{total}")
            self._end(answer, 0)
            return
        self.send_response(206 if start else 200)
        if start and "Content-Range" not in answer.headers:
            self.send_header("Content-Range", f"bytes {start}-{total - 1}/{total}")
        body = answer.content[start:]
        if answer.compresses and "gzip" in self.headers.get("Accept-Encoding", ""):
            self.send_header("Content-Encoding", "gzip")
            body = gzip.compress(body)
        self._end(answer, len(body) if answer.length is None else answer.length)
        self.wfile.write(body[: answer.sends])

    def _end(self, answer: Answer, length: int) -> None:
        if answer.tag:
            self.send_header("ETag", answer.tag)
        if length >= 0:
            self.send_header("Content-Length", str(length))
        for name, value in answer.headers.items():
            self.send_header(name, value)
        self.end_headers()

    def log_message(self, format: str, *args: object) -> None:
        """Say nothing."""


@contextmanager
def serving() -> Iterator[FileServer]:
    """A server on a free port of this machine."""
    handler = type("Handler", (_Handler,), {})
    with ThreadingHTTPServer(("127.0.0.1", 0), handler) as server:
        files = FileServer(server.server_address[1])
        handler.files = files  # type: ignore[attr-defined]
        thread = threading.Thread(target=server.serve_forever, kwargs={"poll_interval": 0.01})
        thread.start()
        try:
            yield files
        finally:
            server.shutdown()
            thread.join()
