"""The transitions of many episodes at once: the second writing of `envs.process.PagingProcess`.

Rows that have the same thing to do are handled together, by index, so that the cost follows their
number. Legality is `memrl.masks`, ranking `memrl.staging`.
"""

from __future__ import annotations

import torch
from torch import Tensor

from envs import batched_moves as moves
from envs import batched_queries as queries
from envs.batched_events import EventTensors
from envs.batched_log import BatchLog
from envs.batched_state import EpisodeBatch
from memrl.actions import ActionLayout, Op
from memrl.episode_log import REWARD_TERMS
from memrl.masks import action_mask
from memrl.options import PagingOptions
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
    ) -> None:
        self.options = options
        self.layout = ActionLayout((options.num_slots or 1) + 1, options.num_candidates)
        self._num_envs = num_envs
        self._device = device
        self._tensors = tensors
        self._events = EventTensors.from_table(table, options, device)
        archival = options.archival_capacity
        self.batch = EpisodeBatch(
            num_envs=num_envs,
            num_rows=self.layout.num_rows,
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
        self._none = torch.zeros(0, dtype=torch.int64, device=device)
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

    def begin(self, rows: Tensor, episodes: Tensor) -> None:
        """Begin episodes in distinct rows, both (b,), and run to their first decisions."""
        self.batch.begin(rows, episodes, self._events)
        self.log.clear(rows)
        self._settle(yields=self._none, advances=rows, searches=self._none, others=self._none)

    def play(self, op: Tensor, argument: Tensor, plays: Tensor, illegal: Tensor) -> None:
        """Carry out one legal operation a row, then all forced ones.

        Args:
            op: (B,) int64. argument: (B,) int64, its slot or candidate row.
            plays: (B,) bool, rows that have a decision; the others are left alone.
            illegal: (B,) bool, of those, rows whose YIELD stands for an illegal action.
        """
        self._note(op, plays & ~illegal, illegal)
        self._operate(op, argument, plays)

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

    def _operate(self, op: Tensor, argument: Tensor, plays: Tensor) -> None:
        """Carry out one legal operation a row, (B,), then whatever is forced."""
        batch, options = self.batch, self.options
        by_op = [(plays & (op == kind)).nonzero()[:, 0] for kind in range(len(Op))]
        yields, nexts, evicts, stores, searches, retrieves = by_op
        advances = self._none
        if len(nexts):
            batch.result_page[nexts] += 1
        if len(stores):
            moves.store(batch, stores, batch.slot_page[stores, argument[stores]])
        if len(searches):
            slot = argument[searches]
            batch.focus[searches] = batch.slot_page[searches, slot]
            batch.focus_is_query[searches] = False
            batch.slot_uses[searches, slot] += 1
            batch.slot_last_use[searches, slot] = batch.clock[searches]
        if len(retrieves):
            self._retrieve(retrieves, argument[retrieves])
        if len(evicts):
            row = argument[evicts]
            moves.take_out(batch, evicts, row)
            passes_by = row == self.layout.num_rows - 1
            let_in = ~batch.at_query[evicts] & ~passes_by
            let_in &= moves.fits(batch, evicts, batch.slot_size[evicts, -1], options)
            self._admit(evicts[let_in])
            advances, evicts = evicts[passes_by | let_in], evicts[~(passes_by | let_in)]
        others = torch.cat([nexts, evicts, stores, retrieves])
        self._settle(yields=yields, advances=advances, searches=searches, others=others)

    def _retrieve(self, rows: Tensor, candidate: Tensor) -> None:
        batch = self.batch
        page = batch.candidate_page[rows, candidate]
        size = batch.candidate_size[rows, candidate]
        moves.make_room(batch, rows, size, self.options)
        moves.bring_in(batch, rows, page, size, retrieved=True)
        tokens = self._events.page_tokens[batch.first_row[rows] + page]
        self.log.tokens_retrieved[rows] += tokens
        batch.reward_terms[rows, _TERM["cost/tokens"]] -= (
            tokens.double() * self.options.reward.tokens
        )

    def _admit(self, rows: Tensor) -> None:
        page, size = self.batch.slot_page[rows, -1], self.batch.slot_size[rows, -1]
        moves.bring_in(self.batch, rows, page, size)

    def _settle(
        self, *, yields: Tensor, advances: Tensor, searches: Tensor, others: Tensor
    ) -> None:
        """Answer, let victims go, let events happen, until every row has a decision or has ended.

        Args:
            yields: rows at which YIELD is played. advances: rows whose next event is due.
            searches: rows at a query that have a new focus. others: further rows whose legal
                actions may have changed.
        """
        batch, asked = self.batch, self._none
        while True:
            answers, waits = self._yield(yields)
            let_in = moves.fits(batch, waits, batch.slot_size[waits, -1], self.options)
            self._admit(waits[let_in])
            advances = torch.cat([advances, answers, waits[let_in]])
            asks = self._advance(advances)
            asked = torch.cat([asked, advances[asks]])
            yields = self._forced(torch.cat([advances[~asks], waits[~let_in], others]))
            if not len(yields):  # what has to be staged is staged at once
                self._search(asked, searches)
                yields = self._forced(torch.cat([asked, searches]))
                asked = searches = self._none
            if not len(yields):
                return
            advances = others = self._none

    def _yield(self, rows: Tensor) -> tuple[Tensor, Tensor]:
        """Answer where a query is open, let the victim go elsewhere; return both kinds of rows."""
        at_query = self.batch.at_query[rows]
        answers, waits = rows[at_query], rows[~at_query]
        if len(answers):
            weight = self.options.reward.evidence
            queries.answer(self.batch, self.log, answers, self._events, weight)
        if len(waits):
            moves.let_victims_go(self.batch, waits, self.options)
        return answers, waits

    def _advance(self, rows: Tensor) -> Tensor:
        """Let events happen until one is not a page that fits; (b,) bool: it is a query."""
        moves.let_in_what_fits(self.batch, rows, self._events, self.options)
        return moves.next_event(self.batch, rows, self._events, self.options)

    def _search(self, asked: Tensor, refocused: Tensor) -> None:
        """Open the queries that have just been asked, and stage for them and for a new focus."""
        if len(asked):
            queries.open_query(self.batch, self.log, asked, self._events)
        rows = torch.cat([asked, refocused])
        if len(rows):
            is_new = torch.arange(len(rows), device=self._device) < len(asked)
            queries.search(self.batch, rows, is_new, self._tensors, self.options)

    def _forced(self, rows: Tensor) -> Tensor:
        """Show candidates and note what is legal; return the rows that can do nothing but YIELD."""
        if not len(rows):
            return rows
        batch = self.batch
        at_query = rows[batch.at_query[rows]]
        if len(at_query):
            queries.show_candidates(batch, at_query, self._events, self.options)
        if 2 * len(rows) > self._num_envs:  # then to copy the rows costs more than it saves
            self.mask = action_mask(batch.paging_state(), self.options)
            mask = self.mask
            has_choice = mask[:, 1:].any(dim=1)[rows]
        else:
            mask = action_mask(batch.paging_state(rows), self.options)
            self.mask[rows] = mask
            has_choice = mask[:, 1:].any(dim=1)
        return rows[~has_choice & ~batch.ended[rows]]
