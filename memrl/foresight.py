"""What later queries make a page worth: the base of clairvoyant play and of training labels."""

from __future__ import annotations

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
    gain = evidence_weight * shares(privileged.future_needs) - retrieve_cost
    gain = gain.clamp(min=0.0)[:, None]
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
