"""Live sessions on the one scoring path: players that call functions leave the same records."""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from typing import Protocol

from memrl.episode_log import ContextTexts, EpisodeLog
from memrl.evaluation.play import EpisodeRecord, record_of
from memrl.player import Player
from memrl.table import EpisodeTable


class LiveEpisode(Protocol):
    """How a live session went; see `envs.session.SessionResult`."""

    @property
    def log(self) -> EpisodeLog:
        """What happened."""
        ...

    @property
    def reward_terms(self) -> Mapping[str, float]:
        """Summed weighted terms by name."""
        ...

    @property
    def decisions(self) -> int:
        """Calls and ends of turns."""
        ...

    @property
    def seconds(self) -> float:
        """Time of the whole episode."""
        ...

    @property
    def replies(self) -> tuple[str | None, ...]:
        """What the player said at each query, None where it said nothing."""
        ...

    @property
    def contexts(self) -> tuple[ContextTexts, ...]:
        """What main context showed when each query was answered."""
        ...


class LiveSession(Protocol):
    """Plays episodes on a live memory; see `envs.session.Session`."""

    @property
    def table(self) -> EpisodeTable:
        """The workload."""
        ...

    def play(self, episode: int, player: Player) -> LiveEpisode:
        """Play one episode to its end."""
        ...


def play_live(
    session: LiveSession,
    player: Player,
    episodes: Sequence[int],
    *,
    on_played: Callable[[int, LiveEpisode], None] | None = None,
) -> list[EpisodeRecord]:
    """Let a player that calls functions play episodes; their records stand beside a policy's.

    Args:
        session: the live memory and its rules.
        player: what calls the functions.
        episodes: numbers in the session's table.
        on_played: called with the place of each finished episode in `episodes` and with how it
            went.
    """
    records = []
    for place, episode in enumerate(episodes):
        played = session.play(episode, player)
        records.append(
            record_of(
                session.table,
                episode,
                played.log,
                played.reward_terms,
                decisions=played.decisions,
                decision_s=played.seconds / max(played.decisions, 1),
            )
        )
        if on_played is not None:
            on_played(place, played)
    return records
