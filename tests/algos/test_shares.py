from __future__ import annotations

import numpy as np
import pytest
import torch
from hypothesis import given
from hypothesis import strategies as st
from torch import Tensor

from memrl.algos.shares import Places, Share, require_decisions
from memrl.distributed import ALONE, RankError, Ranks


class Told(Ranks):
    """One of several ranks, which is told what all of them have."""

    all_counts: list[Tensor]

    def gather(self, values: Tensor) -> list[Tensor]:
        assert torch.equal(values, self.all_counts[self.rank])
        return self.all_counts


def in_one_process(all_counts: list[list[int]]) -> list[tuple[int, int]]:
    """(rank, row of its data) of every decision, by loops: step by step, and rank by rank."""
    order, rows = [], [0] * len(all_counts)
    for step in range(max(map(len, all_counts))):
        for rank, counts in enumerate(all_counts):
            for _ in range(counts[step] if step < len(counts) else 0):
                order.append((rank, rows[rank]))
                rows[rank] += 1
    return order


COUNTS = st.lists(st.lists(st.integers(0, 3), min_size=1, max_size=5), min_size=1, max_size=4)


@given(rounds=st.lists(COUNTS, min_size=1, max_size=3), seed=st.integers(0, 99))
def test_what_is_drawn_is_divided_between_those_who_have_it(
    rounds: list[list[list[int]]], seed: int
) -> None:
    world_size = min(map(len, rounds))
    rounds = [counts[:world_size] for counts in rounds]
    order: list[tuple[int, int]] = []
    for counts in rounds:  # rows go on from round to round
        before = [sum(rank == own for own, _ in order) for rank in range(world_size)]
        order += [(rank, row + before[rank]) for rank, row in in_one_process(counts)]
    index = torch.from_numpy(np.random.default_rng(seed).permutation(len(order))[:7])
    for rank in range(world_size):
        told = Told(rank, world_size)
        made = Places(told)
        for counts in rounds:
            told.all_counts = [torch.tensor(own) for own in counts]
            made.add(torch.tensor(counts[rank]))
        assert made.total == len(order)
        expected = [row for own, row in (order[i] for i in index.tolist()) if own == rank]
        assert made.own(index).tolist() == expected


@given(total=st.integers(1, 40), world_size=st.integers(1, 5))
def test_every_thing_is_somebodys(total: int, world_size: int) -> None:
    if total < world_size:
        with pytest.raises(RankError, match="episodes is"):
            Share.of(Ranks(0, world_size), total, "episodes")
        return
    shares = [Share.of(Ranks(rank, world_size), total, "episodes") for rank in range(world_size)]
    assert [number for share in shares for number in range(total)[share.own]] == [*range(total)]
    lengths = [len(share) for share in shares]
    assert max(lengths) - min(lengths) <= 1
    assert min(lengths) >= 1


def test_alone_the_numbers_are_numpys_own() -> None:
    values = np.random.default_rng(0).normal(size=1001) * 3 + 7
    share = Share.alone(4)
    assert share.std(values) == float(values.std())
    assert share.mean(values) == float(values.mean())
    assert share.sums(1.5, 2) == [1.5, 2.0]
    assert share.highest(3) == 3.0


def test_a_rank_with_nothing_to_learn_from_says_so() -> None:
    require_decisions(ALONE, 0)
    require_decisions(Ranks(1, 2), 1)
    with pytest.raises(RankError, match="start fewer processes"):
        require_decisions(Ranks(1, 2), 0)
