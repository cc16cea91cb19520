"""What a model sees in one of its turns: main context, what has happened, and what it did since."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import replace
from typing import Any

from memrl.llm.backend import Backend, ChatMessage
from memrl.llm.prompts import LEFT_OUT, RESULT_CUT
from memrl.memory.context_page import Message
from memrl.memory.tokens import truncate


class TurnChat:
    """The turn's own chat, kept within the model's window together with main context.

    Main context is the queue manager's to keep small. Of the turn's own chat the oldest exchanges
    are left out first, the event never; where the latest one alone is too long, its longest result
    is cut. The model is told of both.

    Args:
        backend: counts tokens and has the window.
        event: what has happened, as the message that begins the turn.
        tools: functions that the model is offered. reply_tokens: kept free for its reply.

    Attributes:
        reply_tokens: as given.
        num_left_out: messages left out so far. num_cut: results cut so far.
    """

    def __init__(
        self,
        backend: Backend,
        event: str,
        tools: Sequence[Mapping[str, Any]],
        reply_tokens: int,
    ) -> None:
        self._backend = backend
        self._event = event
        self._tools = tools
        self.reply_tokens = reply_tokens
        self._exchanges: list[tuple[ChatMessage, ...]] = []
        self.num_left_out = 0
        self.num_cut = 0

    def add(self, *exchange: ChatMessage) -> None:
        """Append what belongs together: a reply and what came of it."""
        self._exchanges.append(exchange)

    def messages(self, main: Sequence[Message]) -> tuple[ChatMessage, ...] | None:
        """The chat behind main context, as it is now; None if not even its event fits the window.

        Args:
            main: main context.
        """
        before = tuple(map(as_chat, main))
        while self._exchanges:
            if self._fits(before):
                return self._whole(before)
            if len(self._exchanges) == 1:
                return self._whole(before) if self._cut_result(before) else None
            self.num_left_out += len(self._exchanges.pop(0))
        return self._whole(before) if self._fits(before) else None

    def _whole(self, before: tuple[ChatMessage, ...]) -> tuple[ChatMessage, ...]:
        note = f"\n{LEFT_OUT.format(count=self.num_left_out)}" if self.num_left_out else ""
        event = ChatMessage("user", self._event + note)
        return (*before, event, *(message for part in self._exchanges for message in part))

    def _size(self, before: tuple[ChatMessage, ...]) -> int:
        tokens = self._backend.count_tokens(self._whole(before), self._tools)
        return tokens + self.reply_tokens

    def _fits(self, before: tuple[ChatMessage, ...]) -> bool:
        window = self._backend.window_tokens
        return window is None or self._size(before) <= window

    def _cut_result(self, before: tuple[ChatMessage, ...]) -> bool:
        """Cut the longest result of the only exchange; whether it fits then."""
        window = self._backend.window_tokens
        (exchange,) = self._exchanges
        results = [place for place, message in enumerate(exchange) if message.role == "tool"]
        if window is None or not results:
            return False
        longest = max(results, key=lambda place: len(exchange[place].content))

        def size_with(text: str) -> int:
            result = replace(exchange[longest], content=text)
            self._exchanges = [(*exchange[:longest], result, *exchange[longest + 1 :])]
            return self._size(before)

        if size_with("") > window:
            self._exchanges = [exchange]
            return False
        size_with(truncate(exchange[longest].content, window, size_with, marker=RESULT_CUT))
        self.num_cut += 1
        return True


def as_chat(message: Message) -> ChatMessage:
    """A message of main context; a page that was a result names no call, so it is shown as said."""
    for role in ("system", "user", "assistant"):
        if message["role"] == role:
            return ChatMessage(role, message["content"])
    return ChatMessage("user", message["content"])
