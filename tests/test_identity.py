"""Handles tell pages apart, and nothing else."""

from __future__ import annotations

import dataclasses

import torch
from state_by_hand import hand_state

from memrl.identity import IDENTITY, identity, page_handles


def handles(num_pages: int, document: int = 0, first_page: int = 0) -> torch.Tensor:
    """Handles of pages 0, 1, ... of a window."""
    state = hand_state(
        list(range(num_pages)), document=document, first_page=first_page, num_pages=num_pages
    )
    return page_handles(state)[0, :-1]


def test_pages_have_different_handles_of_31_bits() -> None:
    drawn = handles(200_000)
    assert len(set(drawn.tolist())) == len(drawn)
    assert drawn.min() >= 0
    assert drawn.max() < 2**31
    assert drawn.double().mean() / 2**31 > 0.49, "they are spread over all of it"


def test_a_page_has_the_same_handle_wherever_it_stands() -> None:
    state = hand_state([4, -1, 2], arriving=0)
    other = hand_state([0, 2, 4])
    one, two = page_handles(state)[0].tolist(), page_handles(other)[0].tolist()
    assert one == [two[2], -1, two[1], two[0]]


def test_other_windows_have_others() -> None:
    drawn = [handles(1000, document, page) for document in range(4) for page in range(4)]
    assert len(set(torch.cat(drawn).tolist())) == 16_000


def test_the_order_of_pages_does_not_show() -> None:
    """Neither do handles rise with the page, nor do neighbours differ by the same."""
    for document in range(5):
        drawn = handles(2000, document).double()
        ranks = torch.stack([torch.arange(2000).double(), drawn])
        assert abs(float(torch.corrcoef(ranks)[0, 1])) < 0.1
        assert len(set(drawn.diff().tolist())) > 1900


def test_what_is_told_is_what_the_state_says() -> None:
    state = dataclasses.replace(
        hand_state([1, -1], arriving=3, sizes=[2, 0], arriving_size=4, clock=9),
        slot_time_in=torch.tensor([[5, 0, 9]]),
        slot_last_use=torch.tensor([[7, 0, 9]]),
        slot_uses=torch.tensor([[2, 0, 0]]),
    )
    told = identity(state)
    assert tuple(told) == IDENTITY
    assert {value.dtype for value in told.values()} == {torch.int64}
    assert told["sizes"].tolist() == [[2, 0, 4]]
    assert told["time_in"].tolist() == [[5, 0, 9]]
    assert told["last_use"].tolist() == [[7, 0, 9]]
    assert told["uses"].tolist() == [[2, 0, 0]]
