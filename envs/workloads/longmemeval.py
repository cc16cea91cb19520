"""LongMemEval: one question about a user's long history of chats with an assistant.

Source: Wu et al., *LongMemEval: Benchmarking Chat Assistants on Long-Term Interactive Memory*,
arXiv 2410.10813; data `xiaowu0162/longmemeval-cleaned` (2025-09) or, of the first release,
`xiaowu0162/longmemeval`; MIT. A page is one turn; the question comes after the last one. What a
record is, and which turns are its evidence: `envs.workloads.longmemeval_records`.

The oracle layout holds evidence sessions alone. `haystack_sessions` lengthens such histories with
sessions that are nobody's evidence, taken from the S or M file beside it. Each of them is used in
one history only: a page that training and test shared would be known there as one that nobody asks
for. (The published S and M histories do share such sessions among questions.)
"""

from __future__ import annotations

from collections import Counter
from collections.abc import Iterator, Sequence
from pathlib import Path

import numpy as np

from envs.workloads.files import (
    DataFileMissingError,
    DataFormatError,
    DataSource,
    find_data_file,
    provenance_of,
    read_json,
)
from envs.workloads.longmemeval_records import (
    ABSTENTION,
    ROLES,
    TEMPORAL,
    Record,
    Session,
    moment,
    read_record,
)
from envs.workloads.splits import clustered_by_evidence
from memrl.documents import Document, Page, Query, Workload
from memrl.longmemeval_config import LongMemEvalConfig

SOURCE = DataSource(
    folder="longmemeval",
    published="hub data set xiaowu0162/longmemeval-cleaned (first release: xiaowu0162/longmemeval)",
    licence="MIT",
)
_STEMS = {
    "oracle": ("longmemeval_oracle", "longmemeval_oracle_sample"),
    "s": ("longmemeval_s_cleaned", "longmemeval_s", "longmemeval_s_sample"),
    "m": ("longmemeval_m_cleaned", "longmemeval_m"),
}
FILE_NAMES = {
    layout: tuple(f"{stem}.json{end}" for stem in stems for end in ("", ".gz"))
    for layout, stems in _STEMS.items()
}
"""Accepted names of the file of each layout, best first."""


def load_longmemeval(
    data_dir: str | Path | None, settings: LongMemEvalConfig, rng: np.random.Generator
) -> Workload:
    """Loads the questions of one layout with their histories.

    `Query.category` is the question's type, or "abstention". Temporal questions end with the date
    on which they are asked, which the benchmark tells a reader. Questions that share an evidence
    turn are one cluster.

    Args:
        data_dir: folder that holds `longmemeval/`; None takes the one named by `MEMRL_DATA`.
        settings: which layout, and how long histories are. rng: draws the added sessions.

    Returns:
        The workload; `repairs` counts what was mended, derived or dropped.

    Raises:
        DataFileMissingError: a file is not there (a `FileNotFoundError`).
        DataFormatError: a file is damaged or holds no question.
        ValueError: there are fewer sessions to add than the settings ask for.
    """
    repairs: Counter[str] = Counter()
    path = find_data_file(data_dir, SOURCE, FILE_NAMES[settings.layout])
    records = _read(path, repairs)[: settings.num_questions]
    paths = [path]
    if settings.haystack_sessions:
        filler_path = _filler_path(data_dir)
        paths.append(filler_path)
        pool = _fillers(_read(filler_path, Counter()), records)
        records = list(_lengthened(records, pool, settings.haystack_sessions, rng))
    counts = {what: count for what, count in sorted(repairs.items()) if count}
    documents = clustered_by_evidence(list(map(_document, records)))
    return Workload("longmemeval", documents, provenance_of(SOURCE, paths), counts)


def _read(path: Path, repairs: Counter[str]) -> list[Record]:
    values = read_json(path)
    if not isinstance(values, list):
        raise DataFormatError(
            f"{path} holds a {type(values).__name__} where LongMemEval has a list of questions: "
            f"fetch it again from {SOURCE.published}."
        )
    seen: set[str] = set()
    made = [read_record(value, seen, repairs) for value in values]
    records = [record for record in made if record is not None]
    if not records:
        raise DataFormatError(
            f"{path} holds no question with a history: fetch it again from {SOURCE.published}."
        )
    return records


