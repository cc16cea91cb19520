"""Settings of policy gradients, two groups of a run's configuration: what all share, and PPO's."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Literal

from memrl.config_checks import above_0, at_least, fractions

Tier = Literal["auto", "eager", "compile", "cudagraph"]


@dataclass(frozen=True)
class PolicyGradientConfig:
    """What policy gradients share; a step is one decision of one copy of an episode.

    Attributes:
        total_timesteps: decisions to learn from; after a restart, anew.
        num_groups: episodes of an iteration. group_size: copies of each, played side by side; the
            group policy gradient compares them, and needs 2 or more.
        update_epochs: passes over an iteration's decisions. num_minibatches: updates of a pass.
        learning_rate: of Adam. anneal_lr: let it fall linearly to 0 over `total_timesteps`.
        weight_decay: of AdamW.
        clip_coef: PPO's bound on the change of a decision's probability ratio.
        ent_coef: weight of the entropy bonus, falling linearly to 0 over `total_timesteps`.
        kl_coef: weight of the divergence from the policy that learning started from.
        max_grad_norm: longest gradient of an update.
        temperature: gains over `temperature` are the logits of the policy that plays. Low ones suit
            gains that were learned; from scratch they end exploration before it has found anything.
        cost_anneal_frac: share of `total_timesteps` over which the costs of operations rise
            linearly from 0 to what they are; evaluation always charges all of them.
        operations_budget: most operations a question, YIELD not counted; None for no such bound. A
            price on every operation rises while rollouts take more and falls while they take less
            (a Lagrange multiplier, on top of the costs), and weights are chosen among evaluations
            that keep the budget.
        price_rate: reward by which the price moves in an iteration for each operation a question
            above or below the budget.
        start: "scratch": random weights. "imitation": the network of gain regression that
            validation chose. "brief_imitation": the one after the first round of gain regression.
        eval_every: iterations between evaluations on validation.
        tier: how a step is run: "eager", with shapes that follow the rows; "compile" or
            "cudagraph", in fixed shapes, compiled or captured; "auto" is the last on CUDA, else the
            first.
        test_curve: log greedy play on the test documents at each evaluation too, for a learning
            curve; nothing is chosen by it.
        patience: evaluations in a row without a new best after which learning stops; None for no
            such stop.
        restart_after: decisions after which validation decides whether learning is stuck.
        restart_margin: it is when the best greedy reward per question so far is less than this much
            above that of YIELD alone.
        max_restarts: fresh starts, each with random numbers of its own and all `total_timesteps`.
    """

    total_timesteps: int = 10_000_000
    num_groups: int = 64
    group_size: int = 16
    update_epochs: int = 2
    num_minibatches: int = 16
    learning_rate: float = 1e-3
    anneal_lr: bool = True
    weight_decay: float = 0.0
    clip_coef: float = 0.2
    ent_coef: float = 0.01
    kl_coef: float = 0.0
    max_grad_norm: float = 0.5
    temperature: float = 0.1
    cost_anneal_frac: float = 0.2
    operations_budget: float | None = None
    price_rate: float = 0.002
    start: Literal["scratch", "brief_imitation", "imitation"] = "scratch"
    eval_every: int = 4
    tier: Tier = "auto"
    test_curve: bool = False
    patience: int | None = None
    restart_after: int = 2_000_000
    restart_margin: float = 0.03
    max_restarts: int = 2

    def __post_init__(self) -> None:
        """Refuse settings that could not learn."""
        at_least(self, 1, "total_timesteps", "num_groups", "group_size", "update_epochs")
        at_least(self, 1, "num_minibatches", "eval_every", "restart_after")
        at_least(self, 0, "weight_decay", "ent_coef", "kl_coef", "max_restarts")
        fractions(self, "cost_anneal_frac", "clip_coef")
        if self.patience is not None:
            at_least(self, 1, "patience")
        if self.operations_budget is not None:
            at_least(self, 0, "operations_budget")
        above_0(self, "learning_rate", "temperature", "max_grad_norm", "price_rate")


@dataclass(frozen=True)
class PPOConfig:
    """What PPO has besides: a critic as wide as the policy, and advantages by its values.

    The critic's weights and their optimizer are its own, so its loss needs no coefficient.

    Attributes:
        gamma: discount factor per event, not per operation.
        gae_lambda: factor of generalised advantage estimation, per event as well.
        critic_learning_rate: of the critic's Adam; falls with that of the policy.
        critic_epochs: the critic's passes over an iteration's decisions, in as many minibatches as
            the policy's.
        clip_vloss: bound the change of a value in an iteration by `clip_coef` standard deviations
            of returns, as in the PPO of OpenAI's baselines.
    """

    gamma: float = 1.0
    gae_lambda: float = 0.95
    critic_learning_rate: float = 1e-3
    critic_epochs: int = 2
    clip_vloss: bool = False

    def __post_init__(self) -> None:
        """Refuse settings that could not learn."""
        at_least(self, 1, "critic_epochs")
        for name in ("gamma", "gae_lambda"):
            if not 0 <= getattr(self, name) <= 1:
                raise ValueError(f"{name} must lie in [0, 1], got {getattr(self, name)}.")
        above_0(self, "critic_learning_rate")
