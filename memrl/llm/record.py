"""Every exchange with a model on disk: to go on where a killed run stopped, and to replay it.

Decoding is greedy, or drawn by the seed and the prompt, so a request has one reply: what was asked
before is answered from the recording, in the same run as well. Tokens are counted by the model's
own tokenizer, so counts are recorded too, and a replayed run cuts its prompts at the same places.
A recording has one writer at a time.
"""

from __future__ import annotations

import warnings
from collections.abc import Callable, Iterator, Mapping, Sequence
from dataclasses import asdict
from pathlib import Path
from typing import Any, Self, TypeVar

from memrl.llm.backend import Backend, BackendError, ChatMessage, Reply, Request, Scores
from memrl.llm.exchange_lines import (
    Header,
    Recorded,
    damaged,
    key_of,
    prompt_row,
    read_recording,
    read_reply,
    read_request,
    request_row,
    rows_of,
    scores_row,
    to_line,
)
from memrl.resuming import differing_keys

_Result = TypeVar("_Result", Reply, Scores)
_Known = TypeVar("_Known")


class RecordingBackend:
    """Passes on what is asked, and writes what comes back as it comes.

    A failed reply is asked for again when the recording is opened the next time, and only then.

    Args:
        inner: the model.
        path: the recording; made if it is not there, gone on with if it is.
        most_at_once: requests that the model gets at once; a kill loses at most these.

    Attributes:
        num_answered: requests that were answered from the recording.
        cut_lines: lines that a kill had cut and that were taken off when this opened the file: 0
            or 1.

    Raises:
        BackendError: if the file is no recording, or one of another model.
    """

    def __init__(self, inner: Backend, path: Path, *, most_at_once: int = 64) -> None:
        if most_at_once < 1:
            raise ValueError(f"most_at_once must be at least 1, got {most_at_once}.")
        self.num_answered = 0
        self.cut_lines = 0
        self._inner = inner
        self._most_at_once = most_at_once
        header = Header.of(inner)
        self._known = _open(path, header) if path.exists() else Recorded()
        for results in (self._known.replies, self._known.scores):
            for key in [key for key, result in results.items() if result.error]:
                del results[key]
        path.parent.mkdir(parents=True, exist_ok=True)
        self._file = path.open("ab")
        if self._known.cut_bytes:
            self._file.truncate(self._known.whole_bytes)
            self.cut_lines = 1
            warnings.warn(
                f"The last line of the recording {path} was cut: {self._known.cut_bytes} bytes are "
                "taken off, and what it held is asked again.",
                RuntimeWarning,
                stacklevel=2,
            )
        if self._known.header is None:
            self._write(header.line())

    @property
    def name(self) -> str:
        """The model's."""
        return self._inner.name

    @property
    def identity(self) -> Mapping[str, Any]:
        """The model's."""
        return self._inner.identity

    @property
    def window_tokens(self) -> int | None:
        """The model's."""
        return self._inner.window_tokens

    @property
    def can_score(self) -> bool:
        """Whether the model can."""
        return self._inner.can_score

    def count_tokens(
        self, messages: Sequence[ChatMessage], tools: Sequence[Mapping[str, Any]] = ()
    ) -> int:
        """Count as the model does, once for each prompt."""
        key = key_of(prompt_row(messages, tools))
        if key not in self._known.counts:
            count = self._inner.count_tokens(messages, tools)
            self._write(to_line({"kind": "count", "key": key, "count": count}))
            self._known.counts[key] = count
        return self._known.counts[key]

    def complete(self, requests: Sequence[Request]) -> list[Reply]:
        """Reply from the recording, else as the model does."""

        def write(key: str, row: Mapping[str, Any], reply: Reply) -> None:
            line = {"kind": "reply", "key": key, "request": row, "reply": asdict(reply)}
            self._write(to_line(line))

        return self._answers(requests, self._known.replies, self._inner.complete, write)

    def score(self, requests: Sequence[Request]) -> list[Scores]:
        """Score from the recording, else as the model does."""

        def write(key: str, row: Mapping[str, Any], scores: Scores) -> None:
            line = {"kind": "scores", "key": key, "request": row, "scores": scores_row(scores)}
            self._write(to_line(line))

        return self._answers(requests, self._known.scores, self._inner.score, write)

    def _answers(
        self,
        requests: Sequence[Request],
        known: dict[str, _Result],
        ask: Callable[[Sequence[Request]], list[_Result]],
        write: Callable[[str, Mapping[str, Any], _Result], None],
    ) -> list[_Result]:
        rows = [request_row(request) for request in requests]
        keys = [key_of(row) for row in rows]
        new = {key: index for index, key in enumerate(keys) if key not in known}
        self.num_answered += len(requests) - len(new)
        missing = sorted(new.values())
        for start in range(0, len(missing), self._most_at_once):
            some = missing[start : start + self._most_at_once]
            for index, result in zip(some, ask([requests[i] for i in some]), strict=True):
                write(keys[index], rows[index], result)
                known[keys[index]] = result
        return [known[key] for key in keys]

    def _write(self, line: bytes) -> None:
        self._file.write(line)
        self._file.flush()  # now it outlives this process

    def close(self) -> None:
        """Close the file; everything is in it. The model is the caller's to close."""
        self._file.close()

    def __enter__(self) -> Self:
        return self

    def __exit__(self, *_: object) -> None:
        self.close()


