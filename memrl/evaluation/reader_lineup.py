"""A model that reads for the contestants of a run, and for references that page nothing.

The same reader answers for all of them, within the same budget of tokens, and the workload's own
measure scores the answers. References stand in the table as rows whose reward is the evidence in
what was read; of further budgets they are points of a curve and no rows (`memrl.evaluation.budgets`
takes them apart).
"""

from __future__ import annotations

from collections.abc import Callable, Iterable, Sequence
from dataclasses import asdict, dataclass, replace
from functools import cached_property
from typing import Any

from memrl.documents import Query
from memrl.evaluation.answer_scores import ScoreAnswer
from memrl.evaluation.best_read import ROLE
from memrl.evaluation.budgets import BUDGET, POINT, REFERENCE
from memrl.evaluation.contexts import Asked, full_context, no_memory, rag_top_k
from memrl.evaluation.entry import Entry
from memrl.evaluation.lineup import Arena
from memrl.evaluation.model_notes import READER, costs_note
from memrl.evaluation.readers import Answer, LlmReader
from memrl.evaluation.readings import (
    LlmJudge,
    Reading,
    grade,
    note_readings,
    reference_records,
    replied,
)
from memrl.llm.backend import Backend
from memrl.reader_config import REFERENCES, ReaderConfig, Reference
from memrl.table import EpisodeTable

SAID = "said/"
"""How measures of what a player said itself begin; those of the reader's answers have no such."""


@dataclass(frozen=True)
class AnswerRules:
    """How a workload puts its questions and scores answers; programs hand it in.

    Attributes:
        score: the official measures. question_of: see `LlmReader`.
        dates_of: dates of all pages of a table, see `contexts.table_dates`.
    """

    score: ScoreAnswer
    question_of: Callable[[str, Query], str]
    dates_of: Callable[[EpisodeTable], Sequence[str]]


class ReaderLineup:
    """Reads, scores, and writes the scores into the records of entries.

    Args:
        config: what is read. backend: the model. rules: see `AnswerRules`.
        arena: where the entries were played. seed: of the run.

    Attributes:
        rows: every answer, JSON-able: `policy`, `answered_by` ("reader" or "player"), and the
            fields of `Reading`.
    """

    def __init__(
        self, config: ReaderConfig, backend: Backend, rules: AnswerRules, arena: Arena, seed: int
    ) -> None:
        self.rows: list[dict[str, Any]] = []
        self._config = config
        self._backend = backend
        self._rules = rules
        self._arena = arena
        self._seed = seed

    @cached_property
    def dates(self) -> Sequence[str]:
        """Of all pages of the arena's table."""
        return self._rules.dates_of(self._arena.table)

    def window_dates(self, episode: int) -> Sequence[str]:
        """Of the pages of an episode's window."""
        return self.dates[self._arena.table.episode_pages(episode)]

    def read(
        self,
        entry: Entry,
        asked: Sequence[Asked],
        role: str | None,
        on_read: Callable[[int], None] | None = None,
    ) -> None:
        """Answer what a contestant was asked from what its main context held.

        Args:
            entry: its records. asked: see `contexts`. on_read: see `LlmReader.read`.
            role: what it is the best of, see `memrl.evaluation.best_read`; None for nothing.
        """
        reader = self._reader(self._config.budget_tokens)
        self._grade(entry, reader, asked, reader.read(self._arena.table, asked, on_read))
        if role is not None:
            entry.notes[0][READER][ROLE] = role

    def note_said(
        self, entry: Entry, asked: Sequence[Asked], replies: Sequence[str | None]
    ) -> None:
        """Score what a player said itself, None for nothing."""
        readings = replied(self._arena.table, asked, replies, self._rules.score)
        self._note(
            entry,
            "player",
            [
                replace(one, scores={SAID + name: score for name, score in one.scores.items()})
                for one in readings
            ],
        )

    def references(self, on_read: Callable[[int], None] | None = None) -> list[Entry]:
        """The references that are asked for, then those of further budgets."""
        config = self._config
        wanted = [reference for reference in REFERENCES if reference in config.reads]
        entries = [self._reference(one, config.budget_tokens, on_read) for one in wanted]
        return entries + [
            self._reference(one, budget, on_read, is_point=True)
            for one in wanted
            if one != "no_memory"
            for budget in config.budgets
        ]

    @property
    def num_reference_questions(self) -> int:
        """How many questions `references` asks."""
        reading = set(self._config.reads) & set(REFERENCES)
        times = len(reading) + len(reading - {"no_memory"}) * len(self._config.budgets)
        return times * sum(len(self._asked("no_memory", own)) for own in self._episodes)

    # ------------------------------------------------------------------ parts

    @property
    def _episodes(self) -> range:
        return range(self._arena.table.num_episodes)

    def _reader(self, budget_tokens: int | None) -> LlmReader:
        return LlmReader(
            self._backend,
            budget_tokens=budget_tokens,
            max_reply_tokens=self._config.max_reply_tokens,
            question_of=self._rules.question_of,
        )

    def _reference(
        self,
        reference: Reference,
        budget_tokens: int | None,
        on_read: Callable[[int], None] | None,
        *,
        is_point: bool = False,
    ) -> Entry:
        table = self._arena.table
        asked = [one for episode in self._episodes for one in self._asked(reference, episode)]
        reader = self._reader(budget_tokens)
        answers = reader.read(table, asked, on_read)
        records = reference_records(table, asked, answers, self._arena.options.reward.evidence)
        for number, record in zip(self._arena.episodes, records, strict=True):
            record.episode = number
        name = self._name(reference)
        settings: dict[str, Any] = {REFERENCE: reference, BUDGET: budget_tokens}
        if is_point:
            name, settings[POINT] = f"{name}, {budget_tokens} tokens", True
        seeds = [self._seed] * len(records)
        entry = Entry(name, False, {}, [settings], records, seeds, kind="reference")
        self._grade(entry, reader, asked, answers)
        return entry

    def _asked(self, reference: Reference, episode: int) -> list[Asked]:
        table = self._arena.table
        if reference == "no_memory":
            return no_memory(table, episode)
        if reference == "rag_top_k":
            options = self._arena.options
            return rag_top_k(table, options, episode, self._config.top_k, self.dates)
        if reference == "full_context_newest":
            return full_context(table, episode, "newest", self.dates)
        return full_context(table, episode, "oldest", self.dates)

    def _name(self, reference: Reference) -> str:
        names: dict[Reference, str] = {
            "no_memory": "reader, no memory",
            "full_context_newest": "reader, full context, newest kept",
            "full_context_oldest": "reader, full context, oldest kept",
            "rag_top_k": f"reader, RAG top {self._config.top_k}",
        }
        return names[reference]

    def _grade(
        self, entry: Entry, reader: LlmReader, asked: Sequence[Asked], answers: Sequence[Answer]
    ) -> None:
        table = self._arena.table
        readings = grade(table, asked, answers, self._rules.score)
        told = reader.settings | costs_note(reader.costs, len(asked))
        if self._config.judges:
            judge = LlmJudge(self._backend)
            readings = judge.judge(table, readings)
            told["judge"] = judge.settings | costs_note(judge.costs, len(asked))
        entry.notes = [{**entry.notes[0], READER: told}]
        self._note(entry, "reader", readings)

    def _note(self, entry: Entry, answered_by: str, readings: Iterable[Reading]) -> None:
        numbered = [replace(r, episode=self._arena.episodes[r.episode]) for r in readings]
        note_readings(entry.records, numbered)
        head = {"policy": entry.name, "answered_by": answered_by}
        self.rows += [head | asdict(reading) for reading in numbered]
