"""stable-baselines3's PPO on `PagingEnv`, with this project's networks in the place of its own."""

from __future__ import annotations

from functools import partial
from typing import Any
from unittest import mock

import torch
from benchmarks.timing import Seconds
from gymnasium import spaces
from stable_baselines3 import PPO
from stable_baselines3.common.distributions import Distribution
from stable_baselines3.common.policies import ActorCriticPolicy
from stable_baselines3.common.type_aliases import PyTorchObs, Schedule
from stable_baselines3.common.vec_env import DummyVecEnv
from torch import Tensor

from envs.paging import PagingEnv
from memrl.config import NetworkConfig
from memrl.options import PagingOptions
from memrl.policies.network import SetNetwork, ValueNetwork, log_policy
from memrl.table import EpisodeTable


class SetPolicy(ActorCriticPolicy):
    """An actor-critic policy whose logits are `SetNetwork`'s and whose values `ValueNetwork`'s.

    Illegal actions are masked by what the observation says of them, as everywhere here; the
    library's PPO knows nothing of it.
    """

    def __init__(
        self,
        observation_space: spaces.Space[Any],
        action_space: spaces.Space[Any],
        lr_schedule: Schedule,
        *,
        network: NetworkConfig,
        **kwargs: Any,
    ) -> None:
        self._network = network  # `_build`, which needs it, is called by what follows
        super().__init__(observation_space, action_space, lr_schedule, **kwargs)

    def _build(self, lr_schedule: Schedule) -> None:
        size = self._network
        self.actor = SetNetwork(size.hidden, slot_pool=size.slot_pool)
        self.critic = ValueNetwork(size.hidden)
        self.optimizer = self.optimizer_class(
            self.parameters(),
            lr=lr_schedule(1),  # type: ignore[call-arg]
            **self.optimizer_kwargs,
        )

    def get_distribution(self, obs: PyTorchObs) -> Distribution:
        assert isinstance(obs, dict)
        logits = log_policy(self.actor(obs), obs["action_mask"].bool())
        return self.action_dist.proba_distribution(action_logits=logits)

    def predict_values(self, obs: PyTorchObs) -> Tensor:
        values: Tensor = self.critic(obs)[:, None]
        return values

    def forward(
        self, obs: PyTorchObs, deterministic: bool = False
    ) -> tuple[Tensor, Tensor, Tensor]:
        distribution = self.get_distribution(obs)
        actions = distribution.get_actions(deterministic=deterministic)
        return actions, self.predict_values(obs), distribution.log_prob(actions)

    def evaluate_actions(
        self, obs: PyTorchObs, actions: Tensor
    ) -> tuple[Tensor, Tensor, Tensor | None]:
        distribution = self.get_distribution(obs)
        return self.predict_values(obs), distribution.log_prob(actions), distribution.entropy()


class LibraryPPO:
    """The library's learner on its own `DummyVecEnv`, on a CPU.

    Args:
        table: the workload. num_envs: environments. num_steps: of a rollout.
        network: size of the networks. initial: weights of the policy.
        epochs: passes over a rollout. minibatch: decisions of an update. learning_rate: of Adam.

    Attributes:
        rollout: what playing has taken.
    """

    def __init__(
        self,
        table: EpisodeTable,
        *,
        num_envs: int,
        num_steps: int,
        network: NetworkConfig,
        initial: dict[str, Tensor],
        epochs: int,
        minibatch: int,
        learning_rate: float,
    ) -> None:
        envs = DummyVecEnv([partial(PagingEnv, table, PagingOptions()) for _ in range(num_envs)])
        self._learner = PPO(
            SetPolicy,
            envs,
            learning_rate=learning_rate,
            n_steps=num_steps,
            batch_size=minibatch,
            n_epochs=epochs,
            gamma=1.0,
            ent_coef=0.01,
            seed=0,
            device="cpu",
            policy_kwargs={"network": network},
        )
        policy = self._learner.policy
        assert isinstance(policy, SetPolicy)
        policy.actor.load_state_dict(initial)
        self._decisions_of_iteration = num_steps * num_envs
        self.rollout = Seconds(torch.device("cpu"))

    def iterate(self) -> int:
        """Play a rollout and learn from it; returns the decisions."""
        learner = self._learner
        play = self.rollout.of(learner.collect_rollouts)
        with mock.patch.object(learner, "collect_rollouts", play):
            # As many steps as one rollout has: one iteration.
            learner.learn(self._decisions_of_iteration, reset_num_timesteps=False)
        mask = learner.rollout_buffer.observations["action_mask"]
        return int(mask[..., 1:].any(axis=-1).sum())
