from __future__ import annotations

import itertools
import json
import math
import os
import shutil
import signal
import subprocess
import sys
import time
from pathlib import Path
from typing import Any

import pytest
import torch
import yaml
from tiny_runs import (
    ROOT,
    TINY,
    Outcome,
    episodes_of,
    interrupted_train,
    json_lines,
    preset,
    results_of,
    train,
    train_module,
)

from memrl.checkpoint import load_checkpoint
from memrl.evaluation import lineup
from memrl.evaluation.calibration import BIN_WIDTH
from memrl.evaluation.summary import read_entries
from memrl.world import load_world

ROUNDS, UPDATES = TINY["learner"]["rounds"], TINY["learner"]["updates_per_round"]


def run_folder(folder: Path, name: str = "tiny", seed: int = 0) -> Path:
    return folder / "runs" / name / f"seed{seed}"


@pytest.fixture(scope="module")
def finished(tmp_path_factory: pytest.TempPathFactory) -> tuple[Path, Outcome]:
    """An uninterrupted run: its folder and how it ended. Copy it to change it."""
    folder = tmp_path_factory.mktemp("finished")
    outcome = train(folder)
    assert outcome.code == 0, outcome.err
    return run_folder(folder), outcome


@pytest.fixture(scope="module")
def stopped(tmp_path_factory: pytest.TempPathFactory) -> tuple[Path, Outcome]:
    """A run interrupted after some updates of its second round."""
    folder = tmp_path_factory.mktemp("stopped")
    outcome = interrupted_train(folder, method="update", call=UPDATES + 4)
    return folder, outcome


def assert_same_run(first: Path, second: Path) -> None:
    """Everything is the same, timings apart."""
    metrics = [path / "metrics.jsonl" for path in (first, second)]
    assert metrics[0].read_bytes() == metrics[1].read_bytes()
    assert episodes_of(first) == episodes_of(second)
    assert results_of(first) == results_of(second)
    assert (first / "config.yaml").read_bytes() == (second / "config.yaml").read_bytes()
    tensors, state = load_checkpoint(first)
    other_tensors, other_state = load_checkpoint(second)
    assert state == other_state
    assert tensors.keys() == other_tensors.keys()
    for name, value in tensors.items():
        assert torch.equal(value, other_tensors[name]), name


def contents(folder: Path) -> dict[str, bytes]:
    return {str(path): path.read_bytes() for path in folder.rglob("*") if path.is_file()}


def copied(folder: Path, source: Path) -> Path:
    """A copy of a run folder, where a program that is told `folder` finds it."""
    return Path(shutil.copytree(source, run_folder(folder)))


# ---------------------------------------------------------------------------------------- a run


def test_a_run_writes_what_it_promises(finished: tuple[Path, Outcome]) -> None:
    run, outcome = finished
    assert str(run) in outcome.out
    assert "Traceback" not in outcome.err
    names = {path.relative_to(run).as_posix() for path in run.rglob("*") if path.is_file()}
    checkpoints = [path.name for path in run.glob("checkpoint-*")]
    assert len(checkpoints) == ROUNDS == 2
    assert names == {
        "config.yaml",
        "provenance.json",
        "world.json",
        "metrics.jsonl",
        *(f"{checkpoint}/checkpoint.json" for checkpoint in checkpoints),
        *(f"{checkpoint}/tensors.safetensors" for checkpoint in checkpoints),
        "episodes.jsonl",
        "strip.json",
        "calibration.json",
        "results.json",
        "results.md",
        "tables/results.csv",
    }
    assert yaml.safe_load((run / "config.yaml").read_text())["paging"]["capacity"] == 3
    world = load_world(run)
    assert world is not None
    assert world.options.is_resolved
    assert world.statistics is not None
    (start,) = json.loads((run / "provenance.json").read_text())["starts"]
    assert start["seeds"]["seed"] == 0
    assert set(start["data"]["tables"]) == {"train", "validation", "test"}


