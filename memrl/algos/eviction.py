"""What a page cache's learner regresses: how far off the next request of each page is.

Belady's rule evicts the page whose next request is farthest, so the logarithm of that distance is
the value of evicting a page. Labels are its difference to the victim's, which YIELD evicts: greedy
play of a network that fits them is Belady's rule, as far as the future can be told. PARROT (Liu et
al., ICML 2020) regresses the same and adds a ranking loss, because only the order decides; so does
this.
"""

from __future__ import annotations

from collections.abc import Mapping

import torch
from torch import Tensor

from memrl.actions import ActionLayout, Op
from memrl.observation import LIMIT
from memrl.options import PagingOptions
from memrl.policies.base import Policy
from memrl.policies.belady import FarthestFirst
from memrl.policies.heuristics import CacheEviction, UniformRandom, YieldOnly
from memrl.privileged import PrivilegedState

_ILLEGAL = -1e9


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
    predicted: Tensor, batch: Mapping[str, Tensor], layout: ActionLayout, gain_scale: float
) -> Tensor:
    """Cross-entropy of the order of evictions (ListNet, Cao et al., ICML 2007).

    The page to evict is drawn with probabilities proportional to its distance, on both sides: of
    labels and of predictions. It is least where the predictions are the labels, as the squared
    error is, but for a constant.

    Args:
        predicted, batch, layout, gain_scale: as for `memrl.algos.gain_regression.gain_loss`.
    """
    block = layout.block(Op.EVICT)
    legal = batch["action_mask"][:, block]
    target = (batch["labels"][:, block] / gain_scale).masked_fill(~legal, _ILLEGAL).softmax(dim=1)
    log_drawn = predicted[:, block].masked_fill(~legal, _ILLEGAL).log_softmax(dim=1)
    has_choice = legal.any(dim=1)
    entropy = -(target * log_drawn * legal).sum(dim=1)
    return (entropy * has_choice).sum() / has_choice.sum().clamp(min=1)


def cache_teachers(generator: torch.Generator) -> list[Policy]:
    """Who plays the states of the first round, and some of later ones.

    Args:
        generator: of the random policy.
    """
    return [
        CacheEviction("recency"),
        CacheEviction("frequency"),
        YieldOnly(),
        UniformRandom(generator),
        FarthestFirst(),
    ]
