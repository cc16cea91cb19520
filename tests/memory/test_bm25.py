from __future__ import annotations

import json
import math
from collections import Counter

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from memrl.memory.bm25 import K1, B, Bm25Statistics, analyze, bm25_scores

PAGES = [
    "Ana: I adopted a grey kitten last week, she sleeps on my keyboard.",
    "Ben: Kittens! My sister adopted two dogs in spring.",
    "Ana: The dogs of my neighbour bark at the kitten every morning.",
    "Ben: I moved to Lisbon for the new job at the aquarium.",
    "Ana: Lisbon is lovely in spring, the tram 28 goes past the aquarium.",
    "",
    "It was what it was.",
]


def reference_score(query: str, page: str, stats: Bm25Statistics) -> float:
    """BM25 with the query's upper bound, written as one reads it in a textbook."""
    terms, counts = set(analyze(query)), Counter(analyze(page))
    length = sum(counts.values())
    total = bound = 0.0
    for term in terms:
        df = stats.document_frequencies.get(term, 0)
        idf = math.log(1 + (stats.num_documents - df + 0.5) / (df + 0.5))
        norm = 1 - B + B * length / stats.mean_length_terms
        total += idf * (K1 + 1) * counts[term] / (counts[term] + K1 * norm)
        bound += idf * (K1 + 1)
    return total / bound if bound else 0.0


def test_analyze() -> None:
    assert analyze("Where did Melanie's kittens sleep?") == ["melani", "kitten", "sleep"]
    assert analyze("adopting ADOPTED adopts") == ["adopt"] * 3
    assert analyze("tram_28, at 7:30") == ["tram", "28", "7", "30"]
    # Identifiers keep their parts, even those that look like English endings.
    assert analyze("9f4a92b9-5f69-4725-ba1e-403f08dea6ed")[-1] == "403f08dea6ed"
    assert analyze("Café 你好 привет") == ["café", "你好", "привет"]
    assert analyze("it was what it was?!") == []


def test_hand_computed_score() -> None:
    # 3 texts, mean length 2; apple in 2 of them, cherry in 1.
    stats = Bm25Statistics.fit(["apple banana", "apple apple cherry", "date"])
    assert (stats.num_documents, stats.mean_length_terms) == (3, 2.0)
    assert stats.idf("appl") == pytest.approx(math.log(1.6))
    assert stats.idf("cherri") == pytest.approx(math.log(8 / 3))
    assert stats.idf("never seen") == pytest.approx(math.log(8))
    # 1.2 * (.25 + .75 * 3 / 2) = 1.65; (ln 1.6 * 2 / 3.65 + ln 8/3 * 1 / 2.65) / ln(1.6 * 8/3)
    scores = bm25_scores(["apple cherry"], ["apple apple cherry", "date"], stats)
    assert scores.dtype == np.float32
    assert scores[0] == pytest.approx([0.432620, 0.0], abs=1e-6)


def test_frequent_terms_never_count_against_a_page() -> None:
    stats = Bm25Statistics.fit(["kitten"] * 9 + ["dog"])
    assert 0 < stats.idf("kitten") < stats.idf("dog")


def test_equals_a_dictionary_loop() -> None:
    stats = Bm25Statistics.fit(PAGES)
    queries = [*PAGES, "Who adopted a kitten in spring?", "zebra kitten", "zebra"]
    scores = bm25_scores(queries, PAGES, stats)
    expected = [[reference_score(query, page, stats) for page in PAGES] for query in queries]
    assert scores.shape == (10, 7)
    np.testing.assert_allclose(scores, expected, rtol=1e-6)


