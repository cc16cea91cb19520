"""The paging core against its model, on sequences of moves that hypothesis invents."""

from __future__ import annotations

import pytest
import table_fixtures  # noqa: F401 - loads the deterministic hypothesis profile
from hypothesis import given, settings
from hypothesis import strategies as st
from reference_core import ModelCore

from memrl.memory.paging import EMPTY, PagingCore

CORES = st.fixed_dictionaries(
    {
        "capacity_tokens": st.integers(1, 20),
        "num_slots": st.integers(1, 5),
        "archival_capacity": st.sampled_from([None, 0, 1, 2, 5]),
        "num_preloaded": st.integers(0, 3),
    }
)
MOVES = st.lists(
    st.tuples(
        st.sampled_from(["arrive", "arrive", "evict", "victim", "store", "retrieve", "touch"]),
        st.integers(0, 30),
    ),
    max_size=60,
)


def make(
    capacity_tokens: int = 4, num_slots: int = 3, archival_capacity: int | None = 2
) -> PagingCore:
    return PagingCore(
        capacity_tokens=capacity_tokens, num_slots=num_slots, archival_capacity=archival_capacity
    )


def filled(*pages: int) -> PagingCore:
    core = make()
    for page in pages:
        core.see(page, 1)
        core.page_in(page)
    return core


class Pair:
    """The core and its model, moved together."""

    def __init__(
        self,
        capacity_tokens: int,
        num_slots: int,
        archival_capacity: int | None,
        num_preloaded: int,
    ) -> None:
        self.core = make(capacity_tokens, num_slots, archival_capacity)
        self.model = ModelCore(capacity_tokens, num_slots, archival_capacity)
        places = num_preloaded if archival_capacity is None else archival_capacity
        self.num_preloaded = min(num_preloaded, places)
        for page in range(self.num_preloaded):
            self.core.preload(page, 1)
            self.model.preload(page, 1)
        self.uses: dict[int, list[int]] = {}
        self.time_in: dict[int, int] = {}

    def move(self, kind: str, number: int) -> None:
        """Play a move on a page that `number` picks; a move without any page is left out."""
        self.core.clock += 1
        if kind == "arrive":
            page, size = len(self.model.recall), 1 + number % self.model.capacity
            self.core.see(page, size)
            self.model.see(page, size)
            self._page_in(page)
            return
        pool = {
            "evict": self.model.main,
            "victim": self.model.main[:1],
            "touch": self.model.main,
            "store": [] if self.model.archival_capacity == 0 else self.model.recall,
            "retrieve": [page for page in self.model.archive if page not in self.model.main],
        }[kind]
        if not pool:
            return
        page = pool[number % len(pool)]
        if kind in ("evict", "victim"):
            slot = self.core.slot_of(page)
            assert self.core.page_out(page) == slot
            self.model.page_out(page)
        elif kind == "touch":
            self.core.touch(page)
            self.uses[page].append(self.core.clock)
        elif kind == "store":
            before = list(self.model.archive)
            self.model.store(page)
            lost = set(before) - set(self.model.archive)
            assert self.core.store(page) == (lost.pop() if lost else EMPTY)
        else:
            self._page_in(page)

    def _page_in(self, page: int) -> None:
        victims = self.core.victims_for(page)
        assert victims == self.model.victims_for(page)
        assert self.core.fits(page) == self.model.fits(page) == (not victims)
        for victim in victims:
            assert self.core.victim == victim
            self.core.page_out(victim)
            self.model.page_out(victim)
        slot = self.core.page_in(page)
        self.model.page_in(page)
        assert self.model.slots[slot] == page
        self.uses[page], self.time_in[page] = [], self.core.clock

    def check(self) -> None:
        core, model = self.core, self.model
        assert core.queue == model.main
        assert core.archive == model.archive
        assert list(core.recall) == model.recall
        assert core.victim == (model.main[0] if model.main else EMPTY)
        assert core.num_resident == len(model.main)
        assert core.num_archived == len(model.archive)
        assert core.occupied_tokens == model.occupied()
        for page in model.recall:
            assert core.page_tokens(page) == model.size[page]
            assert core.is_resident(page) == (page in model.main)
            assert core.is_archived(page) == (page in model.archive)
        for slot in range(core.num_slots):
            self._check_slot(slot)
        self._check_counts()

    def _check_slot(self, slot: int) -> None:
        core, page = self.core, self.model.slots.get(slot, EMPTY)
        assert core.slot_page[slot] == page
        assert core.slot_tokens[slot] == (0 if page == EMPTY else self.model.size[page])
        if page != EMPTY:
            uses = self.uses[page]
            assert core.slot_of(page) == slot
            assert core.slot_uses[slot] == len(uses)
            assert core.slot_time_in[slot] == self.time_in[page]
            assert core.slot_last_use[slot] == max([self.time_in[page], *uses])

    def _check_counts(self) -> None:
        counts, model = self.core.counts, self.model
        assert counts.pages_seen == model.count("see")
        assert counts.pages_in == model.count("in")
        assert counts.pages_out == model.count("out")
        assert counts.tokens_in == model.tokens("in")
        assert counts.tokens_out == model.tokens("out")
        assert counts.stores == model.count("store")
        assert counts.drops == model.count("drop")
        assert counts.losses == model.count("loss")


