"""Figures that look closer: calibration of gains, an episode as a strip, speed of environments."""

from __future__ import annotations

import json
from dataclasses import asdict
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from run_folders import write_run

from memrl.evaluation.calibration import Calibration, CalibrationBin
from memrl.evaluation.report.folders import read_run
from memrl.evaluation.report.gains import calibration
from memrl.evaluation.report.speed import decisions_per_second, read_rates
from memrl.evaluation.report.strips import strip
from memrl.evaluation.strip import Answer, EpisodeStrip, PlayedStrip, Stay, Store
from memrl.run_files import RunError


def gains(*bins: CalibrationBin) -> Calibration:
    return Calibration("gain regression", 2, [*bins])


def test_bins_of_several_runs_are_put_together_by_their_counts() -> None:
    first = gains(
        CalibrationBin("retrieve", 3, 30, 0.32, 0.5), CalibrationBin("store", 0, 20, 0.05, 0.05)
    )
    second = gains(CalibrationBin("retrieve", 3, 10, 0.36, 0.1))
    drawn = calibration([first, second], "calibration-1")
    assert drawn.rows == [
        ["store", "0.0 to 0.1", "0.050", "0.050", "20"],
        ["retrieve", "0.3 to 0.4", "0.330", "0.400", "40"],
    ]
    assert drawn.alt.endswith("store 0.000, retrieve 0.070.")
    assert "4 test episodes" in drawn.title


def test_few_actions_are_in_the_table_and_not_in_the_curve() -> None:
    many, few = CalibrationBin("next", -1, 10, -0.05, 0.0), CalibrationBin("next", 5, 9, 0.55, 0.6)
    drawn = calibration([gains(many, few)], "calibration-1")
    assert len(drawn.rows) == 2
    curve = drawn.figure.axes[0].lines[1]
    assert np.asarray(curve.get_xdata()).tolist() == [-0.05]


def played() -> EpisodeStrip:
    stays = [
        Stay(0, 3, 1, 5, is_retrieved=False, is_kept=True),
        Stay(1, 4, 2, 6, is_retrieved=False, is_kept=False),
        Stay(0, 9, 5, 8, is_retrieved=True),
    ]
    own = PlayedStrip("rule", 1.5, stays, [Store(4, 0, 3)], [Answer(5, 0.5), Answer(7, None)])
    cache = PlayedStrip("LRU", 1.0, [Stay(0, 1, 2, 4, is_retrieved=False, is_kept=False)])
    cache.passed_by.append(3)
    return EpisodeStrip(2, "d0", 8, 2, [own, cache])


def test_a_strip_lists_what_happened_in_order() -> None:
    drawn = strip(played(), "runs/chat/seed0", "episode-1")
    assert drawn.rows == [
        ["rule", "4", "store", "0", "3"],
        ["rule", "5", "answered, evidence 0.50", "-", "-"],
        ["rule", "5", "evicted, stored", "0", "3"],
        ["rule", "5", "retrieve", "0", "9"],
        ["rule", "6", "evicted, lost", "1", "4"],
        ["LRU", "3", "not let in", "-", "-"],
        ["LRU", "4", "evicted", "0", "1"],
    ]
    assert "rule stores 1 pages, loses 1 that it did not store, retrieves 1" in drawn.alt
    assert drawn.alt.endswith("LRU lets 1 pages in and evicts 1.")
    assert "replay runs/chat/seed0 --episode 2" in drawn.title
    upper, lower = drawn.figure.axes
    assert len(upper.patches) == 3, "a bar for each stay"
    assert [line.get_label() for line in lower.lines] == [
        *("evicted", "miss, the page came in", "the page was not let in")
    ]


def test_what_a_run_wrote_is_read_back(tmp_path: Path) -> None:
    run = write_run(tmp_path, documents=2)
    assert read_run(run).strip is None
    told = gains(CalibrationBin("store", 0, 20, 0.05, 0.05))
    (run / "strip.json").write_text(json.dumps(asdict(played())))
    (run / "calibration.json").write_text(json.dumps(asdict(told)))
    read = read_run(run)
    assert read.strip == played()
    assert read.calibration == told


def bench(path: Path, *rows: dict[str, Any], device: str = "cpu") -> Path:
    path.write_text(json.dumps({"machine": {"platform": "Linux", "device": device}, "rows": rows}))
    return path


def test_rates_of_all_benchmarks_become_curves(tmp_path: Path) -> None:
    engine = {"engine": "Lockstep", "play": "random", "decisions_per_s": 20.0, "lowest": 10.0}
    rows: list[dict[str, Any]] = [
        engine | {"num_envs": 16, "highest": 30.0},
        engine | {"num_envs": 1, "highest": 30.0},
        {"environment": "Batched of 1,024, greedy", "num_envs": 1024, "per_wall_s": [5e3, 4e3]},
    ]
    arm = {"view": "full", "tier": "eager", "num_envs": 16, "decisions_per_s": [7.0, 9.0, 8.0]}
    rates = read_rates(bench(tmp_path / "a.json", *rows))
    rates += read_rates(bench(tmp_path / "b.json", arm, device="some GPU"))
    drawn = decisions_per_second(rates, "speed")
    assert drawn.rows == [
        ["Lockstep, random (1)", "1", "20", "10 to 30"],
        ["Lockstep, random (1)", "16", "20", "10 to 30"],
        ["Batched, greedy (1)", "1024", "4,500", "4,000 to 5,000"],
        ["full, eager (2)", "16", "8", "7 to 9"],
    ]
    assert "(1) cpu, Linux; (2) some GPU, Linux" in drawn.title


@pytest.mark.parametrize("text", ["", "[]", '{"machine": {}}', '{"rows": [{"grows": "slots"}]}'])
def test_other_files_are_no_rates(tmp_path: Path, text: str) -> None:
    path = tmp_path / "bench.json"
    path.write_text(text)
    with pytest.raises(RunError, match="holds no rates of environments"):
        read_rates(path)
    with pytest.raises(RunError, match="name another file"):
        read_rates(tmp_path)
