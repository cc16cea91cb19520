"""Shards of a table: together they are the table, and each is small enough."""

from __future__ import annotations

import dataclasses
from collections.abc import Sequence
from typing import Any

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from table_fixtures import small_table

from envs.part_tensors import bytes_of_parts
from memrl.device_memory import DeviceMemoryError
from memrl.table import EpisodeTable, focus_score_base
from memrl.table_shards import PartSizes, TableShards, part_sizes, split_table, table_part


def made(seed: int, *, documents: int = 5, episodes: int = 12, sort: bool = False) -> EpisodeTable:
    """A table; `sort` puts its episodes into the order of their documents, as workloads do."""
    table = small_table(
        seed,
        num_documents=documents,
        num_pages=7,
        num_episodes=episodes,
        num_queries=4,
        most_preloaded=2,
        longest_route=2,
    )
    if not sort:
        return table
    order = np.argsort(table.episode_document, kind="stable")
    rows: dict[str, Any] = {
        name: array[order]
        for name, array in table.arrays().items()
        if name.startswith(("episode_", "event_"))
    }
    return dataclasses.replace(table, **rows)


def assert_same_episode(whole: EpisodeTable, episode: int, part: EpisodeTable, own: int) -> None:
    """Everything that can be asked about an episode is the same in both tables."""
    here, there = (int(t.episode_document[e]) for t, e in ((whole, episode), (part, own)))
    for name, array in whole.arrays().items():
        other = part.arrays()[name]
        assert other.dtype == array.dtype, name
        if name.startswith(("episode_", "event_")) and name != "episode_document":
            assert np.array_equal(array[episode], other[own]), name
        rows = [
            slice(int(getattr(t, f"{axis}_offset")[d]), int(getattr(t, f"{axis}_offset")[d + 1]))
            for axis in ("page", "query")
            if name.startswith(axis) and len(array) == int(getattr(whole, f"{axis}_offset")[-1])
            for t, d in ((whole, here), (part, there))
        ]
        if rows:
            assert np.array_equal(array[rows[0]], other[rows[1]]), name
    num_pages = int(np.diff(whole.page_offset)[here])
    assert num_pages == int(np.diff(part.page_offset)[there])
    for query in range(int(np.diff(whole.query_offset)[here])):
        assert_same_scores(whole, here, part, there, num_pages, query=query)
    for page in range(num_pages):
        assert_same_scores(whole, here, part, there, num_pages, page=page)
    assert whole.episode_pages(episode).stop - whole.episode_pages(episode).start == (
        part.episode_pages(own).stop - part.episode_pages(own).start
    )
    for names, offset in (("pages", "page"), ("page_ids", "page"), ("queries", "query")):
        texts = [
            getattr(t.text, names)[
                int(getattr(t, f"{offset}_offset")[d]) : int(getattr(t, f"{offset}_offset")[d + 1])
            ]
            for t, d in ((whole, here), (part, there))
        ]
        assert texts[0] == texts[1], names
    assert whole.text.document_ids[here] == part.text.document_ids[there]
    assert whole.text.categories == part.text.categories
    assert whole.meta == part.meta


def assert_same_scores(
    whole: EpisodeTable, here: int, part: EpisodeTable, there: int, num_pages: int, **focus: int
) -> None:
    for name in ("dense", "lexical"):
        rows = []
        for table, document in ((whole, here), (part, there)):
            base = focus_score_base(table, document, **focus)
            rows.append(table.arrays()[name][base : base + num_pages])
        assert len(rows[0]) == num_pages
        assert np.array_equal(rows[0], rows[1]), (name, focus)


@given(seed=st.integers(0, 5), share=st.floats(0.15, 1.1), sort=st.booleans())
@settings(max_examples=40)
def test_the_shards_together_are_the_table(seed: int, share: float, sort: bool) -> None:
    table = made(seed, sort=sort)
    num_bytes = bytes_of_parts(table)
    least = max(
        num_bytes(part_sizes(table_part(table, np.array([episode])))) for episode in range(12)
    )
    limit = max(int(share * num_bytes(part_sizes(table))), least)
    shards = split_table(table, limit, num_bytes)
    assert sorted(np.concatenate(shards.episodes).tolist()) == list(range(12))
    assert sum(shards.sizes) == 12
    assert (len(shards) == 1) == (num_bytes(part_sizes(table)) <= limit)
    for shard in range(len(shards)):
        part = shards.part(shard)
        assert num_bytes(part_sizes(part)) <= limit
        assert part.num_episodes == shards.sizes[shard]
        for own, episode in enumerate(shards.episodes[shard].tolist()):
            assert (shards.shard_of[episode], shards.place_of[episode]) == (shard, own)
            assert_same_episode(table, episode, part, own)


def test_one_shard_is_the_table_itself() -> None:
    table = made(0)
    shards = split_table(table, 10**9, bytes_of_parts(table))
    assert len(shards) == 1
    assert shards.part(0) is table
    assert shards.shard_of.tolist() == [0] * 12
    assert shards.place_of.tolist() == list(range(12))


