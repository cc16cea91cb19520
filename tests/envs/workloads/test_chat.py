from __future__ import annotations

import hashlib
import re
from collections import Counter
from collections.abc import Iterable
from dataclasses import replace
from functools import cache

import numpy as np
import pytest

from envs.workloads.chat import ChatParams, generate_chats
from envs.workloads.chat_lists import LIST_TOPICS
from envs.workloads.chat_plan import ATTRIBUTES, ChatCategory
from envs.workloads.chat_text import Attribute, ListTopic
from memrl.documents import Document, Query, Workload

PARAMS = ChatParams(num_documents=12)


def generate(params: ChatParams = PARAMS, seed: int = 0) -> Workload:
    return generate_chats(params, np.random.default_rng(seed))


def content_of(workload: Workload) -> str:
    said = [
        (document.document_id, document.speakers, document.pages, _asked(document))
        for document in workload.documents
    ]
    return hashlib.sha256(repr(said).encode()).hexdigest()


def _asked(document: Document) -> list[tuple[object, ...]]:
    return [
        (query.text, query.needs, query.category, query.answers, query.answerable)
        for query in document.queries
    ]


@pytest.fixture(scope="module")
def workload() -> Workload:
    return generate()


def pairs(workload: Workload, *categories: ChatCategory) -> list[tuple[Document, Query]]:
    return [
        (document, query)
        for document in workload.documents
        for query in document.queries
        if not categories or query.category in categories
    ]


@cache
def pattern(template: str) -> re.Pattern[str]:
    relation, value = re.escape("{rel}"), re.escape("{v}")
    escaped = re.escape(template).replace(relation, "[a-zA-Z -]+").replace(value, ".+")
    return re.compile(escaped)


def says(text: str, templates: Iterable[str]) -> bool:
    """Whether the text holds one of the templates, filled with anything."""
    return any(pattern(template).search(text) for template in templates)


def stating(topic: Attribute | ListTopic) -> tuple[str, ...]:
    return topic.statements + (topic.updates if isinstance(topic, Attribute) else ())


@cache
def value_pattern(value: str) -> re.Pattern[str]:
    return re.compile(rf"\b{re.escape(value.lower())}(?!\w)")


def values_in(text: str, topic: Attribute | ListTopic) -> set[str]:
    lowered = text.lower()
    return {value for value in topic.values if value_pattern(value).search(lowered)}


def asked_topic(query: Query, names: tuple[str, ...]) -> Attribute | ListTopic:
    """Finds the topic by the question's wording, independently of how it was planned."""
    text = query.text
    for topic in (*ATTRIBUTES, *LIST_TOPICS):
        wordings = [*topic.questions, *topic.paraphrases]
        if isinstance(topic, Attribute):
            wordings += [*topic.previous, *topic.previous_paraphrases, *topic.comparisons]
        for wording in wordings:
            for first, second in (names, names[::-1]):
                if wording.format(who=first, a=first, b=second) == text:
                    return topic
    raise AssertionError(text)


def test_default_documents_have_the_promised_size(workload: Workload) -> None:
    for document in workload.documents:
        assert 150 <= len(document.pages) <= 200
        assert 25 <= len(document.queries) <= 40
        asked = {need for query in document.queries for need in query.needs}
        assert 0.15 <= len(asked) / len(document.pages) <= 0.3


def test_pages_alternate_between_two_speakers_within_a_session(workload: Workload) -> None:
    for document in workload.documents:
        assert len(set(document.speakers)) == 2
        for page, following in zip(document.pages, document.pages[1:], strict=False):
            assert page.speaker == document.speakers[page.role]
            if page.session == following.session:
                assert page.role != following.role
                assert page.timestamp == following.timestamp
            else:
                assert following.session == page.session + 1
                assert page.timestamp != following.timestamp
        assert document.pages[-1].session == PARAMS.num_sessions - 1


