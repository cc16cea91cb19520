from __future__ import annotations

from collections import Counter
from typing import Any

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from envs.workloads.episodes import sample_episodes
from memrl.documents import Document, Episode, Page, Query


def document(num_pages: int, *needs: tuple[int, ...], name: str = "d") -> Document:
    pages = tuple(Page(f"page {index}") for index in range(num_pages))
    return Document(name, pages, tuple(Query("?", need) for need in needs))


def sample(*documents: Document, seed: int = 0, **options: Any) -> tuple[Episode, ...]:
    defaults: dict[str, Any] = {
        "window_pages": 10,
        "max_queries": 5,
        "ask": "interleaved",
        "episodes_per_document": 50,
    }
    return sample_episodes(documents, rng=np.random.default_rng(seed), **(defaults | options))


@st.composite
def documents(draw: st.DrawFn) -> Document:
    num_pages = draw(st.integers(1, 30))
    index = st.integers(0, num_pages - 1)
    queries = draw(
        st.lists(
            st.builds(
                lambda needs, answerable: Query("?", tuple(sorted(needs)), answerable=answerable),
                st.sets(index, max_size=4),
                st.booleans(),
            ),
            max_size=8,
        )
    )
    return Document("d", tuple(Page(str(i)) for i in range(num_pages)), tuple(queries))


@settings(deadline=None, max_examples=200)
@given(
    document=documents(),
    window_pages=st.integers(1, 40),
    max_queries=st.integers(1, 6),
    ask=st.sampled_from(["interleaved", "end"]),
    include_unanswerable=st.booleans(),
    seed=st.integers(0, 2**32),
)
def test_episodes_hold_what_is_promised(
    document: Document,
    window_pages: int,
    max_queries: int,
    ask: str,
    include_unanswerable: bool,
    seed: int,
) -> None:
    options: dict[str, Any] = {"window_pages": window_pages, "max_queries": max_queries}
    options |= {"ask": ask, "include_unanswerable": include_unanswerable}
    window = min(window_pages, len(document.pages))

    def eligible(start: int) -> set[int]:
        inside = set(range(start, start + window))
        return {
            number
            for number, query in enumerate(document.queries)
            if (query.pays_evidence or include_unanswerable) and inside.issuperset(query.needs)
        }

    if not any(eligible(start) for start in range(len(document.pages) - window + 1)):
        with pytest.raises(ValueError, match="has a query that can be asked"):
            sample(document, seed=seed, **options)
        return
    episodes = sample(document, seed=seed, episodes_per_document=4, **options)
    assert len(episodes) == 4
    for episode in episodes:
        assert (episode.document, episode.num_pages) == (0, window)
        assert 0 <= episode.first_page <= len(document.pages) - window
        possible = eligible(episode.first_page)
        asked = [number for _, number in episode.queries]
        assert len(asked) == len(set(asked)) == min(max_queries, len(possible)) >= 1
        assert possible.issuperset(asked)
        times = [num_arrived for num_arrived, _ in episode.queries]
        assert times == sorted(times)
        for num_arrived, number in episode.queries:
            needs = document.queries[number].needs
            last = needs[-1] - episode.first_page if needs else 0
            assert last + 1 <= num_arrived <= window
            if ask == "end":
                assert num_arrived == window


def test_ask_times_are_uniform_after_the_last_need() -> None:
    episodes = sample(document(10, (2, 6)), episodes_per_document=3000)
    times = Counter(num_arrived for episode in episodes for num_arrived, _ in episode.queries)
    assert sorted(times) == [7, 8, 9, 10]
    # Binomial(3000, 1/4): mean 750, standard deviation 23.7.
    assert all(abs(count - 750) < 5 * 23.7 for count in times.values())


def test_starts_are_uniform_among_useful_windows() -> None:
    # Window 4 of 12: page 5 lies in windows that start at 2, 3, 4, 5.
    episodes = sample(document(12, (5,)), window_pages=4, episodes_per_document=3000)
    starts = Counter(episode.first_page for episode in episodes)
    assert sorted(starts) == [2, 3, 4, 5]
    assert all(abs(count - 750) < 5 * 23.7 for count in starts.values())


