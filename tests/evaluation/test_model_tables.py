"""What a language model's rows add to the results: answers, their categories, budgets."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import pytest
from table_fixtures import small_table

from envs.lockstep import LockstepPaging
from memrl.config import RunConfig, run_settings
from memrl.episode_log import FUNNEL_STEPS
from memrl.evaluation import model_tables
from memrl.evaluation.best_read import ROLE
from memrl.evaluation.budgets import BUDGET, POINT, REFERENCE
from memrl.evaluation.entry import Entry
from memrl.evaluation.model_notes import TimedPolicy, costs_note
from memrl.evaluation.play import EpisodeRecord, play
from memrl.evaluation.summary import merge, read_entries, summarize, write_entries
from memrl.llm.backend import Reply, Usage
from memrl.llm.costs import LlmCosts
from memrl.llm.scripted import ScriptedBackend
from memrl.options import PagingOptions
from memrl.policies.clairvoyant import Clairvoyant
from memrl.policies.heuristics import StoreAndRetrieve, YieldOnly
from memrl.policies.prompted_choice import PromptedChoice
from memrl.reader_config import ReaderConfig

SETTINGS = run_settings(RunConfig())


def record(document: str, episode: int) -> EpisodeRecord:
    """Four questions, half of their evidence, 40 tokens read."""
    return EpisodeRecord(
        episode=episode,
        document=document,
        num_queries=4,
        num_scored=4,
        evidence=2.0,
        reward_terms={"evidence": 2.0},
        operations={"yield": 4, "store": 0, "retrieve": 0, "next": 0, "evict": 0, "search": 0},
        illegal=0,
        decisions=4,
        events=20,
        tokens_retrieved=0,
        tokens_read=40,
        decision_s=0.0,
        funnel={"absent": 0.0} | dict.fromkeys(FUNNEL_STEPS, 0.0),
    )


def answered(name: str, scores: dict[str, list[float]], **settings: Any) -> Entry:
    """Two episodes each of six documents; each has these [summed score, number] by measure."""
    records = [record(f"doc{number % 6}", number) for number in range(12)]
    for number, own in enumerate(records):
        own.answer_scores = scores
        own.answer_scores_by_category = {("odd" if number % 2 else "even"): scores}
    return Entry(name, False, {}, [settings], records, [0] * len(records))


def reference(name: str, budget: int | None, **settings: Any) -> Entry:
    told = {REFERENCE: name, BUDGET: budget}
    return answered(f"{name} {budget}", {"f1": [1.0, 2.0]}, **told, **settings)


def tables_of(*entries: Entry) -> dict[str, tuple[list[str], list[list[str]]]]:
    results = summarize(entries, [], SETTINGS)
    return {title: (heads, rows) for title, heads, rows in model_tables.tables(results)}


def test_answers_of_reader_and_player_are_rows_of_their_own() -> None:
    scores = {"f1": [1.0, 4.0], "said/f1": [3.0, 4.0], "evidence_recall": [0.0, 4.0]}
    tables = tables_of(answered("x", scores), answered("y", {"f1": [1.0, 2.0], "em": [0.0, 2.0]}))
    heads, rows = tables["scores of answers, mean and 95 % interval"]
    assert heads == ["policy", "answered by", "f1", "em"]
    assert rows == [
        ["x", "the reader", "0.250 (0.250..0.250)", "-"],
        ["x", "the player", "0.750 (0.750..0.750)", "-"],
        ["y", "the reader", "0.500 (0.500..0.500)", "0.000 (0.000..0.000)"],
    ]
    heads, rows = tables["scores of answers by category"]
    assert heads == ["policy", "answered by", "even: f1", "odd: f1", "even: em", "odd: em"]
    assert rows[1] == ["x", "the player", "0.750", "0.750", "-", "-"]
    made = answered("x", scores)
    for one in made.records:
        one.answer_scores_by_category = {"even": scores}
    assert tables_of(made)["scores of answers by category"][1] == [], "one kind is no division"


def folds(*chosen: str) -> list[list[Entry]]:
    """Runs of six documents each, in which the reader read for this rule as the best one."""
    runs = []
    for fold, best in enumerate(chosen):
        run = [answered(name, {}) for name in ("rule", "other")]
        for own in run:
            for number, one in enumerate(own.records):
                one.document = f"fold {fold} {one.document}"
                if own.name == best:
                    one.answer_scores = {"f1": [float(fold == 1 and number % 2 == 0), 1.0]}
            if own.name == best:
                own.notes = [{"reader": {ROLE: "heuristic", **cost_of(1.0)}}]
        runs.append(run)
    return runs


def test_the_best_of_a_kind_is_what_each_run_has_chosen() -> None:
    results = summarize(merge(folds("rule", "other", "rule")), [], SETTINGS)
    (best,) = results["best_read"]
    assert best["policies"] == ["rule", "other", "rule"]
    assert len(best["answers"]["f1"]["cluster_values"]) == 18
    assert best["answers"]["f1"]["estimate"] == pytest.approx(3 / 18)
    tables = {title: rows for title, _, rows in model_tables.tables(results)}
    name = "best heuristic (chosen on validation): 2 x rule, 1 x other"
    (row,) = tables["scores of answers, mean and 95 % interval"]
    assert row[:2] == [name, "the reader"]
    (costs,) = tables["what reading takes"]
    assert costs[:2] == [name, "3"]


def test_what_only_some_runs_have_read_for_is_no_row() -> None:
    runs = folds("rule", "neither", "rule")
    assert summarize(merge(runs), [], SETTINGS)["best_read"] == []


def test_categories_are_means_over_questions() -> None:
    made = answered("x", {"f1": [1.0, 1.0]})
    made.records[0].answer_scores_by_category = {"even": {"f1": [0.0, 15.0]}}
    (policy,) = summarize([made], [], SETTINGS)["policies"]
    assert policy["answers_by_category"]["even"]["f1"] == {"mean": 5 / 20, "scored": 20}


def test_points_of_a_curve_are_no_rows_and_compared_with_nobody() -> None:
    entries = [
        answered("x", {}),
        reference("rag_top_k", None),
        reference("no_memory", None),
        reference("rag_top_k", 200, **{POINT: True}),
        reference("rag_top_k", 50, **{POINT: True}),
        reference("full_context_newest", 50, **{POINT: True}),
    ]
    results = summarize(entries, ["x"], SETTINGS)
    assert [row["name"] for row in results["policies"]] == ["x", "rag_top_k None", "no_memory None"]
    assert {pair["policy"] for pair in results["paired"]} == {"rag_top_k None", "no_memory None"}
    assert [(point["reference"], point["budget_tokens"]) for point in results["by_budget"]] == [
        ("full_context_newest", 50),
        ("rag_top_k", 50),
        ("rag_top_k", 200),
        ("rag_top_k", None),
    ]
    _, rows = tables_of(*entries)["accuracy against token budget, without paging"]
    assert rows[-1] == [
        *("rag top k", "window", "10", "0.500 (0.500..0.500)", "0.500 (0.500..0.500)"),
    ]


def test_without_a_model_there_is_nothing_to_show() -> None:
    results = summarize([answered("x", {}), reference("rag_top_k", 50)], [], SETTINGS)
    assert results["by_budget"] == [], "one budget is no curve"
    assert all(not rows for _, rows in tables_of(answered("x", {})).values())


@pytest.mark.parametrize(
    ("settings", "message"),
    [
        ({"top_k": 0}, "top_k"),
        ({"max_reply_tokens": 0}, "max_reply_tokens"),
        ({"budget_tokens": 0}, "budget_tokens"),
        ({"reads": ("learned", "learned")}, "reads must be different"),
        ({"reads": ("rag_top_k",), "budgets": (5, 5)}, "budgets must be different"),
        ({"reads": ("rag_top_k",), "budgets": (0,)}, "budgets must be at least 1"),
        ({"reads": ("learned", "no_memory"), "budgets": (5,)}, "references that read"),
    ],
)
def test_a_reader_that_cannot_be_is_refused(settings: dict[str, Any], message: str) -> None:
    with pytest.raises(ValueError, match=message):
        ReaderConfig(**settings)


# ---------------------------------------------------------------------------------------- notes


def cost_of(*seconds: float) -> dict[str, Any]:
    """Each decision took one call of 90 tokens read, half of them cached, and 10 written."""
    costs = LlmCosts()
    for own in seconds:
        costs.add(Reply("ok", usage=Usage(90, 45, 10, own)))
        costs.decided(own)
    return costs_note(costs, num_queries=2)


def test_costs_of_runs_are_added_up_beside_the_time_of_policies() -> None:
    timed = TimedPolicy(YieldOnly())
    timed.durations.add(0.002, 30)
    timed.decisions = 30
    entries = [answered("learned", {}), answered("prompted", {}), answered("nobody", {})]
    entries[0].notes = [timed.note()]
    entries[1].notes = [cost_of(1.0, 1.0) | timed.note(), cost_of(4.0)]
    heads, rows = tables_of(*entries)["what a decision takes, seconds amortised over a batch"]
    assert heads[:4] == ["policy", "decisions", "s / decision p50", "p95"]
    assert rows == [
        ["learned", "30", "0.002", "0.002", *["-"] * 8],
        ["prompted", "3", "1", "4", "3", "270", "135", "30", "100", "75", "0", "0"],
    ]


def test_reading_has_costs_of_its_own() -> None:
    made = answered("x", {})
    made.notes = [{"reader": cost_of(1.0)}]
    tables = tables_of(made)
    assert tables["what a decision takes, seconds amortised over a batch"][1] == []
    assert tables["what reading takes"][1] == [
        ["x", "1", "1", "1", "1", "90", "45", "10", "100", "50", "0", "0"]
    ]


def test_misses_are_told_by_reason() -> None:
    made = answered("x", {})
    made.notes = [
        {"missed": {"scored": 5, "no_search": 2, "wrong_tier": 1}},
        {"missed": {"scored": 5, "no_search": 1}},
    ]
    heads, rows = tables_of(made)["why queries were missed"]
    assert dict(zip(heads, rows[0], strict=True)) == {
        **{"policy": "x", "missed": "4 of 10", "no search": "3", "wrong tier": "1"},
        **dict.fromkeys(("bad call", "not stored", "wrong search", "premature stop"), "0"),
        "found not answered": "0",
    }


def test_notes_stay_with_their_runs(tmp_path: Path) -> None:
    runs = [[answered("x", {})], [answered("x", {})]]
    for number, (one,) in enumerate(runs):
        one.notes = [{"missed": {"scored": number}}]
        one.seeds = [number] * len(one.records)
    (merged,) = merge(runs)
    assert merged.notes == [{"missed": {"scored": 0}}, {"missed": {"scored": 1}}]
    write_entries(tmp_path / "episodes.jsonl", [merged])
    assert read_entries(tmp_path / "episodes.jsonl") == [merged]


def test_a_policy_is_timed_and_plays_as_before() -> None:
    table = small_table(6, num_documents=3, num_pages=10, num_episodes=6, num_queries=4)
    options = PagingOptions(capacity=3, num_slots=3, num_candidates=2, archival_capacity=6)
    timed = TimedPolicy(StoreAndRetrieve(1))
    records = play(LockstepPaging(table, options, 4), timed, range(6))
    assert records == play(LockstepPaging(table, options, 4), StoreAndRetrieve(1), range(6))
    told = timed.note()["timing"]
    assert told["decisions"] == sum(told["durations"]["buckets"].values()) > 0
    assert told["durations"]["least_s"] > 0
    assert TimedPolicy(Clairvoyant(options.reward)).is_privileged
    assert TimedPolicy(PromptedChoice(ScriptedBackend())).reads_text
    assert not timed.reads_text
