"""Folders of finished runs, written by hand: nothing is learned or played."""

from __future__ import annotations

import json
from dataclasses import replace
from pathlib import Path
from typing import Any

from memrl.config import RunConfig, run_settings
from memrl.evaluation import summary
from memrl.evaluation.entry import Entry
from memrl.evaluation.lineup import CLAIRVOYANT, FIFO, LEARNED
from memrl.evaluation.play import EpisodeRecord
from memrl.run_files import append_start, config_text, plain, strict_json

QUALITY = {FIFO: 0.25, "prior rule": 0.5, LEARNED: 0.75, CLAIRVOYANT: 1.0}
KINDS: dict[str, Any] = {FIFO: "heuristic", LEARNED: "learned", CLAIRVOYANT: "bound"}


def record(document: str, episode: int, evidence: float, operations: int) -> EpisodeRecord:
    """An episode with four questions of which this share was answered."""
    return EpisodeRecord(
        episode=episode,
        document=document,
        num_queries=4,
        num_scored=4,
        evidence=4 * evidence,
        reward_terms={"evidence": 4 * evidence, "cost/store": -0.01 * operations},
        operations={"yield": 3, "store": operations, "retrieve": 0, "search": 0}
        | {"next": 0, "evict": 0},
        illegal=0,
        decisions=6,
        events=20,
        tokens_retrieved=8,
        tokens_read=40,
        decision_s=0.002,
        funnel={"absent": 4.0, "stored": 3.5, "kept": 3.0, "staged": 2.0}
        | {"retrieved": 4 * evidence - 0.5, "used": 4 * evidence - 1},
        evidence_by_category={"one": [4 * evidence, 4.0]},
        support={"pages": 12.0, "precision": 0.5, "f1": 0.25, "em": 1.0},
    )


def entries_of(
    seed: int, documents: list[str], quality: dict[str, float], episodes: int = 1
) -> list[Entry]:
    """Records of all policies; a document is as much better as it comes later."""
    made = []
    for place, (name, base) in enumerate(quality.items()):
        played = [
            record(document, number * episodes + episode, base + 0.01 * number - 0.02 * seed, place)
            for number, document in enumerate(documents)
            for episode in range(episodes)
        ]
        kind = KINDS.get(name, "heuristic")
        seeds = [seed] * len(played)
        entry = Entry(name, kind == "bound", {}, [{}], played, seeds, kind=kind, validation=[base])
        made.append(entry)
    return made


def write_run(
    root: Path,
    *,
    seed: int = 0,
    documents: int = 6,
    capacity: int = 24,
    commit: str = "a" * 40,
    test_hash: str = "1" * 64,
    file_hash: str = "3" * 64,
    quality: dict[str, float] | None = None,
    names: list[str] | None = None,
    episodes: int = 1,
    config: RunConfig | None = None,
    torch: str = "2.13.0",
) -> Path:
    """A run folder as train.py leaves it, in `root / <name> / seed<k>`."""
    base = config or RunConfig(name=f"chat-{capacity}")
    config = replace(base, seed=seed, paging=replace(base.paging, capacity=capacity))
    folder = root / config.name / f"seed{seed}"
    folder.mkdir(parents=True)
    settings = plain(run_settings(config))
    (folder / "config.yaml").write_text(config_text(settings))
    start = {
        "command": ["train.py", "--seed", str(seed)],
        "code": {"commit": commit, "dirty": False},
        "versions": {"python": "3.11.7", "torch": torch},
        "data": {
            "workload": config.workload.name,
            "provenance": {"files": {"a file": file_hash}},
            "tables": {"test": test_hash},
        },
    }
    append_start(folder / "provenance.json", start)
    documents_there = names or [f"d{number}" for number in range(documents)]
    entries = entries_of(seed, documents_there, quality or QUALITY, episodes)
    summary.write_entries(folder / "episodes.jsonl", entries)
    policies = [{"name": entry.name} for entry in entries]  # of the rest nothing is read again
    results = {"schema": summary.RESULTS_SCHEMA, "policies": policies}
    (folder / "results.json").write_text(strict_json(results))
    lines = [{"global_step": step, "eval/reward_per_question": step / 400} for step in (100, 200)]
    (folder / "metrics.jsonl").write_text("".join(json.dumps(line) + "\n" for line in lines))
    return folder
