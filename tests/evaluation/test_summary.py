from __future__ import annotations

import json
from copy import deepcopy
from pathlib import Path
from typing import Any

import pytest

from memrl.config import RunConfig, run_settings
from memrl.episode_log import FUNNEL_STEPS
from memrl.evaluation.entry import Entry
from memrl.evaluation.lineup import CLAIRVOYANT, FIFO
from memrl.evaluation.play import EpisodeRecord, mean_reward_per_question, reward_per_question
from memrl.evaluation.summary import (
    merge,
    read_entries,
    summarize,
    write_entries,
)
from memrl.options import DEFAULT_REWARD
from memrl.policies.base import Contestant
from memrl.policies.clairvoyant import Clairvoyant
from memrl.policies.heuristics import StoreAndRetrieve, YieldOnly
from memrl.run_files import RunError

SETTINGS = run_settings(RunConfig())


def record(
    document: str,
    episode: int,
    *,
    evidence: float = 0.0,
    cost: float = 0.0,
    scored: int = 4,
    **fields: Any,
) -> EpisodeRecord:
    """An episode with this summed evidence and these costs; all other counts are small and odd."""
    values: dict[str, Any] = {
        "episode": episode,
        "document": document,
        "num_queries": scored + 1,
        "num_scored": scored,
        "evidence": evidence,
        "reward_terms": {"evidence": evidence, "cost/store": -cost},
        "operations": {"yield": 3, "store": 2, "retrieve": 1, "next": 0, "evict": 0, "search": 0},
        "illegal": 1,
        "decisions": 6,
        "events": 20,
        "tokens_retrieved": 8,
        "tokens_read": 40,
        "decision_s": 0.002,
        "funnel": {"absent": 2.0, "stored": 1.5, "kept": 1.0, "staged": 1.0}
        | {"retrieved": 0.75, "used": 0.5},
        "evidence_by_category": {"one": [evidence, float(scored)]} if scored else {},
        "support": {"pages": 3.0 * scored, "precision": 0.5, "f1": 0.25, "em": 1.0},
    }
    return EpisodeRecord(**(values | fields))


def entry(name: str, records: list[EpisodeRecord], seed: int = 0, **settings: Any) -> Entry:
    is_bound = name == CLAIRVOYANT
    return Entry(name, is_bound, {}, [settings], records, [seed] * len(records))


def two_documents(name: str, evidence: list[float], cost: float = 0.0) -> Entry:
    """Episodes 0 and 1 of document a, episode 2 of document b, four questions each."""
    documents = ["a", "a", "b"]
    return entry(
        name,
        [
            record(document, number, evidence=value, cost=cost)
            for number, (document, value) in enumerate(zip(documents, evidence, strict=True))
        ],
    )


def policy_named(results: dict[str, Any], name: str) -> dict[str, Any]:
    (found,) = [policy for policy in results["policies"] if policy["name"] == name]
    assert isinstance(found, dict)
    return found


# ---------------------------------------------------------------------------------------- records


def test_reward_per_question_is_the_return_over_the_questions_that_pay() -> None:
    assert reward_per_question(record("a", 0, evidence=3.0, cost=0.5)) == 2.5 / 4
    nothing = reward_per_question(record("a", 0, cost=0.5, scored=0))
    assert nothing != nothing


def test_episodes_that_ask_nothing_that_pays_are_left_out_of_means() -> None:
    records = [record("a", 0, evidence=4.0), record("a", 1, scored=0), record("b", 2, evidence=1.0)]
    assert mean_reward_per_question(records) == (1.0 + 0.25) / 2


def test_an_entry_is_made_from_a_contestant() -> None:
    contestant = Contestant(
        "x", StoreAndRetrieve(2), {"staging": "dense"}, {"top_k": 2}, "learned", 0.25
    )
    records = [record("a", 0), record("a", 1)]
    made = Entry.of(contestant, records, seed=7)
    assert made == Entry(
        "x", False, {"staging": "dense"}, [{"top_k": 2}], records, [7, 7], [0, 0], "learned", [0.25]
    )
    assert Entry.of(Contestant("c", Clairvoyant(DEFAULT_REWARD)), [], 0).is_privileged
    assert not Entry.of(Contestant("f", YieldOnly()), [], 0).is_privileged