def split_by_episodes(table: EpisodeTable, most: int) -> TableShards:
    """As if every episode took one byte and nothing else any."""
    return split_table(table, most, lambda sizes: sizes.episodes)


def documents_of(shards: TableShards) -> list[list[int]]:
    return [
        sorted(set(shards.table.episode_document[numbers].tolist())) for numbers in shards.episodes
    ]


def by_document(counts: Sequence[int]) -> EpisodeTable:
    """A table with so many episodes of each document."""
    table = made(3, documents=len(counts))
    documents = np.repeat(np.arange(len(counts)), counts)
    numbers = [int(np.flatnonzero(table.episode_document == d)[0]) for d in documents]
    rows: dict[str, Any] = {
        name: array[numbers]
        for name, array in table.arrays().items()
        if name.startswith(("episode_", "event_"))
    }
    return dataclasses.replace(table, **rows)


def test_a_document_is_divided_only_where_it_alone_is_too_large() -> None:
    shards = split_by_episodes(by_document([3, 3, 3]), 4)
    assert documents_of(shards) == [[0], [1], [2]]
    shards = split_by_episodes(by_document([1, 7, 1]), 4)
    assert documents_of(shards) == [[0], [1], [1, 2]], "what is left of it shares a shard"
    assert shards.sizes == [1, 4, 4]


def test_shards_are_even() -> None:
    shards = split_by_episodes(by_document([1] * 4), 3)
    assert shards.sizes == [2, 2], "and not 3 and 1"
    assert split_by_episodes(by_document([2] * 4), 7).sizes == [4, 4], "and not 6 and 2"


def test_what_is_too_large_in_itself_is_refused_with_the_number_that_would_do() -> None:
    table = made(0)
    num_bytes = bytes_of_parts(table)
    with pytest.raises(DeviceMemoryError, match=r"a shard may have 100: set shard_bytes to") as why:
        split_table(table, 100, num_bytes)
    least = int(str(why.value).rpartition("to ")[2].partition(" ")[0].replace(",", ""))
    shards = split_table(table, least, num_bytes)
    assert len(shards) > 1
    with pytest.raises(DeviceMemoryError):
        split_table(table, least - 1, num_bytes)


def test_sizes_of_a_table() -> None:
    table = made(1)
    assert part_sizes(table) == PartSizes(
        documents=5,
        pages=len(table.page_tokens),
        queries=len(table.query_pays),
        scores=len(table.dense),
        episodes=12,
        most_queries=part_sizes(table).most_queries,
    )
    asked = [
        sum(
            bool(table.query_pays[table.query_offset[table.episode_document[e]] + index])
            for kind, index in zip(table.event_kind[e], table.event_index[e], strict=True)
            if kind == 1
        )
        for e in range(12)
    ]
    assert part_sizes(table).most_queries == max(asked) > 0


def test_a_part_of_a_sorted_table_is_made_of_views() -> None:
    table = made(2, sort=True)
    part = table_part(table, np.arange(3, 9))
    for name, array in part.arrays().items():
        if name not in (
            *("page_offset", "query_offset", "page_score_base", "query_score_base"),
            "episode_document",
        ):
            assert np.shares_memory(array, table.arrays()[name]), name


def test_blocks_of_scores_may_be_arranged_in_any_way() -> None:
    """All blocks of queries first, say: more is taken along than is needed, and all of it is."""
    table = made(4, sort=True)
    num_pages, num_queries = np.diff(table.page_offset), np.diff(table.query_offset)
    of_queries = num_queries * num_pages
    query_base = np.cumsum(of_queries) - of_queries
    page_base = of_queries.sum() + np.cumsum(num_pages**2) - num_pages**2
    dense, lexical = np.empty_like(table.dense), np.empty_like(table.lexical)
    for document in range(table.num_documents):
        for old, new, length in (
            (table.query_score_base, query_base, of_queries[document]),
            (table.page_score_base, page_base, num_pages[document] ** 2),
        ):
            to = slice(new[document], new[document] + length)
            source = slice(old[document], old[document] + length)
            dense[to], lexical[to] = table.dense[source], table.lexical[source]
    other = dataclasses.replace(
        table, dense=dense, lexical=lexical, query_score_base=query_base, page_score_base=page_base
    )
    part = table_part(other, np.arange(4, 8))
    for own, episode in enumerate(range(4, 8)):
        assert_same_episode(table, episode, part, own)


def test_a_table_without_scores_can_be_divided() -> None:
    table = made(0, sort=True)
    none = np.zeros(0, dtype=np.int16)
    bases = np.zeros(5, dtype=np.int64)
    empty = dataclasses.replace(
        table, dense=none, lexical=none, page_score_base=bases, query_score_base=bases
    )
    part = table_part(empty, np.arange(6, 12))
    assert len(part.dense) == 0
    assert part_sizes(empty).scores == part_sizes(part).scores == 0
