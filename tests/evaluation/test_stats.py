from __future__ import annotations

import math

import numpy as np
import pytest
from scipy import stats as scipy_stats

from memrl.evaluation.stats import (
    cluster_bootstrap,
    cluster_means,
    iqm,
    mean,
    normalized_score,
    probability_of_improvement,
    regret,
    sign_test,
    summarize_clusters,
    summarize_differences,
    t_interval,
)

SEVEN = [f"conv-{i}" for i in range(7)]


def generator(seed: int = 0) -> np.random.Generator:
    return np.random.default_rng(seed)


# ---------------------------------------------------------------------- point estimates


def test_mean_and_iqm_by_hand() -> None:
    # Eight values lose two at each end: (3 + 4 + 5 + 6) / 4.
    values = [100, 1, 3, 2, 4, 6, 5, 1000]
    assert mean(values) == pytest.approx(1121 / 8)
    assert iqm(values) == 4.5
    # Seven lose one at each end, a quarter rounded down.
    assert iqm([-50, 1, 2, 3, 4, 5, 99]) == 3.0
    assert iqm([7, 1]) == 4.0
    assert iqm(np.reshape(values, (2, 4))) == 4.5


def test_iqm_is_what_rliable_computes() -> None:
    scores = generator().normal(size=(5, 11))
    assert iqm(scores) == scipy_stats.trim_mean(scores, proportiontocut=0.25, axis=None)


@pytest.mark.parametrize("values", [[], [1.0, math.nan], [math.inf]])
def test_undefined_values_are_refused(values: list[float]) -> None:
    for function in (mean, iqm, sign_test, probability_of_improvement, t_interval):
        with pytest.raises(ValueError, match="all of them finite"):
            function(values)


def test_regret_and_normalized_score() -> None:
    assert regret(0.7, 0.98) == pytest.approx(0.28)
    assert normalized_score(0.7, 0.44, 0.98) == pytest.approx(0.26 / 0.54)
    assert normalized_score(0.44, 0.44, 0.98) == 0
    assert normalized_score(0.30, 0.44, 0.98) < 0
    assert normalized_score(0.5, 0.0, 0.02) == pytest.approx(25)
    assert math.isnan(normalized_score(0.5, 0.4, 0.4199))
    assert math.isnan(normalized_score(0.5, 0.9, 0.4))


# ---------------------------------------------------------------------- tests and t-intervals


def test_t_interval_by_hand() -> None:
    # Mean 2, standard deviation 1, t(.975, 2) = 4.302653: half width 4.302653 / sqrt(3).
    interval = t_interval([1, 2, 3])
    assert (interval.low, interval.high) == pytest.approx((-0.484138, 4.484138), abs=1e-6)
    assert (interval.num_clusters, interval.level, interval.method) == (3, 0.95, "t over clusters")
    narrow = t_interval([1, 2, 3], level=0.5)
    # t(.75, 2) = .816497
    assert narrow.high - 2 == pytest.approx(0.816497 / math.sqrt(3), abs=1e-6)


def test_t_interval_agrees_with_the_t_test() -> None:
    sample = generator(1).normal(0.3, 1, size=9)
    interval = t_interval(sample)
    expected = scipy_stats.ttest_1samp(sample, 0).confidence_interval(0.95)
    assert (interval.low, interval.high) == pytest.approx((expected.low, expected.high))
    with pytest.raises(ValueError, match="at least 2 values, not 1"):
        t_interval([1.0])


def test_sign_test_by_hand() -> None:
    # 7 of 7: 2 / 2^7.
    assert sign_test([0.1] * 7).p_value == pytest.approx(2 / 128)
    # 6 of 7: 2 * (1 + 7) / 2^7, whichever sign; zeros do not count.
    result = sign_test([1, 2, 0, 3, -9, 4, 5, 0, 6])
    assert (result.num_positive, result.num_negative) == (6, 1)
    assert result.p_value == pytest.approx(16 / 128)
    assert sign_test([-1] * 6 + [1]).p_value == pytest.approx(16 / 128)
    assert sign_test([0, 0]).p_value == 1.0


def test_probability_of_improvement_by_hand() -> None:
    assert probability_of_improvement([0.5, -0.1, 0, 0.2]) == (1 + 0 + 0.5 + 1) / 4


# ---------------------------------------------------------------------- clusters


def test_seeds_are_averaged_within_their_cluster() -> None:
    # Two seeds of one episode in conversation a, three episodes in b: one number each.
    means = cluster_means([1, 3, 10, 20, 60], ["a", "a", "b", "b", "b"])
    assert means == {"a": 2.0, "b": 30.0}
    assert list(cluster_means([1, 2], ["z", "a"])) == ["a", "z"]
    with pytest.raises(ValueError, match="3 rows but 2 cluster labels"):
        cluster_means([1, 2, 3], ["a", "b"])


def test_bootstrap_of_two_clusters_by_hand() -> None:
    # Means 0, .5, 1 with chances 1/4, 1/2, 1/4: the 95 % interval is [0, 1], the 40 % one a point.
    values, clusters = [0, 0, 1, 1], ["a", "a", "b", "b"]
    wide = cluster_bootstrap(values, clusters, mean, generator())
    assert (wide.low, wide.high, wide.num_clusters, wide.level) == (0, 1, 2, 0.95)
    point = cluster_bootstrap(values, clusters, mean, generator(), level=0.4)
    assert (point.low, point.high) == (0.5, 0.5)