def _filler_path(data_dir: str | Path | None) -> Path:
    try:
        return find_data_file(data_dir, SOURCE, (*FILE_NAMES["s"], *FILE_NAMES["m"]))
    except DataFileMissingError as error:
        raise DataFileMissingError(
            f"Sessions to add to histories are taken from the S or M file. {error}"
        ) from error


# ---------------------------------------------------------------------- longer histories


def _fillers(records: Sequence[Record], own: Sequence[Record]) -> list[Session]:
    """Different sessions that are nobody's evidence and in none of the histories."""
    used = {session.content for record in own for session in record.sessions}
    pool: dict[tuple[str, ...], Session] = {}
    for record in records:
        for session in record.sessions:
            if not session.is_evidence and session.content not in used:
                pool.setdefault(session.content, session)
    return list(pool.values())


def _lengthened(
    records: Sequence[Record], pool: Sequence[Session], num_sessions: int, rng: np.random.Generator
) -> Iterator[Record]:
    """The records, each with sessions added until it has `num_sessions`."""
    wanted = [max(0, num_sessions - len(record.sessions)) for record in records]
    if sum(wanted) > len(pool):
        raise ValueError(
            f"haystack_sessions {num_sessions} takes {sum(wanted)} sessions to add to "
            f"{len(records)} histories, and there are {len(pool)}, each for one history: lower it, "
            "or num_questions, or fetch the whole S file."
        )
    order = iter(rng.permutation(len(pool)).tolist())
    for record, count in zip(records, wanted, strict=True):
        added = [pool[next(order)] for _ in range(count)]
        places = sorted(rng.integers(0, len(record.sessions) + 1, count).tolist())
        yield _with_sessions(record, added, places)


def _with_sessions(record: Record, added: Sequence[Session], places: Sequence[int]) -> Record:
    """Put each added session before the own one of its place, on that one's date.

    Args:
        places: number of an own session, or of their end, which takes the question's date; rising.
    """
    dates = [*(session.date for session in record.sessions), record.date]
    sessions: list[Session] = []
    new_number: list[int] = []
    remaining = list(zip(added, places, strict=True))
    for number in range(len(record.sessions) + 1):
        while remaining and remaining[0][1] == number:
            session, _ = remaining.pop(0)
            sessions.append(Session("", dates[number], session.turns, is_evidence=False))
        if number < len(record.sessions):
            new_number.append(len(sessions))
            sessions.append(record.sessions[number])
    return Record(
        record.question_id,
        record.question,
        record.date,
        record.category,
        record.answers,
        tuple(sessions),
        tuple((new_number[number], place) for number, place in record.evidence),
    )


# ---------------------------------------------------------------------- documents


def _document(record: Record) -> Document:
    pages: list[Page] = []
    first: list[int] = []
    for number, session in enumerate(record.sessions):
        first.append(len(pages))
        pages += [
            Page(
                text=turn.text,
                speaker=ROLES[turn.role],
                role=turn.role,
                session=number,
                timestamp=session.date,
                source_id=f"{session.session_id}/{place}",
            )
            for place, turn in enumerate(session.turns)
        ]
    query = Query(
        text=_question(record),
        needs=tuple(first[number] + place for number, place in record.evidence),
        category=record.category,
        answers=record.answers,
        answerable=record.category != ABSTENTION,
        source_id=record.question_id,
        asked_after=len(pages),
    )
    return Document(record.question_id, tuple(pages), (query,), ROLES)


def _question(record: Record) -> str:
    asked = moment(record.date)
    if record.category != TEMPORAL or asked is None:
        return record.question
    year, month, day = asked[:3]
    return f"{record.question} (Asked on {year:04d}/{month:02d}/{day:02d}.)"
