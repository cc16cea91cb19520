"""The group of a configuration for LongMemEval."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Literal

from memrl.config_checks import at_least


@dataclass(frozen=True)
class LongMemEvalConfig:
    """LongMemEval.

    Attributes:
        layout: "oracle": histories of evidence sessions alone. "s": of about 50 sessions. "m": of
            about 500.
        haystack_sessions: sessions of a history; shorter ones get sessions of other histories that
            are nobody's evidence. 0 for histories as they are.
        num_questions: most questions, from the file's beginning; None for all.
        seed: of the sessions that are added; the data stays the same for all training seeds.
    """

    layout: Literal["oracle", "s", "m"] = "oracle"
    haystack_sessions: int = 0
    num_questions: int | None = None
    seed: int = 0

    def __post_init__(self) -> None:
        """Refuse histories and questions that are none."""
        at_least(self, 0, "haystack_sessions")
        if self.num_questions is not None:
            at_least(self, 1, "num_questions")
