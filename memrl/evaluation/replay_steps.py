"""An episode decision by decision: what was shown, what was chosen and why; plain data."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any

from memrl.evaluation.play import EpisodeRecord


@dataclass(frozen=True)
class ShownPage:
    """A slot or a candidate.

    Attributes:
        row: of the observation. page: its number in the episode's window; None in a page cache.
        marks: "victim", "stored", "retrieved", "arriving", "focus"; and "needed", which no policy
            sees.
        text: of the page. features: those that are not 0.
    """

    row: int
    page: int | None
    marks: tuple[str, ...]
    text: str
    features: str


@dataclass(frozen=True)
class Choice:
    """A legal action.

    Attributes:
        name: of the action. about: text of the page that it is about, "" for none.
        score: what the policy gave it, in reward over YIELD; None where a policy gives no scores.
        is_chosen: whether it was played.
    """

    name: str
    about: str
    score: float | None
    is_chosen: bool


@dataclass(frozen=True)
class Step:
    """A decision, or the end of the episode, which has no choices.

    Attributes:
        event: events so far. headline: what is to be decided.
        news: what has happened since the decision before: arrivals, queries, moves.
        truth: what no policy sees: the gold answers, and where the needed pages are.
        situation: features of the situation that are not 0.
        slots, candidates: what is shown.
        choices: best first where there are scores, else in the order of the action space.
        reward_terms: what the choice earned by the next decision, those that are not 0.
    """

    event: int
    headline: str
    news: tuple[str, ...]
    truth: tuple[str, ...]
    situation: str
    slots: tuple[ShownPage, ...]
    candidates: tuple[ShownPage, ...]
    choices: tuple[Choice, ...]
    reward_terms: Mapping[str, float]

    @property
    def chosen(self) -> str:
        """Name of the action that was played, "" at the end."""
        return next((choice.name for choice in self.choices if choice.is_chosen), "")


@dataclass(frozen=True)
class Replay:
    """An episode that one policy has played.

    Attributes:
        policy: its name. settings: what the run chose for it; overrides of the options included.
        episode: number in the test table. document: what it is a part of.
        steps: in order, the end last.
        record: as the evaluation makes it.
        recorded_return: return of the same episode in the run's own records, None if it has none.
    """

    policy: str
    settings: Mapping[str, Any]
    episode: int
    document: str
    steps: tuple[Step, ...]
    record: EpisodeRecord
    recorded_return: float | None

    @property
    def summary(self) -> str:
        """How it went, in a line."""
        record = self.record
        operations = ", ".join(f"{name} {count}" for name, count in record.operations.items())
        evidence = f"{record.evidence:.2f} of {record.num_scored}"
        said = (
            f"{self.policy}: return {record.episode_return:.3f}, evidence {evidence}, {operations}"
        )
        recorded = self.recorded_return
        if recorded is None:
            return said
        if abs(recorded - record.episode_return) < 5e-4:
            return f"{said}; as the run recorded"
        return (
            f"{said}; the run recorded a return of {recorded:.3f}: the data or the embeddings are "
            "not the same, or the policy draws at random"
        )


@dataclass(frozen=True)
class Moment:
    """All that is decided at one event, by each of several policies.

    Attributes:
        event: events so far. steps: of each policy, in the order of the replays.
    """

    event: int
    steps: tuple[tuple[Step, ...], ...]


def moments_of(replays: Sequence[Replay]) -> list[Moment]:
    """The decisions of several replays of one episode, event by event."""
    events = sorted({step.event for replay in replays for step in replay.steps})
    return [
        Moment(
            event,
            tuple(
                tuple(step for step in replay.steps if step.event == event) for replay in replays
            ),
        )
        for event in events
    ]
