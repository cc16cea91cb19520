"""Documents that ask about the same pages: held once in a table, and otherwise like any other."""

from __future__ import annotations

import dataclasses
from pathlib import Path

import numpy as np
import pytest
import torch
from table_fixtures import RefusingEmbedder, made_up_document, random_action

from envs.lockstep import LockstepPaging
from memrl.documents import Document, Episode
from memrl.memory.embedders import HashingEmbedder
from memrl.options import PagingOptions
from memrl.table import EpisodeTable, focus_score_base
from memrl.table_build import build_table, cached_table, fit_lexical_statistics, page_blocks

NUM_PAGES = 9
EMBEDDER = HashingEmbedder(16)


def copies(documents: list[Document]) -> list[Document]:
    """The same documents, each with a tuple of pages of its own."""
    return [dataclasses.replace(doc, pages=tuple(list(doc.pages))) for doc in documents]


def some_documents() -> list[Document]:
    """Two, four and again two queries about the same pages; another document stands in between."""
    rng = np.random.default_rng(5)
    corpus, other = (made_up_document(rng, name, NUM_PAGES) for name in ("corpus", "other"))
    parts = [slice(0, 2), slice(2, 6), slice(6, 8)]
    first, second, third = (
        dataclasses.replace(corpus, document_id=f"part{n}", queries=corpus.queries[part])
        for n, part in enumerate(parts)
    )
    return [first, other, second, third]


def preloaded(documents: list[Document]) -> list[Episode]:
    queries = [tuple((NUM_PAGES, n) for n in range(len(doc.queries))) for doc in documents]
    return [Episode(n, 0, NUM_PAGES, asked, 6) for n, asked in enumerate(queries)]


def made(documents: list[Document]) -> EpisodeTable:
    statistics = fit_lexical_statistics(documents)
    return build_table(documents, preloaded(documents), EMBEDDER, statistics, name="shared")


def test_pages_and_their_scores_are_held_once() -> None:
    documents = some_documents()
    table = made(documents)
    assert table.shares_pages
    assert not made(copies(documents)).shares_pages
    assert len(table.page_tokens) == len(table.text.pages) == 2 * NUM_PAGES
    assert table.page_offset.tolist() == [0, NUM_PAGES, 0, 0]
    assert table.page_count.tolist() == [NUM_PAGES] * 4
    num_queries = 8 + len(documents[1].queries)
    assert len(table.dense) == 2 * NUM_PAGES**2 + num_queries * NUM_PAGES
    # After the pages' own scores, the queries of all documents that share them follow in order.
    begin = NUM_PAGES**2
    own = begin + 8 * NUM_PAGES + NUM_PAGES**2
    assert table.page_score_base.tolist() == [0, own - NUM_PAGES**2, 0, 0]
    assert table.query_score_base.tolist() == [
        *(begin, own, begin + 2 * NUM_PAGES, begin + 6 * NUM_PAGES)
    ]


def test_idf_counts_shared_pages_once() -> None:
    documents = some_documents()
    assert fit_lexical_statistics(documents).num_documents == 2 * NUM_PAGES
    assert fit_lexical_statistics(copies(documents)).num_documents == 4 * NUM_PAGES


def test_other_speakers_make_other_pages() -> None:
    first = some_documents()[0]
    documents = [first, dataclasses.replace(first, speakers=("Bob",)), first]
    blocks, block_of = page_blocks(documents)
    assert blocks == documents[:2]
    assert block_of == [0, 1, 0]


@pytest.mark.parametrize("chosen", [[0, 1, 2, 3], [2, 0], [3], [1]])
def test_a_part_plays_as_a_table_of_these_documents_alone(chosen: list[int]) -> None:
    """Observations, rewards and truth are those of documents that share nothing."""
    documents = some_documents()
    statistics = fit_lexical_statistics(documents)
    part = made(documents).of_documents(chosen)
    alone = copies([documents[number] for number in chosen])
    table = build_table(alone, preloaded(alone), EMBEDDER, statistics, name="alone")
    assert part.text.document_ids == table.text.document_ids
    assert part.text.queries == table.text.queries
    # Episodes of a part keep the order of the whole.
    episodes = [part.episode_document.tolist().index(n) for n in range(len(chosen))]
    for number, query in ((n, q) for n, doc in enumerate(alone) for q in range(len(doc.queries))):
        expected = table.needs_in_window(number, query)
        assert part.needs_in_window(episodes[number], query) == expected
    options = PagingOptions(capacity=3, archival_capacity=NUM_PAGES, num_candidates=2)
    groups = [LockstepPaging(each, options, len(chosen)) for each in (part, table)]
    observations = [groups[0].reset(episodes), groups[1].reset(range(len(chosen)))]
    rng, running = np.random.default_rng(0), np.ones(len(chosen), dtype=bool)
    while running.any():
        for name, value in observations[0].items():
            assert torch.equal(value, observations[1][name]), name
        masks = observations[0]["action_mask"].numpy()
        actions = np.array([random_action(mask, rng) for mask in masks])
        results = [group.step(actions) for group in groups]
        assert np.array_equal(results[0].reward_terms, results[1].reward_terms)
        assert np.array_equal(results[0].terminated, results[1].terminated)
        observations = [result.observation for result in results]
        running &= ~results[0].terminated
    for row in range(len(chosen)):
        one, two = groups[0].log(row), groups[1].log(row)
        assert one.operations == two.operations
        assert [answer.evidence for answer in one.answers] == [a.evidence for a in two.answers]


def test_a_part_holds_its_own_queries_and_shares_the_scores() -> None:
    table = made(some_documents())
    part = table.of_documents([3, 0])
    assert part.dense is table.dense
    assert part.num_documents == part.num_episodes == 2
    assert part.episode_document.tolist() == [1, 0], "episodes keep their order"
    assert part.query_offset.tolist() == [0, 2, 4]
    assert part.text.queries == [*table.text.queries[-2:], *table.text.queries[:2]]
    assert focus_score_base(part, 1, query=1) == focus_score_base(table, 0, query=1)
    assert part.content_hash() != table.content_hash()


def test_a_cached_table_knows_who_shares(tmp_path: Path) -> None:
    documents, embedder = some_documents(), RefusingEmbedder()
    statistics = fit_lexical_statistics(documents)

    def cached(documents: list[Document]) -> EpisodeTable:
        episodes = preloaded(documents)
        return cached_table(tmp_path, documents, episodes, embedder, statistics, name="shared")

    first = cached(documents)
    assert cached(documents).content_hash() == first.content_hash()
    assert embedder.calls == 1
    assert not cached(copies(documents)).shares_pages
    assert embedder.calls == 2
