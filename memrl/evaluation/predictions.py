"""Answers of any reader in a file, for scoring beside those of this project.

One JSON object a line: `query_id` (`Query.source_id`), `answer`, and, where it is known what was
read or cited for it, `page_ids` (`Page.source_id` of each).
"""

from __future__ import annotations

import json
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from memrl.documents import Document, Workload
from memrl.errors import MemrlError
from memrl.evaluation.answer_scores import ScoreAnswer, ScoredAnswer


class PredictionError(MemrlError):
    """A file of answers is damaged, or belongs to another workload."""


@dataclass(frozen=True, slots=True)
class Prediction:
    """An answer to a question.

    Attributes:
        query_id: of the question. answer: as the reader gave it.
        page_ids: of the pages that were read or cited; None where that is not known.
    """

    query_id: str
    answer: str
    page_ids: tuple[str, ...] | None = None


def read_predictions(path: Path) -> list[Prediction]:
    """Read a file of answers; empty lines are skipped.

    Raises:
        PredictionError: it cannot be read, holds none, or a line is damaged.
    """
    try:
        lines = path.read_bytes().splitlines()  # of a text, marks within an answer would end a line
    except OSError as error:
        raise PredictionError(
            f"{path} cannot be read ({error}): name a file of answers."
        ) from error
    predictions = [
        _read_line(line, f"Line {number} of {path}")
        for number, line in enumerate(lines, start=1)
        if line.strip()
    ]
    if not predictions:
        raise PredictionError(f"{path} holds no answer: name a file with one a line.")
    return predictions


def _read_line(line: bytes, where: str) -> Prediction:
    try:
        fields: Any = json.loads(line)
    except (ValueError, RecursionError):
        fields = None
    fields = fields if isinstance(fields, dict) else {}
    query_id, answer, pages = (fields.get(name) for name in ("query_id", "answer", "page_ids"))
    page_ids = [] if pages is None else pages
    if not isinstance(page_ids, list) or not all(
        isinstance(text, str) for text in (query_id, answer, *page_ids)
    ):
        raise PredictionError(
            f"{where} is no answer: it takes a JSON object with the texts query_id and answer and, "
            "if it is known what was read, a list of texts page_ids."
        )
    return Prediction(query_id, answer, None if pages is None else tuple(page_ids))


def score_predictions(
    predictions: Sequence[Prediction], workload: Workload, score: ScoreAnswer
) -> list[ScoredAnswer]:
    """Score answers by the measures of their workload.

    Raises:
        PredictionError: a question or a page is not in the workload.
    """
    asked = {
        query.source_id: (document, query)
        for document in workload.documents
        for query in document.queries
    }
    scored = []
    for prediction in predictions:
        if prediction.query_id not in asked:
            raise PredictionError(
                f"{workload.name} has no question with the id {prediction.query_id!r}: give the "
                "configuration under which the questions were asked."
            )
        document, query = asked[prediction.query_id]
        support = None if prediction.page_ids is None else _places(document, prediction)
        scores = score(workload.name, query, prediction.answer, support=support)
        scored.append(ScoredAnswer(query.category, document.cluster_id, scores))
    return scored


def _places(document: Document, prediction: Prediction) -> list[int]:
    """Numbers of the pages in the document; of an id that two of them have, the first one's."""
    place_of: dict[str, int] = {}
    for place, page in enumerate(document.pages):
        place_of.setdefault(page.source_id, place)
    unknown = [page_id for page_id in prediction.page_ids or () if page_id not in place_of]
    if unknown:
        raise PredictionError(
            f"The answer to {prediction.query_id!r} cites {unknown[0]!r}, which is no page of its "
            "document: give the configuration under which the questions were asked."
        )
    return [place_of[page_id] for page_id in prediction.page_ids or ()]
