"""Resampling, fronts and curves of the report, by hand and against independent computations."""

from __future__ import annotations

import itertools
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from run_folders import entries_of
from scipy import stats as scipy_stats

from memrl.evaluation import stats
from memrl.evaluation.report import capacity as capacities
from memrl.evaluation.report.bootstrap import Resamples
from memrl.evaluation.report.conditions import Condition
from memrl.evaluation.report.curves import METRIC, learning_curve
from memrl.evaluation.report.drawing import styles
from memrl.evaluation.report.folders import FinishedRun
from memrl.evaluation.report.fronts import hypervolumes, pareto_front
from memrl.evaluation.stats import FloatArray
from memrl.seeding import Streams

# Saved table: document, seed and reward of two policies; two episodes in documents a and c.
TABLE = """
a 0 0 .10 .20
a 0 1 .30 .20
a 1 0 .20 .50
a 1 1 .40 .50
b 0 0 .90 .80
b 1 0 .70 1.0
c 0 0 .00 .00
c 0 1 .50 .25
c 1 0 .10 .05
c 1 1 .60 .10
"""
ROWS = [line.split() for line in TABLE.split("\n") if line]
DOCUMENTS, SEEDS = [row[0] for row in ROWS], [int(row[1]) for row in ROWS]
EPISODES = [int(row[2]) for row in ROWS]
POLICY, CONTROL = (np.array([float(row[place]) for row in ROWS]) for place in (3, 4))


def resamples(num_resamples: int = 4000, seed: int = 0) -> Resamples:
    rng = Streams(seed).generator("evaluation", 3)
    return Resamples(DOCUMENTS, SEEDS, EPISODES, 2, rng, num_resamples)


def every_resample(statistic: str) -> FloatArray:
    """All 27 draws of documents with all 4 draws of seeds, in plain loops."""
    found = []
    for documents in itertools.product("abc", repeat=3):
        for seeds in itertools.product((0, 1), repeat=2):
            means, episodes = [], []
            for document in documents:
                own: dict[int, list[float]] = {}
                for seed in seeds:
                    for row, value in zip(ROWS, POLICY.tolist(), strict=True):
                        if (row[0], int(row[1])) == (document, seed):
                            own.setdefault(int(row[2]), []).append(value)
                of_episode = [sum(values) / len(values) for values in own.values()]
                episodes += of_episode
                means.append(sum(of_episode) / len(of_episode))
            is_mean = statistic == "mean"
            found.append(sum(means) / 3 if is_mean else scipy_stats.trim_mean(episodes, 0.25))
    return np.array(found)


def test_estimates_of_the_saved_table_by_hand() -> None:
    drawn = resamples(10)
    # Documents: a .25, b .8, c .3 against .35, .9, .1.
    assert drawn.mean(POLICY).estimate == pytest.approx((0.25 + 0.8 + 0.3) / 3)
    # Episodes over seeds: .15 .35 .8 .05 .55; the lowest and the highest are cut off.
    assert drawn.iqm(POLICY).estimate == pytest.approx((0.15 + 0.35 + 0.55) / 3)
    assert drawn.improvement(POLICY - CONTROL).estimate == pytest.approx(1 / 3)
    assert drawn.mean(POLICY).interval is None, "three documents"
    score = drawn.normalized(POLICY, np.zeros(10), np.ones(10))
    assert score is not None
    assert score.estimate == pytest.approx(0.45)
    assert drawn.normalized(POLICY, np.zeros(10), np.full(10, 0.019)) is None


@pytest.mark.parametrize("statistic", ["mean", "iqm"])
def test_resamples_are_spread_as_all_that_could_be_drawn(statistic: str) -> None:
    drawn = resamples()
    values = drawn.means(POLICY) if statistic == "mean" else drawn.iqms(POLICY)
    expected = every_resample(statistic)
    assert set(values.round(9)) <= set(expected.round(9))
    assert values.mean() == pytest.approx(expected.mean(), abs=0.01)
    assert values.std() == pytest.approx(expected.std(), rel=0.05)
    for fraction in (0.1, 0.5, 0.9):
        below = np.mean(values <= np.quantile(expected, fraction) + 1e-9)
        exact = np.mean(expected <= np.quantile(expected, fraction) + 1e-9)
        assert below == pytest.approx(exact, abs=0.03)


