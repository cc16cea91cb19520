"""What happened in B episodes, as tensors: the batched process's form of `EpisodeLog`."""

from __future__ import annotations

import dataclasses
import math
from dataclasses import dataclass

import torch
from torch import Tensor

from envs.batched_rows import Rows
from memrl.actions import Op
from memrl.episode_log import AnsweredQuery, EpisodeLog


@dataclass(frozen=True)
class BatchLog:
    """What happened in B episodes; changed in place. (B,) int64 where nothing else is said.

    Attributes:
        operations: (B, len(Op)).
        illegal, tokens_retrieved, tokens_read, requests, hits: as in `EpisodeLog`.
        query, category: (B, Q) queries of the document in the order in which they were asked.
        evidence: (B, Q) float64, NaN where it is not defined.
        absent, stored, kept, staged, retrieved, used: (B, Q) numbers of needs: outside main context
            when the query was asked, and of those what `AnsweredQuery` has shares of.
        num_needs, num_resident: (B, Q) as in `AnsweredQuery`.
    """

    operations: Tensor
    illegal: Tensor
    tokens_retrieved: Tensor
    tokens_read: Tensor
    requests: Tensor
    hits: Tensor
    query: Tensor
    category: Tensor
    evidence: Tensor
    absent: Tensor
    stored: Tensor
    kept: Tensor
    staged: Tensor
    retrieved: Tensor
    used: Tensor
    num_needs: Tensor
    num_resident: Tensor

    @classmethod
    def empty(cls, batch: int, max_queries: int, device: torch.device) -> BatchLog:
        """Nothing has happened."""

        def zeros(*shape: int, dtype: torch.dtype = torch.int64) -> Tensor:
            return torch.zeros((batch, *shape), dtype=dtype, device=device)

        return cls(
            operations=zeros(len(Op)),
            illegal=zeros(),
            tokens_retrieved=zeros(),
            tokens_read=zeros(),
            requests=zeros(),
            hits=zeros(),
            query=zeros(max_queries),
            category=zeros(max_queries),
            evidence=zeros(max_queries, dtype=torch.float64),
            absent=zeros(max_queries),
            stored=zeros(max_queries),
            kept=zeros(max_queries),
            staged=zeros(max_queries),
            retrieved=zeros(max_queries),
            used=zeros(max_queries),
            num_needs=zeros(max_queries),
            num_resident=zeros(max_queries),
        )

    def clear(self, rows: Rows) -> None:
        """Forget the given rows."""
        for field in dataclasses.fields(self):
            rows.write(getattr(self, field.name), 0)

    def row_tensors(self) -> dict[str, tuple[Tensor, int]]:
        """Every tensor, by name, with the axis on which the rows lie."""
        return {field.name: (getattr(self, field.name), 0) for field in dataclasses.fields(self)}

    def of_row(self, row: int, num_answered: int) -> EpisodeLog:
        """The log of one row, whose first queries have been answered."""
        answers = []
        for place in range(num_answered):
            evidence = float(self.evidence[row, place])
            absent = int(self.absent[row, place])
            answers.append(
                AnsweredQuery(
                    query=int(self.query[row, place]),
                    category=int(self.category[row, place]),
                    evidence=None if math.isnan(evidence) else evidence,
                    absent=absent,
                    stored=int(self.stored[row, place]) / max(absent, 1),
                    kept=int(self.kept[row, place]) / max(absent, 1),
                    staged=int(self.staged[row, place]) / max(absent, 1),
                    retrieved=int(self.retrieved[row, place]) / max(absent, 1),
                    used=int(self.used[row, place]) / max(absent, 1),
                    num_needs=int(self.num_needs[row, place]),
                    num_resident=int(self.num_resident[row, place]),
                )
            )
        return EpisodeLog(
            operations={op: int(self.operations[row, op]) for op in Op},
            illegal=int(self.illegal[row]),
            answers=answers,
            tokens_retrieved=int(self.tokens_retrieved[row]),
            tokens_read=int(self.tokens_read[row]),
            requests=int(self.requests[row]),
            hits=int(self.hits[row]),
        )
