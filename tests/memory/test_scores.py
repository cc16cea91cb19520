from __future__ import annotations

import numpy as np
import pytest

from memrl.memory.scores import (
    SCORE_SCALE,
    exact_pair_scores,
    exact_scores,
    quantize_scores,
)


def test_ends_and_middle() -> None:
    scores = np.array([[-1.0, 0.0, 1.0], [0.5, 1.0000001, -1.5]], dtype=np.float32)
    quantised = quantize_scores(scores)
    assert quantised.dtype == np.int16
    # .5 * 32767 = 16383.5, a half, goes to the even neighbour.
    assert quantised.tolist() == [[-32767, 0, 32767], [16384, 32767, -32767]]


def test_order_is_kept_and_the_error_is_half_a_step() -> None:
    scores = np.sort(np.random.default_rng(0).uniform(-1, 1, 2000)).astype(np.float32)
    quantised = quantize_scores(scores)
    assert (np.diff(quantised.astype(int)) >= 0).all()
    # The product is rounded to float32, whose step near 32767 is .002.
    assert np.abs(quantised / SCORE_SCALE - scores).max() <= 0.503 / SCORE_SCALE


@pytest.mark.parametrize("bad", [np.nan, np.inf, -np.inf])
def test_what_is_no_score_is_refused(bad: float) -> None:
    with pytest.raises(ValueError, match="NaN or infinity"):
        quantize_scores(np.array([0.1, bad]))


def test_scores_of_all_pairs_are_those_of_each_one_bit_for_bit() -> None:
    vectors = np.random.default_rng(1).normal(size=(40, 33)).astype(np.float32)
    expected = np.stack([exact_scores(vectors, vector) for vector in vectors])
    assert np.array_equal(exact_pair_scores(vectors), expected)
    assert exact_pair_scores(vectors[:0]).shape == (0, 0)