def test_one_seed_gives_scipys_bootstrap_of_document_means() -> None:
    rng = np.random.default_rng(7)
    values = rng.normal(size=12)
    names = [f"d{number:02d}" for number in range(12)]
    drawn = Resamples(names, [0] * 12, [0] * 12, 1, rng, 20_000)
    interval = drawn.mean(values).interval
    assert interval is not None
    assert (interval.num_clusters, interval.level) == (12, 0.95)
    expected = scipy_stats.bootstrap(
        (values,), np.mean, n_resamples=20_000, method="percentile", rng=1
    ).confidence_interval
    assert [interval.low, interval.high] == pytest.approx([*expected], abs=0.03)
    iqm = drawn.iqm(values).interval
    other = stats.cluster_bootstrap(values, names, stats.iqm, rng, num_resamples=1000)
    assert iqm is not None
    assert [iqm.low, iqm.high] == pytest.approx([other.low, other.high], abs=0.1)


def test_a_seed_counts_for_all_documents_of_a_split_and_for_one_of_a_fold() -> None:
    """Runs that differ alike in all documents cannot average out, those of folds can."""
    names = [f"d{number}" for number in range(8) for _ in range(2)]
    values = np.array([0.0, 1.0] * 8)  # the first seed fails everywhere
    together = Resamples(names, [0, 1] * 8, [0] * 16, 2, np.random.default_rng(0))
    folds = Resamples(names, [*range(16)], [0] * 16, 2, np.random.default_rng(0))
    assert together.means(values).std() == pytest.approx((1 / 8) ** 0.5, rel=0.05)
    assert folds.means(values).std() < 0.2
    assert folds.mean(values).estimate == together.mean(values).estimate == 0.5


def test_draws_come_from_the_stream_alone() -> None:
    first, second = (resamples().means(POLICY) for _ in range(2))
    assert (first == second).all()
    assert (first != resamples(seed=1).means(POLICY)).any()


def test_values_that_are_not_numbers_are_refused() -> None:
    with pytest.raises(ValueError, match="finite"):
        resamples(10).means([*POLICY[:-1], float("nan")])
    with pytest.raises(ValueError, match="10 rows"):
        resamples(10).means(POLICY[:-1])


def test_a_gap_that_closes_in_a_resample_leaves_no_interval() -> None:
    names = [f"d{number}" for number in range(6)]
    drawn = Resamples(names, [0] * 6, [0] * 6, 1, np.random.default_rng(0))
    bound = [0.0, 0.0, 0.0, 0.0, 0.0, 1.0]
    score = drawn.normalized([0.0] * 5 + [0.5], [0.0] * 6, bound)
    assert score is not None
    assert (score.estimate, score.interval) == (0.5, None)


# ---------------------------------------------------------------------- fronts


def test_front_and_hypervolume_by_hand() -> None:
    points = [(1.0, 0.2), (2.0, 0.1), (3.0, 0.6), (3.0, 0.5), (4.0, 0.6), (1.0, 0.2)]
    assert pareto_front(points) == [0, 2]
    costs, qualities = np.array([points, points[::-1]]).transpose(2, 0, 1)
    # .2 from 1 to 3, .6 from 3 to 5.
    assert hypervolumes(costs, qualities, 5.0) == pytest.approx([0.2 * 2 + 0.6 * 2] * 2)
    assert hypervolumes(costs, qualities, 2.0) == pytest.approx([0.2 * 1] * 2)
    assert hypervolumes(costs, -qualities, 5.0).tolist() == [0.0, 0.0]


def test_hypervolume_is_the_share_of_a_grid_that_is_dominated() -> None:
    rng = np.random.default_rng(3)
    costs, qualities = rng.random((2, 5, 20))
    grid = (np.arange(400) + 0.5) / 400
    for row in range(5):
        own = [*zip(costs[row], qualities[row], strict=True)]
        best = [max((q for c, q in own if c <= cost), default=0.0) for cost in grid]
        area = hypervolumes(costs[row : row + 1], qualities[row : row + 1], 1.0)
        assert area == pytest.approx([np.mean(best)], abs=0.01)


# ---------------------------------------------------------------------- capacities


