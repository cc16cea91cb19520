"""The decision process under pressure, its limits and its log, on cases worked out by hand."""

from __future__ import annotations

import pytest
from play_by_hand import TEXTS, Play, apples
from table_fixtures import REWARD, table_of, with_scores

from envs.process import PagingProcess, Phase
from memrl.actions import Op
from memrl.documents import Query
from memrl.memory.paging import EMPTY
from memrl.options import PagingOptions

# ---------------------------------------------------------------------- pressure


def test_storing_the_victim_keeps_the_decision_open() -> None:
    play = Play(apples())
    assert play.process.arriving == 3
    assert play.queue == [0, 1, 2]
    assert play.legal == {(Op.YIELD, 0), (Op.STORE, 0)}
    assert play(Op.STORE, 0) == {"cost/store": -REWARD.store}
    # The victim is stored: nothing is left to decide, page 3 came in and page 4 presses.
    assert play.queue == [1, 2, 3]
    assert play.process.arriving == 4
    assert play.legal == {(Op.YIELD, 0), (Op.STORE, 1)}


def test_yield_removes_the_victim() -> None:
    play = Play(apples())
    assert play(Op.YIELD) == {}
    assert play.queue == [1, 2, 3]
    assert play.process.core.counts.losses == 1
    assert play(Op.YIELD) == {}
    assert play(Op.YIELD) == {}
    assert play.terminated
    assert play.queue == [3, 4, 5]
    assert play.process.phase is Phase.END


def test_the_same_decision_goes_on_until_the_arriving_page_fits() -> None:
    table = table_of(TEXTS[:4], tokens=[2, 2, 2, 5])
    play = Play(table, unit="tokens", capacity=6, num_slots=6, operation_budget=3)
    assert play.process.arriving == 3
    for victim in (0, 1):
        assert (Op.STORE, victim) in play.legal, "every page can be stored before it is lost"
        play(Op.STORE, victim)  # the forced eviction of the stored page follows at once
    assert play.queue == [2]
    assert play.process.operations_used == 2
    play(Op.STORE, 2)
    assert play.terminated
    assert play.queue == [3]
    assert play.process.core.archive == [0, 1, 2]


def test_the_budget_is_per_decision_point_and_leaves_only_yield() -> None:
    table = table_of(TEXTS[:5], tokens=[2, 2, 2, 5, 6])
    play = Play(table, unit="tokens", capacity=6, num_slots=6, operation_budget=1)
    play(Op.STORE, 0)
    # Pages 1 and 2 had to go unasked, and page 4 begins a decision with a fresh budget.
    assert play.process.arriving == 4
    assert play.process.operations_used == 0
    assert play.process.core.counts.losses == 2
    assert play.queue == [3]
    assert (Op.STORE, 0) in play.legal


def test_eviction_by_choice_costs_nothing_under_pressure() -> None:
    play = Play(apples(), evict_scope="any")
    assert {(Op.EVICT, 0), (Op.EVICT, 1), (Op.EVICT, 2)} <= play.legal
    assert (Op.EVICT, 3) not in play.legal, "admission is forced"
    assert play(Op.EVICT, 1) == {}
    assert play.queue == [0, 2, 3]
    assert play.process.slot_pages() == [0, 3, 2, 4]


def test_bypass_sends_the_arriving_page_past_main_context() -> None:
    play = Play(apples(), admission="optional", store_scope="any")
    assert {op for op, row in play.legal if row == 3} == {Op.EVICT, Op.STORE}
    play(Op.STORE, 3)
    assert play.process.core.archive == [3]
    assert play(Op.EVICT, 3) == {}
    assert play.queue == [0, 1, 2]
    assert play.process.arriving == 4
    assert list(play.process.core.recall) == [0, 1, 2, 3, 4]
    assert play.process.core.counts.pages_out == 0