def test_the_strip_tells_what_the_records_tell(finished: tuple[Path, Outcome]) -> None:
    run, _ = finished
    strip = json.loads((run / "strip.json").read_text())
    best = next(one for one in strip["players"] if one["policy"].startswith("gain regression"))
    assert len(strip["players"]) == 2
    for player in (best, strip["players"][1]):
        (record,) = [
            row["record"]
            for row in json_lines(run / "episodes.jsonl")
            if (row["policy"], row["record"]["episode"]) == (player["policy"], strip["episode"])
        ]
        assert player["episode_return"] == pytest.approx(sum(record["reward_terms"].values()))
        assert len(player["stores"]) == record["operations"]["store"]
        paid = [answer["evidence"] for answer in player["answers"]]
        assert sum(filter(None, paid)) == pytest.approx(record["evidence"])
        assert len(paid) == record["num_queries"]
        assert (
            sum(stay["is_retrieved"] for stay in player["stays"])
            == (record["operations"]["retrieve"])
        )
        for slot in range(strip["num_slots"]):
            own = [stay for stay in player["stays"] if stay["slot"] == slot]
            ends = [(before["last"], after["first"]) for before, after in itertools.pairwise(own)]
            assert all(last <= first for last, first in ends), "one page at a time"


def test_gains_are_binned_by_what_was_predicted(finished: tuple[Path, Outcome]) -> None:
    calibration = json.loads((finished[0] / "calibration.json").read_text())
    assert calibration["policy"] == "gain regression"
    assert calibration["episodes"] == 2
    bins = calibration["bins"]
    assert {own["operation"] for own in bins} >= {"store", "retrieve"}
    for own in bins:
        low = own["place"] * BIN_WIDTH
        assert low - 1e-6 <= own["predicted"] <= low + BIN_WIDTH + 1e-6
    stores = [own for own in bins if own["operation"] == "store"]
    assert all(own["realised"] >= -0.005 - 1e-6 for own in stores), "what a store costs"


def test_metrics_are_logged_in_order_of_steps(finished: tuple[Path, Outcome]) -> None:
    rows = json_lines(finished[0] / "metrics.jsonl")
    steps = [row["global_step"] for row in rows]
    assert steps == sorted(steps)
    assert steps[-1] == ROUNDS * UPDATES
    evaluations = [row for row in rows if "eval/reward_per_question" in row]
    assert [row["global_step"] for row in evaluations] == [UPDATES, 2 * UPDATES]
    decisions = [row["rollout/decisions"] for row in evaluations]
    assert 0 < decisions[0] < decisions[1]
    losses = [row["losses/gain"] for row in rows if "losses/gain" in row]
    assert losses
    assert all(math.isfinite(loss) for loss in losses)


def test_all_policies_are_scored_on_the_held_out_document(finished: tuple[Path, Outcome]) -> None:
    run, outcome = finished
    results = results_of(run)
    names = [policy["name"] for policy in results["policies"]]
    assert len(names) == 13
    assert len(set(names)) == 13
    assert {*lineup.CONTROLS, lineup.CLAIRVOYANT} <= set(names)
    assert len(results["clusters"]) == 1
    rows = episodes_of(run)
    assert len(rows) == 13 * 2
    assert {row["record"]["document"] for row in rows} == set(results["clusters"])
    heuristics = [policy for policy in results["policies"] if policy["kind"] == "heuristic"]
    scores = {policy["name"]: policy["validation"][0] for policy in heuristics}
    assert len(scores) == 10
    (best,) = results["best_heuristic"]["settings"]
    assert scores[best["policy"]] == max(scores.values())
    assert results["best_heuristic"]["validation"] == [max(scores.values())]
    assert set(results["best_heuristic"]["verdicts"]) == {lineup.LEARNED, lineup.LEARNED_OFFSET}
    told = f"{lineup.LEARNED} cannot be told apart from the best heuristic"
    assert told in (run / "results.md").read_text()
    assert told in outcome.out
    for policy in results["policies"]:
        records = [row["record"] for row in rows if row["policy"] == policy["name"]]
        mean = sum(sum(r["reward_terms"].values()) / r["num_scored"] for r in records) / 2
        assert policy["reward_per_question"]["estimate"] == pytest.approx(mean)
        assert policy["illegal_actions"] == 0
        assert policy["name"] in (run / "results.md").read_text()
        assert policy["name"].split(",")[0] in outcome.out
    entries = read_entries(run / "episodes.jsonl")
    assert [entry.name for entry in entries] == names


