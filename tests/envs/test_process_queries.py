"""The decision process at queries, on cases worked out by hand."""

from __future__ import annotations

import pytest
from play_by_hand import TEXTS, Play, apples
from table_fixtures import REWARD, table_of, with_scores

from envs.process import Phase
from memrl.actions import Op
from memrl.documents import Query
from memrl.episode_log import FUNNEL_STEPS
from memrl.memory.paging import EMPTY

# ---------------------------------------------------------------------- queries


def test_a_query_stages_what_is_stored_best_first() -> None:
    play = Play(apples(6), num_candidates=2)
    for slot in (0, 1, 2):
        play(Op.STORE, slot)
    assert play.process.phase is Phase.QUERY
    assert play.queue == [3, 4, 5]
    assert play.process.ranking == [0, 2, 1]
    assert play.process.candidates() == [0, 2]
    assert play(Op.NEXT) == {"cost/next": -REWARD.next}
    assert play.process.candidates() == [1, EMPTY]
    assert (Op.NEXT, 0) not in play.legal, "the last page of results"


def test_retrieve_goes_to_the_back_of_the_queue_and_pays_for_its_tokens() -> None:
    play = Play(apples(6))
    play(Op.STORE, 0)
    play(Op.YIELD)
    play(Op.YIELD)
    assert play.queue == [3, 4, 5]
    tokens = int(play.play.table.page_tokens[0])
    expected = {"cost/retrieve": -REWARD.retrieve, "cost/tokens": -tokens * REWARD.tokens}
    assert play(Op.RETRIEVE, 0) == expected
    assert play.queue == [4, 5, 0]
    assert play.process.core.is_archived(0), "it stays archived"
    assert play.process.candidates()[0] == EMPTY
    assert play(Op.YIELD) == {"evidence": 1.0}
    assert play.terminated


def test_candidate_rows_never_shift() -> None:
    play = Play(apples(6), num_candidates=3, evict_scope="any")
    for slot in (0, 1, 2):
        play(Op.STORE, slot)
        play(Op.YIELD)
    assert play.process.candidates() == [0, 2, 1]
    play(Op.RETRIEVE, 1)
    assert play.process.candidates() == [0, EMPTY, 1]
    play(Op.RETRIEVE, 0)
    assert play.process.candidates() == [EMPTY, EMPTY, 1]
    play(Op.EVICT, play.process.core.slot_of(2))
    assert play.process.candidates() == [EMPTY, 2, 1], "the same row as before"


def test_nothing_retrieved_for_this_query_is_evicted_for_another_candidate() -> None:
    play = Play(apples(6), capacity=2)
    for slot in (0, 1, 0, 1):
        play(Op.STORE, slot)
    assert play.process.candidates()[:4] == [0, 2, 1, 3]
    play(Op.RETRIEVE, 0)
    play(Op.RETRIEVE, 1)
    assert play.queue == [0, 2]
    assert {op for op, _ in play.legal} == {Op.YIELD, Op.SEARCH}


def test_a_retrieved_page_may_leave_again_by_choice_and_at_a_cost() -> None:
    play = Play(apples(6), capacity=2, evict_scope="any")
    for slot in (0, 1, 0, 1):
        play(Op.STORE, slot)
        play(Op.YIELD)
    play(Op.RETRIEVE, 0)
    play(Op.RETRIEVE, 1)
    assert play(Op.EVICT, play.process.core.slot_of(2)) == {"cost/evict": -REWARD.evict}
    assert play(Op.RETRIEVE, 2)["cost/retrieve"] == -REWARD.retrieve
    assert play.queue == [0, 1]


def test_a_victim_that_a_retrieval_would_lose_can_be_stored_first() -> None:
    play = Play(apples(6))
    assert play(Op.STORE, 0) == {"cost/store": -REWARD.store}
    play(Op.YIELD)
    play(Op.YIELD)
    assert play.queue == [3, 4, 5]
    slot = play.process.core.slot_of(3)
    assert {move for move in play.legal if move[0] is Op.STORE} == {(Op.STORE, slot)}
    play(Op.STORE, slot)
    assert not any(op is Op.STORE for op, _ in play.legal)
    play(Op.RETRIEVE, 0)
    assert play.process.core.counts.losses == 2


def test_no_victim_is_in_danger_while_no_candidate_would_push_it_out() -> None:
    play = Play(apples(6))
    for _ in range(3):
        play(Op.YIELD)
    assert not any(op is Op.STORE for op, _ in play.legal)


def test_search_makes_a_page_the_focus_and_begins_at_the_first_results() -> None:
    play = Play(apples(6), num_candidates=1, staging="lexical")
    for slot in (0, 1, 2):
        play(Op.STORE, slot)
    play(Op.NEXT)
    assert play.process.result_page == 1
    core = play.process.core
    slot = core.slot_of(4)
    uses = core.slot_uses[slot]
    assert play(Op.SEARCH, slot) == {"cost/search": -REWARD.search}
    assert (core.slot_uses[slot], core.slot_last_use[slot]) == (uses + 1, core.clock)
    assert play.process.result_page == 0
    assert (play.process.focus_is_query, play.process.focus_page) == (False, 4)
    assert (Op.SEARCH, slot) not in play.legal, "that page is the focus already"
    assert play.process.ranking == [0, 2, 1], "Ann says 0, 2 and 4; ties go by page order"


def test_both_stages_what_recall_alone_holds_by_its_lexical_score() -> None:
    table = with_scores(apples(6), query=0, lexical=[0.0, 0.7, 0.6, 0.0, 0.0, 0.0])
    play = Play(table, stage_from="both", staging="lexical", archival_capacity=0)
    assert play.process.phase is Phase.QUERY
    assert play.process.ranking == [1, 2], "page 0 matches no word: it is no hit"
    play(Op.RETRIEVE, 0)
    assert play.queue == [4, 5, 1]
    assert not play.process.core.is_archived(1)


