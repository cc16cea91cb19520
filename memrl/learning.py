"""How a run learns: gain regression first, and a policy gradient beside or after it.

Both are scored on the validation documents while they learn, keep the weights that scored best, and
can be stopped with Ctrl-C and resumed to the same numbers. Of several ranks the first one scores,
and tells the others; so all of them stop, begin again and keep weights at the same moment.
"""

from __future__ import annotations

import time
from collections.abc import Callable, Mapping
from dataclasses import dataclass
from functools import partial

import torch
from torch import Tensor

from memrl.algos.gain_regression import GainRegression
from memrl.algos.group_policy_gradient import GroupPolicyGradient
from memrl.algos.policy_gradient import PolicyGradient
from memrl.algos.ppo import PPO
from memrl.algos.rollout import DivergedError
from memrl.algos.shares import Share
from memrl.best import BestSoFar
from memrl.checkpoint import under
from memrl.config import RunConfig
from memrl.evaluation import lineup
from memrl.evaluation.lineup import Arena
from memrl.evaluation.play import mean_operations_per_question, mean_reward_per_question
from memrl.groups import FixedShapeGroup, PagingGroup
from memrl.interrupt import Interrupted, InterruptGuard
from memrl.policies.base import Contestant
from memrl.policies.heuristics import YieldOnly
from memrl.policies.network import GreedyGain
from memrl.policies.prior import PageScorer
from memrl.policy_gradient_config import PolicyGradientConfig, Tier
from memrl.progress import progress_bar
from memrl.run_checkpoint import POLICY_GRADIENT, RunCheckpoint
from memrl.seeding import Streams
from memrl.tracking import Run

LOG_EVERY = 25  # gradient steps of gain regression
BEST = "eval/best_reward_per_question"
"""Metric: of the weights that are kept so far; less what they lose where operations are limited."""
_PER_OPERATION_BEYOND = 1e3

# ---------------------------------------------------------------------- gain regression


def imitate(
    config: RunConfig,
    record: Run,
    kept: RunCheckpoint,
    learner: GainRegression,
    scorer: PageScorer,
    validation: Arena,
    guard: InterruptGuard,
) -> GreedyGain:
    """Alternate collecting and fitting; return the policy of the best round on validation."""
    best = BestSoFar(learner.network)
    rounds_scored = int(kept.state.get("rounds_scored", 0))
    num_updates, num_episodes = config.learner.updates_per_round, learner.num_episodes
    ranks = learner.ranks
    if kept.state:
        best.restore(kept.tensors, kept.state["best"])

    def save() -> None:
        tensors, state = learner.checkpoint()
        best_tensors, best_state = best.checkpoint()
        tensors |= best_tensors | {"scorer.weight": torch.from_numpy(scorer.weight)}
        state |= {"best": best_state, "scorer": {"bias": scorer.bias, "penalty": scorer.penalty}}
        state["rounds_scored"] = rounds_scored
        kept.save(learner.global_step, tensors, state)

    if kept.state and rounds_scored < config.learner.rounds:
        with progress_bar("states again", (kept.state["round"] + 1) * num_episodes) as advance:
            learner.restore(kept.tensors, kept.state, guard.checking(advance))
    try:
        for number in range(rounds_scored, config.learner.rounds):
            if learner.round < number:
                with progress_bar(f"round {number}: states", num_episodes) as advance:
                    learner.begin_round(guard.checking(advance))
            with progress_bar(f"round {number}: fitting", num_updates) as advance:
                advance(learner.update_index)
                while learner.update_index < num_updates:
                    loss = learner.update()
                    if learner.update_index % LOG_EVERY == 0:
                        record.log(learner.global_step, {"losses/gain": loss})
                    advance(1)
                    if ranks.wakes_others:
                        guard.check()
            reward = ranks.from_first(
                lambda: _mean_reward(validation, Contestant(lineup.LEARNED, learner.policy))
            )
            best.offer(reward, number)
            rounds_scored = number + 1
            record.log(
                learner.global_step,
                {
                    "eval/reward_per_question": reward,
                    BEST: best.score,
                    "rollout/decisions": learner.num_decisions,
                },
            )
            print(f"round {number}: validation reward per question {reward:.3f}")
            save()
    except Interrupted:
        save()
        print(f"Interrupted; go on with --resume true. The checkpoint is in {record.folder}.")
        raise
    best.load_into_module()
    return learner.policy


