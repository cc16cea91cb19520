from __future__ import annotations

import re
from collections import Counter
from typing import Any

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from envs.workloads.chat import ChatParams, generate_chats
from envs.workloads.chat_plan import ChatCategory
from memrl.documents import Workload


def generate(params: ChatParams, seed: int = 0) -> Workload:
    return generate_chats(params, np.random.default_rng(seed))


def check(params: ChatParams, seed: int = 0) -> None:
    """Generates documents and checks that sessions have their length and needs their answers."""
    spread = params.turns_per_session // 6
    for document in generate(params, seed).documents:
        sessions = Counter(page.session for page in document.pages)
        assert len(sessions) == params.num_sessions
        assert min(sessions.values()) >= params.turns_per_session - spread - 1
        assert max(sessions.values()) <= params.turns_per_session + spread
        for query in document.queries:
            assert query.answerable is bool(query.needs) is bool(query.answers)
            for need in query.needs:
                parts = re.split(", | and ", query.answers[0].lower())
                assert any(part in document.pages[need].text.lower() for part in parts)


fractions = st.floats(0, 0.7)


@settings(deadline=None, max_examples=60)
@given(
    options=st.fixed_dictionaries(
        {
            "num_sessions": st.integers(1, 30),
            "turns_per_session": st.integers(8, 40),
            "facts_per_document": st.integers(1, 40),
            "unasked_frac": fractions,
            "update_frac": fractions,
            "multi_evidence_frac": fractions,
            "distractor_frac": fractions,
            "paraphrase": fractions,
            "unanswerable_frac": fractions,
        }
    ),
    seed=st.integers(0, 2**32),
)
def test_parameters_are_refused_or_work(options: dict[str, Any], seed: int) -> None:
    try:
        params = ChatParams(num_documents=1, **options)
    except ValueError:
        return
    check(params, seed)


@pytest.mark.parametrize(
    "params",
    [
        ChatParams(2, num_sessions=1, turns_per_session=8, facts_per_document=1, update_frac=0.0),
        ChatParams(2, num_sessions=1, turns_per_session=200),
        ChatParams(2, num_sessions=60, facts_per_document=48, update_frac=1.0, unasked_frac=0.0),
        ChatParams(2, num_sessions=30, facts_per_document=40, distractor_frac=1.0),
    ],
)
def test_extreme_parameters_work(params: ChatParams) -> None:
    check(params)


@pytest.mark.parametrize(
    ("changes", "field"),
    [
        ({"num_documents": 0}, "num_documents"),
        ({"num_sessions": 0}, "num_sessions"),
        ({"turns_per_session": 7}, "turns_per_session"),
        ({"facts_per_document": 0}, "facts_per_document"),
        ({"facts_per_document": 1000}, "facts_per_document"),
        ({"unasked_frac": -0.1}, "unasked_frac"),
        ({"unasked_frac": 1.0}, "unasked_frac"),
        ({"update_frac": 1.1}, "update_frac"),
        ({"multi_evidence_frac": float("nan")}, "multi_evidence_frac"),
        ({"multi_evidence_frac": 1.0, "facts_per_document": 30}, "multi_evidence_frac"),
        ({"distractor_frac": 2.0}, "distractor_frac"),
        ({"paraphrase": -1.0}, "paraphrase"),
        ({"unanswerable_frac": 1.0}, "unanswerable_frac"),
        ({"unanswerable_frac": 0.7}, "unanswerable_frac"),
        ({"num_sessions": 2}, "num_sessions"),
        ({"turns_per_session": 10}, "turns_per_session"),
    ],
)
def test_impossible_parameters_name_their_field(changes: dict[str, Any], field: str) -> None:
    with pytest.raises(ValueError, match=field):
        ChatParams(**changes)


@pytest.mark.parametrize(
    ("changes", "category"),
    [
        ({"update_frac": 0.0}, ChatCategory.UPDATED_VALUE),
        ({"update_frac": 0.0}, ChatCategory.PREVIOUS_VALUE),
        ({"multi_evidence_frac": 0.0}, ChatCategory.LIST),
        ({"multi_evidence_frac": 0.0}, ChatCategory.COMPARISON),
        ({"unanswerable_frac": 0.0}, ChatCategory.UNANSWERABLE),
    ],
)
def test_a_fraction_of_zero_leaves_its_kind_out(
    changes: dict[str, Any], category: ChatCategory
) -> None:
    def kinds(params: ChatParams) -> set[str]:
        documents = generate(params).documents
        return {query.category for document in documents for query in document.queries}

    assert category in kinds(ChatParams(num_documents=2))
    assert category not in kinds(ChatParams(num_documents=2, **changes))


def test_counts_follow_the_parameters() -> None:
    params = ChatParams(
        num_documents=4,
        num_sessions=12,
        facts_per_document=20,
        unasked_frac=0.25,
        update_frac=0.0,
        multi_evidence_frac=0.4,
        unanswerable_frac=0.2,
    )
    workload = generate(params)
    for document in workload.documents:
        kinds = Counter(query.category for query in document.queries)
        # 20 facts, 5 unasked; .4 x 15 = 6 that need several turns; 21 / 4 unanswerable.
        assert kinds == {"single_hop": 15, "list": 3, "comparison": 3, "unanswerable": 5}
        assert document.pages[-1].session == 11


def test_provenance_holds_the_parameters() -> None:
    workload = generate(ChatParams(num_documents=12))
    assert workload.provenance["params"] == {
        "num_documents": 12,
        "num_sessions": 8,
        "turns_per_session": 22,
        "facts_per_document": 26,
        "unasked_frac": 0.15,
        "update_frac": 0.4,
        "multi_evidence_frac": 0.25,
        "distractor_frac": 0.3,
        "paraphrase": 0.5,
        "unanswerable_frac": 0.1,
    }
