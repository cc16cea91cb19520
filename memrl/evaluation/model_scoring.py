"""Scoring a run in which a language model plays or reads: everybody on the same episodes.

Contestants play first, those of the model among them; then the model plays its live memories; then
it reads for whom it is asked to, and for the references.
"""

from __future__ import annotations

import json
from collections.abc import Callable, Sequence
from dataclasses import dataclass, replace
from pathlib import Path

from memrl.episode_log import EpisodeLog
from memrl.evaluation import lineup
from memrl.evaluation.best_read import ROLES
from memrl.evaluation.contexts import Asked, asked_in_log, asked_live
from memrl.evaluation.entry import Entry
from memrl.evaluation.lineup import Arena
from memrl.evaluation.model_notes import Misses, TimedPolicy, costs_note
from memrl.evaluation.play_live import LiveEpisode
from memrl.evaluation.prompted_lineup import MakeSession, PromptedLineup
from memrl.evaluation.reader_lineup import AnswerRules, ReaderLineup
from memrl.llm.backend import Backend
from memrl.llm.costs import LlmCosts
from memrl.policies.base import Contestant, best_of
from memrl.progress import progress_bar
from memrl.prompted_config import FUNCTION_MODES, PromptedConfig
from memrl.reader_config import ReaderConfig
from memrl.run_files import replace_text

SafePoint = Callable[[Callable[[int], None]], Callable[[int], None]]
"""Makes a callback of progress one at which a run may be interrupted."""


@dataclass(frozen=True)
class ModelScoring:
    """A language model among the contestants of a run, as a player, a reader or both.

    Attributes:
        prompted, reader: how it plays and reads. backend: the model.
        validation: where the model's offsets are chosen; of an environment that shows texts.
        make_session: see `MakeSession`. pose: puts the text of a query as a question to a player.
        rules: how answers are scored; None where the workload has no measure of them.
        seed: of the run. folder: of the run; `prompted-<mode>.jsonl` (an episode a line) and
            `readings.jsonl` (an answer a line) go there.
    """

    prompted: PromptedConfig
    reader: ReaderConfig
    backend: Backend
    validation: Arena
    make_session: MakeSession
    pose: Callable[[str], str]
    rules: AnswerRules | None
    seed: int
    folder: Path

    def score(
        self,
        chosen: Sequence[Contestant],
        test: Arena,
        safe_point: SafePoint,
    ) -> list[Entry]:
        """Play everybody on test, and read.

        Args:
            chosen: the other contestants, with their scores on validation; `lineup.PRIOR_RULE` is
                one of them.
            test: the episodes, of an environment that shows texts. safe_point: see `SafePoint`.
        """
        model = PromptedLineup(
            self.prompted, self.backend, self.make_session, self.pose, self.seed, self.folder
        )
        rule = next(one for one in chosen if one.name == lineup.PRIOR_RULE)
        num_tried = model.num_tried * len(self.validation.episodes)
        with progress_bar("model on validation", num_tried) as advance:
            own = model.contestants(
                rule.settings["threshold"], self.validation, safe_point(advance)
            )
        contestants = [*chosen, *own]
        reading = _Reading(self, test)
        reading.roles = self._to_read(contestants)
        timed = [TimedPolicy(one.policy) for one in contestants]
        players = [replace(one, policy=its) for one, its in zip(contestants, timed, strict=True)]
        with progress_bar("scoring on test", len(contestants) * len(test.episodes)) as advance:
            played = test.play(players, safe_point(advance), reading.listener(contestants))
        entries = [
            reading.noted(Entry.of(one, records, self.seed), policy)
            for one, records, policy in zip(contestants, played, timed, strict=True)
        ]
        num_live = sum(mode in FUNCTION_MODES for mode in self.prompted.modes)
        with progress_bar("live memories", num_live * len(test.episodes)) as advance:
            on_played = reading.live_listener(safe_point(advance))
            entries += model.live_entries(test, on_played)
        return entries + reading.finish(entries, safe_point)

    def _to_read(self, contestants: Sequence[Contestant]) -> dict[str, str | None]:
        """Names of the contestants that are to be read, with what they are the best of."""
        reads = self.reader.reads
        roles: dict[str, str | None] = {}
        for role in ROLES:
            best = best_of(contestants, role)
            if role in reads and best is not None:
                roles[best.name] = role
        sources = {"bound": "clairvoyant", "prompted": "prompted"}
        kinds = {kind for kind, source in sources.items() if source in reads}
        return roles | {one.name: None for one in contestants if one.kind in kinds}


class _Reading:
    """What there is to be read of contestants while they play, and the reading of it."""

    def __init__(self, scoring: ModelScoring, test: Arena) -> None:
        self.roles: dict[str, str | None] = {}
        self._scoring = scoring
        self._test = test
        self._misses: dict[str, Misses] = {}
        self._asked: dict[str, list[Asked]] = {}
        self._live: dict[str, tuple[list[Asked], list[str | None]]] = {}
        self._readers = None
        if scoring.rules is not None:
            args = scoring.reader, scoring.backend, scoring.rules, test, scoring.seed
            self._readers = ReaderLineup(*args)

    def listener(self, contestants: Sequence[Contestant]) -> Callable[[int, int, EpisodeLog], None]:
        """Notes why queries were missed, and the questions of contestants that are to be read."""

        def note(number: int, episode: int, log: EpisodeLog) -> None:
            one = contestants[number]
            options = replace(self._test.options, **one.overrides)
            has_recall = options.stage_from == "both"
            self._misses.setdefault(one.name, Misses()).add_log(log, has_recall=has_recall)
            if self._readers is not None and one.name in self.roles:
                asked = asked_in_log(self._test.table, options, episode, log, self._readers.dates)
                self._asked.setdefault(one.name, []).extend(asked)

        return note

    def noted(self, entry: Entry, timed: TimedPolicy) -> Entry:
        """The entry of a contestant that has played, with what there is to note."""
        notes = timed.note() | self._misses[entry.name].note()
        costs = getattr(timed.policy, "costs", None)
        if isinstance(costs, LlmCosts):
            notes |= costs_note(costs, sum(record.num_queries for record in entry.records))
        return replace(entry, notes=[notes])

    def live_listener(
        self, on_played: Callable[[int], None]
    ) -> Callable[[str, int, LiveEpisode], None]:
        """The same of live memories, with what the player said."""

        def note(name: str, episode: int, played: LiveEpisode) -> None:
            if self._readers is not None:
                asked = asked_live(episode, played, self._readers.window_dates(episode))
                own, said = self._live.setdefault(name, ([], []))
                own += asked
                said += played.replies
                if "prompted" in self._scoring.reader.reads:
                    self._asked.setdefault(name, []).extend(asked)
            on_played(1)

        return note

    def finish(self, entries: Sequence[Entry], safe_point: SafePoint) -> list[Entry]:
        """Score what players said, read, and return the references."""
        readers = self._readers
        if readers is None:
            return []
        for entry in entries:
            if entry.name in self._live:
                readers.note_said(entry, *self._live[entry.name])
        num_asked = sum(map(len, self._asked.values())) + readers.num_reference_questions
        with progress_bar("reading", num_asked) as advance:
            on_read = safe_point(advance)
            for entry in entries:
                if entry.name in self._asked:
                    role = self.roles.get(entry.name)
                    readers.read(entry, self._asked[entry.name], role, on_read)
            references = readers.references(on_read)
        lines = [json.dumps(row) + "\n" for row in readers.rows]
        replace_text(self._scoring.folder / "readings.jsonl", "".join(lines))
        return references
