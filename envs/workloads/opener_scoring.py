"""Scores of a conversation opener: how close it is to what is known, and to what a human said.

Packer et al., *MemGPT*, arXiv 2310.08560v2, table 3, give the similarity ("CSIM") of an opener to
the persona lines (SIM-1, SIM-3) and to the human opener (SIM-H); neither the embedding model nor
what 1 and 3 stand for is stated. Read here as cosines of embeddings: SIM-1 to the closest persona
line, SIM-3 the mean over the three closest, SIM-H to the human opener. The table has no ROUGE-L,
and none is given here. Numbers are comparable only under one embedding model: human openers of the
conversations at hand have SIM-1 .586 and SIM-3 .503 with all-MiniLM-L6-v2 and the lines of both
speakers (docs/experiments.md), where the paper has .800 for both.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import asdict, dataclass
from functools import cached_property

import numpy as np

from envs.workloads.msc import NOTE
from memrl.documents import Document, Query
from memrl.memory.embedders import CachedEmbedder, Embedder, make_embedder


@dataclass(frozen=True, slots=True)
class OpenerScores:
    """Cosines in [-1, 1]; None where there is nothing to compare with.

    Attributes:
        sim_1: to the closest persona line.
        sim_3: mean over the three closest persona lines, or over all where there are fewer.
        sim_h: to the closest human opener.
    """

    sim_1: float | None
    sim_3: float | None
    sim_h: float | None


def score_opener(
    text: str, persona_lines: Sequence[str], human_openers: Sequence[str], embedder: Embedder
) -> OpenerScores:
    """Scores an opener.

    Args:
        text: the opener.
        persona_lines: what was noted of the turns that were told; see `persona_lines_of`.
        human_openers: `Query.answers` of the opener's query.
        embedder: gives the vectors that are compared.
    """
    vectors = embedder.embed([text, *persona_lines, *human_openers]).astype(np.float64)
    cosines = vectors[1:] @ vectors[0]
    to_lines, to_humans = cosines[: len(persona_lines)], cosines[len(persona_lines) :]
    closest = np.sort(to_lines)[::-1][:3]
    return OpenerScores(
        sim_1=float(closest[0]) if len(closest) else None,
        sim_3=float(closest.mean()) if len(closest) else None,
        sim_h=float(to_humans.max()) if len(to_humans) else None,
    )


def persona_lines_of(document: Document) -> tuple[str, ...]:
    """What was noted of the turns that are told: the texts of the queries that are notes."""
    return tuple(query.text for query in document.queries if query.category == NOTE)


class OpenerMeasures:
    """Scores answers to the question for an opener.

    Args:
        documents: conversations with their notes (`opener.load_openers`).
        embedder: name of the model that gives the vectors; loaded when the first text is scored.
    """

    def __init__(self, documents: Sequence[Document], embedder: str) -> None:
        self._embedder_name = embedder
        self._lines = {
            query.source_id: persona_lines_of(document)
            for document in documents
            for query in document.queries
        }

    @cached_property
    def _embedder(self) -> Embedder:
        return CachedEmbedder(make_embedder(self._embedder_name))

    def __call__(self, query: Query, prediction: str) -> dict[str, float | None]:
        """`OpenerScores` by name; of a prediction without text 0 wherever one is defined.

        Args:
            query: the question of one of the documents. prediction: the opener.
        """
        lines = self._lines[query.source_id]
        if prediction.strip():
            return asdict(score_opener(prediction, lines, query.answers, self._embedder))
        to_lines, to_human = (0.0 if texts else None for texts in (lines, query.answers))
        return asdict(OpenerScores(to_lines, to_lines, to_human))
