"""configs/sweep.yaml: wandb reads it, and what its agent would start is a run of train.py."""

from __future__ import annotations

from typing import Any

import yaml
from tiny_runs import ROOT
from wandb.sdk.launch.sweeps import utils as sweeps

from memrl.config import parse_config

KEYS = {"project", "program", "method", "metric", "parameters", "command"}
"""https://docs.wandb.ai/models/sweeps/sweep-config-keys, those in use here."""


def drawn(parameter: dict[str, Any], *, first: bool) -> Any:
    """The first or the last value that a parameter can take."""
    if "values" in parameter:
        return parameter["values"][0 if first else -1]
    return parameter["min" if first else "max"]


def test_the_agent_starts_runs_that_train_py_accepts() -> None:
    sweep = yaml.safe_load((ROOT / "configs" / "sweep.yaml").read_text())
    assert set(sweep) == KEYS
    assert (ROOT / sweep["program"]).exists()
    assert sweep["metric"] == {"name": "eval/best_reward_per_question", "goal": "maximize"}
    for first in (True, False):
        values = {
            name: {"value": drawn(parameter, first=first)}
            for name, parameter in sweep["parameters"].items()
        }
        arguments = sweeps.create_sweep_command_args({"args": values})["args"]
        command = sweeps.create_sweep_command(sweep["command"])
        start = command.index("${program}") + 1
        assert command[-1] == "${args}"
        config = parse_config([*command[start:-1], *arguments])
        assert (config.name, config.if_used, config.wandb_mode) == ("sweep", "number", "online")
        assert config.workload.name == "chat"
        assert config.network.hidden == (32 if first else 128)
        assert config.learner.learning_rate == (0.0003 if first else 0.01)
        assert config.seed == (0 if first else 2)
