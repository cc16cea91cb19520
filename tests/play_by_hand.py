"""An episode played by the names of operations, for cases worked out by hand."""

from __future__ import annotations

from dataclasses import replace
from typing import Any

import numpy as np
from table_fixtures import REWARD, table_of, with_scores

from envs.lockstep import LockstepPaging
from envs.process import PagingProcess
from memrl.actions import Op
from memrl.documents import Query
from memrl.episode_log import REWARD_TERMS
from memrl.options import PagingOptions
from memrl.table import EpisodeTable

TEXTS = ["apple one", "pear two", "plum three", "fig four", "lime five", "kiwi six"]
FIRST = Query("what about the apple?", (0,), category="plain")


class Play:
    """One episode, driven by the names of operations."""

    def __init__(self, table: EpisodeTable, **fields: Any) -> None:
        defaults: dict[str, Any] = {"reward": REWARD, "staging": "dense", "capacity": 3}
        self.play = LockstepPaging(table, PagingOptions(**(defaults | fields)), 1)
        self.play.reset([0])
        self.terminated = False

    @property
    def process(self) -> PagingProcess:
        return self.play.process(0)

    @property
    def queue(self) -> list[int]:
        return self.process.core.queue

    @property
    def legal(self) -> set[tuple[Op, int]]:
        mask = self.play.observation()["action_mask"][0]
        return {self.play.layout.decode(action) for action in mask.nonzero().flatten().tolist()}

    def __call__(self, op: Op, argument: int = 0) -> dict[str, float]:
        """Play a legal operation; return the reward terms that are not 0."""
        assert (op, argument) in self.legal
        return self.act(self.play.layout.encode(op, argument))

    def act(self, action: int) -> dict[str, float]:
        result = self.play.step(np.array([action]))
        self.terminated = bool(result.terminated[0])
        terms = zip(REWARD_TERMS, result.reward_terms[0].tolist(), strict=True)
        return {name: value for name, value in terms if value}


def apples(*times: int, needs: tuple[int, ...] = (0,)) -> EpisodeTable:
    """Six pages, and the same question asked when so many pages have arrived; page 0 fits best."""
    queries = [(time, Query(FIRST.text, needs, category="plain")) for time in times]
    table = table_of(TEXTS, queries)
    for number in range(len(times)):
        table = with_scores(table, query=number, dense=[0.9, 0.5, 0.8, 0.3, 0.2, 0.1])
    return table


def chain_table() -> EpisodeTable:
    """Page 0 leads to page 1, and that to page 2, which is needed; the query ranks 0, 2, 1.

    With page 0 as the focus the ranking is 1, 2; with page 1 it is 2; with page 3 it is 2, 1, 0.
    """
    table = table_of(TEXTS, [(6, Query("what about the apple?", (2,), route=(0, 1)))])
    table = with_scores(table, query=0, dense=[0.9, 0.5, 0.8, 0.3, 0.2, 0.1])
    dense = table.dense.copy()
    for focus, scores in ((0, [9, 8, 7]), (1, [7, 9, 8]), (3, [7, 8, 9])):
        begin = int(table.page_score_base[0]) + focus * len(TEXTS)
        dense[begin : begin + 3] = np.array(scores) * 3000
    return replace(table, dense=dense)
