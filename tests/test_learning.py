"""Policy gradients as train.py runs them: stages, resumption, restarts, divergence."""

from __future__ import annotations

import math
import shutil
from pathlib import Path
from typing import Any

import pytest
import torch
from tiny_runs import (
    TINY,
    Outcome,
    called,
    episodes_of,
    interrupted_train,
    json_lines,
    results_of,
    train,
)

from memrl.algos.group_policy_gradient import GroupPolicyGradient
from memrl.algos.ppo import PPO
from memrl.checkpoint import load_checkpoint
from memrl.evaluation import __main__ as program
from memrl.evaluation import lineup
from memrl.learning import Standing, start_weights
from memrl.policy_gradient_config import PolicyGradientConfig

UPDATES = TINY["learner"]["rounds"] * TINY["learner"]["updates_per_round"]
SETTINGS: dict[str, Any] = {
    "total_timesteps": 500,
    "num_groups": 3,
    "group_size": 2,
    "num_minibatches": 2,
    "eval_every": 2,
    "max_restarts": 0,
}


WITH_PPO: dict[str, Any] = {"algorithm": "ppo", "num_groups": 6, "group_size": 1}


def arguments(**values: Any) -> list[str]:
    """The command line of a run with a policy gradient, the one within groups by default."""
    pairs = SETTINGS | values
    algorithm = pairs.pop("algorithm", "group_policy_gradient")
    listed = [part for key, value in pairs.items() for part in (f"--policy_gradient.{key}", value)]
    return ["--algorithm", algorithm, "--network.slot_pool", "false", *map(str, listed)]


def run_folder(folder: Path) -> Path:
    return folder / "runs" / "tiny" / "seed0"


def metrics_of(run: Path) -> list[dict[str, Any]]:
    """Lines of the policy gradient, timings apart."""
    lines = [line for line in json_lines(run / "metrics.jsonl") if "losses/entropy" in line]
    for line in lines:
        assert line.pop("time/decisions_per_s") > 0
    return lines


@pytest.fixture(scope="module")
def finished(tmp_path_factory: pytest.TempPathFactory) -> tuple[Path, Outcome]:
    """An uninterrupted run."""
    folder = tmp_path_factory.mktemp("finished")
    outcome = train(folder, *arguments())
    assert outcome.code == 0, outcome.err
    return run_folder(folder), outcome


@pytest.fixture(scope="module")
def finished_ppo(tmp_path_factory: pytest.TempPathFactory) -> tuple[Path, Outcome]:
    """The same with PPO."""
    folder = tmp_path_factory.mktemp("finished_ppo")
    outcome = train(folder, *arguments(**WITH_PPO))
    assert outcome.code == 0, outcome.err
    return run_folder(folder), outcome


# ---------------------------------------------------------------------------------------- a run


@pytest.mark.parametrize("algorithm", lineup.POLICY_GRADIENTS)
def test_both_ways_of_playing_stand_beside_all_controls(
    algorithm: str, finished: tuple[Path, Outcome], finished_ppo: tuple[Path, Outcome]
) -> None:
    results = results_of((finished_ppo if algorithm == "ppo" else finished)[0])
    names = [policy["name"] for policy in results["policies"]]
    assert len(names) == 15
    learned = {*lineup.POLICY_GRADIENTS[algorithm]}
    assert learned | {*lineup.CONTROLS, lineup.CLAIRVOYANT} <= set(names)
    for name in learned:
        (settings,) = next(p for p in results["policies"] if p["name"] == name)["settings"]
        assert settings["restarts"] == 0
        assert 0 < settings["best_at"] <= settings["decisions"]
        assert settings["decisions"] >= SETTINGS["total_timesteps"]
        controls = {p["control"] for p in results["paired"] if p["policy"] == name}
        assert controls == {*lineup.CONTROLS, "best heuristic"}
        assert name in results["best_heuristic"]["verdicts"]


def test_the_reference_environment_gives_the_same_run(
    tmp_path: Path, finished: tuple[Path, Outcome]
) -> None:
    outcome = train(tmp_path, *arguments(), "--environment", "reference")
    assert outcome.code == 0, outcome.err
    assert metrics_of(run_folder(tmp_path)) == metrics_of(finished[0])
    assert episodes_of(run_folder(tmp_path)) == episodes_of(finished[0])