def test_bootstrap_keeps_clusters_whole() -> None:
    # Every cluster has the mean 0, so no resample can have another one.
    values = np.tile([-1.0, 1.0], 6)
    interval = cluster_bootstrap(values, np.repeat(np.arange(6), 2), mean, generator())
    assert (interval.low, interval.high) == (0, 0)
    as_rows = cluster_bootstrap(values, np.arange(12), mean, generator())
    assert as_rows.low < -0.3
    assert as_rows.high > 0.3


def test_bootstrap_is_reproducible_and_independent_of_row_order() -> None:
    values = generator(5).normal(size=70)
    clusters = np.repeat(SEVEN, 10)
    first = cluster_bootstrap(values, clusters, iqm, generator(7), num_resamples=300)
    again = cluster_bootstrap(values, clusters, iqm, generator(7), num_resamples=300)
    other = cluster_bootstrap(values, clusters, iqm, generator(8), num_resamples=300)
    assert first == again
    assert first != other
    backwards = cluster_bootstrap(
        values[::-1], clusters[::-1], iqm, generator(7), num_resamples=300
    )
    assert (backwards.low, backwards.high) == pytest.approx((first.low, first.high), abs=1e-12)


def test_bootstrap_refuses_what_it_cannot_do() -> None:
    with pytest.raises(ValueError, match="at least 2 clusters, not 1"):
        cluster_bootstrap([1, 2], ["a", "a"], mean, generator())
    with pytest.raises(ValueError, match="2 rows but 3 cluster labels"):
        cluster_bootstrap([1, 2], ["a", "a", "b"], mean, generator())


def test_clustered_intervals_cover_and_unclustered_ones_do_not() -> None:
    """20 clusters of 6 rows with a common shift: about .90 nominal .95; rows alone about .6."""
    rng = generator(11)
    num_trials, num_clusters, num_rows = 120, 20, 6
    clusters = np.repeat(np.arange(num_clusters), num_rows)
    covered = {"clusters": 0, "rows": 0}
    for _ in range(num_trials):
        shift = rng.normal(size=num_clusters)
        values = shift[clusters] + 0.5 * rng.normal(size=clusters.size)
        for kind, labels in (("clusters", clusters), ("rows", np.arange(clusters.size))):
            interval = cluster_bootstrap(values, labels, mean, rng, num_resamples=150)
            covered[kind] += interval.low <= 0 <= interval.high
    assert 0.85 < covered["clusters"] / num_trials < 0.99
    assert covered["rows"] / num_trials < 0.75


# ---------------------------------------------------------------------- summaries


def test_summary_of_enough_clusters_has_an_interval() -> None:
    values = generator(2).normal(0.5, 0.1, size=21)
    clusters = np.repeat(SEVEN, 3)
    summary = summarize_clusters(values, clusters)
    assert summary.estimate == pytest.approx(values.mean())
    assert list(summary.cluster_values) == SEVEN
    assert summary.cluster_values["conv-2"] == pytest.approx(values[6:9].mean())
    means = values.reshape(7, 3).mean(axis=1)
    assert summary.interval == t_interval(means)
    assert summary.interval.low < summary.estimate < summary.interval.high


def test_every_cluster_counts_once_however_many_rows_it_has() -> None:
    summary = summarize_clusters([1.0, 0.0, 0.5], ["b", "a", "a"])
    assert summary.cluster_values == {"a": 0.25, "b": 1.0}
    assert summary.estimate == 0.625


def test_t_intervals_of_seven_clusters_cover_what_they_say() -> None:
    rng, covered, num_trials = generator(12), 0, 400
    for _ in range(num_trials):
        interval = summarize_clusters(rng.normal(size=7), SEVEN).interval
        assert interval is not None
        covered += interval.low <= 0 <= interval.high
    assert 0.92 < covered / num_trials < 0.98


def test_too_few_clusters_are_listed_without_an_interval() -> None:
    values, clusters = np.arange(10.0), np.repeat(SEVEN[:5], 2)
    summary = summarize_clusters(values, clusters)
    assert summary.interval is None
    assert len(summary.cluster_values) == 5
    paired = summarize_differences(values, clusters)
    assert paired.interval is None
    assert paired.sign is None
    assert paired.probability_of_improvement == 1.0
    six = np.repeat(SEVEN[:6], 2)
    assert summarize_clusters(np.arange(12.0), six).interval is not None
    assert summarize_differences(np.arange(12.0), six).interval is not None


def test_paired_summary_counts_each_cluster_once() -> None:
    # Conversation 0 has 30 rows, the others 2 (two seeds): its weight is that of one cluster.
    clusters = [SEVEN[0]] * 30 + [name for name in SEVEN[1:] for _ in range(2)]
    differences = [-1.0] * 30 + [0.1, 0.3] * 6
    summary = summarize_differences(differences, clusters)
    per_cluster = [-1.0] + [0.2] * 6
    assert list(summary.cluster_differences.values()) == pytest.approx(per_cluster)
    assert summary.estimate == pytest.approx(0.2 / 7)
    assert summary.interval is not None
    expected = t_interval(per_cluster)
    assert (summary.interval.low, summary.interval.high) == pytest.approx(
        (expected.low, expected.high)
    )
    assert summary.sign is not None
    assert (summary.sign.num_positive, summary.sign.num_negative) == (6, 1)
    assert summary.probability_of_improvement == pytest.approx(6 / 7)
