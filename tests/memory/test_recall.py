from __future__ import annotations

import threading
from collections.abc import Iterator
from datetime import UTC, datetime, timedelta, timezone
from pathlib import Path

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from memrl.memory.bm25 import Bm25Statistics, analyze, bm25_scores
from memrl.memory.recall import RecallPage, RecallStore
from memrl.memory.results import SearchError
from memrl.memory.scores import quantize_scores

NOON = datetime(2024, 3, 5, 12, 0, tzinfo=UTC)
TEXTS = [
    "Ana: I adopted a grey kitten last week, she sleeps on my keyboard.",
    "Ben: Kittens! My sister adopted two dogs in spring.",
    "Ana: The dogs of my neighbour bark at the kitten every morning.",
    "Ben: I moved to Lisbon for the new job at the aquarium.",
    "Ana: Lisbon is lovely in spring, the tram 28 goes past the aquarium.",
    "",
    "It was what it was.",
]
# Words that FTS5, SQL, HTML and function calls would read as more than words.
HOSTILE = [
    '"kitten" AND NOT dog OR NEAR(cat bird, 5)',
    "kit* ^start page_terms : cat {a b} : c - + |",
    "'; DROP TABLE pages; --",
    "x' UNION SELECT text FROM pages WHERE ''='",
    "<script>alert('kitten')</script> &amp;",
    'send_message(message="kitten")',
    '{"function": "archival_memory_search", "query": null}',
    'unbalanced " quote and \\ backslash',
    "NUL \0 inside, kitten after it",
    "half an emoji \ud83d and more",
    "AND",
    "% _ ? ?1 :a @b $c",
]
texts = st.text(st.characters(codec=None, exclude_categories=()), max_size=40) | st.sampled_from(
    HOSTILE
)


def page(page_id: int, text: str, **fields: object) -> RecallPage:
    values = {"role": "user", "time": NOON, "page_tokens": 7} | fields
    return RecallPage(page_id, text, **values)  # type: ignore[arg-type]


def filled(contents: list[str], statistics: Bm25Statistics | None = None) -> RecallStore:
    store = RecallStore(statistics=statistics)
    store.extend(page(number, text) for number, text in enumerate(contents))
    return store


@pytest.fixture
def store() -> Iterator[RecallStore]:
    with filled(TEXTS) as opened:
        yield opened


def found(store: RecallStore, query: str, **options: object) -> list[int | None]:
    return [hit.page_id for hit in store.search(query, page_size=100, **options).hits]  # type: ignore[arg-type]


def test_search_ranks_by_bm25(store: RecallStore) -> None:
    result = store.search("Which kittens were adopted?", page_size=2)
    assert [hit.page_id for hit in result.hits] == [1, 0]
    assert (result.total, result.page, result.page_size, result.num_pages) == (3, 0, 2, 2)
    hit = result.hits[0]
    assert (hit.text, hit.role, hit.time) == (TEXTS[1], "user", NOON)
    assert hit.score == bm25_scores(["kittens adopted"], TEXTS, Bm25Statistics.fit(TEXTS))[0, 1]


