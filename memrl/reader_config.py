"""The group of a configuration for a model that answers from what others keep in main context."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Literal

from memrl.config_checks import at_least

Reference = Literal["no_memory", "full_context_newest", "full_context_oldest", "rag_top_k"]
Source = Literal["learned", "heuristic", "clairvoyant", "prompted"] | Reference
REFERENCES: tuple[Reference, ...] = (
    *("no_memory", "full_context_newest", "full_context_oldest", "rag_top_k"),
)


@dataclass(frozen=True)
class ReaderConfig:
    """What the model of the group `llm` reads, if anything; see docs/prompted.md.

    Attributes:
        reads: main context at each answer of "learned" and "heuristic" (of each the best one on
            validation), of "clairvoyant" and of every "prompted" row; and references without
            paging: "no_memory", "full_context_newest" and "full_context_oldest" (what fits of all
            that had been seen), "rag_top_k". Empty: nobody reads.
        budget_tokens: most tokens that are read for a question; None for the model's window.
        budgets: further budgets for the references that read: accuracy against budget.
        top_k: pages of "rag_top_k".
        max_reply_tokens: of an answer.
        judges: whether the same model also judges every answer.
    """

    reads: tuple[Source, ...] = ()
    budget_tokens: int | None = None
    budgets: tuple[int, ...] = ()
    top_k: int = 5
    max_reply_tokens: int = 48
    judges: bool = False

    def __post_init__(self) -> None:
        """Refuse what nothing could be read by."""
        at_least(self, 1, "top_k", "max_reply_tokens")
        if self.budget_tokens is not None:
            at_least(self, 1, "budget_tokens")
        for name in ("reads", "budgets"):
            values = getattr(self, name)
            if len(set(values)) < len(values):
                raise ValueError(f"{name} must be different ones, got {list(values)}.")
        if min(self.budgets, default=1) < 1:
            raise ValueError(f"budgets must be at least 1, got {list(self.budgets)}.")
        if self.budgets and not set(self.reads) & set(REFERENCES[1:]):
            raise ValueError(
                "budgets are for references that read: add some of "
                f"{', '.join(REFERENCES[1:])} to reads."
            )
