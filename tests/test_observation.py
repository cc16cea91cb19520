"""Every feature and every global on states built by hand."""

from __future__ import annotations

import dataclasses
from typing import Any

import numpy as np
import pytest
import torch
from observation_cases import (
    AT_QUERY,
    CANDIDATES_AT_QUERY,
    GLOBALS_AT_QUERY,
    GLOBALS_UNDER_PRESSURE,
    OPTIONS,
    PAGE_DENSE,
    PAGE_LEXICAL,
    SLOTS_AT_QUERY,
    SLOTS_UNDER_PRESSURE,
    TABLE,
    TENSORS,
    UNDER_PRESSURE,
)
from state_by_hand import hand_state, stack
from table_fixtures import table_of

from memrl.observation import COMPACT_FEATURES, FEATURES, GLOBALS, LIMIT, observe, observe_slots
from memrl.options import PagingOptions
from memrl.state import PagingState, TableTensors
from memrl.table import SURFACE


def seen(state: PagingState, options: PagingOptions = OPTIONS) -> dict[str, torch.Tensor]:
    return {key: value[0] for key, value in observe(state, TENSORS, options).items()}


def column(rows: torch.Tensor, name: str) -> list[float]:
    return rows[:, FEATURES.index(name)].tolist()


def entry(state: PagingState, name: str, options: PagingOptions = OPTIONS) -> float:
    return float(seen(state, options)["globals"][GLOBALS.index(name)])


def test_shapes_dtypes_and_names() -> None:
    observation = seen(AT_QUERY)
    assert {key: tuple(value.shape) for key, value in observation.items()} == {
        "slots": (5, len(FEATURES)),
        "candidates": (3, len(FEATURES)),
        "globals": (len(GLOBALS),),
    }
    assert {value.dtype for value in observation.values()} == {torch.float32}
    assert len(set(FEATURES)) == len(FEATURES)
    assert len(set(GLOBALS)) == len(GLOBALS)
    assert FEATURES[-len(SURFACE) :] == SURFACE


@pytest.mark.parametrize("name", [name for name in FEATURES if name not in SURFACE])
def test_feature(name: str) -> None:
    at_query, under_pressure = seen(AT_QUERY), seen(UNDER_PRESSURE)
    # Scores are quantised to 1 / 32767.
    assert column(at_query["slots"], name) == pytest.approx(SLOTS_AT_QUERY[name], abs=2e-5)
    assert column(at_query["candidates"], name) == pytest.approx(
        CANDIDATES_AT_QUERY[name], abs=2e-5
    )
    assert column(under_pressure["slots"], name) == pytest.approx(
        SLOTS_UNDER_PRESSURE[name], abs=2e-5
    )
    assert column(under_pressure["candidates"], name) == [0, 0, 0]


def test_surface_features_are_those_of_the_page() -> None:
    observation = seen(AT_QUERY)
    start = FEATURES.index(SURFACE[0])
    for rows, pages in (
        (observation["slots"], [1, -1, 4, 5, -1]),
        (observation["candidates"], [3, -1, 6]),
    ):
        for row, page in zip(rows, pages, strict=True):
            expected = TABLE.page_surface[page] if page >= 0 else np.zeros(len(SURFACE))
            assert row[start:].tolist() == expected.tolist()


@pytest.mark.parametrize("name", GLOBALS)
def test_global(name: str) -> None:
    assert entry(AT_QUERY, name) == pytest.approx(GLOBALS_AT_QUERY[name])
    assert entry(UNDER_PRESSURE, name) == pytest.approx(GLOBALS_UNDER_PRESSURE[name])


def test_a_page_chosen_with_search_is_the_focus() -> None:
    state = hand_state([1, 6], query=0, focus_page=6, candidates=[3], archived=[3])
    observation = seen(state, dataclasses.replace(OPTIONS, num_slots=2, num_candidates=1))
    assert column(observation["slots"], "dense")[:2] == pytest.approx(
        [PAGE_DENSE[1], PAGE_DENSE[6]], abs=2e-5
    )
    assert column(observation["candidates"], "lexical") == pytest.approx(
        [PAGE_LEXICAL[3]], abs=2e-5
    )
    values = dict(zip(GLOBALS, observation["globals"].tolist(), strict=True))
    assert (values["at_query"], values["focus_is_page"]) == (1, 1)
    length = TABLE.page_surface[6, SURFACE.index("length")]
    assert values["focus_length"] == pytest.approx(length)


@pytest.mark.parametrize(
    ("archival_capacity", "expected"), [(None, 3 / 16), (0, 3.0), (5, 0.6), (60, 0.05)]
)
def test_archive_fill(archival_capacity: int | None, expected: float) -> None:
    options = dataclasses.replace(OPTIONS, archival_capacity=archival_capacity)
    assert entry(AT_QUERY, "archive_fill", options) == pytest.approx(expected)


