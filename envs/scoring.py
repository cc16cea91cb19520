"""What an episode earns: evidence paid, costs charged, answers written down.

The decision process (`envs.process`) and the live session (`envs.session`) both play on this, so
that one query answered alike is worth the same in both.
"""

from __future__ import annotations

from collections.abc import Callable, Collection, Mapping

import numpy as np
import numpy.typing as npt

from memrl.actions import Op
from memrl.episode_log import REWARD_TERMS, AnsweredQuery, EpisodeLog
from memrl.options import RewardWeights
from memrl.table import EpisodeTable

_TERM = {name: position for position, name in enumerate(REWARD_TERMS)}


class EpisodeScore:
    """Reward terms and log of one episode.

    Args:
        table: the workload. episode: number in the table.
        weights: of the reward terms.

    Attributes:
        log: what has happened so far.
    """

    def __init__(self, table: EpisodeTable, episode: int, weights: RewardWeights) -> None:
        self.log = EpisodeLog()
        self._table = table
        self._episode = episode
        self._document = int(table.episode_document[episode])
        self._weights = weights
        self._terms = np.zeros(len(REWARD_TERMS))
        self._hits = 0  # not paid yet
        self._absent: list[int] = []  # needs outside main context when the query was asked
        self._absent_stored = self._absent_kept = 0
        self._absent_staged: set[int] = set()
        self._absent_retrieved: set[int] = set()

    def needs(self, query: int) -> tuple[int, ...]:
        """Pages of the window that a query needs."""
        return self._table.needs_in_window(self._episode, query)

    def take_terms(self) -> npt.NDArray[np.float64]:
        """Return the reward terms, (len(REWARD_TERMS),), earned since the last call; clear them."""
        terms = self._terms
        terms[_TERM["evidence"]] += self._weights.evidence * self._hits
        self._terms, self._hits = np.zeros(len(REWARD_TERMS)), 0
        return terms

    # ------------------------------------------------------------------ operations

    def charge(self, name: str, times: int = 1) -> None:
        """Charge a cost by the name of its weight."""
        self._terms[_TERM[f"cost/{name}"]] -= times * getattr(self._weights, name)

    def retrieved(self, page: int, page_tokens: int) -> None:
        """Charge a page that was brought into main context."""
        self._absent_retrieved.update({page}.intersection(self._absent))
        self.log.tokens_retrieved += page_tokens
        self.charge("retrieve")
        self.charge("tokens", page_tokens)

    def refused(self) -> None:
        """Count and charge an action that was not legal."""
        self.log.illegal += 1
        self.charge("illegal")

    # ------------------------------------------------------------------ requests and queries

    def request(self, *, is_hit: bool) -> None:
        """A page is requested: it is evidence in whole when it is in main context, else none."""
        self.log.requests += 1
        self.log.hits += is_hit
        self._hits += is_hit

    def ask(
        self,
        query: int,
        *,
        is_resident: Callable[[int], bool],
        was_stored: Callable[[int], bool],
        is_archived: Callable[[int], bool],
    ) -> None:
        """A query is asked: note what is absent of its needs, and what of that is or was stored."""
        self._absent = [page for page in self.needs(query) if not is_resident(page)]
        self._absent_stored = sum(was_stored(page) for page in self._absent)
        self._absent_kept = sum(is_archived(page) for page in self._absent)
        self._absent_staged, self._absent_retrieved = set(), set()

    def show(self, pages: Collection[int]) -> None:
        """Pages have been shown as candidates, or found by a search."""
        self._absent_staged.update(page for page in self._absent if page in pages)

    def answer(self, query: int, *, residents: Mapping[int, int]) -> None:
        """A query is answered: pay its evidence and write it down.

        Args:
            query: the one that was asked.
            residents: pages in main context, oldest first -> their tokens.
        """
        needs, table = self.needs(query), self._table
        row = int(table.query_offset[self._document]) + query
        evidence = None
        if table.query_pays[row]:
            evidence = sum(page in residents for page in needs) / len(needs)
            self._terms[_TERM["evidence"]] += self._weights.evidence * evidence
        absent = max(len(self._absent), 1)
        self.log.tokens_read += sum(residents.values())
        self.log.contexts.append(tuple(residents))
        self.log.answers.append(
            AnsweredQuery(
                query=query,
                category=int(table.query_category[row]),
                evidence=evidence,
                absent=len(self._absent),
                stored=self._absent_stored / absent,
                kept=self._absent_kept / absent,
                staged=len(self._absent_staged) / absent,
                retrieved=len(self._absent_retrieved) / absent,
                used=sum(page in residents for page in self._absent) / absent,
                num_needs=len(needs),
                num_resident=len(residents),
            )
        )
        self._absent = []

    def count(self, op: Op) -> None:
        """Count an operation that was chosen."""
        self.log.operations[op] += 1
