"""Whom the learned policies have to beat, over one run and over several, and what is said of it."""

from __future__ import annotations

from typing import Any

import pytest

from memrl.config import RunConfig, run_settings
from memrl.episode_log import FUNNEL_STEPS
from memrl.evaluation.entry import Entry
from memrl.evaluation.lineup import CLAIRVOYANT, FIFO, LEARNED, PRIOR_RULE
from memrl.evaluation.play import EpisodeRecord
from memrl.evaluation.summary import merge, summarize
from memrl.evaluation.verdict import best_heuristic, sentences, title, verdict_of
from memrl.policies.base import Kind

SETTINGS = run_settings(RunConfig())


def record(document: str, reward: float) -> EpisodeRecord:
    """One question, with this reward."""
    return EpisodeRecord(
        episode=0,
        document=document,
        num_queries=1,
        num_scored=1,
        evidence=reward,
        reward_terms={"evidence": reward},
        operations={"yield": 1, "store": 0, "retrieve": 0, "next": 0, "evict": 0, "search": 0},
        illegal=0,
        decisions=1,
        events=2,
        tokens_retrieved=0,
        tokens_read=1,
        decision_s=0.0,
        funnel={"absent": 0.0} | dict.fromkeys(FUNNEL_STEPS, 0.0),
    )


def entry(
    name: str,
    rewards: list[float],
    validation: float | None,
    kind: Kind = "heuristic",
    **settings: Any,
) -> Entry:
    """Of one run: document i has the i-th reward."""
    records = [record(f"doc{number}", reward) for number, reward in enumerate(rewards)]
    seeds = [0] * len(records)
    return Entry(
        name, kind == "bound", {}, [settings], records, seeds, kind=kind, validation=[validation]
    )


def settings_of(entries: list[Entry]) -> list[dict[str, Any]] | None:
    best = best_heuristic(entries)
    return None if best is None else best.settings


# ---------------------------------------------------------------------------------------- choosing


def test_the_best_on_validation_is_not_the_best_on_test() -> None:
    entries = [
        entry("random", [0.9, 0.9], 0.1),
        entry(PRIOR_RULE, [0.2, 0.3], 0.5, top_k=3),
        entry("store all", [0.4, 0.4], 0.4),
        entry(LEARNED, [0.5, 0.5], 0.9, "learned"),
        entry(CLAIRVOYANT, [1.0, 1.0], 1.0, "bound"),
    ]
    best = best_heuristic(entries)
    assert best is not None
    assert best.settings == [{"policy": PRIOR_RULE, "top_k": 3}]
    assert best.validation == [0.5]
    assert best.records == entries[1].records
    row = summarize(entries, [], SETTINGS)["best_heuristic"]
    assert row["reward_per_question"]["estimate"] == 0.25
    assert title(row) == "best heuristic (chosen on validation): prior rule"


def test_the_first_among_equals_is_the_best_and_doing_nothing_may_be() -> None:
    entries = [entry("b", [0.1], -0.2), entry(FIFO, [0.1], 0.0), entry("a", [0.9], 0.0)]
    assert settings_of(entries) == [{"policy": FIFO}]


def test_what_was_not_played_on_validation_is_not_eligible() -> None:
    entries = [entry("a", [0.9], None), entry("b", [0.1], -0.2)]
    assert settings_of(entries) == [{"policy": "b"}]
    assert settings_of(entries[:1]) is None
    assert settings_of([entry(LEARNED, [0.5], 0.9, "learned")]) is None
    results = summarize(entries[:1], [], SETTINGS)
    assert results["best_heuristic"] is None
    (sentence,) = sentences(results, "document")
    assert "No heuristic was scored on validation" in sentence


