from __future__ import annotations

import csv
import json
import math
from enum import Enum
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
import yaml

from memrl.run_files import RunError
from memrl.tracking import Run, start_run

CONFIG: dict[str, Any] = {"env": {"slots": 24, "costs": (0.005, 0.02)}, "lr": 1e-05, "tag": None}
PROVENANCE: dict[str, Any] = {"code": {"commit": "abc"}}


def start(root: Path, **options: Any) -> Run:
    return start_run(root, "locomo", 3, CONFIG, PROVENANCE, **options)


def lines(run: Run) -> list[dict[str, Any]]:
    return [json.loads(line) for line in (run.folder / "metrics.jsonl").read_text().splitlines()]


def test_a_run_is_a_folder(tmp_path: Path) -> None:
    run = start(tmp_path / "runs")
    assert run.folder == tmp_path / "runs" / "locomo" / "seed3"
    assert not run.resumed
    run.log(10, {"loss/policy": 0.5})
    run.log(10, {"eval/recall": 0.25})
    run.finish({"recall": {"mean": 0.25}})
    assert yaml.safe_load((run.folder / "config.yaml").read_text()) == {
        "env": {"slots": 24, "costs": [0.005, 0.02]},
        "lr": 1e-05,
        "tag": None,
        "name": "locomo",
    }
    assert json.loads((run.folder / "provenance.json").read_text()) == {"starts": [PROVENANCE]}
    assert lines(run) == [
        {"global_step": 10, "loss/policy": 0.5},
        {"global_step": 10, "eval/recall": 0.25},
    ]
    assert json.loads((run.folder / "results.json").read_text()) == {"recall": {"mean": 0.25}}
    assert sorted(path.name for path in run.folder.iterdir()) == [
        "config.yaml",
        "metrics.jsonl",
        "provenance.json",
        "results.json",
    ]


class Mode(Enum):
    ENDED = "end"


def test_values_are_written_as_strict_json(tmp_path: Path) -> None:
    run = start(tmp_path)
    metrics = {
        "numpy": np.float32(0.5),
        "torch": torch.tensor(3),
        "array": np.arange(2),
        "nan": math.nan,
        "infinite": torch.tensor(math.inf),
        "text": "ü\n",
        "flag": np.bool_(True),
        "path": Path("a/b"),
        "enum": Mode.ENDED,
    }
    run.log(np.int64(7), metrics)  # type: ignore[arg-type]
    run.finish({"nested": [math.nan, {"a": -math.inf}]})

    def refuse(name: str) -> None:
        raise AssertionError(f"{name} is not strict JSON")

    text = (run.folder / "metrics.jsonl").read_text()
    assert json.loads(text, parse_constant=refuse) == {
        "global_step": 7,
        "numpy": 0.5,
        "torch": 3,
        "array": [0, 1],
        "nan": None,
        "infinite": None,
        "text": "ü\n",
        "flag": True,
        "path": "a/b",
        "enum": "end",
    }
    results = json.loads((run.folder / "results.json").read_text(), parse_constant=refuse)
    assert results == {"nested": [None, {"a": None}]}


def test_steps_never_go_backwards(tmp_path: Path) -> None:
    run = start(tmp_path)
    run.log(10, {})
    with pytest.raises(RunError, match="Step 9 was logged after step 10"):
        run.log(9, {})
    with pytest.raises(RunError, match="cannot be called global_step"):
        run.log(11, {"global_step": 12})
    assert lines(run) == [{"global_step": 10}]


