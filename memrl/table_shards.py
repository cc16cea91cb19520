"""A table in shards that are each small enough for a device.

A shard is a table of its own: some episodes, and the documents from their first to their last one.
Its arrays are views of the table's wherever the episodes lie in the order of their documents, so
that a table mapped from disk is read shard by shard.
"""

from __future__ import annotations

import bisect
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from functools import cached_property
from typing import Any, NamedTuple

import numpy as np
import numpy.typing as npt

from memrl.device_memory import DeviceMemoryError
from memrl.privileged import paying_queries
from memrl.table import EpisodeTable, TableText

_HALVINGS = 6  # of the bytes between the least and the most that shards may be made even to


class PartSizes(NamedTuple):
    """What decides how large a part of a table is.

    Attributes:
        documents, pages, queries, episodes: their numbers.
        scores: length of the part of `dense`.
        most_queries: paying queries of the episode that asks most.
    """

    documents: int
    pages: int
    queries: int
    scores: int
    episodes: int
    most_queries: int


NumBytes = Callable[[PartSizes], int]
"""What a part of a table takes on a device."""


@dataclass(frozen=True, eq=False)
class TableShards:
    """A table and how it is divided.

    Attributes:
        table: the whole.
        episodes: numbers of the episodes of each shard, in the order in which the shard has them;
            every episode is in one shard.
        most_bytes: that a shard may take on a device.
    """

    table: EpisodeTable
    episodes: tuple[npt.NDArray[np.int64], ...]
    most_bytes: int

    def __len__(self) -> int:
        """Number of shards."""
        return len(self.episodes)

    @property
    def sizes(self) -> list[int]:
        """Episodes of each shard."""
        return [len(numbers) for numbers in self.episodes]

    @cached_property
    def shard_of(self) -> npt.NDArray[np.int64]:
        """(E,) which shard each episode is in."""
        return self._by_episode([np.full(size, shard) for shard, size in enumerate(self.sizes)])

    @cached_property
    def place_of(self) -> npt.NDArray[np.int64]:
        """(E,) number of each episode in its shard."""
        return self._by_episode([np.arange(size) for size in self.sizes])

    def _by_episode(self, values: Sequence[npt.NDArray[np.int64]]) -> npt.NDArray[np.int64]:
        found = np.empty(self.table.num_episodes, dtype=np.int64)
        found[np.concatenate(self.episodes)] = np.concatenate(values)
        return found

    def part(self, shard: int) -> EpisodeTable:
        """Make a shard's table; one shard alone is the table itself."""
        return self.table if len(self) == 1 else table_part(self.table, self.episodes[shard])


def split_table(table: EpisodeTable, most_bytes: int, num_bytes: NumBytes) -> TableShards:
    """Divide a table into as few shards as the bytes allow, and these evenly.

    A document is divided only if it alone is too large with all its episodes.

    Args:
        table: the whole. most_bytes: of a shard. num_bytes: see `NumBytes`.

    Raises:
        DeviceMemoryError: if an episode and its document alone take more.
    """
    parts = _Parts(table, num_bytes)
    if parts.num_bytes(0, table.num_episodes) <= most_bytes:
        return TableShards(table, (np.arange(table.num_episodes),), most_bytes)
    borders = parts.borders(most_bytes)
    if borders is None:
        least = max(parts.num_bytes(start, start + 1) for start in range(table.num_episodes))
        raise DeviceMemoryError(
            f"An episode and its document take {least:,} bytes on a device, and a shard may have "
            f"{most_bytes:,}: set shard_bytes to {least:,} or more."
        )
    low, high = 0, most_bytes
    for _ in range(_HALVINGS):
        middle = (low + high) // 2
        even = parts.borders(middle, len(borders))
        if even is None:
            low = middle
        else:
            borders, high = even, middle
    starts = [0, *borders[:-1]]
    episodes = (parts.order[start:end] for start, end in zip(starts, borders, strict=True))
    return TableShards(table, tuple(episodes), most_bytes)


def part_sizes(table: EpisodeTable) -> PartSizes:
    """Sizes of a whole table."""
    return _Parts(table, lambda _: 0).sizes(0, table.num_episodes)