# ---------------------------------------------------------------------- policy gradients


def policy_gradient(
    config: RunConfig,
    group: PagingGroup | FixedShapeGroup,
    tier: Tier,
    streams: Streams,
    kept: RunCheckpoint,
    device: torch.device,
    share: Share,
) -> PolicyGradient:
    """The learner that the run's `algorithm` names.

    Args:
        group: its rows, on the training episodes; in fixed shapes unless the tier is eager.
        tier: a resolved one. kept: of gain regression, which may be the start.
        share: which of all ranks' rows these are.
    """
    settings = config.policy_gradient
    make: Callable[..., PolicyGradient] = GroupPolicyGradient
    if config.algorithm == "ppo":
        make = partial(PPO, ppo=config.ppo)
    return make(
        group,
        config.network,
        settings,
        streams,
        gain_scale=config.learner.gain_scale,
        initial=start_weights(settings.start, kept.tensors),
        device=device,
        tier=tier,
        share=share,
    )


def start_weights(start: str, tensors: Mapping[str, Tensor]) -> dict[str, Tensor] | None:
    """Weights of gain regression's checkpoint that the policy gradient starts from, if any."""
    prefix = {"scratch": None, "brief_imitation": "snapshot1.", "imitation": "best."}[start]
    return None if prefix is None else under(prefix, tensors)


@dataclass
class Standing:
    """How learning stands on validation; what decides to stop and to begin again.

    Attributes:
        floor: reward per question of YIELD alone.
        attempt_best: highest greedy reward of this attempt. since_best: evaluations after it.
        was_stuck_checked: whether this attempt has been judged.
        restarts: fresh starts so far. best_step: decisions of all attempts at the best score.
    """

    floor: float
    attempt_best: float = float("-inf")
    since_best: int = 0
    was_stuck_checked: bool = False
    restarts: int = 0
    best_step: int = 0

    def note(self, reward: float) -> None:
        """Take in an evaluation."""
        self.since_best += 1
        if reward > self.attempt_best:
            self.attempt_best, self.since_best = reward, 0

    def is_stuck(self, steps: int, config: PolicyGradientConfig) -> bool:
        """Whether to begin again; each attempt is asked once, `restart_after` decisions in."""
        if self.was_stuck_checked or steps < config.restart_after:
            return False
        self.was_stuck_checked = True
        is_low = self.attempt_best < self.floor + config.restart_margin
        return is_low and self.restarts < config.max_restarts

    def begin_again(self) -> None:
        """A new attempt; what was best overall stays."""
        self.attempt_best, self.since_best = float("-inf"), 0
        self.was_stuck_checked = False
        self.restarts += 1

    def is_done(self, steps: int, config: PolicyGradientConfig) -> bool:
        """Whether all decisions are played or nothing better has come for too long."""
        return steps >= config.total_timesteps or (
            config.patience is not None and self.since_best >= config.patience
        )


