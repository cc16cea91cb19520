"""Flags along an axis of a tensor."""

from __future__ import annotations

import torch
from torch import Tensor


def first_true(flags: Tensor) -> Tensor:
    """Index of the first True along the last axis; 0 where there is none.

    Not argmax over bytes: compiled for a CPU (torch 2.13) it can give indices that do not exist.

    Args:
        flags: (..., n) bool, n at least 1.

    Returns:
        (...) int64.
    """
    size = flags.shape[-1]
    falling = torch.arange(size, 0, -1, device=flags.device)
    best = (flags * falling).amax(dim=-1)
    return torch.where(best > 0, size - best, 0)
