"""A back end whose replies are written beforehand, or by a function: for tests."""

from __future__ import annotations

import json
from collections.abc import Callable, Iterable, Mapping, Sequence
from typing import Any

from memrl.llm.backend import BackendError, ChatMessage, Reply, Request, Scores
from memrl.memory.tokens import count_tokens

Script = Callable[[Request], Reply | str]


class ScriptedBackend:
    """Replies by a script.

    Args:
        replies: what is said, in order; or a function of the request. A text is a reply in words.
        scores: log-likelihoods of a request's choices; None where the script has none.

    Attributes:
        requests: all that was asked, in order.
    """

    name = "scripted"
    window_tokens = None

    def __init__(
        self,
        replies: Iterable[Reply | str] | Script = (),
        scores: Callable[[Request], Sequence[float]] | None = None,
    ) -> None:
        self.requests: list[Request] = []
        self._script = replies if callable(replies) else _in_order(replies)
        self._scores = scores

    @property
    def identity(self) -> Mapping[str, Any]:
        """Nothing is known of a script but that it is one."""
        return {"backend": "scripted"}

    @property
    def can_score(self) -> bool:
        """Whether the script has scores."""
        return self._scores is not None

    def count_tokens(
        self, messages: Sequence[ChatMessage], tools: Sequence[Mapping[str, Any]] = ()
    ) -> int:
        """Estimate the tokens of the messages' texts and of the tools."""
        texts = [message.content for message in messages] + [json.dumps(tool) for tool in tools]
        return sum(map(count_tokens, texts))

    def complete(self, requests: Sequence[Request]) -> list[Reply]:
        """Reply as written.

        Raises:
            BackendError: if the script has ended.
        """
        replies = []
        for request in requests:
            self.requests.append(request)
            reply = self._script(request)
            replies.append(Reply(reply) if isinstance(reply, str) else reply)
        return replies

    def score(self, requests: Sequence[Request]) -> list[Scores]:
        """Score by the function given."""
        if self._scores is None:
            raise BackendError("This script has no scores: pass scores, or ask for replies.")
        self.requests += requests
        return [Scores(tuple(self._scores(request))) for request in requests]


def _in_order(replies: Iterable[Reply | str]) -> Script:
    remaining = iter(replies)

    def next_reply(_: Request) -> Reply | str:
        for reply in remaining:
            return reply
        raise BackendError("The script has ended and another reply is wanted: write more of it.")

    return next_reply