def test_everything_is_clipped() -> None:
    options = dataclasses.replace(OPTIONS, time_scale=0.5)
    observation = seen(AT_QUERY, options)
    assert column(observation["slots"], "age")[3] == LIMIT
    assert entry(AT_QUERY, "elapsed_events", options) == LIMIT
    state = hand_state([7, 4], archived=[3], arriving=6)
    assert column(seen(state)["slots"], "prior")[0] == LIMIT, "the prior of page 7 is 100"
    for value in observation.values():
        assert value.abs().max() <= LIMIT


def test_rows_without_a_page_are_zero() -> None:
    observation = seen(AT_QUERY)
    assert not observation["slots"][[1, 4]].any()
    assert not observation["candidates"][1].any()
    empty = seen(hand_state([-1, -1], query=0, candidates=[-1]))
    assert not empty["slots"].any()
    assert not empty["candidates"].any()


def test_no_candidate_rows() -> None:
    state = hand_state([1, 2], query=0)
    options = dataclasses.replace(OPTIONS, num_candidates=0)
    assert seen(state, options)["candidates"].shape == (0, len(FEATURES))
    assert entry(state, "candidates_share", options) == 0


def test_neighbours_end_with_the_window() -> None:
    """Page 4 is archived, but belongs to another window when the window has four pages."""
    state = hand_state([3, 0], query=0, archived=[4, 1], candidates=[], num_pages=4)
    state = dataclasses.replace(state, archived=AT_QUERY.archived, num_pages=torch.tensor([4]))
    rows = seen(state)["slots"]
    assert column(rows, "next_dense")[0] == 0
    assert column(rows, "previous_dense")[1] == 0, "page 0 has no page before it"


def test_the_window_begins_anywhere_in_the_document() -> None:
    """Page i of a window that begins at page 2 is page i + 2 of the document."""
    moved = hand_state(
        [1, -1, 4, 5], query=0, candidates=[2], archived=[2], first_page=2, num_pages=6
    )
    fixed = hand_state([3, -1, 6, 7], query=0, candidates=[4], archived=[4])
    for key in ("slots", "candidates"):
        window, document = seen(moved)[key], seen(fixed)[key]
        skip = FEATURES.index("written_ago")  # counts pages of the window
        kept = [index for index in range(len(FEATURES)) if index != skip]
        assert torch.equal(window[:, kept], document[:, kept])


@pytest.mark.parametrize("options", [OPTIONS, dataclasses.replace(OPTIONS, archival_capacity=None)])
def test_a_batch_equals_its_singles(options: PagingOptions) -> None:
    states = [AT_QUERY, UNDER_PRESSURE, AT_QUERY]
    together = observe(stack(states), TENSORS, options)
    for row, state in enumerate(states):
        for key, value in seen(state, options).items():
            assert torch.equal(together[key][row], value)


def test_observing_changes_nothing() -> None:
    before: dict[str, Any] = {
        name: getattr(AT_QUERY, name).clone() for name in AT_QUERY.__dataclass_fields__
    }
    observe(AT_QUERY, TENSORS, OPTIONS)
    assert all(torch.equal(getattr(AT_QUERY, name), value) for name, value in before.items())


def test_a_table_without_queries() -> None:
    tensors = TableTensors.from_table(table_of(["one", "two", "three"]))
    state = hand_state([0, 1], arriving=2, candidates=[-1], num_pages=3)
    observation = observe(state, tensors, dataclasses.replace(OPTIONS, num_slots=2))
    assert torch.isfinite(observation["slots"]).all()
    assert observation["globals"].shape == (1, len(GLOBALS))


def test_a_compact_observation_is_a_part_of_the_full_one() -> None:
    columns = [FEATURES.index(name) for name in COMPACT_FEATURES]
    assert columns == sorted(columns)
    full = observe(AT_QUERY, TENSORS, OPTIONS)
    compact = observe(AT_QUERY, TENSORS, OPTIONS, compact=True)
    for name in ("slots", "candidates"):
        assert torch.equal(compact[name], full[name][..., columns].half())
    assert torch.equal(compact["globals"], full["globals"].half())
    assert len(COMPACT_FEATURES) <= 16


def test_some_slots_are_described_as_they_are_among_all() -> None:
    slot = torch.tensor([[2, 0, AT_QUERY.slot_page.shape[1] - 1]])
    full, some = (
        observe(AT_QUERY, TENSORS, OPTIONS),
        observe_slots(AT_QUERY, TENSORS, OPTIONS, slot),
    )
    assert torch.equal(some["slots"], full["slots"][:, slot[0]])
    assert torch.equal(some["globals"], full["globals"])
    assert some["candidates"].shape[1] == 0
