"""The ranking rules on scores small enough to rank by hand."""

from __future__ import annotations

from dataclasses import replace
from typing import Any

import numpy as np
import pytest
import torch
from hypothesis import given
from hypothesis import strategies as st
from state_by_hand import hand_state
from table_fixtures import random_action, small_table, table_of, with_scores
from torch import Tensor

from envs.lockstep import LockstepPaging
from memrl.documents import Query
from memrl.memory.scores import SCORE_SCALE
from memrl.options import STAGINGS, PagingOptions, Staging
from memrl.staging import (
    first_page,
    neighbour_max,
    places_from_pages,
    rank_pages,
    stage,
    staging_scores,
)
from memrl.state import TableTensors

T, F = True, False
#         page:     0    1    2     3    4
DENSE = [10, -40, 30, 0, 25]
LEXICAL = [5, 7, 0, 9, 0]
SPEAKER = [F, F, F, F, T]
ALL = [T, T, T, T, T]


def scores(
    method: Staging, available: list[bool] = ALL, speaker: list[bool] = SPEAKER
) -> list[int]:
    dense, lexical, names, visible = (
        torch.tensor([row]) for row in (DENSE, LEXICAL, speaker, available)
    )
    return staging_scores(dense, lexical, names, visible, method)[0].tolist()


def rank(values: list[int], hits: list[bool]) -> list[int]:
    order, count = rank_pages(torch.tensor([values]), torch.tensor([hits]))
    return order[0, : int(count)].tolist()


def test_dense() -> None:
    assert scores("dense") == DENSE
    assert rank(scores("dense"), ALL) == [2, 4, 0, 3, 1]


def test_lexical() -> None:
    assert scores("lexical") == LEXICAL
    assert rank(scores("lexical"), ALL) == [3, 1, 0, 2, 4]


def test_hybrid_is_the_sum() -> None:
    assert scores("hybrid") == [15, -33, 30, 9, 25]


def test_hybrid_neighbours() -> None:
    # Tenfold the sum, thrice the better neighbour's dense score, .2 for the speaker's name.
    expected = [
        150 + 3 * -40,
        -330 + 3 * 30,
        300 + 3 * 0,
        90 + 3 * 30,
        250 + 3 * 0 + 2 * SCORE_SCALE,
    ]
    assert scores("hybrid_neighbours") == expected


def test_a_page_that_only_recall_holds_has_no_dense_score() -> None:
    available = [T, T, F, T, F]
    assert scores("dense", available) == [10, -40, 0, 0, 0]
    assert scores("hybrid", available) == [15, -33, 0, 9, 0]
    assert scores("lexical", available) == LEXICAL


def test_dense_ranks_what_only_recall_holds_by_its_words() -> None:
    assert scores("dense", [T, F, T, F, T]) == [10, 7, 30, 9, 25]


def test_a_neighbour_counts_only_while_it_is_resident_or_stored() -> None:
    assert scores("hybrid_neighbours", [T, T, F, T, F], [F] * 5) == [
        150 + 3 * -40,  # page 1
        -330 + 3 * 10,  # page 0; page 2 cannot be looked at
        0 + 3 * 0,  # page 3 (0) rather than page 1 (-40)
        90 + 0,  # neither 2 nor 4
        0 + 3 * 0,  # page 3
    ]


def test_neighbour_max() -> None:
    def best(values: list[int], available: list[bool]) -> list[int]:
        return neighbour_max(torch.tensor([values]), torch.tensor([available]))[0].tolist()

    assert best([5, -7, 3], [T, T, T]) == [-7, 5, -7]
    assert best([5, -7, 3], [T, F, T]) == [0, 5, 0]
    assert best([5, -7, 3], [F, F, F]) == [0, 0, 0]
    assert best([-SCORE_SCALE, 4], [T, T]) == [4, -SCORE_SCALE]
    assert best([9], [T]) == [0], "a lone page has no neighbour"


def test_ties_go_to_the_page_that_came_first() -> None:
    assert rank([3, 8, 3, 8, 3], ALL) == [1, 3, 0, 2, 4]
    assert rank([0, 0, 0, 0, 0], [F, T, F, T, T]) == [1, 3, 4]


def test_only_hits_are_ranked() -> None:
    assert rank([9, 8, 7, 6, 5], [F, T, F, F, T]) == [1, 4]
    assert rank([-9, -8, -7, -6, -5], [T, F, F, F, T]) == [4, 0]


def test_no_hits() -> None:
    order, count = rank_pages(torch.tensor([[3, 1, 2]]), torch.zeros(1, 3, dtype=torch.bool))
    assert int(count) == 0
    assert sorted(order[0].tolist()) == [0, 1, 2]


