"""Tensors of a table: made once for a device, shared, gone with the table, and right."""

from __future__ import annotations

import dataclasses
import gc
import weakref
from typing import Any

import numpy as np
import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st
from table_fixtures import small_table
from torch import Tensor

from envs.batched import BatchedPaging, BatchedPagingEnv
from envs.batched_events import EventTensors
from envs.lockstep import LockstepPaging
from memrl.on_device import _in_pieces, bytes_there, made_once, on_device
from memrl.options import PagingOptions
from memrl.privileged import QueryTimetable, paying_queries
from memrl.state import TableTensors
from memrl.table import EpisodeTable, Event

CPU, META = torch.device("cpu"), torch.device("meta")
PAGES = PagingOptions(capacity=3, num_candidates=2, num_slots=4)
TOKENS = dataclasses.replace(PAGES, unit="tokens", capacity=12)


def fresh() -> EpisodeTable:
    """A table of this test's own: `small_table` hands the same one to everybody."""
    return dataclasses.replace(small_table(5))


def tensors(made: Any) -> list[Tensor]:
    return [value for value in vars(made).values() if torch.is_tensor(value)]


def held(group: Any) -> list[Any]:
    """What a group has of its table."""
    parts = [group._tensors, group._timetable]
    return [*parts, group._process._events] if isinstance(group, BatchedPaging) else parts


def test_all_groups_on_a_table_and_device_share_its_tensors() -> None:
    table = fresh()
    first, second = (BatchedPaging(table, PAGES, rows) for rows in (1, 5))
    assert all(one is two for one, two in zip(held(first), held(second), strict=True))
    fixed = BatchedPagingEnv(table, PAGES, num_envs=2, rounds=2)._rows
    assert fixed._tensors is first._tensors
    reference = LockstepPaging(table, PAGES, 2)
    assert all(one is two for one, two in zip(held(reference), held(first), strict=False))


def test_another_device_table_or_measure_has_tensors_of_its_own() -> None:
    table = fresh()
    one = EventTensors.from_table(table, PAGES, CPU)
    assert EventTensors.from_table(table, dataclasses.replace(PAGES, capacity=2), CPU) is one
    assert EventTensors.from_table(table, TOKENS, CPU) is not one
    for cls in (TableTensors, QueryTimetable):
        there = cls.from_table(table, META)
        assert there is cls.from_table(table, "meta")
        assert there is not cls.from_table(table, "cpu")
        assert {tensor.device for tensor in tensors(there)} == {META}
    other = table.with_prior(np.ones_like(table.page_prior))
    assert TableTensors.from_table(other).page_prior.eq(1).all()


def test_on_the_cpu_the_arrays_are_shared_and_not_copied() -> None:
    table = fresh()
    for name in TableTensors.arrays():
        tensor, array = getattr(TableTensors.from_table(table), name), table.arrays()
        assert tensor.data_ptr() == array[name].__array_interface__["data"][0], name


def test_tensors_go_with_their_table() -> None:
    table = fresh()
    dense = weakref.ref(TableTensors.from_table(table, META).dense)
    EventTensors.from_table(table, PAGES, CPU)
    assert dense() is not None
    counted = TableTensors.from_table(table, META), EventTensors.from_table(table, PAGES, META)
    expected = sum(tensor.nbytes for made in counted for tensor in tensors(made))
    assert bytes_there(table, META) == expected
    assert bytes_there(fresh(), META) == 0
    del counted
    alive = weakref.ref(table)
    del table
    gc.collect()
    assert alive() is None
    assert dense() is None


def test_what_cannot_be_made_is_tried_again() -> None:
    table, calls = fresh(), 0

    def make(device: torch.device) -> str:
        nonlocal calls
        calls += 1
        if calls == 1:
            raise RuntimeError("not now")
        return f"made on {device}"

    with pytest.raises(RuntimeError, match="not now"):
        made_once(table, "cpu", "a key", make)
    assert [made_once(table, "cpu", "a key", make) for _ in range(2)] == ["made on cpu"] * 2
    assert calls == 2


# ---------------------------------------------------------------------- the timetable


