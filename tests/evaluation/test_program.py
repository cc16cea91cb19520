"""`python -m memrl.evaluation`: finished runs put together, and played on another workload."""

from __future__ import annotations

import json
import shutil
from pathlib import Path

import pytest
import yaml
from tiny_runs import TINY, evaluate, results_of, train

from memrl.evaluation import ablation, lineup


@pytest.fixture(scope="module")
def runs(tmp_path_factory: pytest.TempPathFactory) -> list[Path]:
    """Two seeds of the tiny preset."""
    folder = tmp_path_factory.mktemp("merged")
    for seed in range(2):
        outcome = train(folder, "--seed", str(seed))
        assert outcome.code == 0, outcome.err
    return [folder / "runs" / "tiny" / f"seed{seed}" for seed in range(2)]


def test_merged_seeds_are_the_mean_of_both(runs: list[Path], tmp_path: Path) -> None:
    outcome = evaluate("merge", *runs, "--out", tmp_path)
    assert outcome.code == 0, outcome.err
    assert "2 seeds" in outcome.out
    merged = json.loads((tmp_path / "results.json").read_text())
    assert merged["num_seeds"] == 2
    single = [results_of(run) for run in runs]
    for number, policy in enumerate(merged["policies"]):
        expected = [each["policies"][number]["reward_per_question"]["estimate"] for each in single]
        assert policy["reward_per_question"]["estimate"] == pytest.approx(sum(expected) / 2)
        assert len(policy["settings"]) == 2
        assert policy["validation"] == [
            each["policies"][number]["validation"][0] for each in single
        ]
    best = merged["best_heuristic"]
    assert best["settings"] == [each["best_heuristic"]["settings"][0] for each in single]
    expected = [each["best_heuristic"]["reward_per_question"]["estimate"] for each in single]
    assert best["reward_per_question"]["estimate"] == pytest.approx(sum(expected) / 2)
    assert [*best["verdicts"]] == [lineup.LEARNED, lineup.LEARNED_OFFSET]
    assert (tmp_path / "results.md").read_text().startswith("| policy |")


def test_one_run_is_not_counted_twice(runs: list[Path]) -> None:
    outcome = evaluate("merge", runs[0], runs[1], runs[0])
    assert outcome.code == 1
    assert "same seed and fold" in outcome.error
    assert str(runs[0]) in outcome.error


def test_runs_of_other_settings_are_not_merged(runs: list[Path], tmp_path: Path) -> None:
    other = tmp_path / "seed1"
    shutil.copytree(runs[1], other)
    config = yaml.safe_load((other / "config.yaml").read_text())
    config["paging"]["capacity"] = 4
    (other / "config.yaml").write_text(yaml.safe_dump(config))
    for command in ("merge", "ablate"):
        outcome = evaluate(command, runs[0], other)
        assert outcome.code == 1
        assert "they differ in paging.capacity" in outcome.error


@pytest.mark.parametrize("command", ["merge", "transfer"])
def test_a_folder_that_is_no_finished_run_is_named(command: str, tmp_path: Path) -> None:
    outcome = evaluate(command, tmp_path / "nothing")
    assert outcome.code == 1
    assert "nothing" in outcome.error
    assert "not finished" in outcome.error


def test_a_run_plays_on_other_documents(runs: list[Path], tmp_path: Path) -> None:
    chat = {**TINY["workload"]["chat"], "num_documents": 3, "seed": 5}
    preset = tmp_path / "other.yaml"
    workload = {**TINY["workload"], "chat": chat}
    split = {"kind": "leave_one_out"}
    other = {**TINY, "name": "other", "workload": workload, "split": split}
    preset.write_text(yaml.safe_dump(other))
    outcome = evaluate("transfer", runs[0], "--config", preset, "--out", tmp_path)
    assert outcome.code == 0, outcome.err
    played = json.loads((tmp_path / "results.json").read_text())
    names = [policy["name"] for policy in played["policies"]]
    trained = {policy["name"]: policy for policy in results_of(runs[0])["policies"]}
    assert names == [*trained], "every line of the run"
    assert len(played["clusters"]) == 3
    (start,) = json.loads((tmp_path / "provenance.json").read_text())["starts"]
    assert len(start["data"]["folds"]) == 3
    assert yaml.safe_load((tmp_path / "config.yaml").read_text())["name"] == "other"
    for policy in played["policies"]:
        # What was chosen on the run's own validation documents, once for each test document.
        own = trained[policy["name"]]
        assert policy["settings"] == own["settings"] * 3
        assert policy["validation"] == own["validation"] * 3
        assert (policy["kind"], policy["overrides"]) == (own["kind"], own["overrides"])
    best = results_of(runs[0])["best_heuristic"]
    assert played["best_heuristic"]["settings"] == best["settings"] * 3


