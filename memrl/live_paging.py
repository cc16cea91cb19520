"""A policy decides what a live memory does: the operations of the environment, on text and stores.

The decisions are those of `envs.process`: under pressure, when a message does not fit main context,
and at a question. What a policy sees is `memrl.observation`'s, what it may do `memrl.masks`'s, how
a search ranks `memrl.staging`'s; here is only what an operation does to the memory. Nothing is
charged, because nobody knows what an answer is worth.

What a policy lets go is not summarised: recall keeps it. The queue's own flush never happens,
because room is made before a page comes in.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from typing import NamedTuple

import torch
from torch import Tensor

from memrl.actions import ActionLayout, Op
from memrl.live_pages import Focus, LivePages
from memrl.masks import action_mask
from memrl.memory.live import Memory
from memrl.memory.paging import EMPTY
from memrl.observation import observe
from memrl.options import PagingOptions
from memrl.policies.base import Policy
from memrl.staging import first_page, rank_candidates, window_scores
from memrl.state import PagingState, TableTensors


class Move(NamedTuple):
    """Something that was done to the memory.

    Attributes:
        op: the operation. page_id: the page it was about; of a YIELD under pressure the page that
            left; None of a NEXT, and of the YIELD that ends a question.
        is_forced: whether nothing else was legal, so that the policy was not asked.
    """

    op: Op
    page_id: int | None
    is_forced: bool = False


@dataclass
class _Decision:
    """The decision point at hand; pages are places.

    Attributes:
        arriving: page that waits to be let in, `EMPTY` for none. focus: of the search.
        retrieved: brought in for this question. ranking: hits of the search, best first.
        result_page: which K of them are shown. operations_used: so far.
    """

    arriving: int
    focus: Focus
    retrieved: set[int]
    ranking: list[int]
    result_page: int = 0
    operations_used: int = 0


class LivePaging:
    """Plays a policy on a live memory.

    Args:
        memory: its main context counts in the unit of the options, and its archival has their
            capacity.
        pages: of the memory. policy: reads no text and is not privileged.
        options: resolved options that the policy learned under.
        queries_asked: so far.

    Attributes:
        events: messages and questions so far; the clock of the core.
    """

    def __init__(
        self,
        memory: Memory,
        pages: LivePages,
        policy: Policy,
        options: PagingOptions,
        *,
        queries_asked: int = 0,
    ) -> None:
        self.memory = memory
        self.pages = pages
        self.policy = policy
        self.options = options
        self.queries_asked = queries_asked
        self.layout = ActionLayout(options.num_rows, options.num_candidates)
        self._core = memory.main.core
        self._question = ""
        self._archived = self._in_archival()
        self._decision = _Decision(EMPTY, Focus(), set(), [])

    # ------------------------------------------------------------------ events

    def arrive(self, place: int) -> list[Move]:
        """Let in a page that recall has already got, and make room for it first.

        Returns:
            What was done, in order.
        """
        self._core.clock += 1
        if self._core.is_resident(self.pages.page_ids[place]):  # it had come in, and nobody knew
            return []
        self._question = ""
        self._decision = _Decision(place, Focus(page=place), set(), [])
        moves: list[Move] = []
        page_id = self.pages.page_ids[place]
        while self._decision.arriving != EMPTY and not self._core.fits(page_id):
            moves.append(self._move())
        if self._decision.arriving != EMPTY:
            self.memory.queue.retrieve(page_id)
        self._tidy(place)
        return moves

    def ask(self, question: str) -> list[Move]:
        """Bring into main context what a question needs.

        Returns:
            What was done, in order; the last is a YIELD.
        """
        self._core.clock += 1
        self.queries_asked += 1
        if not len(self.pages):
            return [Move(Op.YIELD, None, is_forced=True)]
        self._question = question
        self._decision = _Decision(EMPTY, Focus(question=question), set(), [])
        if self._core.num_resident:  # the resident page that ranks first is used
            state, tensors = self._state()
            window = window_scores(state, tensors, self.options)
            self._core.touch(self.pages.page_ids[int(first_page(window.scores, window.resident))])
        self._stage()
        moves = [self._move()]
        while moves[-1].op is not Op.YIELD:
            moves.append(self._move())
        self._tidy(len(self.pages) - 1)
        return moves

    def _tidy(self, newest: int) -> None:
        self._decision = _Decision(EMPTY, Focus(), set(), [])
        self.pages.forget_but({newest, *self._residents(), *self._archived})

    # ------------------------------------------------------------------ decisions

    def _move(self) -> Move:
        """Have the policy choose where there is a choice, and carry it out."""
        state, tensors = self._state()
        mask = action_mask(state, self.options)
        is_forced = not bool(mask[0, 1:].any())
        action = 0
        if not is_forced:
            observation = observe(state, tensors, self.options)
            observation["action_mask"] = mask
            action = int(self.policy.act(observation, mask)[0])
        if not mask[0, action]:
            action = 0  # as in the environment
        op, row = self.layout.decode(action)
        return Move(op, self._apply(op, row), is_forced)

    def _apply(self, op: Op, row: int) -> int | None:
        """Carry out a legal operation; the id of the page it was about."""
        decision = self._decision
        if op is Op.YIELD:
            return self._yield()
        decision.operations_used += 1
        if op is Op.NEXT:
            decision.result_page += 1
            return None
        place = self._candidates()[row] if op is Op.RETRIEVE else self._slots()[row]
        page_id = self.pages.page_ids[place]
        if op is Op.EVICT:
            self._evict(place)
        elif op is Op.STORE:
            self._store(page_id)
        elif op is Op.SEARCH:
            decision.focus = Focus(page=place)
            self._core.touch(page_id)
            self._stage()
        else:
            for victim in self._core.victims_for(page_id):
                self.memory.queue.evict(victim)
            self.memory.queue.retrieve(page_id)
            self._core.touch(page_id)
            decision.retrieved.add(place)
        return page_id

    def _yield(self) -> int | None:
        if self._decision.arriving == EMPTY:
            return None
        victim = self._core.victim
        self.memory.queue.evict(victim)
        if self.options.evict_fraction:
            limit = (1 - self.options.evict_fraction) * self.options.capacity
            while self._core.num_resident and self._core.occupied_tokens > limit:
                self.memory.queue.evict(self._core.victim)
        return victim

    def _evict(self, place: int) -> None:
        if place == self._decision.arriving:  # it goes past main context
            self._decision.arriving = EMPTY
            return
        self._decision.retrieved.discard(place)
        self.memory.queue.evict(self.pages.page_ids[place])

    def _store(self, page_id: int) -> None:
        (page,) = self.memory.recall.get([page_id])
        self.memory.archival.insert(page.text, page_id=page_id, role=page.role, time=page.time)
        self._archived = self._in_archival()  # a full archive has dropped one

    # ------------------------------------------------------------------ search

    def _stage(self) -> None:
        self._decision.ranking, self._decision.result_page = [], 0
        state, tensors = self._state()
        window = window_scores(state, tensors, self.options)
        ranking, num_hits = rank_candidates(window, state, self.options)
        self._decision.ranking = ranking[0, : int(num_hits[0])].tolist()

    def _candidates(self) -> list[int]:
        """(K,) candidate rows; see `envs.process`."""
        k, decision = self.options.num_candidates, self._decision
        hits = decision.ranking[decision.result_page * k : (decision.result_page + 1) * k]
        resident, archived = set(self._residents()), set(self._archived)
        reaches_all = self.options.stage_from == "both"
        rows = [
            place if place not in resident and (reaches_all or place in archived) else EMPTY
            for place in hits
        ]
        return rows + [EMPTY] * (k - len(rows))

    def _in_archival(self) -> list[int]:
        return [self.pages.place(page_id) for page_id in self.memory.archival.page_ids]

    # ------------------------------------------------------------------ views

    def _residents(self) -> list[int]:
        return [self.pages.place(page_id) for page_id in self._core.queue]

    def _slots(self) -> list[int]:
        """(N,) page in each slot row, the arriving page last."""
        slots = [EMPTY if p == EMPTY else self.pages.place(p) for p in self._core.slot_page]
        return [*slots, self._decision.arriving]

    def _sizes(self, places: Sequence[int]) -> list[int]:
        ids = self.pages.page_ids
        return [0 if p == EMPTY else self._core.page_tokens(ids[p]) for p in places]

    def _state(self) -> tuple[PagingState, TableTensors]:
        """The memory as one episode, B = 1, and the tensors that belong to its focus."""
        core, decision = self._core, self._decision
        slots, candidates = self._slots(), self._candidates()
        at_query = decision.arriving == EMPTY
        focus = decision.focus
        k = self.options.num_candidates
        archived = torch.zeros((1, len(self.pages)), dtype=torch.bool)
        archived[0, self._archived] = True

        def one(value: int) -> Tensor:
            return torch.tensor([value])

        def row(values: Sequence[int]) -> Tensor:
            return torch.tensor([list(values)], dtype=torch.int64)

        state = PagingState(
            document=one(0),
            first_page=one(0),
            num_pages=one(len(self.pages)),
            slot_page=row(slots),
            slot_size=row(self._sizes(slots)),
            slot_time_in=row([*core.slot_time_in, core.clock]),
            slot_last_use=row([*core.slot_last_use, core.clock]),
            slot_uses=row([*core.slot_uses, 0]),
            slot_sequence=row([*core.slot_sequence, 0]),
            slot_retrieved=row([place in decision.retrieved for place in slots]) != 0,
            archived=archived,
            candidate_page=row(candidates),
            candidate_size=row(self._sizes(candidates)),
            more_candidates=one(k > 0 and (decision.result_page + 1) * k < len(decision.ranking)),
            at_query=one(at_query) != 0,
            focus_is_query=one(focus.page is None) != 0,
            focus=one(focus.page or 0),
            clock=one(core.clock),
            pages_arrived=one(len(self.pages)),
            queries_asked=one(self.queries_asked),
            operations_used=one(decision.operations_used),
        )
        shown = [place for place in (*slots, *candidates) if place != EMPTY]
        tensors = self.pages.tensors(
            # The question's surface is read with every focus.
            Focus(focus.page, self._question),
            resident=[place for place in slots if place != EMPTY],
            archived=self._archived,
            shown=shown,
        )
        return state, tensors
