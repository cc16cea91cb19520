"""From a reader's answers to scores in the records of a table.

Answers are scored by the official measure of the workload, which programs hand in, because the
measures belong to the workloads; and, on top, by a model as the judge, if one is given.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import asdict, dataclass, replace
from typing import Any

import numpy as np

from memrl.documents import Query
from memrl.episode_log import REWARD_TERMS, AnsweredQuery, EpisodeLog
from memrl.evaluation import stats
from memrl.evaluation.answer_scores import ScoreAnswer
from memrl.evaluation.contexts import Asked, table_query
from memrl.evaluation.play import EpisodeRecord, record_of
from memrl.evaluation.readers import Answer
from memrl.llm import prompts
from memrl.llm.backend import Backend, ChatMessage, Request
from memrl.llm.choosing import Chooser
from memrl.llm.costs import LlmCosts
from memrl.memory.display import json_line, make_display
from memrl.table import EpisodeTable

JUDGED = "judge"
"""Name of the judge's measure."""


@dataclass(frozen=True)
class Reading:
    """One question that a reader has answered; JSON-able by `dataclasses.asdict`.

    Attributes:
        episode: number in the table. query: index in the episode's document.
        category: of the question. cluster: unit of statistics of its document.
        answer: what the reader said.
        scores: by measure, None where one is not defined for the question.
        context_tokens: of what was read. texts_read: of `texts_given`, those that fitted.
        error: why no answer came, "" otherwise; such an answer is scored as an empty one.
    """

    episode: int
    query: int
    category: str
    cluster: str
    answer: str
    scores: dict[str, float | None]
    context_tokens: int
    texts_read: int
    texts_given: int
    error: str


def grade(
    table: EpisodeTable, asked: Sequence[Asked], answers: Sequence[Answer], score: ScoreAnswer
) -> list[Reading]:
    """Score answers.

    Args:
        table: the workload. asked, answers: see `LlmReader.read`. score: the official measure.
    """
    readings = []
    for one, answer in zip(asked, answers, strict=True):
        first = int(table.episode_first_page[one.episode])
        read = [one.pages[place] for place in answer.read]
        support = [first + page for page in read if page is not None]
        readings.append(_graded(table, one, answer, score, support))
    return readings


def replied(
    table: EpisodeTable, asked: Sequence[Asked], replies: Sequence[str | None], score: ScoreAnswer
) -> list[Reading]:
    """Score what players said themselves by `send_message`; nothing said is an empty answer.

    Args:
        table: the workload. asked: the questions. replies: to each, None for none.
        score: the official measure.
    """
    readings = []
    for one, reply in zip(asked, replies, strict=True):
        said = Answer(reply or "", (), 0, "" if reply is not None else "nothing was said")
        readings.append(_graded(table, one, said, score, None))
    return readings


def _graded(
    table: EpisodeTable,
    one: Asked,
    answer: Answer,
    score: ScoreAnswer,
    support: Sequence[int] | None,
) -> Reading:
    query = table_query(table, one.episode, one.query)
    scores = score(str(table.meta["workload"]), query, answer.text, support=support)
    return Reading(
        episode=one.episode,
        query=one.query,
        category=query.category,
        cluster=table.text.clusters[int(table.episode_document[one.episode])],
        answer=answer.text,
        scores=dict(scores),
        context_tokens=answer.context_tokens,
        texts_read=len(answer.read),
        texts_given=len(one.texts),
        error=answer.error,
    )


# ---------------------------------------------------------------------- the judge


class LlmJudge:
    """Says of each answer whether it is right; costs and settings go with every result of it.

    Args:
        backend: the model.

    Attributes:
        costs: of all answers judged so far.
    """

    def __init__(self, backend: Backend) -> None:
        self.backend = backend
        self.costs = LlmCosts()
        self._chooser = Chooser(backend, calibrates=False, costs=self.costs)
        self._display = make_display()

    @property
    def settings(self) -> dict[str, Any]:
        """Who judges, by which prompt; JSON-able."""
        return {"model": dict(self.backend.identity), "prompt": prompts.JUDGE_INSTRUCTIONS}

    def judge(self, table: EpisodeTable, readings: Sequence[Reading]) -> list[Reading]:
        """The readings with the judge's score beside the official ones.

        Questions without a gold answer, and those of which the model gave no judgement, get none.
        """
        queries = [table_query(table, reading.episode, reading.query) for reading in readings]
        places = [place for place, query in enumerate(queries) if query.answers]
        requests = [self._request(queries[place], readings[place].answer) for place in places]
        judged = list(readings)
        for place, choice in zip(places, self._chooser.choose(requests, requests), strict=True):
            self.costs.decided(choice.seconds)
            if choice.index is not None:
                scores = {**readings[place].scores, JUDGED: float(choice.index == 0)}
                judged[place] = replace(readings[place], scores=scores)
        return judged

    def _request(self, query: Query, answer: str) -> Request:
        show = self._display
        told = {
            "question": show(query.text),
            "accepted_answers": list(map(show, query.answers)),
            "answer": show(answer),
        }
        messages = (
            ChatMessage("system", prompts.JUDGE_INSTRUCTIONS),
            ChatMessage("user", json_line(told)),
        )
        return Request(messages, choices=("yes", "no"), max_reply_tokens=8)


