"""The learned policy: a set encoder with pointer heads, and greedy play on what it predicts.

Rows (slots, candidates) are encoded by shared weights and pooled, so the network is equivariant to
permutations of the slots and of the candidates, and its parameters do not depend on their number.
An action's value is the sum of what its operation is worth in this situation and what its argument
(a row) is worth for it: operation, then argument, as one flat vector over the action space.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from typing import ClassVar

import torch
from torch import Tensor, nn

from memrl.actions import Op
from memrl.observation import FEATURES, GLOBALS
from memrl.policies.base import FEATURE, layout_of
from memrl.privileged import PrivilegedState

_SLOT_OPS = (Op.EVICT, Op.STORE, Op.SEARCH)  # in the order of the action space


class SetNetwork(nn.Module):
    """Maps observations to one number per action; YIELD's is 0.

    Args:
        hidden: width of every layer.
        dropout: share of the encoded units that training drops.
    """

    def __init__(self, hidden: int = 64, dropout: float = 0.0) -> None:
        super().__init__()
        self.slot_encoder = nn.Linear(len(FEATURES), hidden)
        self.candidate_encoder = nn.Linear(len(FEATURES), hidden)
        self.global_encoder = nn.Linear(len(GLOBALS), hidden)
        self.context = nn.Sequential(nn.Linear(5 * hidden, hidden), nn.ReLU(), nn.Dropout(dropout))
        self.slot_pointer = _Pointer(hidden, len(_SLOT_OPS))
        self.candidate_pointer = _Pointer(hidden, 1)
        self.operation_head = nn.Linear(hidden, len(Op) - 1)

    def forward(self, observation: Mapping[str, Tensor]) -> Tensor:
        """Return (B, A) values, legal or not; mask them before use."""
        slots, candidates = observation["slots"], observation["candidates"]
        slot_rows = self.slot_encoder(slots).relu()  # (B, N, H)
        candidate_rows = self.candidate_encoder(candidates).relu()  # (B, K, H)
        context = self.context(
            torch.cat(
                [
                    self.global_encoder(observation["globals"]).relu(),
                    *_pool(slot_rows, slots[..., FEATURE["occupied"]]),
                    *_pool(candidate_rows, candidates[..., FEATURE["occupied"]]),
                ],
                dim=-1,
            )
        )
        operation = self.operation_head(context)  # (B, 5): NEXT, EVICT, STORE, SEARCH, RETRIEVE
        slot_values = self.slot_pointer(slot_rows, context).transpose(1, 2)  # (B, 3, N)
        slot_values = slot_values + operation[:, 1:4, None]
        candidate_values = self.candidate_pointer(candidate_rows, context)[..., 0]
        return torch.cat(
            [
                torch.zeros_like(operation[:, :1]),
                operation[:, :1],
                slot_values.flatten(1),
                candidate_values + operation[:, 4:],
            ],
            dim=1,
        )


class _Pointer(nn.Module):
    """Values of every row for each of several operations, given the context."""

    def __init__(self, hidden: int, num_operations: int) -> None:
        super().__init__()
        self.row = nn.Linear(hidden, hidden)
        self.context = nn.Linear(hidden, hidden, bias=False)
        self.out = nn.Linear(hidden, num_operations)

    def forward(self, rows: Tensor, context: Tensor) -> Tensor:
        mixed: Tensor = self.out((self.row(rows) + self.context(context)[:, None]).relu())
        return mixed


def _pool(rows: Tensor, occupied: Tensor) -> tuple[Tensor, Tensor]:
    """Mean and maximum over the occupied rows; 0 where there are none. Rows are (B, R, H), >= 0."""
    if rows.shape[1] == 0:
        nothing = rows.new_zeros((rows.shape[0], rows.shape[2]))
        return nothing, nothing
    kept = rows * occupied[..., None]
    mean = kept.sum(dim=1) / occupied.sum(dim=1, keepdim=True).clamp(min=1.0)
    return mean, kept.amax(dim=1)


@dataclass
class GreedyGain:
    """Plays the legal action with the greatest predicted gain over YIELD, if any is above 0.

    Attributes:
        network: predicts gains in units of `gain_scale`.
        gain_scale: reward that one unit of the network's output stands for.
        store_offset: reward added to the gain of every STORE; chosen on validation as a control.
    """

    network: SetNetwork
    gain_scale: float
    store_offset: float = 0.0
    is_privileged: ClassVar[bool] = False

    @torch.no_grad()
    def act(
        self,
        observation: Mapping[str, Tensor],
        action_mask: Tensor,
        privileged: PrivilegedState | None = None,
    ) -> Tensor:
        """Best predicted gain; see `Policy.act`."""
        del privileged
        device = next(self.network.parameters()).device
        self.network.eval()
        moved = {name: observation[name].to(device) for name in ("slots", "candidates", "globals")}
        gains = self.network(moved) * self.gain_scale
        gains[:, layout_of(observation).block(Op.STORE)] += self.store_offset
        best: Tensor = gains.masked_fill(~action_mask.to(device), -torch.inf).argmax(dim=1)
        return best
