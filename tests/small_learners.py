"""Policy gradients on a table so small that an iteration takes a fraction of a second."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import replace
from functools import partial
from typing import Any

import torch
from table_fixtures import small_table
from torch import Tensor

from envs.batched import BatchedPaging
from envs.batched_fixed import FixedShapePaging
from memrl.algos.group_policy_gradient import GroupPolicyGradient
from memrl.algos.policy_gradient import PolicyGradient
from memrl.algos.ppo import PPO
from memrl.config import NetworkConfig
from memrl.options import PagingOptions
from memrl.policy_gradient_config import PolicyGradientConfig, PPOConfig, Tier
from memrl.seeding import Streams

SMALL = PolicyGradientConfig(
    total_timesteps=4_000,
    num_groups=4,
    group_size=3,
    num_minibatches=3,
    learning_rate=1e-2,
    temperature=0.1,
)
OPTIONS = PagingOptions(
    capacity=3, num_candidates=2, archival_capacity=4, staging="hybrid", operation_budget=4
)


def maker(kind: str, ppo: PPOConfig | None = None) -> Callable[..., PolicyGradient]:
    """The class of a learner, "group" or "ppo"."""
    if kind == "group":
        return GroupPolicyGradient
    return partial(PPO, ppo=ppo or PPOConfig(critic_learning_rate=1e-2))


def learner(
    kind: str = "group",
    seed: int = 0,
    *,
    slot_pool: bool = False,
    initial: dict[str, Tensor] | None = None,
    options: PagingOptions = OPTIONS,
    ppo: PPOConfig | None = None,
    tier: Tier = "eager",
    device: str = "cpu",
    backend: str = "eager",
    **values: Any,
) -> PolicyGradient:
    config, table = replace(SMALL, **values), small_table(1)
    rows = config.num_groups * config.group_size
    group: BatchedPaging | FixedShapePaging = BatchedPaging(table, options, rows, device)
    if tier != "eager":
        group = FixedShapePaging(table, options, rows, device, rounds=1, draws=None)
    return maker(kind, ppo)(
        group,
        NetworkConfig(hidden=8, slot_pool=slot_pool),
        config,
        Streams(seed),
        gain_scale=0.1,
        initial=initial,
        device=torch.device(device),
        tier=tier,
        backend=backend,
    )


def weights(made: PolicyGradient) -> dict[str, Tensor]:
    return {name: value.clone() for name, value in made.checkpoint()[0].items()}


def part(made: PolicyGradient, name: str) -> dict[str, Tensor]:
    """One network's weights as they are now."""
    module = getattr(made, name)
    return {key: value.clone() for key, value in module.state_dict().items()}


def equal(first: dict[str, Tensor], second: dict[str, Tensor]) -> bool:
    return first.keys() == second.keys() and all(
        torch.equal(value, second[name]) for name, value in first.items()
    )
