"""Which documents train, validate and test; those that depend on each other stay together.

What is divided is the `Document.cluster_id`: a conversation, a story, or the questions that share a
gold passage. Validation and test do not depend on the seed of training.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, replace

import numpy as np
from scipy import sparse

from memrl.documents import Document
from memrl.seeding import Streams
from memrl.workload_config import SplitConfig

DATA_SEED = 0
"""Seed of all data streams; training seeds change what is learned, never what is asked."""


@dataclass(frozen=True)
class Split:
    """Documents of each part, as indices into `Workload.documents`."""

    train: tuple[int, ...]
    validation: tuple[int, ...]
    test: tuple[int, ...]


def clusters_of(documents: Sequence[Document]) -> dict[str, list[int]]:
    """Indices of the documents of each cluster, clusters in the order of their first document."""
    clusters: dict[str, list[int]] = {}
    for index, document in enumerate(documents):
        clusters.setdefault(document.cluster_id, []).append(index)
    return clusters


def split_workload(documents: Sequence[Document], config: SplitConfig) -> Split:
    """Divide documents, whole units of them, into train, validation and test.

    Raises:
        ValueError: if a part would be empty, the fold does not exist, or the source sets nothing
            aside for testing where its own split is asked for.
    """
    units = list(clusters_of(documents).values())
    if config.kind == "published":
        return _published(documents, units, config)
    split = split_documents(len(units), config)

    def members(numbers: Sequence[int]) -> tuple[int, ...]:
        return tuple(sorted(index for number in numbers for index in units[number]))

    return Split(members(split.train), members(split.validation), members(split.test))


def _published(
    documents: Sequence[Document], units: Sequence[Sequence[int]], config: SplitConfig
) -> Split:
    is_test = [documents[unit[0]].is_test for unit in units]
    if any(
        documents[index].is_test != is_test[n] for n, unit in enumerate(units) for index in unit
    ):
        raise ValueError("A test document depends on a document that is not set aside for testing.")
    test = [index for unit, tests in zip(units, is_test, strict=True) if tests for index in unit]
    rest = [unit for unit, tests in zip(units, is_test, strict=True) if not tests]
    if not test or len(rest) < 2:
        raise ValueError(
            f"split.kind published needs documents that the source sets aside for testing "
            f"({len(test)} here) and at least two others ({len(rest)} here): use fractions."
        )
    num_validation = max(1, round(config.validation_frac * len(rest)))
    if num_validation >= len(rest):
        raise ValueError(
            f"validation_frac {config.validation_frac} leaves none of {len(rest)} documents for "
            "training."
        )
    order = _shuffled(len(rest))
    train, validation = order[num_validation:], order[:num_validation]
    return Split(
        tuple(sorted(index for number in train for index in rest[number])),
        tuple(sorted(index for number in validation for index in rest[number])),
        tuple(test),
    )


def split_documents(num_documents: int, config: SplitConfig) -> Split:
    """Divide documents, each a unit of its own, into train, validation and test.

    Raises:
        ValueError: if a part would be empty, or the fold does not exist.
    """
    if num_documents < 3:
        raise ValueError(
            f"A split needs at least 3 documents (train, validation, test); there are "
            f"{num_documents}."
        )
    if config.kind == "leave_one_out":
        if not 0 <= config.fold < num_documents:
            raise ValueError(f"fold {config.fold} is outside 0..{num_documents - 1}.")
        validation = (config.fold + 1) % num_documents
        rest = (i for i in range(num_documents) if i not in (config.fold, validation))
        return Split(tuple(rest), (validation,), (config.fold,))
    order = _shuffled(num_documents)
    num_validation = max(1, round(config.validation_frac * num_documents))
    num_test = max(1, round(config.test_frac * num_documents))
    if num_validation + num_test >= num_documents:
        raise ValueError(
            f"validation_frac {config.validation_frac} and test_frac {config.test_frac} leave none "
            f"of {num_documents} documents for training."
        )
    cut = num_documents - num_validation - num_test
    return Split(
        tuple(sorted(order[:cut])),
        tuple(sorted(order[cut : cut + num_validation])),
        tuple(sorted(order[cut + num_validation :])),
    )


def _shuffled(count: int) -> list[int]:
    order: list[int] = Streams(DATA_SEED).generator("workload", 1).permutation(count).tolist()
    return order


def clustered_by_evidence(documents: Sequence[Document]) -> tuple[Document, ...]:
    """Put documents whose queries need the same page text into one cluster, named by its first."""
    texts: dict[str, int] = {}
    pairs = [
        (number, texts.setdefault(document.pages[page].rendered, len(texts)))
        for number, document in enumerate(documents)
        for query in document.queries
        for page in query.needs
    ]
    if not pairs:
        return tuple(documents)
    rows, columns = np.array(pairs).T
    size = len(documents) + len(texts)
    graph = sparse.coo_matrix((np.ones(len(rows)), (rows, len(documents) + columns)), (size, size))
    labels = sparse.csgraph.connected_components(graph, directed=False)[1]
    first: dict[int, str] = {}
    return tuple(
        replace(document, cluster=first.setdefault(int(label), document.document_id))
        for document, label in zip(documents, labels, strict=False)
    )
