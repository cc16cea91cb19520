"""The transitions of many episodes at once: the second writing of `envs.process.PagingProcess`.

Legality is `memrl.masks`, ranking `memrl.staging`. How rows that have the same thing to do are
handled together is in `envs.batched_rows`.
"""

from __future__ import annotations

from collections.abc import Callable

import torch
from torch import Tensor

from envs import batched_moves as moves
from envs import batched_queries as queries
from envs import batched_requests as requests
from envs.batched_events import EventTensors
from envs.batched_log import BatchLog
from envs.batched_rows import Rows, RowSelector
from envs.batched_state import EpisodeBatch
from memrl.actions import ActionLayout, Op
from memrl.episode_log import REWARD_TERMS
from memrl.masks import action_mask
from memrl.memory.paging import EMPTY
from memrl.options import PagingOptions
from memrl.shown import shown_slots
from memrl.state import TableTensors
from memrl.table import EpisodeTable

# Comparing a tensor with an enum's member is slow.
_YIELD, _EVICT = int(Op.YIELD), int(Op.EVICT)
_TERM = {name: position for position, name in enumerate(REWARD_TERMS)}


class BatchedProcess:
    """B episodes in progress.

    Args:
        table: the workload. tensors: the same on `device`.
        options: resolved options.
        num_envs: B.
        device: where everything lives.
        rounds: None plays forced moves until every row has a decision or has ended, which asks the
            device each time whether any is left. A number plays at most so many a call, in fixed
            shapes and without asking; what is left comes with the next call.
        max_searches: with `rounds`, searches of a call, because they cost the most; the others are
            made in the next ones, and nothing is legal in their rows before. None for no limit.

    Attributes:
        batch: the state. log: what happened. mask: (B, A) bool, the legal actions.
    """

    def __init__(
        self,
        table: EpisodeTable,
        tensors: TableTensors,
        options: PagingOptions,
        num_envs: int,
        device: torch.device,
        rounds: int | None = None,
        max_searches: int | None = None,
    ) -> None:
        self.options = options
        self.layout = ActionLayout(options.num_rows, options.num_candidates)
        self._num_envs = num_envs
        self._device = device
        self._rounds = rounds
        self._max_searches = max_searches
        # Row that is the first to search; it moves on, so that no row is kept waiting for ever.
        self.first_to_search = torch.zeros((), dtype=torch.int64, device=device)
        self._select = RowSelector(num_envs, rounds is not None, device)
        self._tensors = tensors
        self._events = EventTensors.from_table(table, options, device)
        archival = options.archival_capacity
        self.batch = EpisodeBatch(
            num_envs=num_envs,
            num_rows=(options.num_slots or 1) + 1,
            num_candidates=self.layout.num_candidates,
            width=table.max_pages,
            archival_capacity=None if archival is None else int(archival),
            num_needs=self._events.needs.shape[1],
            num_terms=len(REWARD_TERMS),
            device=device,
        )
        # Rows that have not begun are like rows that have ended.
        self.batch.ended.fill_(True)
        self.batch.operations_used.fill_(options.operation_budget)
        self.log = BatchLog.empty(num_envs, self._events.max_queries, device)
        self.mask = action_mask(self.batch.paging_state(), options)
        self._none = torch.zeros(num_envs, dtype=torch.bool, device=device)
        self._cost_of = self._costs()

    def _costs(self) -> Tensor:
        """(len(Op), len(REWARD_TERMS)) float64: what an operation at a query costs."""
        costs = torch.zeros((len(Op), len(REWARD_TERMS)), dtype=torch.float64)
        reward = self.options.reward
        for op, cost in (
            (Op.STORE, reward.store),
            (Op.EVICT, reward.evict),
            (Op.RETRIEVE, reward.retrieve),
            (Op.SEARCH, reward.search),
            (Op.NEXT, reward.next),
        ):
            costs[op, _TERM[f"cost/{op.name.lower()}"]] = cost
        return costs.to(self._device)

    def begin(self, rows: Rows, episodes: Tensor) -> None:
        """Put rows before the first event of episodes, (b,); `settle` runs to their decisions."""
        self.batch.begin(rows, episodes, self._events)
        self.log.clear(rows)

    def settle(self) -> None:
        """Play what is forced."""
        self._settle(yields=self._none, searches=self._none, others=self._none)

    def play(
        self,
        op: Tensor,
        argument: Tensor,
        plays: Tensor,
        illegal: Tensor,
        *,
        waiting: Tensor | None = None,
        between: Callable[[], None] | None = None,
    ) -> None:
        """Carry out one legal operation a row, then all forced ones.

        Args:
            op: (B,) int64. argument: (B,) int64, its slot or candidate row.
            plays: (B,) bool, rows that have a decision; the others are left alone.
            illegal: (B,) bool, of those, rows whose YIELD stands for an illegal action.
            waiting: (B,) bool, rows without a decision whose forced YIELD is still to be played.
            between: called after each round of forced moves.
        """
        slot = argument.clamp(max=self.layout.num_rows - 1)
        if not self.options.shows_all:  # what was shown when the action was chosen
            shown = shown_slots(self.batch.paging_state(), self.options)
            slot = shown.gather(1, slot[:, None])[:, 0]
        self._note(op, plays & ~illegal, illegal)
        nexts, evicts, stores, searches, retrieves = (
            plays & (op == kind) for kind in range(1, len(Op))
        )
        yields = plays & (op == _YIELD)
        if waiting is not None:
            yields = yields | waiting
        self._next(self._select(nexts))
        self._store(self._select(stores), slot)
        self._focus(self._select(searches), slot)
        self._retrieve(self._select(retrieves), argument)
        at_query = self.batch.at_query.clone()
        self._evict(self._select(evicts), slot)
        others = nexts | stores | retrieves | (evicts & at_query)
        self._settle(
            yields=yields,
            searches=searches,
            others=others,
            waits=evicts & ~at_query,
            between=between,
        )

    def _note(self, op: Tensor, legal: Tensor, illegal: Tensor) -> None:
        """Count what the policy chose and charge what costs the same wherever it is done."""
        self.log.operations.scatter_add_(1, op[:, None], legal.long()[:, None])
        self.log.illegal.add_(illegal)
        self.batch.operations_used.add_(legal & (op != _YIELD))
        charged = legal & ((op != _EVICT) | self.batch.at_query)
        self.batch.reward_terms -= self._cost_of[op] * charged[:, None]
        self.batch.reward_terms[:, _TERM["cost/illegal"]] -= (
            self.options.reward.illegal * illegal.double()
        )

    def take_earned(self, rows: Tensor | None = None) -> Tensor:
        """Pay out what the given rows, (B,) bool (default: all), have earned; the others get 0.

        Returns:
            (B, len(REWARD_TERMS)) float64.
        """
        batch = self.batch
        earned = batch.reward_terms.clone()
        if self._events.requested is not None:  # in one product, whatever the steps in between
            hits = batch.unpaid_hits.double()
            earned[:, _TERM["evidence"]] += self.options.reward.evidence * hits
        if rows is None:
            batch.reward_terms.zero_()
            batch.unpaid_hits.zero_()
            return earned
        batch.reward_terms.masked_fill_(rows[:, None], 0.0)
        batch.unpaid_hits.masked_fill_(rows, 0)
        return torch.where(rows[:, None], earned, 0.0)

    # ------------------------------------------------------------------ operations

    def _next(self, rows: Rows) -> None:
        if not rows.is_empty:
            rows.write(self.batch.result_page, self.batch.result_page[rows.index] + 1)

    def _store(self, rows: Rows, slot: Tensor) -> None:
        if not rows.is_empty:
            moves.store(self.batch, rows, self.batch.slot_page[rows.index, slot[rows.index]])

    def _focus(self, rows: Rows, slot: Tensor) -> None:
        if rows.is_empty:
            return
        batch, index, place = self.batch, rows.index, slot[rows.index]
        rows.write(batch.focus, batch.slot_page[index, place])
        rows.write(batch.focus_is_query, False)
        rows.write(batch.slot_uses, batch.slot_uses[index, place] + 1, place)
        rows.write(batch.slot_last_use, batch.clock[index], place)

    def _evict(self, rows: Rows, slot: Tensor) -> None:
        if not rows.is_empty:
            moves.take_out(self.batch, rows, slot[rows.index])

    def _retrieve(self, rows: Rows, argument: Tensor) -> None:
        if rows.is_empty or not self.layout.num_candidates:
            return
        batch, index = self.batch, rows.index
        candidate = argument[index].clamp(max=self.layout.num_candidates - 1)
        page = batch.candidate_page[index, candidate]
        size = batch.candidate_size[index, candidate]
        moves.make_room(batch, rows, size, self.options)
        moves.bring_in(batch, rows, page, size, retrieved=True)
        queries.note_absent(batch, rows, batch.was_retrieved, page[:, None])
        tokens = self._events.page_tokens[batch.first_row[index] + page]
        rows.write(self.log.tokens_retrieved, self.log.tokens_retrieved[index] + tokens)
        cost = tokens.double() * self.options.reward.tokens
        term = _TERM["cost/tokens"]
        rows.write(batch.reward_terms, batch.reward_terms[index, term] - cost, term)

    # ------------------------------------------------------------------ what is forced

    def _settle(
        self,
        *,
        yields: Tensor,
        searches: Tensor,
        others: Tensor,
        waits: Tensor | None = None,
        between: Callable[[], None] | None = None,
    ) -> None:
        """Answer, let victims go, let events happen; all rows are given as (B,) bool.

        Args:
            yields: rows at which YIELD is played.
            searches: rows at a query that have a new focus.
            others: further rows whose legal actions may have changed.
            waits: rows from which a page has been taken, so that the arriving one may fit.
            between: called after each round.
        """
        asked = self._none
        waits = self._none if waits is None else waits
        rounds = 0
        while True:
            asks, yields = self._round(yields, waits, others)
            asked = asked | asks
            waits = others = self._none
            if between is not None:
                between()
            rounds += 1
            if rounds == self._rounds or (self._rounds is None and not self._goes_on(yields)):
                yields = self._forced(self._search(asked, searches))
                asked = searches = self._none
                if self._rounds is not None or not yields.any():
                    return

    def _goes_on(self, yields: Tensor) -> bool:
        """Whether a row must yield, or an event of it is to happen; asks the device."""
        waits = yields if self._events.requested is None else yields | self.batch.due
        return bool(waits.any())

    def _round(self, yields: Tensor, waits: Tensor, others: Tensor) -> tuple[Tensor, Tensor]:
        """Play YIELD and let one event that matters happen; rows that ask, rows that must yield."""
        batch = self.batch
        answers = yields & batch.at_query
        gives_way = yields & ~batch.at_query
        self._answer(self._select(answers))
        self._let_victims_go(self._select(gives_way))
        waits = waits | gives_way
        let_in = self._admit(self._select(waits))
        advances = answers | let_in | batch.due
        asks = self._advance(self._select(advances))
        return asks, self._forced((advances & ~asks) | (waits & ~let_in) | others)

    def _answer(self, rows: Rows) -> None:
        if not rows.is_empty:
            weight = self.options.reward.evidence
            queries.answer(self.batch, self.log, rows, self._events, weight)

    def _let_victims_go(self, rows: Rows) -> None:
        if not rows.is_empty:
            moves.let_victims_go(self.batch, rows, self.options)

    def _admit(self, rows: Rows) -> Tensor:
        """Let arriving pages in that fit, or that have been sent past; (B,) bool: it was so."""
        if rows.is_empty:
            return self._none
        batch = self.batch
        page, size = batch.slot_page[rows.index, -1], batch.slot_size[rows.index, -1]
        is_past = page == EMPTY
        fits = moves.fits(batch, rows, size, self.options) & ~is_past
        comes_in = self._select(rows.mask(self._num_envs, fits))
        if not comes_in.is_empty:
            page, size = batch.slot_page[comes_in.index, -1], batch.slot_size[comes_in.index, -1]
            moves.bring_in(batch, comes_in, page, size)
        return rows.mask(self._num_envs, fits | is_past)

    def _advance(self, rows: Rows) -> Tensor:
        """Let events happen until one is not a page that fits; (B,) bool: it is a query.

        Requests may need another call for that; their rows are `due` then.
        """
        if rows.is_empty:
            return self._none
        if self._events.requested is not None:
            batch = self.batch
            requests.serve(batch, self.log, rows, self._events, self.options, self._select)
            rows = self._select(rows.mask(self._num_envs, ~batch.due[rows.index]))
            if rows.is_empty:
                return self._none
        moves.let_in_what_fits(self.batch, rows, self._events, self.options)
        asks = moves.next_event(self.batch, rows, self._events, self.options)
        return rows.mask(self._num_envs, asks)

    def _search(self, asked: Tensor, refocused: Tensor) -> Tensor:
        """Open the queries that have just been asked; stage for them and for a new focus.

        Returns:
            (B,) bool, rows for which something has been staged.
        """
        batch = self.batch
        opens, wanted = self._select(asked), asked | refocused
        if not opens.is_empty:
            queries.open_query(batch, self.log, opens, self._events)
        if self._max_searches is None:
            rows, is_new = self._select(wanted), asked
        else:
            batch.to_search.logical_or_(wanted)
            batch.to_search_new.logical_or_(asked)
            rows, is_new, wanted = self._whose_turn_it_is()
        if not rows.is_empty:
            queries.search(batch, rows, is_new[rows.index], self._tensors, self.options)
        return wanted

    def _whose_turn_it_is(self) -> tuple[Rows, Tensor, Tensor]:
        """Take the next rows that are to search: they, (B,) bool whose query is new, (B,) bool."""
        batch, num_envs = self.batch, self._num_envs
        assert self._max_searches is not None
        place = (torch.arange(num_envs, device=self._device) - self.first_to_search) % num_envs
        order = torch.where(batch.to_search, place, place + num_envs).argsort()
        index = order[: self._max_searches]
        is_new, valid = batch.to_search_new.clone(), batch.to_search[index]
        taken = torch.zeros_like(is_new).index_put((index,), valid)
        batch.to_search.logical_and_(~taken)
        batch.to_search_new.logical_and_(~taken)
        self.first_to_search.add_(self._max_searches).remainder_(num_envs)
        return Rows(index, valid), is_new, taken

    def _forced(self, changed: Tensor) -> Tensor:
        """Show candidates and note what is legal; (B,) bool, rows that can do nothing but YIELD."""
        rows = self._select(changed)
        if rows.is_empty:
            return self._none
        batch = self.batch
        at_query = self._select(changed & batch.at_query)
        if not at_query.is_empty:
            queries.show_candidates(batch, at_query, self._events, self.options)
        if 2 * len(rows.index) > self._num_envs:  # to copy the rows would cost more than it saves
            self.mask.copy_(action_mask(batch.paging_state(), self.options))
            if self._max_searches is not None:
                self.mask[:, 1:] &= ~batch.to_search[:, None]
            has_choice = self.has_choice[rows.index]
        else:
            mask = action_mask(batch.paging_state(rows.index), self.options)
            self.mask[rows.index] = mask
            has_choice = mask[:, 1:].any(dim=1)
        is_forced = ~has_choice & ~batch.ended[rows.index] & ~batch.due[rows.index]
        return rows.mask(self._num_envs, is_forced)

    @property
    def has_choice(self) -> Tensor:
        """(B,) bool: something besides YIELD is legal."""
        return self.mask[:, 1:].any(dim=1)
