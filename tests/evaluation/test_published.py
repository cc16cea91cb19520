"""Small copies of runs for others, and those that come with the project."""

from __future__ import annotations

import json
from pathlib import Path

import pytest
import torch
from tiny_runs import ROOT, evaluate, results_of, train

from envs.lockstep import LockstepPaging
from memrl.checkpoint import load_checkpoint
from memrl.evaluation.lineup import LEARNED, Arena
from memrl.evaluation.play import mean_reward_per_question
from memrl.evaluation.publish import publish
from memrl.evaluation.run_world import contestant_of, load_run_world
from memrl.run_files import PROVENANCE_FILE, RunError, read_starts
from memrl.saved import load_run
from memrl.world import load_world

PUBLISHED = sorted((ROOT / "docs" / "policies").iterdir())


@pytest.fixture(scope="module")
def run(tmp_path_factory: pytest.TempPathFactory) -> Path:
    folder = tmp_path_factory.mktemp("published")
    outcome = train(folder)
    assert outcome.code == 0, outcome.err
    return folder / "runs" / "tiny" / "seed0"


def test_a_copy_plays_as_the_run_does(run: Path, tmp_path: Path) -> None:
    copy = tmp_path / "small" / "copy"
    outcome = evaluate("publish", run, "--out", copy)
    assert outcome.code == 0, outcome.err
    assert outcome.out.startswith(f"{copy}: ")
    played = []
    for folder in (run, copy):
        out = tmp_path / "played" / folder.name
        outcome = evaluate("transfer", folder, "--config", run / "config.yaml", "--out", out)
        assert outcome.code == 0, outcome.err
        played.append([row["reward_per_question"] for row in results_of(out)["policies"]])
    assert played[0] == played[1]
    assert load_world(copy) == load_world(run)
    whole, small = load_run(run), load_run(copy)
    assert (whole.settings, whole.validation) == (small.settings, small.validation)


def test_nothing_of_training_or_the_machine_is_in_a_copy(run: Path, tmp_path: Path) -> None:
    copy = tmp_path / "copy"
    size = publish(run, copy)
    assert size < 0.5 * sum(path.stat().st_size for path in run.rglob("*") if path.is_file())
    tensors, state = load_checkpoint(copy)
    whole, _ = load_checkpoint(run)
    assert (
        {name.split(".")[0] for name in tensors}
        == {"best", "scorer"}
        < {name.split(".")[0] for name in whole}
    )
    assert all(torch.equal(own, whole[name]) for name, own in tensors.items())
    assert state.keys() == {"best", "scorer"}
    (start,) = read_starts(copy / PROVENANCE_FILE)
    (complete,) = read_starts(run / PROVENANCE_FILE)
    assert start.keys() == complete.keys() - {"machine", "command"}
    assert start["data"] == complete["data"]


def test_a_folder_that_is_there_stays_as_it_is(run: Path, tmp_path: Path) -> None:
    (tmp_path / "kept").write_text("mine")
    with pytest.raises(RunError, match="is there already: name a new folder"):
        publish(run, tmp_path)
    assert [path.name for path in tmp_path.iterdir()] == ["kept"]
    outcome = evaluate("publish", tmp_path, "--out", tmp_path / "copy")
    assert outcome.code == 1
    assert "it is not finished" in outcome.error
    assert not (tmp_path / "copy").exists()


@pytest.mark.parametrize("folder", PUBLISHED, ids=lambda folder: folder.name)
def test_what_comes_with_the_project_was_learned_from_generated_data(folder: Path) -> None:
    run = load_run(folder)
    assert run.config.workload.name in ("chat", "page_cache")
    assert run.config.workload.page_cache.source == "generated"
    assert sum(path.stat().st_size for path in folder.rglob("*") if path.is_file()) < 300_000
    (start,) = read_starts(folder / PROVENANCE_FILE)
    assert not start["code"]["dirty"]


def test_a_policy_that_comes_with_the_project_plays_as_its_table_says() -> None:
    folder = ROOT / "docs" / "policies" / "page-cache"
    world = load_run_world(folder)
    arena = Arena(world.table, world.options, LockstepPaging)
    (records,) = arena.play([contestant_of(world, LEARNED)])
    rows = json.loads((folder / "results.json").read_text())["policies"]
    (told,) = (row["reward_per_question"]["estimate"] for row in rows if row["name"] == LEARNED)
    # Not to the last digit: another processor may break a tie the other way.
    assert mean_reward_per_question(records) == pytest.approx(told, abs=0.005)
