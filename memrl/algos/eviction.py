"""What a page cache's learner regresses: how far off the next request of each page is.

Belady's rule evicts the page whose next request is farthest, so the logarithm of that distance is
the value of evicting a page. Labels are its difference to the victim's, which YIELD evicts: greedy
play of a network that fits them is Belady's rule, as far as the future can be told. PARROT (Liu et
al., ICML 2020) regresses the same and adds a ranking loss, because only the order decides; so does
this.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence

import torch
from torch import Tensor

from memrl.actions import ActionLayout, Op
from memrl.algos.collection import Behaviour
from memrl.distributed import ALONE
from memrl.observation import LIMIT
from memrl.options import PagingOptions
from memrl.policies.base import layout_of
from memrl.policies.belady import FarthestFirst
from memrl.policies.heuristics import CacheEviction, YieldOnly
from memrl.policies.network import log_policy
from memrl.privileged import PrivilegedState

Parts = Sequence[tuple[Tensor, Mapping[str, Tensor]]]
"""Predictions (M, a) of decisions of one kind, and the batch that they are of; for each kind."""


def eviction_labels(privileged: PrivilegedState, options: PagingOptions) -> Tensor:
    """Value of evicting each page over evicting the victim, in nats.

    A page that is not requested again, or only after more events than observations can tell, counts
    as requested then. Where capacity counts tokens, a page is worth evicting by its size as well:
    the logarithm of the product counts.

    Args:
        privileged: the hidden truth of B decision points of page caches.
        options: resolved options.

    Returns:
        (B, A) float32; 0 for YIELD, meaningful for legal EVICTs.
    """
    state, ahead = privileged.state, privileged.next_request
    layout = ActionLayout(state.slot_page.shape[1], state.candidate_page.shape[1])
    farthest = max(LIMIT * options.time_scale, 1.0)
    distance = torch.where(ahead > 0, ahead.float(), farthest).clamp(max=farthest)
    value = distance.log()
    if options.unit == "tokens":
        value = value + state.slot_size.clamp(min=1).log()
    of_victim = (value * state.victim_rows()).sum(dim=1, keepdim=True)
    labels = value.new_zeros((len(value), layout.num_actions))
    labels[:, layout.block(Op.EVICT)] = (value - of_victim) * (state.slot_page >= 0)
    return labels


def ranking_loss(
    parts: Parts, gain_scale: float, sum_over_ranks: Callable[[Tensor], Tensor] = ALONE.sum
) -> Tensor:
    """Cross-entropy of the order of evictions (ListNet, Cao et al., ICML 2007).

    The page to evict is drawn with probabilities proportional to its distance, on both sides: of
    labels and of predictions. It is least where the predictions are the labels, as the squared
    error is, but for a constant. It is averaged over the decisions of the whole batch that have a
    choice.

    Args:
        parts, gain_scale: as for `memrl.algos.gain_regression.gain_loss`.
        sum_over_ranks: of the number of decisions.
    """
    entropies, counts = [], []
    for predicted, batch in parts:
        block = layout_of(batch).block(Op.EVICT)
        legal = batch["action_mask"][:, block]
        labels = batch["labels"][:, block] / gain_scale
        target, log_drawn = log_policy(labels, legal).exp(), log_policy(predicted[:, block], legal)
        has_choice = legal.any(dim=1)
        entropies.append((-(target * log_drawn * legal).sum(dim=1) * has_choice).sum())
        counts.append(has_choice.sum())
    count = sum_over_ranks(torch.stack(counts).sum(dim=0)).clamp(min=1)
    return torch.stack(entropies).sum(dim=0) / count


def cache_teachers() -> list[Behaviour]:
    """Who plays the states of the first round, and some of later ones."""
    return [
        Behaviour(CacheEviction("recency")),
        Behaviour(CacheEviction("frequency")),
        Behaviour(YieldOnly()),
        Behaviour(YieldOnly(), exploration=1.0),
        Behaviour(FarthestFirst()),
    ]
