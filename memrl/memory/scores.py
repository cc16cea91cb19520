"""The one scale on which dense and lexical scores are stored and compared."""

from __future__ import annotations

import numpy as np
import numpy.typing as npt

SCORE_SCALE = 32767
"""Quantised value of a score of 1: the largest int16, so that -1 and 1 are both exact."""


def quantize_scores(scores: npt.NDArray[np.floating]) -> npt.NDArray[np.int16]:
    """Quantise scores in [-1, 1] to round(score * SCORE_SCALE), halves to even.

    Integers compare alike on every device, so a ranking made from them is the same everywhere.
    A score that rounding errors carried just outside [-1, 1] (a cosine of 1.0000001) is clipped.

    Args:
        scores: any shape, floating point.

    Returns:
        The same shape, int16.

    Raises:
        ValueError: if a score is NaN or infinite.
    """
    if not np.isfinite(scores).all():
        raise ValueError(
            "Scores to quantise hold NaN or infinity: check the vectors they came from."
        )
    scaled: npt.NDArray[np.int16] = np.rint(np.clip(scores, -1.0, 1.0) * SCORE_SCALE).astype(
        np.int16
    )
    return scaled


def exact_scores(
    vectors: npt.NDArray[np.floating], query: npt.NDArray[np.floating]
) -> npt.NDArray[np.float32]:
    """Products of n vectors with a query, rounded once.

    A matrix product in float32 has other last digits on every machine, and one of some hundred
    scores is then quantised to the next number; tables and live searches both take these.

    Args:
        vectors: (n, dimension), in float32 precision. query: (dimension,), the same.

    Returns:
        (n,) float32; equal vectors get equal scores. A product of two float32 is exact in float64.
    """
    products = vectors.astype(np.float64) * query.astype(np.float64)
    scores: npt.NDArray[np.float32] = products.sum(axis=1).astype(np.float32)
    return scores


def exact_pair_scores(vectors: npt.NDArray[np.float32]) -> npt.NDArray[np.float32]:
    """`exact_scores` of n vectors with each of them, (n, n); each pair is multiplied once."""
    wide = vectors.astype(np.float64)
    scores = np.empty((len(wide), len(wide)), dtype=np.float32)
    for row, vector in enumerate(wide):
        scores[row, row:] = exact_scores(wide[row:], vector)
        scores[row:, row] = scores[row, row:]
    return scores