@pytest.mark.parametrize("value", [13 * SCORE_SCALE + 10 * SCORE_SCALE, -23 * SCORE_SCALE])
def test_extreme_scores_keep_their_order(value: int) -> None:
    width = 5000
    values = torch.full((1, width), value)
    values[0, -1] = value + 1
    order, count = rank_pages(values, torch.ones(1, width, dtype=torch.bool))
    assert int(count) == width
    assert order[0].tolist() == [width - 1, *range(width - 1)]


ROW = st.lists(st.tuples(st.integers(-5, 5), st.booleans()), min_size=1, max_size=12)


@given(ROW)
def test_rank_pages_is_a_stable_sort_of_the_hits(row: list[tuple[int, bool]]) -> None:
    values, hits = [score for score, _ in row], [hit for _, hit in row]
    expected = sorted((page for page in range(len(row)) if hits[page]), key=lambda p: -values[p])
    assert rank(values, hits) == expected
    if expected:
        assert int(first_page(torch.tensor([values]), torch.tensor([hits]))) == expected[0]


# Pages 0 to 5 have arrived, 2 and 3 are resident, 0 and 3 are stored; 6 is still to come.
SEARCHED = hand_state(
    [2, 3, -1], archived=[0, 3], query=0, candidates=[-1], num_pages=7, pages_arrived=6
)


@pytest.mark.parametrize(
    ("stage_from", "staging", "expected"),
    [
        ("archival", "dense", [0]),
        ("archival", "lexical", [0]),
        ("both", "lexical", [4, 1, 0]),
        # Page 0 has a dense score of .5, pages 1 and 4 have words only; page 5 has none.
        ("both", "hybrid", [4, 0, 1]),
        ("both", "dense", [4, 0, 1]),
    ],
)
def test_stage_ranks_what_lies_outside_main_context(
    stage_from: str, staging: str, expected: list[int]
) -> None:
    table = table_of(["words"] * 7, [(6, Query("what?", ()))])
    table = with_scores(
        table,
        query=0,
        dense=[0.5, 0.9, 0.9, 0.9, 0.9, 0.9, 0.9],
        lexical=[0.0, 0.25, 0.9, 0.9, 0.75, 0.0, 0.9],
    )
    fields: dict[str, Any] = {"stage_from": stage_from, "staging": staging}
    options = PagingOptions(capacity=3, num_slots=3, num_candidates=1, **fields)
    ranking, num_hits = stage(SEARCHED, TableTensors.from_table(table), options)
    assert ranking.tolist() == [expected + [-1] * (7 - len(expected))]
    assert num_hits.tolist() == [len(expected)]


def test_batch_rows_do_not_touch_each_other() -> None:
    rng = np.random.default_rng(0)

    def draw(low: int, high: int) -> Tensor:
        return torch.from_numpy(rng.integers(low, high, (6, 9)))

    dense, lexical = draw(-30000, 30000), draw(0, 30000)
    speaker, available, hits = (draw(0, 2).bool() for _ in range(3))
    batch = staging_scores(dense, lexical, speaker, available, "hybrid_neighbours")
    order, count = rank_pages(batch, hits)
    for row in range(6):
        one = slice(row, row + 1)
        alone = staging_scores(
            dense[one], lexical[one], speaker[one], available[one], "hybrid_neighbours"
        )
        assert torch.equal(batch[one], alone)
        alone_order, alone_count = rank_pages(alone, hits[one])
        assert torch.equal(order[one], alone_order)
        assert torch.equal(count[one], alone_count)


@pytest.mark.parametrize("stage_from", ["archival", "both"])
@pytest.mark.parametrize("staging", STAGINGS)
def test_places_are_those_that_a_search_from_the_page_would_give(
    staging: Staging, stage_from: Any
) -> None:
    """Coarse scores tie everywhere; every page of the window is looked for."""
    table = small_table(3, num_documents=2, num_pages=10, num_episodes=6, coarse=True)
    options = PagingOptions(capacity=3, num_candidates=2, staging=staging, stage_from=stage_from)
    group, tensors = LockstepPaging(table, options, 6), TableTensors.from_table(table)
    mask, rng, num_found = group.reset(range(6))["action_mask"], np.random.default_rng(0), 0
    for _ in range(8):
        state = group.privileged_state().state
        focus = state.slot_page[:, :-1].clamp(min=0)
        width = state.archived.shape[1]
        places = torch.stack(
            [
                places_from_pages(state, tensors, options, focus, torch.full((6,), page))
                for page in range(width)
            ],
            dim=2,
        )
        for slot in range(focus.shape[1]):
            at_page = replace(
                state, focus=focus[:, slot], focus_is_query=torch.zeros(6, dtype=torch.bool)
            )
            ranking = stage(at_page, tensors, options)[0]
            for row in range(6):
                expected = {page: place for place, page in enumerate(ranking[row].tolist())}
                for page in range(width):
                    assert places[row, slot, page] == expected.get(page, width)
            num_found += int((ranking >= 0).sum())
        actions = np.array([random_action(row, rng) for row in mask.numpy()])
        mask = group.step(actions).observation["action_mask"]
    assert num_found > 50
