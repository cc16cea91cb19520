from __future__ import annotations

import re
from string import Formatter

import pytest

from envs.workloads import chat_phrases as phrases
from envs.workloads.chat_lists import LIST_TOPICS
from envs.workloads.chat_plan import ATTRIBUTES, MAX_LIST_VALUES
from envs.workloads.chat_small_talk import FILLERS, THREADS
from envs.workloads.chat_text import RELATIONS, SPEAKER_NAMES, Attribute, ListTopic, fill
from envs.workloads.locomo_scoring import stemmed_tokens

# Words that carry no content in these sentences, before stemming.
STOP_WORDS = """
about ahead all always an and any anybody are around as at be been before but by can could did do
does doing down each ever every everyone first for forever from get go going good got had has have
having he here how i if im in is it its ive just know last like little long made make many me might
more most my never new no not now of off old on once one or originally out own really so some still
take that the their them there these they thing things this those time to too took two until up use
used want was we went were what when where which while who whose will with would years year you
your who a b v kind few ago lot best since because over again than then must any long how use
"""
STOP = {token for word in STOP_WORDS.split() for token in stemmed_tokens(word)}
TOPICS: tuple[Attribute | ListTopic, ...] = (*ATTRIBUTES, *LIST_TOPICS)
FULL_VALUE_TOPICS = {"museums"}  # their values carry the keyword


def content(template: str, value: str = "", stop: set[str] = STOP) -> set[str]:
    text = template.format(v=value, who="", a="", b="", rel="")
    return set(stemmed_tokens(text.replace("'s", "").replace("'", ""))) - stop


def stop_words(topic: Attribute | ListTopic) -> set[str]:
    return STOP - set(stemmed_tokens("take")) if topic.name == "medication" else STOP


def value_of(topic: Attribute | ListTopic) -> str:
    return topic.values[0] if topic.name in FULL_VALUE_TOPICS else ""


def stating(topic: Attribute | ListTopic) -> tuple[str, ...]:
    return topic.statements + (topic.updates if isinstance(topic, Attribute) else ())


def close_questions(topic: Attribute | ListTopic) -> tuple[str, ...]:
    if isinstance(topic, Attribute):
        return (*topic.questions, *topic.previous, topic.comparisons[0])
    return topic.questions


def paraphrased_questions(topic: Attribute | ListTopic) -> tuple[str, ...]:
    if isinstance(topic, Attribute):
        return (*topic.paraphrases, *topic.previous_paraphrases, topic.comparisons[1])
    return topic.paraphrases


def test_banks_are_as_large_as_promised() -> None:
    assert len(ATTRIBUTES) >= 25
    assert len({topic.name for topic in TOPICS}) == len(TOPICS)
    for topic in TOPICS:
        assert len(set(topic.values)) == len(topic.values) >= 12, topic.name
        assert len(set(topic.statements)) >= 3, topic.name
        assert len(set(topic.questions)) >= 2, topic.name
        assert len(set(topic.paraphrases)) >= 2, topic.name
        assert len(set(topic.others)) >= 2, topic.name


def test_values_never_run_out() -> None:
    # Both speakers' values, both updates, a third party's value next to each.
    assert min(len(attribute.values) for attribute in ATTRIBUTES) >= 6
    assert min(len(topic.values) for topic in LIST_TOPICS) >= 2 * MAX_LIST_VALUES + 2


def test_changeable_attributes_have_all_that_an_update_needs() -> None:
    changeable = [attribute for attribute in ATTRIBUTES if attribute.updates]
    assert len(changeable) >= 10
    for attribute in ATTRIBUTES:
        wordings = (attribute.updates, attribute.previous, attribute.previous_paraphrases)
        assert len({bool(bank) for bank in wordings}) == 1, attribute.name


@pytest.mark.parametrize("topic", TOPICS, ids=lambda topic: topic.name)
def test_templates_have_exactly_their_slots(topic: Attribute | ListTopic) -> None:
    def slots(template: str) -> set[str]:
        return {name for _, name, _, _ in Formatter().parse(template) if name is not None}

    assert {frozenset(slots(template)) for template in stating(topic)} == {frozenset({"v"})}
    assert {frozenset(slots(template)) for template in topic.others} == {frozenset({"v", "rel"})}
    asking = (*topic.questions, *topic.paraphrases)
    assert {frozenset(slots(template)) for template in asking} == {frozenset({"who"})}
    if isinstance(topic, Attribute):
        for template in (*topic.previous, *topic.previous_paraphrases):
            assert slots(template) == {"who"}
        assert all(slots(template) == {"a", "b"} for template in topic.comparisons)


