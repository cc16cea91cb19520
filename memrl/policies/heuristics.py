"""Policies with nothing learned but, at most, a threshold: what every learned policy has to beat.

All are functions of the observation, so they see exactly what a learned policy sees.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from typing import ClassVar, Literal

import torch
from torch import Tensor

from memrl.actions import Op
from memrl.flags import first_true
from memrl.policies.base import FEATURE, GLOBAL, first_legal, layout_of
from memrl.privileged import PrivilegedState

Observation = Mapping[str, Tensor]


class YieldOnly:
    """Never does anything: FIFO eviction, no memory beyond main context.

    With the option `evict_fraction=.5` this is MemGPT's queue without its functions.
    """

    is_privileged: ClassVar[bool] = False

    def act(
        self,
        observation: Observation,
        action_mask: Tensor,
        privileged: PrivilegedState | None = None,
    ) -> Tensor:
        """YIELD everywhere; see `Policy.act`."""
        del observation, privileged
        return torch.zeros(len(action_mask), dtype=torch.int64, device=action_mask.device)


class UniformRandom:
    """A legal action drawn uniformly.

    Args:
        generator: where the draws come from; they are made on its device.
    """

    is_privileged: ClassVar[bool] = False

    def __init__(self, generator: torch.Generator) -> None:
        self._generator = generator

    def act(
        self,
        observation: Observation,
        action_mask: Tensor,
        privileged: PrivilegedState | None = None,
    ) -> Tensor:
        """Draw; see `Policy.act`."""
        del observation, privileged
        weights = action_mask.to(self._generator.device).float()
        drawn = torch.multinomial(weights, 1, generator=self._generator)[:, 0]
        return drawn.to(action_mask.device)


@dataclass(frozen=True)
class CacheEviction:
    """Chooses the victim as a cache would, and uses no storage; needs `evict_scope="any"`.

    Attributes:
        by: "recency" evicts the least recently used page (LRU), "frequency" the least often used
            one, among equals the least recently used (LFU). A use is a query that ranks the page
            first among the residents (these policies neither retrieve nor search).
    """

    by: Literal["recency", "frequency"]
    is_privileged: ClassVar[bool] = False

    def act(
        self,
        observation: Observation,
        action_mask: Tensor,
        privileged: PrivilegedState | None = None,
    ) -> Tensor:
        """EVICT under pressure, YIELD at queries; see `Policy.act`."""
        del privileged
        layout = layout_of(observation)
        slots = observation["slots"]
        key = slots[..., FEATURE["since_last_use"]].double()
        if self.by == "frequency":
            key = key - 1e6 * slots[..., FEATURE["uses"]].double()
        legal = action_mask[:, layout.block(Op.EVICT)] & (slots[..., FEATURE["arriving"]] == 0)
        row = key.masked_fill(~legal, -torch.inf).argmax(dim=1)
        evicts = legal.any(dim=1) & (observation["globals"][:, GLOBAL["under_pressure"]] > 0)
        return torch.where(evicts, layout.start(Op.EVICT) + row, 0)


@dataclass(frozen=True)
class StoreAndRetrieve:
    """Stores what is about to be lost, and brings the first k candidates back at every query.

    Attributes:
        top_k: pages retrieved for a query. What ranks them is the environment's `staging`.
        store_threshold: stores a page when the fitted page scorer's logit reaches it; -inf stores
            every page, +inf none.
    """

    top_k: int
    store_threshold: float = -torch.inf
    is_privileged: ClassVar[bool] = False

    def act(
        self,
        observation: Observation,
        action_mask: Tensor,
        privileged: PrivilegedState | None = None,
    ) -> Tensor:
        """STORE before loss, RETRIEVE in order of rank, else YIELD; see `Policy.act`."""
        del privileged
        layout = layout_of(observation)
        slots, situation = observation["slots"], observation["globals"]
        at_query = situation[:, GLOBAL["at_query"]] > 0
        retrieve, can_retrieve = first_legal(action_mask, layout, Op.RETRIEVE)
        wants = at_query & can_retrieve & (slots[..., FEATURE["retrieved"]].sum(dim=1) < self.top_k)

        prior_logit = 4.0 * slots[..., FEATURE["prior"]]
        is_victim = slots[..., FEATURE["victim"]] > 0
        worth = action_mask[:, layout.block(Op.STORE)] & is_victim
        worth = worth & (prior_logit >= self.store_threshold)
        # At a query a page is lost only if something is retrieved into its place.
        stores = worth.any(dim=1) & (~at_query | wants)
        store = layout.start(Op.STORE) + first_true(worth)
        return torch.where(stores, store, torch.where(wants, retrieve, 0))


@dataclass(frozen=True)
class ChainSearch:
    """Follows what it finds: searches from each page that it has retrieved, until nothing matches.

    MemGPT's prompt for nested key-value retrieval asks for the same: search on for the value until
    no pair has it as its key (arXiv 2310.08560v2, section 3.2.2). It stores nothing.

    Attributes:
        threshold: least lexical score of a candidate that is worth retrieving.
    """

    threshold: float
    is_privileged: ClassVar[bool] = False

    def act(
        self,
        observation: Observation,
        action_mask: Tensor,
        privileged: PrivilegedState | None = None,
    ) -> Tensor:
        """RETRIEVE the first match, else SEARCH from a new page, else YIELD; see `Policy.act`."""
        del privileged
        layout = layout_of(observation)
        slots, candidates = observation["slots"], observation["candidates"]
        mask = action_mask.clone()
        matches = candidates[..., FEATURE["lexical"]] >= self.threshold
        mask[:, layout.block(Op.RETRIEVE)] &= matches
        # Being retrieved is the first use of a page, a search from it the second.
        used_once = 4.0 * slots[..., FEATURE["uses"]] < 1.5
        mask[:, layout.block(Op.SEARCH)] &= (slots[..., FEATURE["retrieved"]] > 0) & used_once
        retrieve, can_retrieve = first_legal(mask, layout, Op.RETRIEVE)
        search, can_search = first_legal(mask, layout, Op.SEARCH)
        return torch.where(can_retrieve, retrieve, torch.where(can_search, search, 0))
