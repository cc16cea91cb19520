"""Question answering over documents: recall@k of every ranking, and support of every answer.

All pages are in archival before the only question of an episode. What is in main context at the
answer is then what a policy retrieved; its pages against the needs are scored as supports are
(`memrl.set_scores`). Recall@k asks what the first k pages of a ranking alone would hold.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from dataclasses import replace
from typing import Any

import numpy as np

from memrl.groups import PagingGroup
from memrl.memory.paging import EMPTY
from memrl.options import STAGINGS, PagingOptions
from memrl.set_scores import recall_at_k
from memrl.table import EpisodeTable

KS = (1, 2, 5, 10, 20)
"""Values of k."""
SUPPORT_COLUMNS = ("policy", "pages / q", "precision", "recall", "F1", "EM")


def ranking_recall(
    table: EpisodeTable,
    options: PagingOptions,
    make_group: Callable[[EpisodeTable, PagingOptions, int], PagingGroup],
) -> dict[str, dict[str, float]]:
    """Mean recall@k over the questions that pay evidence, by staging and k.

    Args:
        table: the episodes. options: resolved options; their `staging` is replaced.
        make_group: makes so many episodes of the table to be stepped together.

    Returns:
        staging -> k as text -> recall; k below the pages of the longest episode. Empty unless every
        episode is one question about pages that are all in archival and need no route.
    """
    is_preloaded = table.episode_num_preloaded == table.episode_num_pages
    asks_once = is_preloaded & (table.episode_num_events == 1)
    if not asks_once.all() or (table.query_route != EMPTY).any():
        return {}
    ks = [k for k in KS if k < table.max_pages]
    recalls: dict[str, dict[str, float]] = {}
    for staging in STAGINGS:
        group = make_group(table, replace(options, staging=staging), table.num_episodes)
        group.reset(range(table.num_episodes))
        truth = group.privileged_state()
        rows = [
            (ranking, [page for page in needs if page != EMPTY])
            for ranking, needs in zip(truth.ranking.tolist(), truth.needs.tolist(), strict=True)
        ]
        rows = [(ranking, needs) for ranking, needs in rows if needs]
        recalls[staging] = {
            str(k): float(np.mean([recall_at_k(ranking, needs, k) for ranking, needs in rows]))
            for k in ks
        }
    return recalls


def recall_table(recalls: Mapping[str, Mapping[str, float]]) -> tuple[list[str], list[list[str]]]:
    """Columns and rows of text of what `ranking_recall` gives."""
    ks = list(next(iter(recalls.values()), {}))
    rows = [
        [staging.replace("_", " + "), *(f"{values[k]:.3f}" for k in ks)]
        for staging, values in recalls.items()
    ]
    return ["ranking", *(f"recall@{k}" for k in ks)], rows


def support_table(policies: Sequence[Mapping[str, Any]]) -> tuple[list[str], list[list[str]]]:
    """Columns and rows of text: `policies` of the results, by their pages at the answers."""
    rows = []
    for policy in policies:
        support = policy["support_per_question"]
        recall = policy["evidence_recall"]["estimate"]
        numbers = [support["precision"], recall, support["f1"], support["em"]]
        rows.append(
            [policy["name"], f"{support['pages']:.1f}", *(f"{number:.3f}" for number in numbers)]
        )
    return list(SUPPORT_COLUMNS), rows
