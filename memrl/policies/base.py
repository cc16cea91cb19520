"""The one protocol of all policies, and what the evaluation calls them by."""

from __future__ import annotations

import math
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from typing import Any, Literal, Protocol, TypeGuard

from torch import Tensor

from memrl.actions import ActionLayout, Op
from memrl.flags import first_true
from memrl.observation import FEATURES, GLOBALS
from memrl.observation_text import ShownTexts
from memrl.privileged import PrivilegedState

FEATURE = {name: column for column, name in enumerate(FEATURES)}
GLOBAL = {name: column for column, name in enumerate(GLOBALS)}

Kind = Literal["heuristic", "learned", "bound", "prompted", "reference"]
"""What a contestant is: a rule (random and YIELD-only are some, as is one with a fitted score), a
network that a run has learned, a policy that sees the truth, a language model that plays, or one
that reads without paging."""


class Policy(Protocol):
    """Chooses one legal action for each of B decision points."""

    @property
    def is_privileged(self) -> bool:
        """Whether `act` needs the hidden truth; such a policy is a bound, not a contestant."""
        ...

    def act(
        self,
        observation: Mapping[str, Tensor],
        action_mask: Tensor,
        privileged: PrivilegedState | None = None,
    ) -> Tensor:
        """Choose actions.

        Args:
            observation: `slots` (B, N, F), `candidates` (B, K, F), `globals` (B, G).
            action_mask: (B, A) bool.
            privileged: the hidden truth, given to privileged policies only.

        Returns:
            (B,) int64.
        """
        ...


class TextPolicy(Policy, Protocol):
    """A policy that also reads the texts of what it is shown; nothing else sees more than others.

    Whoever plays it asks `reads_text`, and hands the texts over.
    """

    @property
    def reads_text(self) -> bool:
        """Whether `act` needs texts."""
        ...

    def act(
        self,
        observation: Mapping[str, Tensor],
        action_mask: Tensor,
        privileged: PrivilegedState | None = None,
        *,
        texts: Sequence[ShownTexts] = (),
    ) -> Tensor:
        """Choose actions; see `Policy.act`.

        Args:
            observation, action_mask, privileged: as there.
            texts: of each of the B rows.

        Raises:
            ValueError: if texts are needed and there is not one for each row.
        """
        ...


def reads_text(policy: Policy) -> TypeGuard[TextPolicy]:
    """Whether a policy is to be played with texts."""
    return bool(getattr(policy, "reads_text", False))


@dataclass(frozen=True)
class Contestant:
    """A policy under the name that its rows carry.

    Attributes:
        name: shown in tables; unique within one.
        policy: who plays.
        overrides: fields of `PagingOptions` that this contestant plays under instead of the
            preset's (its own staging, say); shown beside its name.
        settings: what was chosen for it on validation, and the like; JSON-able.
        kind: what it is; the best of the heuristics is whom the learned ones have to beat.
        validation: its reward per question on validation; None where it was not played there, or
            nothing there pays.
    """

    name: str
    policy: Policy
    overrides: Mapping[str, Any] = field(default_factory=dict)
    settings: Mapping[str, Any] = field(default_factory=dict)
    kind: Kind = "heuristic"
    validation: float | None = None


def best_of(contestants: Sequence[Contestant], kind: Kind) -> Contestant | None:
    """The one of a kind that scored best on validation, the first among equals.

    None where there is none of that kind.
    """
    pool = [one for one in contestants if one.kind == kind]
    if not pool:
        return None
    return max(pool, key=lambda one: -math.inf if one.validation is None else one.validation)


def layout_of(observation: Mapping[str, Tensor]) -> ActionLayout:
    """The action space that belongs to an observation's shapes."""
    return ActionLayout(observation["slots"].shape[1], observation["candidates"].shape[1])


def first_legal(action_mask: Tensor, layout: ActionLayout, op: Op) -> tuple[Tensor, Tensor]:
    """The first legal action of an operation: (B,) action, and (B,) bool whether there is one."""
    block = action_mask[:, layout.block(op)]
    if block.shape[1] == 0:
        none = action_mask[:, 0] & False
        return none.long(), none
    return layout.start(op) + first_true(block), block.any(dim=1)
