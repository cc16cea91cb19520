"""The slow, obvious model of the decision process and of its legal actions.

Made of lists and dicts, from the rules and not from the implementation; the tests play both side by
side. Nothing here is fast, batched or clever.
"""

from __future__ import annotations

from reference_core import Focus, ModelCore, ModelWorld

from memrl.actions import Op
from memrl.options import PagingOptions

SCALE = 32767
"""Quantised value of a score of 1."""

Move = tuple[Op, int]


class ModelEpisode:
    """The decision process, up to its next real decision; `step` mirrors `PagingEnv.step`."""

    def __init__(self, world: ModelWorld, options: PagingOptions) -> None:
        archival = options.archival_capacity
        self.world, self.options = world, options
        self.core = ModelCore(
            int(options.capacity),
            int(options.num_slots or 0),
            None if archival is None else int(archival),
        )
        self.passed = 0  # events
        self.phase = "running"
        self.arriving: int | None = None
        self.query: int | None = None
        self.focus: Focus | None = None
        self.spent = 0  # operations at this decision point
        self.retrieved: list[int] = []
        self.ranking: list[int] = []
        self.shown_from = 0
        self.asked = self.illegal = 0
        self.uses: dict[int, list[int]] = {}  # clocks of the uses of each resident page
        self.came_in: dict[int, int] = {}
        self.operations = dict.fromkeys(Op, 0)
        self.answers: list[tuple[int, float | None, int, list[float]]] = []
        self.tokens_retrieved = self.tokens_read = 0
        self.requests = self.hits = 0
        self.absent: list[int] = []  # needs outside main context when the query was asked
        self.ever_stored = set(range(world.num_preloaded))
        self.stored_before: set[int] = set()  # the query was asked
        self.archived_then: list[int] = []
        self.brought: set[int] = set()  # for the query, whether still there or not
        self.shown: set[int] = set()  # candidates shown since then
        self.terms: dict[str, float] = {}
        for page in range(world.num_preloaded):
            self.core.preload(page, self._size(page))
        self._next_event()
        self._skip_forced()

    # ------------------------------------------------------------------ what is legal

    def legal(self) -> set[Move]:
        """Every legal (operation, argument); written down as plainly as the rules can be."""
        moves: set[Move] = {(Op.YIELD, 0)}
        if self.phase == "end" or self.spent >= self.options.operation_budget:
            return moves
        if self.options.evict_scope == "any":
            moves |= {(Op.EVICT, slot) for slot in self.core.slots}
        if self.phase == "pressure" and self.options.admission == "optional":
            moves.add((Op.EVICT, self.core.num_slots))
        moves |= {(Op.STORE, row) for row, page in self.rows().items() if self._may_store(page)}
        if self.phase == "query":
            if self.shown_from + self.options.num_candidates < len(self.ranking):
                moves |= {(Op.NEXT, 0)} if self.options.num_candidates else set()
            searchable = {s for s, page in self.core.slots.items() if self.focus != ("page", page)}
            moves |= {(Op.SEARCH, slot) for slot in searchable}
            moves |= {(Op.RETRIEVE, k) for k, page in self.candidates().items() if self._may(page)}
        return moves

    def rows(self) -> dict[int, int]:
        """Slot rows that hold a page; the last one is the arriving page."""
        arriving = {} if self.arriving is None else {self.core.num_slots: self.arriving}
        return self.core.slots | arriving

    def _may_store(self, page: int) -> bool:
        if page in self.core.archive or self.core.archival_capacity == 0:
            return False
        if self.options.store_scope == "any":
            return True
        if not self.core.main or page != self.core.main[0]:
            return False
        endangered = self.phase == "pressure" or any(
            self._may(other) and self.core.victims_for(other)
            for other in self.candidates().values()
        )
        return endangered

    def _may(self, page: int) -> bool:
        """Whether a candidate may be retrieved: no victim was retrieved for this query."""
        return not set(self.core.victims_for(page)) & set(self.retrieved)

    def candidates(self) -> dict[int, int]:
        """Candidate rows that hold a page."""
        shown = self.ranking[self.shown_from : self.shown_from + self.options.num_candidates]
        return {row: page for row, page in enumerate(shown) if self._reachable(page)}

    def _reachable(self, page: int) -> bool:
        if page in self.core.main:
            return False
        return page in self.core.archive or self.options.stage_from == "both"

    # ------------------------------------------------------------------ what happens

    def step(self, move: Move) -> dict[str, float]:
        """Play one move and all forced ones after it; return the terms of the reward."""
        if self.phase != "end":
            if move in self.legal():
                self.operations[move[0]] += 1
                self._play(*move)
            else:
                self.illegal += 1
                self._pay("cost/illegal", -self.options.reward.illegal)
                self._yield()
            self._skip_forced()
        terms, self.terms = self.terms, {}
        return terms

    def _skip_forced(self) -> None:
        while self.phase != "end" and self.legal() == {(Op.YIELD, 0)}:
            self._yield()

    def _play(self, op: Op, row: int) -> None:
        self._carry_out(op, row)
        if self.phase == "query":
            self.shown |= set(self.candidates().values())

    def _carry_out(self, op: Op, row: int) -> None:
        if op is Op.YIELD:
            self._yield()
            return
        self.spent += 1
        reward = self.options.reward
        if op is Op.NEXT:
            self.shown_from += self.options.num_candidates
            self._pay("cost/next", -reward.next)
        elif op is Op.STORE:
            self.core.store(self.rows()[row])
            self.ever_stored.add(self.rows()[row])
            self._pay("cost/store", -reward.store)
        elif op is Op.SEARCH:
            self.uses[self.core.slots[row]].append(self.passed)
            self._stage(("page", self.core.slots[row]))
            self._pay("cost/search", -reward.search)
        elif op is Op.RETRIEVE:
            self._retrieve(self.candidates()[row])
        elif self.phase == "query":
            page = self.core.slots[row]
            self.core.page_out(page)
            self.retrieved = [other for other in self.retrieved if other != page]
            self._pay("cost/evict", -reward.evict)
        elif row == self.core.num_slots:
            self._next_event()
        else:
            self.core.page_out(self.core.slots[row])
            self._let_in()

    def _retrieve(self, page: int) -> None:
        for victim in self.core.victims_for(page):
            self.core.page_out(victim)
        self._page_in(page)
        self.uses[page].append(self.passed)
        self.retrieved.append(page)
        self.brought.add(page)
        self.tokens_retrieved += self.tokens(page)
        self._pay("cost/retrieve", -self.options.reward.retrieve)
        self._pay("cost/tokens", -self.options.reward.tokens * self.tokens(page))

    def _yield(self) -> None:
        if self.phase == "pressure":
            self.core.page_out(self.core.main[0])
            # A share of exactly 0 evicts just until the arriving page fits.
            full = (1 - self.options.evict_fraction) * self.core.capacity
            while self.options.evict_fraction and self.core.occupied() > full:
                self.core.page_out(self.core.main[0])
            self._let_in()
            return
        assert self.query is not None
        needs = self.world.needs[self.query]
        evidence = None
        if self.world.pays[self.query]:
            evidence = len([page for page in needs if page in self.core.main]) / len(needs)
            self._pay("evidence", self.options.reward.evidence * evidence)
        self.tokens_read += sum(self.tokens(page) for page in self.core.main)
        came_to = (self.stored_before, self.archived_then, self.shown, self.brought, self.retrieved)
        shares = [
            len([page for page in self.absent if page in pages]) / max(len(self.absent), 1)
            for pages in came_to
        ]
        self.answers.append((self.query, evidence, len(self.absent), shares))
        self._next_event()

    def _let_in(self) -> None:
        assert self.arriving is not None
        if self.core.fits(self.arriving):
            self._page_in(self.arriving)
            self._next_event()

    def _next_event(self) -> None:
        self.arriving = self.query = self.focus = None
        self.spent, self.shown_from = 0, 0
        self.retrieved, self.ranking = [], []
        self.phase = "running"
        while self.phase == "running":
            if self.passed == len(self.world.events):
                self.phase = "end"
                return
            kind, index = self.world.events[self.passed]
            self.passed += 1
            if kind == "query":
                self._ask(index)
            elif kind == "page" or not self._hit(index):
                self._arrive(index)

    def _hit(self, page: int) -> bool:
        self.requests += 1
        if page not in self.core.main:
            return False
        self.hits += 1
        self.uses[page].append(self.passed)
        self._pay("evidence", self.options.reward.evidence)
        return True

    def _arrive(self, page: int) -> None:
        if page not in self.core.recall:
            self.core.see(page, self._size(page))
        if self.core.fits(page):
            self._page_in(page)
        else:
            self.phase, self.arriving, self.focus = "pressure", page, ("page", page)

    def _ask(self, query: int) -> None:
        self.phase, self.query = "query", query
        self.asked += 1
        if self.core.main:
            best = self.ranked(("query", query), self.core.main)[0]
            self.uses[best].append(self.passed)
        self.absent = [page for page in self.world.needs[query] if page not in self.core.main]
        self.stored_before, self.brought = set(self.ever_stored), set()
        self.archived_then = list(self.core.archive)
        self._stage(("query", query))
        self.shown = set(self.candidates().values())

    def _page_in(self, page: int) -> None:
        self.core.page_in(page)
        self.came_in[page], self.uses[page] = self.passed, []

    def _size(self, page: int) -> int:
        return 1 if self.options.unit == "pages" else self.tokens(page)

    def tokens(self, page: int) -> int:
        """Tokens that a page takes in main context, where it may stand truncated."""
        tokens = self.world.page_tokens[page]
        return tokens if self.options.unit == "pages" else min(tokens, self.core.capacity)

    def _pay(self, term: str, value: float) -> None:
        self.terms[term] = self.terms.get(term, 0.0) + value

    # ------------------------------------------------------------------ search

    def available(self, page: int) -> bool:
        return page in self.core.main or page in self.core.archive

    def _stage(self, focus: Focus) -> None:
        self.focus, self.shown_from = focus, 0
        hits = [page for page in self.core.archive if page not in self.core.main]
        if self.options.stage_from == "both":
            lost = [page for page in self.core.recall if not self.available(page)]
            hits += [page for page in lost if self.world.lexical[focus][page] > 0]
        self.ranking = self.ranked(focus, hits)

    def ranked(self, focus: Focus, hits: list[int]) -> list[int]:
        return sorted(hits, key=lambda page: (-self.score(focus, page), page))

    def score(self, focus: Focus, page: int) -> int:
        """By how much a page is ranked; the rules of `memrl.staging`, one page at a time."""
        dense, lexical = self.world.dense[focus], self.world.lexical[focus][page]
        seen_dense = dense[page] if self.available(page) else None
        method = self.options.staging
        if method == "lexical":
            return lexical
        if method == "dense":
            return lexical if seen_dense is None else seen_dense
        hybrid = lexical + (seen_dense or 0)
        if method == "hybrid":
            return hybrid
        near = [dense[other] for other in (page - 1, page + 1) if self._is_near(other)]
        is_named = self.world.speaker[page] in self.world.names[focus]
        return 10 * hybrid + 3 * max(near, default=0) + 2 * SCALE * is_named

    def _is_near(self, page: int) -> bool:
        return 0 <= page < len(self.world.page_tokens) and self.available(page)
