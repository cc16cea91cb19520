"""The tensors of a part of a table: their shapes, what they take, and room for the largest part."""

from __future__ import annotations

import math
from typing import NamedTuple

import numpy as np
import torch
from torch import Tensor

from envs.batched_events import EventTensors
from memrl.memory.paging import EMPTY
from memrl.options import PagingOptions
from memrl.privileged import QueryTimetable
from memrl.state import TableTensors
from memrl.table import EpisodeTable, Event
from memrl.table_part import PartSizes, part_sizes
from memrl.table_shards import NumBytes

_Shapes = dict[str, tuple[tuple[int, ...], torch.dtype]]


class PartTensors(NamedTuple):
    """All that groups read of a table, or of a part of it, on one device."""

    table: TableTensors
    timetable: QueryTimetable
    events: EventTensors

    @classmethod
    def of(cls, table: EpisodeTable, options: PagingOptions, device: torch.device) -> PartTensors:
        """Those of a table, made once."""
        return cls(
            TableTensors.from_table(table, device),
            QueryTimetable.from_table(table, device),
            EventTensors.from_table(table, options, device),
        )

    @classmethod
    def room(cls, table: EpisodeTable, sizes: PartSizes, device: torch.device) -> PartTensors:
        """Room for a part of a table of these sizes, or smaller; all 0."""
        of_table, of_timetable, of_events = (
            {name: torch.zeros(shape, dtype=kind, device=device) for name, (shape, kind) in own}
            for own in (shapes.items() for shapes in _shapes(table, sizes))
        )
        happens = np.arange(table.event_kind.shape[1]) < table.episode_num_events[:, None]
        most_queries = (happens & (table.event_kind == Event.QUERY)).sum(axis=1).max()
        return cls(
            TableTensors(**of_table, has_requests=table.has_requests),
            QueryTimetable(**of_timetable),
            EventTensors(**of_events, max_queries=max(int(most_queries), 1)),
        )

    def tensors(self) -> dict[str, Tensor]:
        """Every tensor by a name of its own."""
        return {
            f"{type(part).__name__}.{name}": value
            for part in self
            for name, value in vars(part).items()
            if isinstance(value, Tensor)
        }

    def fill(self, part: PartTensors) -> None:
        """Put a part into the room; what is larger than it, is not meant."""
        # The only tensors that are read further than a part of its own reaches.
        self.timetable.clock.zero_()
        self.timetable.needs.fill_(EMPTY)
        self.timetable.route.fill_(EMPTY)
        room = self.tensors()
        for name, values in part.tensors().items():
            room[name][tuple(slice(length) for length in values.shape)].copy_(values)


def automatic_bytes(table_bytes: int, free_bytes: int) -> int:
    """Most bytes of a shard, so that half of the memory is left to rows, decisions and network.

    Two shards are there at a time: the one that is played and the next. What a shard may take is a
    power of 2, so that it does not change with a little more or less of free memory.

    Args:
        table_bytes: of the whole table. free_bytes: of the device.
    """
    if table_bytes <= free_bytes // 2:
        return table_bytes
    return 1 << max((free_bytes // 4).bit_length() - 1, 0)


def playing_bytes(table: EpisodeTable) -> int:
    """Bytes on a device of all the tensors of a table that groups share."""
    return bytes_of_parts(table)(part_sizes(table))


def bytes_of_parts(table: EpisodeTable) -> NumBytes:
    """The same for a part of a table, by its sizes."""

    def num_bytes(sizes: PartSizes) -> int:
        tensors = (own for shapes in _shapes(table, sizes) for own in shapes.values())
        return sum(math.prod(shape) * kind.itemsize for shape, kind in tensors)

    return num_bytes


def _shapes(table: EpisodeTable, sizes: PartSizes) -> tuple[_Shapes, _Shapes, _Shapes]:
    """Shapes and types of the tensors of a part, in the order of `PartTensors`."""
    documents, episodes, pages = sizes.documents, sizes.episodes, sizes.pages
    needs, route = int(table.query_needs.shape[1]), int(table.query_route.shape[1])
    queries, asked = max(sizes.queries, 1), max(sizes.most_queries, 1)
    num_events = int(table.event_kind.shape[1]) + 1
    lengths = {
        "query_offset": documents + 1,
        **dict.fromkeys(
            ("page_offset", "page_count", "page_score_base", "query_score_base", "score_stride"),
            documents,
        ),
        **dict.fromkeys(("dense", "lexical"), sizes.scores),
    }
    by_axis = {"page": pages, "query": sizes.queries}
    of_table: _Shapes = {}
    for name in TableTensors.arrays():
        array = getattr(table, name)
        length = lengths[name] if name in lengths else by_axis[name.partition("_")[0]]
        of_table[name] = ((length, *array.shape[1:]), torch.from_numpy(array[:0]).dtype)
    of_timetable: dict[str, tuple[int, ...]] = {
        "clock": (episodes, asked),
        "needs": (episodes, asked, needs),
        "route": (episodes, asked, route),
        "next_request": (episodes, num_events - 1 if table.has_requests else 1),
    }
    requested = {"requested": (episodes, num_events)} if table.has_requests else {}
    of_events: dict[str, tuple[int, ...]] = {
        "episode": (7, episodes),
        "event": (6, episodes, num_events),
        "messages": (episodes, num_events),
        **requested,
        "page_size": (pages,),
        "page_tokens": (pages,),
        "size_before": (pages + 1,),
        "needs": (queries, needs),
        "pays": (queries,),
        "category": (queries,),
        "query_offset": (documents + 1,),
    }
    return (
        of_table,
        {name: (shape, torch.int64) for name, shape in of_timetable.items()},
        {
            name: (shape, torch.bool if name == "pays" else torch.int64)
            for name, shape in of_events.items()
        },
    )