# ---------------------------------------------------------------------------------------- numbers


def test_the_numbers_of_one_policy() -> None:
    extra: dict[str, Any] = {
        **{"tokens_read": 80, "tokens_retrieved": 0, "decision_s": 0.005, "illegal": 0}
    }
    funnel = {"absent": 6.0, "stored": 3.5, "kept": 3.0, "staged": 1.0}
    funnel |= {"retrieved": 0.75, "used": 0.5}
    operations = {"yield": 1, "store": 4, "retrieve": 0, "next": 2, "evict": 0, "search": 0}
    records = [
        record("a", 0, evidence=4.0, cost=1.0),  # .75 per question
        record("a", 1, evidence=2.0, cost=1.0, scored=2, operations=operations),  # .5
        record("b", 2, evidence=1.0, cost=0.0, funnel=funnel, **extra),  # .25
    ]
    records[1].evidence_by_category = {"two": [2.0, 2.0]}
    results = summarize([entry("x", records)], [], SETTINGS)
    assert results["schema"] == 8
    assert results["best_heuristic"] is None, "nobody was played on validation"
    assert results["policies"][0]["hit_ratio"] is None
    assert results["clusters"] == ["a", "b"]
    assert results["num_seeds"] == 1
    assert results["paired"] == []
    (policy,) = results["policies"]
    assert policy["name"] == "x"
    assert policy["is_privileged"] is False
    assert policy["kind"] == "heuristic"
    assert policy["validation"] == [None]
    assert policy["episodes"] == 3
    assert policy["questions"] == 10
    reward = policy["reward_per_question"]
    assert reward["estimate"] == (0.625 + 0.25) / 2  # every document once
    assert reward["cluster_values"] == {"a": 0.625, "b": 0.25}
    assert reward["interval"] is None
    assert policy["reward_per_question_iqm"] == {"estimate": 0.5, "interval": None}
    recall = policy["evidence_recall"]
    assert recall["estimate"] == (1 + 0.25) / 2
    assert recall["cluster_values"] == {"a": 1.0, "b": 0.25}
    assert policy["evidence_recall_by_category"] == {"one": 5 / 8, "two": 1.0}
    assert policy["operations_per_question"] == {
        "yield": 0.7, "store": 0.8, "retrieve": 0.2, "next": 0.2, "evict": 0, "search": 0,
    }  # fmt: skip
    assert policy["reward_terms_per_question"] == {"evidence": 0.7, "cost/store": -0.2}
    assert policy["illegal_actions"] == 2
    assert policy["tokens_read_per_question"] == 16.0
    assert policy["tokens_retrieved_per_question"] == 1.6
    assert policy["decision_ms"] == pytest.approx(3.0)
    assert policy["absent_needs_per_question"] == 1.0
    assert policy["support_per_question"] == {
        "pages": 3.0, "precision": 0.15, "f1": 0.075, "em": 0.3,
    }  # fmt: skip
    assert policy["funnel"] == {
        "stored": 0.65, "kept": 0.5, "staged": 0.3, "retrieved": 0.225, "used": 0.15,
    }  # fmt: skip
    assert "normalized_score" not in policy


def test_without_absent_needs_there_is_no_funnel() -> None:
    nothing = {"absent": 0.0} | dict.fromkeys(FUNNEL_STEPS, 0.0)
    (policy,) = summarize([entry("x", [record("a", 0, funnel=nothing)])], [], SETTINGS)["policies"]
    assert policy["absent_needs_per_question"] == 0.0
    assert policy["funnel"] == dict.fromkeys(FUNNEL_STEPS)


def test_steps_that_some_records_lack_are_not_summed(tmp_path: Path) -> None:
    """Runs of before November 2026 counted four steps, two of them under other names."""
    record_of_old = record("a", 0)
    record_of_old.funnel = {"absent": 2.0, "stored": 1.0, "staged": 1.0, "retrieved": 0.5}
    path = tmp_path / "episodes.jsonl"
    write_entries(path, [entry("x", [record_of_old])])
    (old,) = read_entries(path)
    assert old.records[0].funnel == {"absent": 2.0, "kept": 1.0, "staged": 1.0, "used": 0.5}
    both = entry("x", [*old.records, record("b", 1)])
    (policy,) = summarize([both], [], SETTINGS)["policies"]
    assert policy["funnel"] == {"kept": 0.5, "staged": 0.5, "used": 0.25}


