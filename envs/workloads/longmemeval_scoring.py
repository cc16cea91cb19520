"""LongMemEval's official scores of retrieval, on turns and on sessions.

Written from the benchmark's evaluation (Wu et al., arXiv 2410.10813, section 5, and
`src/retrieval/eval_utils.py` and `run_retrieval.py` of `xiaowu0162/LongMemEval`). Each function
scores one question; the benchmark's number is the mean over questions that are no abstentions.
Answers are judged by a language model upstream; there is no official measure of their text.

Upstream indexes what the user says and nothing else (`official_retrieval`). It leaves questions
without evidence there (those about what the assistant said) in the means, with a recall-any of 0
and a recall-all of 1; here they are undefined. An index of sessions is scored by `turn_scores`,
with the numbers of sessions for those of turns.
"""

from __future__ import annotations

import math
from collections.abc import Collection, Sequence
from dataclasses import dataclass

from envs.workloads.longmemeval_records import ROLES
from memrl.documents import Document

KS = (1, 3, 5, 10, 30, 50)
"""Values of k that upstream reports."""


@dataclass(frozen=True, slots=True)
class RetrievalScores:
    """Each in [0, 1].

    Attributes:
        recall_any, recall_all: 1 if the first k hold any, or all, of the evidence.
        ndcg: discounted gain of the first k over that of the best order. Upstream discounts the
            second place by log2(2), that is not at all, the third by log2(3), and so on.
    """

    recall_any: float
    recall_all: float
    ndcg: float


def official_retrieval(document: Document, ranking: Sequence[int]) -> dict[str, float | None]:
    """Score a ranking for the question of a history as upstream does: what the user says, by k.

    Args:
        document: a history with its question.
        ranking: its pages, best first, each once; the assistant's are passed over.

    Returns:
        `turn_` and `session_` scores of `RetrievalScores` by name and k, such as
        `turn_recall_all@5`; None for abstentions and where the user tells nothing of the evidence.
    """
    (query,) = document.queries
    told = {page for page, own in enumerate(document.pages) if own.role == ROLES.index("user")}
    ranked = [page for page in ranking if page in told]
    needs = told.intersection(query.needs) if query.pays_evidence else set()
    sessions = [page.session for page in document.pages]
    scores: dict[str, float | None] = {}
    for k in KS:
        for unit, own in (
            ("turn", turn_scores(ranked, needs, k)),
            ("session", session_scores(ranked, needs, sessions, k)),
        ):
            for name in ("recall_any", "recall_all", "ndcg"):
                scores[f"{unit}_{name}@{k}"] = None if own is None else getattr(own, name)
    return scores


def turn_scores(ranking: Sequence[int], needs: Collection[int], k: int) -> RetrievalScores | None:
    """Score a ranking of turns.

    Args:
        ranking: pages, best first, each once. needs: the evidence. k: at least 1.

    Returns:
        The scores, or None without evidence.
    """
    right = set(needs)
    hits = [page in right for page in ranking[:k]]
    return _scores(hits, num_found=sum(hits), num_right=len(right), best_hits=min(len(right), k))


def session_scores(
    ranking: Sequence[int], needs: Collection[int], sessions: Sequence[int], k: int
) -> RetrievalScores | None:
    """Score a ranking of turns by the sessions that they belong to.

    As upstream, turns are read until k different sessions are there, where the turns of a session
    that are evidence count as one session and its other turns as another one. A session is found by
    a turn of it that is evidence, and every such turn that is read counts in the discounted gain.

    Args:
        ranking, needs: see `turn_scores`. sessions: session of every page.

    Returns:
        The scores, or None without evidence.
    """
    right = set(needs)
    read: set[tuple[int, bool]] = set()
    hits: list[bool] = []
    for page in ranking:
        if len(read) == k:
            break
        hits.append(page in right)
        read.add((sessions[page], hits[-1]))
    is_cut = len(read) == k
    return _scores(
        hits,
        num_found=sum(is_right for _, is_right in read),
        num_right=len({sessions[page] for page in right}),
        best_hits=min(len(right), len(hits)) if is_cut else len(right),
    )


def _scores(
    hits: Sequence[bool], *, num_found: int, num_right: int, best_hits: int
) -> RetrievalScores | None:
    """Scores of the places that were read.

    Args:
        hits: whether each place holds evidence.
        num_found, num_right: turns or sessions that were found, and that there are.
        best_hits: places that hold evidence in the best order.
    """
    if not num_right:
        return None
    return RetrievalScores(
        recall_any=float(num_found > 0),
        recall_all=float(num_found == num_right),
        ndcg=_gain(hits) / _gain([True] * best_hits),
    )


def _gain(hits: Sequence[bool]) -> float:
    return sum(hit / max(1.0, math.log2(place)) for place, hit in enumerate(hits, start=1) if hit)
