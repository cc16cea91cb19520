"""Scripted models that play one made-up episode by function calls."""

from __future__ import annotations

import json
from collections.abc import Callable, Sequence
from typing import Any

from session_players import session_of
from table_fixtures import table_of

from memrl.documents import Query
from memrl.evaluation.play_live import LiveEpisode
from memrl.evaluation.prompted import play_prompted
from memrl.llm import prompts
from memrl.llm.backend import Reply, Request, ToolCall
from memrl.llm.scripted import ScriptedBackend
from memrl.policies.prompted_functions import PlayerOptions, PromptedPlayer
from memrl.table import EpisodeTable

TEXTS = ["apple one", "pear two", "plum three", "fig four", "lime five", "kiwi six"]
NOTHING = Reply("nothing to save")
Script = Callable[[Request], Reply | str]


def fruit(*needs: int, texts: Sequence[str] = TEXTS) -> EpisodeTable:
    """Six pages and a question; with three slots, pages 4 and 5 are resident when it is asked."""
    return table_of(texts, [(6, Query("what about the apple?", needs))])


def call(name: str, /, **arguments: object) -> Reply:
    return Reply("", calls=(ToolCall(name, json.dumps(arguments)),))


def search(query: str, **more: object) -> Reply:
    return call("conversation_search", query=query, request_heartbeat=True, **more)


def say(message: str) -> Reply:
    return call("send_message", message=message)


def is_warning(request: Request) -> bool:
    return any(message.content == prompts.WARNING_EVENT for message in request.messages)


def at_query(*replies: Reply | str) -> Script:
    """Does nothing at warnings, and says these at the query, in order."""
    remaining = list(replies)
    return lambda request: NOTHING if is_warning(request) else remaining.pop(0)


class Played:
    """One episode of `fruit`, and all that can be asked about it."""

    def __init__(
        self,
        script: Script,
        table: EpisodeTable,
        *,
        options: PlayerOptions | None = None,
        backend: ScriptedBackend | None = None,
        **parts: Any,
    ) -> None:
        self.backend = backend or ScriptedBackend(script)
        self.player = PromptedPlayer(self.backend, options)
        self.live: list[LiveEpisode] = []
        session = session_of(table, **parts)
        (self.record,), (self.log,) = play_prompted(
            session, self.player, [0], on_played=lambda _, played: self.live.append(played)
        )

    @property
    def asked(self) -> list[Request]:
        """Requests of the turn at the query."""
        return [request for request in self.backend.requests if not is_warning(request)]

    @property
    def counts(self) -> dict[str, float]:
        return {name: value for name, value in self.log.counts.items() if value}

    def ends(self) -> list[str]:
        return [end for end in self.log.ends if end.startswith("query/")]
