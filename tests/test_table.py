"""What a table holds, against documents small enough to work out by hand; and what it refuses."""

from __future__ import annotations

import dataclasses
from typing import Any

import numpy as np
import pytest
from table_fixtures import made_up_document, small_table, table_of

from memrl.documents import Document, Episode, Page, PageKind, Query
from memrl.memory.bm25 import bm25_scores
from memrl.memory.embedders import HashingEmbedder
from memrl.memory.tokens import count_tokens
from memrl.table import (
    QUERY_SURFACE,
    SURFACE,
    TABLE_VERSION,
    EpisodeTable,
    Event,
    focus_score_base,
)
from memrl.table_build import build_table, fit_lexical_statistics

KITCHEN = Document(
    "kitchen",
    (
        Page("I baked 12 apple pies for Bob", "Ann", 0, source_id="k0"),
        Page("ann, really? All 12?", "Bob", 1, PageKind.CAPTIONED_IMAGE, source_id="k1"),
        Page("Yes and Annabel helped", "Ann", 0, source_id="k2"),
        Page("", "Dora", 2, source_id="k3"),
    ),
    (
        Query("Who helped Ann?", (2,), "single", ("Annabel",), source_id="kq0"),
        Query("How many pies, Bob?", (0, 1), "multi", ("12", "twelve"), source_id="kq1"),
        Query("When did Cleo call?", (), "adversarial", (), False, source_id="kq2"),
        Query("What of the last page?", (3,), "multi", (), False),
    ),
    ("Ann", "Bob"),
)
GARDEN = Document(
    "garden",
    tuple(Page(f"Row {i} holds beans", "Bob", 0, source_id=f"g{i}") for i in range(5)),
    (Query("Where are the beans?", (1, 2, 4), "single"),),
    ("Bob",),
)
EPISODES = (
    Episode(0, 0, 4, ((0, 2), (3, 0), (3, 1), (4, 3))),
    Episode(1, 1, 4, ((4, 0),)),
    Episode(0, 0, 2, ()),
)
STATISTICS = fit_lexical_statistics([KITCHEN, GARDEN])
EMBEDDER = HashingEmbedder(32)


@pytest.fixture(scope="module")
def table() -> EpisodeTable:
    return build_table([KITCHEN, GARDEN], EPISODES, EMBEDDER, STATISTICS, name="hand")


def test_sizes_and_offsets(table: EpisodeTable) -> None:
    assert (table.num_documents, table.num_episodes, table.max_pages) == (2, 3, 4)
    assert table.page_offset.tolist() == [0, 4]
    assert table.page_count.tolist() == [4, 5]
    assert table.query_offset.tolist() == [0, 4, 5]
    assert table.episode_document.tolist() == [0, 1, 0]
    assert table.episode_first_page.tolist() == [0, 1, 0]
    assert table.episode_pages(1) == slice(5, 9)


def test_events_in_order_with_several_queries_at_one_time(table: EpisodeTable) -> None:
    def events(episode: int) -> list[tuple[Event, int]]:
        length = table.episode_num_events[episode]
        pairs = zip(table.event_kind[episode], table.event_index[episode], strict=True)
        return [(Event(kind), int(index)) for kind, index in pairs][:length]

    page, query = Event.MESSAGE, Event.QUERY
    first = [(query, 2), (page, 0), (page, 1), (page, 2), (query, 0), (query, 1), (page, 3)]
    assert events(0) == [*first, (query, 3)]
    assert events(1) == [(page, 0), (page, 1), (page, 2), (page, 3), (query, 0)]
    assert events(2) == [(page, 0), (page, 1)]
    assert not table.event_kind[2, 2:].any()


def test_preloaded_pages_have_no_event() -> None:
    episodes = [Episode(0, 1, 3, ((2, 0), (3, 2)), 2), Episode(1, 0, 5, ((5, 0),), 5)]
    table = build_table([KITCHEN, GARDEN], episodes, EMBEDDER, STATISTICS, name="preloaded")
    assert table.episode_num_preloaded.tolist() == [2, 5]
    assert table.episode_num_events.tolist() == [3, 1]
    assert table.event_kind.tolist() == [[Event.QUERY, Event.MESSAGE, Event.QUERY], [1, 0, 0]]
    assert table.event_index.tolist() == [[0, 2, 2], [0, 0, 0]]


def test_needs(table: EpisodeTable) -> None:
    assert table.query_needs.tolist() == [
        [2, -1, -1],
        [0, 1, -1],
        [-1, -1, -1],
        [3, -1, -1],
        [1, 2, 4],
    ]
    assert table.query_pays.tolist() == [True, True, False, False, True]
    assert table.needs_in_window(0, 1) == (0, 1)
    assert table.needs_in_window(0, 2) == ()
    assert table.needs_in_window(1, 0) == (0, 1, 3), "the window begins at page 1"