def test_metrics_say_how_learning_goes(finished: tuple[Path, Outcome]) -> None:
    lines = metrics_of(finished[0])
    assert len(lines) >= 3
    steps = [line["global_step"] for line in lines]
    decisions = [line["rollout/decisions"] for line in lines]
    assert steps == [UPDATES + sum(decisions[: place + 1]) for place in range(len(lines))]
    for line in lines:
        assert all(math.isfinite(value) for value in line.values())
        assert {"losses/clipfrac", "losses/approx_kl", "rollout/reward_per_question"} <= set(line)
    evaluated = ["eval/reward_per_question_sampled" in line for line in lines]
    due = [number % SETTINGS["eval_every"] == 0 for number in range(1, len(lines) + 1)]
    assert evaluated == [*due[:-1], True]
    assert "train/reward_per_question" in lines[-1]


def test_metrics_of_ppo_say_how_the_critic_does(finished_ppo: tuple[Path, Outcome]) -> None:
    for line in metrics_of(finished_ppo[0]):
        assert all(math.isfinite(value) for value in line.values())
        assert {"losses/clipfrac", "losses/anchor_kl", "charts/cost_weight"} <= set(line)
        assert line["losses/value_loss"] > 0
        assert line["losses/explained_variance"] <= 1


def test_the_weights_that_validation_chose_are_scored(finished: tuple[Path, Outcome]) -> None:
    tensors, state = load_checkpoint(finished[0])
    own = state["policy_gradient"]
    rewards = [
        line["eval/reward_per_question"]
        for line in metrics_of(finished[0])
        if "eval/reward_per_question" in line
    ]
    assert own["best"]["score"] == max(rewards)
    assert own["total_steps"] == own["steps"]
    weights = {name.removeprefix("network.") for name in tensors if name.startswith("network.")}
    for part in ("best", "policy_gradient.network", "policy_gradient.best"):
        assert {f"{part}.{name}" for name in weights} <= tensors.keys()


@pytest.mark.parametrize("start", ["brief_imitation", "imitation"])
def test_learning_can_start_from_imitation(tmp_path: Path, start: str) -> None:
    options = {"start": start, "kl_coef": 0.1, "total_timesteps": 100}
    fitted = ["--learner.updates_per_round", "26"]  # so much that the second round is the best
    outcome = train(tmp_path, *arguments(**options), *fitted)
    assert outcome.code == 0, outcome.err
    tensors, _ = load_checkpoint(run_folder(tmp_path))
    weights = start_weights(start, tensors)
    assert weights is not None
    for name, value in weights.items():
        assert torch.equal(value, tensors[f"policy_gradient.reference.{name}"]), name
    assert not torch.equal(
        weights["slot_encoder.weight"], tensors["policy_gradient.network.slot_encoder.weight"]
    )
    brief = start_weights("brief_imitation", tensors)
    assert brief is not None
    assert not torch.equal(brief["slot_encoder.weight"], tensors["network.slot_encoder.weight"])


def test_the_network_with_a_slot_summary_and_any_scope_can_learn_too(tmp_path: Path) -> None:
    options = ["--network.slot_pool", "true", "--paging.evict_scope", "any"]
    outcome = train(tmp_path, *arguments(total_timesteps=100), *options)
    assert outcome.code == 0, outcome.err
    assert len(results_of(run_folder(tmp_path))["policies"]) == 15


@pytest.mark.parametrize(
    ("values", "what"),
    [
        ({"group_size": 1}, "group_size"),
        ({"temperature": 0}, "temperature"),
        ({"num_minibatches": 0}, "num_minibatches"),
        ({"cost_anneal_frac": 1.5}, "cost_anneal_frac"),
        ({"patience": 0}, "patience"),
        ({"algorithm": "ppo", "group_size": 0}, "group_size"),
        ({"start": "imitation_of_life"}, "start"),
    ],
)
def test_settings_that_could_not_learn_are_refused_in_one_line(
    tmp_path: Path, values: dict[str, Any], what: str
) -> None:
    outcome = train(tmp_path, *arguments(**values))
    assert outcome.code == 2
    assert what in outcome.error


@pytest.mark.parametrize(
    ("option", "value"),
    [
        ("gamma", "1.01"),
        ("gae_lambda", "-0.1"),
        ("critic_learning_rate", "0"),
        ("critic_epochs", "0"),
        ("vf_coef", "0.5"),
    ],
)
def test_settings_of_a_critic_that_could_not_learn_are_refused(
    tmp_path: Path, option: str, value: str
) -> None:
    outcome = train(tmp_path, *arguments(**WITH_PPO), f"--ppo.{option}", value)
    assert outcome.code == 2
    assert option in outcome.error