def improve(
    config: RunConfig,
    record: Run,
    kept: RunCheckpoint,
    learner: PolicyGradient,
    train: Arena,
    validation: Arena,
    guard: InterruptGuard,
    test: Arena | None = None,
) -> dict[str, int]:
    """Iterate until the decisions are spent; leave the best evaluation's weights in the network.

    With `test`, its learning curve is logged too; nothing depends on it.

    `global_step` goes on from gain regression's gradient steps, a decision a step.

    Returns:
        What it took, to be shown with the results: `decisions` of all attempts, the number of them
        at which the best weights were reached (`best_at`), and `restarts`.
    """
    settings = config.policy_gradient
    first_step = config.learner.rounds * config.learner.updates_per_round
    best = BestSoFar(learner.network)
    ranks = learner.ranks
    floor = ranks.from_first(lambda: _mean_reward(validation, Contestant(lineup.FIFO, YieldOnly())))
    standing = Standing(floor)
    if POLICY_GRADIENT in kept.state:
        tensors, state = kept.part(POLICY_GRADIENT)
        learner.restore(tensors, state)
        best.restore(tensors, state["best"])
        standing = Standing(**state["standing"])

    def save() -> None:
        tensors, state = learner.checkpoint()
        best_tensors, best_state = best.checkpoint()
        state |= {"best": best_state, "standing": vars(standing)}
        step = first_step + state["total_steps"]
        kept.save(step, tensors | best_tensors, state, POLICY_GRADIENT)

    try:
        with progress_bar("policy gradient: decisions", settings.total_timesteps) as advance:
            advance(learner.steps)
            while not standing.is_done(learner.steps, settings):
                before, start = learner.steps, time.perf_counter()
                metrics = learner.iterate(guard.check)
                rate = (learner.steps - before) / (time.perf_counter() - start)
                is_last = learner.steps >= settings.total_timesteps
                if is_last or learner.iteration % settings.eval_every == 0:
                    metrics |= ranks.from_first(
                        lambda: _evaluate(config, learner, train, validation, test)
                    )
                    reward = metrics["eval/reward_per_question"]
                    operations = metrics["eval/operations_per_question"]
                    score = reward - beyond(settings.operations_budget, operations)
                    if score > best.score:
                        standing.best_step = learner.total_steps
                    best.offer(score, learner.iteration)
                    metrics[BEST] = best.score
                    standing.note(reward)
                metrics |= {"charts/attempt": learner.attempt, "time/decisions_per_s": rate}
                record.log(first_step + learner.total_steps, metrics)
                advance(learner.steps - before)
                if "eval/reward_per_question" in metrics:
                    _print(learner, metrics)
                    if standing.is_stuck(learner.steps, settings):
                        print(f"stuck below {floor + settings.restart_margin:.3f}: begin again")
                        standing.begin_again()
                        advance(-learner.steps)
                        learner.restart()
                    save()
                guard.check()
    except Interrupted:
        save()
        print(f"Interrupted; go on with --resume true. The checkpoint is in {record.folder}.")
        raise
    except DivergedError as error:
        raise DivergedError(
            f"The policy gradient diverged after {learner.total_steps:,} decisions: {error}. The "
            f"last good checkpoint is in {record.folder}; try a lower "
            f"{' or '.join(learner.rates)} under another --name."
        ) from error
    best.load_into_module()
    return {
        "decisions": learner.total_steps,
        "best_at": standing.best_step,
        "restarts": standing.restarts,
    }


def beyond(budget: float | None, operations: float) -> float:
    """What a score loses for operations a question beyond a budget: more than a reward can win."""
    return 0.0 if budget is None else _PER_OPERATION_BEYOND * max(operations - budget, 0.0)


def _mean_reward(arena: Arena, contestant: Contestant) -> float:
    (records,) = arena.play([contestant])
    return mean_reward_per_question(records)


def _evaluate(
    config: RunConfig,
    learner: PolicyGradient,
    train: Arena,
    validation: Arena,
    test: Arena | None,
) -> dict[str, float]:
    """Greedy and sampled play on validation, greedy play on as many training episodes."""
    rng = Streams(config.seed).generator("evaluation", 1, learner.attempt, learner.iteration)
    name, name_sampled = lineup.POLICY_GRADIENTS[config.algorithm]
    greedy, sampled = validation.play(
        [
            Contestant(name, learner.policy),
            Contestant(name_sampled, learner.sampled_policy(rng)),
        ]
    )
    (trained,) = train.play([Contestant(name, learner.policy)])
    curve = {}
    if test is not None:
        (tested,) = test.play([Contestant(name, learner.policy)])
        curve["test/reward_per_question"] = mean_reward_per_question(tested)
    return curve | {
        "eval/reward_per_question": mean_reward_per_question(greedy),
        "eval/operations_per_question": mean_operations_per_question(greedy),
        "eval/reward_per_question_sampled": mean_reward_per_question(sampled),
        "train/reward_per_question": mean_reward_per_question(trained),
    }


def _print(learner: PolicyGradient, metrics: Mapping[str, float]) -> None:
    print(
        f"{learner.total_steps:,} decisions: reward per question, training "
        f"{metrics['train/reward_per_question']:.3f} greedy, "
        f"{metrics['rollout/reward_per_question']:.3f} sampled; validation "
        f"{metrics['eval/reward_per_question']:.3f} greedy, "
        f"{metrics['eval/reward_per_question_sampled']:.3f} sampled; "
        f"{metrics['time/decisions_per_s']:,.0f} decisions/s"
    )
