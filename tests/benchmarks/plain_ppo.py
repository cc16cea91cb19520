"""PPO as a plain loop over tensors, in the manner of CleanRL's `ppo.py`: what others would write.

Eager, fixed rollouts of T steps, full observations of every row in single precision, one optimizer
over policy and critic, bootstrapped where a rollout is cut. Advantages are normalised in each
minibatch, the discount counts per decision, and every update's metrics are looked at.
"""

from __future__ import annotations

import torch
from benchmarks.timing import Seconds
from torch import Tensor, nn
from torch.distributions import Categorical

from envs.batched import BatchedPagingEnv
from memrl.policies.network import SetNetwork, ValueNetwork, log_policy

NUM_STEPS = 32
GAMMA, GAE_LAMBDA, CLIP, ENT_COEF, VF_COEF, MAX_GRAD_NORM = 1.0, 0.95, 0.2, 0.01, 0.5, 0.5


class PlainPPO:
    """The loop.

    Args:
        env: where it plays. actor, critic: its networks, on the environment's device.
        epochs: passes over a rollout. minibatch: decisions of an update. learning_rate: of Adam.

    Attributes:
        rollout: what playing has taken.
    """

    def __init__(
        self,
        env: BatchedPagingEnv,
        actor: SetNetwork,
        critic: ValueNetwork,
        *,
        epochs: int,
        minibatch: int,
        learning_rate: float,
    ) -> None:
        self._env, self._actor, self._critic = env, actor, critic
        self._epochs, self._minibatch = epochs, minibatch
        self._parameters = [*actor.parameters(), *critic.parameters()]
        self._optimizer = torch.optim.Adam(self._parameters, lr=learning_rate, eps=1e-5)
        self._obs, _ = env.reset(seed=0)
        self._done = torch.zeros(env.num_envs, device=env.device)
        shape, device = (NUM_STEPS, env.num_envs), env.device
        self._kept = {
            name: torch.zeros((*shape, *values.shape[1:]), dtype=values.dtype, device=device)
            for name, values in self._obs.items()
        }
        self._actions = torch.zeros(shape, dtype=torch.int64, device=device)
        names = ("log_prob", "reward", "done", "value")
        self._grids = {name: torch.zeros(shape, device=device) for name in names}
        self.rollout = Seconds(device)

    def iterate(self) -> int:
        """Play T steps and learn from them; returns the decisions."""
        self.rollout.of(self._play)()
        self._learn()
        return int(self._kept["action_mask"][..., 1:].any(dim=-1).sum())

    def _distribution(self, obs: dict[str, Tensor]) -> Categorical:
        logits = log_policy(self._actor(obs), obs["action_mask"])
        return Categorical(logits=logits, validate_args=False)

    @torch.no_grad()
    def _play(self) -> None:
        for step in range(NUM_STEPS):
            for name, values in self._obs.items():
                self._kept[name][step] = values
            distribution = self._distribution(self._obs)
            action: Tensor = distribution.sample()  # type: ignore[no-untyped-call]
            self._actions[step] = action
            self._grids["log_prob"][step] = distribution.log_prob(action)  # type: ignore[no-untyped-call]
            self._grids["value"][step] = self._critic(self._obs)
            self._grids["done"][step] = self._done
            self._obs, reward, terminated, _, _ = self._env.step(action)
            self._grids["reward"][step] = reward.float()
            self._done = terminated.float()

    @torch.no_grad()
    def _advantages(self) -> Tensor:
        value, reward, done = (self._grids[name] for name in ("value", "reward", "done"))
        advantages = torch.zeros_like(reward)
        later = torch.zeros_like(self._done)
        next_value, going_on = self._critic(self._obs), 1.0 - self._done
        for step in reversed(range(NUM_STEPS)):
            delta = reward[step] + GAMMA * next_value * going_on - value[step]
            advantages[step] = later = delta + GAMMA * GAE_LAMBDA * going_on * later
            next_value, going_on = value[step], 1.0 - done[step]
        return advantages

    def _learn(self) -> None:
        advantages = self._advantages()
        flat = {name: values.flatten(0, 1) for name, values in self._kept.items()}
        columns = {
            "action": self._actions.flatten(),
            "log_prob": self._grids["log_prob"].flatten(),
            "advantage": advantages.flatten(),
            "target": (advantages + self._grids["value"]).flatten(),
        }
        total = len(columns["action"])
        for _ in range(self._epochs):
            order = torch.randperm(total, device=advantages.device)
            for index in torch.split(order, self._minibatch):
                self._update(
                    {name: values[index] for name, values in flat.items()},
                    {name: values[index] for name, values in columns.items()},
                )

    def _update(self, obs: dict[str, Tensor], columns: dict[str, Tensor]) -> dict[str, float]:
        distribution = self._distribution(obs)
        log_ratio = distribution.log_prob(columns["action"]) - columns["log_prob"]  # type: ignore[no-untyped-call]
        ratio, advantage = log_ratio.exp(), columns["advantage"]
        advantage = (advantage - advantage.mean()) / (advantage.std() + 1e-8)
        bounded = ratio.clamp(1 - CLIP, 1 + CLIP)
        policy_loss = torch.maximum(-advantage * ratio, -advantage * bounded).mean()
        value_loss = 0.5 * (self._critic(obs) - columns["target"]).square().mean()
        entropy = distribution.entropy().mean()  # type: ignore[no-untyped-call]
        loss = policy_loss - ENT_COEF * entropy + VF_COEF * value_loss
        self._optimizer.zero_grad()
        loss.backward()
        nn.utils.clip_grad_norm_(self._parameters, MAX_GRAD_NORM)
        self._optimizer.step()
        clipped = ((ratio - 1.0).abs() > CLIP).float().mean()
        return {
            "approx_kl": float((ratio.detach() - 1.0 - log_ratio.detach()).mean()),
            "clipfrac": float(clipped),
            "loss": float(loss.detach()),
        }
