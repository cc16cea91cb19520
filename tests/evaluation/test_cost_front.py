"""Quality against price: rows over several weights of the costs, and the runs that make them."""

from __future__ import annotations

import csv
from pathlib import Path

import pytest
import yaml
from tiny_runs import train

from memrl.config import RunConfig
from memrl.evaluation.cost_front import COLUMNS, front_rows
from memrl.evaluation.entry import Entry
from memrl.evaluation.lineup import FIFO, LEARNED
from memrl.evaluation.play import EpisodeRecord
from memrl.options import DEFAULT_REWARD
from memrl.policies.base import Kind


def record(document: str, evidence: float, stores: int) -> EpisodeRecord:
    """An episode of two questions."""
    return EpisodeRecord(
        episode=0,
        document=document,
        num_queries=2,
        num_scored=2,
        evidence=evidence,
        reward_terms={},
        operations={"yield": 9, "store": stores, "retrieve": 1},
        illegal=0,
        decisions=6,
        events=20,
        tokens_retrieved=0,
        tokens_read=40,
        decision_s=0.0,
        funnel={},
        evidence_by_category={},
        support={},
    )


def entry(name: str, kind: Kind, stores: int, *evidence: float) -> Entry:
    records = [record(f"d{n}", own, stores) for n, own in enumerate(evidence)]
    seeds = [0] * len(records)
    return Entry(name, False, {}, [{}], records, seeds, kind=kind, validation=[0.5])


def test_a_front_over_scales_by_hand() -> None:
    floor = entry(FIFO, "heuristic", -1, 0.2, 0.6)  # -1 store and 1 retrieve: nothing is done
    cheap = [entry(LEARNED, "learned", 1, 1.0, 2.0), entry("bound", "bound", 0, 2.0, 2.0), floor]
    dear = [entry(LEARNED, "learned", 5, 0.0, 2.0), floor]
    rows = front_rows([(0.5, cheap), (4.0, dear)])
    assert [len(row) for row in rows] == [len(COLUMNS)] * 6
    shown = [(row[0], row[1], row[2], row[4], row[5], row[6]) for row in rows]
    assert shown == [
        ("0.5", "best heuristic", "0.200", "0.00", "20", "yes"),
        ("0.5", LEARNED, "0.750", "1.00", "20", "yes"),
        ("0.5", FIFO, "0.200", "0.00", "20", ""),
        ("4", "best heuristic", "0.200", "0.00", "20", ""),
        ("4", LEARNED, "0.500", "3.00", "20", ""),
        ("4", FIFO, "0.200", "0.00", "20", ""),
    ]


def test_costs_are_scaled_and_evidence_is_not() -> None:
    scaled = DEFAULT_REWARD.with_costs(3.0)
    assert (scaled.evidence, scaled.illegal) == (DEFAULT_REWARD.evidence, DEFAULT_REWARD.illegal)
    assert scaled.store == 3 * DEFAULT_REWARD.store
    assert scaled.evict == 3 * DEFAULT_REWARD.evict
    assert scaled.retrieve == 3 * DEFAULT_REWARD.retrieve
    assert scaled.search == 3 * DEFAULT_REWARD.search
    assert scaled.next == 3 * DEFAULT_REWARD.next


def test_one_command_learns_under_each_scale(tmp_path: Path) -> None:
    options = [
        *("--cost_scales", "[2]", "--learner.rounds", "1", "--learner.updates_per_round", "4"),
        *("--workload.train_episodes", "2", "--workload.test_episodes", "1"),
    ]
    first = train(tmp_path, *options)
    assert first.code == 0, first.err
    assert "recall against operations" in first.out
    runs = tmp_path / "runs"
    stores = [
        yaml.safe_load((runs / name / "seed0" / "config.yaml").read_text())["paging"]["reward"]
        for name in ("tiny-cost2",)
    ]
    assert [own["store"] for own in stores] == [2 * DEFAULT_REWARD.store]
    front = runs / "tiny-front" / "seed0"
    rows = list(csv.DictReader((front / "tables" / "front.csv").read_text().splitlines()))
    assert {row["cost scale"] for row in rows} == {"2"}
    assert {row["policy"] for row in rows} >= {FIFO, LEARNED}
    refused = train(tmp_path, *options)
    assert "tiny-front" in refused.error
    again = train(tmp_path, *options, "--resume", "true")
    assert again.code == 0, again.err
    assert again.out.count("finished already") == 1


@pytest.mark.parametrize("scales", [(1.0, 1.0), (-1.0,), (float("nan"),), (float("inf"),)])
def test_scales_that_draw_no_front_are_refused(scales: tuple[float, ...]) -> None:
    with pytest.raises(ValueError, match="cost_scales must be different finite numbers"):
        RunConfig(cost_scales=scales)
