"""Runs in which a language model plays as well; the model is a script."""

from __future__ import annotations

import json
from collections import Counter
from pathlib import Path
from typing import Any

import pytest
import tiny_runs
from tiny_runs import ROOT, Outcome, json_lines, train, train_module

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
REFERENCES = {
    "reader, no memory",
    "reader, full context, newest kept",
    "reader, full context, oldest kept",
    "reader, RAG top 2",
}
SOURCES = [
    *("learned", "heuristic", "clairvoyant", "prompted", "no_memory", "full_context_newest"),
    *("full_context_oldest", "rag_top_k"),
]
READER = [
    *("--reader.reads", json.dumps(SOURCES), "--reader.budget_tokens", "60"),
    *("--reader.budgets", "[20, 120]", "--reader.top_k", "2", "--reader.judges", "true"),
]
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
        return train(folder, "--prompted.modes", json.dumps(MODES), *READER, *arguments)


def run_of(folder: Path) -> Path:
    return folder / "runs" / "tiny" / "seed0"


@pytest.fixture(scope="module")
def finished(tmp_path_factory: pytest.TempPathFactory) -> tuple[Path, ScriptedBackend]:
    """A run with all modes, and the script that played."""
    folder, backend = tmp_path_factory.mktemp("finished"), ScriptedBackend(answer)
    outcome = prompted(folder, backend)
    assert outcome.code == 0, outcome.err
    return run_of(folder), backend


def untimed(noted: dict[str, Any]) -> dict[str, Any]:
    """Notes without the time that policies took here."""
    return {key: value for key, value in noted.items() if key != "timing"}


def results_of(run: Path) -> dict[str, Any]:
    results = tiny_runs.results_of(run)
    for policy in results["policies"]:
        policy["notes"] = [untimed(own) for own in policy["notes"]]
    return results


def episodes_of(run: Path) -> list[dict[str, Any]]:
    return [{**row, "notes": untimed(row["notes"])} for row in tiny_runs.episodes_of(run)]


def rows_of(run: Path) -> dict[str, dict[str, Any]]:
    return {row["name"]: row for row in results_of(run)["policies"]}


def records_of(run: Path, name: str) -> list[dict[str, Any]]:
    return [line["record"] for line in episodes_of(run) if line["policy"] == name]


def test_a_prompted_model_is_a_row_beside_the_others(
    finished: tuple[Path, ScriptedBackend],
) -> None:
    run, _ = finished
    rows = rows_of(run)
    assert rows.keys() > NAMES | REFERENCES | {"FIFO, no storage", "gain regression", "clairvoyant"}
    table = (run / "results.md").read_text()
    for name in NAMES:
        assert f"| {name} |" in table
        assert "normalized_score" in rows[name]
        (settings,) = rows[name]["settings"]
        assert settings["model"] == {"backend": "scripted"}
        assert rows[name]["kind"] == "prompted"
    assert {rows[name]["kind"] for name in REFERENCES} == {"reference"}
    compared = {pair["policy"] for pair in results_of(run)["paired"]}
    assert compared >= NAMES


def test_everybody_plays_the_same_episodes(finished: tuple[Path, ScriptedBackend]) -> None:
    played: dict[str, list[tuple[str, int]]] = {}
    for line in episodes_of(finished[0]):
        record = line["record"]
        played.setdefault(line["policy"], []).append((record["document"], record["episode"]))
    assert played.keys() >= NAMES | REFERENCES
    assert len({tuple(episodes) for episodes in played.values()}) == 1


def test_what_asking_cost_is_with_the_rows(finished: tuple[Path, ScriptedBackend]) -> None:
    rows = rows_of(finished[0])
    costs = [rows[name]["notes"][0]["costs"] for name in NAMES]
    costs += [row["notes"][0]["reader"]["costs"] for row in rows.values() if row["answers"]]
    for own in costs:  # also where all was answered from the recording
        assert own["calls"] > 0
        assert own["prompt_tokens"] == 100 * own["calls"]
        assert own["seconds"] == 0.25 * own["calls"]
        assert own["tokens_per_query"] > 0
    assert "costs" not in rows["gain regression"]["notes"][0]
    assert rows["gain regression"]["notes"][0].keys() >= {"missed"}
    text = (finished[0] / "results.md").read_text()
    assert "What a decision takes" in text
    assert "Why queries were missed" in text


