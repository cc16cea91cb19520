"""LongMemEval's official scores of retrieval, on turns and on sessions.

Written from the benchmark's evaluation (Wu et al., arXiv 2410.10813, section 5, and
`src/retrieval/eval_utils.py` and `run_retrieval.py` of `xiaowu0162/LongMemEval`). Each function
scores one question; the benchmark's number is the mean over questions that are no abstentions.
Answers are judged by a language model upstream; there is no official measure of their text.

Upstream indexes what the user says and nothing else: for its numbers, rankings, needs and sessions
are those of the user's turns. It leaves questions without evidence there (those about what the
assistant said) in the means, with a recall-any of 0 and a recall-all of 1; here they are undefined.
An index of sessions is scored by `turn_scores`, with the numbers of sessions for those of turns.
"""

from __future__ import annotations

import math
from collections.abc import Collection, Sequence
from dataclasses import dataclass


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
