from __future__ import annotations

from dataclasses import replace

import numpy as np
import numpy.typing as npt
import pytest
from sklearn.metrics import roc_auc_score
from table_fixtures import made_up_document, small_table

from memrl.documents import Document, Episode, Query
from memrl.memory.embedders import HashingEmbedder
from memrl.policies.prior import (
    PENALTIES,
    PageScorer,
    fit_page_scorer,
    page_features,
    page_is_needed,
)
from memrl.table import EpisodeTable
from memrl.table_build import build_table, fit_lexical_statistics


def document_table(documents: list[Document]) -> EpisodeTable:
    episodes = [Episode(i, 0, len(doc.pages)) for i, doc in enumerate(documents)]
    statistics = fit_lexical_statistics(documents)
    return build_table(documents, episodes, HashingEmbedder(16), statistics, name="made up")


def separable_table(seed: int, num_documents: int = 6, num_pages: int = 40) -> EpisodeTable:
    """Needed are the pages whose embedding points one way; noise blurs it a little."""
    rng = np.random.default_rng(seed)
    documents = []
    for number in range(num_documents):
        document = made_up_document(rng, f"doc{number}", num_pages)
        needed = np.flatnonzero(rng.random(num_pages) < 0.3).tolist()
        queries = tuple(Query(f"what about {need}?", (need,)) for need in needed)
        documents.append(replace(document, queries=queries))
    table = document_table(documents)
    direction = np.zeros(16)
    direction[3] = 1.0
    embedding = rng.normal(0, 0.15, table.page_embedding.shape)
    embedding += 0.5 * page_is_needed(table)[:, None] * direction
    return replace(table, page_embedding=embedding.astype(np.float16))


def auc(needed: npt.NDArray[np.bool_], logits: npt.NDArray[np.float32]) -> float:
    return float(roc_auc_score(needed, logits))


def test_needed_are_the_pages_of_queries_that_pay() -> None:
    rng = np.random.default_rng(0)
    documents = [made_up_document(rng, f"doc{i}", 6) for i in range(2)]
    first = replace(
        documents[0],
        queries=(Query("a?", (1, 4)), Query("b?", (2,), answerable=False), Query("c?", ())),
    )
    second = replace(documents[1], queries=(Query("d?", (0,)), Query("e?", (0, 5))))
    needed = page_is_needed(document_table([first, second]))
    assert needed.dtype == bool
    assert np.flatnonzero(needed).tolist() == [1, 4, 6 + 0, 6 + 5]


def test_features_are_the_embedding_and_the_surface() -> None:
    table = small_table(0)
    features = page_features(table)
    assert features.dtype == np.float64
    assert np.array_equal(features[:, :16], table.page_embedding.astype(np.float64))
    assert np.array_equal(features[:, 16:], table.page_surface.astype(np.float64))


def test_a_scorer_is_linear() -> None:
    table = small_table(0)
    weight = np.zeros(page_features(table).shape[1])
    weight[2], weight[-1] = 3.0, -0.5
    logits = PageScorer(weight, bias=0.25, penalty=0.1).logits(table)
    expected = 3.0 * table.page_embedding[:, 2] - 0.5 * table.page_surface[:, -1] + 0.25
    assert logits.dtype == np.float32
    assert logits == pytest.approx(expected.astype(np.float64), abs=1e-3)


def test_what_can_be_told_from_a_page_is_learned() -> None:
    table = separable_table(0)
    scorer, out_of_fold = fit_page_scorer(table)
    needed = page_is_needed(table)
    assert out_of_fold.shape == needed.shape
    assert out_of_fold.dtype == np.float32
    assert auc(needed, out_of_fold) > 0.9
    unseen = separable_table(99)
    assert auc(page_is_needed(unseen), scorer.logits(unseen)) > 0.9
    assert scorer.penalty in PENALTIES
    # Logits are calibrated: on average as many pages are expected as are needed.
    assert float((1 / (1 + np.exp(-out_of_fold))).mean()) == pytest.approx(needed.mean(), abs=0.03)


def test_what_cannot_be_told_from_a_page_is_not() -> None:
    """Embeddings that say nothing: out of fold they look like nothing, in fold like much."""
    rng = np.random.default_rng(1)
    table = separable_table(2, num_documents=5, num_pages=20)
    noise = rng.normal(0, 0.3, (len(table.page_tokens), 64)).astype(np.float16)
    table = replace(table, page_embedding=noise)
    scorer, out_of_fold = fit_page_scorer(table)
    needed = page_is_needed(table)
    assert auc(needed, out_of_fold) < 0.6
    assert auc(needed, scorer.logits(table)) > 0.75


