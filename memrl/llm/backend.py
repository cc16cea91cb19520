"""What a language model is asked, what comes back, and what every back end can do.

A request is a chat. Its reply is free text, a call of one of the request's tools, or one of its
choices; a back end that constrains decoding makes sure that it is, and any other returns what the
model wrote. What a model cannot or does not do is a reply with `error`, never an exception: an
episode goes on, and the failure is counted. Exceptions are for what no episode could go on from (no
such model, no key, nobody listens at the server's address).
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from typing import Any, Literal, Protocol

from memrl.errors import MemrlError

ChatRole = Literal["system", "user", "assistant", "tool"]
Finish = Literal["stop", "length", "failed"]


class BackendError(MemrlError):
    """A back end cannot be used at all."""


@dataclass(frozen=True, slots=True)
class ToolCall:
    """A call that a model has made.

    Attributes:
        name: of the function, as the model wrote it. arguments: their JSON text, as written.
        call_id: by which a result names its call; "" where the back end has none.
    """

    name: str
    arguments: str
    call_id: str = ""


@dataclass(frozen=True, slots=True)
class ChatMessage:
    """One message of a chat.

    Attributes:
        role: who speaks. content: what is said; data, whatever it imitates.
        calls: of an assistant: the functions that it called.
        call_id: of a tool: the call that this is the result of.
    """

    role: ChatRole
    content: str
    calls: tuple[ToolCall, ...] = ()
    call_id: str = ""


@dataclass(frozen=True, slots=True)
class Request:
    """One reply is wanted.

    Attributes:
        messages: the chat so far.
        tools: functions that may be called, as OpenAI tools; empty for a reply in words.
        choices: texts of which the reply is to be one; empty for any reply. Excludes `tools`.
        max_reply_tokens: most tokens of the reply; a longer one is cut and finishes by "length".
    """

    messages: tuple[ChatMessage, ...]
    tools: tuple[Mapping[str, Any], ...] = ()
    choices: tuple[str, ...] = ()
    max_reply_tokens: int = 256

    def __post_init__(self) -> None:
        """Refuse what no reply could be given to."""
        if not self.messages:
            raise ValueError("A request must have at least one message.")
        if self.tools and self.choices:
            raise ValueError("A request offers tools or choices, not both.")
        if self.max_reply_tokens < 1:
            raise ValueError(f"max_reply_tokens must be at least 1, got {self.max_reply_tokens}.")


@dataclass(frozen=True, slots=True)
class Usage:
    """What a reply took.

    Attributes:
        prompt_tokens: read, those in `cached_tokens` included.
        cached_tokens: of them, those whose computation an earlier request had left behind.
        reply_tokens: written.
        seconds: from asking until the whole reply was there; of a batch, its share.
        attempts: times that the model was asked, 1 without a retry.
        is_estimate: whether the tokens were estimated, because the back end did not count them.
    """

    prompt_tokens: int = 0
    cached_tokens: int = 0
    reply_tokens: int = 0
    seconds: float = 0.0
    attempts: int = 1
    is_estimate: bool = False


@dataclass(frozen=True, slots=True)
class Reply:
    """What a model said.

    Attributes:
        text: in words, calls left out. calls: of tools, in order; unchecked.
        finish: "length" if it was cut, "failed" if there is none (then `error` says why).
        error: one sentence, "" for none. model: the name that the back end gave, "" for none.
        faults: what went wrong on the way, in order, each as `kind: what`; a reply that came in the
            end has those of the attempts before it.
    """

    text: str
    calls: tuple[ToolCall, ...] = ()
    finish: Finish = "stop"
    usage: Usage = field(default_factory=Usage)
    error: str = ""
    model: str = ""
    faults: tuple[str, ...] = ()


@dataclass(frozen=True, slots=True)
class Scores:
    """How likely the choices of a request are.

    Attributes:
        log_likelihoods: of each choice as the beginning of the reply: sum over its tokens, natural
            logarithm; empty if `error` says why there are none.
    """

    log_likelihoods: tuple[float, ...]
    usage: Usage = field(default_factory=Usage)
    error: str = ""


class Backend(Protocol):
    """A language model, wherever it runs."""

    @property
    def name(self) -> str:
        """Short name of the model, for tables."""
        ...

    @property
    def identity(self) -> Mapping[str, Any]:
        """Which model exactly, and how it decodes; JSON-able, without keys or local folders."""
        ...

    @property
    def window_tokens(self) -> int | None:
        """Most tokens of prompt and reply together, None where that is not known."""
        ...

    @property
    def can_score(self) -> bool:
        """Whether `score` works; servers give no likelihoods of given texts."""
        ...

    def count_tokens(
        self, messages: Sequence[ChatMessage], tools: Sequence[Mapping[str, Any]] = ()
    ) -> int:
        """Tokens of a prompt, markup included; an estimate where the tokenizer is not known."""
        ...

    def complete(self, requests: Sequence[Request]) -> list[Reply]:
        """Reply to each request; together where that is faster, with the same replies."""
        ...

    def score(self, requests: Sequence[Request]) -> list[Scores]:
        """Score the `choices` of each request.

        Raises:
            BackendError: if this back end cannot.
        """
        ...
