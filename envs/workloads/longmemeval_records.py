"""Records of LongMemEval: sessions in the order of time, the question, its evidence turns.

Layout (Wu et al., arXiv 2410.10813; `longmemeval_oracle.json`, `_s`, `_m`): a list of objects with
`question_id` (ends in `_abs` where the history does not tell the answer), `question_type`,
`question`, `answer`, `question_date`, `haystack_dates`, `haystack_session_ids`, `haystack_sessions`
(lists of turns with `role`, `content` and in evidence sessions `has_answer`) and
`answer_session_ids`. Sessions of the oracle file are not in the order of time.

Evidence is turns: those that `has_answer` marks. A record without any mark gets one turn of each of
its evidence sessions: the turn of the one who told it (the assistant for questions about what it
said, the user for all others) that shares most terms with question and answer, the first among
equals. How much of the answer those turns hold is counted among the repairs; what has to be worked
out of several turns (a sum, a number of days) stands in none.
"""

from __future__ import annotations

import re
from collections import Counter
from collections.abc import Sequence
from dataclasses import dataclass

from envs.workloads.qa_records import fields_of, list_of, text_of
from memrl.memory.bm25 import analyze

ABSTENTION = "abstention"
TEMPORAL = "temporal-reasoning"
_ASSISTANT, _PREFERENCE = "single-session-assistant", "single-session-preference"
_DATE = re.compile(r"(\d{4})[/-](\d\d)[/-](\d\d)(?:\D+(\d\d):(\d\d))?")
ROLES = ("user", "assistant")


@dataclass(frozen=True, slots=True)
class Turn:
    """What one side says.

    Attributes:
        role: index into `ROLES`. text: not empty. has_answer: marked as evidence.
    """

    role: int
    text: str
    has_answer: bool = False


@dataclass(frozen=True, slots=True)
class Session:
    """A session of a history.

    Attributes:
        session_id: in the source. date: as the source writes it. turns: one or more.
        is_evidence: the source names it as holding the answer, or one of its turns is marked.
    """

    session_id: str
    date: str
    turns: tuple[Turn, ...]
    is_evidence: bool

    @property
    def content(self) -> tuple[str, ...]:
        """What makes two sessions the same one."""
        return tuple(turn.text for turn in self.turns)


@dataclass(frozen=True, slots=True)
class Record:
    """A question with its history.

    Attributes:
        question_id: unique. question, date: as asked. category: its type, or `ABSTENTION`.
        answers: accepted ones; empty for abstentions and for rubrics of preferences.
        sessions: in the order of time. evidence: (session, turn) of each evidence turn, sorted.
    """

    question_id: str
    question: str
    date: str
    category: str
    answers: tuple[str, ...]
    sessions: tuple[Session, ...]
    evidence: tuple[tuple[int, int], ...]


def read_record(value: object, seen: set[str], repairs: Counter[str]) -> Record | None:
    """Read one object of the file.

    Args:
        value: parsed JSON. seen: ids of questions read before; added to.
        repairs: counts of what was mended or dropped; added to.

    Returns:
        The record, or None if it is dropped.
    """
    fields = fields_of(value)
    question, question_id = text_of(fields.get("question")), text_of(fields.get("question_id"))
    sessions = _in_order(_sessions(fields, repairs), repairs)
    if not question or not question_id or not sessions:
        repairs["questions without an id, a text or a session dropped"] += 1
        return None
    if question_id in seen:
        repairs["questions whose id is there already dropped"] += 1
        return None
    seen.add(question_id)
    kind = text_of(fields.get("question_type"))
    is_abstention = question_id.endswith("_abs")
    answers = _answers(fields.get("answer"), kind, is_abstention, repairs)
    evidence = _evidence(sessions, kind, question, answers, repairs)
    repairs["questions without an evidence turn kept (no evidence recall)"] += not evidence
    return Record(
        question_id=question_id,
        question=question,
        date=text_of(fields.get("question_date")),
        category=ABSTENTION if is_abstention else kind or "-",
        answers=answers,
        sessions=sessions,
        evidence=evidence,
    )


