"""Group policy gradient: a policy gradient on advantages within groups, without a critic.

The copies of an episode are compared with each other event by event (`memrl.algos.advantages`).
There is no discount and no value function: episodes are short, and the copies are a better baseline
than what could be learned. The clip is PPO's, the baseline within a group that of RLOO (Ahmadian et
al., arXiv 2402.14740), taken at every event instead of once.
"""

from __future__ import annotations

from collections.abc import Callable

from memrl.algos.advantages import group_advantages
from memrl.algos.policy_gradient import PolicyGradient
from memrl.algos.rollout import Rollout


class GroupPolicyGradient(PolicyGradient):
    """The learner; see the module docstring and that of `memrl.algos.policy_gradient`."""

    def _learn(self, rollout: Rollout, on_step: Callable[[], None] | None) -> dict[str, float]:
        advantages = group_advantages(
            self._reward(rollout), rollout.clock, rollout.is_decision, self._config.group_size
        )
        return self._fit(rollout, advantages, on_step)
