"""Scripted players of a live session, and sessions over made-up tables."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from typing import Any

from table_fixtures import REWARD

from envs.session import Session
from memrl.memory.bm25 import Bm25Statistics
from memrl.memory.context_page import Message
from memrl.memory.embedders import HashingEmbedder
from memrl.memory.executor import Result
from memrl.options import PagingOptions
from memrl.player import Turn
from memrl.table import EpisodeTable

Call = tuple[object, object]
ON = {"request_heartbeat": True}


def search(query: str, page: int = 0) -> Call:
    return "conversation_search", {"query": query, "page": page, **ON}


def search_archival(query: str, page: int = 0) -> Call:
    return "archival_memory_search", {"query": query, "page": page, **ON}


def insert(content: str) -> Call:
    return "archival_memory_insert", {"content": content, **ON}


def evict(page_id: int) -> Call:
    return "evict", {"page_id": page_id, **ON}


def retrieve(page_id: int) -> Call:
    return "retrieve", {"page_id": page_id, **ON}


def say(message: str) -> Call:
    return "send_message", {"message": message}


class Idle:
    """Calls nothing."""

    def on_warning(self, turn: Turn) -> None:
        assert turn.is_open

    def on_query(self, turn: Turn, question: str) -> None:
        assert turn.is_open
        assert question


class Scripted:
    """Plays given calls: at the n-th query the n-th list, the same at warnings; later ones none.

    Attributes:
        results: of all calls. questions: as asked. seen: main context at the start of each turn,
            and at the end of each query.
    """

    def __init__(
        self,
        at_queries: Sequence[Sequence[Call]] = (),
        at_warnings: Sequence[Sequence[Call]] = (),
    ) -> None:
        self._at_queries, self._at_warnings = list(at_queries), list(at_warnings)
        self.results: list[Result] = []
        self.questions: list[str] = []
        self.warnings = 0
        self.seen: list[list[Message]] = []

    def on_warning(self, turn: Turn) -> None:
        self.warnings += 1
        self._play(turn, self._at_warnings)

    def on_query(self, turn: Turn, question: str) -> None:
        self.questions.append(question)
        self._play(turn, self._at_queries)
        self.seen.append(turn.messages())

    def _play(self, turn: Turn, script: list[Sequence[Call]]) -> None:
        self.seen.append(turn.messages())
        for name, arguments in script.pop(0) if script else ():
            self.results.append(turn.call(name, arguments))


class EachTurn:
    """Does the same thing in every turn."""

    def __init__(self, act: Callable[[Turn], None]) -> None:
        self._act = act

    def on_warning(self, turn: Turn) -> None:
        self._act(turn)

    def on_query(self, turn: Turn, question: str) -> None:  # noqa: ARG002
        self._act(turn)


def session_of(
    table: EpisodeTable, *, session: dict[str, Any] | None = None, **fields: Any
) -> Session:
    """A session over a table of `table_fixtures`, with weights that tell which terms are in a sum.

    Args:
        table: the workload. session: arguments of `Session`. fields: of the options.
    """
    defaults: dict[str, Any] = {"capacity": 3, "reward": REWARD}
    options = PagingOptions(**(defaults | fields))
    parts: dict[str, Any] = {
        "statistics": Bm25Statistics.fit(table.text.pages),
        "embedder": HashingEmbedder(16),
    }
    return Session(table, options, **(parts | (session or {})))