def _sessions(fields: dict[str, object], repairs: Counter[str]) -> list[Session]:
    dates, ids = list_of(fields.get("haystack_dates")), list_of(fields.get("haystack_session_ids"))
    answer_ids = {text_of(own) for own in list_of(fields.get("answer_session_ids"))}
    sessions = []
    for number, given in enumerate(list_of(fields.get("haystack_sessions"))):
        session_id = text_of(ids[number]) if number < len(ids) else ""
        date = text_of(dates[number]) if number < len(dates) else ""
        turns = tuple(turn for own in list_of(given) if (turn := _turn(own, repairs)) is not None)
        if not turns:
            repairs["sessions without turns dropped"] += 1
            continue
        repairs["sessions without a date kept"] += not date
        is_evidence = session_id in answer_ids or any(turn.has_answer for turn in turns)
        sessions.append(Session(session_id, date, turns, is_evidence))
    missing = answer_ids - {session.session_id for session in sessions} - {""}
    repairs["evidence sessions that are not there ignored"] += len(missing)
    return sessions


def _turn(value: object, repairs: Counter[str]) -> Turn | None:
    fields = fields_of(value)
    role, text = text_of(fields.get("role")), text_of(fields.get("content"))
    if role not in ROLES or not text:
        repairs["turns without content or of an unknown role dropped"] += 1
        return None
    return Turn(ROLES.index(role), text, fields.get("has_answer") is True)


def _in_order(sessions: list[Session], repairs: Counter[str]) -> tuple[Session, ...]:
    """By date, equal dates as they stand; as they stand where a date cannot be read."""
    keys = [moment(session.date) for session in sessions]
    if None in keys:
        repairs["histories with a date that cannot be read left in the order of the file"] += 1
        return tuple(sessions)
    order = sorted(range(len(sessions)), key=lambda number: (keys[number], number))
    repairs["histories put into the order of time"] += order != sorted(order)
    return tuple(sessions[number] for number in order)


def moment(date: str) -> tuple[int, ...] | None:
    """A date of the source as numbers that can be compared: year to minute; None if it is none."""
    match = _DATE.match(date)
    return tuple(int(part or 0) for part in match.groups()) if match else None


def _answers(
    answer: object, kind: str, is_abstention: bool, repairs: Counter[str]
) -> tuple[str, ...]:
    if is_abstention:
        return ()
    if isinstance(answer, int | float) and not isinstance(answer, bool):
        repairs["numeric answers turned into text"] += 1
        answer = str(answer)
    text = text_of(answer)
    if text and kind == _PREFERENCE:
        repairs["rubrics of preferences not taken for answers"] += 1
        return ()
    repairs["questions without an answer kept"] += not text
    return (text,) if text else ()


def _evidence(
    sessions: Sequence[Session],
    kind: str,
    question: str,
    answers: Sequence[str],
    repairs: Counter[str],
) -> tuple[tuple[int, int], ...]:
    marked = tuple(
        (number, place)
        for number, session in enumerate(sessions)
        for place, turn in enumerate(session.turns)
        if turn.has_answer
    )
    if marked:
        return marked
    derived = derived_evidence(sessions, kind, [question, *answers])
    if derived:
        held = [sessions[number].turns[place].text for number, place in derived]
        repairs[f"derived evidence: a turn of each session, {_coverage(answers, held)}"] += 1
    return derived


def _coverage(answers: Sequence[str], held: Sequence[str]) -> str:
    """How much of the content words of the answers these texts hold, in words."""
    wanted = {term for answer in answers for term in analyze(answer)}
    found = wanted & {term for text in held for term in analyze(text)}
    if not wanted:
        return "without an answer to compare it with"
    share = len(found) / len(wanted)
    return f"with {'all' if share == 1 else 'some' if found else 'none'} of the answer's words"


def derived_evidence(
    sessions: Sequence[Session], kind: str, texts: Sequence[str]
) -> tuple[tuple[int, int], ...]:
    """One turn of every evidence session; see the module docstring.

    Args:
        sessions: of the history. kind: type of the question. texts: question and answers.
    """
    wanted = {term for text in texts for term in analyze(text)}
    teller = ROLES.index("assistant" if kind == _ASSISTANT else "user")
    found = []
    for number, session in enumerate(sessions):
        places = [place for place, turn in enumerate(session.turns) if turn.role == teller]
        if session.is_evidence and places:
            shared = [len(wanted & set(analyze(session.turns[place].text))) for place in places]
            found.append((number, places[shared.index(max(shared))]))
    return tuple(found)