def test_the_final_checkpoint_holds_all_that_playing_needs(
    finished: tuple[Path, Outcome],
) -> None:
    tensors, state = load_checkpoint(finished[0])
    assert (state["round"], state["update_index"]) == (ROUNDS - 1, UPDATES)
    assert state["best"]["round"] in range(ROUNDS)
    evaluations = [
        row["eval/reward_per_question"]
        for row in json_lines(finished[0] / "metrics.jsonl")
        if "eval/reward_per_question" in row
    ]
    assert state["best"]["score"] == max(evaluations)
    weights = {name for name in tensors if name.startswith("network.")}
    assert {name.replace("network.", "best.", 1) for name in weights} <= tensors.keys()
    assert "scorer.weight" in tensors
    assert isinstance(state["scorer"]["bias"], float)


def test_the_same_seed_gives_the_same_run(tmp_path: Path, finished: tuple[Path, Outcome]) -> None:
    assert train(tmp_path).code == 0
    assert_same_run(run_folder(tmp_path), finished[0])


def test_the_reference_environment_gives_the_same_run(
    tmp_path: Path, finished: tuple[Path, Outcome]
) -> None:
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr("envs.batched_paging.BatchedPaging", None)  # it is not used anywhere
        outcome = train(tmp_path, "--environment", "reference")
    assert outcome.code == 0, outcome.err
    assert_same_run(run_folder(tmp_path), finished[0])


@pytest.mark.gpu
@pytest.mark.skipif(not torch.cuda.is_available(), reason="there is no CUDA device")
@pytest.mark.parametrize("environment", ["batched", "reference"])
def test_a_run_on_a_device_plays_the_same_episodes(
    tmp_path: Path, finished: tuple[Path, Outcome], environment: str
) -> None:
    outcome = train(tmp_path, "--device", "cuda", "--environment", environment)
    assert outcome.code == 0, outcome.err
    for here, there in zip(
        episodes_of(run_folder(tmp_path)), episodes_of(finished[0]), strict=True
    ):
        assert here["policy"] == there["policy"]
        if here["policy"] not in (lineup.LEARNED, lineup.LEARNED_OFFSET):
            for name in ("episode", "evidence", "operations", "decisions"):
                assert here["record"][name] == there["record"][name]


def test_another_seed_learns_something_else_about_the_same_episodes(
    tmp_path: Path, finished: tuple[Path, Outcome]
) -> None:
    assert train(tmp_path, "--seed", "5").code == 0
    runs = [finished[0], run_folder(tmp_path, seed=5)]
    assert json_lines(runs[0] / "metrics.jsonl") != json_lines(runs[1] / "metrics.jsonl")

    def records(run: Path, policy: str) -> list[Any]:
        return [row["record"] for row in episodes_of(run) if row["policy"] == policy]

    for policy in (lineup.FIFO, lineup.CLAIRVOYANT, "store all, top-k dense"):
        assert records(runs[0], policy) == records(runs[1], policy) != []
    assert not torch.equal(
        load_checkpoint(runs[0])[0]["network.slot_encoder.weight"],
        load_checkpoint(runs[1])[0]["network.slot_encoder.weight"],
    )


# ---------------------------------------------------------------------------------------- Ctrl-C


def test_an_interrupted_run_leaves_a_checkpoint(stopped: tuple[Path, Outcome]) -> None:
    folder, outcome = stopped
    assert outcome.code == 130
    assert "--resume" in outcome.out + outcome.err
    assert "Traceback" not in outcome.err
    _, state = load_checkpoint(run_folder(folder))
    assert (state["round"], state["update_index"]) == (1, 4)
    assert not (run_folder(folder) / "results.json").exists()


