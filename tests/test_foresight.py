from __future__ import annotations

import math
from dataclasses import replace

import numpy as np
import pytest
import torch
from slow_gains import SlowGains
from state_by_hand import hand_state, stack
from table_fixtures import random_action, small_table
from torch import Tensor

from envs.lockstep import LockstepPaging
from memrl.foresight import (
    absent_needs,
    future_value,
    is_in,
    pages_ahead,
    route_ahead,
    shares,
)
from memrl.options import PagingOptions
from memrl.privileged import PrivilegedState
from memrl.state import PagingState

LONG = math.inf
Queries = list[tuple[int, tuple[int, ...]]]


def padded(rows: list[list[tuple[int, ...]]]) -> Tensor:
    """(B, Q, R) with -1 where there is nothing."""
    num_queries = max(map(len, rows))
    num_needs = max((len(needs) for row in rows for needs in row), default=1)
    tensor = torch.full((len(rows), num_queries, max(num_needs, 1)), -1)
    for b, row in enumerate(rows):
        for q, needs in enumerate(row):
            tensor[b, q, : len(needs)] = torch.tensor(needs, dtype=torch.int64)
    return tensor


def truth(
    later: list[Queries],
    *,
    needs: list[tuple[int, ...]] | None = None,
    routes: list[tuple[int, ...]] | None = None,
    state: PagingState | None = None,
) -> PrivilegedState:
    """Episodes with these later queries, as (events from now, needs), and these present needs."""
    batch = len(later)
    width = max(map(len, later))
    ahead = [[time for time, _ in row] + [0] * (width - len(row)) for row in later]
    return PrivilegedState(
        state=state or stack([hand_state([0])] * batch),
        needs=padded([[row] for row in needs or [()] * batch])[:, 0],
        route=padded([[row] for row in routes or [()] * batch])[:, 0],
        future_events=torch.tensor(ahead),
        future_needs=padded([[pages for _, pages in row] for row in later]),
        ranking=torch.full((batch, 8), -1),
        result_page=torch.zeros(batch, dtype=torch.int64),
        stores=torch.zeros(batch, dtype=torch.int64),
        next_request=torch.zeros((batch, 2), dtype=torch.int64),
    )


# ---------------------------------------------------------------------------------------- by hand


def test_a_page_is_worth_one_over_the_number_of_needs() -> None:
    needs = torch.tensor([[[3, -1, -1], [0, 5, -1]], [[-1, -1, -1], [1, 2, 4]]])
    assert shares(needs).tolist() == [[1.0, 0.5], [0.0, pytest.approx(1 / 3)]]
    assert shares(needs).dtype == torch.float32


def test_membership_is_by_episode_and_no_page_is_in_nothing() -> None:
    page = torch.tensor([[0, 1, -1], [0, 1, -1]])
    pages = torch.tensor([[0, 7], [-1, 1]])
    assert is_in(page, pages).tolist() == [[True, False, False], [False, True, False]]


def test_needs_in_main_context_are_not_absent() -> None:
    state = hand_state([4, -1, 2], arriving=5)
    present = truth([[(0, ())]], needs=[(0, 2, 4, 5)], state=state)
    # The arriving page is not in main context.
    assert absent_needs(present).tolist() == [[0, -1, -1, 5]]


def value(
    later: Queries,
    page: int,
    *,
    absent_after: int = 0,
    evidence_weight: float = 1.0,
    retrieve_cost: float = 0.0,
    archive_events: float = LONG,
) -> float:
    worth = future_value(
        truth([later]),
        torch.tensor([[page]]),
        absent_after=torch.tensor([[absent_after]]),
        evidence_weight=evidence_weight,
        retrieve_cost=retrieve_cost,
        archive_events=torch.tensor([archive_events], dtype=torch.float32),
    )
    assert worth.shape == (1, 1)
    assert worth.dtype == torch.float32
    return float(worth)


LATER: Queries = [(2, (3,)), (5, (0, 3)), (9, (3, 6, 7, 1))]


def test_every_later_query_that_needs_the_page_counts_its_share() -> None:
    assert value(LATER, 3) == 1.75
    assert value(LATER, 0) == 0.5
    assert value(LATER, 6) == 0.25
    assert value(LATER, 2) == 0.0
    assert value(LATER, -1) == 0.0


def test_retrieving_is_paid_each_time_that_it_is_worth_it() -> None:
    assert value(LATER, 3, retrieve_cost=0.125) == 0.875 + 0.375 + 0.125
    assert value(LATER, 3, retrieve_cost=0.375) == 0.625 + 0.125
    assert value(LATER, 6, retrieve_cost=0.375) == 0.0


def test_evidence_is_weighted_and_the_cost_of_retrieving_is_not() -> None:
    assert value(LATER, 3, evidence_weight=2.0) == 3.5
    assert value(LATER, 3, evidence_weight=2.0, retrieve_cost=0.125) == 1.875 + 0.875 + 0.375
    assert value(LATER, 3, evidence_weight=0.5, retrieve_cost=0.125) == 0.375 + 0.125


@pytest.mark.parametrize(
    ("absent_after", "archive_events", "expected"),
    [
        (1, LONG, 1.75),
        (2, LONG, 0.75),  # a query asked while the page is still there brings nothing
        (5, LONG, 0.25),
        (9, LONG, 0.0),
        (0, 9, 1.75),
        (0, 8, 1.5),
        (0, 2, 1.0),
        (0, 1, 0.0),
        (2, 8, 0.5),
    ],
)
def test_only_queries_asked_while_the_page_is_absent_and_archived_count(
    absent_after: int, archive_events: float, expected: float
) -> None:
    assert value(LATER, 3, absent_after=absent_after, archive_events=archive_events) == expected


