"""From one record of LoCoMo's JSON to a `Document`: sessions, turns, questions, evidence.

Layout (Maharana et al., arXiv 2402.17753; file `locomo10.json`): `sample_id`; `conversation` with
`speaker_a`, `speaker_b`, `session_<n>` (a list of turns) and `session_<n>_date_time`; `qa`. A turn
has `speaker`, `dia_id` (`D<session>:<turn>`, from 1), `text` and, where an image was shared,
`img_url` and `blip_caption`. A question has `question`, `answer`, `evidence` (a list of `dia_id`s)
and `category`.

Whatever departs from that layout is mended or dropped, and counted in a `Counter` under a sentence
that says what was done.
"""

from __future__ import annotations

import re
from collections import Counter
from collections.abc import Iterator, Mapping
from enum import IntEnum
from typing import Any

from memrl.documents import Document, Page, PageKind, Query


class LocomoCategory(IntEnum):
    """The data set's numbers of its five kinds of question."""

    MULTI_HOP = 1
    TEMPORAL = 2
    OPEN_DOMAIN = 3
    SINGLE_HOP = 4
    ADVERSARIAL = 5


_SESSION_KEY = re.compile(r"session_(\d+)")
_DATE_KEY = re.compile(r"session_(\d+)_date_time")
_EVIDENCE_ID = re.compile(r"D:?(\d+):(\d+)")
NO_TURN_ID = "evidence entries without a turn id dropped"
UNKNOWN_TURN = "evidence ids of turns that do not exist dropped"


def read_document(
    record: object, index: int, *, captions: bool, repairs: Counter[str]
) -> Document | None:
    """Turns one conversation of the file into a document.

    Args:
        record: the parsed JSON of the conversation.
        index: its position in the file, which names it when it has no `sample_id`.
        captions: whether to append the caption of an image to its turn.
        repairs: counts of what was mended or dropped; added to.

    Returns:
        The document, or None when it has no turn that can be used.
    """
    fields = record if isinstance(record, dict) else {}
    document_id = _text(fields.get("sample_id"))
    if not document_id:
        repairs["conversations without an id named by their position"] += 1
        document_id = f"conversation-{index}"
    conversation = fields.get("conversation")
    conversation = conversation if isinstance(conversation, dict) else {}
    speakers = [
        name for key in ("speaker_a", "speaker_b") if (name := _text(conversation.get(key)))
    ]
    pages = tuple(_read_pages(conversation, speakers, captions, repairs))
    if not pages:
        repairs["conversations without turns dropped"] += 1
        return None
    qa = fields.get("qa")
    if not isinstance(qa, list) or not qa:
        repairs["conversations without questions kept"] += 1
        qa = []
    queries = tuple(_read_queries(qa, document_id, page_positions(pages), repairs))
    return Document(document_id, pages, queries, tuple(speakers))


def page_positions(pages: tuple[Page, ...]) -> dict[str, int]:
    """Maps each turn id (`D3:7`) to the index of its page; of a repeated id, to the first one."""
    positions: dict[str, int] = {}
    for position, page in enumerate(pages):
        positions.setdefault(page.source_id, position)
    return positions


def resolve_evidence(
    evidence: object, positions: Mapping[str, int], repairs: Counter[str]
) -> tuple[int, ...]:
    """Finds the pages that an evidence list names: sorted, unique indices.

    Several ids in one string are split; an extra colon (`D:11:26`) and leading zeros (`D30:05`) are
    mended; strings without an id and ids of turns that do not exist are dropped.
    """
    if isinstance(evidence, str):
        repairs["evidence given as one string read as a list"] += 1
        evidence = [evidence]
    found: list[int] = []
    for entry in evidence if isinstance(evidence, list) else []:
        matches = list(_EVIDENCE_ID.finditer(entry)) if isinstance(entry, str) else []
        if not matches:
            repairs[NO_TURN_ID] += 1
        if len(matches) > 1:
            repairs["evidence strings with several ids split"] += 1
        for match in matches:
            turn_id = _turn_id(int(match[1]), int(match[2]))
            if turn_id != match[0]:
                repairs["malformed evidence ids mended"] += 1
            if turn_id in positions:
                found.append(positions[turn_id])
            else:
                repairs[UNKNOWN_TURN] += 1
    needs = tuple(sorted(set(found)))
    repairs["duplicate evidence ids dropped"] += len(found) - len(needs)
    return needs


def _turn_id(session: int, turn: int) -> str:
    return f"D{session}:{turn}"


