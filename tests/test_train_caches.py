"""`train.py` on page caches, so small that a run takes a few seconds."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import pytest
import yaml
from tiny_runs import TINY, Outcome, called, results_of, train_module

from memrl.evaluation import __main__ as evaluation
from memrl.evaluation import lineup
from memrl.policies.cache_rules import RULES

WORKLOAD: dict[str, Any] = {
    "name": "page_cache",
    "train_episodes": 2,
    "validation_episodes": 1,
    "test_episodes": 2,
    "page_cache": {
        "streams_per_kind": 2,
        "num_requests": 90,
        "num_pages": 16,
        "window_requests": 40,
    },
}
PAGING = {
    "capacity": 5,
    "archival_capacity": 0,
    "num_candidates": 0,
    "evict_scope": "any",
    "shown_slots": 2,
}
SETTINGS = TINY | {"name": "caches", "workload": WORKLOAD, "paging": PAGING}


def preset(folder: Path, **changes: Any) -> Path:
    path = folder / "caches.yaml"
    path.write_text(yaml.safe_dump(SETTINGS | changes))
    return path


def train(folder: Path, path: Path, *arguments: str) -> Outcome:
    command = ["--config", str(path), "--runs_dir", str(folder / "runs"), *arguments]
    return called(train_module().main, "train.py", *command)


@pytest.fixture(scope="module")
def run(tmp_path_factory: pytest.TempPathFactory) -> Path:
    folder = tmp_path_factory.mktemp("caches")
    outcome = train(folder, preset(folder))
    assert outcome.code == 0, outcome.err
    assert "requests by kind" in outcome.out
    assert "hit ratio" in outcome.out
    return folder / "runs" / "caches" / "seed0"


def test_a_run_scores_every_rule_and_the_bound(run: Path) -> None:
    results = results_of(run)
    by_name = {policy["name"]: policy for policy in results["policies"]}
    assert list(by_name) == ["random", *RULES, lineup.LEARNED, "belady_min"]
    bound = by_name["belady_min"]["hit_ratio"]["estimate"]
    assert all(policy["hit_ratio"]["estimate"] <= bound for policy in by_name.values())
    assert by_name["LRU"]["overrides"] == {"shown_slots": None}
    assert set(by_name["LRU"]["by_category"]) <= {"zipf", "loop", "scan", "shift"}
    assert "hit ratio" in (run / "results.md").read_text()


def test_a_run_plays_on_other_streams_but_not_on_chats(run: Path, tmp_path: Path) -> None:
    loops = {"seed": 7, "kinds": ["loop"], "streams_per_kind": 4}
    cache = WORKLOAD["page_cache"] | loops
    other = preset(tmp_path, workload=WORKLOAD | {"page_cache": cache})
    command = ("transfer", str(run), "--config", str(other), "--out", str(tmp_path))
    outcome = called(evaluation.main, "memrl.evaluation", *command)
    assert outcome.code == 0, outcome.err
    played = json.loads((tmp_path / "results.json").read_text())
    assert [policy["name"] for policy in played["policies"]][-2:] == [lineup.LEARNED, "belady_min"]
    chats = tmp_path / "chats.yaml"
    chats.write_text(yaml.safe_dump(TINY))
    outcome = called(
        evaluation.main, "memrl.evaluation", "transfer", str(run), "--config", str(chats)
    )
    assert outcome.code == 1
    assert "learned page_cache and cannot play chat" in outcome.error


def test_a_trace_is_trained_on_its_first_half_by_the_policy_gradient_too(tmp_path: Path) -> None:
    trace = tmp_path / "cache_traces" / "t.trace"
    trace.parent.mkdir()
    trace.write_text("".join(f"{number % 9}\n" for number in range(400)))
    workload = WORKLOAD | {
        "data_dir": str(tmp_path),
        "test_episodes": 9,
        "page_cache": {"source": "trace", "trace": "t", "window_requests": 25},
    }
    gradient = {"total_timesteps": 100, "num_groups": 2, "group_size": 2, "eval_every": 2}
    path = preset(tmp_path, workload=workload, split={"kind": "halves"}, policy_gradient=gradient)
    outcome = train(tmp_path, path, "--algorithm", "group_policy_gradient")
    assert outcome.code == 0, outcome.err
    assert "8 blocks" in " ".join(outcome.out.split())
    results = results_of(tmp_path / "runs" / "caches" / "seed0")
    assert results["clusters"][0] == "t@200"
    assert lineup.GROUP_POLICY_GRADIENT in [policy["name"] for policy in results["policies"]]


def test_a_missing_trace_is_one_line(tmp_path: Path) -> None:
    workload = WORKLOAD | {"data_dir": str(tmp_path), "page_cache": {"source": "trace"}}
    outcome = train(tmp_path, preset(tmp_path, workload=workload, split={"kind": "halves"}))
    assert outcome.code == 1
    assert "cache_traces/lirs/loop.trace.gz" in outcome.error
