"""The page scorer: how likely is a page, by itself, to be needed later?

A logistic regression on the page's embedding and surface features, fitted on the needs of the
training documents. Its logit is the feature `prior` that every policy may use, and the threshold of
the prior rule. Training documents get out-of-fold scores (each scored by a fit on the others), so
that a policy learns how far it may trust the scorer on documents that it never saw.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from typing import TYPE_CHECKING

import numpy as np
import numpy.typing as npt

from memrl.table import EpisodeTable

if TYPE_CHECKING:
    from sklearn.linear_model import LogisticRegression

PENALTIES = (0.001, 0.003, 0.01, 0.03, 0.1)
"""Values of the inverse regularisation strength C that are tried."""


@dataclass(frozen=True)
class PageScorer:
    """A fitted scorer; `weight` (dim + len(SURFACE),) float64 and `bias` on raw features.

    Attributes:
        weight, bias: of the linear logit.
        penalty: the C it was fitted with; 0 where none was fitted.
    """

    weight: npt.NDArray[np.float64]
    bias: float
    penalty: float

    def logits(self, table: EpisodeTable) -> npt.NDArray[np.float32]:
        """Score every page of a table; (P,) float32."""
        return self.logits_of(table.page_embedding, table.page_surface)

    def logits_of(
        self, embedding: npt.NDArray[np.float16], surface: npt.NDArray[np.float32]
    ) -> npt.NDArray[np.float32]:
        """Score pages by their arrays, as a table holds them: (P, dim), (P, len(SURFACE))."""
        features = _features_of(embedding, surface)
        if features.shape[1] != len(self.weight):
            raise ValueError(
                f"The page scorer was fitted on {len(self.weight)} features, the table has "
                f"{features.shape[1]}; use the embedding model that it was fitted with."
            )
        return (features @ self.weight + self.bias).astype(np.float32)


def unfitted_scorer(table: EpisodeTable) -> PageScorer:
    """A scorer that knows nothing: 0 for every page of tables like this one."""
    return PageScorer(np.zeros(page_features(table).shape[1]), 0.0, 0.0)


def page_features(table: EpisodeTable) -> npt.NDArray[np.float64]:
    """(P, dim + len(SURFACE)) features of every page that do not depend on its document."""
    return _features_of(table.page_embedding, table.page_surface)


def _features_of(
    embedding: npt.NDArray[np.float16], surface: npt.NDArray[np.float32]
) -> npt.NDArray[np.float64]:
    return np.concatenate([embedding, surface], axis=1).astype(np.float64)


def page_is_needed(table: EpisodeTable) -> npt.NDArray[np.bool_]:
    """(P,) bool: some query that pays evidence needs the page."""
    needed = np.zeros(len(table.page_tokens), dtype=bool)
    for document in range(table.num_documents):
        queries = slice(int(table.query_offset[document]), int(table.query_offset[document + 1]))
        needs = table.query_needs[queries][table.query_pays[queries]]
        needed[table.page_offset[document] + needs[needs >= 0]] = True
    return needed


def fit_page_scorer(table: EpisodeTable) -> tuple[PageScorer, npt.NDArray[np.float32]]:
    """Fit on a training table.

    The penalty is the one whose out-of-fold scores have the least log loss.

    Where every page is in archival from the start, nothing is fitted and every logit is 0. There is
    nothing to store, and the same passage is often evidence for one question and a distractor for
    others, in training and in test: a scorer would tell what training questions needed.

    Returns:
        The scorer fitted on all documents, for others than these; and (P,) float32 out-of-fold
        logits of the table's own pages.

    Raises:
        ValueError: if there are fewer than two documents, or no page or every page is needed.
    """
    if table.num_documents < 2:
        raise ValueError("The page scorer needs at least two training documents.")
    if table.shares_pages or (table.episode_num_preloaded == table.episode_num_pages).all():
        num_features = table.page_embedding.shape[1] + table.page_surface.shape[1]
        return PageScorer(np.zeros(num_features), 0.0, 0.0), np.zeros_like(table.page_prior)
    features, needed = page_features(table), page_is_needed(table)
    if needed.all() or not needed.any():
        raise ValueError(
            "The page scorer needs both pages that queries need and pages they do not."
        )
    document = np.repeat(np.arange(table.num_documents), table.page_count)
    scale = features.std(axis=0).mean()  # one scale for all columns keeps their relative size
    folds = np.array_split(np.arange(table.num_documents), min(table.num_documents, 5))
    losses, scores = [], []
    for penalty in PENALTIES:
        held_out = _out_of_fold(features / scale, needed, document, folds, penalty)
        scores.append(held_out)
        losses.append(np.logaddexp(0.0, np.where(needed, -held_out, held_out)).mean())
    best = int(np.argmin(losses))
    model = _fit(features / scale, needed, PENALTIES[best])
    scorer = PageScorer(model.coef_[0] / scale, float(model.intercept_[0]), PENALTIES[best])
    return scorer, scores[best].astype(np.float32)


def _fit(
    features: npt.NDArray[np.float64], needed: npt.NDArray[np.bool_], penalty: float
) -> LogisticRegression:
    from sklearn.linear_model import LogisticRegression  # seconds to import, used once

    return LogisticRegression(C=penalty, max_iter=1000).fit(features, needed)


def _out_of_fold(
    features: npt.NDArray[np.float64],
    needed: npt.NDArray[np.bool_],
    document: npt.NDArray[np.int64],
    folds: Sequence[npt.NDArray[np.int64]],
    penalty: float,
) -> npt.NDArray[np.float64]:
    """(P,) logits of every page by a fit on the other folds' documents."""
    logits = np.zeros(len(features))
    for fold in folds:
        held_out = np.isin(document, fold)
        if needed[~held_out].all() or not needed[~held_out].any():
            raise ValueError(
                "The page scorer needs pages that queries need, and pages they do not, in every "
                "fold of the training documents."
            )
        model = _fit(features[~held_out], needed[~held_out], penalty)
        logits[held_out] = model.decision_function(features[held_out])
    return logits