def test_queries_are_drawn_uniformly() -> None:
    episodes = sample(
        document(5, *[(0,)] * 6), window_pages=5, max_queries=2, episodes_per_document=1500
    )
    drawn = Counter(number for episode in episodes for _, number in episode.queries)
    # Binomial(1500, 1/3): mean 500, standard deviation 18.3.
    assert len(drawn) == 6
    assert all(abs(count - 500) < 5 * 18.3 for count in drawn.values())


def test_ties_stay_in_drawn_order() -> None:
    episodes = sample(document(5, *[(0,)] * 4), ask="end", window_pages=5)
    orders = {tuple(number for _, number in episode.queries) for episode in episodes}
    # Sorting ties by query would leave one order only.
    assert len(orders) > 10


def test_a_short_document_is_one_window() -> None:
    episodes = sample(document(3, (0, 2)), window_pages=10, episodes_per_document=2)
    assert [(episode.first_page, episode.num_pages) for episode in episodes] == [(0, 3), (0, 3)]
    assert all(episode.queries == ((3, 0),) for episode in episodes)


def test_unanswerable_queries_only_by_option() -> None:
    asked = Document(
        "d",
        tuple(Page(str(index)) for index in range(4)),
        (
            Query("paid", (1,)),
            Query("without evidence", ()),
            Query("trap", (2,), answerable=False),
            Query("trap without evidence", (), answerable=False),
        ),
    )
    without = sample(asked, window_pages=4)
    assert {number for episode in without for _, number in episode.queries} == {0}
    included = sample(asked, window_pages=4, include_unanswerable=True)
    assert {number for episode in included for _, number in episode.queries} == {0, 1, 2, 3}
    earliest = {number: 9 for number in range(4)}
    for episode in included:
        for num_arrived, number in episode.queries:
            earliest[number] = min(earliest[number], num_arrived)
    assert earliest == {0: 2, 1: 1, 2: 3, 3: 1}


def test_same_seed_same_episodes_and_appending_a_document_changes_none() -> None:
    first, second = document(30, *[(i,) for i in range(30)]), document(20, (3,), (4, 9))
    alone = sample(first, seed=3)
    assert alone == sample(first, seed=3)
    assert alone != sample(first, seed=4)
    both = sample(first, second, seed=3)
    assert both[: len(alone)] == alone
    assert {episode.document for episode in both[len(alone) :]} == {1}


def test_a_second_call_with_the_same_generator_draws_anew() -> None:
    rng = np.random.default_rng(0)
    shared: dict[str, Any] = {"window_pages": 5, "max_queries": 2, "ask": "interleaved"}
    asked = [document(30, *[(i,) for i in range(30)])]
    one = sample_episodes(asked, episodes_per_document=5, rng=rng, **shared)
    two = sample_episodes(asked, episodes_per_document=5, rng=rng, **shared)
    assert one != two


def test_documents_without_an_eligible_query_are_skipped_with_a_warning() -> None:
    far = document(30, (0, 29), name="far apart")
    empty = Document("empty", (), ())
    near = document(30, (4,), name="near")
    with pytest.warns(UserWarning, match=r"2 of 3 documents.*far apart, empty"):
        episodes = sample(far, empty, near)
    assert {episode.document for episode in episodes} == {2}


def test_no_eligible_query_at_all() -> None:
    with pytest.raises(ValueError, match=r"None of the 1 documents .* widen window_pages"):
        sample(document(30, (0, 29)))
    with pytest.raises(ValueError, match="None of the 0 documents"):
        sample()


@pytest.mark.parametrize("name", ["window_pages", "max_queries", "episodes_per_document"])
def test_counts_below_one(name: str) -> None:
    with pytest.raises(ValueError, match=f"{name} is 0 but must be at least 1"):
        sample(document(3, (0,)), **{name: 0})


def test_unknown_ask() -> None:
    with pytest.raises(ValueError, match="ask is 'later' but must be one of interleaved, end"):
        sample(document(3, (0,)), ask="later")


@pytest.mark.usefixtures("poison_global_rng")
def test_no_global_random_state() -> None:
    sample(document(30, (4,)))
