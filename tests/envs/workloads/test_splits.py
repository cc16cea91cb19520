"""Documents that depend on each other are never on different sides."""

from __future__ import annotations

from dataclasses import replace

import numpy as np
import pytest
import table_fixtures  # noqa: F401 (loads the profile of hypothesis)
from hypothesis import given
from hypothesis import strategies as st

from envs.workloads.splits import (
    Split,
    clustered_by_evidence,
    clusters_of,
    split_documents,
    split_workload,
)
from memrl.documents import Document, Page, Query
from memrl.workload_config import SplitConfig


def documents(*clusters: str) -> list[Document]:
    return [
        Document(f"d{n}", (Page(f"page {n}"),), (Query("q?", (0,)),), cluster=cluster)
        for n, cluster in enumerate(clusters)
    ]


def test_a_document_is_its_own_cluster_unless_it_names_one() -> None:
    docs = documents("", "x", "", "x")
    assert [doc.cluster_id for doc in docs] == ["d0", "x", "d2", "x"]
    assert clusters_of(docs) == {"d0": [0], "x": [1, 3], "d2": [2]}


@given(
    names=st.lists(st.sampled_from("abcdefghij"), min_size=8, max_size=40),
    validation_frac=st.floats(0, 0.4),
    test_frac=st.floats(0, 0.4),
)
def test_no_cluster_is_divided(names: list[str], validation_frac: float, test_frac: float) -> None:
    docs = documents(*names)
    config = SplitConfig(validation_frac=validation_frac, test_frac=test_frac)
    if len(set(names)) < 6:
        return
    split = split_workload(docs, config)
    sides = [set(split.train), set(split.validation), set(split.test)]
    assert sorted(index for side in sides for index in side) == list(range(len(docs)))
    assert all(sides)
    for members in clusters_of(docs).values():
        assert sum(not side.isdisjoint(members) for side in sides) == 1


@pytest.mark.parametrize("kind", ["fractions", "leave_one_out"])
def test_documents_on_their_own_are_split_as_ever(kind: str) -> None:
    config = SplitConfig(kind=kind, fold=3)  # type: ignore[arg-type]
    assert split_workload(documents(*[""] * 9), config) == split_documents(9, config)


def test_a_fold_is_a_cluster() -> None:
    docs = documents("a", "b", "a", "c", "b")
    config = SplitConfig(kind="leave_one_out", fold=1)
    assert split_workload(docs, config) == Split((0, 2), (3,), (1, 4))
    with pytest.raises(ValueError, match=r"fold 3 is outside 0\.\.2"):
        split_workload(docs, replace(config, fold=3))


# ---------------------------------------------------------------------- the source's own split


def test_what_the_source_sets_aside_is_the_test_set() -> None:
    docs = [replace(doc, is_test=n % 3 == 0) for n, doc in enumerate(documents(*[""] * 20))]
    config = SplitConfig(kind="published", validation_frac=0.25)
    split = split_workload(docs, config)
    assert split.test == (0, 3, 6, 9, 12, 15, 18)
    assert len(split.validation) == round(0.25 * 13)
    assert sorted((*split.train, *split.validation)) == [n for n in range(20) if n % 3]
    assert split == split_workload(docs, replace(config, test_frac=0.9))
    assert list(split.validation) == sorted(split.validation)


def test_its_training_clusters_stay_together() -> None:
    docs = documents("t", "a", "b", "a", "c", "a", "b")
    docs[0] = replace(docs[0], is_test=True)
    split = split_workload(docs, SplitConfig(kind="published", validation_frac=0.3))
    assert split.test == (0,)
    assert set(split.validation) in ({1, 3, 5}, {2, 6}, {4})


@pytest.mark.parametrize(
    ("test", "clusters", "message"),
    [
        ([], ["", "", ""], r"sets aside for testing \(0 here\)"),
        ([0], ["", ""], r"at least two others \(1 here\)"),
        ([0], ["x", "x", "", ""], "depends on a document that is not set aside"),
    ],
)
def test_published_splits_that_cannot_be_made(
    test: list[int], clusters: list[str], message: str
) -> None:
    docs = [replace(doc, is_test=n in test) for n, doc in enumerate(documents(*clusters))]
    with pytest.raises(ValueError, match=message):
        split_workload(docs, SplitConfig(kind="published"))


def test_validation_must_leave_something() -> None:
    docs = documents("", "", "", "")
    docs[0] = replace(docs[0], is_test=True)
    with pytest.raises(ValueError, match=r"validation_frac 0\.9 leaves none of 3"):
        split_workload(docs, SplitConfig(kind="published", validation_frac=0.9))


# ---------------------------------------------------------------------- clusters by evidence


def needing(name: str, texts: list[str], *needs: int) -> Document:
    return Document(name, tuple(Page(text) for text in texts), (Query("q?", needs),))


def test_shared_evidence_makes_a_cluster_and_shared_distractors_do_not() -> None:
    docs = [
        needing("a", ["one", "two", "noise"], 0, 1),
        needing("b", ["noise", "three"], 1),
        needing("c", ["noise", "two", "four"], 1, 2),
        needing("d", ["noise"], 0),
        needing("e", ["four", "one"], 0),
        needing("f", ["five"]),
    ]
    clustered = clustered_by_evidence(docs)
    assert [doc.cluster_id for doc in clustered] == ["a", "b", "a", "d", "a", "f"]
    assert [replace(doc, cluster="") for doc in clustered] == docs
    assert all(one.pages is two.pages for one, two in zip(docs, clustered, strict=True))


def test_the_title_is_part_of_the_evidence() -> None:
    docs = [
        Document(name, (Page("same text", speaker=title),), (Query("q?", (0,)),))
        for name, title in (("a", "One"), ("b", "Two"), ("c", "One"))
    ]
    assert [doc.cluster_id for doc in clustered_by_evidence(docs)] == ["a", "b", "a"]


def test_without_evidence_nothing_depends() -> None:
    docs = [needing("a", ["one"]), needing("b", ["one"])]
    assert clustered_by_evidence(docs) == tuple(docs)


def test_clusters_are_those_of_a_search_by_hand() -> None:
    rng = np.random.default_rng(0)
    texts = [f"text {n}" for n in range(30)]
    docs = [
        needing(f"d{n}", texts, *sorted(rng.choice(30, 2, replace=False).tolist()))
        for n in range(18)
    ]
    parent = list(range(18))
    for one in range(18):
        for two in range(one):
            if set(docs[one].queries[0].needs) & set(docs[two].queries[0].needs):
                old, new = parent[one], parent[two]
                parent = [min(old, new) if p in (old, new) else p for p in parent]
    expected = [f"d{p}" for p in parent]
    assert [doc.cluster_id for doc in clustered_by_evidence(docs)] == expected