def test_ranking_equals_bm25s() -> None:
    bm25s = pytest.importorskip("bm25s", reason="bm25s gives the second opinion")
    rng = np.random.default_rng(3)
    words = [f"word{i}" for i in range(40)]
    pages = [" ".join(rng.choice(words, size=rng.integers(1, 30))) for _ in range(60)]
    queries = [" ".join(rng.choice(words, size=4, replace=False)) for _ in range(25)]
    stats = Bm25Statistics.fit(pages)
    engine = bm25s.BM25(method="lucene", k1=K1, b=B)
    engine.index([analyze(page) for page in pages], show_progress=False)
    ours = bm25_scores(queries, pages, stats)
    for query, row in zip(queries, ours, strict=True):
        theirs = engine.get_scores(analyze(query))
        bound = sum(stats.idf(term) for term in set(analyze(query)))
        np.testing.assert_allclose(row * bound, theirs, rtol=1e-5, atol=1e-6)


def test_a_page_that_repeats_all_terms_approaches_one() -> None:
    stats = Bm25Statistics.fit([" ".join(PAGES)])
    once, often = bm25_scores(
        ["kitten aquarium"], ["kitten aquarium", "kitten aquarium " * 20], stats
    )[0]
    assert 0.5 < once < often < 1.0
    assert often > 0.9


def test_repeating_a_query_term_changes_nothing() -> None:
    stats = Bm25Statistics.fit(PAGES)
    scores = bm25_scores(["kitten spring", "spring kitten kittens KITTEN spring"], PAGES, stats)
    np.testing.assert_array_equal(scores[0], scores[1])


def test_queries_and_pages_without_terms_score_zero() -> None:
    stats = Bm25Statistics.fit(PAGES)
    assert not bm25_scores(["", "what was it?", "…"], PAGES, stats).any()
    assert not bm25_scores(["kitten"], ["", "it was"], stats).any()
    assert bm25_scores([], PAGES, stats).shape == (0, 7)
    assert bm25_scores(["kitten"], [], stats).shape == (1, 0)


def test_a_term_never_seen_in_fitting_counts_as_the_rarest() -> None:
    stats = Bm25Statistics.fit(PAGES)
    rare, common = bm25_scores(["zeppelin kitten"], ["zeppelin", "kitten"], stats)[0]
    assert rare > common > 0


def test_a_growing_collection_keeps_its_scores() -> None:
    stats = Bm25Statistics.fit(PAGES[:4])
    whole = bm25_scores(PAGES, PAGES, stats)
    for row, query in enumerate(PAGES):
        for size in range(1, len(PAGES) + 1):
            np.testing.assert_array_equal(
                bm25_scores([query], PAGES[:size], stats)[0], whole[row, :size]
            )


@settings(max_examples=60, deadline=None)
@given(st.lists(st.text(max_size=30), max_size=4), st.lists(st.text(max_size=30), max_size=4))
def test_any_text_is_scored_in_the_unit_interval(queries: list[str], pages: list[str]) -> None:
    scores = bm25_scores(queries, pages, Bm25Statistics.fit(["kitten"]))
    assert scores.shape == (len(queries), len(pages))
    assert ((scores >= 0) & (scores < 1)).all()


def test_statistics_survive_json() -> None:
    stats = Bm25Statistics.fit(PAGES)
    again = Bm25Statistics.from_dict(json.loads(json.dumps(stats.to_dict())))
    assert again == stats
    np.testing.assert_array_equal(
        bm25_scores(PAGES, PAGES, again), bm25_scores(PAGES, PAGES, stats)
    )


def test_bad_statistics_are_refused() -> None:
    record = Bm25Statistics.fit(PAGES).to_dict()
    with pytest.raises(ValueError, match="fitted with analyzer 'other'"):
        Bm25Statistics.from_dict(record | {"analyzer": "other"})
    with pytest.raises(ValueError, match=r"incomplete.*num_documents"):
        Bm25Statistics.from_dict({key: record[key] for key in record if key != "num_documents"})
    with pytest.raises(ValueError, match="of no use"):
        Bm25Statistics.from_dict(record | {"mean_length_terms": 0.0})
    for texts in ([], ["", "it was"]):
        with pytest.raises(ValueError, match=f"none of the {len(texts)} texts"):
            Bm25Statistics.fit(texts)
