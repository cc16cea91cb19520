"""Episodes of a model that calls functions: records for the table, and why queries were missed."""

from __future__ import annotations

from collections.abc import Callable, Sequence

from memrl.evaluation.play import EpisodeRecord
from memrl.evaluation.play_live import LiveEpisode, LiveSession, play_live
from memrl.policies.prompted_functions import PromptedPlayer
from memrl.policies.prompted_log import PromptedLog


def play_prompted(
    session: LiveSession,
    player: PromptedPlayer,
    episodes: Sequence[int],
    *,
    on_played: Callable[[int, LiveEpisode], None] | None = None,
) -> tuple[list[EpisodeRecord], list[PromptedLog]]:
    """Let a model play episodes on live memories.

    Args:
        session: the live memory and its rules. player: the model.
        episodes: numbers in the session's table.
        on_played: called with the place of each finished episode in `episodes` and with how it
            went.

    Returns:
        A record and a log for each episode, in the order given.
    """
    player.take_turns()
    logs: list[PromptedLog] = []

    def note(place: int, played: LiveEpisode) -> None:
        logs.append(PromptedLog.of(player.take_turns(), played.log.answers))
        if on_played is not None:
            on_played(place, played)

    return play_live(session, player, episodes, on_played=note), logs