@pytest.mark.parametrize(
    ("method", "call"),
    [("update", UPDATES + 4), ("update", UPDATES), ("begin_round", 2)],
    ids=["mid-round", "end-of-round", "collecting"],
)
def test_a_resumed_run_equals_an_uninterrupted_one(
    tmp_path: Path,
    finished: tuple[Path, Outcome],
    stopped: tuple[Path, Outcome],
    method: str,
    call: int,
) -> None:
    if (method, call) == ("update", UPDATES + 4):
        shutil.copytree(stopped[0], tmp_path, dirs_exist_ok=True)
    else:
        assert interrupted_train(tmp_path, method=method, call=call).code == 130
    outcome = train(tmp_path, "--resume", "true")
    assert outcome.code == 0, outcome.err
    assert_same_run(run_folder(tmp_path), finished[0])
    provenance = json.loads((run_folder(tmp_path) / "provenance.json").read_text())
    assert len(provenance["starts"]) == 2


def test_a_run_can_be_interrupted_while_it_is_scored(
    tmp_path: Path, finished: tuple[Path, Outcome], monkeypatch: pytest.MonkeyPatch
) -> None:
    run = copied(tmp_path, finished[0])
    for name in ("episodes.jsonl", "results.json", "results.md", "tables/results.csv"):
        (run / name).unlink()
    original = lineup.Arena.choose

    def pressing(self: Any, line: Any) -> Any:
        os.kill(os.getpid(), signal.SIGINT)
        return original(self, line)

    monkeypatch.setattr(lineup.Arena, "choose", pressing)
    assert train(tmp_path, "--resume", "true").code == 130
    assert not (run / "results.json").exists()
    monkeypatch.undo()
    assert train(tmp_path, "--resume", "true").code == 0
    assert_same_run(run, finished[0])


def test_ctrl_c_in_a_terminal(tmp_path: Path) -> None:
    """The program by itself, started as a user does."""
    learner = TINY["learner"] | {"rounds": 500}
    command = [
        *(sys.executable, "train.py", "--config", str(preset(tmp_path, learner=learner))),
        *("--runs_dir", str(tmp_path / "runs")),
    ]
    metrics = run_folder(tmp_path) / "metrics.jsonl"
    with subprocess.Popen(
        command, cwd=ROOT, stdout=subprocess.PIPE, stderr=subprocess.PIPE, text=True
    ) as program:
        deadline = time.monotonic() + 240
        while not (metrics.exists() and metrics.stat().st_size):
            assert program.poll() is None, program.communicate()
            assert time.monotonic() < deadline
            time.sleep(0.2)
        program.send_signal(signal.SIGINT)
        out, err = program.communicate(timeout=120)
    assert program.returncode == 130, err
    assert "Traceback" not in err
    assert "--resume true" in out
    assert load_checkpoint(run_folder(tmp_path))[1]["round"] >= 0


# ---------------------------------------------------------------------------------------- folders


def test_a_used_folder_is_refused(tmp_path: Path, finished: tuple[Path, Outcome]) -> None:
    run = copied(tmp_path, finished[0])
    before = contents(run)
    outcome = train(tmp_path)
    assert outcome.code == 1
    assert str(run) in outcome.error
    assert "used already" in outcome.error
    assert contents(run) == before


def test_a_finished_run_is_not_run_again(tmp_path: Path, finished: tuple[Path, Outcome]) -> None:
    run = copied(tmp_path, finished[0])
    before = contents(run)
    outcome = train(tmp_path, "--resume", "true")
    assert outcome.code == 0
    assert "finished already" in outcome.out
    assert contents(run) == before


def test_a_numbered_run_can_be_resumed(tmp_path: Path, finished: tuple[Path, Outcome]) -> None:
    copied(tmp_path, finished[0])
    stopped = interrupted_train(tmp_path, "--if_used", "number", method="update", call=3)
    assert stopped.code == 130
    numbered = run_folder(tmp_path, "tiny-2")
    assert load_checkpoint(numbered)[1]["update_index"] == 3
    assert yaml.safe_load((numbered / "config.yaml").read_text())["name"] == "tiny-2"
    resumed = train(tmp_path, "--if_used", "number", "--resume", "true")  # the newest of the name
    assert resumed.code == 0, resumed.err
    assert results_of(run_folder(tmp_path, "tiny-2")) == results_of(finished[0])