def test_labels_and_ids_are_text(table: EpisodeTable) -> None:
    text = table.text
    assert text.categories == ["adversarial", "multi", "single"]
    assert table.query_category.tolist() == [2, 1, 0, 1, 2]
    assert text.answers == [["Annabel"], ["12", "twelve"], [], [], []]
    assert text.document_ids == ["kitchen", "garden"]
    assert text.page_ids == ["k0", "k1", "k2", "k3", "g0", "g1", "g2", "g3", "g4"]
    assert text.query_ids == ["kq0", "kq1", "kq2", "", ""]
    assert text.pages[0] == "Ann: I baked 12 apple pies for Bob"
    assert text.queries[4] == "Where are the beans?"


def test_tokens_are_those_of_the_rendered_page(table: EpisodeTable) -> None:
    assert table.page_tokens.tolist() == [count_tokens(text) for text in table.text.pages]
    assert (table.page_tokens >= 1).all()
    empty = table_of(["", "x"])
    nobody = Document("d", (Page(""),), (), ())
    alone = build_table([nobody], [Episode(0, 0, 1)], EMBEDDER, STATISTICS, name="empty")
    assert empty.page_tokens[0] >= 1
    assert alone.page_tokens.tolist() == [1], "a page of nothing takes a token all the same"


def test_surface_features(table: EpisodeTable) -> None:
    def row(page: int) -> dict[str, float]:
        return dict(zip(SURFACE, table.page_surface[page].tolist(), strict=True))

    first = row(0)
    assert first.pop("length") == pytest.approx(len("I baked 12 apple pies for Bob") / 400)
    assert first == pytest.approx(
        {
            "role": 0,
            "kind": 0,
            "digits": 2 / 8,
            "capitals": 1 / 8,  # Bob; the first word does not count
            "question_marks": 0,
            "similarity_to_previous": 0,
        }
    )
    second = row(1)
    assert (second["role"], second["kind"], second["question_marks"]) == (1, 1, 1)
    vectors = EMBEDDER.embed(table.text.pages[:2])
    assert second["similarity_to_previous"] == pytest.approx(float(vectors[0] @ vectors[1]))
    assert row(3)["role"] == 1, "roles past the first are one feature"
    assert row(4)["similarity_to_previous"] == 0, "no page stands before the first of a document"
    query = dict(zip(QUERY_SURFACE, table.query_surface[1].tolist(), strict=True))
    assert query["question_marks"] == 0.5
    assert query["capitals"] == pytest.approx(1 / 8)
    assert table.page_surface.min() >= -1
    assert table.page_surface.max() <= 1


def test_long_texts_saturate() -> None:
    table = table_of(["x", "A " * 300 + "123456789 ????"])
    assert table.page_surface[1, 2:6].tolist() == [1, 1, 1, 1]


def test_speakers_and_names(table: EpisodeTable) -> None:
    assert table.page_speaker.tolist() == [0, 1, 0, -1, 0, 0, 0, 0, 0], "Dora is no speaker"
    # Whole words in any case: bit 0 Ann, bit 1 Bob; Annabel is nobody.
    assert table.page_names[:4].tolist() == [0b10, 0b01, 0b00, 0b00]
    assert table.query_names.tolist() == [0b01, 0b10, 0b00, 0b00, 0b0]


@pytest.mark.parametrize("document", [0, 1])
def test_scores_are_the_quantised_scores_of_the_engines(table: EpisodeTable, document: int) -> None:
    texts = [page.rendered for page in (KITCHEN, GARDEN)[document].pages]
    queries = [query.text for query in (KITCHEN, GARDEN)[document].queries]
    vectors = EMBEDDER.embed(texts).astype(np.float64)
    for kind, foci in (("page", texts), ("query", queries)):
        dense = EMBEDDER.embed(foci).astype(np.float64) @ vectors.T
        lexical = bm25_scores(foci, texts, STATISTICS)
        for number in range(len(foci)):
            begin = focus_score_base(table, document, **{kind: number})
            row = slice(begin, begin + len(texts))
            assert np.abs(table.dense[row] - dense[number] * 32767).max() <= 0.51
            assert np.abs(table.lexical[row] - lexical[number] * 32767).max() <= 0.51
    assert table.dense.dtype == table.lexical.dtype == np.int16


def test_blocks_of_scores_fill_the_arrays(table: EpisodeTable) -> None:
    assert table.page_score_base.tolist() == [0, 4 * 4 + 4 * 4]
    assert table.query_score_base.tolist() == [16, 32 + 25]
    assert len(table.dense) == len(table.lexical) == 32 + 25 + 5
    diagonal = [table.dense[focus_score_base(table, 1, page=i) + i] for i in range(5)]
    assert diagonal == [32767] * 5


def test_a_focus_is_a_query_or_a_page(table: EpisodeTable) -> None:
    with pytest.raises(ValueError, match="both are None"):
        focus_score_base(table, 0)


