"""Conversation opener: after some sessions of a conversation, how to begin the next one.

Source: Packer et al., *MemGPT*, arXiv 2310.08560v2, section 3.1.2, over Multi-Session Chat. A
document is a conversation up to a session, a page a turn. One query comes after the last page, the
same for all: how do you open the next conversation? Its gold answer is the human opener, the first
turn of the next session; where the files end before that session, the two sentences that a
crowdworker wrote to open it with (`msc_records.Session.openings`), either of which is right.

A good opener draws on what is known of a person: the persona lines, which here are what
crowdworkers noted of that person's turns. The paper speaks of messages to the user; speaker 1
begins every session, so the person is speaker 2, or by option both. The query needs every turn that
a line comes from: the more of them are in main context, the more an opener can draw on. That can be
more than main context holds, and then an evidence recall of 1 is out of reach for everybody. The
lines are queries of their own, which are never asked (`asked_after` is None): they are what the
page scorer is fitted on, and what `opener_scoring` compares an opener with.
"""

from __future__ import annotations

from collections import Counter
from collections.abc import Sequence
from pathlib import Path
from typing import Literal

from envs.workloads.files import provenance_of
from envs.workloads.msc import SOURCE, SPEAKERS, conversation_pages, note_queries
from envs.workloads.msc_records import Conversation, Session, read_conversations
from memrl.documents import Document, Query, Workload

__all__ = ["QUESTION", "SOURCE", "load_openers"]

QUESTION = "The two meet again. What do you open the next conversation with?"
"""What is asked of every conversation."""
ADDRESSEE = 1
"""Who is spoken to: speaker 2, since speaker 1 begins."""


def load_openers(
    data_dir: str | Path | None = None,
    *,
    sessions: int = 3,
    about: Literal["addressee", "both"] = "addressee",
    conversations_per_part: int | None = None,
) -> Workload:
    """Loads conversations that are to be continued.

    The opener is the first query of its document; documents of the source's test part are set aside
    for testing.

    Args:
        data_dir: folder that holds `msc/`; None takes the one named by `MEMRL_DATA`.
        sessions: sessions before the one to be opened, at least 1.
        about: whose persona lines count: the addressee's (speaker 2) or both speakers'.
        conversations_per_part: as in `msc.load_msc`.

    Returns:
        The workload, without the conversations that have fewer sessions; `repairs` counts what was
        mended or dropped.

    Raises:
        DataFileMissingError: a session of the first four is in no file (a `FileNotFoundError`).
        DataFormatError: a file is damaged, or holds no conversation.
    """
    repairs: Counter[str] = Counter()
    conversations, files = read_conversations(data_dir, conversations_per_part, repairs)
    long = [own for own in conversations if len(own.sessions) >= sessions]
    repairs["conversations with too few sessions dropped"] += len(conversations) - len(long)
    documents = tuple(_document(own, sessions, about == "both", repairs) for own in long)
    counts = {what: count for what, count in sorted(repairs.items()) if count}
    return Workload("opener", documents, provenance_of(SOURCE, files), counts)


def _document(
    conversation: Conversation, sessions: int, of_both: bool, repairs: Counter[str]
) -> Document:
    name, told = conversation.conversation_id, conversation.sessions[:sessions]
    turns = [turn for own in told for turn in own.turns]
    lines = [turn.note if of_both or turn.speaker == ADDRESSEE else "" for turn in turns]
    notes = note_queries(name, lines, repairs)
    pages = conversation_pages(name, told, repairs)
    opener = Query(
        text=QUESTION,
        needs=tuple(sorted({page for note in notes for page in note.needs})),
        category="opener",
        answers=_human_openers(conversation.sessions, sessions, repairs),
        source_id=f"{name}/opener",
        asked_after=len(pages),
    )
    is_test = conversation.part == "test"
    return Document(name, pages, (opener, *notes), SPEAKERS, is_test=is_test)


def _human_openers(
    sessions: Sequence[Session], told: int, repairs: Counter[str]
) -> tuple[str, ...]:
    if len(sessions) > told:
        return (sessions[told].turns[0].text,)
    openings = sessions[told - 1].openings
    repairs["openers of a session that no file has: what was written to open it with taken"] += (
        bool(openings)
    )
    repairs["openers without a human one kept"] += not openings
    return openings