def test_resuming_with_other_settings_is_refused(
    tmp_path: Path, stopped: tuple[Path, Outcome]
) -> None:
    copied(tmp_path, run_folder(stopped[0]))
    outcome = train(tmp_path, "--resume", "true", "--learner.learning_rate", "0.5")
    assert outcome.code == 1
    assert "learner.learning_rate" in outcome.error


def test_a_table_larger_than_a_shard_is_learned_from_and_resumed_in_the_same_shards(
    tmp_path: Path,
) -> None:
    in_shards = ("--shard_bytes", "12000")
    stopped = interrupted_train(tmp_path, *in_shards, method="update", call=UPDATES + 4)
    assert stopped.code == 130
    assert "training table in 2 shards: [3, 3] episodes" in stopped.out
    other = train(tmp_path, "--resume", "true")
    assert other.code == 1
    assert "resume with --shard_bytes 12000" in other.error
    resumed = train(tmp_path, "--resume", "true", *in_shards)
    assert resumed.code == 0, resumed.err
    assert train(tmp_path / "whole", *in_shards).code == 0
    assert_same_run(run_folder(tmp_path), run_folder(tmp_path / "whole"))


def test_a_finished_run_is_not_taken_for_one_of_other_settings(
    tmp_path: Path, finished: tuple[Path, Outcome]
) -> None:
    copied(tmp_path, finished[0])
    outcome = train(tmp_path, "--resume", "true", "--paging.capacity", "4")
    assert outcome.code == 1
    assert "paging.capacity" in outcome.error


@pytest.mark.parametrize("which", ["stopped", "finished"])
def test_resuming_on_other_data_is_refused(
    tmp_path: Path, which: str, request: pytest.FixtureRequest
) -> None:
    run: Path = request.getfixturevalue(which)[0]
    run = copied(tmp_path, run_folder(run) if which == "stopped" else run)
    path = run / "provenance.json"
    record = json.loads(path.read_text())
    record["starts"][-1]["data"]["provenance"]["seed"] = "another"
    path.write_text(json.dumps(record))
    outcome = train(tmp_path, "--resume", "true")
    assert outcome.code == 1
    assert "other data; it differs in provenance.seed" in outcome.error


def test_a_run_that_ended_before_its_first_checkpoint_begins_again(
    tmp_path: Path, stopped: tuple[Path, Outcome], finished: tuple[Path, Outcome]
) -> None:
    run = copied(tmp_path, run_folder(stopped[0]))
    for path in run.glob("checkpoint-*"):
        shutil.rmtree(path)
    outcome = train(tmp_path, "--resume", "true")
    assert outcome.code == 0, outcome.err
    assert results_of(run) == results_of(finished[0])
    assert json_lines(run / "metrics.jsonl") == json_lines(finished[0] / "metrics.jsonl")


def test_from_the_checkpoint_before_a_damaged_one_the_numbers_are_the_same(
    tmp_path: Path, stopped: tuple[Path, Outcome], finished: tuple[Path, Outcome]
) -> None:
    run = copied(tmp_path, run_folder(stopped[0]))
    first, second = sorted(run.glob("checkpoint-*"))
    (second / "tensors.safetensors").write_bytes(b"torn")
    outcome = train(tmp_path, "--resume", "true")
    assert "delete it to go on from the one before it" in outcome.error
    assert first.exists()
    shutil.rmtree(second)
    assert train(tmp_path, "--resume", "true").code == 0
    assert results_of(run) == results_of(finished[0])


def damage_tensors(run: Path) -> str:
    path = max(run.glob("checkpoint-*/tensors.safetensors"))
    payload = bytearray(path.read_bytes())
    payload[-1] ^= 1
    path.write_bytes(bytes(payload))
    return "checkpoint"


def damage_config(run: Path) -> str:
    (run / "config.yaml").write_text("name: [", encoding="utf-8")
    return "config.yaml"


def empty_config(run: Path) -> str:
    (run / "config.yaml").write_text("null", encoding="utf-8")
    return "config.yaml is damaged"


@pytest.mark.parametrize("damage", [damage_tensors, damage_config, empty_config])
def test_a_damaged_run_is_not_resumed(
    tmp_path: Path, stopped: tuple[Path, Outcome], damage: Any
) -> None:
    run = copied(tmp_path, run_folder(stopped[0]))
    what = damage(run)
    outcome = train(tmp_path, "--resume", "true")
    assert outcome.code == 1
    assert what in outcome.error
    assert str(run) in outcome.error
    assert not (run / "results.json").exists()


