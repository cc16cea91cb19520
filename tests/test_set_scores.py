from __future__ import annotations

import pytest

from memrl.set_scores import SetScores, recall_at_k, scores_of_counts, set_scores


def test_counts_worked_out_by_hand() -> None:
    scores = scores_of_counts(2, 3, 4)
    assert (scores.precision, scores.recall, scores.em) == (2 / 3, 0.5, 0.0)
    assert scores.f1 == pytest.approx(4 / 7)
    assert scores_of_counts(2, 2, 2) == SetScores(1.0, 1.0, 1.0)
    assert scores_of_counts(2, 2, 2).f1 == 1.0


def test_nothing_given_or_nothing_right() -> None:
    assert scores_of_counts(0, 0, 2) == SetScores(0.0, 0.0, 0.0)
    assert scores_of_counts(0, 2, 0) == SetScores(0.0, 0.0, 0.0)
    assert scores_of_counts(0, 0, 0) == SetScores(0.0, 0.0, 1.0), "as the official scripts count"
    assert scores_of_counts(0, 3, 2).f1 == 0.0


def test_sets_ignore_order_and_repetition() -> None:
    assert set_scores(["a", "b", "b"], ["b", "c", "a"]) == scores_of_counts(2, 2, 3)
    assert set_scores([("t", 0), ("t", 1)], [("t", 1), ("t", 0)]).em == 1.0


def test_recall_at_k() -> None:
    ranking = [5, 3, 8, 1]
    assert [recall_at_k(ranking, {1, 3}, k) for k in (0, 1, 2, 3, 4, 9)] == [0, 0, 0.5, 0.5, 1, 1]
    with pytest.raises(ValueError, match="at least one right thing"):
        recall_at_k(ranking, [], 2)
