"""How the synthetic chats are worded: the shape of the template banks, and how they are filled.

Slots: `{v}` a value, `{who}` a speaker, `{a}` and `{b}` both speakers, `{rel}` somebody else's
relation to the speaker ("my cousin"). Small talk has slots of its own, see `chat_small_talk`.
"""

from __future__ import annotations

import re
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from typing import Literal, TypeVar

import numpy as np

Tone = Literal["happy", "plain", "care"]
_T = TypeVar("_T")
_SENTENCE_START = re.compile(r"(^|[.!?] )([a-z])")


@dataclass(frozen=True, slots=True)
class Attribute:
    """Something a speaker has one value of at a time, and all ways to state and to ask it.

    Every statement and update shares a content word with every close question and none with any
    paraphrased one, so that the two kinds of question tell lexical from semantic search.

    Attributes:
        name: identifier.
        tone: how the other speaker reacts to it.
        values: what the value can be; distinct.
        statements: first-person turns that state the value.
        questions: wordings close to the statements.
        paraphrases: wordings that share only the speaker's name with the statements.
        comparisons: one close and one paraphrased question about both speakers.
        others: turns that state a third party's value in similar words.
        updates: first-person turns that state that the value has changed; empty if it cannot.
        previous: close questions about the value before the update; empty as `updates`.
        previous_paraphrases: paraphrased ones.
    """

    name: str
    tone: Tone
    values: tuple[str, ...]
    statements: tuple[str, ...]
    questions: tuple[str, ...]
    paraphrases: tuple[str, ...]
    comparisons: tuple[str, str]
    others: tuple[str, ...]
    updates: tuple[str, ...] = ()
    previous: tuple[str, ...] = ()
    previous_paraphrases: tuple[str, ...] = ()


@dataclass(frozen=True, slots=True)
class ListTopic:
    """Something a speaker adds values to from time to time; a question asks for all of them.

    The fields are those of `Attribute`.
    """

    name: str
    tone: Tone
    values: tuple[str, ...]
    statements: tuple[str, ...]
    questions: tuple[str, ...]
    paraphrases: tuple[str, ...]
    others: tuple[str, ...]


# None ends in an s sound, so that "'s" makes every possessive.
SPEAKER_NAMES = (
    *("Ada", "Amara", "Anton", "Bea", "Benno", "Carmen", "Cleo", "Dario", "Dev", "Edda"),
    *("Elif", "Emil", "Farah", "Fergal", "Gita", "Hanno", "Hugo", "Ilse", "Imran", "Ivo"),
    *("Jada", "Joel", "Juno", "Kaito", "Kemal", "Leila", "Lorcan", "Magda", "Malik", "Milo"),
    *("Nadia", "Nico", "Noor", "Olga", "Omar", "Oona", "Pavel", "Petra", "Rafael", "Renata"),
    *("Rohan", "Saskia", "Selma", "Tariq", "Teo", "Ulla", "Viktor", "Wanda", "Yara", "Zeno"),
)

RELATIONS = (
    *("my cousin", "my neighbour", "my old flatmate", "my colleague", "my aunt", "my uncle"),
    *("my brother-in-law", "my landlord", "my old classmate", "my godmother", "my nephew"),
    *("a friend of mine", "someone from my choir", "the guy next door", "my former boss"),
)


def pick(options: Sequence[_T], rng: np.random.Generator) -> _T:
    """Draws one of the options uniformly."""
    return options[int(rng.integers(len(options)))]


@dataclass(slots=True)
class Decks:
    """Deals phrases: of each bank, every phrase comes once before any comes again."""

    rng: np.random.Generator
    _left: dict[tuple[str, ...], list[str]] = field(default_factory=dict)

    def draw(self, bank: tuple[str, ...]) -> str:
        """Deals the next phrase of a bank."""
        if not self._left.get(bank):
            self._left[bank] = [bank[index] for index in self.rng.permutation(len(bank))]
        return self._left[bank].pop()


def fill(template: str, slots: Mapping[str, str]) -> str:
    """Fills a template's slots and capitalises each sentence that a filled slot begins."""
    return _SENTENCE_START.sub(
        lambda match: match[1] + match[2].upper(), template.format_map(slots)
    )