def test_session_lengths_vary_within_bounds(workload: Workload) -> None:
    lengths = [
        length
        for document in workload.documents
        for length in Counter(page.session for page in document.pages).values()
    ]
    low, high = 22 - 22 // 6 - 1, 22 + 22 // 6
    assert low <= min(lengths) < max(lengths) <= high
    assert len(set(lengths)) > 3


def test_every_need_states_its_part_of_the_answer(workload: Workload) -> None:
    for document, query in pairs(workload):
        if query.category == ChatCategory.UNANSWERABLE:
            continue
        topic = asked_topic(query, document.speakers)
        stated = set()
        for need in query.needs:
            (value,) = values_in(document.pages[need].text, topic)
            assert value in query.answers[0]
            stated.add(value)
        assert len(stated) == len(query.needs)


def test_needs_are_said_by_the_speaker_asked_about(workload: Workload) -> None:
    for document, query in pairs(workload):
        named = {name for name in document.speakers if re.search(rf"\b{name}\b", query.text)}
        speakers = {document.pages[need].speaker for need in query.needs}
        if query.category == ChatCategory.UNANSWERABLE:
            assert (len(named), speakers) == (1, set())
        else:
            assert speakers == named


def test_no_other_page_of_the_speaker_answers(workload: Workload) -> None:
    """Needs are complete: all other mentions of the topic are old values or third parties'."""
    for document, query in pairs(workload, ChatCategory.SINGLE_HOP, ChatCategory.LIST):
        topic = asked_topic(query, document.speakers)
        (role,) = {document.pages[need].role for need in query.needs}
        for index, page in enumerate(document.pages):
            if index in query.needs or page.role != role or not values_in(page.text, topic):
                continue
            about_others = says(page.text, topic.others)
            is_other_topic = not says(page.text, stating(topic))
            assert about_others or is_other_topic, (query.text, page.text)


def test_updates_come_after_what_they_replace(workload: Workload) -> None:
    current = pairs(workload, ChatCategory.UPDATED_VALUE)
    previous = pairs(workload, ChatCategory.PREVIOUS_VALUE)
    assert len(current) == len(previous) > 0

    def key(document: Document, query: Query) -> tuple[str, str, int]:
        topic = asked_topic(query, document.speakers)
        return document.document_id, topic.name, document.pages[query.needs[0]].role

    latest = {key(*pair): pair for pair in current}
    for document, query in previous:
        _, update = latest[key(document, query)]
        assert query.needs[0] < update.needs[0]
        assert query.answers != update.answers
        assert document.pages[query.needs[0]].session < document.pages[update.needs[0]].session


def test_comparisons_need_one_turn_of_each_speaker(workload: Workload) -> None:
    for document, query in pairs(workload, ChatCategory.COMPARISON):
        assert sorted(document.pages[need].role for need in query.needs) == [0, 1]
        assert " and " in query.answers[0]


def test_comparisons_ask_for_current_values() -> None:
    params = replace(PARAMS, num_sessions=12, update_frac=1.0, multi_evidence_frac=0.5)
    workload = generate(params)
    num_updated = 0
    for document, query in pairs(workload, ChatCategory.COMPARISON):
        topic = asked_topic(query, document.speakers)
        if isinstance(topic, Attribute) and topic.updates:
            for need in query.needs:
                assert says(document.pages[need].text, topic.updates)
                num_updated += 1
    assert num_updated > 10


def test_list_answers_keep_the_order_of_mention(workload: Workload) -> None:
    sizes = set()
    for document, query in pairs(workload, ChatCategory.LIST):
        topic = asked_topic(query, document.speakers)
        mentioned = [values_in(document.pages[need].text, topic).pop() for need in query.needs]
        assert query.answers == (", ".join(mentioned),)
        sizes.add(len(mentioned))
    assert sizes == {2, 3, 4}


