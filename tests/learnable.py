"""A made-up workload that can be learned: what will be asked for can be told by its digits."""

from __future__ import annotations

import numpy as np

from memrl.documents import Document, Episode, Page, PageKind, Query
from memrl.memory.embedders import HashingEmbedder
from memrl.options import PagingOptions
from memrl.table import EpisodeTable
from memrl.table_build import build_table, fit_lexical_statistics

OPTIONS = PagingOptions(
    capacity=3, num_candidates=3, archival_capacity=4, staging="hybrid", operation_budget=4
)
NUM_PAGES = 12


def learnable_table(num_episodes: int = 8) -> EpisodeTable:
    """Each document has four pages with digits, and at its end asks for three of them by words.

    FIFO has at most the last three pages then; storing all overflows an archive of four.
    """
    rng = np.random.default_rng(0)
    documents, episodes = [], []
    for number in range(num_episodes):
        asked_for = sorted(rng.choice(NUM_PAGES - 3, size=4, replace=False).tolist())
        pages = tuple(
            Page(
                text=f"word{number}x{page} " + ("2024 1987" if page in asked_for else "well then"),
                speaker="Ann",
                role=0,
                kind=PageKind.TEXT,
                session=0,
                timestamp="day 0",
                source_id=f"{number}-{page}",
            )
            for page in range(NUM_PAGES)
        )
        queries = tuple(
            Query(
                text=f"word{number}x{page}?",
                needs=(page,),
                category="one",
                answers=("yes",),
                answerable=True,
                source_id=f"{number}-q{page}",
            )
            for page in asked_for[:3]
        )
        documents.append(Document(f"doc{number}", pages, queries, ("Ann",)))
        asks = tuple((NUM_PAGES, query) for query in range(3))
        episodes.append(Episode(number, 0, NUM_PAGES, asks))
    return build_table(
        documents,
        episodes,
        HashingEmbedder(16),
        fit_lexical_statistics(documents),
        name="learnable",
    )
