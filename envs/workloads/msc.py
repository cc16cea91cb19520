"""Multi-Session Chat: two people over several sessions, and what others noted of their turns.

Source: Xu et al., *Beyond Goldfish Memory: Long-Term Open-Domain Conversation*, arXiv 2107.07567;
ParlAI's `msc_v0.1`, read by `envs.workloads.msc_records`. A document is a conversation, a page a
turn; `Page.timestamp` is the time since the first session.

**The human labels.** Of two turns in three a crowdworker noted what is worth remembering
(`persona_text`): what to store, judged by people. The data set asks nothing, so a note is the text
of a query here, which needs the turn that it was noted of: *recall what was worth noting*. The
labels are thereby needs, and reach a policy where needs do and nowhere else: in the reward, in the
labels of gain regression, and in the page scorer (`memrl.policies.prior`), which becomes a model of
what people would note. Two things to know: a note is closer to its turn than a question would be,
so that finding is easy here and storing is what is tested; and turns with the same note are needed
together, since the note cannot say which of them is meant.

The test set is the source's (`SplitConfig.kind` "published"); its training part is not read.
"""

from __future__ import annotations

from collections import Counter
from collections.abc import Sequence
from pathlib import Path

from envs.workloads.files import provenance_of
from envs.workloads.msc_records import SOURCE, Session, read_conversations
from memrl.documents import Document, Page, Query, Workload

__all__ = ["NOTE", "SOURCE", "SPEAKERS", "conversation_pages", "load_msc", "note_queries"]

SPEAKERS = ("Speaker 1", "Speaker 2")
NOTE = "persona"
"""`Query.category` of the queries that are notes."""


def load_msc(
    data_dir: str | Path | None = None, *, conversations_per_part: int | None = None
) -> Workload:
    """Loads the conversations with their notes as queries.

    Args:
        data_dir: folder that holds `msc/`; None takes the one named by `MEMRL_DATA`.
        conversations_per_part: most conversations of each part (valid and test), from its
            beginning; None for all.

    Returns:
        The workload; `repairs` counts what was mended or dropped.

    Raises:
        DataFileMissingError: a session of the first four is in no file (a `FileNotFoundError`).
        DataFormatError: a file is damaged, or holds no conversation.
    """
    repairs: Counter[str] = Counter()
    conversations, files = read_conversations(data_dir, conversations_per_part, repairs)
    documents = tuple(
        Document(
            document_id=own.conversation_id,
            pages=conversation_pages(own.conversation_id, own.sessions, repairs),
            queries=note_queries(
                own.conversation_id,
                [turn.note for session in own.sessions for turn in session.turns],
                repairs,
            ),
            speakers=SPEAKERS,
            is_test=own.part == "test",
        )
        for own in conversations
    )
    counts = {what: count for what, count in sorted(repairs.items()) if count}
    return Workload("msc", documents, provenance_of(SOURCE, files), counts)


def conversation_pages(
    document_id: str, sessions: Sequence[Session], repairs: Counter[str]
) -> tuple[Page, ...]:
    """One page a turn, with the time since the first session.

    Args:
        document_id: name of the conversation.
        sessions: in order, from the first one.
        repairs: counts of what was mended or dropped; added to.
    """
    pages: list[Page] = []
    hours = 0
    for number, session in enumerate(sessions):
        if number:
            gap = sessions[number - 1].gap_hours
            repairs["times between sessions that nothing states taken as none"] += gap is None
            hours += gap or 0
        pages += [
            Page(
                text=turn.text,
                speaker=SPEAKERS[turn.speaker],
                role=turn.speaker,
                session=number,
                timestamp=_since_the_first(hours) if number else "first session",
                source_id=f"{document_id}/{number + 1}:{place}",
            )
            for place, turn in enumerate(session.turns, start=1)
        ]
    return tuple(pages)


def _since_the_first(hours: int) -> str:
    counts = {"day": hours // 24, "hour": hours % 24}
    parts = [f"{count} {unit}{'s' * (count > 1)}" for unit, count in counts.items() if count]
    return f"{' '.join(parts) or '0 hours'} after the first session"


def note_queries(
    document_id: str, notes: Sequence[str], repairs: Counter[str]
) -> tuple[Query, ...]:
    """One query for each different note.

    Args:
        document_id: name of the conversation.
        notes: of each page what was noted of it, "" for nothing.
        repairs: counts of what was mended or dropped; added to.
    """
    pages_of: dict[str, list[int]] = {}
    for page, note in enumerate(notes):
        if note:
            pages_of.setdefault(note, []).append(page)
    repairs["notes of several turns of a conversation asked once"] += sum(
        len(pages) > 1 for pages in pages_of.values()
    )
    return tuple(
        Query(note, tuple(pages), category=NOTE, source_id=f"{document_id}/note/{number}")
        for number, (note, pages) in enumerate(pages_of.items())
    )
