"""Scores of a set of given things against the set of right ones: supports, triples, rankings.

Written once, in counts, for what is in main context at an answer (`memrl.evaluation.play`) and for
the official measures of the data sets (`envs.workloads.answer_scoring`).
"""

from __future__ import annotations

from collections.abc import Collection, Hashable, Sequence
from dataclasses import dataclass


@dataclass(frozen=True, slots=True)
class SetScores:
    """Each in [0, 1].

    Attributes:
        precision: share of the given ones that are right; 0 where none is given.
        recall: share of the right ones that are given; 0 where there is none.
        em: 1 if exactly the right ones are given, else 0.
    """

    precision: float
    recall: float
    em: float

    @property
    def f1(self) -> float:
        """Harmonic mean of precision and recall."""
        both = self.precision + self.recall
        return 2 * self.precision * self.recall / both if both else 0.0


def scores_of_counts(num_found: int, num_given: int, num_right: int) -> SetScores:
    """Score `num_given` things, of which `num_found` are among the `num_right` ones."""
    return SetScores(
        precision=num_found / num_given if num_given else 0.0,
        recall=num_found / num_right if num_right else 0.0,
        em=float(num_found == num_given == num_right),
    )


def set_scores(given: Collection[Hashable], right: Collection[Hashable]) -> SetScores:
    """Score given things against the right ones; repetitions count once."""
    given, right = set(given), set(right)
    return scores_of_counts(len(given & right), len(given), len(right))


def recall_at_k(ranking: Sequence[Hashable], right: Collection[Hashable], k: int) -> float:
    """Share of the right ones among the first k of a ranking without repetitions.

    Raises:
        ValueError: if nothing is right, so that no share is defined.
    """
    if not right:
        raise ValueError("recall@k needs at least one right thing; there is none.")
    return set_scores(ranking[:k], right).recall