@settings(max_examples=150, deadline=None)
@given(st.lists(texts, min_size=1, max_size=8), texts, st.booleans())
def test_scores_and_ranking_are_those_of_the_tables(
    contents: list[str], query: str, frozen: bool
) -> None:
    statistics = Bm25Statistics.fit([*TEXTS, "kitten"])
    if not frozen and any(analyze(text) for text in contents):
        statistics = Bm25Statistics.fit(contents)
    with filled(contents, statistics if frozen else None) as store:
        expected = bm25_scores([query], contents, statistics)[0]
        np.testing.assert_array_equal(store.scores(query, range(len(contents))), expected)
        quantized = quantize_scores(expected).astype(int)
        order = np.argsort(-quantized, kind="stable")
        terms = set(analyze(query))
        hits = [int(row) for row in order if terms & set(analyze(contents[row]))]
        assert found(store, query) == hits
        for size in (1, 3):
            pages = [store.search(query, number, size) for number in range(len(hits) // size + 2)]
            assert [hit.page_id for some in pages for hit in some.hits] == hits
            assert {some.total for some in pages} == {len(hits)}


def test_scores_follow_appended_pages() -> None:
    """Postings are cached; every append has to reach them, from few pages and from many."""
    with RecallStore() as store:
        contents: list[str] = []
        for number in range(12):
            new = [f"kitten {'dog ' * (number % 3)}{'kitten ' * (number % 2)}"]
            if number == 6:
                new *= 300
            store.extend(page(len(contents) + row, text) for row, text in enumerate(new))
            contents += new
            expected = bm25_scores(["kitten dog"], contents, Bm25Statistics.fit(contents))[0]
            np.testing.assert_array_equal(
                store.scores("dog kitten", range(len(contents))), expected
            )


@settings(max_examples=200, deadline=None)
@given(st.lists(texts, max_size=6), texts, texts)
def test_any_text_is_stored_as_written_and_found_by_its_words(
    contents: list[str], query: str, role: str
) -> None:
    with RecallStore() as store:
        pages = [page(number, text, role=role) for number, text in enumerate(contents)]
        store.extend(pages)
        assert store.get(range(len(pages))) == pages
        store.search(query)
        for number, text in enumerate(contents):
            assert (number in found(store, text, roles=[role])) == bool(analyze(text))


@pytest.mark.parametrize("text", HOSTILE)
def test_hostile_text_is_text(text: str, store: RecallStore) -> None:
    store.append(page(100, text))
    hits = [hit for hit in store.search(text, page_size=100).hits if hit.page_id == 100]
    assert [hit.text for hit in hits] == ([text] if analyze(text) else [])
    assert len(store) == len(TEXTS) + 1
    assert [row.text for row in store.get(range(len(TEXTS)))] == TEXTS


def test_operators_are_words_or_nothing(store: RecallStore) -> None:
    assert found(store, "kitten AND lisbon NOT spring") == found(store, "kitten lisbon spring")
    assert found(store, "kit*") == []
    assert found(store, 'NEAR("kitten" "dogs")') == found(store, "near kitten dogs")


def test_a_query_without_terms_has_no_hits(store: RecallStore) -> None:
    for query in ("", "  \n", "what was it", '""', "\0"):
        assert (store.search(query).hits, store.search(query).total) == ((), 0)
    with RecallStore() as empty:
        assert empty.search("kitten").total == 0
        empty.append(page(0, "?!"))
        assert empty.search("kitten").total == 0
        assert empty.scores("kitten", [0]).tolist() == [0.0]


def test_roles(store: RecallStore) -> None:
    store.append(page(50, "kitten", role="assistant"))
    store.append(page(51, "kitten", role="tool"))
    assert found(store, "kitten", roles=["assistant"]) == [50]
    assert found(store, "kitten", roles={"assistant", "tool"}) == [50, 51]
    assert store.search("kitten", roles=["user"]).total == 3
    assert store.search("kitten", roles=["nobody"]).total == 0
    assert store.search("kitten", roles=[]).total == 0


def test_pages_of_results(store: RecallStore) -> None:
    past = store.search("kitten", page=9, page_size=2)
    assert (past.hits, past.total, past.num_pages) == ((), 3, 2)
    assert store.search("kitten", page=10**30).total == 3
    assert len(store.search("kitten", page_size=10**30).hits) == 3
    assert store.search_date("2024-03-05", "2024-03-05", page=10**30).total == len(TEXTS)
    for number, size, reason in ((-1, 5, "no page -1"), (0, 0, "at least 1 hit, not 0")):
        with pytest.raises(SearchError, match=reason):
            store.search("kitten", number, size)
        with pytest.raises(SearchError, match=reason):
            store.search_date("2024-01-01", "2024-01-02", number, size)


def test_dates_are_days_where_the_page_was_written() -> None:
    tokyo, lima = timezone(timedelta(hours=9)), timezone(timedelta(hours=-5))
    times = [
        datetime(2024, 3, 5, 0, 0, tzinfo=tokyo),  # still the 4th in UTC
        datetime(2024, 3, 5, 23, 59, 59, 999_999, tzinfo=lima),  # the 6th in UTC
        datetime(2024, 3, 4, 23, 59, 59, 999_999, tzinfo=tokyo),
        datetime(2024, 3, 6, 0, 0, tzinfo=lima),
        datetime(2024, 3, 5, 12, 0, tzinfo=UTC),
    ]
    with RecallStore() as store:
        store.extend(page(n, f"page {n}", time=time) for n, time in enumerate(times))

        def days(start: str, end: str, number: int = 0, size: int = 10) -> list[int | None]:
            return [hit.page_id for hit in store.search_date(start, end, number, size).hits]

        assert days("2024-03-05", "2024-03-05") == [0, 4, 1]
        assert days("2024-03-04", "2024-03-06") == [2, 0, 4, 1, 3]
        assert days("2024-03-04", "2024-03-06", 1, 2) == [4, 1]
        assert store.search_date("2024-03-04", "2024-03-06", 1, 2).total == 5
        assert days("0001-01-01", "9999-12-31") == [2, 0, 4, 1, 3]
        assert days("2024-03-07", "2024-04-01") == []
        [hit, *_] = store.search_date("2024-03-05", "2024-03-05").hits
        assert (hit.time, hit.time.utcoffset(), hit.score) == (times[0], timedelta(hours=9), None)


@pytest.mark.parametrize(
    "text", ["", "yesterday", "2024-13-01", "2024-02-30", "20240305", "2024-03-05T10:00", "5.3.24"]
)
def test_a_date_that_does_not_parse_is_refused(text: str, store: RecallStore) -> None:
    with pytest.raises(SearchError, match="as YYYY-MM-DD"):
        store.search_date(text, "2024-03-05")
    with pytest.raises(SearchError, match="as YYYY-MM-DD"):
        store.search_date("2024-03-05", text)


def test_dates_in_the_wrong_order_are_refused(store: RecallStore) -> None:
    with pytest.raises(SearchError, match="is after end_date"):
        store.search_date("2024-03-06", "2024-03-05")


@given(
    st.datetimes(timezones=st.timezones())
    | st.datetimes(timezones=st.timedeltas(timedelta(hours=-23), timedelta(hours=23)).map(timezone))
)
@settings(max_examples=100, deadline=None)
def test_times_come_back(time: datetime) -> None:
    with RecallStore() as store:
        store.append(page(0, "", time=time))
        [again] = store.get([0])
        assert again.time == time.replace(tzinfo=timezone(time.utcoffset() or timedelta(0)))
        assert again.time.utcoffset() == time.utcoffset()
        day = f"{time.year:04}-{time.month:02}-{time.day:02}"
        assert store.search_date(day, day).total == 1


def test_recall_is_append_only(store: RecallStore) -> None:
    with pytest.raises(ValueError, match="Page 3 has been seen before"):
        store.extend([page(70, "new"), page(3, "other")])
    with pytest.raises(ValueError, match="no time zone"):
        store.append(page(71, "new", time=datetime(2024, 1, 1)))
    for number, tokens in ((-1, 1), (2**53, 1), (0, -1)):
        with pytest.raises(ValueError, match="from 0 to"):
            store.append(page(number, "new", page_tokens=tokens))
    assert len(store) == len(TEXTS)
    assert store.search("new").total == 1  # "the new job"
    for missing in (70, -1, 2**53):
        with pytest.raises(KeyError):
            store.get([0, missing])
        with pytest.raises(KeyError):
            store.scores("kitten", [missing])
    assert [row.page_id for row in store.get([2, 0, 2])] == [2, 0, 2]


def test_ten_megabytes(tmp_path: Path) -> None:
    text = "needle " + "kitten and dogs \0 " * (10_000_000 // 18)
    with RecallStore(tmp_path / "recall.db") as store:
        store.append(page(1, text))
        store.append(page(2, "needle"))
        assert store.get([1])[0].text == text
        assert found(store, "needle") == [2, 1]
        assert found(store, "kitten") == [1]


def test_a_store_belongs_to_one_thread(store: RecallStore) -> None:
    errors = []

    def search() -> None:
        try:
            store.search("kitten")
        except Exception as error:
            errors.append(str(error))

    thread = threading.Thread(target=search)
    thread.start()
    thread.join()
    assert len(errors) == 1
    assert "thread" in errors[0]