@settings(max_examples=150)
@given(CORES, MOVES)
def test_core_equals_the_model_after_every_move(
    limits: dict[str, int], moves: list[tuple[str, int]]
) -> None:
    pair = Pair(**limits)
    for kind, number in moves:
        pair.move(kind, number)
        pair.check()


@settings(max_examples=150)
@given(CORES, MOVES)
def test_limits_and_accounting_hold_after_every_move(
    limits: dict[str, int], moves: list[tuple[str, int]]
) -> None:
    pair = Pair(**limits)
    core = pair.core
    recall: list[int] = []
    for kind, number in moves:
        pair.move(kind, number)
        counts, places = core.counts, core.archival_capacity
        resident = [page for page in core.slot_page if page != EMPTY]
        assert sum(core.slot_tokens) == core.occupied_tokens <= core.capacity_tokens
        assert len(resident) == len(set(resident)) == core.num_resident <= core.num_slots
        assert places is None or core.num_archived <= places
        assert counts.pages_in - counts.pages_out == core.num_resident
        assert counts.tokens_in - counts.tokens_out == core.occupied_tokens
        assert pair.num_preloaded + counts.stores - counts.drops == core.num_archived
        assert counts.losses <= counts.pages_out
        assert list(core.recall)[: len(recall)] == recall, "recall is append-only"
        recall = list(core.recall)
        assert counts.pages_seen == len(recall)
        assert set(resident) | set(core.archive) <= set(recall)
        by_sequence = sorted(resident, key=lambda page: core.slot_sequence[core.slot_of(page)])
        assert by_sequence == core.queue


@given(CORES, MOVES, st.integers(0, 30))
def test_store_evict_retrieve_restores(
    limits: dict[str, int], moves: list[tuple[str, int]], number: int
) -> None:
    pair = Pair(**limits)
    for move in moves:
        pair.move(*move)
    core = pair.core
    if core.archival_capacity == 0 or not core.queue:
        return
    page = core.queue[number % core.num_resident]
    occupied, residents = core.occupied_tokens, set(core.queue)
    core.store(page)
    losses = core.counts.losses
    core.page_out(page)
    assert core.counts.losses == losses, "a stored page is not lost"
    assert not core.is_resident(page)
    assert core.victims_for(page) == [], "its own place is free"
    core.page_in(page)
    assert core.is_archived(page)
    assert core.queue[-1] == page
    assert (core.occupied_tokens, set(core.queue)) == (occupied, residents)


def test_store_is_idempotent() -> None:
    core = filled(0, 1)
    assert core.store(0) == EMPTY
    assert core.store(1) == EMPTY
    assert core.store(0) == EMPTY
    assert core.archive == [0, 1], "storing again does not make a page younger"
    assert (core.counts.stores, core.counts.drops) == (2, 0)


