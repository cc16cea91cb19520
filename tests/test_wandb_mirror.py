from __future__ import annotations

import json
import math
from pathlib import Path
from typing import Any

import pytest
from PIL import Image
from tiny_runs import train
from wandb_reader import read_offline_runs

from memrl.run_files import RunError
from memrl.tracking import Run, start_run

CONFIG: dict[str, Any] = {"env": {"slots": 24, "costs": (0.005, 0.02)}, "lr": 1e-05, "tag": None}


def start(root: Path, **options: Any) -> Run:
    return start_run(root, "locomo", 3, CONFIG, {"code": {}}, **options)


def lines(run: Run) -> list[dict[str, Any]]:
    return [json.loads(line) for line in (run.folder / "metrics.jsonl").read_text().splitlines()]


def test_wandb_mirrors_the_run_offline(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.delenv("WANDB_MODE")  # offline is the default
    with start(tmp_path, group="presets", tags=["abc"], job_type="eval") as run:
        for step in range(3):
            run.log(step, {"loss/policy": step / 4, "note": "x"})
        run.log(3, {"loss/policy": math.nan})
        run.log_table("episodes", ["policy", "recall"], [["fifo", 0.5], [3, None]])
        Image.new("RGB", (4, 3)).save(run.folder / "strip.png")
        run.log_image("strips/fifo", run.folder / "strip.png")
        artifact = run.folder / "checkpoint-1"
        artifact.mkdir()
        (artifact / "checkpoint.json").write_text("{}")
        (run.folder / "report.html").write_text("<p>")
        run.log_artifact_files("best", "checkpoint", [artifact, run.folder / "report.html"])
        run.finish({"recall": 0.75})
    (mirror,) = read_offline_runs(run.folder)
    assert (mirror.name, mirror.group, mirror.job_type) == ("locomo-s3", "presets", "eval")
    assert mirror.tags == ["abc"]
    assert mirror.config == {
        **{"env": {"slots": 24, "costs": [0.005, 0.02]}, "lr": 1e-05, "tag": None},
        **{"name": "locomo"},
    }
    assert mirror.step_metrics == {"*": "global_step"}
    shown = [(row["global_step"], row["loss/policy"]) for row in mirror.history[:4]]
    assert shown[:3] == [(0, 0.0), (1, 0.25), (2, 0.5)]
    assert shown[3][0] == 3
    assert math.isnan(shown[3][1])
    table = run.folder / "wandb" / "latest-run" / "files" / mirror.history[4]["episodes/path"]
    assert json.loads(table.read_text())["data"] == [["fifo", 0.5], [3, None]]
    picture = mirror.history[5]
    assert (picture["strips/fifo/width"], picture["strips/fifo/height"]) == (4, 3)
    assert (table.parents[2] / picture["strips/fifo/path"]).exists()
    files = ["config.yaml", "provenance.json"]
    assert mirror.artifacts["locomo-s3-provenance"] == ("provenance", files)
    files = ["checkpoint-1/checkpoint.json", "report.html"]
    assert mirror.artifacts["locomo-s3-best"] == ("checkpoint", files)
    assert mirror.summary["recall"] == 0.75
    assert mirror.exit_code == 0


def test_the_newest_mirror_of_a_resumed_run_is_complete(tmp_path: Path) -> None:
    def run_steps(run: Run, steps: range) -> None:
        for step in steps:
            run.log(step, {"loss": float(step)})

    def run_until_interrupted() -> None:
        with start(tmp_path, wandb_mode="offline") as run:
            run_steps(run, range(5))
            raise KeyboardInterrupt

    with pytest.raises(KeyboardInterrupt):
        run_until_interrupted()
    with start(tmp_path, wandb_mode="offline", resume=True) as run:
        run.rewind(2)
        run_steps(run, range(3, 7))
        run.finish({})
    first, second = read_offline_runs(run.folder)
    assert [row["global_step"] for row in first.history] == [0, 1, 2, 3, 4]
    assert first.exit_code == 1
    assert [(row["global_step"], row["loss"]) for row in second.history] == [
        (step, float(step)) for step in range(7)
    ]
    assert second.exit_code == 0
    assert second.group == first.group == "locomo"


def test_the_environment_variable_is_respected(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    assert not (start(tmp_path / "disabled").folder / "wandb").exists()
    monkeypatch.setenv("WANDB_MODE", "dryrun")
    with start(tmp_path / "offline") as run:
        assert (run.folder / "wandb").is_dir()
    with start(tmp_path / "argument", wandb_mode="disabled") as run:
        assert not (run.folder / "wandb").exists()
    monkeypatch.setenv("WANDB_MODE", "sometimes")
    with pytest.raises(RunError, match="wandb mode is 'sometimes'"):
        start(tmp_path / "unknown")
    assert not (tmp_path / "unknown").exists()


@pytest.mark.parametrize(
    ("mode", "failing", "mirrors"),
    [("offline", {"offline"}, 0), ("online", {"online"}, 1), ("online", {"online", "offline"}, 0)],
)
def test_a_run_survives_wandb_not_starting(
    tmp_path: Path,
    monkeypatch: pytest.MonkeyPatch,
    mode: Any,
    failing: set[str],
    mirrors: int,
) -> None:
    import wandb

    real = wandb.init

    def init(**options: Any) -> wandb.Run:
        if options["mode"] in failing:
            raise wandb.errors.CommError("no network")
        return real(**options)

    monkeypatch.setattr(wandb, "init", init)
    with pytest.warns(RuntimeWarning, match="could not start .*no network") as caught:
        run = start(tmp_path, wandb_mode=mode)
    assert len(caught) == len(failing)
    run.log(1, {"loss": 2.0})
    run.finish({"a": 1})
    assert lines(run) == [{"global_step": 1, "loss": 2.0}]
    assert json.loads((run.folder / "results.json").read_text()) == {"a": 1}
    assert [row["loss"] for m in read_offline_runs(run.folder) for row in m.history] == [
        2.0
    ] * mirrors


def test_a_run_survives_wandb_failing_later_and_warns_once(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    run = start(tmp_path, wandb_mode="offline")
    with monkeypatch.context() as patch:

        def fail(*_args: Any, **_kwargs: Any) -> None:
            raise OSError("disk full")

        patch.setattr("wandb.Run.log", fail)
        with pytest.warns(RuntimeWarning, match=r"could not log metrics .*disk full"):
            run.log(0, {"loss": 0})
        run.log(1, {"loss": 0})  # a second warning would be an error
        run.log(2, {"loss": 0})
        with pytest.warns(RuntimeWarning, match="could not store an artifact"):
            run.log_artifact_files("x", "checkpoint", [tmp_path / "missing"])
    run.log(3, {"loss": 1})
    run.finish({})
    assert [line["global_step"] for line in lines(run)] == [0, 1, 2, 3]
    (mirror,) = read_offline_runs(run.folder)
    assert [row["global_step"] for row in mirror.history] == [3]


def test_closing_twice_closes_once(tmp_path: Path) -> None:
    with start(tmp_path, wandb_mode="offline") as run:
        run.finish({})
        run.close(exit_code=1)
    (mirror,) = read_offline_runs(run.folder)
    assert mirror.exit_code == 0


def test_wandb_gets_what_a_run_of_train_py_made(tmp_path: Path) -> None:
    outcome = train(
        tmp_path,
        *("--wandb_mode", "offline", "--workload.train_episodes", "2"),
    )
    assert outcome.code == 0, outcome.err
    folder = tmp_path / "runs" / "tiny" / "seed0"
    (mirror,) = read_offline_runs(folder)
    assert (mirror.name, mirror.group, mirror.job_type) == ("tiny-s0", "tiny", "train")
    assert mirror.tags == ["chat", "gain_regression"]
    logged = {key for row in mirror.history for key in row}
    assert logged >= {"losses/gain", "eval/reward_per_question", "rollout/decisions"}
    assert any(row.get("results/_type") == "table-file" for row in mirror.history)
    assert any(row.get("episode_strip/_type") == "image-file" for row in mirror.history)
    assert (folder / "strip.png").stat().st_size > 5_000
    assert mirror.artifacts["tiny-s0-provenance"][0] == "provenance"
    kind, files = mirror.artifacts["tiny-s0-checkpoint"]
    assert kind == "checkpoint"
    kept = sorted(path.name for path in folder.glob("checkpoint-*"))
    assert len(kept) == 2
    assert sorted({name.split("/")[0] for name in files}) == kept
    assert mirror.config["workload"]["name"] == "chat"
    assert mirror.summary["num_seeds"] == 1
    assert mirror.exit_code == 0
