"""What the benchmark of approximate staging takes from a table."""

from __future__ import annotations

from dataclasses import replace

import numpy as np
import pytest
from benchmarks.approximate_tables import LOST_SCORE, approximated, index_of
from table_fixtures import shared_table, small_table

from memrl.memory.embedders import HashingEmbedder
from memrl.memory.index_options import IndexOptions
from memrl.memory.vector_index import Ids, TorchIndex, Vectors
from memrl.options import PagingOptions
from memrl.table import EpisodeTable, focus_score_base
from memrl.table_search import TableSearch

HIDDEN = 3


class BlindIndex(TorchIndex):
    """Never finds one page; what comes after it takes its place."""

    def propose(self, queries: Vectors, count: int) -> tuple[Ids, Vectors]:
        ids, products = super().propose(queries, count + 1)
        order = np.argsort(ids == HIDDEN, axis=1, kind="stable")[:, :count]
        return np.take_along_axis(ids, order, 1), np.take_along_axis(products, order, 1)


def blind(vectors: Vectors) -> BlindIndex:
    index = BlindIndex(vectors.shape[1])
    index.add(np.arange(len(vectors)), vectors)
    return index


def vectors_of(table: EpisodeTable) -> tuple[Vectors, Vectors]:
    embedder = HashingEmbedder(16)
    return embedder.embed(table.text.pages), embedder.embed(table.text.queries)


@pytest.mark.parametrize("table", [small_table(1), shared_table(1)], ids=["own", "shared"])
@pytest.mark.parametrize("depth", [3, 1_000])
def test_an_exact_index_changes_nothing(table: EpisodeTable, depth: int) -> None:
    exact = IndexOptions(kind="flat")
    made = approximated(table, *vectors_of(table), lambda some: index_of(some, exact), depth)
    assert np.array_equal(made.table.dense, table.dense)
    assert (made.query_recall, made.page_recall) == (1.0, 1.0)


def test_what_an_index_does_not_find_is_lost_where_it_was_among_the_best() -> None:
    table, depth = small_table(2), 6
    made = approximated(table, *vectors_of(table), blind, depth)
    num_lost = 0
    for document in range(table.num_documents):
        size = int(table.page_count[document])
        num_queries = int(np.diff(table.query_offset)[document])
        bases = [focus_score_base(table, document, query=q) for q in range(num_queries)]
        bases += [focus_score_base(table, document, page=p) for p in range(size)]
        for base in bases:
            before, after = (some.dense[base : base + size] for some in (table, made.table))
            changed = np.flatnonzero(before != after).tolist()
            was_among_best = before[HIDDEN] > np.sort(before)[-depth] + 1
            assert changed == ([HIDDEN] if was_among_best else [])
            assert not changed or after[HIDDEN] == LOST_SCORE
            num_lost += len(changed)
    assert num_lost > 0
    assert made.query_recall < 1.0
    assert np.array_equal(made.table.lexical, table.lexical)


def test_a_lost_page_comes_last_in_a_search() -> None:
    table = small_table(2)
    made = approximated(table, *vectors_of(table), blind, depth=8)
    episode = int(np.flatnonzero(table.episode_first_page <= HIDDEN)[0])
    hidden = HIDDEN - int(table.episode_first_page[episode])
    options = replace(PagingOptions().resolved(**table.medians()), staging="dense")
    archived = list(range(int(table.episode_num_pages[episode])))
    available = np.ones(len(archived), dtype=bool)
    places = [
        TableSearch(some, options, episode, available, page=hidden).rank(archived, []).index(hidden)
        for some in (table, made.table)
    ]
    assert places == [0, len(archived) - 1]
