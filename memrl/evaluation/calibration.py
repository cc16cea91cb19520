"""Whether predicted gains come true: predictions beside labels on the same decisions, in bins.

Gain regression predicts what every legal operation gains over YIELD. On test documents, at the
decisions that greedy play comes to, each prediction is set beside the label that the known needs
give there (`memrl.algos.labels`, with the run's own shares of later value). Counts and means of
equal bins are kept, so that the bins of several runs can be put together.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping
from dataclasses import dataclass
from typing import ClassVar

import torch
from pydantic import ConfigDict
from torch import Tensor

from memrl.actions import Op
from memrl.algos.labels import gain_labels
from memrl.config import LearnerConfig
from memrl.evaluation.lineup import Arena
from memrl.policies.base import Contestant, layout_of
from memrl.policies.network import GreedyGain
from memrl.privileged import PrivilegedState
from memrl.state import TableTensors

BIN_WIDTH = 0.1
"""Reward that a bin of predicted gains spans."""
MOST_EPISODES = 64
"""Test episodes that are played for it, evenly spread."""
_FURTHEST = 30  # bins from 0 on either side; what is further out counts in the last one


@dataclass(frozen=True)
class CalibrationBin:
    """Legal actions of one operation whose predicted gains lie in one bin.

    Attributes:
        operation: its lower-case name. place: gains from `place * BIN_WIDTH` to one width more.
        count: actions. predicted, realised: mean gain in reward, of the network and of the labels.
    """

    operation: str
    place: int
    count: int
    predicted: float
    realised: float


@dataclass(frozen=True)
class Calibration:
    """What `calibration.json` holds.

    Attributes:
        policy: whose predictions they are. episodes: played for it.
        bins: those that hold anything, by operation and place.
    """

    __pydantic_config__: ClassVar[ConfigDict] = ConfigDict(extra="forbid", allow_inf_nan=False)
    policy: str
    episodes: int
    bins: list[CalibrationBin]


class _Witness:
    """Plays as the policy does, and notes predictions and labels of all that is legal."""

    is_privileged: ClassVar[bool] = True

    def __init__(self, policy: GreedyGain, arena: Arena, learner: LearnerConfig) -> None:
        self._policy, self._learner = policy, learner
        self._table, self._options = arena.table, arena.options
        shape = (len(Op), 2 * _FURTHEST, 3)
        self.sums = torch.zeros(shape, dtype=torch.float64)  # count, predicted, realised

    def act(
        self,
        observation: Mapping[str, Tensor],
        action_mask: Tensor,
        privileged: PrivilegedState | None = None,
    ) -> Tensor:
        """Best predicted gain; see `Policy.act`."""
        assert privileged is not None
        scores = self._policy.scores(observation, action_mask).cpu()
        labels = gain_labels(
            privileged,
            TableTensors.from_table(self._table, action_mask.device),
            self._options,
            realization=self._learner.realization,
            staging_realization=self._learner.staging_realization,
            room_price=self._learner.room_price,
        ).cpu()
        layout = layout_of(observation)
        for op in Op:
            if op is not Op.YIELD:
                part = layout.block(op)
                legal = action_mask[:, part].cpu()
                self._add(op, scores[:, part][legal], labels[:, part][legal])
        return scores.argmax(dim=1)

    def _add(self, op: Op, predicted: Tensor, realised: Tensor) -> None:
        place = (predicted / BIN_WIDTH).floor().long().clamp(-_FURTHEST, _FURTHEST - 1) + _FURTHEST
        values = torch.stack([torch.ones_like(predicted), predicted, realised], dim=1)
        self.sums[op].index_add_(0, place, values.double())


def calibration_of(
    contestant: Contestant,
    arena: Arena,
    learner: LearnerConfig,
    on_finished: Callable[[int], None] | None = None,
) -> Calibration:
    """Play the episodes of an arena, and compare predictions with labels.

    Args:
        contestant: gain regression, whose policy is `GreedyGain`.
        arena: the test episodes; not of page caches, whose predictions are no rewards.
        learner: how the labels weigh what comes later.
        on_finished: called with 1 for each finished episode.
    """
    assert isinstance(contestant.policy, GreedyGain)
    witness = _Witness(contestant.policy, arena, learner)
    arena.play([Contestant(contestant.name, witness)], on_finished)
    bins = []
    for op in Op:
        for place, (count, predicted, realised) in enumerate(witness.sums[op].tolist()):
            if count:
                means = predicted / count, realised / count
                bins.append(CalibrationBin(op.name.lower(), place - _FURTHEST, int(count), *means))
    return Calibration(contestant.name, len(arena.episodes), bins)