def slow_timetable(table: EpisodeTable) -> list[list[tuple[int, tuple[int, ...], tuple[int, ...]]]]:
    """Clock, needs and route of every paying query, event by event."""
    rows = []
    for episode in range(table.num_episodes):
        offset = table.query_offset[table.episode_document[episode]]
        row = []
        for event in range(int(table.episode_num_events[episode])):
            query = int(table.event_index[episode, event])
            is_query = table.event_kind[episode, event] == Event.QUERY
            if is_query and table.query_pays[offset + query]:
                needs = table.needs_in_window(episode, query)
                row.append((event + 1, needs, table.route_in_window(episode, query)))
        rows.append(row)
    return rows


def without_padding(row: Tensor) -> tuple[int, ...]:
    pages = row.tolist()
    assert pages == [page for page in pages if page >= 0] + [-1] * pages.count(-1)
    return tuple(page for page in pages if page >= 0)


@given(
    seed=st.integers(0, 7),
    num_queries=st.integers(0, 6),
    preloaded=st.integers(0, 3),
    route=st.integers(0, 3),
)
@settings(max_examples=30)
def test_the_timetable_is_that_of_a_walk_through_the_events(
    seed: int, num_queries: int, preloaded: int, route: int
) -> None:
    table = small_table(
        seed,
        num_pages=9,
        num_queries=num_queries,
        most_preloaded=preloaded,
        longest_route=route,
    )
    expected = slow_timetable(table)
    timetable = QueryTimetable.from_table(table)
    assert timetable.clock.shape[1] == max(max(map(len, expected)), 1)
    for episode, row in enumerate(expected):
        assert timetable.clock[episode].tolist() == [clock for clock, _, _ in row] + [0] * (
            timetable.clock.shape[1] - len(row)
        )
        for place in range(timetable.clock.shape[1]):
            _, needs, passed = row[place] if place < len(row) else (0, (), ())
            assert without_padding(timetable.needs[episode, place]) == needs
            assert without_padding(timetable.route[episode, place]) == passed
    assert paying_queries(table)[0].tolist() == [
        episode for episode, row in enumerate(expected) for _ in row
    ]


# ---------------------------------------------------------------------- copying


@pytest.mark.parametrize("shape", [(1,), (0, 3), (7, 2)])
def test_an_array_becomes_a_tensor(shape: tuple[int, ...]) -> None:
    array = np.arange(np.prod(shape, dtype=int), dtype=np.int16).reshape(shape)
    assert torch.equal(on_device(array, CPU), torch.from_numpy(array))
    assert torch.equal(on_device(array.T, CPU), torch.from_numpy(array.T))
    assert on_device(array, META).shape == shape


class CopyingEvent:
    """Stands for a CUDA event; counts how often it was waited for."""

    waits = 0

    def record(self) -> None:
        """Nothing is under way on a CPU."""

    def synchronize(self) -> None:
        CopyingEvent.waits += 1


LENGTHS = [0, 1, 999, 1000, 1001, 5500]


@pytest.mark.parametrize("length", LENGTHS)
def test_pieces_are_put_together_in_order(length: int, monkeypatch: pytest.MonkeyPatch) -> None:
    """The way to CUDA, without CUDA: no memory is pinned and no event is one."""
    empty, pinned = torch.empty, 0

    def unpinned(*arguments: Any, pin_memory: bool = False, **fields: Any) -> Tensor:
        nonlocal pinned
        made = empty(*arguments, **fields)
        pinned += made.nbytes if pin_memory else 0
        return made

    monkeypatch.setattr("memrl.on_device._PIECE_BYTES", 2000)
    monkeypatch.setattr(torch, "empty", unpinned)
    monkeypatch.setattr(torch.cuda, "Event", CopyingEvent)
    monkeypatch.setattr(CopyingEvent, "waits", 0)
    source = torch.from_numpy(np.random.default_rng(0).integers(-999, 999, (length, 1), np.int16))
    assert torch.equal(_in_pieces(source, CPU), source)
    assert pinned <= 2 * 2000
    assert CopyingEvent.waits == -(-length // 1000)


@pytest.mark.gpu
@pytest.mark.skipif(not torch.cuda.is_available(), reason="there is no CUDA device")
@pytest.mark.parametrize("length", LENGTHS)
def test_pieces_make_up_the_whole(length: int, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("memrl.on_device._PIECE_BYTES", 2000)
    array = np.random.default_rng(0).integers(-999, 999, (length, 1)).astype(np.int16)
    copied = on_device(array, torch.device("cuda"))
    assert copied.is_cuda
    assert torch.equal(copied.cpu(), torch.from_numpy(array))
