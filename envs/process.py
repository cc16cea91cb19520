"""The decision process of one episode: events and operations, on the paging core.

`PagingProcess` owns the rules of what happens when an operation is carried out and which event
comes next. What an operation costs and what an answer earns is in `envs.scoring`. What a policy
sees is in `memrl.observation`, what it may do in `memrl.masks`; both are computed from the state
that `write_state` fills in. Gymnasium's interface is in `envs.paging`.

A page cache is an episode of requests. A requested page that is resident is a hit: that is a use of
it and is scored at once, and nothing is to be decided. Any other arrives as a message does, and
again each time it is missed: pages come in by demand alone.

Two kinds of decision point. *Under pressure* a page has arrived that does not fit; it waits in the
last slot row and is the focus. *At a query* candidates are staged against the query, or against a
page chosen with SEARCH, until YIELD answers and the evidence is paid.

Four things are a use of a resident page: a hit, its retrieval, a query that ranks it first among
the residents, and a SEARCH from it. The last tells a page retrieved just now from one that has been
searched from, since the clock stands still within a query.

A page that would not fit even an empty main context is truncated to the capacity on arrival.
"""

from __future__ import annotations

import enum

import numpy as np
import numpy.typing as npt

from envs.scoring import EpisodeScore
from memrl.actions import Op
from memrl.config import ConfigurationError
from memrl.episode_log import EpisodeLog
from memrl.memory.paging import EMPTY, PagingCore
from memrl.options import PagingOptions
from memrl.state import StateBuffer
from memrl.table import EpisodeTable, Event
from memrl.table_search import TableSearch


def options_for(table: EpisodeTable, options: PagingOptions) -> PagingOptions:
    """Options under which a table's episodes can be played.

    Returns:
        The options, with fractions resolved by this table unless they are resolved already.

    Raises:
        ConfigurationError: if an episode preloads more pages than archival holds, embeddings are to
            be observed of a table that has none, or a sample of slots be shown of one with queries.
    """
    if not options.is_resolved:
        options = options.resolved(**table.medians())
    preloaded, capacity = int(table.episode_num_preloaded.max()), options.archival_capacity
    if capacity is not None and preloaded > capacity:
        raise ConfigurationError(
            f"archival_capacity is {capacity}, but an episode of workload "
            f"{table.meta['workload']!r} begins with {preloaded} pages in archival: raise it, or "
            "set it to null for no limit."
        )
    if options.observe_embeddings and not table.page_embedding.shape[1]:
        raise ConfigurationError(
            f"observe_embeddings asks for what the pages of workload {table.meta['workload']!r} do "
            "not have: leave it false."
        )
    if options.shown_slots is not None and not table.has_requests:
        raise ConfigurationError(
            f"shown_slots is for page caches; workload {table.meta['workload']!r} asks queries, at "
            "which every slot counts: leave it null."
        )
    return options


def window_page_tokens(table: EpisodeTable, options: PagingOptions, episode: int) -> list[int]:
    """Tokens of the pages of an episode's window; with unit "tokens", cut to the capacity."""
    page_tokens = table.page_tokens[table.episode_pages(episode)]
    if options.unit == "tokens":
        page_tokens = page_tokens.clip(max=int(options.capacity))
    sizes: list[int] = page_tokens.tolist()
    return sizes


class Phase(enum.Enum):
    """Where an episode stands."""

    PRESSURE = "pressure"
    QUERY = "query"
    END = "end"


