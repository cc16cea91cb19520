"""The group of a configuration for prompted models among the contestants."""

from __future__ import annotations

import math
from dataclasses import dataclass
from typing import Literal

from memrl.config_checks import at_least

Mode = Literal["choice", "choice_at_queries", "functions", "functions_without_recall"]
FUNCTION_MODES: tuple[Mode, ...] = ("functions", "functions_without_recall")
"""Modes that play live memories; the others pick actions of the environment."""


@dataclass(frozen=True)
class PromptedConfig:
    """How the model of the group `llm` plays, if at all; see docs/prompted.md.

    Attributes:
        modes: "choice": it picks every legal action. "choice_at_queries": the same at queries, and
            under pressure pages are stored by the prior rule's threshold. "functions": it calls
            MemGPT's functions on a live memory; "functions_without_recall": without those that
            reach recall. Empty: no model plays.
        most_episodes: most test episodes, evenly spread over the table, that all contestants are
            scored on when a model plays or reads; None for all.
        view: what a choice is shown: the best of what is there, or everything with its numbers.
        line_tokens: most tokens of a text in the compact view.
        calibrates: whether likelihoods are taken relative to a prompt that tells nothing.
        answer_offsets: nats; of a local model. With any, each mode of choice has a second row, with
            the one of them added to the log-likelihood of answering that earns most on validation.
        validation_episodes: most episodes, evenly spread, that an offset is chosen on.
        page_size: hits on a page of results; all of them come into main context.
        max_replies, max_reply_tokens: of one turn, of one reply in it.
        adds_heartbeats: add the heartbeat that a call at a query did not mention.
    """

    modes: tuple[Mode, ...] = ()
    most_episodes: int | None = None
    view: Literal["compact", "full"] = "compact"
    line_tokens: int = 48
    calibrates: bool = False
    answer_offsets: tuple[float, ...] = ()
    validation_episodes: int = 8
    page_size: int = 5
    max_replies: int = 8
    max_reply_tokens: int = 192
    adds_heartbeats: bool = True

    def __post_init__(self) -> None:
        """Refuse what no model could play by."""
        at_least(self, 1, "validation_episodes", "line_tokens", "page_size")
        at_least(self, 1, "max_replies", "max_reply_tokens")
        if self.most_episodes is not None:
            at_least(self, 1, "most_episodes")
        if len(set(self.modes)) < len(self.modes):
            raise ValueError(f"modes must be different ones, got {list(self.modes)}.")
        if not all(map(math.isfinite, self.answer_offsets)):
            raise ValueError(f"answer_offsets must be finite, got {list(self.answer_offsets)}.")
