"""A prompted model that plays a live memory by calling functions: MemGPT as in the paper.

Packer et al., arXiv 2310.08560v2, sections 2.2 to 2.4: at the warning of memory pressure and at
queries the model sees main context, calls a function, sees what came of it, and goes on while it
asks for a heartbeat. What it searches for is free text, so its rows do not have the same powers as
those of `memrl.policies.prompted_choice` and are marked so.
"""

from __future__ import annotations

import json
from collections.abc import Callable, Sequence
from dataclasses import asdict, dataclass, replace
from typing import Any, NamedTuple

from memrl.llm import prompts
from memrl.llm.backend import Backend, ChatMessage, Reply, Request, ToolCall
from memrl.llm.costs import LlmCosts
from memrl.memory.display import make_display
from memrl.memory.executor import Result
from memrl.memory.schemas import HEARTBEAT
from memrl.player import Turn
from memrl.policies.prompted_log import End, SearchTrace, TurnTrace
from memrl.policies.turn_chat import TurnChat


@dataclass(frozen=True)
class PlayerOptions:
    """Limits of a turn.

    Attributes:
        max_replies: of the model in one turn, those without a call included.
        max_failures: refused calls in a row that end the turn.
        max_reply_tokens: of one reply.
        adds_heartbeats: at a query, add the heartbeat that a call did not mention, unless it is
            `send_message`: MemGPT does so for local models, which forget it.

    Raises:
        ValueError: if a limit is below 1.
    """

    max_replies: int = 16
    max_failures: int = 3
    max_reply_tokens: int = 512
    adds_heartbeats: bool = False

    def __post_init__(self) -> None:
        """Refuse limits that leave no turn."""
        for name in ("max_replies", "max_failures", "max_reply_tokens"):
            if getattr(self, name) < 1:
                raise ValueError(f"{name} must be at least 1, got {getattr(self, name)}.")