def test_every_exchange_is_in_the_run_folder(finished: tuple[Path, ScriptedBackend]) -> None:
    run, backend = finished
    recorded = [request for request, _ in exchanges(run / "exchanges.jsonl")]
    assert recorded == backend.requests
    episodes = len(records_of(run, "clairvoyant"))
    for mode in ("functions", "functions_without_recall"):
        lines = json_lines(run / f"prompted-{mode}.jsonl")
        assert len(lines) == episodes
        functions = Counter[str]()
        for line in lines:
            functions.update(line["calls"])
        assert ("conversation_search" in functions) == (mode == "functions")


def test_the_same_reader_answers_for_policies_and_references(
    finished: tuple[Path, ScriptedBackend],
) -> None:
    run, _ = finished
    rows = rows_of(run)
    read = {name for name, row in rows.items() if "f1" in row["answers"]}
    assert read > NAMES | REFERENCES | {"clairvoyant"}
    assert len(read & {"gain regression", "gain regression + store offset"}) == 1
    others = read - NAMES - REFERENCES - {"clairvoyant"}
    assert len(others) == 2, "of those that learned and of the rules the best one each"
    results = results_of(run)
    best = {row["name"]: row["policies"] for row in results["best_read"]}
    assert best["best heuristic"] == [results["best_heuristic"]["settings"][0]["policy"]]
    assert best.keys() == {"best heuristic", "best learned"}
    assert {name for names in best.values() for name in names} == others
    said = {name for name, row in rows.items() if "said/f1" in row["answers"]}
    assert said == {name for name in NAMES if "free text" in name}
    for name in read:
        (notes,) = rows[name]["notes"]
        assert notes["reader"]["budget_tokens"] == 60
        assert notes["reader"]["costs"]["calls"] > 0
        assert notes["reader"]["judge"]["costs"]["calls"] > 0
        assert rows[name]["answers"]["judge"]["estimate"] == 1.0
    assert rows["reader, no memory"]["evidence_recall"]["estimate"] == 0.0
    assert rows["reader, no memory"]["tokens_read_per_question"] == 0.0
    answers = json_lines(run / "readings.jsonl")
    assert {line["policy"] for line in answers if line["answered_by"] == "player"} == said
    questions = sum(line["num_queries"] for line in records_of(run, "clairvoyant"))
    for name in read:
        own = [line for line in answers if line["policy"] == name]
        assert len(own) == questions * (1 + (name in said))
        assert {line["episode"] for line in own} == {r["episode"] for r in records_of(run, name)}


def test_references_are_read_at_every_budget(finished: tuple[Path, ScriptedBackend]) -> None:
    run, _ = finished
    points = results_of(run)["by_budget"]
    budgets = [(point["reference"], point["budget_tokens"]) for point in points]
    assert budgets == [
        (reference, budget)
        for reference in ("full_context_newest", "full_context_oldest", "rag_top_k")
        for budget in (20, 60, 120)
    ]
    for point in points:
        assert 0 < point["tokens_read_per_question"] * 0.5 <= point["budget_tokens"]
        assert {"em", "f1"} <= point["answers"].keys()
    newest = [point["evidence_recall"]["estimate"] for point in points[:3]]
    assert newest == sorted(newest)
    assert newest[0] < newest[-1]
    text = (run / "results.md").read_text()
    assert "| reader, full context, newest kept |" in text
    assert "20 tokens |" not in text, "points are no rows"
    assert "Accuracy against token budget" in text
    assert "Scores of answers, mean" in text


def test_what_has_no_measure_is_not_read(tmp_path: Path) -> None:
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(train_module(), "answer_rules", lambda _workload, _embedder: None)
        outcome = train(tmp_path, "--reader.reads", '["learned"]')
        assert outcome.code == 1
        assert "No measure of answers is known for the workload chat" in outcome.error