def test_a_brief_start_needs_several_rounds(tmp_path: Path) -> None:
    outcome = train(tmp_path, *arguments(start="brief_imitation"), "--learner.rounds", "1")
    assert outcome.code == 2
    assert "learner.rounds" in outcome.error


@pytest.mark.parametrize("algorithm", lineup.POLICY_GRADIENTS)
def test_what_was_learned_can_play_elsewhere(
    algorithm: str, finished: tuple[Path, Outcome], finished_ppo: tuple[Path, Outcome]
) -> None:
    run = (finished_ppo if algorithm == "ppo" else finished)[0]
    arguments = [str(run), "--config", str(run / "config.yaml")]
    outcome = called(program.main, "evaluation", "transfer", *arguments)
    assert outcome.code == 0, outcome.err
    assert f" {lineup.POLICY_GRADIENTS[algorithm][0]} " in outcome.out


# ---------------------------------------------------------------------------------------- Ctrl-C


@pytest.mark.parametrize(
    ("method", "call"),
    [("iterate", 2), ("_losses", 5), ("_evaluate", 9)],
)
def test_a_resumed_run_equals_an_uninterrupted_one(
    tmp_path: Path, finished: tuple[Path, Outcome], method: str, call: int
) -> None:
    stopped = interrupted_train(
        tmp_path, *arguments(), method=method, call=call, learner=GroupPolicyGradient
    )
    assert stopped.code == 130
    assert "--resume" in stopped.out
    assert load_checkpoint(run_folder(tmp_path))[1]["policy_gradient"]["iteration"] < 4
    require_resumed(tmp_path, finished[0], *arguments())


def test_a_resumed_run_of_ppo_equals_an_uninterrupted_one(
    tmp_path: Path, finished_ppo: tuple[Path, Outcome]
) -> None:
    """Stopped while the critic is fitted in the second iteration."""
    command = arguments(**WITH_PPO)
    stopped = interrupted_train(tmp_path, *command, method="_value_losses", call=6, learner=PPO)
    assert stopped.code == 130
    tensors, state = load_checkpoint(run_folder(tmp_path))
    assert state["policy_gradient"]["iteration"] == 1
    assert tensors["policy_gradient.critic.scale"] != 1.0
    require_resumed(tmp_path, finished_ppo[0], *command)
    tensors, _ = load_checkpoint(run_folder(tmp_path))
    assert {"critic.shift", "critic.value_head.weight", "critic_optimizer.state.0.exp_avg"} <= {
        name.removeprefix("policy_gradient.") for name in tensors
    }


def require_resumed(folder: Path, whole: Path, *command: str) -> None:
    """Resume the run in `folder` and compare it with an uninterrupted one, bit for bit."""
    outcome = train(folder, *command, "--resume", "true")
    assert outcome.code == 0, outcome.err
    run = run_folder(folder)
    assert metrics_of(run) == metrics_of(whole)
    assert episodes_of(run) == episodes_of(whole)
    assert results_of(run) == results_of(whole)
    tensors, state = load_checkpoint(run)
    other_tensors, other_state = load_checkpoint(whole)
    assert state == other_state
    assert tensors.keys() == other_tensors.keys()
    for name, value in tensors.items():
        assert torch.equal(value, other_tensors[name]), name


# ---------------------------------------------------------------------------------------- restarts


# No reward is this far above FIFO's, so every attempt is stuck.
STUCK = {"restart_after": 150, "restart_margin": 9, "max_restarts": 2, "eval_every": 1}


@pytest.fixture(scope="module")
def stuck(tmp_path_factory: pytest.TempPathFactory) -> tuple[Path, Outcome]:
    """An uninterrupted run that begins again twice."""
    folder = tmp_path_factory.mktemp("stuck")
    outcome = train(folder, *arguments(**STUCK))
    assert outcome.code == 0, outcome.err
    return run_folder(folder), outcome


def test_a_stuck_seed_begins_again(stuck: tuple[Path, Outcome]) -> None:
    run, outcome = stuck
    assert outcome.out.count("begin again") == 2
    (settings,) = next(
        policy["settings"]
        for policy in results_of(run)["policies"]
        if policy["name"] == lineup.GROUP_POLICY_GRADIENT
    )
    assert settings["restarts"] == 2
    attempts = [line["charts/attempt"] for line in metrics_of(run)]
    assert attempts == sorted(attempts)
    assert set(attempts) == {0, 1, 2}
    state = load_checkpoint(run)[1]["policy_gradient"]
    assert state["attempt"] == 2
    assert state["total_steps"] == settings["decisions"] > state["steps"] >= 500


