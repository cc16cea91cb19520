"""Summaries, intervals and tests whose unit of evidence is the cluster: a conversation, a document.

Questions and windows of one conversation share its people and its topics, and runs with other
training seeds share the conversation itself: they are no independent samples. So values are
averaged over seeds within a cluster first, whole clusters are resampled, and below `MIN_CLUSTERS`
clusters the values are listed without an interval.

Sources: Agarwal et al., "Deep Reinforcement Learning at the Edge of the Statistical Precipice"
(2021) for the interquartile mean and the probability of improvement; Cameron, Gelbach and Miller,
"Bootstrap-Based Improvements for Inference with Clustered Errors" (2008) for resampling clusters.
"""

from __future__ import annotations

import math
from collections.abc import Callable
from dataclasses import dataclass

import numpy as np
import numpy.typing as npt

MIN_CLUSTERS = 6
"""Fewest clusters that get an interval; with 5, even equal signs reach only p = .0625."""
MIN_GAP = 0.02
"""Smallest gap between YIELD-only and clairvoyant in which a score can be placed."""

FloatArray = npt.NDArray[np.float64]
Statistic = Callable[[FloatArray], float]


def mean(values: npt.ArrayLike) -> float:
    """Arithmetic mean of all values, any shape.

    Raises:
        ValueError: if there is no value, or one is NaN or infinite.
    """
    return float(np.mean(_finite(values)))


def iqm(values: npt.ArrayLike) -> float:
    """Interquartile mean of all values, any shape: a quarter of them is cut off at each end.

    As in rliable, `scipy.stats.trim_mean(values, 0.25)`, where the quarter is rounded down; that
    takes ten times as long on the few values that a bootstrap asks for thousands of times.

    Raises:
        ValueError: if there is no value, or one is NaN or infinite.
    """
    sample = _finite(values).ravel()
    cut = sample.size // 4
    parted = np.partition(sample, (cut, sample.size - cut - 1))
    return float(parted[cut : sample.size - cut].mean())


def regret(policy_return: float, clairvoyant_return: float) -> float:
    """Return of the clairvoyant policy minus that of the policy."""
    return clairvoyant_return - policy_return


def normalized_score(policy_return: float, yield_return: float, clairvoyant_return: float) -> float:
    """Place a return between YIELD-only (0) and clairvoyant (1); both can be exceeded.

    Returns:
        (J - J_yield) / (J_clairvoyant - J_yield), NaN when the gap is below `MIN_GAP`.
    """
    gap = clairvoyant_return - yield_return
    return (policy_return - yield_return) / gap if gap >= MIN_GAP else math.nan


@dataclass(frozen=True, slots=True)
class Interval:
    """A confidence interval.

    Attributes:
        low: lower end.
        high: upper end.
        level: nominal coverage in (0, 1).
        num_clusters: number of independent units it rests on.
        method: how it was made.
    """

    low: float
    high: float
    level: float
    num_clusters: int
    method: str


@dataclass(frozen=True, slots=True)
class SignTest:
    """Result of `sign_test`: counts of positive and negative differences, two-sided p-value."""

    num_positive: int
    num_negative: int
    p_value: float


@dataclass(frozen=True, slots=True)
class ClusterSummary:
    """What is known of one quantity.

    Attributes:
        estimate: mean of the cluster means, each cluster counted once.
        cluster_values: mean within each cluster, by label in sorted order.
        interval: None with fewer than `MIN_CLUSTERS` clusters.
    """

    estimate: float
    cluster_values: dict[str, float]
    interval: Interval | None


@dataclass(frozen=True, slots=True)
class PairedSummary:
    """What is known of the difference between a policy and its control on the same episodes.

    Attributes:
        estimate: mean of the cluster differences, each cluster counted once.
        cluster_differences: mean difference within each cluster, by label in sorted order.
        interval: paired t-interval, None with fewer than `MIN_CLUSTERS` clusters.
        sign: sign test over clusters, None with fewer than `MIN_CLUSTERS` clusters.
        probability_of_improvement: share of clusters in which the policy is better.
    """

    estimate: float
    cluster_differences: dict[str, float]
    interval: Interval | None
    sign: SignTest | None
    probability_of_improvement: float


def cluster_means(values: npt.ArrayLike, clusters: npt.ArrayLike) -> dict[str, float]:
    """Average all rows of each cluster: its episodes and, with them, the seeds.

    Args:
        values: (n,) one value per episode and seed.
        clusters: (n,) label of the conversation or document of each row.

    Returns:
        label -> mean, by label in sorted order.
    """
    groups = _rows_by_cluster(_finite(values), clusters)
    return {label: mean(own) for label, own in groups.items()}


def cluster_bootstrap(
    values: npt.ArrayLike,
    clusters: npt.ArrayLike,
    statistic: Statistic,
    rng: np.random.Generator,
    *,
    num_resamples: int = 2000,
    level: float = 0.95,
) -> Interval:
    """Percentile interval of a statistic when whole clusters are drawn with replacement.

    A drawn cluster brings all its rows, those of all seeds included; to give seeds no weight within
    a nonlinear statistic, average them into one row per episode first. With few clusters such
    intervals are too narrow: in simulations with normal clusters they cover .86 at 7, .90 at 20.

    Args:
        values: (n,) rows, whatever `statistic` takes (`mean`, `iqm`).
        clusters: (n,) label of each row.
        statistic: maps the rows of a resample to a number.
        rng: source of the resamples; the same state gives the same interval.
        num_resamples: number of resamples.
        level: nominal coverage.

    Raises:
        ValueError: if there are fewer than 2 clusters, or labels and rows do not match.
    """
    rows = _finite(values)
    members = list(_rows_by_cluster(rows, clusters).values())
    if len(members) < 2:
        raise ValueError(f"A cluster bootstrap needs at least 2 clusters, not {len(members)}.")
    draws = rng.integers(len(members), size=(num_resamples, len(members)))
    estimates = [statistic(np.concatenate([members[i] for i in draw])) for draw in draws]
    low, high = np.quantile(estimates, [(1 - level) / 2, (1 + level) / 2])
    return Interval(float(low), float(high), level, len(members), "cluster bootstrap, percentile")