def _text(value: object) -> str:
    return value.strip() if isinstance(value, str) else ""


def _read_pages(
    conversation: Mapping[str, Any], speakers: list[str], captions: bool, repairs: Counter[str]
) -> Iterator[Page]:
    # Sessions are known by their turn lists: the file also has dates of sessions that do not exist,
    # and as strings the keys would sort session_10 before session_2.
    numbers = sorted(
        int(match[1])
        for key, turns in conversation.items()
        if (match := _SESSION_KEY.fullmatch(key)) and isinstance(turns, list) and turns
    )
    dated = {int(match[1]) for key in conversation if (match := _DATE_KEY.fullmatch(key))}
    repairs["dates of sessions that do not exist ignored"] += len(dated.difference(numbers))
    seen_ids: set[str] = set()
    for session, number in enumerate(numbers):
        timestamp = _text(conversation.get(f"session_{number}_date_time"))
        repairs["sessions without a date kept"] += not timestamp
        for position, turn in enumerate(conversation[f"session_{number}"], start=1):
            fallback_id = _turn_id(number, position)
            page = _read_page(turn, fallback_id, session, timestamp, speakers, captions, repairs)
            if page is None:
                repairs["turns without a speaker or without content dropped"] += 1
                continue
            repairs["turns with a repeated id kept; evidence means the first"] += (
                page.source_id in seen_ids
            )
            seen_ids.add(page.source_id)
            yield page


def _read_page(
    turn: object,
    fallback_id: str,
    session: int,
    timestamp: str,
    speakers: list[str],
    captions: bool,
    repairs: Counter[str],
) -> Page | None:
    fields = turn if isinstance(turn, dict) else {}
    speaker, text = _text(fields.get("speaker")), _text(fields.get("text"))
    caption = _text(fields.get("blip_caption"))
    if caption and captions:
        text = f"{text} [shows a picture: {caption}]".strip()
    if not speaker or not text:
        return None
    if speaker not in speakers:
        repairs["speakers missing from a conversation's header added"] += 1
        speakers.append(speaker)
    match = _EVIDENCE_ID.fullmatch(_text(fields.get("dia_id")))
    if match is None:
        repairs["turns without a valid id named by their position"] += 1
    return Page(
        text=text,
        speaker=speaker,
        role=speakers.index(speaker),
        kind=PageKind.CAPTIONED_IMAGE if caption else PageKind.TEXT,
        session=session,
        timestamp=timestamp,
        source_id=_turn_id(int(match[1]), int(match[2])) if match else fallback_id,
    )


def _read_queries(
    qa: list[object], document_id: str, positions: Mapping[str, int], repairs: Counter[str]
) -> Iterator[Query]:
    seen_texts: set[str] = set()
    for index, item in enumerate(qa):
        fields = item if isinstance(item, dict) else {}
        text, number = _text(fields.get("question")), fields.get("category")
        # JSON's true would pass for category 1.
        if not text or isinstance(number, bool) or number not in tuple(LocomoCategory):
            repairs["questions without text or with an unknown category dropped"] += 1
            continue
        category = LocomoCategory(number)
        repairs["questions repeated within their conversation kept"] += text in seen_texts
        seen_texts.add(text)
        needs = resolve_evidence(fields.get("evidence"), positions, repairs)
        repairs["questions left without evidence kept (no evidence recall)"] += not needs
        yield Query(
            text=text,
            needs=needs,
            category=category.name.lower(),
            answers=_read_answers(fields, category, repairs),
            answerable=category is not LocomoCategory.ADVERSARIAL,
            source_id=query_source_id(document_id, index),
        )


def query_source_id(document_id: str, index: int) -> str:
    """Names a question by its position in the conversation's `qa`, the only thing unique to it."""
    return f"{document_id}/qa/{index}"


def _read_answers(
    fields: Mapping[str, Any], category: LocomoCategory, repairs: Counter[str]
) -> tuple[str, ...]:
    answer = fields.get("answer")
    if category is LocomoCategory.ADVERSARIAL:
        # Official scoring of this category looks for a refusal, whatever the answer says.
        repairs["adversarial questions without an answer kept"] += answer is None
        repairs["answers of adversarial questions ignored"] += answer is not None
        return ()
    if isinstance(answer, int | float) and not isinstance(answer, bool):
        repairs["numeric answers turned into text"] += 1
        return (str(answer),)
    if text := _text(answer):
        return (text,)
    repairs["answerable questions without an answer kept"] += 1
    return ()