def test_parts_of_a_learned_policy_are_replaced_in_turn(runs: list[Path], tmp_path: Path) -> None:
    outcome = evaluate("ablate", *runs, "--policy", lineup.LEARNED, "--out", tmp_path)
    assert outcome.code == 0, outcome.err
    played = json.loads((tmp_path / "results.json").read_text())
    rows = {policy["name"]: policy for policy in played["policies"]}
    assert played["num_seeds"] == 2
    for name, whole in ((lineup.LEARNED, ablation.WHOLE), (lineup.FIFO, lineup.FIFO)):
        recorded = [
            policy["reward_per_question"]["estimate"]
            for run in runs
            for policy in results_of(run)["policies"]
            if policy["name"] == name
        ]
        own = rows[whole]["reward_per_question"]["estimate"]
        assert own == pytest.approx(sum(recorded) / 2), "as the runs scored it"
    assert rows[ablation.WHOLE]["settings"] == [{"is": lineup.LEARNED}] * 2
    stored = {name: row["operations_per_question"]["store"] for name, row in rows.items()}
    under_pressure = "prior rule under pressure, learned at queries"
    assert stored["everything stored, learned at queries"] > stored[under_pressure]
    searches = rows["without SEARCH and NEXT"]["operations_per_question"]
    assert (searches["search"], searches["next"]) == (0, 0)
    offsets = {policy["name"]: policy for policy in results_of(runs[0])["policies"]}
    chosen = rows[ablation.CONTROL]["settings"]
    assert [*chosen[0]] in (["store_offset"], ["store_offset", "without"])
    if "without" not in chosen[0]:
        assert chosen[0] == offsets[lineup.LEARNED_OFFSET]["settings"][0], "as the run chose it"
    compared = [pair["policy"] for pair in played["paired"]]
    assert {pair["control"] for pair in played["paired"]} == {ablation.WHOLE}
    assert compared == [name for name in rows if name != ablation.WHOLE]
    for name in compared:
        assert name in outcome.out.split("differences in")[1]


def test_what_has_no_parts_is_not_ablated(runs: list[Path]) -> None:
    outcome = evaluate("ablate", runs[0], "--policy", lineup.FIFO)
    assert outcome.code == 1
    assert "has no parts to replace" in outcome.error
    assert evaluate("ablate", runs[0], "--policy", "nobody").code == 1


def test_a_run_plays_on_the_test_documents_of_a_split(runs: list[Path], tmp_path: Path) -> None:
    preset = tmp_path / "other.yaml"
    preset.write_text(yaml.safe_dump({**TINY, "split": {"test_frac": 0.5}}))
    outcome = evaluate("transfer", runs[0], "--config", preset, "--out", tmp_path)
    assert outcome.code == 0, outcome.err
    played = json.loads((tmp_path / "results.json").read_text())
    documents = TINY["workload"]["chat"]["num_documents"]
    assert len(played["clusters"]) == round(0.5 * documents) < documents


def test_a_run_reads_the_embeddings_that_it_learned_from(runs: list[Path], tmp_path: Path) -> None:
    preset = tmp_path / "other.yaml"
    preset.write_text(yaml.safe_dump(TINY))
    embedder = ("--workload.embedder", "all-MiniLM-L6-v2")
    outcome = evaluate("transfer", runs[0], "--config", preset, *embedder)
    assert outcome.code == 1
    assert "add --workload.embedder hashing" in outcome.error


@pytest.mark.parametrize(
    "text", ['{"policies": [', '{"policies": [{"name": "x", "settings": [{}]}]}']
)
def test_damaged_results_are_named(runs: list[Path], tmp_path: Path, text: str) -> None:
    run = tmp_path / "seed0"
    shutil.copytree(runs[0], run)
    (run / "results.json").write_text(text)
    outcome = evaluate("transfer", run, "--config", run / "config.yaml")
    assert outcome.code == 1
    assert "results.json is damaged" in outcome.error


def test_what_a_run_cannot_have_chosen_is_named(runs: list[Path], tmp_path: Path) -> None:
    run = tmp_path / "seed0"
    shutil.copytree(runs[0], run)
    results = json.loads((run / "results.json").read_text())
    for policy in results["policies"]:
        if policy["name"] == lineup.STORE_ALL:
            policy["settings"][0]["top_k"] = 77
    (run / "results.json").write_text(json.dumps(results))
    outcome = evaluate("transfer", run, "--config", run / "config.yaml")
    assert outcome.code == 1
    assert f"{lineup.STORE_ALL!r}, which its configuration does not try" in outcome.error