def t_interval(values: npt.ArrayLike, level: float = 0.95) -> Interval:
    """Student's t-interval of the mean.

    Args:
        values: (n,) one value or paired difference per cluster, seeds averaged first
            (`cluster_means`).
        level: nominal coverage.

    Raises:
        ValueError: if there are fewer than 2 values.
    """
    sample = _finite(values)
    if sample.size < 2:
        raise ValueError(f"A t-interval needs at least 2 values, not {sample.size}.")
    standard_error = sample.std(ddof=1) / math.sqrt(sample.size)
    from scipy import stats

    half_width = float(stats.t.ppf((1 + level) / 2, sample.size - 1) * standard_error)
    centre = float(sample.mean())
    return Interval(centre - half_width, centre + half_width, level, sample.size, "t over clusters")


def sign_test(differences: npt.ArrayLike) -> SignTest:
    """Exact two-sided sign test that the median difference is 0; zero differences are dropped.

    Args:
        differences: (n,) one difference per cluster, seeds averaged first (`cluster_means`).
    """
    sample = _finite(differences)
    positive, negative = int((sample > 0).sum()), int((sample < 0).sum())
    decided = positive + negative
    from scipy import stats

    p_value = float(stats.binomtest(positive, decided).pvalue) if decided else 1.0
    return SignTest(positive, negative, p_value)


def probability_of_improvement(differences: npt.ArrayLike) -> float:
    """Share of clusters in which the policy is better than its control, ties counted half.

    Args:
        differences: (n,) policy minus control, one per cluster, seeds averaged first.
    """
    sample = _finite(differences)
    return float(np.mean((sample > 0) + 0.5 * (sample == 0)))


def summarize_clusters(
    values: npt.ArrayLike,
    clusters: npt.ArrayLike,
    *,
    level: float = 0.95,
    resampling: np.random.Generator | None = None,
) -> ClusterSummary:
    """Mean over clusters, each counted once; their values; an interval where there are enough.

    The interval is Student's t over the cluster means: with 7 clusters it covers .94 in simulations
    with normal clusters, where a percentile bootstrap covers .86 to .88.

    Args:
        values: (n,) one value per episode and seed.
        clusters: (n,) label of each row.
        level: nominal coverage of the interval.
        resampling: source of resamples for an interval by bootstrap, where the clusters are blocks
            of one stream, which are many.
    """
    by_cluster = cluster_means(values, clusters)
    sample = np.array(list(by_cluster.values()))
    return ClusterSummary(mean(sample), by_cluster, _interval(by_cluster, level, resampling))


def summarize_differences(
    differences: npt.ArrayLike,
    clusters: npt.ArrayLike,
    *,
    level: float = 0.95,
    resampling: np.random.Generator | None = None,
) -> PairedSummary:
    """Compare a policy with its control on the same episodes.

    Args:
        differences: (n,) policy minus control, one per episode and seed.
        clusters: (n,) label of each row.
        level: nominal coverage of the interval.
        resampling: as for `summarize_clusters`.
    """
    by_cluster = cluster_means(differences, clusters)
    sample = np.array(list(by_cluster.values()))
    is_enough = sample.size >= MIN_CLUSTERS
    return PairedSummary(
        estimate=mean(sample),
        cluster_differences=by_cluster,
        interval=_interval(by_cluster, level, resampling),
        sign=sign_test(sample) if is_enough else None,
        probability_of_improvement=probability_of_improvement(sample),
    )


def _interval(
    by_cluster: dict[str, float], level: float, resampling: np.random.Generator | None
) -> Interval | None:
    """Of the mean over clusters; None where there are too few."""
    sample = np.array(list(by_cluster.values()))
    if sample.size < MIN_CLUSTERS:
        return None
    if resampling is None:
        return t_interval(sample, level)
    draws = resampling.integers(sample.size, size=(2000, sample.size))
    tails = [(1 - level) / 2, (1 + level) / 2]
    low, high = np.quantile(sample[draws].mean(axis=1), tails).tolist()
    return Interval(low, high, level, sample.size, "bootstrap of cluster means, percentile")


def _finite(values: npt.ArrayLike) -> FloatArray:
    array = np.asarray(values, dtype=np.float64)
    if array.size == 0 or not np.isfinite(array).all():
        raise ValueError("Statistics need values, all of them finite: leave out what is undefined.")
    return array


def _rows_by_cluster(rows: FloatArray, clusters: npt.ArrayLike) -> dict[str, FloatArray]:
    labels, index = np.unique(np.asarray(clusters), return_inverse=True)
    if len(index) != len(rows):
        raise ValueError(f"There are {len(rows)} rows but {len(index)} cluster labels.")
    return {str(label): rows[index == number] for number, label in enumerate(labels)}
