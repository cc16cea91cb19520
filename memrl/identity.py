"""Which page is which, for policies of page caches that track pages (ARC, S3-FIFO, SIEVE).

A policy is told pages by *handles*: random numbers of 31 bits that stay with a page for an episode
and are others in every other one, so that nothing can be known by them but that a page is the same.
They and the exact clocks beside them are no part of the observation: an environment gives them in
`info`, and a group of episodes beside its observations.
"""

from __future__ import annotations

import torch
from torch import Tensor

from memrl.draws import random_words
from memrl.memory.paging import EMPTY
from memrl.state import PagingState

IDENTITY = ("handles", "sizes", "time_in", "last_use", "uses")
"""What `identity` tells of every slot row."""

_BITS = 31
_MASK = (1 << _BITS) - 1
_ODD = (0x2C1B3C6D, 0x297A2D39)
_SEED = 1


def identity(state: PagingState) -> dict[str, Tensor]:
    """What a policy that tracks pages is told, by the names of `IDENTITY`; all (B, N) int64.

    `handles` are -1 and `sizes` (in the unit of capacity) 0 for rows without a page. `time_in` and
    `last_use` are clocks, in events; those of the arriving page are the present one. `uses` counts
    uses since the page came in: in a page cache, its hits.
    """
    return {
        "handles": page_handles(state),
        "sizes": state.slot_size,
        "time_in": state.slot_time_in,
        "last_use": state.slot_last_use,
        "uses": state.slot_uses,
    }


def page_handles(state: PagingState) -> Tensor:
    """(B, N) handles of the pages in the slot rows, -1 for none; different pages have others.

    They are a keyed permutation of the pages' numbers; the key is that of the episode's window.
    """
    key = random_words(_SEED, state.document, state.first_page)[:, None]
    page = state.slot_page.clamp(min=0)
    handle = (page ^ key) & _MASK
    for turn, odd in enumerate(_ODD):  # each step can be undone, so that no two pages meet
        handle = (handle * odd) & _MASK
        handle = handle ^ (handle >> 15) ^ ((key >> (8 * turn + 9)) & _MASK)
    return torch.where(state.slot_page == EMPTY, EMPTY, handle)
