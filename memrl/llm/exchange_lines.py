"""Recordings: JSON lines that say what a model was asked and what it replied.

The first line names the model. Each further one has a `kind` ("reply", "scores" or "count"), the
`key` of what was asked and the result: a killed run leaves whole lines, and at most one that was
cut. Text is escaped to ASCII, so that any can be written, and numbers that are not finite are
strings.
"""

from __future__ import annotations

import hashlib
import json
import math
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import asdict, dataclass, field
from pathlib import Path
from typing import Any

from memrl.llm.backend import (
    Backend,
    BackendError,
    ChatMessage,
    Reply,
    Request,
    Scores,
    ToolCall,
    Usage,
)

FORMAT = "memrl exchanges 1"


@dataclass(frozen=True)
class Header:
    """What a recording says of its model; the attributes are those of `Backend`."""

    name: str
    identity: Mapping[str, Any]
    window_tokens: int | None
    can_score: bool

    @classmethod
    def of(cls, backend: Backend) -> Header:
        """What a recording of this back end says."""
        identity = json.loads(json.dumps(backend.identity, default=dict))
        return cls(backend.name, identity, backend.window_tokens, backend.can_score)

    def line(self) -> bytes:
        """As the first line of a recording."""
        return to_line({"format": FORMAT, **asdict(self)})


@dataclass
class Recorded:
    """All that a recording holds, results by the keys of what was asked.

    Attributes:
        header: None if not even that was written whole.
        whole_bytes: of its whole lines. cut_bytes: of a last line without its end.
    """

    header: Header | None = None
    replies: dict[str, Reply] = field(default_factory=dict)
    scores: dict[str, Scores] = field(default_factory=dict)
    counts: dict[str, int] = field(default_factory=dict)
    whole_bytes: int = 0
    cut_bytes: int = 0


def to_line(row: Mapping[str, Any]) -> bytes:
    """A line of a recording, its end included."""
    return json.dumps(row, default=dict, allow_nan=False).encode() + b"\n"


def key_of(asked: Mapping[str, Any]) -> str:
    """Hash of what is asked; the order of entries counts, because a prompt may show it."""
    return hashlib.sha256(to_line(asked)).hexdigest()


def prompt_row(
    messages: Sequence[ChatMessage], tools: Sequence[Mapping[str, Any]]
) -> dict[str, Any]:
    """A prompt whose tokens are counted, as JSON has it."""
    return {"messages": [asdict(message) for message in messages], "tools": list(tools)}


def request_row(request: Request) -> dict[str, Any]:
    """A request, as JSON has it."""
    return {
        **prompt_row(request.messages, request.tools),
        "choices": list(request.choices),
        "max_reply_tokens": request.max_reply_tokens,
    }


def scores_row(scores: Scores) -> dict[str, Any]:
    """Scores, as JSON has them."""
    values = [v if math.isfinite(v) else str(v) for v in scores.log_likelihoods]
    return {**asdict(scores), "log_likelihoods": values}


def read_request(row: Mapping[str, Any]) -> Request:
    """A request that was written; KeyError, TypeError or ValueError if it is none."""
    messages = (
        ChatMessage(**{**message, "calls": _calls(message["calls"])}) for message in row["messages"]
    )
    return Request(
        tuple(messages), tuple(row["tools"]), tuple(row["choices"]), row["max_reply_tokens"]
    )


def read_reply(row: Mapping[str, Any]) -> Reply:
    """A reply that was written; KeyError, TypeError or ValueError if it is none."""
    changes = {
        "calls": _calls(row["calls"]),
        "usage": Usage(**row["usage"]),
        "faults": tuple(row["faults"]),
    }
    return Reply(**{**row, **changes})


def read_scores(row: Mapping[str, Any]) -> Scores:
    """Scores that were written; KeyError, TypeError or ValueError if they are none."""
    values = tuple(map(float, row["log_likelihoods"]))
    return Scores(values, Usage(**row["usage"]), row["error"])


def _calls(rows: Sequence[Mapping[str, str]]) -> tuple[ToolCall, ...]:
    return tuple(ToolCall(**row) for row in rows)


def rows_of(path: Path) -> Iterator[tuple[int, dict[str, Any], int]]:
    """Number, content and bytes of each whole line; a last one without its end is left out.

    Raises:
        BackendError: if there is no such file, or it is no recording.
    """
    try:
        with path.open("rb") as file:
            for number, line in enumerate(file, start=1):
                if not line.endswith(b"\n"):
                    return
                yield number, _row(path, number, line), len(line)
    except OSError as error:
        raise BackendError(f"The recording {path} cannot be read: {error.strerror}.") from error


def _row(path: Path, number: int, line: bytes) -> dict[str, Any]:
    try:
        row = json.loads(line)
    except (ValueError, RecursionError):
        row = None
    if number == 1 and not (isinstance(row, dict) and row.get("format") == FORMAT):
        raise BackendError(
            f"{path} is no recording of exchanges ({FORMAT!r}): choose another file."
        )
    if not isinstance(row, dict):
        raise damaged(path, number)
    return row


def damaged(path: Path, number: int) -> BackendError:
    """The error of a line that is no exchange."""
    return BackendError(f"Line {number} of the recording {path} is damaged: delete that line.")


def read_recording(path: Path) -> Recorded:
    """Read a recording; of several results under one key the last one holds.

    Raises:
        BackendError: if there is no such file, it is no recording, or a line is damaged.
    """
    recorded = Recorded()
    for number, row, size in rows_of(path):
        try:
            if number == 1:
                del row["format"]
                recorded.header = Header(**row)
            elif row["kind"] == "reply":
                recorded.replies[row["key"]] = read_reply(row["reply"])
            elif row["kind"] == "scores":
                recorded.scores[row["key"]] = read_scores(row["scores"])
            else:
                recorded.counts[row["key"]] = int(row["count"])
        except (KeyError, TypeError, ValueError) as error:
            raise damaged(path, number) from error
        recorded.whole_bytes += size
    recorded.cut_bytes = path.stat().st_size - recorded.whole_bytes
    return recorded
