"""Labelled decisions: what gain regression learns from."""

from __future__ import annotations

from collections.abc import Mapping

import numpy as np
import numpy.typing as npt
import torch
from torch import Tensor

INPUTS = ("slots", "candidates", "globals")


class DecisionDataset:
    """Observations, masks and labels of decision points, appended chunk by chunk.

    Features are kept in half precision (they are scores and shares of order 1), labels in single.
    """

    def __init__(self) -> None:
        self._chunks: list[dict[str, Tensor]] = []
        self._length = 0

    def __len__(self) -> int:
        """Number of decisions."""
        return self._length

    def append(self, observation: Mapping[str, Tensor], mask: Tensor, labels: Tensor) -> None:
        """Add M decisions: observation (M, ...), mask (M, A) bool, labels (M, A) float32."""
        chunk = {name: observation[name].half() for name in INPUTS}
        self._chunks.append(chunk | {"action_mask": mask.clone(), "labels": labels.clone()})
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
        """Draw decisions uniformly with replacement; features come back in single precision."""
        self.consolidate()
        index: npt.NDArray[np.int64] = rng.integers(self._length, size=batch_size)
        (chunk,) = self._chunks
        rows = torch.from_numpy(index)
        batch = {name: values[rows].to(device) for name, values in chunk.items()}
        return batch | {name: batch[name].float() for name in INPUTS}
