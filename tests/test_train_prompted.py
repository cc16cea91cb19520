"""Runs in which a language model plays as well; the model is a script."""

from __future__ import annotations

import json
from collections import Counter
from pathlib import Path
from typing import Any

import pytest
from tiny_runs import ROOT, Outcome, episodes_of, json_lines, results_of, train, train_module

from memrl.llm.backend import BackendError, Reply, Request, ToolCall, Usage
from memrl.llm.record import exchanges
from memrl.llm.scripted import ScriptedBackend

MODES = ["choice", "choice_at_queries", "functions", "functions_without_recall"]
NAMES = {
    "prompted scripted, choice",
    "prompted scripted, choice at queries",
    "prompted scripted, free text, recall on",
    "prompted scripted, free text, recall off",
}
USAGE = Usage(prompt_tokens=100, cached_tokens=40, reply_tokens=10, seconds=0.25)


def answer(request: Request) -> Reply:
    """Keeps and brings back what it can, searches once, and answers."""
    if request.choices:
        liked = [text for text in request.choices if text.startswith(("keep", "bring", "note"))]
        return Reply((liked or request.choices)[0], usage=USAGE)
    names = {tool["function"]["name"] for tool in request.tools}
    if "conversation_search" in names and request.messages[-1].role == "user":
        arguments = {"query": "Paul", "request_heartbeat": True}
        call = ToolCall("conversation_search", json.dumps(arguments))
        return Reply("", calls=(call,), usage=USAGE)
    if names:
        call = ToolCall("send_message", json.dumps({"message": "Lisbon"}))
        return Reply("", calls=(call,), usage=USAGE)
    return Reply("They talked.", usage=USAGE)


def prompted(folder: Path, backend: ScriptedBackend, *arguments: str) -> Outcome:
    """Run train.py where every mode plays, with this script as the model."""
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(train_module(), "make_backend", lambda _: backend)
        return train(folder, "--prompted.modes", json.dumps(MODES), *arguments)


def run_of(folder: Path) -> Path:
    return folder / "runs" / "tiny" / "seed0"


@pytest.fixture(scope="module")
def finished(tmp_path_factory: pytest.TempPathFactory) -> tuple[Path, ScriptedBackend]:
    """A run with all modes, and the script that played."""
    folder, backend = tmp_path_factory.mktemp("finished"), ScriptedBackend(answer)
    outcome = prompted(folder, backend)
    assert outcome.code == 0, outcome.err
    return run_of(folder), backend


def rows_of(run: Path) -> dict[str, dict[str, Any]]:
    return {row["name"]: row for row in results_of(run)["policies"]}


def test_a_prompted_model_is_a_row_beside_the_others(
    finished: tuple[Path, ScriptedBackend],
) -> None:
    run, _ = finished
    rows = rows_of(run)
    assert rows.keys() > NAMES | {"FIFO, no storage", "gain regression", "clairvoyant"}
    table = (run / "results.md").read_text()
    for name in NAMES:
        assert f"| {name} |" in table
        assert "normalized_score" in rows[name]
        (settings,) = rows[name]["settings"]
        assert settings["model"] == {"backend": "scripted"}
    compared = {pair["policy"] for pair in results_of(run)["paired"]}
    assert compared >= NAMES


def test_everybody_plays_the_same_episodes(finished: tuple[Path, ScriptedBackend]) -> None:
    played: dict[str, list[tuple[str, int]]] = {}
    for line in episodes_of(finished[0]):
        record = line["record"]
        played.setdefault(line["policy"], []).append((record["document"], record["episode"]))
    assert played.keys() >= NAMES
    assert len({tuple(episodes) for episodes in played.values()}) == 1


def test_what_asking_cost_is_with_the_rows(finished: tuple[Path, ScriptedBackend]) -> None:
    run, backend = finished
    costs = {
        name: row["settings"][0]["costs"] for name, row in rows_of(run).items() if name in NAMES
    }
    for own in costs.values():
        assert own["calls"] > 0
        assert own["prompt_tokens"] == 100 * own["calls"]
        assert own["seconds"] == 0.25 * own["calls"]
        assert own["tokens_per_query"] > 0
    # What had been asked before was answered from the recording, and counts as if it had not been.
    assert sum(own["calls"] for own in costs.values()) >= len(backend.requests)
    assert "costs" not in rows_of(run)["gain regression"]["settings"][0]


def test_every_exchange_is_in_the_run_folder(finished: tuple[Path, ScriptedBackend]) -> None:
    run, backend = finished
    recorded = [request for request, _ in exchanges(run / "exchanges.jsonl")]
    assert recorded == backend.requests
    episodes = len(episodes_of(run)) // len(rows_of(run))
    for mode in ("functions", "functions_without_recall"):
        lines = json_lines(run / f"prompted-{mode}.jsonl")
        assert len(lines) == episodes
        functions = Counter[str]()
        for line in lines:
            functions.update(line["calls"])
        assert ("conversation_search" in functions) == (mode == "functions")


def test_a_recorded_run_is_replayed_without_the_model(
    finished: tuple[Path, ScriptedBackend], tmp_path: Path
) -> None:
    run, backend = finished
    asked = len(backend.requests)
    record = ["--llm.backend", "replay", "--llm.record", str(run / "exchanges.jsonl")]
    outcome = train(tmp_path, "--prompted.modes", json.dumps(MODES), *record)
    assert outcome.code == 0, outcome.err
    assert results_of(run_of(tmp_path)) == results_of(run)
    assert episodes_of(run_of(tmp_path)) == episodes_of(run)
    assert len(backend.requests) == asked
    assert not (run_of(tmp_path) / "exchanges.jsonl").exists()


def test_a_run_that_broke_off_goes_on_and_asks_nothing_twice(
    finished: tuple[Path, ScriptedBackend], tmp_path: Path
) -> None:
    run, whole = finished
    most = len(whole.requests) - 3

    def until_then(request: Request) -> Reply:
        if len(first.requests) > most:
            raise BackendError("The server has gone.")
        return answer(request)

    first, second = ScriptedBackend(until_then), ScriptedBackend(answer)
    outcome = prompted(tmp_path, first)
    assert (outcome.code, outcome.error) == (1, "error: The server has gone.")
    outcome = prompted(tmp_path, second, "--resume", "true")
    assert outcome.code == 0, outcome.err
    assert first.requests[:most] + second.requests == whole.requests
    assert results_of(run_of(tmp_path)) == results_of(run)


def test_everybody_is_scored_on_as_few_episodes_as_the_model(tmp_path: Path) -> None:
    outcome = prompted(tmp_path, ScriptedBackend(answer), "--prompted.most_episodes", "1")
    assert outcome.code == 0, outcome.err
    assert {row["episodes"] for row in rows_of(run_of(tmp_path)).values()} == {1}


def test_a_model_that_is_not_there_is_named_before_anything_is_made(tmp_path: Path) -> None:
    outcome = train(
        tmp_path, "--prompted.modes", '["choice"]', "--llm.model", str(tmp_path / "none.gguf")
    )
    assert outcome.code == 1
    assert "none.gguf" in outcome.error
    assert not run_of(tmp_path).exists()


def test_page_caches_have_nothing_to_read(tmp_path: Path) -> None:
    cache = ["--config", str(ROOT / "configs" / "page_cache.yaml")]
    outcome = train(tmp_path, *cache, "--prompted.modes", '["choice"]')
    assert outcome.code == 2
    assert "no text that a model could read" in outcome.err