def tear(path: Path) -> None:
    path.write_text(path.read_text() + '{"torn')


def cut(path: Path) -> None:
    path.write_text("\n".join(path.read_text().splitlines()[:-1]) + "\n")


def empty(path: Path) -> None:
    path.write_text("")


@pytest.mark.parametrize("damage", [tear, cut, empty, Path.unlink])
def test_damaged_records_of_a_finished_run_are_named(
    tmp_path: Path, finished: tuple[Path, Outcome], damage: Any
) -> None:
    run = copied(tmp_path, finished[0])
    damage(run / "episodes.jsonl")
    outcome = train(tmp_path, "--resume", "true")
    assert outcome.code == 1
    assert "episodes.jsonl" in outcome.error
    assert "score it again" in outcome.error


# ---------------------------------------------------------------------------------------- mistakes


def test_run_folders_that_cannot_be_made(tmp_path: Path) -> None:
    (tmp_path / "file").write_text("no folder")
    with pytest.MonkeyPatch.context() as patch:  # said before anything is built
        patch.setattr(train_module(), "build_world", None)
        outcome = train(tmp_path, "--runs_dir", str(tmp_path / "file"))
    assert outcome.code == 1
    assert str(tmp_path / "file") in outcome.error


@pytest.mark.parametrize("folds", ["true", "false"])
def test_a_run_that_never_began_is_not_resumed(tmp_path: Path, folds: str) -> None:
    outcome = train(tmp_path, "--resume", "true", "--name", "typo", "--folds", folds)
    assert outcome.code == 1
    assert "no run to resume" in outcome.error
    assert "typo" in outcome.error
    assert not (tmp_path / "runs").exists()


@pytest.mark.skipif(os.geteuid() == 0, reason="root may write everywhere")
def test_run_folders_that_cannot_be_written(tmp_path: Path) -> None:
    (tmp_path / "runs").mkdir(mode=0o500)
    outcome = train(tmp_path)
    assert outcome.code == 1
    assert str(tmp_path / "runs") in outcome.error


def test_missing_data_are_named(tmp_path: Path) -> None:
    outcome = train(tmp_path, "--workload.name", "locomo", "--workload.data_dir", str(tmp_path))
    assert outcome.code == 1
    assert "locomo" in outcome.error
    assert str(tmp_path) in outcome.error