def test_embeddings_are_those_of_the_embedder(table: EpisodeTable) -> None:
    expected = EMBEDDER.embed(table.text.pages).astype(np.float16)
    assert np.array_equal(table.page_embedding, expected)
    assert table.query_embedding.shape == (5, 32)


def test_medians_are_over_episodes_and_pages(table: EpisodeTable) -> None:
    tokens = table.page_tokens
    sums = sorted([tokens[0:4].sum(), tokens[5:9].sum(), tokens[0:2].sum()])
    assert table.medians() == {
        "median_episode_pages": 4.0,
        "median_episode_tokens": float(sums[1]),
        "median_page_tokens": float(np.median(tokens)),
    }


def test_provenance(table: EpisodeTable) -> None:
    meta = table.meta
    assert (meta["version"], meta["workload"], meta["embedder"]) == (
        TABLE_VERSION,
        "hand",
        EMBEDDER.name,
    )
    assert len(meta["lexical_sha256"]) == 64


def test_prior_is_replaced_in_a_copy(table: EpisodeTable) -> None:
    assert not table.page_prior.any()
    changed = table.with_prior(np.arange(9, dtype=np.float32))
    assert changed.page_prior.tolist() == list(range(9))
    assert not table.page_prior.any()
    assert changed.content_hash() != table.content_hash()
    with pytest.raises(ValueError, match=r"prior has shape \(3,\), expected \(9,\)"):
        table.with_prior(np.zeros(3, dtype=np.float32))


def test_equal_inputs_make_equal_tables() -> None:
    first, again = (
        build_table([KITCHEN, GARDEN], EPISODES, HashingEmbedder(32), STATISTICS, name="hand")
        for _ in range(2)
    )
    assert first.content_hash() == again.content_hash()


def test_content_hash_covers_every_array_and_text(table: EpisodeTable) -> None:
    hashes = {table.content_hash()}
    for name, array in table.arrays().items():
        flat = array.copy().reshape(-1)
        flat[-1] = not flat[-1] if flat.dtype == bool else flat[-1] + 1
        changed: dict[str, Any] = {name: flat.reshape(array.shape)}
        other = dataclasses.replace(table, **changed)
        hashes.add(other.content_hash())
    text = dataclasses.replace(table.text, queries=["other", *table.text.queries[1:]])
    hashes.add(dataclasses.replace(table, text=text).content_hash())
    assert len(hashes) == len(table.arrays()) + 2


# ---------------------------------------------------------------------- refusals


@pytest.mark.parametrize(
    ("episode", "message"),
    [
        (Episode(0, 1, 4), r"Episode 0 spans pages 1\.\.5 of document 'kitchen', which has 4"),
        (Episode(0, -1, 2), r"Episode 0 spans pages -1"),
        (Episode(0, 0, 0), r"Episode 0 spans pages 0\.\.0"),
        (
            Episode(0, 0, 2, ((2, 0),)),
            "asks query 0 of document 'kitchen', whose needs or route lie outside",
        ),
        (Episode(0, 0, 4, ((3, 1), (1, 0))), "not in order of time"),
        (Episode(0, 0, 4, ((5, 0),)), "queries"),
        (Episode(0, 0, 4, ((4, 9),)), "query 9"),
        (Episode(0, 0, 4, ((4, -1),)), "query -1"),
        (Episode(2, 0, 4), "document 2"),
        (Episode(-1, 0, 4), "document -1"),
        (Episode(0, 0, 4, (), 5), "Episode 0 preloads 5 pages of a window of 4"),
        (Episode(0, 0, 4, (), -1), "Episode 0 preloads -1 pages"),
        (Episode(0, 0, 4, ((2, 2),), 3), "query 2 after 2 pages, but 3 are preloaded"),
    ],
)
def test_an_episode_outside_its_document_is_refused(episode: Episode, message: str) -> None:
    with pytest.raises(ValueError, match=message):
        build_table([KITCHEN, GARDEN], [episode], EMBEDDER, STATISTICS, name="bad")


def test_no_episode_is_refused() -> None:
    with pytest.raises(ValueError, match="Workload 'empty' has no episode"):
        build_table([KITCHEN], [], EMBEDDER, STATISTICS, name="empty")


# ---------------------------------------------------------------------- the fixtures themselves


def test_made_up_documents_have_every_kind_of_query() -> None:
    rng = np.random.default_rng(0)
    queries = made_up_document(rng, "d", 60).queries
    assert any(not query.needs for query in queries)
    assert any(len(query.needs) > 1 for query in queries)
    assert any(not query.answerable for query in queries)
    table = small_table(0)
    kinds = table.event_kind[:, :-1] + table.event_kind[:, 1:]
    assert (kinds == 2 * Event.QUERY).any(), "two queries at one time"
    assert (table.event_kind[:, 0] == Event.QUERY).any(), "a query before any page"