def test_a_recorded_run_is_replayed_without_the_model(
    finished: tuple[Path, ScriptedBackend], tmp_path: Path
) -> None:
    run, backend = finished
    asked = len(backend.requests)
    record = ["--llm.backend", "replay", "--llm.record", str(run / "exchanges.jsonl")]
    outcome = train(tmp_path, "--prompted.modes", json.dumps(MODES), *READER, *record)
    assert outcome.code == 0, outcome.err
    assert results_of(run_of(tmp_path)) == results_of(run)
    assert episodes_of(run_of(tmp_path)) == episodes_of(run)
    assert len(backend.requests) == asked
    assert not (run_of(tmp_path) / "exchanges.jsonl").exists()


def test_a_run_that_broke_off_goes_on_and_asks_nothing_twice(
    finished: tuple[Path, ScriptedBackend], tmp_path: Path
) -> None:
    run, whole = finished
    most = len(whole.requests) - 1

    def until_then(request: Request) -> Reply:
        if len(first.requests) > most:
            raise BackendError("The server has gone.")
        return answer(request)

    first, second = ScriptedBackend(until_then), ScriptedBackend(answer)
    outcome = prompted(tmp_path, first)
    assert (outcome.code, outcome.error) == (1, "error: The server has gone.")
    # Those of one call are recorded when all of them have their answers.
    lines = json_lines(run_of(tmp_path) / "exchanges.jsonl")
    kept = sum("request" in line for line in lines)
    assert most - 16 < kept <= most
    outcome = prompted(tmp_path, second, "--resume", "true")
    assert outcome.code == 0, outcome.err
    assert first.requests[:kept] + second.requests == whole.requests
    assert results_of(run_of(tmp_path)) == results_of(run)


def test_everybody_is_scored_on_as_few_episodes_as_the_model(tmp_path: Path) -> None:
    outcome = prompted(tmp_path, ScriptedBackend(answer), "--prompted.most_episodes", "1")
    assert outcome.code == 0, outcome.err
    assert {row["episodes"] for row in rows_of(run_of(tmp_path)).values()} == {1}


def test_an_offset_for_answering_is_chosen_on_validation(tmp_path: Path) -> None:
    """A model that says "answer" by 3 nats too much, where all evidence has left main context."""

    def scores(request: Request) -> list[float]:
        liked = {"answer": 0.0, "let go": 0.0, "keep": 1.0}
        return [
            -3.0 if choice.startswith(("bring", "note 0")) else liked.get(choice, -20.0)
            for choice in request.choices
        ]

    offsets = ["--prompted.answer_offsets", "[0.0, -5.0]", "--workload.ask", "end"]
    modes = ["--prompted.modes", '["choice"]', "--prompted.validation_episodes", "3"]
    backend = ScriptedBackend(scores=scores)
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(train_module(), "make_backend", lambda _: backend)
        outcome = train(tmp_path, *modes, *offsets)
    assert outcome.code == 0, outcome.err
    rows = rows_of(run_of(tmp_path))
    plain = rows["prompted scripted, choice"]
    tuned = rows["prompted scripted, choice + answer offset"]
    assert plain["operations_per_question"]["retrieve"] == 0.0
    assert plain["validation"] == [None]
    (chosen,) = (own["answer_offset"] for own in tuned["settings"])
    assert chosen == -5.0
    assert tuned["validation"][0] is not None
    assert tuned["operations_per_question"]["retrieve"] > 0.0
    decisions = sum(row["decisions"] for row in records_of(run_of(tmp_path), tuned["name"]))
    assert tuned["notes"][0]["costs"]["decisions"] == decisions, "those of validation do not count"


@pytest.mark.parametrize(
    ("flag", "value"),
    [("--prompted.answer_offsets", "[0.0, -1.0]"), ("--prompted.calibrates", "true")],
)
def test_likelihoods_that_a_model_does_not_give_are_missed_at_once(
    tmp_path: Path, flag: str, value: str
) -> None:
    outcome = prompted(tmp_path, ScriptedBackend(answer), flag, value)
    assert outcome.code == 1
    assert f"{flag[2:]} needs likelihoods of given texts, and scripted gives none" in outcome.error
    assert not run_of(tmp_path).exists()


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
