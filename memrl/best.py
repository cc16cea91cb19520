"""The best policy so far by its validation score, kept with its weights."""

from __future__ import annotations

import math
from collections.abc import Mapping
from typing import Any

import torch
from torch import Tensor, nn


class BestSoFar:
    """Remembers the weights with the highest validation score; the earlier one among equals.

    Args:
        module: whose weights are kept.

    Attributes:
        score: reward per question on validation, -inf before the first. round: where it was
            reached.
    """

    def __init__(self, module: nn.Module) -> None:
        self._module = module
        self._weights = self._copy()
        self.score = -math.inf
        self.round = -1

    def offer(self, score: float, number: int) -> None:
        """Keep the module's present weights if their score is the highest."""
        if score > self.score:
            self.score, self.round, self._weights = score, number, self._copy()

    def load_into_module(self) -> None:
        """Put the kept weights into the module."""
        self._module.load_state_dict(self._weights)

    def checkpoint(self) -> tuple[dict[str, Tensor], dict[str, Any]]:
        """Tensors and JSON state that `restore` takes."""
        tensors = {f"best.{name}": value for name, value in self._weights.items()}
        return tensors, {"score": self.score, "round": self.round}

    def restore(self, tensors: Mapping[str, Tensor], state: Mapping[str, Any]) -> None:
        """Put back what `checkpoint` returned."""
        self._weights = {name: tensors[f"best.{name}"].clone() for name in self._weights}
        self.score, self.round = float(state["score"]), int(state["round"])

    def _copy(self) -> dict[str, torch.Tensor]:
        return {name: value.cpu().clone() for name, value in self._module.state_dict().items()}
