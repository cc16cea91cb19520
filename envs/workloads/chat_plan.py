"""Plans a synthetic chat: what is stated by whom and when, and what is asked about it."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, field
from enum import StrEnum

import numpy as np

from envs.workloads import chat_phrases as phrases
from envs.workloads.chat_dialogue import Statement
from envs.workloads.chat_facts_home import HOME_ATTRIBUTES
from envs.workloads.chat_facts_leisure import LEISURE_ATTRIBUTES
from envs.workloads.chat_facts_personal import PERSONAL_ATTRIBUTES
from envs.workloads.chat_facts_taste import TASTE_ATTRIBUTES
from envs.workloads.chat_lists import LIST_TOPICS
from envs.workloads.chat_text import RELATIONS, Attribute, Decks, ListTopic, fill, pick

ATTRIBUTES = HOME_ATTRIBUTES + PERSONAL_ATTRIBUTES + TASTE_ATTRIBUTES + LEISURE_ATTRIBUTES
MIN_LIST_VALUES, MAX_LIST_VALUES = 2, 4

# A value that will be replaced is stated in the first part of the chat, and its update follows
# after at least a quarter of all statements' span, so that the two do not meet in one breath.
_LAST_REPLACED, _MIN_UPDATE_GAP = 0.6, 0.25


class ChatCategory(StrEnum):
    """Kinds of question of the synthetic chats."""

    SINGLE_HOP = "single_hop"
    UPDATED_VALUE = "updated_value"
    PREVIOUS_VALUE = "previous_value"
    LIST = "list"
    COMPARISON = "comparison"
    UNANSWERABLE = "unanswerable"


@dataclass(frozen=True, slots=True)
class PlanSizes:
    """How many of each thing one document has.

    Attributes:
        facts: pairs of speaker and attribute that are stated.
        asked_facts: those that a question is about.
        lists: list questions.
        comparisons: questions about both speakers; each takes two of the asked facts.
        distractors: statements about third parties.
    """

    facts: int
    asked_facts: int
    lists: int
    comparisons: int
    distractors: int


@dataclass(frozen=True, slots=True)
class PlannedQuestion:
    """A question, and the numbers of the statements that answer it (none: unanswerable)."""

    text: str
    needs: tuple[int, ...]
    category: ChatCategory
    answer: str = ""


@dataclass(frozen=True, slots=True)
class _Stated:
    number: int  # of the statement that holds the current value
    value: str


_Fact = tuple[Attribute, int]


@dataclass(slots=True)
class Planner:
    """Draws the plan of one document; `statements` and `questions` are the result."""

    names: tuple[str, str]
    paraphrase: float
    decks: Decks
    rng: np.random.Generator
    statements: list[Statement] = field(default_factory=list)
    questions: list[PlannedQuestion] = field(default_factory=list)
    _unused_values: dict[str, list[str]] = field(default_factory=dict)

    def plan(self, sizes: PlanSizes, update_frac: float, unanswerable_frac: float) -> None:
        """Fills `statements` and `questions`; fractions as in `ChatParams`."""
        facts = self._draw_facts(sizes)
        asked = facts[: sizes.asked_facts]
        changeable = [fact for fact in asked if fact[0].updates]
        order = self.rng.permutation(len(changeable))[: round(update_frac * len(changeable))]
        updated = [changeable[index] for index in order]
        stated = [self._state_fact(fact, fact in asked, fact in updated) for fact in facts]
        for (attribute, first), left, right in zip(
            facts[: 2 * sizes.comparisons : 2],
            stated[: 2 * sizes.comparisons : 2],
            stated[1 : 2 * sizes.comparisons : 2],
            strict=True,
        ):
            self._compare(attribute, first, left, right)
        pairs = [(topic, speaker) for topic in LIST_TOPICS for speaker in (0, 1)]
        lists = [pairs[index] for index in self.rng.permutation(len(pairs))[: sizes.lists]]
        for topic, speaker in lists:
            self._state_list(topic, speaker)
        subjects: list[tuple[Attribute | ListTopic, int]] = [*facts, *lists]
        for index in self.rng.permutation(len(subjects))[: sizes.distractors]:
            self._state_other(*subjects[index])
        share = unanswerable_frac / (1 - unanswerable_frac)
        self._ask_unanswerable(facts, round(share * len(self.questions)))

    def _draw_facts(self, sizes: PlanSizes) -> list[_Fact]:
        """Draws the facts to state; the first ones in pairs for the comparisons."""
        order = [ATTRIBUTES[index] for index in self.rng.permutation(len(ATTRIBUTES))]
        compared, others = order[: sizes.comparisons], order[sizes.comparisons :]
        facts: list[_Fact] = []
        for attribute in compared:
            first = int(self.rng.integers(2))
            facts += [(attribute, first), (attribute, 1 - first)]
        rest = [(attribute, speaker) for attribute in others for speaker in (0, 1)]
        shuffled = [rest[index] for index in self.rng.permutation(len(rest))]
        return facts + shuffled[: sizes.facts - len(facts)]

    def _new_value(self, topic: Attribute | ListTopic) -> str:
        """Draws a value that nobody in this document has had: no two statements agree by chance."""
        if topic.name not in self._unused_values:
            order = self.rng.permutation(len(topic.values))
            self._unused_values[topic.name] = [topic.values[index] for index in order]
        return self._unused_values[topic.name].pop()

    def _state(
        self,
        topic: Attribute | ListTopic,
        speaker: int,
        templates: tuple[str, ...],
        when: float,
        lead_ins: tuple[str, ...] = phrases.LEAD_INS,
    ) -> _Stated:
        value = self._new_value(topic)
        text = fill(self.decks.draw(templates), {"v": value})
        self.statements.append(Statement(speaker, text, topic.tone, lead_ins, when))
        return _Stated(len(self.statements) - 1, value)

    def _ask(
        self,
        wordings: tuple[Sequence[str], Sequence[str]],
        speaker: int,
        stated: Sequence[_Stated],
        category: ChatCategory,
        separator: str = ", ",
    ) -> None:
        """Asks in a close or in a paraphrased wording (`wordings`, in that order)."""
        chosen = wordings[int(self.rng.random() < self.paraphrase)]
        who, other = self.names[speaker], self.names[1 - speaker]
        text = fill(pick(chosen, self.rng), {"who": who, "a": who, "b": other})
        needs = tuple(item.number for item in stated)
        answer = separator.join(item.value for item in stated)
        self.questions.append(PlannedQuestion(text, needs, category, answer))

    def _state_fact(self, fact: _Fact, is_asked: bool, is_updated: bool) -> _Stated:
        attribute, speaker = fact
        when = self.rng.random() * (_LAST_REPLACED if is_updated else 1.0)
        stated = self._state(attribute, speaker, attribute.statements, when)
        category = ChatCategory.SINGLE_HOP
        if is_updated:
            earliest = when + _MIN_UPDATE_GAP
            later = earliest + self.rng.random() * (1.0 - earliest)
            wordings = (attribute.previous, attribute.previous_paraphrases)
            self._ask(wordings, speaker, [stated], ChatCategory.PREVIOUS_VALUE)
            stated = self._state(
                attribute, speaker, attribute.updates, later, phrases.UPDATE_LEAD_INS
            )
            category = ChatCategory.UPDATED_VALUE
        if is_asked:
            self._ask((attribute.questions, attribute.paraphrases), speaker, [stated], category)
        return stated

    def _compare(self, attribute: Attribute, first: int, left: _Stated, right: _Stated) -> None:
        close, paraphrased = attribute.comparisons
        wordings = ((close,), (paraphrased,))
        self._ask(wordings, first, [left, right], ChatCategory.COMPARISON, separator=" and ")

    def _state_list(self, topic: ListTopic, speaker: int) -> None:
        size = int(self.rng.integers(MIN_LIST_VALUES, MAX_LIST_VALUES + 1))
        times = sorted(float(when) for when in self.rng.random(size))
        stated = [self._state(topic, speaker, topic.statements, when) for when in times]
        self._ask((topic.questions, topic.paraphrases), speaker, stated, ChatCategory.LIST)

    def _state_other(self, topic: Attribute | ListTopic, speaker: int) -> None:
        """Has the speaker state a third party's value of something the speaker has one of too."""
        when = float(self.rng.random())
        value = self._new_value(topic)
        slots = {"v": value, "rel": self.decks.draw(RELATIONS)}
        text = fill(self.decks.draw(topic.others), slots)
        self.statements.append(Statement(speaker, text, "plain", phrases.OTHERS_LEAD_INS, when))

    def _ask_unanswerable(self, facts: Sequence[_Fact], count: int) -> None:
        """Asks for facts that were never stated, first for those that the other speaker stated."""
        stated = {(attribute.name, speaker) for attribute, speaker in facts}
        unstated = [
            (attribute, speaker)
            for attribute in ATTRIBUTES
            for speaker in (0, 1)
            if (attribute.name, speaker) not in stated
        ]
        shuffled = [unstated[index] for index in self.rng.permutation(len(unstated))]
        tempting = [fact for fact in shuffled if (fact[0].name, 1 - fact[1]) in stated]
        plain = [fact for fact in shuffled if fact not in tempting]
        for attribute, speaker in (tempting + plain)[:count]:
            wordings = (attribute.questions, attribute.paraphrases)
            self._ask(wordings, speaker, [], ChatCategory.UNANSWERABLE)