def test_tables(tmp_path: Path) -> None:
    run = start(tmp_path)
    run.log_table("eval/episodes", ["policy", "recall"], [["old", 1.0]])
    run.log_table(
        "eval/episodes", ["policy", "recall"], [["fifo", np.float64(0.1 + 0.2)], ['a,"b"\nc', None]]
    )
    with (run.folder / "tables" / "eval" / "episodes.csv").open(newline="") as file:
        rows = list(csv.reader(file))
    assert rows == [["policy", "recall"], ["fifo", repr(0.1 + 0.2)], ['a,"b"\nc', ""]]
    assert len(list((run.folder / "tables" / "eval").iterdir())) == 1
    for name in ("../escape", "/absolute", "a b", ""):
        with pytest.raises(RunError, match="table cannot be called"):
            run.log_table(name, ["a"], [])
    with pytest.raises(RunError, match="Row 1 of table 't' has 1 values for 2 columns"):
        run.log_table("t", ["a", "b"], [[1, 2], [3]])


def test_a_used_folder_is_refused(tmp_path: Path) -> None:
    folder = start(tmp_path).folder
    before = (folder / "provenance.json").read_bytes()
    with pytest.raises(RunError) as caught:
        start(tmp_path)
    for part in (str(folder), "--resume", "--name", "delete"):
        assert part in str(caught.value)
    assert (folder / "provenance.json").read_bytes() == before
    start_run(tmp_path, "locomo", 4, CONFIG, PROVENANCE)
    start_run(tmp_path, "other", 3, CONFIG, PROVENANCE)


def test_an_empty_folder_is_not_used(tmp_path: Path) -> None:
    (tmp_path / "locomo" / "seed3").mkdir(parents=True)
    assert start(tmp_path).name == "locomo"


def test_a_folder_that_holds_anything_else_is_used(tmp_path: Path) -> None:
    folder = tmp_path / "locomo" / "seed3"
    folder.mkdir(parents=True)
    (folder / "notes.txt").write_text("mine")
    with pytest.raises(RunError, match="is used already"):
        start(tmp_path)
    assert [path.name for path in folder.iterdir()] == ["notes.txt"]


def test_a_used_folder_can_be_numbered(tmp_path: Path) -> None:
    names = [start(tmp_path, if_used="number").name for _ in range(3)]
    assert names == ["locomo", "locomo-2", "locomo-3"]
    other_seed = start_run(tmp_path, "locomo", 4, CONFIG, PROVENANCE, if_used="number")
    assert other_seed.folder == tmp_path / "locomo" / "seed4"


