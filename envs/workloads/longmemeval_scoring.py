"""LongMemEval's official scores of retrieval, on turns and on sessions.

Written from the benchmark's evaluation (Wu et al., arXiv 2410.10813, section 5, and
`src/retrieval/eval_utils.py` of `xiaowu0162/LongMemEval`). Each function scores one question; the
benchmark's number is the mean over questions that are no abstentions and have evidence. Answers are
judged by a language model upstream; there is no official measure of their text.
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
    return _scores([page in needs for page in ranking[:k]], len(set(needs)))


def session_scores(
    ranking: Sequence[int], needs: Collection[int], sessions: Sequence[int], k: int
) -> RetrievalScores | None:
    """Score a ranking of turns by the sessions that they belong to.

    As upstream, turns are read until k different sessions are there, a session is right if it holds
    evidence, and every turn read counts in the discounted gain, whose best order has all turns of
    the right sessions first.

    Args:
        ranking, needs: see `turn_scores`. sessions: session of every page.

    Returns:
        The scores, or None without evidence.
    """
    right = {sessions[page] for page in needs}
    seen: set[int] = set()
    length = 0
    while length < len(ranking) and len(seen) < k:
        seen.add(sessions[ranking[length]])
        length += 1
    read = [sessions[page] in right for page in ranking[:length]]
    most_hits = sum(session in right for session in sessions)
    return _scores(read, len(right), most_hits, len(seen & right))


def _scores(
    hits: Sequence[bool],
    num_right: int,
    most_hits: int | None = None,
    num_found: int | None = None,
) -> RetrievalScores | None:
    """Scores of the places read.

    Args:
        hits: whether each place holds evidence. num_right: pieces of evidence that there are.
        most_hits: places that could hold evidence; None for `num_right`.
        num_found: pieces that were found; None for the hits.
    """
    if not num_right:
        return None
    found = sum(hits) if num_found is None else num_found
    best = min(num_right if most_hits is None else most_hits, len(hits))
    ideal = _gain([True] * best)
    return RetrievalScores(
        recall_any=float(found > 0),
        recall_all=float(found == num_right),
        ndcg=_gain(hits) / ideal if ideal else 0.0,
    )


def _gain(hits: Sequence[bool]) -> float:
    return sum(hit / max(1.0, math.log2(place)) for place, hit in enumerate(hits, start=1) if hit)
