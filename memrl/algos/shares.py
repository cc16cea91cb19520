"""What one of several ranks plays and learns from, so that all together do what one would do.

Rows and episodes are numbered as one process would number them. A rank has a stretch of them side
by side, and draws what their numbers draw (`memrl.draws`). Decisions are numbered in the order in
which one process keeps them. Minibatches are drawn from these numbers, on all ranks alike, and each
rank takes the decisions that it has. So every minibatch holds the decisions that it would hold in
one process, whatever the number of ranks. What remains of a difference is the rounding of sums in
another order. (Dropout is the exception: its draws follow the decisions of a rank.)
"""

from __future__ import annotations

import math
from dataclasses import dataclass

import numpy as np
import numpy.typing as npt
import torch
from torch import Tensor

from memrl.distributed import ALONE, RankError, Ranks


@dataclass(frozen=True)
class Share:
    """A rank's stretch of numbered things, and of the numbers that the ranks find on them.

    Attributes:
        ranks: who shares.
        start, stop: numbers start..stop-1 are this rank's.
    """

    ranks: Ranks
    start: int
    stop: int

    @classmethod
    def of(cls, ranks: Ranks, total: int, name: str) -> Share:
        """Divide `total` things as evenly as possible.

        Raises:
            RankError: if a rank would have none; the message calls them `name`.
        """
        if total < ranks.world_size:
            raise RankError(
                f"{name} is {total}, too few for {ranks.world_size} processes: raise it, or start "
                "fewer."
            )
        start, stop = (total * rank // ranks.world_size for rank in (ranks.rank, ranks.rank + 1))
        return cls(ranks, start, stop)

    @classmethod
    def alone(cls, total: int) -> Share:
        """All of them."""
        return cls(ALONE, 0, total)

    def __len__(self) -> int:
        """How many this rank has."""
        return self.stop - self.start

    @property
    def own(self) -> slice:
        """Where they are among all."""
        return slice(self.start, self.stop)

    def sums(self, *values: float) -> list[float]:
        """Each number's sum over the ranks."""
        summed: list[float] = self.ranks.sum(torch.tensor(values, dtype=torch.float64)).tolist()
        return summed

    def highest(self, value: float) -> float:
        """The highest of the ranks' numbers."""
        return max(map(float, self.ranks.gather(torch.tensor([value], dtype=torch.float64))))

    def mean(self, values: npt.NDArray[np.float64]) -> float:
        """Mean of all ranks' values, each (M,)."""
        count, total = self.sums(values.size, values.sum())
        return total / count

    def std(self, values: npt.NDArray[np.float64]) -> float:
        """Standard deviation of all ranks' values, each (M,)."""
        deviation = values - self.mean(values)
        return math.sqrt(self.mean(deviation * deviation))


def require_decisions(ranks: Ranks, count: int) -> None:
    """Raise RankError where one of several ranks has none to learn from."""
    if not (ranks.is_alone or count):
        raise RankError("its episodes have no decision to learn from: start fewer processes.")


class Places:
    """Where this rank's decisions stand among those of all ranks.

    Args:
        ranks: who shares.

    Attributes:
        total: decisions of all ranks so far.
    """

    def __init__(self, ranks: Ranks = ALONE) -> None:
        self._ranks = ranks
        self.total = 0
        self._own: list[Tensor] = []
        self._row_of: Tensor | None = None  # (total,) row in this rank's data, -1 elsewhere

    def add(self, counts: Tensor) -> None:
        """Add what all ranks have decided since; all of them call this together.

        Args:
            counts: (T,) int64 decisions of this rank at each step. All ranks' decisions at a step
                come before those at the next one, and within a step rank by rank.
        """
        if self._ranks.is_alone:
            self.total += int(counts.sum())
            return
        by_rank = torch.nn.utils.rnn.pad_sequence(self._ranks.gather(counts), batch_first=True)
        at_step = by_rank.sum(dim=0)  # (longest T,)
        first = self.total + at_step.cumsum(0) - at_step + by_rank[: self._ranks.rank].sum(dim=0)
        own = by_rank[self._ranks.rank]
        within = torch.arange(int(own.sum())) - (own.cumsum(0) - own).repeat_interleave(own)
        self._own.append(first.repeat_interleave(own) + within)
        self.total += int(at_step.sum())
        self._row_of = None

    def own(self, index: Tensor) -> Tensor:
        """Rows of this rank's data, for those of the numbered decisions (M,) that it has."""
        if self._ranks.is_alone:
            return index
        if self._row_of is None:
            places = torch.cat(self._own)
            self._row_of = torch.full((self.total,), -1)
            self._row_of[places] = torch.arange(len(places))
        rows = self._row_of[index]
        return rows[rows >= 0]