# ---------------------------------------------------------------------- records


def note_readings(records: Sequence[EpisodeRecord], readings: Sequence[Reading]) -> None:
    """Write scores into the records of the same episodes of one contestant.

    Raises:
        ValueError: if an episode that was read has no record, or has two.
    """
    by_episode = {record.episode: record for record in records}
    unknown = {reading.episode for reading in readings} - set(by_episode)
    if unknown or len(by_episode) < len(records):
        raise ValueError(
            f"Readings of episodes {sorted(unknown)} have no record of their own: pass the records "
            "of one contestant and one run, and episodes by their numbers in those."
        )
    for reading in readings:
        record = by_episode[reading.episode]
        own = record.answer_scores_by_category.setdefault(reading.category, {})
        for measure, score in reading.scores.items():
            if score is None:
                continue
            for tallies in (record.answer_scores, own):
                tally = tallies.setdefault(measure, [0.0, 0.0])
                tally[0] += score
                tally[1] += 1.0


def summarize_answers(
    records: Sequence[EpisodeRecord], resampling: np.random.Generator | None = None
) -> dict[str, Any]:
    """Mean score of an answer by measure, with intervals over documents.

    Args:
        records: of one contestant; episodes without a score of a measure are left out of it.
        resampling: see `memrl.evaluation.stats.summarize_clusters`.
    """
    measures = sorted({measure for record in records for measure in record.answer_scores})
    summary = {}
    for measure in measures:
        own = [record for record in records if measure in record.answer_scores]
        means = [total / count for total, count in (r.answer_scores[measure] for r in own)]
        clusters = [record.document for record in own]
        summary[measure] = asdict(stats.summarize_clusters(means, clusters, resampling=resampling))
    return summary


def answers_by_category(records: Sequence[EpisodeRecord]) -> dict[str, dict[str, Any]]:
    """Mean score over the questions of each category, of one contestant.

    Returns:
        Category -> measure -> `mean` and `scored` (questions).
    """
    tallies: dict[str, dict[str, list[float]]] = {}
    for record in records:
        for category, scores in record.answer_scores_by_category.items():
            of_category = tallies.setdefault(category, {})
            for measure, (total, count) in scores.items():
                tally = of_category.setdefault(measure, [0.0, 0.0])
                tally[0] += total
                tally[1] += count
    return {
        category: {
            measure: {"mean": total / count, "scored": int(count)}
            for measure, (total, count) in sorted(scores.items())
        }
        for category, scores in sorted(tallies.items())
    }


def reference_records(
    table: EpisodeTable,
    asked: Sequence[Asked],
    answers: Sequence[Answer],
    evidence_weight: float,
) -> list[EpisodeRecord]:
    """Records of a reader without paging: the evidence in what it read, and no operation.

    Args:
        table: the workload. asked, answers: see `LlmReader.read`; all questions of each episode.
        evidence_weight: of the reward's evidence, as the policies beside it have.

    Returns:
        A record for each episode, in order of their numbers.
    """
    logs: dict[int, EpisodeLog] = {}
    for one, answer in zip(asked, answers, strict=True):
        log = logs.setdefault(one.episode, EpisodeLog())
        pages = {one.pages[place] for place in answer.read}
        needs = table.needs_in_window(one.episode, one.query)
        row = int(table.query_offset[table.episode_document[one.episode]]) + one.query
        found = sum(page in pages for page in needs)
        log.tokens_read += answer.context_tokens
        log.answers.append(
            AnsweredQuery(
                query=one.query,
                category=int(table.query_category[row]),
                evidence=found / len(needs) if table.query_pays[row] else None,
                absent=0,
                stored=0.0,
                kept=0.0,
                staged=0.0,
                retrieved=0.0,
                used=0.0,
                num_needs=len(needs),
                num_resident=len(answer.read),
            )
        )
    records = []
    for episode, log in sorted(logs.items()):
        evidence = sum(answer.evidence or 0.0 for answer in log.answers)
        terms = dict.fromkeys(REWARD_TERMS, 0.0) | {"evidence": evidence_weight * evidence}
        records.append(record_of(table, episode, log, terms, decisions=0))
    return records
