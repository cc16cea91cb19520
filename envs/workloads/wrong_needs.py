"""Training documents whose labels are partly wrong: how much does learning depend on them?"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import replace

import numpy as np

from memrl.documents import Document, Query


def with_wrong_needs(
    documents: Sequence[Document], frac: float, rng: np.random.Generator
) -> list[Document]:
    """Replace some needs by other pages that precede the question.

    Args:
        documents: as a loader gives them.
        frac: probability that a need is replaced, by any page that the query does not need; where
            there is none it stays.
        rng: of the draws.

    Returns:
        Documents of the same pages and questions, each with as many needs as before.
    """
    return [
        replace(document, queries=tuple(_mistaken(document, frac, rng))) for document in documents
    ]


def _mistaken(document: Document, frac: float, rng: np.random.Generator) -> list[Query]:
    queries = []
    for query in document.queries:
        last = len(document.pages) if query.asked_after is None else query.asked_after
        needs = set(query.needs)
        for page in query.needs:
            others = [other for other in range(last) if other not in needs]
            if others and rng.random() < frac:
                needs.remove(page)
                needs.add(others[int(rng.integers(len(others)))])
        queries.append(replace(query, needs=tuple(sorted(needs))))
    return queries