class ReplayBackend:
    """Answers from a recording, without the model: the same replies, scores, counts and usage.

    Args:
        path: the recording; it is not changed.

    Raises:
        BackendError: if it cannot be read.
    """

    def __init__(self, path: Path) -> None:
        recorded = read_recording(path)
        if recorded.header is None:
            raise BackendError(f"The recording {path} is empty: record a run first.")
        self._path = path
        self._header = recorded.header
        self._known = recorded

    @property
    def name(self) -> str:
        """That of the model recorded."""
        return self._header.name

    @property
    def identity(self) -> Mapping[str, Any]:
        """That of the model recorded."""
        return self._header.identity

    @property
    def window_tokens(self) -> int | None:
        """That of the model recorded."""
        return self._header.window_tokens

    @property
    def can_score(self) -> bool:
        """Whether the model recorded could."""
        return self._header.can_score

    def count_tokens(
        self, messages: Sequence[ChatMessage], tools: Sequence[Mapping[str, Any]] = ()
    ) -> int:
        """Count as the model did.

        Raises:
            BackendError: if it was not asked to.
        """
        return self._find(self._known.counts, prompt_row(messages, tools))

    def complete(self, requests: Sequence[Request]) -> list[Reply]:
        """Reply as the model did.

        Raises:
            BackendError: if it was not asked this.
        """
        return [self._find(self._known.replies, request_row(request)) for request in requests]

    def score(self, requests: Sequence[Request]) -> list[Scores]:
        """Score as the model did.

        Raises:
            BackendError: if it was not asked this.
        """
        return [self._find(self._known.scores, request_row(request)) for request in requests]

    def _find(self, known: Mapping[str, _Known], asked: Mapping[str, Any]) -> _Known:
        found = known.get(key_of(asked))
        if found is None:
            said = " ".join(asked["messages"][-1]["content"].split())[:80]
            raise BackendError(
                f"The recording {self._path} does not hold what is asked (it ends in {said!r}): "
                "replay the run that was recorded, with the same settings, or record this one."
            )
        return found


def _open(path: Path, header: Header) -> Recorded:
    """Read a recording that is to be gone on with."""
    recorded = read_recording(path)
    if recorded.header is None:
        if not header.line().startswith(path.read_bytes()):
            raise BackendError(
                f"{path} is no recording that can be gone on with: choose another file."
            )
    else:
        different = differing_keys(recorded.header.identity, header.identity)
        if different:
            raise BackendError(
                f"The recording {path} is of {recorded.header.name}, and {header.name} is asked "
                f"now; they differ in {', '.join(different)}: take the same model and settings, or "
                "another file."
            )
    return recorded


def exchanges(path: Path) -> Iterator[tuple[Request, Reply]]:
    """What was asked and replied, in the order of the recording; failed replies are among them.

    Raises:
        BackendError: if the recording cannot be read.
    """
    for number, row, _ in rows_of(path):
        if row.get("kind") == "reply":
            try:
                yield read_request(row["request"]), read_reply(row["reply"])
            except (KeyError, TypeError, ValueError) as error:
                raise damaged(path, number) from error
