"""Needs that are replaced on purpose."""

from __future__ import annotations

import numpy as np
import pytest

from envs.workloads.wrong_needs import with_wrong_needs
from memrl.documents import Document, Page, Query

PAGES = tuple(Page(f"page {number}") for number in range(40))


def document(*queries: Query) -> Document:
    return Document("a document", PAGES, queries)


def test_the_share_of_wrong_needs_is_what_was_asked_for() -> None:
    queries = [Query(f"what says {n}?", (n % 39, n % 39 + 1)) for n in range(2000)]
    (wrong,) = with_wrong_needs([document(*queries)], 0.3, np.random.default_rng(0))
    replaced = 0
    for before, after in zip(queries, wrong.queries, strict=True):
        assert len(after.needs) == 2
        assert list(after.needs) == sorted(set(after.needs))
        assert set(after.needs) <= set(range(40))
        replaced += len(set(before.needs) - set(after.needs))
    assert replaced / 4000 == pytest.approx(0.3, abs=0.03)


def test_what_is_needed_precedes_the_question() -> None:
    (wrong,) = with_wrong_needs(
        [document(*[Query(f"{n}?", (2,), asked_after=6) for n in range(200)])],
        1.0,
        np.random.default_rng(0),
    )
    assert {page for query in wrong.queries for page in query.needs} == {0, 1, 3, 4, 5}


def test_where_every_page_is_needed_all_stays() -> None:
    asked = document(Query("all?", (0, 1, 2), asked_after=3), Query("nothing?", ()))
    assert with_wrong_needs([asked], 1.0, np.random.default_rng(0)) == [asked]
