"""Proximal policy optimisation with a critic that shares no weight with the policy.

The field's own learner (Schulman et al., arXiv 1707.06347), with the details of CleanRL's `ppo.py`
as far as they apply: advantages of mean 0 and deviation 1, values bounded by option, explained
variance logged. What differs, and why:

- The critic is a network of its own, with an optimizer of its own. Through a shared trunk its loss
  would move the policy.
- Discount and lambda count per event (`memrl.algos.advantages`). Per operation they would make
  every operation dear, as each puts off all that comes after it.
- Episodes are played to their ends and then learned from in random order, so that no minibatch
  holds a single phase of them, and no value is needed where a rollout was cut.
- The critic's output is in units of the returns of an attempt's first iteration, and begins as
  their mean, so that the first advantages are not those of random values.

The critic reads what the policy reads (`memrl.algos.decisions`): under pressure the victim alone,
where the policy sees no more.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping
from typing import ClassVar

import numpy as np
import torch
from torch import Tensor, nn

from memrl.algos.advantages import gae_advantages
from memrl.algos.passes import Trained
from memrl.algos.policy_gradient import Floats, PolicyGradient
from memrl.algos.rollout import DivergedError, Rollout
from memrl.algos.shares import Share
from memrl.algos.updates import Batches, require_finite, row_weights, weighted_mean
from memrl.config import NetworkConfig
from memrl.groups import FixedShapeGroup, PagingGroup
from memrl.policies.network import ValueNetwork
from memrl.policy_gradient_config import PolicyGradientConfig, PPOConfig, Tier
from memrl.seeding import Streams

_STREAM = 21  # first index of the critic's places in the named streams


class PPO(PolicyGradient):
    """The learner; see the module docstring and `PolicyGradient`.

    Args:
        ppo: settings of critic and advantages.

    Attributes:
        critic: the value network in training.
    """

    rates: ClassVar[tuple[str, ...]] = (*PolicyGradient.rates, "ppo.critic_learning_rate")

    def __init__(
        self,
        group: PagingGroup | FixedShapeGroup,
        network: NetworkConfig,
        config: PolicyGradientConfig,
        streams: Streams,
        *,
        ppo: PPOConfig,
        gain_scale: float,
        initial: Mapping[str, Tensor] | None,
        device: torch.device,
        tier: Tier = "eager",
        backend: str = "inductor",
        share: Share | None = None,
    ) -> None:
        self._ppo = ppo
        self._hidden = network.hidden
        super().__init__(
            group,
            network,
            config,
            streams,
            gain_scale=gain_scale,
            initial=initial,
            device=device,
            tier=tier,
            backend=backend,
            share=share,
        )

    def _begin(self) -> None:
        super()._begin()
        with torch.random.fork_rng(devices=[]):
            torch.manual_seed(self._streams.integer("policy", _STREAM, self.attempt))
            critic = ValueNetwork(self._hidden)
        self.critic = critic.to(self._device).eval()
        self.ranks.broadcast_module(self.critic)
        self._critic_optimizer = self._adam(self.critic, self._ppo.critic_learning_rate)

    def _modules(self) -> dict[str, nn.Module]:
        return super()._modules() | {"critic": self.critic}

    def _optimizers(self) -> dict[str, torch.optim.Optimizer]:
        return super()._optimizers() | {"critic_optimizer": self._critic_optimizer}

    # ------------------------------------------------------------------ learning

    def _learn(self, rollout: Rollout, on_step: Callable[[], None] | None) -> dict[str, float]:
        reward = torch.from_numpy(self._reward(rollout))
        clock, chose = torch.from_numpy(rollout.clock), torch.from_numpy(rollout.is_decision)

        def advantages_over(value: Tensor, gae_lambda: float) -> Tensor:
            return gae_advantages(
                reward, clock, chose, value, gamma=self._ppo.gamma, gae_lambda=gae_lambda
            )

        paid = advantages_over(torch.zeros_like(reward), 1.0)[chose]
        if self.iteration == 0:
            self._standardize(paid)
        value = self._values(rollout)
        advantage = advantages_over(value, self._ppo.gae_lambda)
        centred = torch.where(chose, advantage - self._share.mean(advantage[chose].numpy()), 0.0)
        metrics = self._fit(rollout, centred.numpy(), on_step)
        metrics |= self._fit_critic(rollout, value, advantage + value, on_step)
        explained = explained_variance(value[chose], paid, self._share.std)
        return metrics | {"losses/explained_variance": explained}

    def _standardize(self, paid: Tensor) -> None:
        """Let the critic begin at the mean of what was paid, in units of its deviation."""
        self.critic.shift.fill_(self._share.mean(paid.numpy()))
        # Where hardly anything was paid yet, its deviation says little about what will be.
        self.critic.scale.fill_(max(self._share.std(paid.numpy()), self._gain_scale))

    @torch.no_grad()
    def _values(self, rollout: Rollout) -> Tensor:
        """(T, B) float64 values of all decisions, by the critic as it is; 0 elsewhere."""
        value = torch.zeros(rollout.is_decision.shape, dtype=torch.float64)
        for decisions in rollout.decisions.values():
            for index in torch.arange(len(decisions)).tensor_split(self._config.num_minibatches):
                if len(index):
                    batch = decisions.rows(index, self._device)
                    own = self.critic(batch) * self.critic.scale + self.critic.shift
                    value[batch["step"].cpu(), batch["row"].cpu()] = own.double().cpu()
        if not value.isfinite().all():
            raise DivergedError("the values of the critic are not finite")
        return value

    def _fit_critic(
        self,
        rollout: Rollout,
        value: Tensor,
        returns: Tensor,
        on_step: Callable[[], None] | None,
    ) -> dict[str, float]:
        """Make `critic_epochs` passes; returns the mean metrics of the last one.

        Args:
            value, returns: (T, B) float64; what was expected, and what to expect.
        """
        shift, scale = float(self.critic.shift), float(self.critic.scale)
        columns = {
            name: ((grid - shift) / scale).float().to(self._device)
            for name, grid in (("value", value), ("target", returns))
        }
        self._anneal(self._critic_optimizer, self._ppo.critic_learning_rate)
        trained = Trained("value loss", self.critic, self._critic_optimizer, self._value_losses)
        metrics: dict[str, float] = {}
        for epoch in range(self._ppo.critic_epochs):
            order = self._order(_STREAM, epoch)
            metrics = self._passes(trained, rollout, columns, order, on_step)
        require_finite("critic", self.critic)
        return metrics

    def _value_losses(self, batches: Batches, coefficient: Tensor) -> dict[str, Tensor]:
        """The critic's `loss` and metrics, as `PolicyGradient._losses` gives the policy's."""
        del coefficient
        value = torch.cat([self.critic(batch) for batch in batches])
        before, target = (
            torch.cat([batch[name] for batch in batches]) for name in ("value", "target")
        )
        bound = self._config.clip_coef if self._ppo.clip_vloss else None
        loss = value_loss(value, before, target, bound, row_weights(batches))
        return {"loss": loss, "losses/value_loss": loss.detach()}


def value_loss(
    value: Tensor,
    before: Tensor,
    target: Tensor,
    bound: float | None,
    weight: Tensor | None = None,
) -> Tensor:
    """Half the mean squared error; with a bound, the worse one of the plain and the bounded value.

    Args:
        value: (M,) by the critic as it is. before: (M,) when the rollout was judged.
        target: (M,). bound: on the change of a value that counts as an improvement, if any.
        weight: see `weighted_mean`.
    """
    error = (value - target).square()
    if bound is not None:
        bounded = before + (value - before).clamp(-bound, bound)
        error = torch.maximum(error, (bounded - target).square())
    return 0.5 * weighted_mean(error, weight)


def explained_variance(
    value: Tensor, returns: Tensor, std: Callable[[Floats], float] = np.std
) -> float:
    """Share of the variance of returns, (M,), that their values explain.

    1 at best, 0 for any constant, below 0 for worse than that; 0 also where nothing varies.

    Args:
        value: (M,). returns: (M,). std: their deviation, over all ranks if there are several.
    """
    variance = std(returns.numpy()) ** 2
    return 1.0 - std((returns - value).numpy()) ** 2 / variance if variance else 0.0