def two_runs() -> list[Entry]:
    """Two folds that choose differently; either choice is the worse one on the other fold."""
    runs = []
    for fold, (scores, rewards) in enumerate([((0.6, 0.5), (0.3, 0.1)), ((0.2, 0.4), (0.0, 0.7))]):
        run = [
            entry("a", [], scores[0], k=fold),
            entry("b", [], scores[1], k=10 + fold),
            entry(LEARNED, [], 0.5, "learned"),
        ]
        for one, reward in zip(run, (*rewards, 0.55), strict=True):
            one.records, one.seeds, one.runs = [record(f"doc{fold}", reward)], [0], [0]
        runs.append(run)
    return merge(runs)


def test_every_run_chooses_on_its_own_validation() -> None:
    best = best_heuristic(two_runs())
    assert best is not None
    assert best.settings == [{"policy": "a", "k": 0}, {"policy": "b", "k": 11}]
    assert best.validation == [0.6, 0.4]
    assert [one.episode_return for one in best.records] == [0.3, 0.7]
    assert (best.seeds, best.runs) == ([0, 0], [0, 1])
    results = summarize(two_runs(), [], SETTINGS)
    assert title(results["best_heuristic"]) == (
        "best heuristic (chosen on validation by each run): 1 x a, 1 x b"
    )
    (pair,) = [pair for pair in results["paired"] if pair["policy"] == LEARNED]
    assert pair["cluster_differences"] == pytest.approx({"doc0": 0.25, "doc1": -0.15})


# ---------------------------------------------------------------------------------------- verdict


@pytest.mark.parametrize(
    ("low", "high", "verdict"),
    [
        (0.01, 0.2, "beats"),
        (-0.2, -0.01, "does not beat"),
        (-0.01, 0.2, "cannot be told apart from"),
        (0.0, 0.2, "cannot be told apart from"),
        (0.0, 0.0, "cannot be told apart from"),
    ],
)
def test_the_interval_decides(low: float, high: float, verdict: str) -> None:
    assert verdict_of({"low": low, "high": high}) == verdict


def test_without_an_interval_nothing_is_decided() -> None:
    assert verdict_of(None) == "cannot be told apart from"


@pytest.mark.parametrize(
    ("learned", "beginning"),
    [
        ([0.5, 0.6, 0.7, 0.6, 0.5, 0.7], "learned beats the best heuristic: +0.300"),
        ([0.1, 0.0, 0.2, 0.1, 0.0, 0.2], "learned does not beat the best heuristic: -0.200"),
        ([0.9, 0.0, 0.2, 0.6, 0.0, 0.2], "learned cannot be told apart from the best heuristic: "),
        ([0.9] * 5, "learned cannot be told apart from the best heuristic: +0.600"),
    ],
)
def test_one_sentence_for_each_learned_policy(learned: list[float], beginning: str) -> None:
    count = len(learned)
    entries = [
        entry(FIFO, [0.1] * count, 0.1),
        entry(PRIOR_RULE, [0.3] * count, 0.3),
        entry("learned", learned, 0.2, "learned"),
        entry("the same", [0.3] * count, 0.2, "learned"),
        entry(CLAIRVOYANT, [1.0] * count, 1.0, "bound"),
    ]
    results = summarize(entries, [], SETTINGS)
    first, second = sentences(results, "document")
    assert first.startswith(beginning)
    assert second.startswith("the same cannot be told apart from")
    assert results["best_heuristic"]["normalized_score"] == pytest.approx(0.2 / 0.9)
    assert [*results["best_heuristic"]["verdicts"]] == ["learned", "the same"]
    (pair,) = [pair for pair in results["paired"] if pair["policy"] == "learned"]
    if count == 6:
        low, high = pair["interval"]["low"], pair["interval"]["high"]
        better, worse = (sum(sign * own > sign * 0.3 for own in learned) for sign in (1, -1))
        assert first.endswith(
            f" reward / question, 95 % interval {low:+.3f} to {high:+.3f} over 6 documents, better "
            f"in {better} and worse in {worse} of them."
        )
    else:
        assert first.endswith(" reward / question, over 5 documents, too few for an interval.")
