"""A part of a table: some of its episodes, their documents, and nothing else.

Its arrays are views of the table's wherever what belongs to it lies side by side, so that of a
table mapped from disk the part alone is read. Pages that documents share, and the scores of these
pages, are in every part that has one of the documents.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any, NamedTuple, TypeVar

import numpy as np
import numpy.typing as npt

from memrl.privileged import num_paying_queries
from memrl.table import EpisodeTable, TableText

T = TypeVar("T")
Integers = npt.NDArray[np.int64]


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


def part_sizes(table: EpisodeTable) -> PartSizes:
    """Sizes of a whole table, also of what no episode plays."""
    return PartSizes(
        documents=table.num_documents,
        pages=len(table.page_tokens),
        queries=len(table.query_pays),
        scores=len(table.dense),
        episodes=table.num_episodes,
        most_queries=int(num_paying_queries(table).max()),
    )


@dataclass(frozen=True, eq=False)
class _Runs:
    """Stretches of an axis, in its order, none of which touches another.

    Attributes:
        starts, stops: (n,) where they begin and end.
    """

    starts: Integers
    stops: Integers

    @classmethod
    def covering(cls, starts: Integers, lengths: Integers, end: int) -> _Runs:
        """Those that cover stretches which may overlap, on an axis of length `end`."""
        order = starts.argsort(kind="stable")
        starts, stops = starts[order], np.minimum(starts + lengths, end)[order]
        reached = np.maximum.accumulate(np.maximum(starts, stops))
        is_first = np.concatenate([[True], starts[1:] > reached[:-1]])
        return cls(starts[is_first], reached[np.concatenate([is_first[1:], [True]])])

    def __len__(self) -> int:
        """What they cover."""
        return int((self.stops - self.starts).sum())

    def places(self, rows: Integers) -> Integers:
        """Where covered rows of the axis stand when nothing else is left of it."""
        lengths = self.stops - self.starts
        run = np.searchsorted(self.starts, rows, side="right") - 1
        first: Integers = np.cumsum(lengths) - lengths
        return rows - self.starts[run] + first[run]

    def of(self, array: npt.NDArray[Any]) -> npt.NDArray[Any]:
        """What they cover of an array: a view, if there is but one."""
        pieces = [array[own] for own in self._slices()]
        return pieces[0] if len(pieces) == 1 else np.concatenate(pieces)

    def of_list(self, values: Sequence[T]) -> list[T]:
        """The same of a list."""
        return [value for own in self._slices() for value in values[own]]

    def _slices(self) -> list[slice]:
        ends = zip(self.starts.tolist(), self.stops.tolist(), strict=True)
        return [slice(start, stop) for start, stop in ends]


class DocumentRows(NamedTuple):
    """What belongs to some documents on the axes of pages, queries and scores."""

    pages: _Runs
    queries: _Runs
    scores: _Runs

    @classmethod
    def of(cls, table: EpisodeTable, documents: Integers) -> DocumentRows:
        """Of the given documents, in rising order; pages that several share are there once."""
        num_pages = table.page_count[documents]
        first_query = table.query_offset[documents]
        num_queries = table.query_offset[documents + 1] - first_query
        bases = (table.page_score_base[documents], table.query_score_base[documents])
        stride = table.score_stride[documents]
        # A page cache has one row of scores, which is that of every page.
        blocks = ((num_pages - 1) * stride + num_pages, num_queries * stride)
        return cls(
            _Runs.covering(table.page_offset[documents], num_pages, len(table.page_tokens)),
            _Runs.covering(first_query, num_queries, len(table.query_pays)),
            _Runs.covering(np.concatenate(bases), np.concatenate(blocks), len(table.dense)),
        )


def table_part(table: EpisodeTable, episodes: Integers) -> EpisodeTable:
    """The table of some episodes and their documents.

    Args:
        table: the whole.
        episodes: their numbers, one or more, in the order in which the part has them. Documents
            keep the order of the whole.
    """
    documents, of_episode = np.unique(table.episode_document[episodes], return_inverse=True)
    pages, queries, scores = DocumentRows.of(table, documents)
    own = _as_slice(episodes)
    parts: dict[str, Any] = {
        "page_offset": pages.places(table.page_offset[documents]),
        "page_count": table.page_count[documents],
        "score_stride": table.score_stride[documents],
        "query_offset": np.concatenate([[0], np.diff(table.query_offset)[documents].cumsum()]),
        "page_score_base": scores.places(table.page_score_base[documents]),
        "query_score_base": scores.places(table.query_score_base[documents]),
        "dense": scores.of(table.dense),
        "lexical": scores.of(table.lexical),
        "episode_document": of_episode.astype(np.int64),
    }
    for name, array in table.arrays().items():  # names begin with their axis
        if name not in parts:
            axis = name.partition("_")[0]
            rows = {"page": pages, "query": queries}.get(axis)
            if rows is None and axis not in ("episode", "event"):
                raise ValueError(f"The array {name} does not begin with the name of its axis.")
            parts[name] = array[own] if rows is None else rows.of(array)
    text = table.text
    return EpisodeTable(
        **parts,
        text=TableText(
            pages=pages.of_list(text.pages),
            queries=queries.of_list(text.queries),
            answers=queries.of_list(text.answers),
            document_ids=[text.document_ids[number] for number in documents],
            clusters=[text.clusters[number] for number in documents],
            request_kinds=[text.request_kinds[number] for number in documents],
            page_ids=pages.of_list(text.page_ids),
            query_ids=queries.of_list(text.query_ids),
            categories=text.categories,
        ),
        meta=table.meta,
    )


def _as_slice(numbers: Integers) -> slice | Integers:
    """Numbers in a row as a slice, which gives views."""
    if (np.diff(numbers) == 1).all():
        return slice(int(numbers[0]), int(numbers[0]) + len(numbers))
    return numbers
