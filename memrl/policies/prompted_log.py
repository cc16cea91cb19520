"""What a model that calls functions did in its turns, and why it missed what it missed.

A third party's re-run of MemGPT's benchmark told bad calls, no search, wrong search and a search
without an answer apart; here are also the tier that was searched, stopping too early, and evidence
that had been lost before anybody asked.
"""

from __future__ import annotations

from collections import Counter
from collections.abc import Sequence
from dataclasses import asdict, dataclass, field
from enum import StrEnum
from typing import Any

from memrl.episode_log import AnsweredQuery


class End(StrEnum):
    """Why a turn ended."""

    MESSAGE = "message"  # said something to the user
    STOPPED = "stopped"  # a call without a heartbeat
    NO_CALL = "no_call"  # words where a call was due, also after it was told
    FAILED_CALLS = "failed_calls"  # too many refused in a row
    MANY_CALLS = "many_calls"  # the cap of the turn
    MODEL_FAILED = "model_failed"  # no reply
    NO_ROOM = "no_room"  # main context and the event do not fit the window


_BROKEN = (End.NO_CALL, End.FAILED_CALLS, End.MODEL_FAILED, End.NO_ROOM)


class Failure(StrEnum):
    """Why a query was missed; see `failure_of`."""

    BAD_CALL = "bad_call"
    NO_SEARCH = "no_search"
    NOT_STORED = "not_stored"
    WRONG_TIER = "wrong_tier"
    WRONG_SEARCH = "wrong_search"
    PREMATURE_STOP = "premature_stop"
    FOUND_NOT_ANSWERED = "found_not_answered"


@dataclass(frozen=True, slots=True)
class SearchTrace:
    """One search that ran.

    Attributes:
        function, query, page: as called. num_hits: on that page. total: on all pages.
    """

    function: str
    query: str
    page: int
    num_hits: int
    total: int


@dataclass(slots=True)
class TurnTrace:
    """One turn of the model.

    Attributes:
        is_query: a question was asked; otherwise it was a memory warning.
        has_recall: whether recall could be searched.
        end: why it ended.
        replies: of the model. failed_replies: of these, those that never came. cut_replies: those
            that reached the limit. no_calls: those without a call.
        calls: functions that were called, by name, "" for names of none.
        refused: reasons of refused calls. searches: those that ran.
        said: something to the user.
        extra_calls: written into one reply behind the end of the turn, and not run.
        heartbeats_added: to calls that did not ask for one.
        left_out: messages of the turn that the window had no room for. cut_results: likewise.
        prompt_tokens, cached_tokens, reply_tokens, seconds: of the model.
    """

    is_query: bool
    has_recall: bool
    end: End = End.MANY_CALLS
    replies: int = 0
    failed_replies: int = 0
    cut_replies: int = 0
    no_calls: int = 0
    calls: Counter[str] = field(default_factory=Counter)
    refused: Counter[str] = field(default_factory=Counter)
    searches: list[SearchTrace] = field(default_factory=list)
    said: bool = False
    extra_calls: int = 0
    heartbeats_added: int = 0
    left_out: int = 0
    cut_results: int = 0
    prompt_tokens: int = 0
    cached_tokens: int = 0
    reply_tokens: int = 0
    seconds: float = 0.0

    @property
    def has_more(self) -> bool:
        """Whether the last search had hits on pages of results that were never looked at."""
        if not self.searches:
            return False
        last = self.searches[-1]
        shown = {
            search.page: search.num_hits
            for search in self.searches
            if (search.function, search.query) == (last.function, last.query)
        }
        return sum(shown.values()) < last.total


