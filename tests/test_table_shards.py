"""Shards of a table: together they are the table, and each is small enough."""

from __future__ import annotations

import dataclasses
from collections.abc import Callable, Sequence
from functools import partial
from typing import Any

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from table_fixtures import shared_table, small_table

from envs.part_tensors import bytes_of_parts
from memrl.device_memory import DeviceMemoryError
from memrl.table import EpisodeTable, focus_score_base
from memrl.table_part import PartSizes, part_sizes, table_part
from memrl.table_shards import TableShards, split_table


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


OF_DOCUMENTS = (
    *("page_offset", "page_count", "query_offset", "page_score_base", "query_score_base"),
    "score_stride",
)


def rows_of(table: EpisodeTable, axis: str, document: int) -> slice:
    """Where a document's pages or queries are."""
    if axis == "page":
        first = int(table.page_offset[document])
        return slice(first, first + int(table.page_count[document]))
    return slice(*table.query_offset[document : document + 2].tolist())


def assert_same_episode(whole: EpisodeTable, episode: int, part: EpisodeTable, own: int) -> None:
    """Everything that can be asked about an episode is the same in both tables."""
    here, there = (int(t.episode_document[e]) for t, e in ((whole, episode), (part, own)))
    for name, array in whole.arrays().items():
        other = part.arrays()[name]
        assert other.dtype == array.dtype, name
        if name.startswith(("episode_", "event_")) and name != "episode_document":
            assert np.array_equal(array[episode], other[own]), name
        axis = name.partition("_")[0]
        if axis in ("page", "query") and name not in OF_DOCUMENTS:
            before, after = rows_of(whole, axis, here), rows_of(part, axis, there)
            assert np.array_equal(array[before], other[after]), name
    num_pages = int(whole.page_count[here])
    assert num_pages == int(part.page_count[there])
    assert whole.score_stride[here] == part.score_stride[there]
    for query in range(int(np.diff(whole.query_offset)[here])):
        assert_same_scores(whole, here, part, there, num_pages, query=query)
    for page in range(num_pages):
        assert_same_scores(whole, here, part, there, num_pages, page=page)
    assert whole.episode_pages(episode).stop - whole.episode_pages(episode).start == (
        part.episode_pages(own).stop - part.episode_pages(own).start
    )
    for names, axis in (
        *(("pages", "page"), ("page_ids", "page")),
        *(("queries", "query"), ("answers", "query"), ("query_ids", "query")),
    ):
        texts = [
            getattr(t.text, names)[rows_of(t, axis, d)] for t, d in ((whole, here), (part, there))
        ]
        assert texts[0] == texts[1], names
    for names in ("document_ids", "clusters"):
        assert getattr(whole.text, names)[here] == getattr(part.text, names)[there]
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


def some_of_a_corpus(seed: int) -> EpisodeTable:
    """Some documents of a table, in another order; what belongs to the others is still there."""
    rng = np.random.default_rng(seed)
    whole = shared_table(seed, num_blocks=2, documents_per_block=5, num_episodes=20)
    return whole.of_documents(rng.permutation(10)[:7].tolist())


KINDS_OF_TABLE: dict[str, Callable[[int], EpisodeTable]] = {
    "documents in order": partial(made, sort=True),
    "documents in any order": made,
    "shared pages": shared_table,
    "one corpus": partial(shared_table, num_blocks=1, documents_per_block=6),
    "some of a corpus": some_of_a_corpus,
}


@given(
    kind=st.sampled_from(sorted(KINDS_OF_TABLE)), seed=st.integers(0, 5), share=st.floats(0.1, 1.1)
)
@settings(max_examples=50)
def test_the_shards_together_are_the_table(kind: str, seed: int, share: float) -> None:
    table = KINDS_OF_TABLE[kind](seed)
    count, num_bytes = table.num_episodes, bytes_of_parts(table)

    def bytes_of(episodes: Any) -> int:
        return num_bytes(part_sizes(table_part(table, np.array(episodes))))

    least = max(bytes_of([episode]) for episode in range(count))
    limit = max(int(share * num_bytes(part_sizes(table))), least)
    shards = split_table(table, limit, num_bytes)
    assert sorted(np.concatenate(shards.episodes).tolist()) == list(range(count))
    assert sum(shards.sizes) == count
    assert (len(shards) == 1) == (bytes_of(range(count)) <= limit)
    for shard in range(len(shards)):
        part = shards.part(shard)
        assert num_bytes(part_sizes(part)) <= limit
        assert part.num_episodes == shards.sizes[shard]
        for own, episode in enumerate(shards.episodes[shard].tolist()):
            assert (shards.shard_of[episode], shards.place_of[episode]) == (shard, own)
            assert_same_episode(table, episode, part, own)
        if len(shards) > 1:
            assert_nothing_else(part)
    block = table.page_offset[table.episode_document]
    for groups in (block, table.episode_document):
        for group in np.unique(groups):
            episodes = np.flatnonzero(groups == group)
            if len(set(shards.shard_of[episodes].tolist())) > 1:
                assert bytes_of(episodes) > limit, "what fits is not divided"


def assert_nothing_else(part: EpisodeTable) -> None:
    """All of a part belongs to its episodes' documents, and pages are there once."""
    assert set(part.episode_document.tolist()) == set(range(part.num_documents))
    blocks = dict(zip(part.page_offset.tolist(), part.page_count.tolist(), strict=True))
    assert len(part.page_tokens) == len(part.text.pages) == sum(blocks.values())
    num_queries = np.diff(part.query_offset)
    assert len(part.query_pays) == len(part.text.queries) == num_queries.sum()
    of_pages = sum(count * count for count in blocks.values())
    assert len(part.dense) == len(part.lexical) == of_pages + num_queries @ part.page_count


def test_documents_that_share_pages_are_kept_together_where_they_fit() -> None:
    table = shared_table(1)
    num_bytes = bytes_of_parts(table)
    by_block = [
        np.flatnonzero(table.page_offset[table.episode_document] == first)
        for first in np.unique(table.page_offset)
    ]
    each = [num_bytes(part_sizes(table_part(table, episodes))) for episodes in by_block]
    shards = split_table(table, max(each), num_bytes)
    assert [sorted(numbers) for numbers in shards.episodes] == [list(own) for own in by_block]
    # What is too large is divided, and its pages are in each of its shards.
    corpus = shared_table(2, num_blocks=1, documents_per_block=5)
    most = int(0.8 * bytes_of_parts(corpus)(part_sizes(corpus)))
    shards = split_table(corpus, most, bytes_of_parts(corpus))
    assert len(shards) > 1
    assert all(shards.part(n).text.pages == corpus.text.pages for n in range(len(shards)))


def test_what_no_episode_plays_is_left_out() -> None:
    corpus = shared_table(2, num_blocks=1, documents_per_block=5)
    some = corpus.of_documents([int(corpus.episode_document[0])])
    num_bytes = bytes_of_parts(some)
    shards = split_table(some, num_bytes(part_sizes(some)) - 1, num_bytes)
    assert len(shards) == 1
    assert_nothing_else(shards.part(0))
    assert len(shards.part(0).dense) < len(some.dense)
    assert split_table(some, num_bytes(part_sizes(some)), num_bytes).part(0) is some


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
            *OF_DOCUMENTS,
            "episode_document",
        ):
            assert np.shares_memory(array, table.arrays()[name]), name


def test_blocks_of_scores_may_be_arranged_in_any_way() -> None:
    """All blocks of queries first, say."""
    table = made(4, sort=True)
    num_pages, num_queries = table.page_count, np.diff(table.query_offset)
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
