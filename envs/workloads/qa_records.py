"""Records of question answering over passages: one form for all data sets, and what is mended.

A reader of a data set hands the fields of each question to `RecordMaker`, which mends or drops what
departs from the layout and counts it in a `Counter` under a sentence that says what was done.
"""

from __future__ import annotations

from collections import Counter
from collections.abc import Iterable, Sequence
from dataclasses import dataclass
from pathlib import Path

from envs.workloads.answer_scoring import Triple, normalize_answer
from envs.workloads.files import DataFormatError, DataSource

MISSING_SUPPORT = "supporting passages that are not there dropped"


@dataclass(frozen=True, slots=True)
class Passage:
    """A titled text.

    Attributes:
        title, text: of the passage, blanks at the ends cut off; the text is not empty.
        place: number in its source: index in the question's context or in the corpus; for reports.
    """

    title: str
    text: str
    place: int

    @property
    def content(self) -> tuple[str, str]:
        """What makes two passages the same one."""
        return self.title, self.text


@dataclass(frozen=True, slots=True)
class QaRecord:
    """A question with its passages.

    Attributes:
        question_id: id in the source, unique.
        question: the question.
        answers: accepted answers; empty where the source has none.
        category: the source's own name of the kind of question.
        passages: different ones.
        support: indices into `passages` of those that hold the evidence, sorted, at least one.
        facts: supporting facts as the source cites them: title and index of the sentence; empty
            where it cites whole passages.
        triples: 2WikiMultihopQA's evidence: of each triple the accepted forms.
        is_test: the source sets the question aside for testing.
    """

    question_id: str
    question: str
    answers: tuple[str, ...]
    category: str
    passages: tuple[Passage, ...]
    support: tuple[int, ...]
    facts: frozenset[tuple[str, int]] = frozenset()
    triples: tuple[frozenset[Triple], ...] = ()
    is_test: bool = False


class RecordMaker:
    """Makes the records of one data set.

    Args:
        repairs: counts of what was mended or dropped; added to.
    """

    def __init__(self, repairs: Counter[str]) -> None:
        self.repairs = repairs
        self._ids: set[str] = set()

    def make(
        self,
        *,
        question_id: object,
        question: object,
        answers: Iterable[object],
        category: object,
        passages: Sequence[tuple[object, object]],
        support: Iterable[int],
        places: Sequence[int] = (),
        facts: Iterable[tuple[str, int]] = (),
        triples: Sequence[frozenset[Triple]] = (),
        is_test: bool = False,
    ) -> QaRecord | None:
        """Make a record, or count why it is dropped.

        Args:
            question_id: what is no text is replaced by the number of questions so far.
            question, category: texts. answers: of them numbers are read as texts.
            passages: pairs of title and text in the order of the source.
            support: indices into `passages`; those outside are dropped.
            places: number of each passage in the source; its index unless given.
            facts, triples, is_test: as in `QaRecord`.
        """
        text = text_of(question)
        name = text_of(question_id)
        if not text:
            self.repairs["questions without text dropped"] += 1
            return None
        if not name:
            self.repairs["questions without an id named by their number"] += 1
            name = f"question-{len(self._ids)}"
        if name in self._ids:
            self.repairs["questions whose id is there already dropped"] += 1
            return None
        kept, index_of = self._passages(passages, places or range(len(passages)))
        cited = set(support)
        found = {index_of[index] for index in cited if index in index_of}
        self.repairs[MISSING_SUPPORT] += len(cited - index_of.keys())
        if not found:
            self.repairs["questions without a supporting passage dropped"] += 1
            return None
        self._ids.add(name)
        return QaRecord(
            question_id=name,
            question=text,
            answers=self._answers(answers),
            category=text_of(category) or "-",
            passages=tuple(kept),
            support=tuple(sorted(found)),
            facts=frozenset(facts),
            triples=tuple(triples),
            is_test=is_test,
        )

    def _passages(
        self, passages: Sequence[tuple[object, object]], places: Sequence[int]
    ) -> tuple[list[Passage], dict[int, int]]:
        """Different passages with a text; and by the index of each given one its index there."""
        kept: list[Passage] = []
        known: dict[tuple[str, str], int] = {}
        index_of: dict[int, int] = {}
        for given, ((title, text), place) in enumerate(zip(passages, places, strict=True)):
            passage = Passage(text_of(title), text_of(text), place)
            if not passage.text:
                self.repairs["passages without text dropped"] += 1
                continue
            index = known.setdefault(passage.content, len(kept))
            if index == len(kept):
                kept.append(passage)
            else:
                self.repairs["passages that a question has twice merged"] += 1
            index_of[given] = index
        return kept, index_of

    def _answers(self, answers: Iterable[object]) -> tuple[str, ...]:
        kept: list[str] = []
        for answer in answers:
            if isinstance(answer, int | float) and not isinstance(answer, bool):
                self.repairs["numeric answers turned into text"] += 1
                answer = str(answer)
            text = text_of(answer)
            if text and not normalize_answer(text):
                # Contained in everything: it would make every prediction right.
                self.repairs["answers of which normalisation leaves nothing dropped"] += 1
            elif text:
                kept.append(text)
        self.repairs["questions without an answer kept"] += not kept
        return tuple(dict.fromkeys(kept))


def usable(
    made: Iterable[QaRecord | None], path: Path, source: DataSource, holding: str
) -> list[QaRecord]:
    """The records of a file that could be made.

    Args:
        made: of all its questions. path: the file. source: of which data set it is.
        holding: what a question has to have, for the message.

    Raises:
        DataFormatError: there is none.
    """
    records = [record for record in made if record is not None]
    if not records:
        raise DataFormatError(
            f"{path} holds no question with {holding}: fetch it again from {source.published}."
        )
    return records


def text_of(value: object) -> str:
    """A text without blanks at its ends; "" for what is no text."""
    return value.strip() if isinstance(value, str) else ""


def fields_of(value: object) -> dict[str, object]:
    """A JSON object; {} for what is none."""
    return value if isinstance(value, dict) else {}


def list_of(value: object) -> list[object]:
    """A JSON list; [] for what is none."""
    return value if isinstance(value, list) else []