def test_a_restart_survives_resumption(tmp_path: Path, stuck: tuple[Path, Outcome]) -> None:
    command = arguments(**STUCK)
    stopped = interrupted_train(
        tmp_path, *command, method="iterate", call=5, learner=GroupPolicyGradient
    )
    assert stopped.code == 130
    assert load_checkpoint(run_folder(tmp_path))[1]["policy_gradient"]["attempt"] == 1
    assert train(tmp_path, *command, "--resume", "true").code == 0
    assert metrics_of(run_folder(tmp_path)) == metrics_of(stuck[0])
    assert results_of(run_folder(tmp_path)) == results_of(stuck[0])


def test_whether_learning_is_stuck_is_asked_once() -> None:
    config = PolicyGradientConfig(restart_after=100, restart_margin=0.1, max_restarts=1)
    standing = Standing(floor=0.4)
    standing.note(0.45)
    assert not standing.is_stuck(99, config)
    assert standing.is_stuck(100, config)
    standing.begin_again()
    standing.note(0.51)
    assert not standing.is_stuck(100, config)
    slow = Standing(floor=0.4, attempt_best=0.5)
    assert not slow.is_stuck(100, config)
    slow.attempt_best = 0.0
    assert not slow.is_stuck(200, config)
    tried = Standing(floor=0.4, attempt_best=0.3, restarts=1)
    assert not tried.is_stuck(100, config)


def test_learning_stops_when_nothing_better_comes() -> None:
    config = PolicyGradientConfig(total_timesteps=1_000, patience=2)
    standing = Standing(floor=0.0)
    for reward, done in ((0.5, False), (0.4, False), (0.6, False), (0.6, False), (0.1, True)):
        standing.note(reward)
        assert standing.is_done(10, config) is done
    assert Standing(floor=0.0).is_done(1_000, config)
    assert not standing.is_done(999, PolicyGradientConfig(total_timesteps=1_000))


# ------------------------------------------------------------------------------- divergence


def test_divergence_names_the_step_and_keeps_the_last_good_checkpoint(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, finished: tuple[Path, Outcome]
) -> None:
    original = GroupPolicyGradient.iterate

    def poisoned(self: GroupPolicyGradient, on_step: Any = None) -> dict[str, float]:
        if self.iteration == 3:
            with torch.no_grad():
                self.network.operation_head.bias[0] = torch.nan
        return original(self, on_step)

    monkeypatch.setattr(GroupPolicyGradient, "iterate", poisoned)
    outcome = train(tmp_path, *arguments())
    assert outcome.code == 1
    lines = metrics_of(finished[0])
    steps = sum(line["rollout/decisions"] for line in lines[:3])
    assert f"{steps:,.0f} decisions" in outcome.error
    assert "logits" in outcome.error
    run = run_folder(tmp_path)
    assert str(run) in outcome.error
    tensors, state = load_checkpoint(run)
    assert state["policy_gradient"]["iteration"] == 2
    assert all(value.isfinite().all() for value in tensors.values())
    monkeypatch.undo()
    assert train(tmp_path, *arguments(), "--resume", "true").code == 0
    assert metrics_of(run) == lines
    shutil.rmtree(run)


def test_a_critic_that_diverges_is_named_and_keeps_the_last_good_checkpoint(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, finished_ppo: tuple[Path, Outcome]
) -> None:
    original = PPO.iterate

    def poisoned(self: PPO, on_step: Any = None) -> dict[str, float]:
        if self.iteration == 2:
            with torch.no_grad():
                self.critic.value_head.bias.fill_(torch.nan)
        return original(self, on_step)

    monkeypatch.setattr(PPO, "iterate", poisoned)
    outcome = train(tmp_path, *arguments(**WITH_PPO))
    assert outcome.code == 1
    steps = sum(line["rollout/decisions"] for line in metrics_of(finished_ppo[0])[:2])
    assert f"{steps:,.0f} decisions" in outcome.error
    assert "the values of the critic are not finite" in outcome.error
    assert "policy_gradient.learning_rate or ppo.critic_learning_rate" in outcome.error
    tensors, state = load_checkpoint(run_folder(tmp_path))
    assert state["policy_gradient"]["iteration"] == 2
    assert all(value.isfinite().all() for value in tensors.values())
