"""Answers of any reader in a file, for scoring beside those of this project.

One JSON object a line: `query_id` (`Query.source_id`), `answer`, and, where they are known:
- `page_ids`: what was read or cited for it (`Page.source_id` of each);
- `ranking`: the same form, the pages of a retriever, best first, each once;
- `facts`: sentences that are cited, pairs of the passage's title and the sentence's index;
- `triples`: evidence, lists of subject, relation and object.
"""

from __future__ import annotations

import json
from collections.abc import Collection, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Protocol

from memrl.documents import Document, Query, Workload
from memrl.errors import MemrlError
from memrl.evaluation.answer_scores import ScoreAnswer, ScoredAnswer


class PredictionError(MemrlError):
    """A file of answers is damaged, or belongs to another workload."""


@dataclass(frozen=True, slots=True)
class Prediction:
    """An answer to a question.

    Attributes:
        query_id: of the question. answer: as the reader gave it.
        page_ids: of the pages that were read or cited; None where that is not known, as below.
        ranking: of the pages of a retriever, best first, each once.
        facts: cited sentences, title and index. triples: subject, relation, object.
    """

    query_id: str
    answer: str
    page_ids: tuple[str, ...] | None = None
    ranking: tuple[str, ...] | None = None
    facts: tuple[tuple[str, int], ...] | None = None
    triples: tuple[tuple[str, str, str], ...] | None = None


class ScoreCited(Protocol):
    """Scores what an answer cites besides pages; programs hand it in."""

    def __call__(
        self,
        workload: Workload,
        document: Document,
        query: Query,
        prediction: str,
        *,
        facts: Collection[tuple[str, int]] | None = None,
        triples: Collection[tuple[str, str, str]] | None = None,
        ranking: Sequence[int] | None = None,
    ) -> Mapping[str, float | None]:
        """Scores in [0, 1] by measure; see `envs.workloads.citations`."""
        ...


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
    lists = {name: fields.get(name) for name in _ELEMENTS if fields.get(name) is not None}
    if not (
        isinstance(fields.get("query_id"), str)
        and isinstance(fields.get("answer"), str)
        and all(_is_list_of(value, _ELEMENTS[name]) for name, value in lists.items())
    ):
        raise PredictionError(
            f"{where} is no answer: it takes a JSON object with the texts query_id and answer and, "
            "if they are known, lists: page_ids and ranking of texts, facts of [title, index of "
            "the sentence], triples of three texts."
        )
    known: dict[str, Any] = {
        name: tuple(tuple(own) if isinstance(own, list) else own for own in value)
        for name, value in lists.items()
    }
    return Prediction(fields["query_id"], fields["answer"], **known)


_ELEMENTS: dict[str, tuple[type, ...]] = {
    "page_ids": (str,),
    "ranking": (str,),
    "facts": (str, int),
    "triples": (str, str, str),
}
"""Types of an element's parts; one part is no list."""


def _is_list_of(value: object, parts: tuple[type, ...]) -> bool:
    if not isinstance(value, list):
        return False
    rows = [[own] if len(parts) == 1 else own for own in value]
    return all(
        isinstance(row, list)
        and len(row) == len(parts)
        and all(type(own) is part for own, part in zip(row, parts, strict=True))
        for row in rows
    )


def score_predictions(
    predictions: Sequence[Prediction],
    workload: Workload,
    score: ScoreAnswer,
    score_cited: ScoreCited,
) -> list[ScoredAnswer]:
    """Score answers by the measures of their workload.

    Raises:
        PredictionError: a question or a page is not in the workload.
        ValueError: the workload has no measure of what an answer cites.
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
        cited = _places(document, prediction.query_id, prediction.page_ids)
        scores = {
            **score(workload.name, query, prediction.answer, support=cited),
            **score_cited(
                workload,
                document,
                query,
                prediction.answer,
                facts=prediction.facts,
                triples=prediction.triples,
                ranking=_ranking(document, prediction),
            ),
        }
        scored.append(ScoredAnswer(query.category, document.cluster_id, scores))
    return scored


def _ranking(document: Document, prediction: Prediction) -> list[int] | None:
    places = _places(document, prediction.query_id, prediction.ranking)
    if places is not None and len(set(places)) < len(places):
        raise PredictionError(
            f"The ranking of {prediction.query_id!r} has a page twice: give each once, best first."
        )
    return places


def _places(document: Document, query_id: str, page_ids: Sequence[str] | None) -> list[int] | None:
    """Numbers of the pages in the document; of an id that two of them have, the first one's."""
    if page_ids is None:
        return None
    place_of: dict[str, int] = {}
    for place, page in enumerate(document.pages):
        place_of.setdefault(page.source_id, place)
    unknown = [page_id for page_id in page_ids if page_id not in place_of]
    if unknown:
        raise PredictionError(
            f"The answer to {query_id!r} cites {unknown[0]!r}, which is no page of its "
            "document: give the configuration under which the questions were asked."
        )
    return [place_of[page_id] for page_id in page_ids]