@pytest.mark.parametrize("topic", TOPICS, ids=lambda topic: topic.name)
def test_close_questions_share_a_content_word_with_every_statement(
    topic: Attribute | ListTopic,
) -> None:
    stop = stop_words(topic)
    for statement in (*stating(topic), *topic.others):
        for question in close_questions(topic):
            shared = content(statement, value_of(topic), stop) & content(question, stop=stop)
            assert shared, (statement, question)


@pytest.mark.parametrize("topic", TOPICS, ids=lambda topic: topic.name)
def test_paraphrased_questions_share_no_content_word_with_any_statement(
    topic: Attribute | ListTopic,
) -> None:
    stop = stop_words(topic)
    for statement in stating(topic):
        for question in paraphrased_questions(topic):
            for value in topic.values:
                shared = content(statement, value, stop) & content(question, stop=stop)
                assert not shared, (statement, question, value)


def test_small_talk_uses_known_slots_and_at_least_two_turns() -> None:
    used = {
        name
        for thread in THREADS
        for wordings in thread
        for template in wordings
        for _, name, _, _ in Formatter().parse(template)
        if name is not None
    }
    assert used == set(FILLERS)
    assert all(2 <= len(thread) <= 4 for thread in THREADS)
    # The writer needs exchanges whose reply is no question.
    assert any(not reply.endswith("?") for thread in THREADS for reply in thread[1])


def test_small_talk_states_no_value() -> None:
    small_talk = " | ".join(
        fill(template, {name: value for name, values in FILLERS.items() for value in values[:1]})
        for thread in THREADS
        for wordings in thread
        for template in wordings
    )
    fillers = [value for values in FILLERS.values() for value in values]
    for topic in TOPICS:
        for value in topic.values:
            assert not re.search(rf"\b{re.escape(value)}\b", small_talk), value
            assert value not in fillers, value


@pytest.mark.parametrize("topic", TOPICS, ids=lambda topic: topic.name)
def test_sentences_are_well_formed(topic: Attribute | ListTopic) -> None:
    for template in (*stating(topic), *topic.others):
        for value in topic.values:
            text = fill(template, {"v": value, "rel": "my aunt"})
            assert text[0].isupper() or text[0].isdigit(), text
            assert text[-1] in ".!?", text
            assert not re.search(r"\ba [aeiou]", text), text
            assert not re.search(r"\ban [^aeiou]", text), text
            assert "  " not in text
            assert not re.search(r"\b(\w+) \1\b", text), text
    for template in (*close_questions(topic), *paraphrased_questions(topic)):
        assert template.endswith("?")


def test_speaker_names_are_unambiguous() -> None:
    values = {value for topic in TOPICS for value in topic.values}
    assert len(set(SPEAKER_NAMES)) == len(SPEAKER_NAMES) >= 40
    assert values.isdisjoint(SPEAKER_NAMES)
    # "'s" makes the possessive of every name.
    assert not [name for name in SPEAKER_NAMES if name.endswith(("s", "x", "z"))]


def test_phrase_banks_have_no_repeats() -> None:
    banks = [
        phrases.GREETINGS,
        phrases.GREETING_REPLIES,
        phrases.CLOSINGS,
        phrases.CLOSING_REPLIES,
        phrases.PROMPTS,
        phrases.LEAD_INS,
        phrases.ANSWER_LEAD_INS,
        phrases.UPDATE_LEAD_INS,
        phrases.OTHERS_LEAD_INS,
        phrases.TAILS,
        RELATIONS,
        *phrases.REACTIONS.values(),
    ]
    for bank in banks:
        assert len(set(bank)) == len(bank) >= 5


def test_fill_capitalises_sentence_starts_only() -> None:
    filled = fill("{rel} likes {v}. {v}, again!", {"rel": "my aunt", "v": "sage green"})
    assert filled == "My aunt likes sage green. Sage green, again!"