def member(capacity: int, archive: int = 60, **differing: Any) -> capacities.Member:
    """A page cache of this size, with one policy whose hit ratio grows with it."""
    paging = {"capacity": capacity, "unit": "pages"}
    played = {"workload": "page_cache", "paging": paging}
    settings = {"paging.capacity": capacity, "paging.archival_capacity": archive} | differing
    interval = {"low": capacity / 200, "high": capacity / 50}
    hits = {"estimate": capacity / 100, "interval": interval, "num_clusters": 6, "num_seeds": 2}
    row = {"name": "LRU", "shown_as": "LRU", "mean": hits, "evidence_recall": hits}
    counts = {"documents": ["a"] * 6, "seeds": [0, 1]}
    numbers = {"policies": [row], "measure": "hit ratio", "cluster": "stream"} | counts
    return Condition("", settings, [], [], {"played": played}), numbers


def test_a_curve_joins_what_differs_in_size_alone() -> None:
    small, large = member(8), member(16, archive=120)
    assert capacities.families([large, small]) == [[small, large]]
    assert capacities.families([small, member(16, seed=1), member(8, seed=1)]) == [
        [member(8, seed=1), member(16, seed=1)]
    ]
    assert capacities.families([small, member(8, archive=30)]) == []
    # One capacity with two archives: only those with the same archive belong together.
    others = [member(8, archive=30), member(16, archive=30)]
    assert capacities.families([small, *others]) == [others]


def test_capacities_stand_side_by_side() -> None:
    small, large = member(8), member(16)
    mean = small[1]["policies"][0]["mean"]
    large[1]["policies"].append({"name": "ARC", "shown_as": "ARC", "mean": mean})
    title, columns, rows = capacities.capacity_table([small, large])
    assert title == "hit ratio by capacity (pages), and 95 % intervals; 6 streams, 2 seeds"
    assert columns == ["policy", "8", "16"]
    assert rows == [
        ["LRU", "0.080\n0.040..0.160", "0.160\n0.080..0.320"],
        ["ARC", "-", "0.080\n0.040..0.160"],
    ]


def test_miss_ratios_are_hit_ratios_turned_round() -> None:
    look = styles([("LRU", "heuristic")])
    drawn = capacities.miss_ratio_curves([member(10), member(20)], look, "misses-1")
    assert drawn.rows == [
        ["LRU", "10", "0.900", "0.800..0.950", "6", "2"],
        ["LRU", "20", "0.800", "0.600..0.900", "6", "2"],
    ]
    (axes,) = drawn.figure.axes
    assert axes.get_xscale() == "log"
    assert np.asarray(axes.lines[0].get_ydata()).tolist() == pytest.approx([0.9, 0.8])


# ---------------------------------------------------------------------- curves


def learned(seed: int, *points: tuple[int, float]) -> FinishedRun:
    metrics = [{"global_step": step, METRIC: value} for step, value in points]
    metrics.insert(0, {"global_step": 0, "losses/gain": 1.0})
    entries = entries_of(seed, ["a"], {"FIFO": 0.5})
    return FinishedRun(Path("run"), {}, {}, 7, entries, metrics)


def test_curve_is_the_mean_over_seeds_and_ends_with_the_first() -> None:
    runs = [
        learned(0, (10, 0.0), (20, 0.4), (30, 0.9)),
        learned(0, (10, 0.2), (20, 0.6), (30, 0.9)),  # another fold of the same seed
        learned(1, (10, 0.3), (15, 0.4), (20, 0.7)),
    ]
    curve = learning_curve(runs)
    assert curve is not None
    assert curve.steps == [10, 15, 20]
    assert curve.mean == pytest.approx([0.2, (0.3 + 0.4) / 2, 0.6])
    assert curve.low == pytest.approx([0.1, 0.3, 0.5])
    assert curve.high == pytest.approx([0.3, 0.4, 0.7])
    assert curve.num_seeds == 2
    assert learning_curve([learned(0)]) is None


def test_curve_of_a_policy_gradient_begins_where_gain_regression_ends() -> None:
    run = learned(0, (10, 0.1), (20, 0.4))  # two rounds of ten gradient steps
    run.config.update(algorithm="ppo", learner={"rounds": 2, "updates_per_round": 10})
    run.metrics.extend(
        {"global_step": 20 + step, METRIC: step / 1000, "charts/attempt": 0} for step in (50, 100)
    )
    curve = learning_curve([run])
    assert curve is not None
    assert curve.learner == "PPO"
    assert curve.steps == [50, 100]
    assert curve.mean == pytest.approx([0.05, 0.1])