def test_an_episode_without_paying_questions_counts_for_nothing_but_its_mistakes() -> None:
    records = [record("a", 0, evidence=2.0), record("b", 1, scored=0, cost=5.0, illegal=3)]
    results = summarize([entry("x", records)], [], SETTINGS)
    (policy,) = results["policies"]
    assert policy["reward_per_question"]["cluster_values"] == {"a": 0.5}
    assert (policy["episodes"], policy["questions"]) == (1, 4)
    assert policy["illegal_actions"] == 4
    assert policy["operations_per_question"]["store"] == 0.5


# ---------------------------------------------------------------------------------------- scale


def test_scores_lie_between_fifo_and_the_clairvoyant() -> None:
    entries = [
        two_documents(FIFO, [0.0, 1.6, 0.4]),  # a .2, b .1: .15
        two_documents("x", [2.0, 2.0, 1.2], cost=0.4),  # a .4, b .2: .3
        two_documents(CLAIRVOYANT, [4.0, 4.0, 2.0]),  # a 1, b .5: .75
    ]
    results = summarize(entries, [], SETTINGS)
    scores = [policy["normalized_score"] for policy in results["policies"]]
    assert scores == pytest.approx([0.0, (0.3 - 0.15) / (0.75 - 0.15), 1.0])
    regrets = [policy["regret"] for policy in results["policies"]]
    assert regrets == pytest.approx([0.6, 0.45, 0.0])


def test_a_gap_that_is_too_small_gives_no_score() -> None:
    entries = [
        two_documents(FIFO, [2.0, 2.0, 2.0]),
        two_documents(CLAIRVOYANT, [2.0, 2.0, 2.1]),  # a gap of .0125
    ]
    results = summarize(entries, [], SETTINGS)
    assert [policy["normalized_score"] for policy in results["policies"]] == [None, None]
    assert [policy["regret"] for policy in results["policies"]] == pytest.approx([0.0125, 0.0])


@pytest.mark.parametrize("left_out", [FIFO, CLAIRVOYANT])
def test_without_either_end_there_is_no_scale(left_out: str) -> None:
    entries = [two_documents(name, [0.0, 1.0, 2.0]) for name in (FIFO, "x", CLAIRVOYANT)]
    results = summarize([one for one in entries if one.name != left_out], [], SETTINGS)
    assert all("normalized_score" not in policy for policy in results["policies"])


# ---------------------------------------------------------------------------------------- pairs


def test_differences_are_by_episode_and_averaged_within_documents() -> None:
    entries = [
        two_documents("x", [4.0, 2.0, 1.0]),
        two_documents("control", [2.0, 2.0, 2.0]),
        two_documents("worse", [0.0, 0.0, 0.0]),
    ]
    results = summarize(entries, ["control", "absent"], SETTINGS)
    assert [(pair["policy"], pair["control"]) for pair in results["paired"]] == [
        ("x", "control"),
        ("worse", "control"),
    ]
    better, worse = results["paired"]
    assert better["cluster_differences"] == {"a": 0.25, "b": -0.25}
    assert better["estimate"] == 0.0  # every document once
    assert better["probability_of_improvement"] == 0.5
    assert better["interval"] is None
    assert better["sign"] is None
    assert worse["cluster_differences"] == {"a": -0.5, "b": -0.5}
    assert worse["probability_of_improvement"] == 0.0


def many_documents(name: str, evidence: list[float]) -> Entry:
    return entry(name, [record(f"doc{i}", i, evidence=value) for i, value in enumerate(evidence)])