def failure_of(turn: TurnTrace, answer: AnsweredQuery) -> Failure | None:
    """Why a query was missed; None if it was not, or pays no evidence.

    It is missed unless all its evidence was in main context at the end and something was said. The
    first of these that holds is the reason:
    - the evidence was there and nothing was said: `bad_call` where calls broke off,
      `premature_stop` where a call asked for no other, `found_not_answered` at the cap;
    - all of it was found, or there from the start, and not there at the end: `found_not_answered`;
    - no search ran: `bad_call` where calls were refused or broke off, else `no_search`;
    - without recall, all that was stored was found: `not_stored`, it was lost before;
    - with recall, archival alone was searched and all that it held was found: `wrong_tier`;
    - calls broke off: `bad_call`;
    - the model ended the turn by itself, with further results unseen or nothing said:
      `premature_stop`;
    - else `wrong_search`.
    """
    if answer.evidence is None or (answer.evidence == 1.0 and turn.said):
        return None
    broke_off = turn.end in _BROKEN
    if answer.evidence == 1.0:
        if broke_off:
            return Failure.BAD_CALL
        is_stopped = turn.end is End.STOPPED
        return Failure.PREMATURE_STOP if is_stopped else Failure.FOUND_NOT_ANSWERED
    if not answer.absent or answer.staged == 1.0:
        return Failure.FOUND_NOT_ANSWERED
    if not turn.searches:
        return Failure.BAD_CALL if broke_off or turn.refused else Failure.NO_SEARCH
    if answer.staged >= answer.kept:
        if not turn.has_recall:
            return Failure.NOT_STORED
        if {search.function for search in turn.searches} == {"archival_memory_search"}:
            return Failure.WRONG_TIER
    if broke_off:
        return Failure.BAD_CALL
    has_given_up = turn.end is End.STOPPED or (turn.end is End.MESSAGE and turn.has_more)
    return Failure.PREMATURE_STOP if has_given_up else Failure.WRONG_SEARCH


def missed_by_actions(answer: AnsweredQuery, *, has_recall: bool) -> Failure | None:
    """Why a policy that picks actions missed a query; None if it was not, or pays no evidence.

    The environment searches for it, and all that it says is what main context holds:
    - all missing evidence was staged, or there from the start: `found_not_answered`;
    - all that archival held of it was staged: `not_stored`, unless recall is staged as well;
    - else `wrong_search`.

    Args:
        answer: to the query. has_recall: whether pages that were not stored can be staged.
    """
    if answer.evidence is None or answer.evidence == 1.0:
        return None
    if not answer.absent or answer.staged == 1.0:
        return Failure.FOUND_NOT_ANSWERED
    if answer.staged >= answer.kept and not has_recall:
        return Failure.NOT_STORED
    return Failure.WRONG_SEARCH


@dataclass(frozen=True)
class PromptedLog:
    """All turns of an episode together; JSON-able by `as_dict`.

    Attributes:
        warnings, queries: turns. ends: why turns ended, "warning/..." and "query/...".
        calls: of functions, by name. refused: calls, by reason.
        missed: queries that pay evidence and were missed, by `Failure`. scored: those that pay.
        counts: sums of all numbers of `TurnTrace` by name.
    """

    warnings: int
    queries: int
    ends: dict[str, int]
    calls: dict[str, int]
    refused: dict[str, int]
    missed: dict[str, int]
    scored: int
    counts: dict[str, float]

    @classmethod
    def of(cls, turns: Sequence[TurnTrace], answers: Sequence[AnsweredQuery]) -> PromptedLog:
        """Put together the turns of an episode and the answers of its log.

        Raises:
            ValueError: if there are not as many turns at queries as answers.
        """
        asked = [turn for turn in turns if turn.is_query]
        if len(asked) != len(answers):
            raise ValueError(
                f"The player had {len(asked)} turns at queries and the log has {len(answers)} "
                "answers: take the turns of each episode by themselves."
            )
        failures = map(failure_of, asked, answers)
        missed = Counter(str(failure) for failure in failures if failure is not None)
        ends = Counter(f"{'query' if turn.is_query else 'warning'}/{turn.end}" for turn in turns)
        return cls(
            warnings=len(turns) - len(asked),
            queries=len(asked),
            ends=dict(sorted(ends.items())),
            calls=dict(sorted(_sum([turn.calls for turn in turns]).items())),
            refused=dict(sorted(_sum([turn.refused for turn in turns]).items())),
            missed=dict(sorted(missed.items())),
            scored=sum(answer.evidence is not None for answer in answers),
            counts={name: sum(getattr(turn, name) for turn in turns) for name in _COUNTS},
        )

    def as_dict(self) -> dict[str, Any]:
        """JSON-able."""
        return asdict(self)


_COUNTS = (
    *("replies", "failed_replies", "cut_replies", "no_calls", "extra_calls", "heartbeats_added"),
    *("left_out", "cut_results", "prompt_tokens", "cached_tokens", "reply_tokens", "seconds"),
)


def _sum(counters: Sequence[Counter[str]]) -> Counter[str]:
    total: Counter[str] = Counter()
    for counter in counters:
        total.update(counter)
    return total
