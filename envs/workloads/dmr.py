"""Deep Memory Retrieval: one question about an old chat, asked after the last session.

Source: Packer et al., *MemGPT*, arXiv 2310.08560v2, section 3.1.1; data `MemGPT/MSC-Self-Instruct`
(hub), JSON lines: `metadata` (`initial_data_id`), `previous_dialogs` (sessions 1 to 4, as in
`msc_dialogue`: see `envs.workloads.msc_records`), `dialog` (session 5), `self_instruct` (`B`: the
question; `A`: the gold answer) and personas and summaries, which are not read. A reconstruction
without session 5 is read as well. Speaker 1 is A, who is asked, speaker 2 is B, who asks. A
document is a conversation, a page a turn; the question comes after the last page.

**Evidence.** The source cites none. It is derived from the gold answer: of all turns the one that
holds most of the answer's content words (`memrl.memory.bm25.analyze`, words such as "said" and
"mentioned" left out); of several, one of the speaker whose words the question asks for (A, unless
it is about "I" and "my"), and of those the earliest. A turn that holds less than half of them is
none: such a question pays no evidence. No other word of the question has a part in it, or the
evidence would be what a search for the question finds. The counts are among the repairs.

A gold answer that says that the thing was not mentioned makes the question unanswerable.

Official scoring is an LLM judge and ROUGE-L recall; without a judge, `answer_scoring.score_answer`
gives ROUGE-L recall and containment.
"""

from __future__ import annotations

import re
from collections import Counter
from collections.abc import Mapping, Sequence
from pathlib import Path

from envs.workloads.files import (
    DataFormatError,
    DataSource,
    find_data_file,
    provenance_of,
    read_json_lines,
)
from envs.workloads.msc import SPEAKERS, conversation_pages, note_queries
from envs.workloads.msc_records import SOURCE as MSC
from envs.workloads.msc_records import (
    Conversation,
    Session,
    Turn,
    previous_sessions,
    read_conversations,
    read_turns,
)
from envs.workloads.qa_records import fields_of, text_of
from memrl.documents import Document, Query, Workload
from memrl.memory.bm25 import analyze

SOURCE = DataSource(
    folder="dmr",
    published="the Hugging Face hub, MemGPT/MSC-Self-Instruct (msc_self_instruct.jsonl)",
    licence="Apache-2.0 (its dialogues are Multi-Session Chat's, without a licence of their own)",
)
FILE_NAMES = (
    *("msc_self_instruct.jsonl", "msc_self_instruct.jsonl.gz"),
    "msc_self_instruct_reconstructed.jsonl.gz",
)
LEAST_COVERAGE = 0.5
"""Share of the answer's content words that a turn must hold to be its evidence."""

# Words of an answer that speak of the chat instead of its content.
_TELLING = frozenset(analyze("say says said tell told talked mention mentioned remember yes yeah"))
_OF_ASKER = re.compile(r"\b(?:I|[Mm]y|[Mm]ine)\b")
_YOU_SAID = re.compile(r"\byou (?:say|said|tell|told|mention|suggest)")
_NOT_TOLD = re.compile(
    r"\b(?:(?:did|do|does|have|has|was|were)(?: not|n['\u2019]?t)|never)(?: \w+)? "
    r"(?:say|said|tell|told|mention|discuss|talk|suggest|specif)\w*",
    flags=re.IGNORECASE,
)


def load_dmr(data_dir: str | Path | None = None, *, persona_labels: bool = False) -> Workload:
    """Loads the conversations with their questions.

    Of the accepted files (`FILE_NAMES`, in that order) the first one present is read. The question
    is the first query of its document; the source sets nothing aside for testing.

    Args:
        data_dir: folder that holds `dmr/`; None takes the one named by `MEMRL_DATA`.
        persona_labels: add the notes of Multi-Session Chat, read from `msc/` beside it, as queries
            of category "persona", which are never asked (`asked_after` is None).

    Returns:
        The workload; `repairs` counts what was mended, dropped and derived.

    Raises:
        DataFileMissingError: a file is not there (a `FileNotFoundError`).
        DataFormatError: a file is damaged, or holds no conversation with a question.
    """
    path = find_data_file(data_dir, SOURCE, FILE_NAMES)
    repairs: Counter[str] = Counter()
    provenance = provenance_of(SOURCE, [path])
    labelled: dict[str, Conversation] = {}
    if persona_labels:
        # What is mended there is reported where that data set is loaded by itself.
        conversations, msc_files = read_conversations(data_dir, None, Counter())
        labelled = {own.conversation_id: own for own in conversations}
        provenance["labels"] = provenance_of(MSC, msc_files)
    documents: dict[str, Document] = {}
    for number, value in enumerate(read_json_lines(path, repairs)):
        document = _read_record(fields_of(value), number, labelled, repairs)
        if document is not None and document.document_id in documents:
            repairs["records of a conversation that is there already dropped"] += 1
        elif document is not None:
            documents[document.document_id] = document
    if not documents:
        raise DataFormatError(
            f"{path} holds no conversation with a question: fetch it again from {SOURCE.published}."
        )
    counts = {what: count for what, count in sorted(repairs.items()) if count}
    return Workload("dmr", tuple(documents.values()), provenance, counts)


