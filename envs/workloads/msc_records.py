"""Records of Multi-Session Chat: the two layouts of its files, joined into whole conversations.

Layouts (ParlAI's `msc_v0.1`, JSON lines, one file for each session and part):

- `msc_personasummary/session_<k>/<part>.txt`, k = 1 to 4: `initial_data_id`, `dialog` (turns with
  `text`, `id` "bot_0" or "bot_1", and `persona_text`, what a crowdworker noted of the turn, where
  there was anything to note), `followup` and `newfact` (see `Session.openings`). The `problem_data`
  of one turn holds `prompt_time`, the time that passes before the next session ("6 days").
- `msc_dialogue/session_<k>/<part>.txt`, k = 2 to 5: `metadata` (`initial_data_id`, and
  `session_id`, which counts from 0 while the folders count from 1), `dialog` of session k (`id`
  "Speaker 1" or "Speaker 2"), `previous_dialogs`: sessions 1 to k - 1 with `time_num` and
  `time_unit` (the time before the next one) and `time_back` (the time before session k, "6 days 3
  hours ago"; with a leading blank where there are hours only).

The first layout has the notes and wins where both have a session; the second one gives session 5,
sessions and times that the first one lacks, and is compared with it. Whatever departs from the
layouts is mended or dropped, and counted under a sentence that says what was done.
"""

from __future__ import annotations

import re
from collections import Counter
from collections.abc import Iterator, Mapping
from dataclasses import dataclass, replace
from itertools import count, takewhile
from pathlib import Path
from typing import TypeVar

from envs.workloads.files import (
    DataFileMissingError,
    DataFormatError,
    DataSource,
    find_data_file,
    read_json_lines,
)
from envs.workloads.qa_records import fields_of, list_of, text_of

SOURCE = DataSource(
    folder="msc",
    published="ParlAI's downloads (msc_v0.1.tar.gz, task msc)",
    licence="no licence of its own (ParlAI, which published it, is MIT)",
)
PARTS = ("valid", "test")
SUMMARY_SESSIONS = (1, 2, 3, 4)
DIALOGUE_SESSIONS = (2, 3, 4, 5)
SESSION_DIFFERS = "sessions that differ between the layouts: msc_personasummary's taken"
GAP_DIFFERS = "times between sessions that differ between the layouts: msc_personasummary's taken"

_HOURS = {"hour": 1, "day": 24}
_TIME = re.compile(r"(\d+)\s+(hour|day)s?")
_SPEAKER_OF = {"bot_0": 0, "bot_1": 1, "Speaker 1": 0, "Speaker 2": 1}

Read = TypeVar("Read")


@dataclass(frozen=True, slots=True)
class Turn:
    """A turn: its text, who speaks (0 or 1), and what a crowdworker noted of it, "" for nothing."""

    text: str
    speaker: int
    note: str = ""


@dataclass(frozen=True, slots=True)
class Session:
    """A session.

    Attributes:
        turns: with a text each.
        gap_hours: hours that pass before the next session; None where nothing says.
        openings: what the crowdworker who read the session wrote for the next one to open with: a
            question about what was said, and something new to tell (speaker 1 used one of the two
            in 2,193 of the 2,205 next sessions at hand).
    """

    turns: tuple[Turn, ...]
    gap_hours: int | None = None
    openings: tuple[str, ...] = ()


@dataclass(frozen=True, slots=True)
class Conversation:
    """The sessions of two speakers from the first one on, and the part that they are in."""

    conversation_id: str
    part: str
    sessions: tuple[Session, ...]


