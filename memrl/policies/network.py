"""The learned policy: a set encoder with pointer heads; greedy and sampled play on its predictions.

Rows (slots, candidates) are encoded by shared weights and pooled, so the network is equivariant to
permutations of the slots and of the candidates, and its parameters do not depend on their number.
An action's value is the sum of what its operation is worth in this situation and what its argument
(a row) is worth for it: operation, then argument, as one flat vector over the action space.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from typing import ClassVar

import numpy as np
import torch
from torch import Tensor, nn

from memrl.actions import Op
from memrl.observation import FEATURES, GLOBALS
from memrl.policies.base import FEATURE, layout_of
from memrl.privileged import PrivilegedState

CONTEXT_SLOTS = "context_slots"
"""Entry of an observation that holds all slot rows, (B, N, F), where `slots` holds only those that
operations are about."""

_ILLEGAL = -1e9  # finite, so that 0 x log-probability is 0 and not NaN
_SLOT_OPS = (Op.EVICT, Op.STORE, Op.SEARCH)  # in the order of the action space


class SetEncoder(nn.Module):
    """Encodes the rows of observations and their situation; the trunk of the networks below.

    Args:
        hidden: width of every layer, H.
        dropout: share of the encoded units that training drops.
        slot_pool: whether the context holds a summary of all slots.
    """

    def __init__(self, hidden: int, dropout: float, slot_pool: bool) -> None:
        super().__init__()
        self.slot_pool = slot_pool
        self.slot_encoder = nn.Linear(len(FEATURES), hidden)
        self.candidate_encoder = nn.Linear(len(FEATURES), hidden)
        self.global_encoder = nn.Linear(len(GLOBALS), hidden)
        self.context = nn.Sequential(
            nn.Linear((5 if slot_pool else 3) * hidden, hidden), nn.ReLU(), nn.Dropout(dropout)
        )

    def encoded(self, observation: Mapping[str, Tensor]) -> tuple[Tensor, Tensor, Tensor]:
        """Slot rows (B, N, H), candidate rows (B, K, H) and context (B, H), all >= 0."""
        slots, candidates = observation["slots"], observation["candidates"]
        slot_rows = self.slot_encoder(slots).relu()
        candidate_rows = self.candidate_encoder(candidates).relu()
        parts = [self.global_encoder(observation["globals"]).relu()]
        if self.slot_pool:
            pooled, pooled_rows = slots, slot_rows
            if CONTEXT_SLOTS in observation:
                pooled = observation[CONTEXT_SLOTS]
                pooled_rows = self.slot_encoder(pooled).relu()
            parts += _pool(pooled_rows, pooled[..., FEATURE["occupied"]])
        parts += _pool(candidate_rows, candidates[..., FEATURE["occupied"]])
        return slot_rows, candidate_rows, self.context(torch.cat(parts, dim=-1))


class SetNetwork(SetEncoder):
    """Maps observations to one number per action; YIELD's is 0.

    Args:
        hidden: width of every layer.
        dropout: share of the encoded units that training drops.
        slot_pool: whether the context holds a summary of all slots. Without it the value of an
            operation on a slot depends on that slot, the candidates and the globals alone, so that
            slots on which nothing is legal need not be encoded.
    """

    def __init__(self, hidden: int = 64, dropout: float = 0.0, slot_pool: bool = True) -> None:
        super().__init__(hidden, dropout, slot_pool)
        self.slot_pointer = _Pointer(hidden, len(_SLOT_OPS))
        self.candidate_pointer = _Pointer(hidden, 1)
        self.operation_head = nn.Linear(hidden, len(Op) - 1)

    def forward(self, observation: Mapping[str, Tensor]) -> Tensor:
        """Return (B, A) values, legal or not; mask them before use.

        Args:
            observation: `slots` (B, N, F), `candidates` (B, K, F), `globals` (B, G). With
                `CONTEXT_SLOTS` the action space is that of `slots`, and the values are those that
                they have among all slots.
        """
        slot_rows, candidate_rows, context = self.encoded(observation)
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


class ValueNetwork(SetEncoder):
    """Maps observations to the reward that is still to come; the critic of an actor of its own.

    The context holds a summary of the slots that are shown. The output is standardised by `shift`
    and `scale`, which are not learned; an untrained network expects `shift` everywhere.

    Args:
        hidden: width of every layer.

    Attributes:
        shift, scale: reward at an output of 0, and that of one unit more.
    """

    shift: Tensor
    scale: Tensor

    def __init__(self, hidden: int = 64) -> None:
        super().__init__(hidden, dropout=0.0, slot_pool=True)
        self.value_head = nn.Linear(hidden, 1)
        nn.init.zeros_(self.value_head.weight)
        nn.init.zeros_(self.value_head.bias)
        self.register_buffer("shift", torch.zeros(()))
        self.register_buffer("scale", torch.ones(()))

    def forward(self, observation: Mapping[str, Tensor]) -> Tensor:
        """Return (B,) standardised values."""
        values: Tensor = self.value_head(self.encoded(observation)[2])[:, 0]
        return values


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
    """Plays the legal action with the greatest predicted gain over YIELD, if any is large enough.

    Attributes:
        network: predicts gains in units of `gain_scale`.
        gain_scale: reward that one unit of the network's output stands for.
        margin: gain over YIELD that an action has to be predicted to exceed.
        store_offset: reward added to the gain of every STORE; chosen on validation as a control.
    """

    network: SetNetwork
    gain_scale: float
    margin: float = 0.0
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
        return self.scores(observation, action_mask).argmax(dim=1)

    @torch.no_grad()
    def scores(self, observation: Mapping[str, Tensor], action_mask: Tensor) -> Tensor:
        """What `act` takes the largest of: (B, A) rewards over YIELD, -inf where illegal."""
        gains, legal = _gains(self.network, self.gain_scale, observation, action_mask)
        gains[:, Op.YIELD] = self.margin
        gains[:, layout_of(observation).block(Op.STORE)] += self.store_offset
        return gains.masked_fill(~legal, -torch.inf)


@dataclass
class SampledGain:
    """Draws a legal action from the softmax of predicted gains: how a policy gradient plays.

    Attributes:
        network: predicts gains in units of `gain_scale`.
        gain_scale: reward that one unit of the network's output stands for.
        temperature: reward by which a gain must be larger to be e times as likely.
        generator: NumPy generator of the uniforms, one for each row and step.
    """

    network: SetNetwork
    gain_scale: float
    temperature: float
    generator: np.random.Generator
    is_privileged: ClassVar[bool] = False

    @torch.no_grad()
    def act(
        self,
        observation: Mapping[str, Tensor],
        action_mask: Tensor,
        privileged: PrivilegedState | None = None,
    ) -> Tensor:
        """Draw an action; see `Policy.act`."""
        del privileged
        gains, legal = _gains(self.network, self.gain_scale, observation, action_mask)
        uniforms = torch.from_numpy(self.generator.random(len(action_mask))).to(gains.device)
        return sample_actions(log_policy(gains / self.temperature, legal), uniforms)


def _gains(
    network: SetNetwork,
    gain_scale: float,
    observation: Mapping[str, Tensor],
    action_mask: Tensor,
) -> tuple[Tensor, Tensor]:
    """(B, A) predicted gains in reward and the mask, both where the network is."""
    device = next(network.parameters()).device
    network.eval()
    names = {"slots", "candidates", "globals", CONTEXT_SLOTS} & observation.keys()
    moved = {name: observation[name].to(device) for name in names}
    return network(moved) * gain_scale, action_mask.to(device)


def log_policy(logits: Tensor, action_mask: Tensor) -> Tensor:
    """Log-probabilities over the legal actions.

    Args:
        logits: (B, A). action_mask: (B, A) bool; YIELD is always legal.

    Returns:
        (B, A), so low for illegal actions that their probability is exactly 0.
    """
    return logits.masked_fill(~action_mask, _ILLEGAL).log_softmax(dim=-1)


def sample_actions(log_probs: Tensor, uniforms: Tensor) -> Tensor:
    """Inverse-CDF sampling: the first action at which the cumulative probability passes u.

    Args:
        log_probs: (B, A). uniforms: (B,) float64 in [0, 1).

    Returns:
        (B,) int64; an action of probability 0 is never drawn.
    """
    cumulative = log_probs.double().exp().cumsum(dim=-1)
    total = cumulative[:, -1:]
    # Rounding must not reach the total: behind it there is no action.
    bound = torch.minimum(uniforms[:, None] * total, total.nextafter(torch.zeros_like(total)))
    return (cumulative <= bound).sum(dim=-1)
