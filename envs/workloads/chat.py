"""Synthetic multi-session chats: the workload that needs no data.

Two speakers chat over several sessions. In between small talk they state facts about themselves
(some are replaced by later ones, some are never asked about), add values to lists ("cities I have
visited") and mention the same kind of fact about third parties. Questions ask for one fact, for a
replaced value, for all values of a list, for a fact of both speakers, or for something never
stated. What is known of each page is exact: `Query.needs` are the pages that answer a question, no
more. (The question for a replaced value needs the older page only, so an episode may ask it before
the update has arrived.)

All text comes from the template banks beside this module. The same parameters and seed give the
same workload on every platform, and document i does not depend on how many documents are generated.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import asdict, dataclass
from datetime import datetime, timedelta
from itertools import pairwise

import numpy as np

from envs.workloads.chat_dialogue import (
    FRAME_TURNS,
    TURNS_PER_STATEMENT,
    Statement,
    Turn,
    Writer,
)
from envs.workloads.chat_lists import LIST_TOPICS
from envs.workloads.chat_plan import (
    ATTRIBUTES,
    MAX_LIST_VALUES,
    ChatCategory,
    PlannedQuestion,
    Planner,
    PlanSizes,
)
from envs.workloads.chat_text import SPEAKER_NAMES, Decks
from memrl.documents import Document, Page, Query, Workload

_MONTHS = (
    *("January", "February", "March", "April", "May", "June", "July"),
    *("August", "September", "October", "November", "December"),
)
_FIRST_DAY = datetime(2021, 1, 4)


@dataclass(frozen=True, slots=True)
class ChatParams:
    """Parameters of the synthetic chats; counts of a document are rounded from the fractions.

    Attributes:
        num_documents: conversations to generate.
        num_sessions: sessions of a conversation.
        turns_per_session: mean length of a session; lengths vary by a sixth either way. At least 8.
        facts_per_document: facts that the two speakers state about themselves, each once.
        unasked_frac: share of those facts that no question is about.
        update_frac: share of the asked facts that can change (a birthday cannot) for which a later
            turn replaces the value; the current and the previous value are then both asked for.
        multi_evidence_frac: questions that need several turns, per asked fact; half of them ask for
            all values of a list, the other half for a fact of both speakers.
        distractor_frac: statements about third parties, per fact.
        paraphrase: probability that a question shares no content word with its evidence.
        unanswerable_frac: share of all questions that the conversation does not answer.
    """

    num_documents: int = 64
    num_sessions: int = 8
    turns_per_session: int = 22
    facts_per_document: int = 26
    unasked_frac: float = 0.15
    update_frac: float = 0.4
    multi_evidence_frac: float = 0.25
    distractor_frac: float = 0.3
    paraphrase: float = 0.5
    unanswerable_frac: float = 0.1

    def __post_init__(self) -> None:
        """Raises ValueError, naming the field, where no such chat can be generated."""
        minima = {"num_documents": 1, "num_sessions": 1, "turns_per_session": 8}
        for name, least in (minima | {"facts_per_document": 1}).items():
            if getattr(self, name) < least:
                raise ValueError(f"{name} is {getattr(self, name)} but must be at least {least}.")
        for name in ("unasked_frac", "update_frac", "multi_evidence_frac", "distractor_frac"):
            _require_fraction(name, getattr(self, name))
        _require_fraction("paraphrase", self.paraphrase)
        _require_fraction("unanswerable_frac", self.unanswerable_frac)
        self._require_enough_topics()
        self._require_enough_turns()

    @property
    def sizes(self) -> PlanSizes:
        """What one document holds."""
        asked = self.facts_per_document - round(self.unasked_frac * self.facts_per_document)
        multi = round(self.multi_evidence_frac * asked)
        return PlanSizes(
            facts=self.facts_per_document,
            asked_facts=asked,
            lists=multi - multi // 2,
            comparisons=multi // 2,
            distractors=round(self.distractor_frac * self.facts_per_document),
        )

    @property
    def _max_updates(self) -> int:
        return round(self.update_frac * self.sizes.asked_facts)

    def _require_enough_topics(self) -> None:
        sizes, num_pairs = self.sizes, 2 * len(ATTRIBUTES)
        if sizes.facts > num_pairs:
            raise ValueError(
                f"facts_per_document is {sizes.facts} but two speakers have at most "
                f"{num_pairs} facts."
            )
        if not sizes.asked_facts:
            raise ValueError(
                f"unasked_frac is {self.unasked_frac}, which leaves no fact to ask about: lower it."
            )
        if sizes.lists > 2 * len(LIST_TOPICS):
            raise ValueError(
                f"multi_evidence_frac is {self.multi_evidence_frac}, which asks for {sizes.lists} "
                f"lists where there are {2 * len(LIST_TOPICS)}: lower it or facts_per_document."
            )
        answerable = sizes.asked_facts + self._max_updates + sizes.lists + sizes.comparisons
        share = self.unanswerable_frac
        if share == 1 or round(share / (1 - share) * answerable) > num_pairs - sizes.facts:
            raise ValueError(
                f"unanswerable_frac is {share}, which asks for more facts than the "
                f"{num_pairs - sizes.facts} never stated: lower it or facts_per_document."
            )

    def _require_enough_turns(self) -> None:
        sizes = self.sizes
        statements = sizes.facts + self._max_updates + sizes.distractors
        statements += MAX_LIST_VALUES * sizes.lists
        room = self.num_sessions * _num_statements_that_fit(_length_bounds(self)[0])
        if statements > room:
            raise ValueError(
                f"turns_per_session is {self.turns_per_session} and num_sessions "
                f"{self.num_sessions}, which hold {room} statements, but up to {statements} are "
                "planned: raise one of them or lower facts_per_document, update_frac, "
                "multi_evidence_frac or distractor_frac."
            )


def generate_chats(params: ChatParams, rng: np.random.Generator) -> Workload:
    """Generates synthetic chats.

    Args:
        params: sizes and shares.
        rng: source of randomness; its seed sequence is advanced by one spawn per document.

    Returns:
        A workload named "chat". `Query.category` is the value of a `ChatCategory`; unanswerable
        questions have no needs and no answers. Pages alternate between the speakers within a
        session.
    """
    documents = tuple(
        _generate_document(f"chat-{index:04d}", params, stream)
        for index, stream in enumerate(rng.spawn(params.num_documents))
    )
    return Workload("chat", documents, provenance={"generator": "chat", "params": asdict(params)})


def _require_fraction(name: str, value: float) -> None:
    if not 0 <= value <= 1:
        raise ValueError(f"{name} is {value} but must be between 0 and 1.")


def _length_bounds(params: ChatParams) -> tuple[int, int]:
    spread = params.turns_per_session // 6
    return params.turns_per_session - spread, params.turns_per_session + spread


def _num_statements_that_fit(num_turns: int) -> int:
    return (num_turns - FRAME_TURNS) // TURNS_PER_STATEMENT


def _generate_document(document_id: str, params: ChatParams, rng: np.random.Generator) -> Document:
    first, second = rng.permutation(len(SPEAKER_NAMES))[:2]
    names = (SPEAKER_NAMES[first], SPEAKER_NAMES[second])
    decks = Decks(rng)
    planner = Planner(names, params.paraphrase, decks, rng)
    planner.plan(params.sizes, params.update_frac, params.unanswerable_frac)
    low, high = _length_bounds(params)
    lengths = [int(length) for length in rng.integers(low, high + 1, size=params.num_sessions)]
    writer = Writer(names, decks, rng)
    sessions = [
        writer.write_session(chunk, length)
        for chunk, length in zip(_deal(planner.statements, lengths), lengths, strict=True)
    ]
    pages = _to_pages(document_id, sessions, names, rng)
    page_of = {
        turn.statement: position
        for position, turn in enumerate(turn for session in sessions for turn in session)
    }
    order = rng.permutation(len(planner.questions))
    queries = tuple(
        _to_query(planner.questions[index], page_of, f"{document_id}/q/{number}")
        for number, index in enumerate(order)
    )
    return Document(document_id, pages, queries, names)


def _deal(
    statements: Sequence[Statement], lengths: Sequence[int]
) -> list[list[tuple[int, Statement]]]:
    """Deals the statements, in order of time, to sessions in proportion to what these can hold."""
    ordered = sorted(enumerate(statements), key=lambda pair: pair[1].when)
    bounds, room = [0], 0
    total = sum(_num_statements_that_fit(length) for length in lengths)
    for length in lengths:
        room += _num_statements_that_fit(length)
        bounds.append(room * len(ordered) // total)
    return [ordered[start:stop] for start, stop in pairwise(bounds)]


def _to_pages(
    document_id: str,
    sessions: Sequence[Sequence[Turn]],
    names: tuple[str, str],
    rng: np.random.Generator,
) -> tuple[Page, ...]:
    pages: list[Page] = []
    day = _FIRST_DAY + timedelta(days=int(rng.integers(1000)))
    for session, turns in enumerate(sessions):
        day += timedelta(days=int(rng.integers(2, 21)))
        minutes = int(rng.integers(18 * 60, 22 * 60))
        # Not strftime, whose month names depend on the locale.
        date = f"{day.day} {_MONTHS[day.month - 1]} {day.year}"
        timestamp = f"{date}, {minutes // 60:02d}:{minutes % 60:02d}"
        for turn in turns:
            pages.append(
                Page(
                    text=turn.text,
                    speaker=names[turn.speaker],
                    role=turn.speaker,
                    session=session,
                    timestamp=timestamp,
                    source_id=f"{document_id}/{len(pages)}",
                )
            )
    return tuple(pages)


def _to_query(question: PlannedQuestion, page_of: dict[int, int], source_id: str) -> Query:
    return Query(
        text=question.text,
        needs=tuple(sorted(page_of[number] for number in question.needs)),
        category=question.category.value,
        answers=(question.answer,) if question.answer else (),
        answerable=question.category is not ChatCategory.UNANSWERABLE,
        source_id=source_id,
    )
