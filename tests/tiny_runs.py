"""Runs `train.py` in this process, on a workload so small that a run takes a few seconds."""

from __future__ import annotations

import contextlib
import importlib.util
import io
import json
import os
import signal
import sys
from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path
from types import ModuleType
from typing import Any

import pytest
import yaml

from memrl import learning
from memrl.algos.gain_regression import GainRegression
from memrl.algos.policy_gradient import PolicyGradient
from memrl.evaluation import __main__ as evaluation

ROOT = Path(__file__).parents[1]
TINY: dict[str, Any] = {
    "name": "tiny",
    "num_envs": 3,
    "wandb_mode": "disabled",
    "workload": {
        "embedder": "hashing",
        "window_pages": 9,
        "max_queries": 2,
        "train_episodes": 3,
        "validation_episodes": 2,
        "test_episodes": 2,
        "chat": {
            "num_documents": 4,
            "num_sessions": 2,
            "turns_per_session": 14,
            "facts_per_document": 3,
            "update_frac": 0.0,
            "multi_evidence_frac": 0.0,
        },
    },
    "paging": {
        "capacity": 3,
        "archival_capacity": 6,
        "num_candidates": 2,
        "operation_budget": 3,
    },
    "network": {"hidden": 8},
    "learner": {
        "rounds": 2,
        "episodes_per_round": 3,
        "updates_per_round": 6,
        "batch_size": 16,
    },
    "evaluation": {"top_k": [1], "prior_thresholds": [0.5], "store_offsets": [0.0, 0.05]},
}
LOG_EVERY = 5  # instead of the program's own, so that so few updates are logged


@dataclass(frozen=True)
class Outcome:
    """How a program ended."""

    code: int
    out: str
    err: str

    @property
    def error(self) -> str:
        """The one line that says what went wrong."""
        assert "Traceback" not in self.err, self.err
        (line,) = [line for line in self.err.splitlines() if line.startswith("error:")]
        return line


def train_module() -> ModuleType:
    """train.py as a module."""
    if "train" not in sys.modules:
        spec = importlib.util.spec_from_file_location("train", ROOT / "train.py")
        assert spec is not None
        assert spec.loader is not None
        module = importlib.util.module_from_spec(spec)
        sys.modules["train"] = module
        spec.loader.exec_module(module)
    return sys.modules["train"]


def preset(folder: Path, **values: Any) -> Path:
    """A preset file with the tiny settings; top-level values may be replaced."""
    folder.mkdir(parents=True, exist_ok=True)
    path = folder / "tiny.yaml"
    path.write_text(yaml.safe_dump(TINY | values), encoding="utf-8")
    return path


def train(folder: Path, *arguments: str) -> Outcome:
    """Run train.py with the tiny preset; run folders are made under `folder / "runs"`."""
    command = ["--config", str(preset(folder)), "--runs_dir", str(folder / "runs"), *arguments]
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(learning, "LOG_EVERY", LOG_EVERY)
        return called(train_module().main, "train.py", *command)


def evaluate(*arguments: str | Path) -> Outcome:
    """Run `python -m memrl.evaluation` in this process."""
    return called(evaluation.main, "memrl.evaluation", *map(str, arguments))


def called(program: Callable[[], int], *command: str) -> Outcome:
    """Run a program's main function in this process under a command line."""
    out, err = io.StringIO(), io.StringIO()
    with (
        pytest.MonkeyPatch.context() as patch,
        contextlib.redirect_stdout(out),
        contextlib.redirect_stderr(err),
    ):
        patch.setattr(sys, "argv", [*command])
        try:
            code: str | int | None = program()
        except SystemExit as stopped:
            code = stopped.code
    return Outcome(int(code or 0), out.getvalue(), err.getvalue())


def interrupted_train(
    folder: Path,
    *arguments: str,
    method: str,
    call: int,
    learner: type[GainRegression] | type[PolicyGradient] = GainRegression,
) -> Outcome:
    """The same, with Ctrl-C while the learner's `method` is called for the `call`-th time."""
    original, calls = getattr(learner, method), 0

    def pressing(self: Any, *args: Any, **kwargs: Any) -> Any:
        nonlocal calls
        calls += 1
        if calls == call:
            os.kill(os.getpid(), signal.SIGINT)
        return original(self, *args, **kwargs)

    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(learner, method, pressing)
        outcome = train(folder, *arguments)
    assert calls >= call, "Ctrl-C was never pressed"
    return outcome


def json_lines(path: Path) -> list[dict[str, Any]]:
    return [json.loads(line) for line in path.read_text(encoding="utf-8").splitlines()]


def results_of(run: Path) -> dict[str, Any]:
    """The results of a run folder, timings apart."""
    results: dict[str, Any] = json.loads((run / "results.json").read_text(encoding="utf-8"))
    for policy in [*results["policies"], results["best_heuristic"]]:
        assert policy.pop("decision_ms") >= 0
    return results


def episodes_of(run: Path) -> list[dict[str, Any]]:
    """The records of a run folder, timings apart."""
    rows = json_lines(run / "episodes.jsonl")
    for row in rows:
        assert row["record"].pop("decision_s") >= 0
    return rows
