"""What is written down while an episode is played: reward terms, operations, answers."""

from __future__ import annotations

from dataclasses import dataclass, field

from memrl.actions import Op

REWARD_TERMS = (
    "evidence",
    "cost/store",
    "cost/evict",
    "cost/retrieve",
    "cost/search",
    "cost/next",
    "cost/tokens",
    "cost/illegal",
)
"""Names of the reward's terms, in the order of every array of reward terms."""

FUNNEL_STEPS = ("stored", "kept", "staged", "retrieved", "used")
"""How far a need came that was outside main context; see `AnsweredQuery`."""


@dataclass(frozen=True, slots=True)
class AnsweredQuery:
    """One query that has been answered.

    Attributes:
        query: index in the document. category: index into `table.text.categories`.
        evidence: share of its needs in main context, or None where evidence is not defined.
        absent: number of needs outside main context when the query was asked.
        stored, kept, staged, retrieved, used: shares of these that had been stored at some time,
            were still archived when it was asked, were shown as candidates, were brought in, were
            still there at the answer.
        num_needs: pages that it needs. num_resident: pages in main context when it was answered.
    """

    query: int
    category: int
    evidence: float | None
    absent: int
    stored: float
    kept: float
    staged: float
    retrieved: float
    used: float
    num_needs: int
    num_resident: int


@dataclass(slots=True)
class EpisodeLog:
    """What happened in an episode so far.

    Attributes:
        operations: legal operations that the policy chose, by kind (forced YIELDs are not counted).
        illegal: illegal actions. answers: one record a query.
        tokens_retrieved: tokens that RETRIEVE brought into main context.
        tokens_read: tokens in main context, summed over answered queries.
        requests: pages requested. hits: of these, pages that were in main context.
        contexts: for each answer the pages in main context, oldest first, for readers. The batched
            environment notes numbers alone and leaves it empty, so comparisons pass over it.
    """

    operations: dict[Op, int] = field(default_factory=lambda: dict.fromkeys(Op, 0))
    illegal: int = 0
    answers: list[AnsweredQuery] = field(default_factory=list)
    tokens_retrieved: int = 0
    tokens_read: int = 0
    requests: int = 0
    hits: int = 0
    contexts: list[tuple[int, ...]] = field(default_factory=list, compare=False)


@dataclass(frozen=True, slots=True)
class ContextTexts:
    """What main context of a live session showed when a query was answered.

    Attributes:
        pinned: blocks of the working context that say something, and the summary.
        pages: texts of the resident pages, oldest first.
    """

    pinned: tuple[str, ...]
    pages: tuple[str, ...]