@pytest.mark.parametrize(("num_documents", "has_interval"), [(5, False), (6, True)])
def test_intervals_need_six_documents(num_documents: int, has_interval: bool) -> None:
    evidence = [0.4 * i for i in range(num_documents)]
    entries = [
        many_documents("x", [value + 1.0 + 0.04 * i for i, value in enumerate(evidence)]),
        many_documents("control", evidence),
    ]
    results = summarize(entries, ["control"], SETTINGS)
    (pair,) = results["paired"]
    reward = policy_named(results, "x")["reward_per_question"]
    for interval in (pair["interval"], reward["interval"]):
        assert (interval is not None) == has_interval
    if has_interval:
        # The differences are .25, .26, ... .30: mean .275, standard error .01 sqrt(3.5 / 6).
        half_width = 2.5706 * 0.01 * (3.5 / 6) ** 0.5
        assert pair["estimate"] == pytest.approx(0.275)
        assert pair["interval"]["low"] == pytest.approx(0.275 - half_width, abs=1e-5)
        assert pair["interval"]["high"] == pytest.approx(0.275 + half_width, abs=1e-5)
        assert pair["interval"]["num_clusters"] == 6
        assert pair["sign"] == {"num_positive": 6, "num_negative": 0, "p_value": 0.03125}
        assert pair["probability_of_improvement"] == 1.0
        assert reward["interval"]["low"] < reward["estimate"] < reward["interval"]["high"]


def test_summaries_are_reproducible() -> None:
    entries = [many_documents("x", [(37 * i % 23) ** 1.5 / 28 for i in range(12)])]
    first, again, other = (summarize(entries, [], SETTINGS, seed=seed) for seed in (0, 0, 1))
    assert first == again
    iqm = "reward_per_question_iqm"
    assert first["policies"][0][iqm]["interval"] != other["policies"][0][iqm]["interval"]


def test_the_interquartile_mean_averages_seeds_first() -> None:
    seeds = [
        entry("x", [record("a", number, evidence=value) for number, value in enumerate(values)], k)
        for k, values in enumerate([[0.0, 4.0, 4.0, 0.0], [4.0, 4.0, 0.0, 0.0]])
    ]
    (policy,) = summarize(merge([[one] for one in seeds]), [], SETTINGS)["policies"]
    # Per episode .5, 1, .5, 0 of 4 questions; the quarter at each end is cut off.
    assert policy["reward_per_question_iqm"]["estimate"] == 0.5


def test_an_episode_of_one_seed_counts_once() -> None:
    runs = [[entry("x", [record("a", 0), record("b", 0)])], [entry("x", [record("b", 0)])]]
    with pytest.raises(RunError, match="same episodes of one seed twice"):
        merge(runs)


def test_results_name_what_was_played() -> None:
    played = summarize([entry("x", [record("a", 0)])], [], SETTINGS)["played"]
    assert (played["workload"], played["ask"]) == ("chat", "interleaved")
    assert played["paging"]["stage_from"] == "archival"
    assert played["paging"]["capacity"] == 24
    assert played["parameters"]["num_documents"] == RunConfig().workload.chat.num_documents


def test_only_the_same_episodes_can_be_compared() -> None:
    entries = [
        entry("x", [record("a", 0), record("a", 1)]),
        entry("control", [record("a", 0), record("a", 2)]),
    ]
    with pytest.raises(ValueError, match="'x' and 'control' were not played on the same episodes"):
        summarize(entries, ["control"], SETTINGS)


# ---------------------------------------------------------------------------------------- merging


def test_seeds_are_averaged_within_documents() -> None:
    runs = [
        [entry("x", [record("a", 0, evidence=value), record("b", 1, evidence=1.0)], seed)]
        for seed, value in enumerate((4.0, 2.0, 0.0))
    ]
    before = deepcopy(runs)
    (merged,) = merge(runs)
    assert runs == before
    assert merged.seeds == [0, 0, 1, 1, 2, 2]
    results = summarize([merged], [], SETTINGS)
    assert results["num_seeds"] == 3
    assert results["clusters"] == ["a", "b"]
    (policy,) = results["policies"]
    assert policy["episodes"] == 6
    assert policy["reward_per_question"]["cluster_values"] == {"a": 0.5, "b": 0.25}


def test_folds_bring_documents_of_their_own() -> None:
    runs = [
        [
            entry("x", [record(f"doc{fold}", 0, evidence=float(fold % 3))], k=fold),
            entry("control", [record(f"doc{fold}", 0)]),
        ]
        for fold in range(6)
    ]
    merged = merge(runs)
    assert [one.name for one in merged] == ["x", "control"]
    assert merged[0].settings == [{"k": fold} for fold in range(6)]
    results = summarize(merged, ["control"], SETTINGS)
    assert results["clusters"] == [f"doc{fold}" for fold in range(6)]
    assert results["num_seeds"] == 1
    (pair,) = results["paired"]
    assert list(pair["cluster_differences"].values()) == [0.0, 0.25, 0.5, 0.0, 0.25, 0.5]
    assert pair["interval"] is not None