def test_without_a_data_folder_the_variable_is_named(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.delenv("MEMRL_DATA", raising=False)
    outcome = train(tmp_path, "--workload.name", "locomo")
    assert outcome.code == 1
    assert "MEMRL_DATA" in outcome.error


def test_an_unknown_embedding_model_is_named(tmp_path: Path) -> None:
    outcome = train(tmp_path, "--workload.embedder", "no-such-model-anywhere")
    assert outcome.code == 1
    assert "no-such-model-anywhere" in outcome.error


@pytest.mark.parametrize(
    ("arguments", "what"),
    [
        (["--workload.chat.turns_per_session", "8"], "turns_per_session"),
        (["--workload.chat.facts_per_document", "100000"], "facts_per_document"),
        (["--workload.chat.num_documents", "2"], "at least 3 documents"),
        (["--workload.chat.num_documents", "3"], "two training documents"),
        (["--split.kind", "leave_one_out", "--split.fold", "4"], "fold 4"),
        (["--split.validation_frac", "0.6", "--split.test_frac", "0.5"], "validation_frac"),
        (["--paging.observe_embeddings", "true"], "observe_embeddings"),
        (["--name", "../elsewhere"], "../elsewhere"),
        (["--folds", "true", "--if_used", "number"], "if_used refuse"),
        (["--evaluation.prior_thresholds", "[1.5]"], "prior_thresholds"),
        (["--evaluation.top_k", "[0]"], "top_k"),
        (["--evaluation.store_offsets", "[.nan]"], "store_offsets"),
        (["--device", "cuda:99"], "cuda:99"),
    ],
)
def test_what_cannot_be_run_is_refused_in_one_line(
    tmp_path: Path, arguments: list[str], what: str
) -> None:
    outcome = train(tmp_path, *arguments)
    assert outcome.code in (1, 2)
    assert what in outcome.error
    assert not list((tmp_path / "runs").rglob("results.json"))


def test_options_of_the_reference_environment_alone_can_be_trained_on(tmp_path: Path) -> None:
    options = ("--paging.store_scope", "any", "--learner.rounds", "1")
    outcome = train(tmp_path, *options, "--learner.updates_per_round", "4")
    assert outcome.code == 0, outcome.err
    assert len(results_of(run_folder(tmp_path))["policies"]) == 13


# ---------------------------------------------------------------------------------------- folds


def test_each_document_is_left_out_in_turn(tmp_path: Path) -> None:
    options = [
        *("--folds", "true", "--learner.rounds", "1", "--learner.updates_per_round", "4"),
        *("--workload.train_episodes", "2", "--workload.test_episodes", "1"),
    ]
    first = train(tmp_path, *options)
    assert first.code == 0, first.err
    folds = [run_folder(tmp_path, f"tiny-fold{fold}") for fold in range(4)]
    left_out = [results_of(fold)["clusters"] for fold in folds]
    assert [len(clusters) for clusters in left_out] == [1] * 4
    summary = run_folder(tmp_path, "tiny-folds")
    together = results_of(summary)
    assert together["clusters"] == sorted(clusters[0] for clusters in left_out)
    assert len(together["clusters"]) == 4
    assert together["num_seeds"] == 1
    for policy in together["policies"]:
        assert policy["episodes"] == 4
        assert len(policy["settings"]) == 4
        own = [
            next(p for p in results_of(fold)["policies"] if p["name"] == policy["name"])
            for fold in folds
        ]
        by_document = {
            document: value
            for one in own
            for document, value in one["reward_per_question"]["cluster_values"].items()
        }
        assert policy["reward_per_question"]["cluster_values"] == by_document
    assert len(read_entries(summary / "episodes.jsonl")) == 13
    assert not run_folder(tmp_path).exists()

    # A used folder is found before anything is trained.
    refused = train(tmp_path, *options)
    assert refused.code == 1
    assert "tiny-folds" in refused.error

    # Finished folds are used again; what is missing is run.
    shutil.rmtree(folds[2])
    shutil.rmtree(summary)
    before = {fold: contents(fold) for fold in folds if fold.exists()}
    second = train(tmp_path, *options, "--resume", "true")
    assert second.code == 0, second.err
    assert second.out.count("finished already") == 3
    assert {fold: contents(fold) for fold in before} == before
    assert results_of(summary) == together


@pytest.mark.parametrize("scope", ["question", "corpus"])
def test_questions_over_documents(tmp_path: Path, scope: str) -> None:
    """Everything is in archival; recall@k of the rankings and support stand in the results."""
    outcome = train(
        tmp_path,
        *("--workload.name", "document_qa", "--workload.document_qa.scope", scope),
        *("--workload.document_qa.num_questions", "20"),
        *("--workload.document_qa.num_passages", "8"),
        *("--paging.archival_capacity", "null"),
    )
    assert outcome.code == 0, outcome.err
    assert "what the first k pages of a ranking hold" in outcome.out
    results = results_of(tmp_path / "runs" / "tiny" / "seed0")
    assert results["played"]["parameters"]["scope"] == scope
    assert len(results["clusters"]) == 6
    recalls = results["ranking_recall"]["hybrid"]
    policies = {policy["name"]: policy for policy in results["policies"]}
    # With k = 1, a rule holds what its ranking puts first.
    rule = policies["store all, top-k hybrid"]
    assert rule["evidence_recall"]["estimate"] == pytest.approx(recalls["1"])
    assert rule["support_per_question"]["pages"] == 1.0
    assert policies["FIFO, no storage"]["support_per_question"]["pages"] == 0.0
    assert policies["clairvoyant"]["support_per_question"]["precision"] == 1.0
    assert "recall@1" in (tmp_path / "runs" / "tiny" / "seed0" / "results.md").read_text()
