"""What is noted beside the records where a language model plays or reads: costs, times, misses.

Each run of an entry has one mapping with some of these keys:
- `costs`: what asking the model for decisions cost (`LlmCosts.as_dict`);
- `timing`: `decisions` that a policy was asked for, with `durations` (`Durations.as_dict`) in
  seconds each, amortised over the rows that were asked together, as a model's are over its batch;
- `missed`: `scored` queries and, by `Failure`, those of them that were missed;
- `reader`: who read main context, and what that cost.
"""

from __future__ import annotations

import time
from collections import Counter
from collections.abc import Mapping, Sequence
from typing import Any

from torch import Tensor

from memrl.episode_log import EpisodeLog
from memrl.llm.costs import LlmCosts
from memrl.memory.accounting import Durations
from memrl.observation_text import ShownTexts
from memrl.policies.base import Policy, reads_text
from memrl.policies.prompted_log import PromptedLog, missed_by_actions
from memrl.privileged import PrivilegedState

COSTS, TIMING, MISSED, READER = "costs", "timing", "missed", "reader"


class TimedPolicy:
    """Plays as another policy does, and keeps how long it takes for a decision.

    Args:
        policy: who plays.

    Attributes:
        durations: seconds for each decision, amortised over the rows of one call.
    """

    def __init__(self, policy: Policy) -> None:
        self.policy = policy
        self.durations = Durations()
        self.decisions = 0
        self.is_privileged = policy.is_privileged
        self.reads_text = reads_text(policy)

    def act(
        self,
        observation: Mapping[str, Tensor],
        action_mask: Tensor,
        privileged: PrivilegedState | None = None,
        *,
        texts: Sequence[ShownTexts] = (),
    ) -> Tensor:
        """Let it act; see `TextPolicy.act`."""
        start_s = time.perf_counter()
        if reads_text(self.policy):
            actions = self.policy.act(observation, action_mask, privileged, texts=texts)
        else:
            actions = self.policy.act(observation, action_mask, privileged)
        actions = actions.cpu()  # where a device computes, this waits for it
        seconds = time.perf_counter() - start_s
        decisions = int(action_mask[:, 1:].any(dim=1).sum())
        if decisions:
            self.decisions += decisions
            self.durations.add(seconds / decisions, decisions)
        return actions

    def note(self) -> dict[str, Any]:
        """What it took so far."""
        return {TIMING: {"decisions": self.decisions, "durations": self.durations.as_dict()}}


class Misses:
    """Counts why queries were missed.

    Attributes:
        scored: queries that pay evidence. reasons: of those that were missed.
    """

    def __init__(self) -> None:
        self.scored = 0
        self.reasons: Counter[str] = Counter()

    def add_log(self, log: EpisodeLog, *, has_recall: bool) -> None:
        """Count an episode of a policy that picks actions; see `missed_by_actions`."""
        for answer in log.answers:
            self.scored += answer.evidence is not None
            reason = missed_by_actions(answer, has_recall=has_recall)
            if reason is not None:
                self.reasons[str(reason)] += 1

    def add_prompted(self, log: PromptedLog) -> None:
        """Count an episode of a model that calls functions."""
        self.scored += log.scored
        self.reasons.update(log.missed)

    def note(self) -> dict[str, Any]:
        """What was counted so far."""
        return {MISSED: {"scored": self.scored, **dict(sorted(self.reasons.items()))}}


def costs_note(costs: LlmCosts, num_queries: int) -> dict[str, Any]:
    """What a model's decisions cost that was asked this many queries."""
    return {COSTS: costs.as_dict(num_queries)}