def test_the_order_of_policies_may_differ_between_runs() -> None:
    runs = [
        [entry("x", [record("a", 0)], 0), entry("y", [record("a", 0)], 0)],
        [entry("y", [record("a", 0)], 1), entry("x", [record("a", 0)], 1)],
    ]
    assert [(one.name, one.seeds) for one in merge(runs)] == [("x", [0, 1]), ("y", [0, 1])]


def test_runs_with_other_policies_are_not_merged() -> None:
    with pytest.raises(RunError, match="do not hold the same policies"):
        merge([[entry("x", [])], [entry("y", [])]])


# ---------------------------------------------------------------------------------------- disk


def some_entries() -> list[Entry]:
    first = two_documents("Zoë | x", [0.1, 0.2, 1 / 3])
    first.overrides, first.settings = {"evict_scope": "any"}, [{"top_k": 3, "threshold": -0.125}]
    first.validation = [1 / 3]
    bound = two_documents(CLAIRVOYANT, [4.0, 4.0, 2.0])
    bound.kind = "bound"
    return [first, bound]


def test_entries_come_back_from_disk(tmp_path: Path) -> None:
    path = tmp_path / "episodes.jsonl"
    write_entries(path, some_entries())
    assert len(path.read_text(encoding="utf-8").splitlines()) == 6
    assert read_entries(path) == some_entries()


def test_merged_entries_come_back_from_disk(tmp_path: Path) -> None:
    """Every fold chose settings of its own."""
    runs = [
        [entry("x", [record(f"doc{fold}", 0), record(f"doc{fold}", 1)], top_k=fold)]
        for fold in range(3)
    ]
    for fold, (one,) in enumerate(runs):
        one.validation = [fold / 7]
    assert merge(runs)[0].validation == [0.0, 1 / 7, 2 / 7]
    path = tmp_path / "episodes.jsonl"
    write_entries(path, merge(runs))
    assert read_entries(path) == merge(runs)


def test_each_line_tells_the_settings_that_its_episode_was_played_with(tmp_path: Path) -> None:
    runs = [[entry("x", [record(f"doc{fold}", 0)], top_k=fold)] for fold in range(3)]
    path = tmp_path / "episodes.jsonl"
    write_entries(path, merge(runs))
    rows = [json.loads(line) for line in path.read_text(encoding="utf-8").splitlines()]
    assert [(row["record"]["document"], row["settings"]) for row in rows] == [
        ("doc0", {"top_k": 0}),
        ("doc1", {"top_k": 1}),
        ("doc2", {"top_k": 2}),
    ]


def without(line: str, *keys: str) -> str:
    row = json.loads(line)
    place = row
    for key in keys[:-1]:
        place = place[key]
    del place[keys[-1]]
    return json.dumps(row)


@pytest.mark.parametrize(
    "damage",
    [
        lambda line: line[: len(line) // 2],
        lambda line: without(line, "policy"),
        lambda line: without(line, "kind"),
        lambda line: without(line, "validation"),
        lambda line: without(line, "record", "evidence"),
        lambda line: line.replace('"record": {', '"record": {"more": 1, '),
        lambda _: "[1, 2]",
        lambda _: "7",
        lambda _: '{"record": null}',
    ],
)
def test_a_damaged_line_is_named(tmp_path: Path, damage: Any) -> None:
    path = tmp_path / "episodes.jsonl"
    write_entries(path, some_entries())
    lines = path.read_text(encoding="utf-8").splitlines()
    lines[3] = damage(lines[3])
    path.write_text("\n".join(lines) + "\n", encoding="utf-8")
    with pytest.raises(RunError, match=r"[Ll]ine 4 of .*episodes\.jsonl is damaged"):
        read_entries(path)


def test_results_are_strict_json() -> None:
    entries = [
        two_documents(FIFO, [2.0, 2.0, 2.0]),
        two_documents("x", [0.0, 2.0, 2.0]),
        two_documents(CLAIRVOYANT, [2.0, 2.0, 2.0]),
    ]
    text = json.dumps(summarize(entries, [FIFO], SETTINGS), allow_nan=False)
    assert json.loads(text) == summarize(entries, [FIFO], SETTINGS)