def test_evict_fraction_leaves_that_share_of_the_capacity_free() -> None:
    table = table_of(["page"] * 9)
    play = Play(table, capacity=8, num_slots=8, evict_fraction=0.5)
    assert play.queue == [0, 1, 2, 3, 4, 5, 6, 7]
    play(Op.YIELD)
    assert play.queue == [4, 5, 6, 7, 8]


def test_evict_fraction_counts_tokens() -> None:
    table = table_of(["page"] * 5, tokens=[1, 1, 4, 2, 1])
    play = Play(table, unit="tokens", capacity=8, num_slots=8, evict_fraction=0.5)
    assert play.process.arriving == 4
    play(Op.YIELD)
    assert play.queue == [3, 4], "0, 1 and 2 leave, because 4 + 2 tokens are more than half of 8"


# ---------------------------------------------------------------------- truncation


def test_a_page_larger_than_main_context_is_truncated_to_it() -> None:
    table = table_of(["small", "huge"], [(2, Query("huge?", (1,)))], tokens=[2, 50])
    play = Play(table, unit="tokens", capacity=5, num_slots=4)
    play(Op.YIELD)
    assert play.queue == [1]
    assert play.process.core.occupied_tokens == 5
    assert play(Op.YIELD) == {"evidence": 1.0}
    assert play.play.log(0).tokens_read == 5, "what is read is what main context holds"


def test_a_truncated_page_brings_no_more_tokens_than_the_capacity() -> None:
    texts = ["huge", "small"]
    table = table_of(texts, [(2, Query("huge?", (0,)))], tokens=[50, 2])
    table = with_scores(table, query=0, dense=[0.9, 0.1])
    play = Play(table, unit="tokens", capacity=5, num_slots=4)
    play(Op.STORE, 0)
    terms = play(Op.RETRIEVE, 0)
    assert terms["cost/tokens"] == -5 * REWARD.tokens
    assert play.play.log(0).tokens_retrieved == 5


def test_with_pages_as_unit_nothing_is_truncated_and_tokens_are_paid_in_full() -> None:
    table = table_of(["huge", "small"], [(2, Query("huge?", (0,)))], tokens=[50, 2])
    play = Play(table, capacity=1)
    play(Op.STORE, 0)
    terms = play(Op.RETRIEVE, 0)
    assert terms["cost/tokens"] == -50 * REWARD.tokens


# ---------------------------------------------------------------------- limits


@pytest.mark.parametrize("capacity", [0, None, 1])
def test_archival_capacity(capacity: int | None) -> None:
    play = Play(apples(6), archival_capacity=capacity)
    if capacity == 0:
        assert play.process.phase is Phase.QUERY, "nothing can be stored: pressure asks nothing"
        assert play.process.ranking == []
        return
    for slot in (0, 1, 2):
        play(Op.STORE, slot)
    assert play.process.core.archive == ([2] if capacity == 1 else [0, 1, 2])
    assert play.process.core.counts.drops == (2 if capacity == 1 else 0)


def test_a_drop_empties_the_candidate_row_of_the_dropped_page() -> None:
    play = Play(apples(6), archival_capacity=2)
    play(Op.STORE, 0)
    play(Op.STORE, 1)
    play(Op.YIELD)
    assert play.process.candidates()[:2] == [0, 1]
    play(Op.STORE, play.process.core.slot_of(3))
    assert play.process.candidates()[:2] == [EMPTY, 1]
    assert play.process.core.archive == [1, 3]


def test_without_candidates_nothing_can_be_retrieved_nor_paged() -> None:
    play = Play(apples(6, 6), num_candidates=0)
    while not play.terminated:
        assert {op for op, _ in play.legal} <= {Op.YIELD, Op.STORE, Op.SEARCH}
        stores = sorted(move for move in play.legal if move[0] is Op.STORE)
        play(*(stores or [(Op.YIELD, 0)])[0])
    assert len(play.play.log(0).answers) == 2


def test_unresolved_options_are_refused() -> None:
    with pytest.raises(ValueError, match="needs resolved options"):
        PagingProcess(apples(), PagingOptions(capacity=0.5))
