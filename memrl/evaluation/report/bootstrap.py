"""Intervals by resampling documents and training runs together.

A number of a policy is uncertain for two reasons: other documents could have been asked about, and
another training seed could have come to another network. One resample draws documents with
replacement and, for itself, training runs with replacement among those that played the same
documents; a value is then averaged over the drawn runs within each document, and over the drawn
documents. A run of one split has played all documents, so that a drawn seed counts for all of them;
where every document was left out in turn, each of them has its own runs.

All policies and all statistics of one table see the same draws, so that differences are paired.

Sources: Owen, "The pigeonhole bootstrap" (2007) for drawing both sides of a crossed table; Agarwal
et al. (2021), see `memrl.evaluation.stats`, for the statistics.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass

import numpy as np
import numpy.typing as npt

from memrl.evaluation import stats
from memrl.evaluation.entry import Entry
from memrl.evaluation.stats import FloatArray, Interval

NUM_RESAMPLES = 2000
LEVEL = 0.95
METHOD = "bootstrap over documents and training runs, percentile"
_CHUNK = 100  # resamples whose episodes are in memory at once


@dataclass(frozen=True, slots=True)
class Estimate:
    """A number and what it rests on.

    Attributes:
        estimate: of all records.
        interval: None with fewer than `stats.MIN_CLUSTERS` clusters, or where the number is not
            defined in every resample.
        num_clusters: documents. num_seeds: training seeds; of one alone the interval says nothing
            about training.
    """

    estimate: float
    interval: Interval | None
    num_clusters: int
    num_seeds: int


class Resamples:
    """Draws over the documents and runs of one table, and what statistics come to under each.

    Args:
        documents: (n,) document of each row. runs: (n,) training run of each row.
        episodes: (n,) episode of each row, a number within its document's table.
        num_seeds: training seeds among the runs.
        rng: source of the draws.
        num_resamples: how many.
    """

    def __init__(
        self,
        documents: Sequence[str],
        runs: Sequence[int],
        episodes: Sequence[int],
        num_seeds: int,
        rng: np.random.Generator,
        num_resamples: int = NUM_RESAMPLES,
    ) -> None:
        self.num_seeds = num_seeds
        names, self._document = np.unique(np.asarray(documents), return_inverse=True)
        self.documents: list[str] = names.tolist()
        _, self._run = np.unique(np.asarray(runs), return_inverse=True)
        pairs = np.stack([self._document, np.asarray(episodes, dtype=np.int64)])
        unique, self._episode = np.unique(pairs, axis=1, return_inverse=True)
        self._document_of_episode = unique[0]
        self._num_runs = int(self._run.max()) + 1
        size = len(self.documents)
        self.document_counts = rng.multinomial(size, np.full(size, 1 / size), num_resamples)
        self.run_counts = np.zeros((num_resamples, self._num_runs))
        for members in self._strata():
            share = np.full(len(members), 1 / len(members))
            self.run_counts[:, members] = rng.multinomial(len(members), share, num_resamples)

    @classmethod
    def of(cls, entry: Entry, rng: np.random.Generator) -> Resamples:
        """Draws for the scored records of an entry, and of all that played the same episodes."""
        rows = scored_rows(entry)
        return cls(
            [entry.records[row].document for row in rows],
            [entry.runs[row] for row in rows],
            [entry.records[row].episode for row in rows],
            len(set(entry.seeds)),
            rng,
        )

    def _strata(self) -> list[list[int]]:
        """Runs that played the same documents; among these a run could have been another one."""
        together: dict[frozenset[int], list[int]] = {}
        for run in range(self._num_runs):
            played = frozenset(self._document[self._run == run].tolist())
            together.setdefault(played, []).append(run)
        return list(together.values())

    @property
    def has_enough(self) -> bool:
        """Whether there are documents enough for an interval."""
        return len(self.documents) >= stats.MIN_CLUSTERS

    def document_of_rows(self) -> list[str]:
        """(n,) document of each row."""
        return [self.documents[index] for index in self._document]

    # ------------------------------------------------------------------ under each resample

    def document_means(self, values: npt.ArrayLike) -> FloatArray:
        """(resamples, documents) mean of the rows of each document over the drawn runs."""
        return self._group_means(values, self._document, len(self.documents), self.run_counts)

    def means(self, values: npt.ArrayLike) -> FloatArray:
        """(resamples,) mean over documents, each counted as often as it was drawn."""
        return self._over_documents(self.document_means(values))

    def iqms(self, values: npt.ArrayLike) -> FloatArray:
        """(resamples,) interquartile mean over episodes, runs averaged first."""
        found = []
        for start in range(0, len(self.run_counts), _CHUNK):
            part = slice(start, start + _CHUNK)
            of_episodes = self._group_means(
                values, self._episode, len(self._document_of_episode), self.run_counts[part]
            )
            counts = self.document_counts[part][:, self._document_of_episode]
            found.append(_weighted_iqms(of_episodes, counts))
        return np.concatenate(found)

    def improvements(self, differences: npt.ArrayLike) -> FloatArray:
        """(resamples,) share of drawn documents in which the difference is above 0, ties half."""
        means = self.document_means(differences)
        return self._over_documents((means > 0) + 0.5 * (means == 0))

    def _over_documents(self, means: FloatArray) -> FloatArray:
        total: FloatArray = (self.document_counts * means).sum(axis=1) / len(self.documents)
        return total

    def _group_means(
        self,
        values: npt.ArrayLike,
        groups: npt.NDArray[np.int64],
        num_groups: int,
        run_counts: FloatArray,
    ) -> FloatArray:
        rows = np.asarray(values, dtype=np.float64)
        if rows.shape != groups.shape or not np.isfinite(rows).all():
            raise ValueError(f"Values are needed for {groups.size} rows, all of them finite.")
        sums = np.zeros((self._num_runs, num_groups))
        counts = np.zeros((self._num_runs, num_groups))
        np.add.at(sums, (self._run, groups), rows)
        np.add.at(counts, (self._run, groups), 1.0)
        means: FloatArray = (run_counts @ sums) / (run_counts @ counts)
        return means

    # ------------------------------------------------------------------ with their interval

    def mean(self, values: npt.ArrayLike) -> Estimate:
        """Mean over documents, each counted once, runs and episodes averaged within."""
        estimate = float(self._as_it_is(values, self._document).mean())
        return self.estimate(estimate, lambda: self.means(values))

    def iqm(self, values: npt.ArrayLike) -> Estimate:
        """Interquartile mean over episodes, runs averaged first (`stats.iqm`)."""
        estimate = stats.iqm(self._as_it_is(values, self._episode))
        return self.estimate(estimate, lambda: self.iqms(values))

    def improvement(self, differences: npt.ArrayLike) -> Estimate:
        """Probability of improvement: share of documents in which the policy is better."""
        by_document = self._as_it_is(differences, self._document)
        estimate = stats.probability_of_improvement(by_document)
        return self.estimate(estimate, lambda: self.improvements(differences))

    def normalized(
        self, values: npt.ArrayLike, floor: npt.ArrayLike, bound: npt.ArrayLike
    ) -> Estimate | None:
        """Place between floor (0) and bound (1); None where their gap is too small to tell.

        In some resample the gap may be too small where it is not in all records: then there is a
        score without an interval.
        """
        own, low, high = (
            float(self._as_it_is(rows, self._document).mean()) for rows in (values, floor, bound)
        )
        score = stats.normalized_score(own, low, high)
        if np.isnan(score):
            return None

        def scores() -> FloatArray:
            own, low, high = (self.means(rows) for rows in (values, floor, bound))
            gaps = np.where(high - low >= stats.MIN_GAP, high - low, np.nan)
            placed: FloatArray = (own - low) / gaps
            return placed

        return self.estimate(score, scores)

    def estimate(self, estimate: float, replicates: Callable[[], FloatArray]) -> Estimate:
        """The number with the percentiles of its replicates, where there are documents enough."""
        interval = None
        if self.has_enough:
            drawn = replicates()
            if np.isfinite(drawn).all():
                low, high = np.quantile(drawn, [(1 - LEVEL) / 2, (1 + LEVEL) / 2]).tolist()
                interval = Interval(low, high, LEVEL, len(self.documents), METHOD)
        return Estimate(estimate, interval, len(self.documents), self.num_seeds)

    def _as_it_is(self, values: npt.ArrayLike, groups: npt.NDArray[np.int64]) -> FloatArray:
        """(groups,) mean of the rows of each, every run counted once."""
        rows = np.asarray(values, dtype=np.float64)
        means: FloatArray = np.bincount(groups, rows) / np.bincount(groups)
        return means


def scored_rows(entry: Entry) -> list[int]:
    """Rows of an entry's records that ask anything that pays."""
    return [row for row, record in enumerate(entry.records) if record.num_scored]


def _weighted_iqms(values: FloatArray, counts: npt.NDArray[np.int64]) -> FloatArray:
    """Interquartile mean of each row, whose values count as often as `counts` says.

    Args:
        values: (B, n). counts: (B, n) int, not all 0 in a row.

    Returns:
        (B,) what `stats.iqm` gives of a row with its values repeated.
    """
    order = np.argsort(values, axis=1)
    ranked = np.take_along_axis(values, order, axis=1)
    repeats = np.take_along_axis(counts, order, axis=1)
    after = np.cumsum(repeats, axis=1)
    total = after[:, -1:]
    cut = total // 4
    kept = np.minimum(after, total - cut) - np.maximum(after - repeats, cut)
    kept = np.maximum(kept, 0)
    means: FloatArray = (kept * ranked).sum(axis=1) / kept.sum(axis=1)
    return means
