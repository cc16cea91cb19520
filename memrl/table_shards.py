"""A table in shards that are each small enough for a device.

A shard is a table of its own: some episodes and their documents (`memrl.table_part`). Documents
that share their pages are kept together where they fit; where they do not, every shard that has
some of them has a copy of these pages and their scores.
"""

from __future__ import annotations

import bisect
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from functools import cached_property
from typing import NamedTuple

import numpy as np
import numpy.typing as npt

from memrl.device_memory import DeviceMemoryError
from memrl.privileged import num_paying_queries
from memrl.table import EpisodeTable
from memrl.table_part import DocumentRows, PartSizes, part_sizes, table_part

_HALVINGS = 6  # of the bytes between the least and the most that shards may be made even to

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
        is_whole: whether the table fits as it is; then it is the only shard.
    """

    table: EpisodeTable
    episodes: tuple[npt.NDArray[np.int64], ...]
    most_bytes: int
    is_whole: bool = False

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
        """Make a shard's table; of a table that is not divided, the table itself."""
        return self.table if self.is_whole else table_part(self.table, self.episodes[shard])


def split_table(table: EpisodeTable, most_bytes: int, num_bytes: NumBytes) -> TableShards:
    """Divide a table into as few shards as the bytes allow, and these evenly.

    Documents that share their pages are divided only if they are too large together, and a document
    only if it alone is too large with all its episodes. What no episode plays is in no shard, so
    that there may be a single one, smaller than the table.

    Args:
        table: the whole. most_bytes: of a shard. num_bytes: see `NumBytes`.

    Raises:
        DeviceMemoryError: if an episode and its document alone take more.
    """
    if num_bytes(part_sizes(table)) <= most_bytes:
        return TableShards(table, (np.arange(table.num_episodes),), most_bytes, is_whole=True)
    parts = _Parts(table, most_bytes, num_bytes)
    borders = parts.borders(most_bytes, table.num_episodes)
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


class _Parts:
    """Runs of a table's episodes, those of one block of pages and of one document side by side.

    Attributes:
        order: (E,) numbers of the episodes in that order.
    """

    def __init__(self, table: EpisodeTable, most_bytes: int, num_bytes: NumBytes) -> None:
        block = table.page_offset[table.episode_document]
        self.order = np.lexsort((table.episode_document, block)).astype(np.int64)
        self._table = table
        self._most_bytes = most_bytes
        self._of_sizes = num_bytes
        self._queries = num_paying_queries(table)[self.order]
        document = table.episode_document[self.order]
        self._by_block, self._by_document = _Groups.of(block[self.order]), _Groups.of(document)
        self._documents = document[self._by_document.begins[:-1]]

    def sizes(self, start: int, end: int) -> PartSizes:
        """Of the run of episodes start..end-1."""
        number = self._by_document.number
        documents = np.sort(self._documents[number[start] : number[end - 1] + 1])
        pages, queries, scores = map(len, DocumentRows.of(self._table, documents))
        return PartSizes(
            documents=len(documents),
            pages=pages,
            queries=queries,
            scores=scores,
            episodes=end - start,
            most_queries=int(self._queries[start:end].max()),
        )

    def num_bytes(self, start: int, end: int) -> int:
        """Bytes of the run of episodes start..end-1."""
        return self._of_sizes(self.sizes(start, end))

    def borders(self, target_bytes: int, most_runs: int) -> list[int] | None:
        """Ends of runs as long as the bytes allow.

        Returns:
            None if an episode takes more, the runs are too many, or what belongs together would
            have to be divided, although a shard may have so many bytes.
        """
        count, borders = len(self.order), [0]
        while borders[-1] < count:
            start = borders[-1]
            ends = range(start + 1, count + 1)
            fitting = bisect.bisect_right(
                ends, target_bytes, key=lambda end: self.num_bytes(start, end)
            )
            border = self._between(start, start + fitting) if fitting else None
            if border is None or len(borders) > most_runs:
                return None
            borders.append(border)
        return borders[1:]

    def _between(self, start: int, end: int) -> int | None:
        """The last border of blocks up to `end`, else of documents, else `end`."""
        if end == len(self.order):
            return end
        for groups in (self._by_block, self._by_document):
            first, last = groups.around(end)
            if first > start:
                return first
            if first == start and self.num_bytes(first, last) <= self._most_bytes:
                return None
        return end


class _Groups(NamedTuple):
    """Equal values side by side.

    Attributes:
        begins: where each group begins, and the number of values.
        number: of the group that each value is in.
    """

    begins: npt.NDArray[np.int64]
    number: npt.NDArray[np.int64]

    @classmethod
    def of(cls, values: npt.NDArray[np.int64]) -> _Groups:
        """The groups of one or more values."""
        is_first = np.concatenate([[True], values[1:] != values[:-1]])
        begins = np.append(np.flatnonzero(is_first), len(values))
        return cls(begins, np.cumsum(is_first) - 1)

    def around(self, place: int) -> tuple[int, int]:
        """Where the group of a value begins and ends."""
        number = self.number[place]
        return int(self.begins[number]), int(self.begins[number + 1])
