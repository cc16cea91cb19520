"""Which slots a policy is shown: all of them, or of a large page cache the victim and a sample.

A sample of a few is enough to evict well (LRB, Song et al., NSDI 2020, looks at 64 of millions).
It is drawn anew at every decision, uniformly and without replacement, as a function of the
episode's window and the decision alone, so that both environments and all copies of an episode draw
alike.
"""

from __future__ import annotations

import dataclasses

import torch
from torch import Tensor

from memrl.draws import random_words
from memrl.flags import first_true
from memrl.memory.paging import EMPTY
from memrl.options import PagingOptions
from memrl.state import PagingState

_SEED = 2
_NO_WORD = 2**53  # more than any word drawn


def shown_slots(state: PagingState, options: PagingOptions) -> Tensor:
    """(B, N) slot of each row that is shown: the victim's, the sample, the arriving page's.

    Where fewer than `options.shown_slots` pages are left beside the victim, the last rows of the
    sample stand for slots that are not shown; `shown_state` makes them empty.
    """
    num_slots = state.slot_page.shape[1] - 1
    if options.shows_all:
        return torch.arange(num_slots + 1, device=state.slot_page.device).expand(
            len(state.slot_page), -1
        )
    assert options.shown_slots is not None
    victim = state.victim_rows()[:, :-1]
    sample = _words(state, victim).topk(options.shown_slots, dim=1, largest=False).indices
    first = first_true(victim)[:, None]
    return torch.cat([first, sample, torch.full_like(first, num_slots)], dim=1)


def _words(state: PagingState, victim: Tensor) -> Tensor:
    """(B, num_slots) int64: random for pages beside the victim; above these, in order, the rest."""
    window = random_words(_SEED, state.document, state.first_page)
    decision = random_words(_SEED, random_words(_SEED, window, state.clock), state.operations_used)
    slot = torch.arange(victim.shape[1], device=victim.device)
    words = random_words(_SEED, decision[:, None], slot[None])
    can_be_drawn = (state.slot_page[:, :-1] != EMPTY) & ~victim
    return torch.where(can_be_drawn, words, _NO_WORD + slot)


def shown_state(state: PagingState, options: PagingOptions) -> PagingState:
    """The state with the shown rows for all slots, and nothing else changed.

    What is counted over all slots has to be taken from the state itself.
    """
    if options.shows_all:
        return state
    slot = shown_slots(state, options)
    rows = {
        field.name: getattr(state, field.name).gather(1, slot)
        for field in dataclasses.fields(state)
        if field.name.startswith("slot_")
    }
    is_victim = state.victim_rows().gather(1, slot)
    position = torch.arange(slot.shape[1], device=slot.device)
    in_sample = (position > 0) & (position < slot.shape[1] - 1)
    is_shown = ~(in_sample & is_victim) & (rows["slot_page"] != EMPTY)
    rows["slot_page"] = torch.where(is_shown, rows["slot_page"], EMPTY)
    rows["slot_size"] = rows["slot_size"] * is_shown
    rows["slot_retrieved"] = rows["slot_retrieved"] & is_shown
    return dataclasses.replace(state, **rows)
