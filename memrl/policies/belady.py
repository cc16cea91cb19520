"""Belady's MIN: the fewest faults, for pages of one size.

Evicting the page whose next request is farthest is optimal when every page has to be let in
(Belady, IBM Systems Journal 5(2), 1966; Mattson et al., IBM Systems Journal 9(2), 1970); where
pages may pass, so is letting the requested page pass when its own next request is the farthest.
With pages of several sizes neither holds, and none of this is offered.
"""

from __future__ import annotations

import heapq
from collections.abc import Mapping, Sequence
from typing import ClassVar

import torch
from torch import Tensor

from memrl.actions import ActionLayout, Op
from memrl.memory.paging import EMPTY
from memrl.options import PagingOptions
from memrl.privileged import PrivilegedState


def next_requests(requests: Sequence[int]) -> list[int]:
    """Place of the next request of the same page, for each request; the number of all if none."""
    following = [len(requests)] * len(requests)
    place: dict[int, int] = {}
    for number in range(len(requests) - 1, -1, -1):
        following[number] = place.get(requests[number], len(requests))
        place[requests[number]] = number
    return following


def least_faults(requests: Sequence[int], capacity: int, *, may_pass: bool = False) -> int:
    """Faults of MIN, computed from the requests alone.

    Args:
        requests: pages of one size in the order in which they are requested.
        capacity: pages that the cache holds, at least 1.
        may_pass: whether a requested page may stay outside.
    """
    following = next_requests(requests)
    due: dict[int, int] = {}  # resident page -> place of its next request
    farthest: list[tuple[int, int]] = []  # (-due, page), with entries that are out of date
    faults = 0
    for page, after in zip(requests, following, strict=True):
        if page not in due:
            faults += 1
            if len(due) == capacity:
                while due.get(farthest[0][1]) != -farthest[0][0]:
                    heapq.heappop(farthest)
                if may_pass and after >= -farthest[0][0]:
                    continue
                del due[heapq.heappop(farthest)[1]]
        due[page] = after
        heapq.heappush(farthest, (-after, page))
    return faults


class FarthestFirst:
    """Evicts the page whose next request is farthest among those shown."""

    is_privileged: ClassVar[bool] = True

    def act(
        self,
        observation: Mapping[str, Tensor],
        action_mask: Tensor,
        privileged: PrivilegedState | None = None,
    ) -> Tensor:
        """EVICT the farthest, the last row among equals; see `Policy.act`."""
        if privileged is None:
            raise ValueError("Belady's rule plays on the privileged state; none was given.")
        del observation
        state = privileged.state
        layout = ActionLayout(state.slot_page.shape[1], state.candidate_page.shape[1])
        legal = action_mask[:, layout.block(Op.EVICT)]
        ahead = privileged.next_request
        # A page that never comes back is the farthest of all; the requested one first, if it may.
        distance = torch.where(ahead > 0, ahead, torch.iinfo(ahead.dtype).max)
        row = layout.num_rows - 1 - distance.masked_fill(~legal, -1).flip(1).argmax(dim=1)
        presses = state.slot_page[:, -1] != EMPTY
        return torch.where(presses & legal.any(dim=1), layout.start(Op.EVICT) + row, 0)


class Belady(FarthestFirst):
    """The exact bound of a page cache whose pages have one size.

    Under `admission="forced"` this is `belady_min`, under "optional" `belady_bypass`, which also
    lets the requested page pass.

    Args:
        options: that it is to be played under.

    Raises:
        ValueError: if the rule is not optimal under these options.
    """

    def __init__(self, options: PagingOptions) -> None:
        sees_all = options.evict_scope == "any" and options.shown_slots is None
        if options.unit != "pages" or not sees_all:
            raise ValueError(
                "Belady's rule is optimal for pages of one size, all of which it may evict: it "
                f"needs unit='pages', evict_scope='any' and shown_slots=None, got "
                f"{options.unit!r}, {options.evict_scope!r} and {options.shown_slots}."
            )
