"""Which rows of a batch something happens to, and how they are written.

The transitions are written once for two ways of running them. On a CPU it pays to gather the rows
concerned by index, so that the cost follows their number (`select` with `fixed_shapes=False`). A
compiled or captured step must not look at values on the host, nor change shapes: there all rows
are computed, and only those concerned are written.
"""

from __future__ import annotations

from dataclasses import dataclass

import torch
from torch import Tensor


@dataclass(frozen=True)
class Rows:
    """Rows of a batch.

    Attributes:
        index: (b,) int64, distinct.
        valid: (b,) bool, those of them that are meant; None for all.
    """

    index: Tensor
    valid: Tensor | None = None

    @property
    def is_empty(self) -> bool:
        """Whether nothing is to be done; rows of fixed shape are never known to be empty."""
        return self.valid is None and not len(self.index)

    def write(self, target: Tensor, value: Tensor | float, *place: Tensor | slice | int) -> None:
        """Write `target[index, *place] = value` for the rows that are meant."""
        where = (self.index, *place)
        target[where] = value if self.valid is None else self._kept(target[where], value, 0)

    def write_block(
        self, target: Tensor, value: Tensor | float, *place: Tensor | slice | int
    ) -> None:
        """The same for a block whose rows lie on axis 1: `target[:, index, *place] = value`."""
        where = (slice(None), self.index, *place)
        target[where] = value if self.valid is None else self._kept(target[where], value, 1)

    def mask(self, num_envs: int, flags: Tensor) -> Tensor:
        """(B,) bool: the rows that are meant and flagged; flags is (b,) bool."""
        if self.valid is not None:
            return self.valid & flags
        marked = torch.zeros(num_envs, dtype=torch.bool, device=flags.device)
        marked[self.index] = flags
        return marked

    def _kept(self, old: Tensor, value: Tensor | float, axis: int) -> Tensor:
        assert self.valid is not None
        shape = [1] * old.dim()
        shape[axis] = -1
        meant = self.valid.reshape(shape)
        if isinstance(value, Tensor):
            return torch.where(meant, value.to(old.dtype), old)
        return old.masked_fill(meant, value)


class RowSelector:
    """Makes `Rows` of masks.

    Args:
        num_envs: B. fixed_shapes: see the module docstring. device: of the masks.
    """

    def __init__(self, num_envs: int, fixed_shapes: bool, device: torch.device) -> None:
        self.fixed_shapes = fixed_shapes
        self._all = torch.arange(num_envs, device=device)

    def __call__(self, mask: Tensor) -> Rows:
        """Rows where the mask, (B,) bool, is set."""
        if self.fixed_shapes:
            return Rows(self._all, mask)
        return Rows(mask.nonzero()[:, 0])