def test_no_later_query_is_worth_nothing() -> None:
    assert value([(0, ())], 3) == 0.0


# ---------------------------------------------------------------------------------------- slowly


def test_values_equal_the_slow_ones_on_random_timetables() -> None:
    rng = np.random.default_rng(0)
    nonzero = 0
    for _ in range(60):
        batch, width, cost = int(rng.integers(1, 4)), int(rng.integers(1, 6)), rng.uniform(0, 0.5)
        weight = float(rng.choice([0.5, 1.0, 2.0]))
        later: list[Queries] = []
        for _ in range(batch):
            times = rng.choice(np.arange(1, 20), int(rng.integers(1, 6)), replace=False)
            later.append(
                [
                    (int(time), tuple(rng.choice(8, int(rng.integers(1, 4)), replace=False)))
                    for time in sorted(times.tolist())
                ]
            )
        page = rng.integers(-1, 8, (batch, width))
        absent_after, archive = rng.integers(0, 12, (batch, width)), rng.integers(0, 25, batch)
        worth = future_value(
            truth(later),
            torch.from_numpy(page),
            absent_after=torch.from_numpy(absent_after),
            evidence_weight=weight,
            retrieve_cost=float(cost),
            archive_events=torch.from_numpy(archive).float(),
        )
        for b in range(batch):
            for m in range(width):
                expected = sum(
                    max(0.0, weight / len(needs) - cost)
                    for time, needs in later[b]
                    if page[b, m] in needs and absent_after[b, m] < time <= archive[b]
                )
                assert float(worth[b, m]) == pytest.approx(expected, abs=1e-6)
                nonzero += expected > 0
    assert nonzero > 30


def test_a_route_goes_on_after_its_last_page_in_main_context() -> None:
    state = hand_state([6, 2, -1])
    states = stack([state] * 5)
    routes = [(2, 6, 5, 4), (2, 6), (5, 4), (2, 5), ()]
    needs: list[tuple[int, ...]] = [
        (1,),
        (1,),
        (1,),
        (6,),
        (1,),
    ]  # the fourth one has its evidence already
    ahead = route_ahead(truth([[(0, ())]] * 5, needs=needs, routes=routes, state=states))
    assert ahead.last.tolist() == [6, 6, -1, -1, -1]
    assert ahead.target.tolist() == [5, -1, 5, -1, -1]
    assert ahead.num_missing.tolist() == [2, 0, 2, 0, 0]
    assert ahead.has_route.tolist() == [True, True, True, False, False]


def test_turns_until_one_of_the_pages_is_shown() -> None:
    state = stack([hand_state([0], query=0, candidates=[2, 3])] * 4)
    ranking = torch.tensor([[7, 3, 5, 1, 0, -1]] * 3 + [[7, 3, -1, -1, -1, -1]])
    privileged = replace(
        truth([[(0, ())]] * 4, state=state),
        ranking=ranking,
        result_page=torch.tensor([0, 1, 2, 0]),
    )
    pages = torch.tensor([[1, 0], [5, 0], [0, -1], [7, -1]])
    assert pages_ahead(privileged, pages).tolist() == [1, 1, LONG, LONG]
    assert pages_ahead(privileged, torch.tensor([[0], [7], [7], [3]])).tolist() == [2] + [LONG] * 3


@pytest.mark.parametrize("evict_scope", ["victim", "any"])
def test_the_truth_in_play_equals_the_slow_one(evict_scope: str) -> None:
    """Present and later needs, read off the table's events by the reference."""
    table = small_table(4, num_documents=3, num_episodes=8, num_queries=6, longest_route=3)
    options = PagingOptions(capacity=3, num_candidates=2, evict_scope=evict_scope)  # type: ignore[arg-type]
    group = LockstepPaging(table, options, 8)
    observation = group.reset(range(8))
    rng = np.random.default_rng(1)
    running, seen, on_route = np.ones(8, dtype=bool), 0, 0
    while running.any():
        privileged = group.privileged_state()
        absent, ahead = absent_needs(privileged), route_ahead(privileged)
        for row in np.flatnonzero(running).tolist():
            slow = SlowGains(group, row)
            needs = [page for page in privileged.needs[row].tolist() if page >= 0]
            assert needs == sorted(slow.needs)
            assert {page for page in absent[row].tolist() if page >= 0} == slow.absent
            later = [
                (events, tuple(page for page in pages if page >= 0))
                for events, pages in zip(
                    privileged.future_events[row].tolist(),
                    privileged.future_needs[row].tolist(),
                    strict=True,
                )
                if events > 0
            ]
            assert later == slow.later
            assert int(ahead.last[row]) == slow.before
            left = slow.left if slow.absent else []
            assert int(ahead.target[row]) == (left or [-1])[0]
            assert int(ahead.num_missing[row]) == len(left)
            assert bool(ahead.has_route[row]) == slow.has_route
            seen += bool(needs)
            on_route += int(ahead.last[row]) >= 0
        actions = np.array([random_action(m, rng) for m in observation["action_mask"].numpy()])
        result = group.step(actions)
        observation, running = result.observation, running & ~result.terminated
    assert seen > 20
    assert on_route