class _Parts:
    """Runs of a table's episodes in the order of their documents.

    Attributes:
        order: (E,) numbers of the episodes in that order.
    """

    def __init__(self, table: EpisodeTable, num_bytes: NumBytes) -> None:
        self.order = np.argsort(table.episode_document, kind="stable").astype(np.int64)
        self._table = table
        self._of_sizes = num_bytes
        self._document = table.episode_document[self.order]
        asked = np.bincount(paying_queries(table)[0], minlength=table.num_episodes)
        self._queries = asked[self.order]

    def sizes(self, start: int, end: int) -> PartSizes:
        """Of the run of episodes start..end-1."""
        first, last = int(self._document[start]), int(self._document[end - 1])
        offsets = (self._table.page_offset, self._table.query_offset)
        pages, queries = (int(offset[last + 1] - offset[first]) for offset in offsets)
        scores = _score_span(self._table, first, last + 1)
        return PartSizes(
            documents=last + 1 - first,
            pages=pages,
            queries=queries,
            scores=scores.stop - scores.start,
            episodes=end - start,
            most_queries=int(self._queries[start:end].max()),
        )

    def num_bytes(self, start: int, end: int) -> int:
        """Bytes of the run of episodes start..end-1."""
        return self._of_sizes(self.sizes(start, end))

    def borders(self, most_bytes: int, most_runs: int | None = None) -> list[int] | None:
        """Ends of runs as long as the bytes allow; None if one episode or the runs are too many."""
        count, borders = len(self.order), [0]
        while borders[-1] < count:
            start = borders[-1]
            ends = range(start + 1, count + 1)
            fitting = bisect.bisect_right(
                ends, most_bytes, key=lambda end: self.num_bytes(start, end)
            )
            if not fitting or len(borders) == (most_runs or count) + 1:
                return None
            borders.append(self._at_document(start, start + fitting))
        return borders[1:]

    def _at_document(self, start: int, end: int) -> int:
        """The end of the last whole document before `end`, if there is one after `start`."""
        if end == len(self.order):
            return end
        border = int(np.searchsorted(self._document, self._document[end]))
        return border if border > start else end


def table_part(table: EpisodeTable, episodes: npt.NDArray[np.int64]) -> EpisodeTable:
    """The table of some episodes and their documents.

    Args:
        table: the whole.
        episodes: their numbers, one or more. All documents between the lowest and the highest
            of theirs are in the part.
    """
    documents = table.episode_document[episodes]
    first, end = int(documents.min()), int(documents.max()) + 1
    pages = slice(int(table.page_offset[first]), int(table.page_offset[end]))
    queries = slice(int(table.query_offset[first]), int(table.query_offset[end]))
    scores = _score_span(table, first, end)
    # A slice gives views.
    in_a_row = len(episodes) == 1 or bool((np.diff(episodes) == 1).all())
    own = slice(int(episodes[0]), int(episodes[0]) + len(episodes)) if in_a_row else episodes
    by_axis = {"page": pages, "query": queries, "episode": own, "event": own}
    parts: dict[str, Any] = {
        "page_offset": table.page_offset[first : end + 1] - pages.start,
        "query_offset": table.query_offset[first : end + 1] - queries.start,
        "page_score_base": table.page_score_base[first:end] - scores.start,
        "query_score_base": table.query_score_base[first:end] - scores.start,
        "dense": table.dense[scores],
        "lexical": table.lexical[scores],
        "episode_document": table.episode_document[own] - first,
    }
    for name, array in table.arrays().items():  # names begin with their axis
        if name not in parts:
            parts[name] = array[by_axis[name.partition("_")[0]]]
    text = table.text
    return EpisodeTable(
        **parts,
        text=TableText(
            pages=text.pages[pages],
            queries=text.queries[queries],
            answers=text.answers[queries],
            document_ids=text.document_ids[first:end],
            page_ids=text.page_ids[pages],
            query_ids=text.query_ids[queries],
            categories=text.categories,
        ),
        meta=table.meta,
    )


def _score_span(table: EpisodeTable, first: int, end: int) -> slice:
    """Where the scores of the documents first..end-1 lie, however their blocks are arranged."""
    num_pages = np.diff(table.page_offset[first : end + 1])
    num_queries = np.diff(table.query_offset[first : end + 1])
    of_pages, of_queries = table.page_score_base[first:end], table.query_score_base[first:end]
    start = min(int(of_pages.min()), int(of_queries.min()))
    stop = max(
        int((of_pages + num_pages * num_pages).max()),
        int((of_queries + num_queries * num_pages).max()),
    )
    return slice(start, max(start, min(stop, len(table.dense))))