def test_several_queries_at_one_time_are_asked_one_after_the_other() -> None:
    play = Play(apples(6, 6))
    play(Op.STORE, 0)
    play(Op.YIELD)
    play(Op.YIELD)
    play(Op.RETRIEVE, 0)
    assert play(Op.YIELD) == {"evidence": 1.0}
    assert (play.process.query, play.process.retrieved) == (1, set())
    assert play(Op.YIELD) == {"evidence": 1.0}
    assert [answer.query for answer in play.play.log(0).answers] == [0, 1]


def test_the_resident_that_the_query_ranks_first_is_used() -> None:
    play = Play(apples(3))
    core = play.process.core
    assert core.slot_uses == [1, 0, 0]
    assert core.slot_last_use == [4, 2, 3], "clocks; page i arrived at event i + 1"


# ---------------------------------------------------------------------- evidence


@pytest.mark.parametrize(
    ("needs", "evidence"),
    [((3,), 1.0), ((0,), 0.0), ((0, 4), 0.5), ((1, 2, 5), 1 / 3), ((3, 4, 5), 1.0)],
)
def test_evidence_is_the_share_of_needs_in_main_context(
    needs: tuple[int, ...], evidence: float
) -> None:
    play = Play(apples(6, needs=needs), archival_capacity=0)
    expected = {"evidence": evidence} if evidence else {}
    assert play(Op.YIELD) == expected
    answer = play.play.log(0).answers[0]
    assert answer.evidence == evidence
    assert answer.absent == len([need for need in needs if need < 3])


@pytest.mark.parametrize(
    "query",
    [Query("nothing?", ()), Query("never?", (3,), answerable=False, category="adversarial")],
)
def test_needless_and_unanswerable_queries_pay_nothing_and_are_logged(query: Query) -> None:
    play = Play(table_of(TEXTS, [(6, query)]), archival_capacity=0)
    assert play(Op.YIELD) == {}
    (answer,) = play.play.log(0).answers
    assert answer.evidence is None
    assert play.play.table.text.categories[answer.category] == query.category
    assert play.terminated


def test_evidence_weight_scales_the_reward_and_not_the_log() -> None:
    weights = {name: getattr(REWARD, name) for name in REWARD.__dataclass_fields__}
    play = Play(apples(6, needs=(3,)), archival_capacity=0, reward=weights | {"evidence": 0.5})
    assert play(Op.YIELD) == {"evidence": 0.5}
    assert play.play.log(0).answers[0].evidence == 1.0


# ---------------------------------------------------------------------- illegal actions, the log


def test_an_illegal_action_costs_and_acts_as_yield() -> None:
    play = Play(apples(6))
    bypass = play.play.layout.encode(Op.EVICT, 3)
    assert play.act(bypass) == {"cost/illegal": -REWARD.illegal}
    assert play.queue == [1, 2, 3]
    assert play.play.log(0).illegal == 1
    assert play.play.log(0).operations[Op.YIELD] == 0
    assert play.play.log(0).operations[Op.EVICT] == 0


def test_an_illegal_action_at_a_query_answers_it() -> None:
    play = Play(apples(3, needs=(0, 5)))
    assert play.process.query == 0
    terms = play.act(play.play.layout.encode(Op.RETRIEVE, 0))
    assert terms == {"cost/illegal": -REWARD.illegal, "evidence": 0.5}
    assert play.process.phase is Phase.PRESSURE


def test_the_log_tells_what_was_dropped_and_what_was_brought_in_and_left_again() -> None:
    play = Play(apples(6, needs=(0, 1, 2)), archival_capacity=2, evict_scope="any")
    for slot in (0, 1, 2):  # the third store drops page 0
        play(Op.STORE, slot)
        play(Op.YIELD)
    play(Op.RETRIEVE, play.process.candidates().index(1))
    play(Op.RETRIEVE, play.process.candidates().index(2))
    play(Op.EVICT, play.process.core.slot_of(1))
    play(Op.YIELD)
    (answer,) = play.play.log(0).answers
    shares = [round(3 * getattr(answer, step)) for step in FUNNEL_STEPS]
    assert [*zip(FUNNEL_STEPS, shares, strict=True)] == [
        *(("stored", 3), ("kept", 2), ("staged", 2), ("retrieved", 2), ("used", 1))
    ]


def test_the_log_tells_stored_from_staged_from_retrieved() -> None:
    play = Play(apples(6, needs=(0, 1, 2, 3)), num_candidates=1)
    play(Op.STORE, 0)
    play(Op.STORE, 1)
    play(Op.YIELD)
    play(Op.NEXT)
    play(Op.RETRIEVE, 0)  # page 1; page 0 was staged and left
    residents = play.queue
    assert residents == [4, 5, 1]
    assert play(Op.YIELD) == {"evidence": 0.25}
    log = play.play.log(0)
    (answer,) = log.answers
    assert (answer.absent, answer.evidence) == (3, 0.25)
    assert (answer.stored, answer.kept, answer.staged) == (2 / 3, 2 / 3, 2 / 3)
    assert (answer.retrieved, answer.used) == (1 / 3, 1 / 3)
    tokens = play.play.table.page_tokens
    assert log.tokens_retrieved == tokens[1]
    assert log.tokens_read == tokens[residents].sum()
    expected = {Op.YIELD: 2, Op.STORE: 2, Op.NEXT: 1, Op.RETRIEVE: 1}
    assert log.operations == dict.fromkeys(Op, 0) | expected