def test_unanswerable_questions_are_about_what_the_speaker_never_stated(
    workload: Workload,
) -> None:
    num_tempting = 0
    for document, query in pairs(workload, ChatCategory.UNANSWERABLE):
        assert not query.answerable
        assert (query.needs, query.answers) == ((), ())
        topic = asked_topic(query, document.speakers)
        named = [name for name in document.speakers if re.search(rf"\b{name}\b", query.text)]
        saying = {page.speaker for page in document.pages if says(page.text, stating(topic))}
        assert saying.isdisjoint(named)
        num_tempting += bool(saying)
    # The other speaker's value is there to mislead in nearly all of them.
    assert num_tempting > 0.8 * len(pairs(workload, ChatCategory.UNANSWERABLE))


def test_near_distractors_are_there(workload: Workload) -> None:
    expected = round(PARAMS.distractor_frac * PARAMS.facts_per_document)
    others = [other for topic in (*ATTRIBUTES, *LIST_TOPICS) for other in topic.others]
    for document in workload.documents:
        found = [page for page in document.pages if says(page.text, others)]
        assert len(found) == expected


@pytest.mark.parametrize("paraphrase", [0.0, 1.0])
def test_paraphrase_chooses_the_wording(paraphrase: float) -> None:
    workload = generate(replace(PARAMS, paraphrase=paraphrase, num_documents=3))
    for document, query in pairs(workload):
        topic = asked_topic(query, document.speakers)
        close = [*topic.questions]
        if isinstance(topic, Attribute):
            close += [*topic.previous, topic.comparisons[0]]
        wordings = {
            wording.format(who=first, a=first, b=second)
            for wording in close
            for first, second in (document.speakers, document.speakers[::-1])
        }
        assert (query.text in wordings) is (paraphrase == 0.0)


def test_some_facts_are_never_asked(workload: Workload) -> None:
    statements = [text for attribute in ATTRIBUTES for text in stating(attribute)]
    for document in workload.documents:
        asked = {need for query in document.queries for need in query.needs}
        facts = {index for index, page in enumerate(document.pages) if says(page.text, statements)}
        assert len(facts - asked) == round(PARAMS.unasked_frac * PARAMS.facts_per_document)


def test_same_seed_same_text() -> None:
    assert generate(seed=7).documents == generate(seed=7).documents
    assert generate(seed=7).documents != generate(seed=8).documents


def test_documents_do_not_depend_on_how_many_follow() -> None:
    few = generate(replace(PARAMS, num_documents=3)).documents
    assert generate().documents[:3] == few


def test_documents_differ(workload: Workload) -> None:
    texts = {tuple(page.text for page in document.pages) for document in workload.documents}
    assert len(texts) == len(workload.documents)
    shared = set.intersection(*({p.text for p in d.pages} for d in workload.documents))
    assert len(shared) < 3


def test_small_talk_is_varied(workload: Workload) -> None:
    for document in workload.documents:
        counts = Counter(page.text for page in document.pages)
        assert counts.most_common(1)[0][1] <= 2
        assert len(counts) > 0.95 * len(document.pages)


def test_text_is_the_same_on_every_platform(workload: Workload) -> None:
    assert workload.documents[0].document_id == "chat-0000"
    assert content_of(workload) == content_of(generate())
    assert content_of(workload)[:16] == "658aadca63dcdeda"


def test_text_is_tidy(workload: Workload) -> None:
    for document in workload.documents:
        for page in document.pages:
            assert re.fullmatch(r"[A-Z0-9][\x20-\x7e]*[.!?]", page.text), page.text
            assert "  " not in page.text
            assert "{" not in page.text
        for query in document.queries:
            assert re.fullmatch(r"[A-Z][\x20-\x7e]*\?", query.text), query.text
        assert len({query.text for query in document.queries}) == len(document.queries)


@pytest.mark.usefixtures("poison_global_rng")
def test_no_global_random_state() -> None:
    generate(replace(PARAMS, num_documents=1))
