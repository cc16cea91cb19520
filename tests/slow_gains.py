"""What an operation gains over YIELD, worked out slowly for one decision of the reference process.

Written from the docstring of `memrl.algos.labels`, with lists and loops, on the process itself.
"""

from __future__ import annotations

from collections.abc import Iterable
from fractions import Fraction

import numpy as np

from envs.lockstep import LockstepPaging
from envs.process import Phase
from memrl.actions import Op
from memrl.memory.paging import EMPTY
from memrl.table import Event
from memrl.table_search import TableSearch


class SlowGains:
    """Gains of the operations that are legal in one row of a group."""

    def __init__(
        self,
        group: LockstepPaging,
        row: int,
        realization: float = 1.0,
        staging_realization: float = 1.0,
        room_price: float = 1.0,
    ) -> None:
        self.process = group.process(row)
        self.table, self.options = group.table, group.options
        self.reward = group.options.reward
        self.realization, self.staging_realization = realization, staging_realization
        self.room_price = room_price
        self.later = self._later_queries()
        self.needs = self._needs_now()
        core = self.process.core
        self.absent = {page for page in self.needs if not core.is_resident(page)}
        route = self._route_now() if self.absent else ()
        resident = [step for step, page in enumerate(route) if core.is_resident(page)]
        self.before = route[resident[-1]] if resident else EMPTY
        self.left = list(route[resident[-1] + 1 :] if resident else route)
        self.has_route = bool(route)

    # ------------------------------------------------------------------ the truth

    def _paying_needs(self, query: int) -> tuple[int, ...]:
        if not self.table.query_pays[self.table.query_offset[self.process.document] + query]:
            return ()
        return self.table.needs_in_window(self.process.episode, query)

    def _later_queries(self) -> list[tuple[int, tuple[int, ...]]]:
        """(events from now, needs) of every query still to come that pays."""
        episode, now = self.process.episode, self.process.event
        later = []
        for event in range(now, int(self.table.episode_num_events[episode])):
            if self.table.event_kind[episode, event] == Event.QUERY:
                needs = self._paying_needs(int(self.table.event_index[episode, event]))
                if needs:
                    later.append((event + 1 - now, needs))
        return later

    def _needs_now(self) -> tuple[int, ...]:
        if self.process.phase is not Phase.QUERY or self.process.query is None:
            return ()
        return self._paying_needs(self.process.query)

    def _route_now(self) -> tuple[int, ...]:
        if not self.needs or self.process.query is None:
            return ()
        return self.table.route_in_window(self.process.episode, self.process.query)

    def _share(self) -> float:
        return self.reward.evidence / len(self.needs)

    # ------------------------------------------------------------------ values

    def loss(self, page: int) -> float:
        """What taking a page out of main context now would cost."""
        total = 0.0
        for _, needs in self.later:
            if page in needs:
                share = self.reward.evidence / len(needs)
                if self.process.core.is_archived(
                    page
                ):  # it will have to be retrieved, or be missed
                    total += min(share, self.reward.retrieve)
                else:
                    total += self.realization * share
        return total + (self._share() if page in self.needs else 0.0)

    def stored_value(self, page: int) -> float:
        """What a copy stored now would bring back, if all went well."""
        process = self.process
        place = process.core.queue.index(page)
        capacity = self.options.archival_capacity
        kept_events: float = float("inf")
        if capacity is not None:
            kept_events = int(capacity) * process.event // max(process.core.counts.stores, 1)
        return sum(
            max(0.0, self.reward.evidence / len(needs) - self.reward.retrieve)
            for ahead, needs in self.later
            if page in needs and place < ahead <= kept_events
        )

    def pushed_out(self) -> float:
        """What a store now loses, by the page that archival drops one store earlier for it."""
        process, capacity = self.process, self.options.archival_capacity
        if capacity is None:
            return 0.0
        archive = list(process.core.archive)
        free = int(capacity) - len(archive)
        total = 0.0
        for page in archive:
            for place in range(len(archive)):  # where it may stand in the queue, all alike
                for ahead, needs in self.later:
                    stores = Fraction(ahead * process.core.counts.stores, max(process.event, 1))
                    if page in needs and free + place < stores <= free + place + 1:
                        worth = self.reward.evidence / len(needs) - self.reward.retrieve
                        total += max(0.0, worth) / len(archive)
        return total

    def covers(self, page: int) -> float:
        """What a page brings once it is retrieved: evidence, or the rest of the route to it."""
        if page in self.absent:
            return self._share()
        if self.left and page == self.left[0]:
            worth = self._share()
            for _ in self.left:  # from this page a search for the next, or for the evidence
                worth -= self.reward.search
                worth -= self.reward.retrieve
            return max(0.0, worth)
        return 0.0

    def _held(self, pages: Iterable[int]) -> float:
        """The best that retrieving one of these candidates brings, less its cost."""
        return max([0.0, *(self.covers(page) - self.reward.retrieve for page in pages)])

    def _restaged(self, pages: Iterable[int]) -> float:
        """What showing these candidates gains over the present ones, which are given up."""
        realization = 1.0 if self.has_route else self.staging_realization
        return realization * (self._held(pages) - self._held(self.process.candidates()))

    def _reachable(self, page: int) -> bool:
        return self.options.stage_from == "both" or self.process.core.is_archived(page)

    def staged_by(self, focus: int) -> list[int]:
        """The candidates that a page as focus would show."""
        process = self.process
        available = np.zeros(process.num_pages, dtype=bool)
        available[[*process.core.queue, *process.core.archive]] = True
        search = TableSearch(self.table, self.options, process.episode, available, page=focus)
        ranking = process.core.stage(search, self.options.stage_from)
        return ranking[: self.options.num_candidates]

    # ------------------------------------------------------------------ gains

    def gain(self, op: Op, argument: int) -> float:
        """Gain over YIELD of a legal operation."""
        process, reward = self.process, self.reward
        if op is Op.YIELD:
            return 0.0
        if op is Op.NEXT:
            k, shown = self.options.num_candidates, process.result_page + 1
            pages = filter(self._reachable, process.ranking[shown * k : (shown + 1) * k])
            return self._restaged(pages) - reward.next
        if op is Op.RETRIEVE:
            page = process.candidates()[argument]
            lost = sum(self.loss(victim) for victim in process.core.victims_for(page))
            tokens = reward.tokens * process.page_tokens[page]
            return self.covers(page) - lost - reward.retrieve - tokens
        page = process.slot_pages()[argument]
        if op is Op.STORE:
            value = self.stored_value(page) - self.room_price * self.pushed_out()
            return self.realization * value - reward.store
        if op is Op.SEARCH:
            return self._restaged(self.staged_by(page)) - reward.search
        if process.phase is Phase.QUERY:
            return -reward.evict - self.loss(page)
        return self.loss(process.core.victim) - self.loss(page)