def test_a_full_archive_drops_the_page_stored_first() -> None:
    core = filled(0, 1, 2)
    core.store(2)
    core.store(0)
    assert core.store(1) == 2
    assert core.archive == [0, 1]
    assert core.is_resident(2), "the drop leaves main context alone"
    core.page_out(2)
    assert core.counts.losses == 1


def test_preloaded_pages_are_dropped_first_and_are_nobodys_stores() -> None:
    core = make(archival_capacity=2)
    core.preload(5, 1)
    core.preload(4, 1)
    assert (core.archive, list(core.recall), core.queue) == ([5, 4], [5, 4], [])
    with pytest.raises(ValueError, match="Page 6 cannot be preloaded: archival holds 2 pages"):
        core.preload(6, 1)
    core.see(6, 1)
    assert core.store(6) == 5
    assert (core.counts.stores, core.counts.drops, core.counts.pages_seen) == (1, 1, 3)


def test_queue_is_fifo_and_a_retrieved_page_goes_to_its_back() -> None:
    core = filled(0, 1, 2)
    core.store(0)
    core.page_out(0)
    assert core.victim == 1
    assert core.page_in(0) == 0, "the lowest free slot"
    assert core.queue == [1, 2, 0]


def test_victims_are_the_shortest_run_of_oldest_pages() -> None:
    core = make(capacity_tokens=10, num_slots=3)
    for page, size in enumerate([4, 3, 3]):
        core.see(page, size)
        core.page_in(page)
    for page, size, victims in ((3, 4, [0]), (4, 5, [0, 1]), (5, 10, [0, 1, 2]), (6, 1, [0])):
        core.see(page, size)
        assert core.victims_for(page) == victims


def test_touch_moves_no_page() -> None:
    core = filled(0, 1)
    core.clock = 7
    core.touch(0)
    core.touch(0)
    slot = core.slot_of(0)
    assert (core.slot_uses[slot], core.slot_last_use[slot], core.victim) == (2, 7, 0)


class RecordingSearch:
    def rank(self, archived: list[int], recall_only: list[int]) -> list[int]:
        self.asked = archived, recall_only
        return [*recall_only, *archived]


def test_stage_offers_only_pages_outside_main_context() -> None:
    core = filled(0, 1, 2)
    for page in (1, 0):
        core.store(page)
    core.page_out(1)
    core.page_out(2)
    search = RecordingSearch()
    assert core.stage(search, "archival") == [1]
    assert search.asked == ([1], [])
    assert core.stage(search, "both") == [2, 1]
    assert search.asked == ([1], [2])


@pytest.mark.parametrize(
    ("field", "value"), [("capacity_tokens", 0), ("num_slots", 0), ("archival_capacity", -1)]
)
def test_impossible_limits_are_refused(field: str, value: int) -> None:
    with pytest.raises(ValueError, match=rf"{field} must be .*got {value}"):
        make(**{field: value})


@pytest.mark.parametrize("size", [0, -1, 5])
def test_page_of_impossible_size_is_refused(size: int) -> None:
    with pytest.raises(ValueError, match=rf"Page 0 has {size} tokens, outside 1\.\.4"):
        make().see(0, size)


def test_misuse_is_refused_and_changes_nothing() -> None:
    core = filled(0, 1, 2)
    core.see(3, 1)
    with pytest.raises(ValueError, match="Page 3 has been seen before"):
        core.see(3, 1)
    with pytest.raises(ValueError, match="Page 1 is in main context already"):
        core.page_in(1)
    with pytest.raises(ValueError, match="Page 3 does not fit"):
        core.page_in(3)
    with pytest.raises(ValueError, match="Page 9 was never seen"):
        core.store(9)
    for call in (core.page_out, core.touch, core.slot_of):
        with pytest.raises(KeyError):
            call(3)
    with pytest.raises(KeyError):
        core.page_tokens(9)
    assert core.queue == [0, 1, 2]
    assert (core.counts.pages_in, core.counts.pages_out, core.counts.stores) == (3, 0, 0)


def test_archive_without_room_refuses_to_store() -> None:
    core = make(archival_capacity=0)
    core.see(0, 1)
    with pytest.raises(ValueError, match="archival_capacity is 0"):
        core.store(0)