class PagingProcess:
    """One episode in progress.

    Args:
        table: the workload.
        options: resolved options (`PagingOptions.resolved`).
    """

    def __init__(self, table: EpisodeTable, options: PagingOptions) -> None:
        if not options.is_resolved:
            raise ValueError(
                "PagingProcess needs resolved options; call options.resolved(...) first."
            )
        self.table = table
        self.options = options
        self.event = 0  # index of the next event, and the number of events so far

    # ------------------------------------------------------------------ life of an episode

    def reset(self, episode: int) -> None:
        """Begin an episode and run to its first possible decision point."""
        table, options = self.table, self.options
        self.episode = episode
        self.document = int(table.episode_document[episode])
        self.first_page = int(table.episode_first_page[episode])
        self.num_pages = int(table.episode_num_pages[episode])
        self.page_tokens = window_page_tokens(table, options, episode)
        self.core = PagingCore(
            capacity_tokens=int(options.capacity),
            num_slots=options.num_slots or 1,
            archival_capacity=None
            if options.archival_capacity is None
            else int(options.archival_capacity),
        )
        num_preloaded = int(table.episode_num_preloaded[episode])
        for page in range(num_preloaded):
            self.core.preload(page, self._size(page))
        self._stored = set(range(num_preloaded))  # at some time; archival may have dropped them
        self.score = EpisodeScore(table, episode, options.reward)
        self.phase = Phase.END
        self.event = 0
        self.queries_asked = 0
        self.pages_arrived = num_preloaded
        self._begin_decision(arriving=EMPTY, query=None)
        self._advance()

    def take_reward_terms(self) -> npt.NDArray[np.float64]:
        """Return the reward terms, (len(REWARD_TERMS),), earned since the last call; clear them."""
        return self.score.take_terms()

    @property
    def log(self) -> EpisodeLog:
        """What has happened in the episode so far."""
        return self.score.log

    def _advance(self) -> None:
        """Let events happen until one of them needs a decision, or the episode ends."""
        table = self.table
        while self.event < table.episode_num_events[self.episode]:
            kind = table.event_kind[self.episode, self.event]
            index = int(table.event_index[self.episode, self.event])
            self.event += 1
            self.core.clock = self.event
            if kind == Event.QUERY:
                self._ask(index)
                return
            if kind == Event.REQUEST and self._is_hit(index):
                continue
            if not self.core.was_seen(index):
                self.pages_arrived += 1
                self.core.see(index, self._size(index))
            if not self.core.fits(index):
                self.phase = Phase.PRESSURE
                self._begin_decision(arriving=index, query=None)
                self.focus_page = index
                return
            self.core.page_in(index)
        self.phase = Phase.END
        self._begin_decision(arriving=EMPTY, query=None)
        self.operations_used = self.options.operation_budget

    def _is_hit(self, page: int) -> bool:
        """Score a request; whether main context holds the page, which is a use of it."""
        is_hit = self.core.is_resident(page)
        self.score.request(is_hit=is_hit)
        if is_hit:
            self.core.touch(page)
        return is_hit

    def _begin_decision(self, *, arriving: int, query: int | None) -> None:
        self.arriving = arriving
        self.query = query
        self.focus_page = 0
        self.focus_is_query = query is not None
        self.operations_used = 0
        self.retrieved: set[int] = set()  # brought in for this query
        self.ranking: list[int] = []
        self.result_page = 0
        self._refresh_candidates()

    def _ask(self, query: int) -> None:
        self.phase = Phase.QUERY
        self._begin_decision(arriving=EMPTY, query=query)
        self.queries_asked += 1
        core = self.core
        self.score.ask(
            query,
            is_resident=core.is_resident,
            was_stored=self._stored.__contains__,
            is_archived=core.is_archived,
        )
        residents = self.core.queue
        if residents:
            self.core.touch(self._search().rank(residents, [])[0])
        self._stage()

    # ------------------------------------------------------------------ operations

    def apply(self, op: Op, argument: int) -> None:
        """Carry out a legal operation and go on to the next possible decision point."""
        self.score.count(op)
        if op is Op.YIELD:
            self.yield_()
            return
        self.operations_used += 1
        if op is Op.EVICT:
            self._evict(argument)
        elif op is Op.STORE:
            self.core.store(self._page_at(argument))
            self._stored.add(self._page_at(argument))
            self._refresh_candidates()  # a full archive may have dropped one
            self.score.charge("store")
        elif op is Op.SEARCH:
            self.focus_is_query = False
            self.focus_page = self.core.slot_page[argument]
            self.core.touch(self.focus_page)
            self._stage()
            self.score.charge("search")
        elif op is Op.NEXT:
            self.result_page += 1
            self._refresh_candidates()
            self.score.charge("next")
        else:
            self._retrieve(self.candidates()[argument])

    def apply_illegal(self) -> None:
        """Count an illegal action, charge it, and act as YIELD."""
        self.score.refused()
        self.yield_()

    def yield_(self) -> None:
        """Pressure: remove the victim. Query: answer. Then go on."""
        if self.phase is Phase.QUERY:
            self._answer()
            self._advance()
        elif self.phase is Phase.PRESSURE:
            self.core.page_out(self.core.victim)
            if self.options.evict_fraction:
                limit = (1 - self.options.evict_fraction) * self.options.capacity
                while self.core.num_resident and self.core.occupied_tokens > limit:
                    self.core.page_out(self.core.victim)
            self._admit_if_fits()

    def _evict(self, row: int) -> None:
        if self.phase is Phase.QUERY:
            self.retrieved.discard(self._page_at(row))
            self.core.page_out(self._page_at(row))
            self._refresh_candidates()
            self.score.charge("evict")
        elif row == self.core.num_slots:  # the arriving page goes past main context
            self.arriving = EMPTY
            self._advance()
        else:
            self.core.page_out(self._page_at(row))
            self._admit_if_fits()

    def _admit_if_fits(self) -> None:
        if self.core.fits(self.arriving):
            self.core.page_in(self.arriving)
            self._advance()

    def _retrieve(self, page: int) -> None:
        for victim in self.core.victims_for(page):
            self.core.page_out(victim)
        self.core.page_in(page)
        self.core.touch(page)
        self.retrieved.add(page)
        self._refresh_candidates()
        self.score.retrieved(page, self.page_tokens[page])

    def _answer(self) -> None:
        assert self.query is not None  # the phase says so
        residents = {page: self.page_tokens[page] for page in self.core.queue}
        self.score.answer(self.query, residents=residents)

    # ------------------------------------------------------------------ staging

    def _available(self) -> npt.NDArray[np.bool_]:
        """(pages of the window,) bool: resident or stored."""
        available = np.zeros(self.num_pages, dtype=bool)
        available[self.core.queue] = True
        available[self.core.archive] = True
        return available

    def _search(self, page: int | None = None) -> TableSearch:
        """Search for a page, or for the query at hand."""
        query = self.query if page is None else None
        return TableSearch(
            self.table, self.options, self.episode, self._available(), query=query, page=page
        )

    def _stage(self) -> None:
        search = self._search(None if self.focus_is_query else self.focus_page)
        self.ranking = self.core.stage(search, self.options.stage_from)
        self.result_page = 0
        self._refresh_candidates()

    def candidates(self) -> list[int]:
        """(K,) candidate rows: pages of the window, `EMPTY` for none.

        The ranking is fixed when it is staged, so rows never shift; a row is empty while its page
        is resident or can no longer be reached.
        """
        return self._candidates

    def _refresh_candidates(self) -> None:
        """Recompute the candidate rows; called after whatever may change them."""
        k = self.options.num_candidates
        hits = self.ranking[self.result_page * k : (self.result_page + 1) * k]
        rows = [page if self._is_candidate(page) else EMPTY for page in hits]
        self._candidates = rows + [EMPTY] * (k - len(rows))
        sizes = [0 if page == EMPTY else self._size(page) for page in rows]
        self._candidate_sizes = sizes + [0] * (k - len(rows))
        self.score.show(rows)

    def _is_candidate(self, page: int) -> bool:
        if self.core.is_resident(page):
            return False
        return self.options.stage_from == "both" or self.core.is_archived(page)

    @property
    def more_candidates(self) -> bool:
        """Whether NEXT would show further results."""
        shown = (self.result_page + 1) * self.options.num_candidates
        return self.options.num_candidates > 0 and shown < len(self.ranking)

    # ------------------------------------------------------------------ views

    def _size(self, page: int) -> int:
        return 1 if self.options.unit == "pages" else self.page_tokens[page]

    def slot_pages(self) -> list[int]:
        """(N,) page in each slot row, `EMPTY` for none; the last row is the arriving page."""
        return [*self.core.slot_page, self.arriving]

    def _page_at(self, row: int) -> int:
        return self.slot_pages()[row]

    def write_state(self, buffer: StateBuffer, row: int) -> None:
        """Fill one row of a buffer with the present state, in the order of its columns."""
        core, retrieved = self.core, self.retrieved
        pages = self.slot_pages()
        no_flags = [False] * len(pages)
        arriving_size = 0 if self.arriving == EMPTY else self._size(self.arriving)
        buffer.packed[row] = [
            self.document,
            self.first_page,
            self.num_pages,
            self.more_candidates,
            self.phase is Phase.QUERY,
            self.focus_is_query,
            self.focus_page if self.query is None or not self.focus_is_query else self.query,
            core.clock,
            self.pages_arrived,
            self.queries_asked,
            self.operations_used,
            *pages,
            *core.slot_tokens,
            arriving_size,
            *core.slot_sequence,
            0,
            *core.slot_time_in,
            core.clock,
            *core.slot_last_use,
            core.clock,
            *core.slot_uses,
            0,
            *([page in retrieved for page in pages] if retrieved else no_flags),
            *self._candidates,
            *self._candidate_sizes,
        ]
        buffer.archived[row] = False
        buffer.archived[row, core.archive] = True