def read_conversations(
    data_dir: str | Path | None, most: int | None, repairs: Counter[str]
) -> tuple[list[Conversation], list[Path]]:
    """Reads the conversations of both parts.

    Args:
        data_dir: folder that holds `msc/`; None takes the one named by `MEMRL_DATA`.
        most: most conversations of each part, from its beginning; None for all.
        repairs: counts of what was mended or dropped; added to.

    Returns:
        The conversations, the parts in the order of `PARTS`; and the files that were read.

    Raises:
        DataFileMissingError: a session of the first four is in no file (a `FileNotFoundError`).
        DataFormatError: a file is damaged, or holds no conversation.
    """
    conversations: list[Conversation] = []
    files: list[Path] = []
    known: set[str] = set()
    for part in PARTS:
        read = _read_part(data_dir, part, repairs, files)
        fresh = [name for name in read if name not in known]
        repairs["conversations of the test part that are in valid dropped"] += len(read) - len(
            fresh
        )
        known.update(fresh)
        conversations += [Conversation(name, part, read[name]) for name in fresh[:most]]
    return conversations, files


def _read_part(
    data_dir: str | Path | None, part: str, repairs: Counter[str], files: list[Path]
) -> dict[str, tuple[Session, ...]]:
    """Sessions of the conversations of a part, by their id; their files go to `files`."""
    missing: dict[int, DataFileMissingError] = {}

    def find(layout: str, number: int) -> Path | None:
        name = f"{layout}/session_{number}/{part}.txt"
        try:
            path = find_data_file(data_dir, SOURCE, (f"{name}.gz", name))
        except DataFileMissingError as error:
            missing.setdefault(number, error)
            return None
        files.append(path)
        return path

    summaries = {
        number: _read_summaries(path, repairs)
        for number in SUMMARY_SESSIONS
        if (path := find("msc_personasummary", number)) is not None
    }
    dialogues = {
        number: _read_dialogues(path, number, repairs)
        for number in DIALOGUE_SESSIONS
        if (path := find("msc_dialogue", number)) is not None
    }
    for number in SUMMARY_SESSIONS:
        if number not in summaries and not any(later >= number for later in dialogues):
            raise missing[number]
    return _joined(summaries, dialogues, repairs)


def _joined(
    summaries: Mapping[int, Mapping[str, Session]],
    dialogues: Mapping[int, Mapping[str, Mapping[int, Session]]],
    repairs: Counter[str],
) -> dict[str, tuple[Session, ...]]:
    layouts = (*summaries.values(), *dialogues.values())
    names = dict.fromkeys(name for layout in layouts for name in layout)
    joined = {}
    for name in names:
        told: dict[int, Session] = {}
        for number in sorted(dialogues):  # a later file says when the next session was
            told |= dialogues[number].get(name, {})
        for number, layout in summaries.items():
            if name in layout:
                told[number] = _merged(layout[name], told.get(number), repairs)
        sessions = [told[number] for number in takewhile(told.__contains__, count(1))]
        repairs["sessions after one that is missing dropped"] += len(told) - len(sessions)
        repairs["conversations without a first session dropped"] += not sessions
        if sessions:
            joined[name] = tuple(sessions)
            own = sum(name in layout for layout in summaries.values())
            repairs["sessions of msc_dialogue alone, without notes"] += max(0, len(sessions) - own)
    return joined


def _merged(own: Session, other: Session | None, repairs: Counter[str]) -> Session:
    """A session of msc_personasummary, compared with the same one of msc_dialogue."""
    if other is None:
        return own
    texts = ([turn.text for turn in session.turns] for session in (own, other))
    repairs[SESSION_DIFFERS] += next(texts) != next(texts)
    if own.gap_hours is None:
        return replace(own, gap_hours=other.gap_hours)
    repairs[GAP_DIFFERS] += other.gap_hours not in (None, own.gap_hours)
    return own


# ---------------------------------------------------------------------- files


def _records(path: Path, repairs: Counter[str]) -> Iterator[tuple[str, Mapping[str, object]]]:
    """Ids of different conversations, and the fields of their records."""
    known: set[str] = set()
    for value in read_json_lines(path, repairs):
        fields = fields_of(value)
        name = text_of(fields.get("initial_data_id"))
        name = name or text_of(fields_of(fields.get("metadata")).get("initial_data_id"))
        repairs["records without the id of a conversation dropped"] += not name
        repairs["records of a conversation that its file has already dropped"] += name in known
        if name and name not in known:
            known.add(name)
            yield name, fields