def test_of_two_programs_that_start_at_once_one_gets_the_folder(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    first = start(tmp_path)
    # The second one looked before the first one wrote.
    monkeypatch.setattr(Path, "iterdir", lambda _: iter(()))
    with pytest.raises(RunError, match="is used already"):
        start_run(tmp_path, "locomo", 3, {"other": 1}, PROVENANCE)
    assert start(tmp_path, if_used="number").name == "locomo-2"
    assert yaml.safe_load((first.folder / "config.yaml").read_text())["lr"] == 1e-05


@pytest.mark.parametrize("name", ["", "..", "a/b", "-a", ".hidden", "a b"])
def test_names_that_are_no_folder_names_are_refused(tmp_path: Path, name: str) -> None:
    with pytest.raises(RunError, match="run cannot be called"):
        start_run(tmp_path, name, 0, {}, {})


def test_a_root_that_cannot_be_written_is_one_clear_error(tmp_path: Path) -> None:
    root = tmp_path / "file"
    root.write_text("")
    with pytest.raises(RunError, match=f"{root}/locomo/seed3 cannot be used .*another root"):
        start(root)


def test_a_read_only_parent_is_one_clear_error(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    def refuse(self: Path, *_args: Any, **_kwargs: Any) -> None:
        raise PermissionError(13, "Permission denied", str(self))

    monkeypatch.setattr(Path, "mkdir", refuse)
    with pytest.raises(RunError, match=r"seed3 cannot be used .*Permission denied"):
        start(tmp_path)


def test_a_config_that_yaml_cannot_hold_is_refused(tmp_path: Path) -> None:
    with pytest.raises(RunError, match="cannot be written as YAML"):
        start_run(tmp_path, "a", 0, {"f": object()}, {})
    assert not (tmp_path / "a").exists()


def interrupted(root: Path, steps: range) -> Run:
    run = start(root)
    for step in steps:
        run.log(step, {"loss": step / 7, "nan": math.nan})
        run.log(step, {"eval": step})
    run.close(exit_code=1)
    return run


def test_a_resumed_run_equals_an_uninterrupted_one(tmp_path: Path) -> None:
    whole = interrupted(tmp_path / "whole", range(8))
    part = interrupted(tmp_path / "part", range(6))  # goes on after its checkpoint at step 3
    metrics = part.folder / "metrics.jsonl"
    with metrics.open("a") as file:
        file.write('{"global_step": 6, "lo')  # torn
    run = start(tmp_path / "part", resume=True)
    assert run.resumed
    assert run.folder == part.folder
    with pytest.raises(RunError, match="rewind"):
        run.log(4, {})
    run.rewind(3)
    for step in range(4, 8):
        run.log(step, {"loss": step / 7, "nan": math.nan})
        run.log(step, {"eval": step})
    assert metrics.read_bytes() == (whole.folder / "metrics.jsonl").read_bytes()
    provenance = json.loads((run.folder / "provenance.json").read_text())
    assert provenance == {"starts": [PROVENANCE, PROVENANCE]}


def test_a_torn_last_line_is_dropped_even_when_nothing_else_is(tmp_path: Path) -> None:
    run = interrupted(tmp_path, range(2))
    with (run.folder / "metrics.jsonl").open("a") as file:
        file.write('{"global_step": 1}')  # whole, but its line has no end
    resumed = start(tmp_path, resume=True)
    resumed.rewind(1)
    resumed.log(2, {})
    assert [line["global_step"] for line in lines(resumed)] == [0, 0, 1, 1, 2]


def test_rewinding(tmp_path: Path) -> None:
    run = interrupted(tmp_path, range(3))
    with pytest.raises(RunError, match="has begun"):
        run.rewind(1)
    resumed = start(tmp_path, resume=True)
    resumed.rewind(1)
    with pytest.raises(RunError, match="has begun"):
        resumed.rewind(1)
    with pytest.raises(RunError, match="Step 0 was logged after step 1"):
        resumed.log(0, {})


def test_a_run_without_any_line_is_resumed(tmp_path: Path) -> None:
    start(tmp_path)
    run = start(tmp_path, resume=True)
    run.rewind(0)
    run.log(5, {})
    assert lines(run) == [{"global_step": 5}]


def test_a_damaged_line_before_the_last_is_an_error(tmp_path: Path) -> None:
    run = interrupted(tmp_path, range(3))
    metrics = run.folder / "metrics.jsonl"
    metrics.write_text(metrics.read_text().replace('{"global_step": 1', "garbage", 1))
    before = metrics.read_bytes()
    with pytest.raises(RunError, match=f"Line 3 of {metrics} is damaged"):
        start(tmp_path, resume=True).rewind(2)
    assert metrics.read_bytes() == before


def test_resuming_demands_the_same_config(tmp_path: Path) -> None:
    start(tmp_path)
    changed = {"env": {"slots": 25, "costs": [0.005, 0.03], "new": 1}, "lr": 1e-05}
    with pytest.raises(RunError, match=r"differs in env\.costs, env\.new, env\.slots, tag: "):
        start_run(tmp_path, "locomo", 3, changed, PROVENANCE, resume=True)
    assert start(tmp_path, resume=True).resumed


def test_what_is_not_there_or_damaged_is_not_resumed(tmp_path: Path) -> None:
    with pytest.raises(RunError, match=r"no run to resume in .*without --resume"):
        start(tmp_path, resume=True)
    assert not (tmp_path / "locomo").exists()
    folder = start(tmp_path).folder
    (folder / "provenance.json").write_text("{}")
    with pytest.raises(RunError, match=r"provenance.json is damaged"):
        start(tmp_path, resume=True)
    (folder / "config.yaml").write_text("a: [")
    with pytest.raises(RunError, match=r"config.yaml is damaged"):
        start(tmp_path, resume=True)
