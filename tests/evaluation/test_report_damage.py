"""Damaged run folders: one sentence each, which names the file and what to do."""

from __future__ import annotations

import json
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
import yaml
from run_folders import write_run

from memrl.evaluation.report.folders import read_run
from memrl.run_files import RunError

Damage = Callable[[Path], object]
FILES = ("config.yaml", "results.json", "episodes.jsonl", "metrics.jsonl", "provenance.json")
FIGURES = ("calibration.json", "strip.json")


def whole(text: str) -> Damage:
    return lambda path: path.write_text(text)


def put(*keys: Any, value: Any) -> Damage:
    """Another value at a place of a YAML or JSON file; of JSON lines in each of them."""

    def damage(path: Path) -> None:
        is_yaml, is_lines = path.suffix == ".yaml", path.suffix == ".jsonl"
        texts = path.read_text().splitlines() if is_lines else [path.read_text()]
        values = [yaml.safe_load(text) if is_yaml else json.loads(text) for text in texts]
        for inner in values:
            for key in keys[:-1]:
                inner = inner[key]
            inner[keys[-1]] = value
        written = [yaml.safe_dump(own) if is_yaml else json.dumps(own) + "\n" for own in values]
        path.write_text("".join(written))

    return damage


def into_folder(path: Path) -> None:
    path.unlink(missing_ok=True)
    path.mkdir()


EVERYWHERE: dict[str, Damage] = {
    "binary": lambda path: path.write_bytes(bytes(range(256)) + b"\n"),
    "a list": whole("[1, 2]\n"),
    "null": whole("null\n"),
    "too deep": whole("[" * 2_000 + "\n"),
    "a folder": into_folder,
}
DAMAGES: dict[str, dict[str, Damage]] = {
    "config.yaml": {
        "empty": whole(""),
        "split": put("split", value=[1]),
        "fold": put("split", "fold", value="abc"),
        "workload": put("workload", value=[]),
        "parameters": put("workload", "chat", value=[1]),
        "capacity": put("paging", "capacity", value=float("nan")),
        "no capacity": put("paging", "capacity", value=0),
        "a set": put("name", value={"a"}),
        "code": whole("name: !!python/object:os.system {}\n"),
    },
    "results.json": {
        "empty": whole(""),
        "schema": put("schema", value="x"),
        "policies": put("policies", value={"a": 1}),
        "name": put("policies", 0, "name", value=[1]),
    },
    "episodes.jsonl": {
        "empty": whole(""),
        "no number": put("record", "evidence", value=float("nan")),
        "a count": put("record", "num_scored", value="x"),
        "below 0": put("record", "num_scored", value=-1),
        "terms": put("record", "reward_terms", value={"a": None}),
        "operations": put("record", "operations", value={"a": 1}),
        "funnel": put("record", "funnel", value={}),
        "a sum": put("record", "evidence_by_category", value={"a": [1]}),
        "record": put("record", value=[1]),
        "kind": put("kind", value="x"),
        "run": put("run", value=7),
        "settings": put("settings", value=None),
        "notes": put("notes", value="x"),
        "half a letter": put("record", "document", value="\ud800"),
    },
    "metrics.jsonl": {
        "no end": whole('{"global_step": Infinity}\n'),
        "score": whole('{"global_step": 1, "eval/reward_per_question": "x"}\n'),
    },
    "provenance.json": {
        "empty": whole(""),
        "starts": whole('{"starts": "abc"}'),
        "a start": whole('{"starts": [null]}'),
        "code": put("starts", value=[{"code": None}]),
        "commit": put("starts", value=[{"code": {"commit": [1]}}]),
        "data": put("starts", value=[{"data": "x"}]),
        "tables": put("starts", value=[{"data": {"tables": {"test": 5}}}]),
        "command": put("starts", value=[{"command": "train.py"}]),
    },
}
for file in FIGURES:
    DAMAGES[file] = {"empty": whole(""), "cut": whole('{"policy": "gain'), "other": whole("{}")}
CASES = [
    pytest.param(name, damage, id=f"{name}, {what}")
    for name in (*FILES, *FIGURES)
    for what, damage in (EVERYWHERE | DAMAGES[name]).items()
]


@pytest.mark.parametrize(("name", "damage"), CASES)
def test_a_damaged_file_is_one_sentence(tmp_path: Path, name: str, damage: Damage) -> None:
    run = write_run(tmp_path, documents=2)
    damage(run / name)
    with pytest.raises(RunError) as caught:
        read_run(run)
    message = str(caught.value)
    assert name in message
    assert "\n" not in message
    assert message.rpartition(": ")[2].startswith(
        ("start the run", "delete", "repair", "leave", "score the run")
    )


def test_what_may_be_missing_or_torn_is_read(tmp_path: Path) -> None:
    run = write_run(tmp_path, documents=2)
    with (run / "metrics.jsonl").open("a") as file:
        file.write('{"glob')
    assert len(read_run(run).metrics) == 2
    (run / "metrics.jsonl").unlink()
    assert read_run(run).metrics == []


def test_policies_that_played_other_episodes_are_named(tmp_path: Path) -> None:
    run = write_run(tmp_path, documents=2)
    lines = (run / "episodes.jsonl").read_text().splitlines(keepends=True)
    lines[2] = lines[2].replace('"document": "d0"', '"document": "d9"')
    (run / "episodes.jsonl").write_text("".join(lines))
    with pytest.raises(RunError, match="'prior rule' did not play the episodes of 'FIFO"):
        read_run(run)
