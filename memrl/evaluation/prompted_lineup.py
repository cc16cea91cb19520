"""Prompted models among the contestants of a run: on the same episodes, through the same records.

In choice mode a model is a policy and plays beside the others; in functions mode it plays live
memories of the same episodes. See docs/prompted.md.
"""

from __future__ import annotations

import json
from collections.abc import Callable
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Protocol

from memrl.evaluation.entry import Entry
from memrl.evaluation.lineup import Arena
from memrl.evaluation.model_notes import Misses, costs_note
from memrl.evaluation.play_live import LiveEpisode, LiveSession
from memrl.evaluation.prompted import play_prompted
from memrl.llm.backend import Backend
from memrl.llm.summarizer import LlmSummarizer
from memrl.memory.summarizers import Summarizer
from memrl.policies.base import Contestant
from memrl.policies.prompted_choice import PromptedAtQueries, PromptedChoice
from memrl.policies.prompted_functions import PlayerOptions, PromptedPlayer
from memrl.prompted_config import FUNCTION_MODES, Mode, PromptedConfig
from memrl.run_files import replace_text

_SAYS: dict[Mode, str] = {
    "choice": "choice",
    "choice_at_queries": "choice at queries",
    "functions": "free text, recall on",
    "functions_without_recall": "free text, recall off",
}


class MakeSession(Protocol):
    """Makes a live memory for the episodes of an arena; programs hand it in."""

    def __call__(self, arena: Arena, *, with_recall: bool, summarizer: Summarizer) -> LiveSession:
        """Make one.

        Args:
            arena: its table and options are those of the session.
            with_recall: whether there are the functions that reach recall.
            summarizer: of what leaves main context.
        """
        ...


@dataclass(frozen=True)
class PromptedLineup:
    """A model that plays in the modes of a configuration.

    Attributes:
        config: which modes, and how. backend: the model. make_session: see `MakeSession`.
        pose: puts the text of a query as a question.
        seed: of the run. folder: of the run; what happened in live memories goes to
            `prompted-<mode>.jsonl` there, one line an episode.
    """

    config: PromptedConfig
    backend: Backend
    make_session: MakeSession
    pose: Callable[[str], str]
    seed: int
    folder: Path

    @property
    def _choice_modes(self) -> list[Mode]:
        return [mode for mode in self.config.modes if mode not in FUNCTION_MODES]

    @property
    def num_tried(self) -> int:
        """Contestants that `contestants` plays on validation."""
        return len(self._choice_modes) * len(self.config.answer_offsets)

    def contestants(
        self, store_threshold: float, validation: Arena, on_played: Callable[[int], None]
    ) -> list[Contestant]:
        """Those that pick legal actions: as the model says, and with the best of the offsets.

        Args:
            store_threshold: under pressure the cheaper mode stores pages whose `prior` reaches it.
            validation: where the offsets are tried, if there are any.
            on_played: called with 1 for each episode that is played there.
        """
        contestants = []
        for mode in self._choice_modes:
            contestants.append(self._choosing(mode, store_threshold))
            offsets = self.config.answer_offsets
            if offsets:
                line = [self._choosing(mode, store_threshold, offset) for offset in offsets]
                best = validation.choose(line, on_played)
                # As new: what it cost on validation is no cost of playing.
                offset = best.settings["answer_offset"]
                again = self._choosing(mode, store_threshold, offset)
                contestants.append(replace(again, validation=best.validation))
        return contestants

    def _choosing(
        self, mode: Mode, store_threshold: float, answer_offset: float | None = None
    ) -> Contestant:
        choice = PromptedChoice(
            self.backend,
            view=self.config.view,
            calibrates=self.config.calibrates,
            line_tokens=self.config.line_tokens,
            answer_offset=answer_offset or 0.0,
            pose=self.pose,
        )
        is_hybrid = mode == "choice_at_queries"
        policy = PromptedAtQueries(choice, store_threshold) if is_hybrid else choice
        name = self._name(mode) + ("" if answer_offset is None else " + answer offset")
        return Contestant(name, policy, settings=policy.settings, kind="prompted")

    def live_entries(
        self, arena: Arena, on_played: Callable[[str, int, LiveEpisode], None]
    ) -> list[Entry]:
        """Those that call functions, each after it has played live memories of the episodes.

        Args:
            arena: the episodes.
            on_played: called with the contestant's name, the episode as a number of the arena's
                table, and how it went.
        """
        return [
            self._played_live(mode, arena, on_played)
            for mode in self.config.modes
            if mode in FUNCTION_MODES
        ]

    def _played_live(
        self, mode: Mode, arena: Arena, on_played: Callable[[str, int, LiveEpisode], None]
    ) -> Entry:
        config, name, with_recall = self.config, self._name(mode), mode == "functions"
        options = PlayerOptions(
            max_replies=config.max_replies,
            max_reply_tokens=config.max_reply_tokens,
            adds_heartbeats=config.adds_heartbeats,
        )
        player = PromptedPlayer(self.backend, options, self.pose)
        summarizer = LlmSummarizer(self.backend, player.costs)
        session = self.make_session(arena, with_recall=with_recall, summarizer=summarizer)
        episodes = range(arena.table.num_episodes)
        records, logs = play_prompted(
            session, player, episodes, on_played=lambda *told: on_played(name, *told)
        )
        for number, record in zip(arena.episodes, records, strict=True):
            record.episode = number
        lines = [json.dumps(log.as_dict()) + "\n" for log in logs]
        replace_text(self.folder / f"prompted-{mode}.jsonl", "".join(lines))
        settings = {**player.settings, "with_recall": with_recall, "page_size": config.page_size}
        misses = Misses()
        for log in logs:
            misses.add_prompted(log)
        num_queries = sum(record.num_queries for record in records)
        notes = costs_note(player.costs, num_queries) | misses.note()
        seeds = [self.seed] * len(records)
        return Entry(name, False, {}, [settings], records, seeds, kind="prompted", notes=[notes])

    def _name(self, mode: Mode) -> str:
        return f"prompted {self.backend.name}, {_SAYS[mode]}"