class PromptedPlayer:
    """Asks a model what to call; a `memrl.player.Player`.

    Its instructions stand in main context: give the session `prompts.player_instructions`. A reply
    without a call is told so once; a second one ends the turn. A refused call goes back to the
    model with the reason, until too many have failed in a row. Whatever happens, an episode goes
    on.

    Args:
        backend: the model. options: limits. pose: puts the text of a query as a question.

    Attributes:
        costs: of all turns so far. Every reply is a decision.
    """

    def __init__(
        self,
        backend: Backend,
        options: PlayerOptions | None = None,
        pose: Callable[[str], str] = str,
    ) -> None:
        self.backend = backend
        self.options = options or PlayerOptions()
        self.costs = LlmCosts()
        self._pose = pose
        self._turns: list[TurnTrace] = []
        self._display = make_display()

    @property
    def settings(self) -> dict[str, Any]:
        """How it plays, for the settings of its rows; JSON-able."""
        return {
            "mode": "functions",
            **asdict(self.options),
            "question": self._pose("..."),
            "model": dict(self.backend.identity),
            "prompts_sha256": prompts.module_sha256(),
        }

    def take_turns(self) -> list[TurnTrace]:
        """The turns since this was called last, oldest first."""
        turns, self._turns = self._turns, []
        return turns

    def on_warning(self, turn: Turn) -> None:
        """Let the model save what it will need."""
        self._play(turn, prompts.WARNING_EVENT, is_query=False)

    def on_query(self, turn: Turn, question: str) -> None:
        """Let the model search, and answer by `send_message`."""
        self._play(turn, self._display(self._pose(question)), is_query=True)

    # ------------------------------------------------------------------ one turn

    def _play(self, turn: Turn, event: str, *, is_query: bool) -> None:
        tools = turn.tools()
        names = {tool["function"]["name"] for tool in tools}
        trace = TurnTrace(is_query=is_query, has_recall="conversation_search" in names)
        self._turns.append(trace)
        chat = TurnChat(self.backend, event, tools, self.options.max_reply_tokens)
        end: End | None = None
        failures = 0  # in a row
        while end is None and trace.replies < self.options.max_replies:
            messages = chat.messages(turn.messages())
            trace.left_out, trace.cut_results = chat.num_left_out, chat.num_cut
            if messages is None:
                end = End.NO_ROOM
                break
            reply = self._ask(Request(messages, tuple(tools), (), chat.reply_tokens), trace)
            if reply.error:
                end = End.MODEL_FAILED
            elif not reply.calls:
                end = self._told_of_no_call(chat, reply, trace)
            else:
                ran = self._run(turn, reply, trace)
                for one in ran:
                    failures = failures + 1 if one.result.status == "failed" else 0
                end = _end_of(turn, ran[-1])
                if end is None and failures >= self.options.max_failures:
                    end = End.FAILED_CALLS
                chat.add(*self._exchange(reply, ran))
        trace.end = end or End.MANY_CALLS

    def _ask(self, request: Request, trace: TurnTrace) -> Reply:
        (reply,) = self.backend.complete([request])
        self.costs.add(reply)
        self.costs.decided(reply.usage.seconds)
        trace.replies += 1
        trace.failed_replies += bool(reply.error)
        trace.cut_replies += reply.finish == "length"
        trace.prompt_tokens += reply.usage.prompt_tokens
        trace.cached_tokens += reply.usage.cached_tokens
        trace.reply_tokens += reply.usage.reply_tokens
        trace.seconds += reply.usage.seconds
        return reply

    def _told_of_no_call(self, chat: TurnChat, reply: Reply, trace: TurnTrace) -> End | None:
        trace.no_calls += 1
        self.costs.parse_failures += trace.is_query  # at a warning there may be nothing to do
        if trace.no_calls > 1:
            return End.NO_CALL
        said = (ChatMessage("assistant", self._display(reply.text)),) if reply.text else ()
        chat.add(*said, ChatMessage("user", prompts.NO_CALL))
        return None

    def _run(self, turn: Turn, reply: Reply, trace: TurnTrace) -> list[_Ran]:
        """Run the calls of a reply in order, as long as the turn is open; at least one."""
        ran: list[_Ran] = []
        for call in reply.calls:
            if ran and not turn.is_open:
                break
            # Results name their calls, also where the back end gives no ids. Nine letters and
            # digits are what the strictest templates ask for.
            call_id = call.call_id or f"call{trace.calls.total():05d}"
            ran.append(self._call(turn, replace(call, call_id=call_id), trace))
        trace.extra_calls += len(reply.calls) - len(ran)
        return ran

    def _call(self, turn: Turn, call: ToolCall, trace: TurnTrace) -> _Ran:
        given = _parsed(call.arguments)
        arguments: object = call.arguments
        adds = self.options.adds_heartbeats and trace.is_query and call.name != "send_message"
        if adds and given is not None and HEARTBEAT not in given:
            trace.heartbeats_added += 1
            arguments = given = {**given, HEARTBEAT: True}
        result = turn.call(call.name, arguments)
        trace.calls[result.function] += 1
        trace.said |= result.message is not None
        if result.reason is not None:
            trace.refused[str(result.reason)] += 1
        fields = given or {}
        if result.page is not None:
            query, total = str(fields.get("query", "")), result.total or 0
            found = SearchTrace(result.function, query, result.page, len(result.hits), total)
            trace.searches.append(found)
        return _Ran(call, result, result.status == "failed" or bool(fields.get(HEARTBEAT)))

    def _exchange(self, reply: Reply, ran: Sequence[_Ran]) -> list[ChatMessage]:
        """The reply as it counted, and the result of each call that ran."""
        calls = tuple(one.call for one in ran)
        results = [ChatMessage("tool", one.result.text, call_id=one.call.call_id) for one in ran]
        return [ChatMessage("assistant", self._display(reply.text), calls), *results]


class _Ran(NamedTuple):
    """A call that ran, what came of it, and whether it was to be followed by another."""

    call: ToolCall
    result: Result
    goes_on: bool


def _end_of(turn: Turn, last: _Ran) -> End | None:
    """How the turn has ended with a call, or None if it is open."""
    if turn.is_open:
        return None
    if last.result.message is not None:
        return End.MESSAGE
    return End.MANY_CALLS if last.goes_on else End.STOPPED


def _parsed(arguments: str) -> dict[str, Any] | None:
    """Arguments as an object; None where they are none, which the executor will say better."""
    try:
        given = json.loads(arguments)
    except (ValueError, RecursionError):
        return None
    return given if isinstance(given, dict) else None
