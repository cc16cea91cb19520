"""Decisions kept to learn from."""

from __future__ import annotations

from collections.abc import Mapping, Sequence

import numpy as np
import numpy.typing as npt
import torch
from torch import Tensor

from memrl.algos.shares import Places
from memrl.policies.network import CONTEXT_SLOTS

INPUTS = ("slots", "candidates", "globals")


def _inputs(observation: Mapping[str, Tensor]) -> tuple[str, ...]:
    return (*INPUTS, CONTEXT_SLOTS) if CONTEXT_SLOTS in observation else INPUTS


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
        chunk = {name: observation[name].half() for name in _inputs(observation)}
        chunk["action_mask"] = mask.clone()
        self._chunks.append(chunk | {name: values.clone() for name, values in columns.items()})
        self._length += len(mask)

    def extend(self, other: DecisionDataset, order: Tensor, leave_out: str) -> None:
        """Add another dataset's decisions in the order of an index, (M,) int64, less a column."""
        other.consolidate()
        (chunk,) = other._chunks
        kept = {name: values[order] for name, values in chunk.items() if name != leave_out}
        self._chunks.append(kept)
        self._length += len(order)

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
        return batch | {name: batch[name].float() for name in _inputs(batch)}

    def column(self, name: str) -> Tensor:
        """One column of all decisions, in the order in which they were added."""
        self.consolidate()
        return self._chunks[0][name]


class DecisionsByKind:
    """Decisions of several kinds, whose observations differ in shape; drawn as if they were one.

    Args:
        kinds: names of the kinds.
    """

    def __init__(self, kinds: Sequence[str]) -> None:
        self._kinds = {kind: DecisionDataset() for kind in kinds}

    def __len__(self) -> int:
        """Number of decisions of all kinds."""
        return sum(map(len, self._kinds.values()))

    def __getitem__(self, kind: str) -> DecisionDataset:
        """The decisions of one kind."""
        return self._kinds[kind]

    def lengths(self) -> dict[str, int]:
        """Number of decisions of each kind."""
        return {kind: len(dataset) for kind, dataset in self._kinds.items()}

    def sample(
        self,
        batch_size: int,
        rng: np.random.Generator,
        device: torch.device,
        places: Mapping[str, Places] | None = None,
    ) -> dict[str, dict[str, Tensor]]:
        """Draw decisions uniformly with replacement; by kind, as `DecisionDataset.rows` gives them.

        Kinds of which none is drawn are left out.

        Args:
            places: of several ranks that draw together, where the decisions here stand among those
                of all. Of what is drawn those here are given; if there are none, no rows of a kind.
        """
        totals = self.lengths()
        if places is not None:
            totals = {kind: places[kind].total for kind in totals}
        index = torch.from_numpy(rng.integers(sum(totals.values()), size=batch_size))
        drawn, first = {}, 0
        for kind, total in totals.items():
            own = index[(index >= first) & (index < first + total)] - first
            if places is not None:
                own = places[kind].own(own)
            if len(own):
                drawn[kind] = self._kinds[kind].rows(own, device)
            first += total
        if not drawn:
            kind = next(kind for kind, length in self.lengths().items() if length)
            drawn[kind] = self._kinds[kind].rows(index[:0], device)
        return drawn
