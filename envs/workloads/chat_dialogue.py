"""Writes the sessions of a synthetic chat: statements in their order, embedded in small talk.

The two speakers take turns strictly. Before a statement by the speaker who is not next, the other
one asks for news or makes a remark; what the listener says next begins with a reaction.
"""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from dataclasses import dataclass, field

import numpy as np

from envs.workloads import chat_phrases as phrases
from envs.workloads.chat_small_talk import FILLERS, THREADS
from envs.workloads.chat_text import Decks, Tone, fill, pick

_LEAD_IN_PROBABILITY = 0.5
_TAIL_PROBABILITY = 0.15
_PLAIN_REACTION_PROBABILITY = 0.4
_PROMPT_PROBABILITY = 0.5

# Greeting and its reply, farewell and its reply.
FRAME_TURNS = 4
# A statement takes its own turn and at most one in which the other speaker asks for it.
TURNS_PER_STATEMENT = 2


@dataclass(frozen=True, slots=True)
class Statement:
    """A turn that says something a question may be about.

    Attributes:
        speaker: 0 or 1.
        text: what is said, without lead-in.
        tone: how the listener reacts.
        lead_ins: what may come before it.
        when: place in the chat as a share of all statements' span, in [0, 1); only the order
            counts.
    """

    speaker: int
    text: str
    tone: Tone
    lead_ins: tuple[str, ...]
    when: float


@dataclass(frozen=True, slots=True)
class Turn:
    """One turn: who says what, and the number of the statement it holds, -1 for none."""

    speaker: int
    text: str
    statement: int = -1


@dataclass(slots=True)
class Writer:
    """Writes the sessions of one document; small talk and phrases do not repeat before they must.

    Attributes:
        names: the speakers.
        decks: where phrases come from.
        rng: source of randomness.
    """

    names: tuple[str, str]
    decks: Decks
    rng: np.random.Generator
    _threads: Iterator[list[str]] = field(init=False)
    _turns: list[Turn] = field(init=False, default_factory=list)
    _next_speaker: int = field(init=False, default=0)
    _unanswered: Tone | None = field(init=False, default=None)  # of the statement said last

    def __post_init__(self) -> None:
        """Shuffles the small talk."""
        self._threads = _endless_threads(self.rng)

    def write_session(
        self, statements: Sequence[tuple[int, Statement]], num_turns: int
    ) -> list[Turn]:
        """Writes one session.

        Args:
            statements: numbers and statements, in order; at most
                `(num_turns - FRAME_TURNS) // TURNS_PER_STATEMENT`.
            num_turns: length aimed at; the session has as many turns or one less.

        Returns:
            The turns, speakers alternating.
        """
        self._turns, self._next_speaker = [], int(self.rng.integers(2))
        self._say_by_name(phrases.GREETINGS)
        self._say_by_name(phrases.GREETING_REPLIES)
        waiting = list(statements)
        while True:
            room = num_turns - FRAME_TURNS // 2 - len(self._turns)
            spare = room - TURNS_PER_STATEMENT * len(waiting)
            num_exchanges = spare / 3  # small talk takes about three turns at a time
            chance = len(waiting) / (len(waiting) + num_exchanges) if waiting else 0.0
            if waiting and (spare < 2 or self.rng.random() < chance):
                self._state(*waiting.pop(0))
            elif spare >= 2:
                self._chat(spare)
            else:
                break
        if spare and self._unanswered:
            self._say()
        self._say_by_name(phrases.CLOSINGS)
        self._say_by_name(phrases.CLOSING_REPLIES)
        return self._turns

    def _say(self, *parts: str, statement: int = -1) -> None:
        """Adds a turn of the next speaker, who first reacts to a statement just heard."""
        tone = self._unanswered
        reaction = [self.decks.draw(phrases.REACTIONS[tone])] if tone else []
        self._turns.append(Turn(self._next_speaker, " ".join([*reaction, *parts]), statement))
        self._next_speaker = 1 - self._next_speaker
        self._unanswered = None

    def _say_by_name(self, bank: tuple[str, ...]) -> None:
        self._say(fill(self.decks.draw(bank), {"other": self.names[1 - self._next_speaker]}))

    def _chat(self, max_turns: int) -> None:
        """Adds one exchange of small talk, cut to at least two turns and at most `max_turns`."""
        if self._unanswered and max_turns > 2 and self.rng.random() < _PLAIN_REACTION_PROBABILITY:
            self._say()
            max_turns -= 1
        for text in next(self._threads)[:max_turns]:
            self._say(text)

    def _state(self, number: int, statement: Statement) -> None:
        """Adds a statement, and before it a turn of the other speaker where that one is next."""
        lead_ins = statement.lead_ins
        before: list[str] = []
        if statement.speaker != self._next_speaker:
            if self.rng.random() < _PROMPT_PROBABILITY:
                self._say(self.decks.draw(phrases.PROMPTS))
                lead_ins = phrases.ANSWER_LEAD_INS
            else:
                remark, reply = self._remark_and_reply()
                self._say(remark)
                before.append(reply)
        if before or self.rng.random() < _LEAD_IN_PROBABILITY:
            before.append(self.decks.draw(lead_ins))
        is_tailed = self.rng.random() < _TAIL_PROBABILITY
        after = [self.decks.draw(phrases.TAILS)] if is_tailed else []
        self._say(*before, statement.text, *after, statement=number)
        self._unanswered = statement.tone

    def _remark_and_reply(self) -> tuple[str, str]:
        """Draws small talk whose reply leaves the speaker free to go on with something else."""
        while True:
            remark, reply, *_ = next(self._threads)
            if not reply.endswith("?"):
                return remark, reply


def _endless_threads(rng: np.random.Generator) -> Iterator[list[str]]:
    """Yields exchanges of small talk, each thread once before any comes again."""
    while True:
        for index in rng.permutation(len(THREADS)):
            slots = {name: pick(values, rng) for name, values in FILLERS.items()}
            yield [fill(pick(wordings, rng), slots) for wordings in THREADS[index]]
