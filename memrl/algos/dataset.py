"""Decisions kept to learn from."""

from __future__ import annotations

from collections.abc import Mapping

import numpy as np
import numpy.typing as npt
import torch
from torch import Tensor

INPUTS = ("slots", "candidates", "globals")


class DecisionDataset:
    """Observations, masks and further columns of decision points, appended chunk by chunk.

    Features are kept in half precision (they are scores and shares of order 1), the rest as it is.
    """

    def __init__(self) -> None:
        self._chunks: list[dict[str, Tensor]] = []
        self._length = 0

    def __len__(self) -> int:
        """Number of decisions."""
        return self._length

    @property
    def num_bytes(self) -> int:
        """Memory that the decisions take, on whatever device they are."""
        return sum(values.nbytes for chunk in self._chunks for values in chunk.values())

    def append(self, observation: Mapping[str, Tensor], mask: Tensor, **columns: Tensor) -> None:
        """Add M decisions: observation (M, ...), mask (M, A) bool, further columns (M, ...)."""
        chunk = {name: observation[name].half() for name in INPUTS}
        chunk["action_mask"] = mask.clone()
        self._chunks.append(chunk | {name: values.clone() for name, values in columns.items()})
        self._length += len(mask)

    def consolidate(self) -> None:
        """Merge the chunks, so that sampling is one gather; cheap when nothing was added."""
        if len(self._chunks) > 1:
            names = self._chunks[0].keys()
            merged = {name: torch.cat([chunk[name] for chunk in self._chunks]) for name in names}
            self._chunks = [merged]

    def sample(
        self, batch_size: int, rng: np.random.Generator, device: torch.device
    ) -> dict[str, Tensor]:
        """Draw decisions uniformly with replacement; see `rows`."""
        index: npt.NDArray[np.int64] = rng.integers(self._length, size=batch_size)
        return self.rows(torch.from_numpy(index), device)

    def rows(self, index: Tensor, device: torch.device) -> dict[str, Tensor]:
        """The given decisions, (M,) int64; features come back in single precision."""
        self.consolidate()
        (chunk,) = self._chunks
        batch = {
            name: values.index_select(0, index.to(values.device)).to(device)
            for name, values in chunk.items()
        }
        return batch | {name: batch[name].float() for name in INPUTS}

    def column(self, name: str) -> Tensor:
        """One column of all decisions, in the order in which they were added."""
        self.consolidate()
        return self._chunks[0][name]