def _read_summaries(path: Path, repairs: Counter[str]) -> dict[str, Session]:
    """Sessions of one file of msc_personasummary, by the id of their conversation."""
    sessions = {}
    for name, fields in _records(path, repairs):
        turns = read_turns(fields.get("dialog"), repairs)
        if not turns:
            repairs["sessions without turns dropped"] += 1
            continue
        problems = [fields_of(fields_of(t).get("problem_data")) for t in list_of(fields["dialog"])]
        gaps = (hours_of(problem.get("prompt_time")) for problem in problems)
        openings = (text_of(fields.get("followup")), text_of(fields.get("newfact")))
        sessions[name] = Session(
            turns,
            gap_hours=next((gap for gap in gaps if gap is not None), None),
            openings=tuple(opening for opening in openings if opening),
        )
    return _usable(sessions, path)


def _read_dialogues(
    path: Path, number: int, repairs: Counter[str]
) -> dict[str, dict[int, Session]]:
    """Sessions up to the given one, by their number, by the id of their conversation."""
    told = {}
    for name, fields in _records(path, repairs):
        session_id = fields_of(fields.get("metadata")).get("session_id")
        repairs["records whose session_id is not their folder's kept"] += session_id != number - 1
        sessions: dict[int, Session] = {}
        previous = previous_sessions(fields.get("previous_dialogs"), repairs)
        if len(previous) == number - 1:
            sessions = dict(enumerate(previous, start=1))
        else:
            repairs["previous_dialogs of another number of sessions ignored"] += 1
        sessions[number] = Session(read_turns(fields.get("dialog"), repairs))
        empty = [place for place, session in sessions.items() if not session.turns]
        repairs["sessions without turns dropped"] += len(empty)
        told[name] = {place: own for place, own in sessions.items() if place not in empty}
    return _usable({name: own for name, own in told.items() if own}, path)


def _usable(read: dict[str, Read], path: Path) -> dict[str, Read]:
    if not read:
        raise DataFormatError(
            f"{path} holds no conversation with turns: fetch it again from {SOURCE.published}."
        )
    return read


# ---------------------------------------------------------------------- parts of records


def read_turns(dialog: object, repairs: Counter[str]) -> tuple[Turn, ...]:
    """Turns with a text; a speaker whose id says nothing is told by the turn's place."""
    turns = []
    for place, value in enumerate(list_of(dialog)):
        fields = fields_of(value)
        text = text_of(fields.get("text"))
        if not text:
            repairs["turns without text dropped"] += 1
            continue
        speaker = _SPEAKER_OF.get(text_of(fields.get("id")), place % 2)
        turns.append(Turn(text, speaker, text_of(fields.get("persona_text"))))
    return tuple(turns)


def previous_sessions(previous: object, repairs: Counter[str]) -> list[Session]:
    """Sessions of `previous_dialogs`, which may have no turns, with the times after them."""
    records = [fields_of(value) for value in list_of(previous)]
    backs = [*(hours_of(fields.get("time_back")) for fields in records), 0]
    sessions = []
    for fields, back, next_back in zip(records, backs, backs[1:], strict=False):
        gap = hours_of(f"{fields.get('time_num')} {fields.get('time_unit')}")
        between = None if back is None or next_back is None else back - next_back
        repairs["times between sessions that contradict time_back kept"] += (
            gap is not None and between not in (None, gap)
        )
        gap = between if gap is None else gap
        sessions.append(Session(read_turns(fields.get("dialog"), repairs), gap))
    return sessions


def hours_of(text: object) -> int | None:
    """Hours of a time such as "6 days 3 hours ago" or " 3 hours ago"; None for what is none."""
    parts = _TIME.findall(text) if isinstance(text, str) else []
    return sum(int(number) * _HOURS[unit] for number, unit in parts) if parts else None