def test_a_page_is_scored_by_a_fit_that_has_not_seen_its_document() -> None:
    """Other needs in the second document change every score but its own."""
    table = separable_table(3, num_documents=4, num_pages=20)
    own = slice(int(table.page_offset[1]), int(table.page_offset[2]))
    pays = table.query_pays.copy()
    begin, end = int(table.query_offset[1]), int(table.query_offset[2])
    pays[begin + 1 : end] = False
    changed = replace(table, query_pays=pays)
    assert page_is_needed(changed)[own].sum() < page_is_needed(table)[own].sum()
    scorer, before = fit_page_scorer(table)
    changed_scorer, after = fit_page_scorer(changed)
    same_penalty = scorer.penalty == changed_scorer.penalty
    assert same_penalty  # otherwise the next line would compare different fits
    assert np.array_equal(before[own], after[own])
    others = np.ones(len(before), dtype=bool)
    others[own] = False
    assert not np.isclose(before[others], after[others]).any()


def assert_nothing_is_fitted(table: EpisodeTable) -> None:
    assert 0 < page_is_needed(table).sum() < len(table.page_tokens)
    scorer, out_of_fold = fit_page_scorer(table)
    assert not out_of_fold.any()
    assert not scorer.logits(separable_table(5)).any()


def test_nothing_is_fitted_where_documents_share_their_pages() -> None:
    """What training questions needed must not be told of the same pages in test."""
    corpus = made_up_document(np.random.default_rng(4), "corpus", 12)
    documents = [replace(corpus, queries=(Query(f"q{n}?", (n,)),)) for n in range(6)]
    assert_nothing_is_fitted(document_table(documents))


def test_nothing_is_fitted_where_there_is_nothing_to_store() -> None:
    table = separable_table(0)
    assert_nothing_is_fitted(replace(table, episode_num_preloaded=table.episode_num_pages))
    # One page that arrives is enough.
    preloaded = table.episode_num_pages.copy()
    preloaded[0] -= 1
    assert fit_page_scorer(replace(table, episode_num_preloaded=preloaded))[1].any()


def test_scores_in_fold_and_out_of_fold_differ() -> None:
    table = separable_table(0)
    scorer, out_of_fold = fit_page_scorer(table)
    in_fold = scorer.logits(table)
    needed = page_is_needed(table)
    assert not np.isclose(in_fold, out_of_fold).any()
    gap = np.where(needed, in_fold - out_of_fold, out_of_fold - in_fold).mean()
    assert gap > 0  # a fit is surer of what it has seen


@pytest.mark.usefixtures("poison_global_rng")
def test_the_fit_is_deterministic() -> None:
    table = separable_table(4, num_documents=3, num_pages=15)
    first, second = fit_page_scorer(table), fit_page_scorer(table)
    assert np.array_equal(first[0].weight, second[0].weight)
    assert np.array_equal(first[1], second[1])


def test_the_scale_of_the_embedding_does_not_matter() -> None:
    """Features are brought to one scale before they are regularised."""
    table = separable_table(5, num_documents=3, num_pages=20)
    table = replace(table, page_surface=table.page_surface * 0)
    larger = replace(table, page_embedding=table.page_embedding * np.float16(4))
    assert fit_page_scorer(larger)[1] == pytest.approx(fit_page_scorer(table)[1], abs=1e-3)


def test_one_document_is_too_few() -> None:
    with pytest.raises(ValueError, match="at least two training documents"):
        fit_page_scorer(separable_table(0, num_documents=1))


@pytest.mark.parametrize("everything", [True, False])
def test_pages_of_both_kinds_are_needed(everything: bool) -> None:
    rng = np.random.default_rng(0)
    documents = []
    for number in range(3):
        document = made_up_document(rng, f"doc{number}", 5)
        needs = range(5) if everything else ()
        queries = tuple(Query(f"what about {need}?", (need,)) for need in needs)
        documents.append(replace(document, queries=queries))
    with pytest.raises(ValueError, match="pages that queries need"):
        fit_page_scorer(document_table(documents))


def test_pages_of_both_kinds_are_needed_in_every_fold() -> None:
    rng = np.random.default_rng(0)
    documents = []
    for number in range(3):
        document = made_up_document(rng, f"doc{number}", 5)
        queries = (Query("what?", (2,)),) if number == 0 else ()
        documents.append(replace(document, queries=queries))
    with pytest.raises(ValueError, match="every fold"):
        fit_page_scorer(document_table(documents))


def test_another_embedding_size_is_refused() -> None:
    table = separable_table(0, num_documents=2, num_pages=20)
    scorer, _ = fit_page_scorer(table)
    other = replace(table, page_embedding=table.page_embedding[:, :8])
    with pytest.raises(ValueError, match=r"fitted on 23 features, the table has 15.*embedding"):
        scorer.logits(other)
