"""The groups of a configuration for Multi-Session Chat and for what is asked about it."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Literal

from memrl.config_checks import at_least

MOST_SESSIONS = 4
"""Sessions that the files of Multi-Session Chat hold before the one that an opener could open."""


@dataclass(frozen=True)
class MscConfig:
    """Multi-Session Chat; for "msc" and "opener".

    Attributes:
        conversations_per_part: most conversations of each part (valid and test), from its
            beginning; None for all.
    """

    conversations_per_part: int | None = None

    def __post_init__(self) -> None:
        """Refuse to read nothing."""
        if self.conversations_per_part is not None:
            at_least(self, 1, "conversations_per_part")


@dataclass(frozen=True)
class OpenerConfig:
    """Conversation opener.

    Attributes:
        sessions: sessions that are told before the next one is to be opened, 1 to 4.
        about: whose persona the opener is to draw on: that of the one who is spoken to (speaker 2),
            or of both.
    """

    sessions: int = 3
    about: Literal["addressee", "both"] = "addressee"

    def __post_init__(self) -> None:
        """Refuse sessions that the data set does not have."""
        if not 1 <= self.sessions <= MOST_SESSIONS:
            raise ValueError(f"sessions must lie in 1..{MOST_SESSIONS}, got {self.sessions}.")


@dataclass(frozen=True)
class DmrConfig:
    """Deep Memory Retrieval.

    Attributes:
        persona_labels: whether documents carry what crowdworkers of Multi-Session Chat noted of
            their turns (its files are read as well). Nobody is asked for the notes, but the page
            scorer is fitted on them beside the questions' evidence.
    """

    persona_labels: bool = False