def _read_record(
    fields: Mapping[str, object],
    number: int,
    labelled: Mapping[str, Conversation],
    repairs: Counter[str],
) -> Document | None:
    asked = fields_of(fields.get("self_instruct"))
    question = text_of(asked.get("B"))
    sessions = previous_sessions(fields.get("previous_dialogs"), repairs)
    sessions.append(Session(read_turns(fields.get("dialog"), repairs)))
    sessions = [session for session in sessions if session.turns]
    if not question or not sessions:
        repairs["records without a question or without turns dropped"] += 1
        return None
    name = text_of(fields_of(fields.get("metadata")).get("initial_data_id"))
    repairs["conversations without an id named by their place"] += not name
    name = name or f"dmr-{number}"
    turns = [turn for session in sessions for turn in session.turns]
    query = _question(question, asked.get("A"), name, turns, repairs)
    notes: tuple[Query, ...] = ()
    if labelled:
        notes = note_queries(name, _notes(sessions, labelled.get(name), repairs), repairs)
    pages = conversation_pages(name, sessions, repairs)
    return Document(name, pages, (query, *notes), SPEAKERS)


def _question(
    question: str, answer: object, name: str, turns: Sequence[Turn], repairs: Counter[str]
) -> Query:
    if isinstance(answer, int | float) and not isinstance(answer, bool):
        repairs["numeric answers turned into text"] += 1
        answer = str(answer)
    gold = text_of(answer)
    needs: tuple[int, ...] = ()
    is_told = not says_not_told(gold)
    if not gold:
        repairs["questions without an answer kept (no evidence recall)"] += 1
    elif not is_told:
        repairs["answers that say that it was not mentioned kept: unanswerable"] += 1
    else:
        page, coverage = find_evidence(gold, turns, whose_words(question))
        if coverage == 1:
            repairs["derived evidence: a turn that holds all of the answer's words"] += 1
        elif coverage >= LEAST_COVERAGE:
            repairs["derived evidence: a turn that holds at least half of the answer's words"] += 1
        else:
            repairs["answers that no turn holds half of kept (no evidence recall)"] += 1
        needs = (page,) if coverage >= LEAST_COVERAGE else ()
    return Query(
        text=question,
        needs=needs,
        category="dmr",
        answers=(gold,) if gold else (),
        answerable=is_told,
        source_id=f"{name}/question",
        asked_after=len(turns),
    )


def says_not_told(answer: str) -> bool:
    """Whether a gold answer says that the thing was not mentioned, and nothing beyond it.

    What comes after "I said" is an answer all the same ("I didn't mention a young band, I said I
    liked older ones").
    """
    return bool(_NOT_TOLD.search(answer)) and not re.search(r"\bI said\b", answer)


def whose_words(question: str) -> int:
    """The speaker whose words a question asks for: 1, who asks it, or 0.

    It is 1 where the last sentence has "I" or "my" and does not ask what "you said". The sentence
    before it ("remember that time we talked about my dog?") does not tell.
    """
    last = re.split(r"[.?!] ", question.strip())[-1]
    return int(bool(_OF_ASKER.search(last)) and not _YOU_SAID.search(last))


def find_evidence(answer: str, turns: Sequence[Turn], speaker: int) -> tuple[int, float]:
    """Finds the turn that holds most of an answer's content words (see the module).

    Args:
        answer: a gold answer.
        turns: of the conversation, at least one.
        speaker: whose turns win where several hold as much.

    Returns:
        Its index, and the share of the content words that it holds; 0 without content words.
    """
    words = set(analyze(answer)) - _TELLING
    shares = [len(words & set(analyze(turn.text))) / max(len(words), 1) for turn in turns]
    best = max(range(len(turns)), key=lambda n: (shares[n], turns[n].speaker == speaker, -n))
    return best, shares[best]


def _notes(
    sessions: Sequence[Session], labelled: Conversation | None, repairs: Counter[str]
) -> list[str]:
    """Of each turn what was noted of the same turn of Multi-Session Chat."""
    if labelled is None:
        repairs["conversations that Multi-Session Chat's files lack: no notes"] += 1
        return []
    known = {
        (number, turn.text.casefold()): turn.note
        for number, session in enumerate(labelled.sessions)
        for turn in session.turns
    }
    places = [(n, turn.text.casefold()) for n, own in enumerate(sessions) for turn in own.turns]
    repairs["turns that Multi-Session Chat's files lack: no note"] += len(places) - sum(
        place in known for place in places
    )
    return [known.get(place, "") for place in places]
