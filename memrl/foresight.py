"""What later queries make a page worth: the base of clairvoyant play and of training labels."""

from __future__ import annotations

from typing import NamedTuple

import torch
from torch import Tensor

from memrl.memory.paging import EMPTY
from memrl.privileged import PrivilegedState


def shares(needs: Tensor) -> Tensor:
    """Evidence that one page of a query's needs is worth: 1 / their number, 0 without any.

    Args:
        needs: (..., R) pages, -1 padded.

    Returns:
        (...) float32.
    """
    count = (needs != EMPTY).sum(dim=-1)
    return torch.where(count > 0, 1.0 / count.clamp(min=1), 0.0)


def worth_when_archived(
    privileged: PrivilegedState, *, evidence_weight: float, retrieve_cost: float
) -> Tensor:
    """(B, Q) reward that each later query pays for one of its pages in archival, net of retrieval.

    Args:
        privileged: the hidden truth of B episodes.
        evidence_weight: reward of a query's whole evidence.
        retrieve_cost: what bringing the page back costs.
    """
    gain = evidence_weight * shares(privileged.future_needs) - retrieve_cost
    return gain.clamp(min=0.0)


def future_value(
    privileged: PrivilegedState,
    page: Tensor,
    *,
    absent_after: Tensor,
    evidence_weight: float,
    retrieve_cost: float,
    archive_events: Tensor,
) -> Tensor:
    """Reward that a stored copy of each page would bring back, net of retrieving it.

    Counts the later queries that need the page, are asked after it has left main context, and
    before the archive drops it.

    Args:
        privileged: the hidden truth of B episodes.
        page: (B, M) pages, -1 for none.
        absent_after: (B, M) events from now for which the page stays in main context.
        evidence_weight: reward of a query's whole evidence.
        retrieve_cost: what bringing the page back costs each time.
        archive_events: (B,) float32, events from now for which archival would keep it.

    Returns:
        (B, M) float32, 0 or more.
    """
    ahead = privileged.future_events[:, None]  # (B, 1, Q)
    gain = worth_when_archived(
        privileged, evidence_weight=evidence_weight, retrieve_cost=retrieve_cost
    )[:, None]
    is_needed = (privileged.future_needs[:, None] == page[..., None, None]).any(dim=-1)  # (B, M, Q)
    counts = is_needed & (page != EMPTY)[..., None]
    counts = counts & (ahead > absent_after[..., None]) & (ahead <= archive_events[:, None, None])
    return (gain * counts).sum(dim=-1)


def absent_needs(privileged: PrivilegedState) -> Tensor:
    """(B, R) needs of the query at hand that are not in main context, -1 elsewhere."""
    needs = privileged.needs
    resident = privileged.state.slot_page[:, :-1]
    is_resident = (needs[..., None] == resident[:, None]).any(dim=-1)
    return torch.where(is_resident, EMPTY, needs)


def is_in(page: Tensor, pages: Tensor) -> Tensor:
    """Whether each page (B, M) is among the pages (B, R) of its episode; -1 never is."""
    return (page[..., None] == pages[:, None]).any(dim=-1) & (page != EMPTY)


class RouteAhead(NamedTuple):
    """How far the route of the query at hand has been followed.

    Attributes:
        last: (B,) the page of it in main context that stands nearest to the evidence, -1 for none.
        target: (B,) the page after that, -1 when the evidence comes next or there is no route.
        num_missing: (B,) float32, pages from the target to the end of the route.
        has_route: (B,) bool.
    """

    last: Tensor
    target: Tensor
    num_missing: Tensor
    has_route: Tensor


def route_ahead(privileged: PrivilegedState) -> RouteAhead:
    """Find the next page of each route; there is none once all evidence is in main context."""
    route = privileged.route
    open_ = (absent_needs(privileged) != EMPTY).any(dim=1)
    is_resident = is_in(route, privileged.state.slot_page[:, :-1])
    place = torch.arange(1, route.shape[1] + 1, device=route.device)
    reached = (is_resident * place).amax(dim=1)  # pages up to and with `last`
    none = torch.full_like(route[:, :1], EMPTY)
    padded = torch.cat([none, route, none], dim=1)
    last, target = (padded.gather(1, reached[:, None] + step)[:, 0] for step in (0, 1))
    num_missing = ((route != EMPTY).sum(dim=1) - reached) * open_
    return RouteAhead(
        last=torch.where(open_, last, EMPTY),
        target=torch.where(open_, target, EMPTY),
        num_missing=num_missing.float(),
        has_route=open_ & (route != EMPTY).any(dim=1),
    )


def pages_ahead(privileged: PrivilegedState, pages: Tensor) -> Tensor:
    """Turns of the results until one of certain pages is shown.

    Args:
        privileged: the hidden truth of B episodes.
        pages: (B, R), -1 padded.

    Returns:
        (B,) float32 number of NEXTs, 1 or more; inf where none of the pages comes later.
    """
    num_candidates = max(privileged.state.candidate_page.shape[1], 1)
    place = torch.arange(privileged.ranking.shape[1], device=pages.device)
    turns = (place // num_candidates - privileged.result_page[:, None]).float()
    holds = is_in(privileged.ranking, pages) & (turns > 0)
    return torch.where(holds, turns, torch.inf).amin(dim=1)
