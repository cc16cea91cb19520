"""Rollouts of groups: E episodes, G copies of each, played to their ends by a sampled policy."""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass

import numpy as np
import numpy.typing as npt
import torch
from torch import Tensor

from memrl.algos.dataset import DecisionDataset
from memrl.algos.decisions import KINDS, DecisionView, decision_views
from memrl.device_memory import RowMemory, naming_what_fits
from memrl.draws import random_uniforms
from memrl.errors import MemrlError
from memrl.groups import PagingGroup
from memrl.policies.network import log_policy, sample_actions

Logits = Callable[[Mapping[str, Tensor]], Tensor]
"""From single-precision inputs of a `DecisionView` to (M, a) logits."""


class DivergedError(MemrlError):
    """A number that learning depends on is not finite any more."""


@dataclass(frozen=True)
class Rollout:
    """What B rows did in up to T steps.

    Attributes:
        decisions: by kind; columns `action` (of the view), `log_prob`, `step`, `row`.
        reward_terms: (T, B, terms) float64, paid with each step.
        clock: (T, B) int64, events since the row's first decision.
        is_decision: (T, B) bool, whether the row had a choice.
    """

    decisions: dict[str, DecisionDataset]
    reward_terms: npt.NDArray[np.float64]
    clock: npt.NDArray[np.int64]
    is_decision: npt.NDArray[np.bool_]

    @property
    def num_decisions(self) -> int:
        """Decisions of all rows."""
        return int(self.is_decision.sum())

    def is_operation(self) -> npt.NDArray[np.bool_]:
        """(T, B), whether the row chose another action than YIELD, which is action 0 of a view."""
        chosen = np.zeros_like(self.is_decision)
        for decisions in self.decisions.values():
            if len(decisions):
                columns = (
                    decisions.column(name).cpu().numpy() for name in ("step", "row", "action")
                )
                step, row, action = columns
                chosen[step, row] = action != 0
        return chosen


@torch.no_grad()
def roll_out(
    group: PagingGroup,
    logits: Logits,
    episodes: Sequence[int],
    seed: int,
    on_step: Callable[[], None] | None = None,
    *,
    victim_alone: bool,
    device: torch.device,
    first_row: int = 0,
) -> Rollout:
    """Play one episode in every row.

    Args:
        group: where they are played; its rows are reset.
        logits: of the policy that plays.
        episodes: B numbers in the group's table; copies of one episode lie side by side.
        seed: of the random numbers: number t of stream b decides decision t of row b.
        on_step: called after every step, as a safe point.
        victim_alone: see `decision_views`.
        device: where decisions are evaluated and kept.
        first_row: number of the group's first row, where the group is a part of several.

    Raises:
        DivergedError: if a logit is not finite.
        DeviceMemoryError: if the rows and what is kept of them do not fit on the device.
    """
    decisions = {kind: DecisionDataset() for kind in KINDS}
    now = torch.zeros(group.num_envs, dtype=torch.int64, device=group.device)

    def row_memory() -> RowMemory:
        """Of a row of the group and its decisions, which go on as they were kept so far."""
        held, needed = group.row_memory
        kept = sum(part.num_bytes for part in decisions.values()) / group.num_envs
        played = float(now.sum()) / group.table.episode_num_events[list(episodes)].sum()
        return RowMemory(held + kept, needed + kept / max(played, 0.01))

    with naming_what_fits(device, group.num_envs, row_memory):
        return _roll_out(
            group,
            logits,
            episodes,
            seed,
            on_step,
            decisions,
            now,
            victim_alone=victim_alone,
            device=device,
            first_row=first_row,
        )


def _roll_out(
    group: PagingGroup,
    logits: Logits,
    episodes: Sequence[int],
    seed: int,
    on_step: Callable[[], None] | None,
    decisions: dict[str, DecisionDataset],
    now: Tensor,
    *,
    victim_alone: bool,
    device: torch.device,
    first_row: int,
) -> Rollout:
    """Fill `decisions`; `now` (B,) is the clock of each row."""
    group.begin(episodes)
    where = group.device
    running = torch.ones(group.num_envs, dtype=torch.bool, device=where)
    stream = torch.arange(first_row, first_row + group.num_envs, device=where)
    drawn = torch.zeros_like(now)
    steps: list[tuple[Tensor, Tensor, Tensor]] = []  # reward terms, clock, whether it chose
    while running.any():
        uniforms = random_uniforms(seed, stream, drawn).to(device)
        mask = group.action_masks()
        chooses = running & mask[:, 1:].any(dim=1)
        rows = chooses.nonzero()[:, 0]
        actions = torch.zeros_like(now)
        for kind, view in decision_views(group, mask, rows, victim_alone=victim_alone).items():
            columns = _choose(view, logits, uniforms, device)
            decisions[kind].append(
                view.inputs,
                view.action_mask,
                step=torch.full_like(view.row, len(steps)),
                row=view.row,
                **columns,
            )
            actions[view.row] = view.actions(columns["action"].to(where))
        drawn = drawn + chooses
        result = group.advance(actions)
        paid = torch.where(running[:, None], result.reward_terms, 0.0)
        steps.append((paid, now.clone(), chooses))
        now += torch.where(running, result.elapsed_events, 0)
        running = running & ~result.terminated
        if on_step is not None:
            on_step()
    rewards, clocks, choices = (
        torch.stack(parts).cpu().numpy() for parts in zip(*steps, strict=True)
    )
    return Rollout(decisions, rewards, clocks, choices)


def _choose(
    view: DecisionView, logits: Logits, uniforms: Tensor, device: torch.device
) -> dict[str, Tensor]:
    """Draw an action for each decision of a view; `action` and `log_prob`, both (M,)."""
    inputs = {name: values.to(device).float() for name, values in view.inputs.items()}
    values = logits(inputs)
    if not values.isfinite().all():
        raise DivergedError("the logits of the policy in play are not finite")
    log_probs = log_policy(values, view.action_mask.to(device))
    action = sample_actions(log_probs, uniforms[view.row.to(device)])
    return {"action": action, "log_prob": log_probs.gather(1, action[:, None])[:, 0]}
