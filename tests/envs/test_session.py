"""Live sessions worked out by hand: what is charged, and what evidence is paid."""

from __future__ import annotations

import dataclasses
from dataclasses import asdict
from typing import Any

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from session_players import (
    ON,
    Call,
    EachTurn,
    Idle,
    Scripted,
    evict,
    insert,
    retrieve,
    say,
    search,
    search_archival,
    session_of,
)
from table_fixtures import REWARD, small_table, table_of

from envs.lockstep import LockstepPaging
from envs.session import SessionResult
from memrl.config import ConfigurationError
from memrl.documents import Query
from memrl.episode_log import AnsweredQuery, ContextTexts
from memrl.evaluation.play import play
from memrl.evaluation.play_live import play_live
from memrl.memory.blocks import Block
from memrl.memory.bm25 import Bm25Statistics
from memrl.memory.embedders import HashingEmbedder
from memrl.memory.main_context import CUT_MARKER
from memrl.memory.queue_manager import QueueOptions
from memrl.memory.refusals import Reason
from memrl.options import PagingOptions
from memrl.player import Turn
from memrl.policies.heuristics import YieldOnly
from memrl.table import EpisodeTable

TEXTS = ["apple one", "pear two", "plum three", "fig four", "lime five", "kiwi six"]
TOKENS = [2, 3, 4, 5, 6, 7]


def fruit(*needs: int, times: tuple[int, ...] = (6,), **fields: Any) -> EpisodeTable:
    """Six pages, and questions with the same needs; at the end pages 4 and 5 are resident.

    With three slots and MemGPT's shares, page 3 pushes out 0 and 1, page 5 pushes out 2 and 3.
    """
    queries = [(time, Query(f"what about fruit {n}?", needs)) for n, time in enumerate(times)]
    return table_of(TEXTS, queries, **({"tokens": TOKENS} | fields))


def played(player: Any, table: EpisodeTable, **parts: Any) -> SessionResult:
    return session_of(table, **parts).play(0, player)


def terms(result: SessionResult) -> dict[str, float]:
    """The terms that are not 0, as whole numbers of the finest weight."""
    return {name: value for name, value in result.reward_terms.items() if value}


def operations(result: SessionResult) -> dict[str, int]:
    return {op.name.lower(): count for op, count in result.log.operations.items() if count}


def shown(messages: list[Any]) -> list[str]:
    """Pages of a main context, without instructions and notice."""
    return [message["content"] for message in messages if message["role"] != "system"]


def test_idle_play_pays_what_the_queue_happens_to_hold() -> None:
    player = Scripted()
    result = played(player, fruit(0, 4))
    assert terms(result) == {"evidence": 0.5}
    assert result.log.answers == [AnsweredQuery(0, 0, 0.5, 1, 0.0, 0.0, 0.0, 0.0, 0.0, 2, 2)]
    # 70 % of three slots are three pages; each flush begins another period.
    assert player.warnings == 2
    assert operations(result) == {"yield": 3}
    assert result.decisions == 3
    assert result.log.tokens_read == 6 + 7
    assert player.questions == ["what about fruit 0?"]
    assert shown(player.seen[-1]) == ["[page 4] Ann: lime five", "[page 5] Bob: kiwi six"]
    assert result.replies == (None,)


def test_a_search_brings_its_hits_in_and_each_is_charged() -> None:
    player = Scripted([[search("apple pear"), say("An apple.")]])
    result = played(player, fruit(0, 1), capacity=4)
    # Of four slots, 2 to 5 are taken when it is asked; the first hit flushes 2 and 3.
    assert shown(player.seen[-1])[-2:] == ["[page 0] Ann: apple one", "[page 1] Bob: pear two"]
    assert terms(result) == {
        "evidence": 1.0,
        "cost/search": -0.25,
        "cost/retrieve": -2 * 0.125,
        "cost/tokens": -(2 + 3) / 1024,
    }
    assert operations(result) == {"yield": 3, "search": 1, "retrieve": 2}
    assert result.log.answers == [AnsweredQuery(0, 0, 1.0, 2, 0.0, 0.0, 1.0, 1.0, 1.0, 2, 4)]
    assert result.log.tokens_retrieved == 5
    assert result.replies == ("An apple.",)
    assert result.decisions == 2 + 3  # calls; two warnings and the query


def test_what_is_resident_is_not_charged_again() -> None:
    player = Scripted([[search("kiwi"), search("apple"), search("apple")]])
    result = played(player, fruit(0))
    assert terms(result) == {
        "evidence": 1.0,
        "cost/search": -3 * 0.25,
        "cost/retrieve": -0.125,
        "cost/tokens": -2 / 1024,
    }


def test_later_pages_of_results_cost_a_next() -> None:
    calls = [search("apple pear plum"), search("apple pear plum", 1), search("apple pear plum", 9)]
    result = played(Scripted([calls]), fruit(1), session={"page_size": 1})
    assert operations(result) == {"yield": 3, "search": 1, "next": 2, "retrieve": 2}
    assert terms(result)["cost/search"] == -0.25
    assert terms(result)["cost/next"] == -2 * 0.5
    assert terms(result)["cost/retrieve"] == -2 * 0.125
    assert result.log.answers[0].staged == 1.0


def test_a_query_that_overflows_main_context_keeps_what_came_last() -> None:
    """Two slots, three hits: the third flushes what the first brought."""
    player = Scripted([[search("apple pear plum")]])
    result = played(player, fruit(0, 1, 2), capacity=2)
    hits = [hit.page_id for hit in player.results[0].hits]
    assert sorted(page for page in hits if page is not None) == [0, 1, 2]
    resident = [int(text.split("]")[0].removeprefix("[page ")) for text in shown(player.seen[-1])]
    assert resident == hits[-len(resident) :]
    assert len(resident) < 3
    answer = result.log.answers[0]
    assert answer.evidence == answer.used == len(resident) / 3
    assert (answer.absent, answer.staged, answer.retrieved) == (3, 1.0, 1.0)
    assert terms(result)["cost/retrieve"] == -3 * 0.125
    assert terms(result)["cost/tokens"] == -(2 + 3 + 4) / 1024


def test_an_entry_brings_in_the_pages_that_it_quotes() -> None:
    note = "Said first: Ann: apple one. Then \nBob: pear two"
    player = Scripted([[search_archival("apple pear")]], [[insert(note)]])
    result = played(player, fruit(0, 1), session={"with_recall": False})
    assert shown(player.seen[-1])[-2:] == ["[page 0] Ann: apple one", "[page 1] Bob: pear two"]
    assert result.log.answers == [AnsweredQuery(0, 0, 1.0, 2, 1.0, 1.0, 1.0, 1.0, 1.0, 2, 2)]
    assert terms(result) == {
        "evidence": 1.0,
        "cost/store": -0.0625,
        "cost/search": -0.25,
        "cost/retrieve": -2 * 0.125,
        "cost/tokens": -5 / 1024,
    }


@pytest.mark.parametrize(
    "note",
    [
        "the user has an apple",
        "apple one",  # without its speaker it is not the page
        "Ann: apple ones",  # part of a longer word
        "Joann: apple one",
        "Bob: kiwi six",  # has not arrived when it is written
    ],
)
def test_an_entry_that_quotes_nothing_comes_in_as_its_own_text(note: str) -> None:
    calls = [search_archival("apple"), search_archival("apple"), evict(6), search_archival("apple")]
    player = Scripted([calls], [[insert(note)]])
    result = played(player, fruit(0, 5))
    assert shown(player.seen[-1])[-1] == f"[page 6] {note}"
    assert result.log.answers[0].evidence == 0.5  # page 5 is there by itself
    assert (result.log.answers[0].stored, result.log.answers[0].staged) == (0.0, 0.0)
    assert operations(result) == {"yield": 3, "store": 1, "search": 3, "retrieve": 2, "evict": 1}
    tokens = result.log.tokens_retrieved // 2
    assert terms(result)["cost/tokens"] == -2 * tokens / 1024
    assert tokens > 1


def test_a_page_quoted_as_it_was_shown_is_quoted() -> None:
    """Markers are broken where text is shown; a player can only quote what it sees."""
    table = table_of(["<|im_end|> apple", *TEXTS[1:]], [(6, Query("fruit?", (0,)))])
    player = Scripted([[search_archival("apple")]], [[insert("Ann: < |im_end|> apple")]])
    assert played(player, table).log.answers[0].evidence == 1.0


def test_a_full_archive_drops_what_was_stored_first() -> None:
    notes = [insert("Ann: apple one"), insert("Bob: pear two")]
    player = Scripted([[search_archival("apple pear")]], [notes])
    result = played(player, fruit(0, 1), archival_capacity=1)
    assert result.log.answers == [AnsweredQuery(0, 0, 0.5, 2, 1.0, 0.5, 0.5, 0.5, 0.5, 2, 3)]
    none = played(Scripted(at_warnings=[notes]), fruit(0), archival_capacity=0)
    assert none.log.illegal == 2
    assert terms(none) == {"cost/illegal": -2 * 2.0}


def test_evictions_are_charged_at_queries_alone() -> None:
    player = Scripted([[evict(4)]], [[evict(0)]])
    result = played(player, fruit(4))
    assert operations(result)["evict"] == 2
    assert terms(result) == {"cost/evict": -0.03125}  # and the evidence is gone
    assert result.log.answers[0].evidence == 0.0


def test_a_retrieval_by_id_and_its_loss() -> None:
    kept = played(Scripted([[retrieve(0)]]), fruit(0))
    assert terms(kept) == {"evidence": 1.0, "cost/retrieve": -0.125, "cost/tokens": -2 / 1024}
    lost = played(Scripted([[retrieve(0), evict(0)]]), fruit(0))
    assert lost.log.answers == [AnsweredQuery(0, 0, 0.0, 1, 0.0, 0.0, 0.0, 1.0, 0.0, 1, 2)]
    pushed_out = played(Scripted([[retrieve(n) for n in (0, 1, 2, 3)]]), fruit(0, 3))
    answer = pushed_out.log.answers[0]
    assert (answer.retrieved, answer.used) == (1.0, 0.5)


@pytest.mark.parametrize(
    ("call", "reason"),
    [
        (("conversation_search", "{"), Reason.NOT_JSON),
        (("conversation_search", {"query": ""}), Reason.BLANK_TEXT),
        (("remember", {}), Reason.UNKNOWN_FUNCTION),
        ((None, None), Reason.UNKNOWN_FUNCTION),
        (retrieve(5), Reason.ALREADY_RESIDENT),
        (retrieve(77), Reason.UNKNOWN_PAGE),
        (evict(0), Reason.NOT_RESIDENT),
    ],
)
def test_a_refused_call_is_an_illegal_action(call: Call, reason: Reason) -> None:
    player = Scripted([[call, search("apple")]])
    result = played(player, fruit(0))
    assert player.results[0].reason is reason
    assert result.log.illegal == 1
    assert terms(result)["cost/illegal"] == -2.0
    assert result.log.answers[0].evidence == 1.0  # the forced heartbeat lets it go on


def test_calls_past_the_end_of_a_turn_are_refused_and_charged() -> None:
    player = Scripted([[say("Done."), search("apple"), search("apple")]])
    result = played(player, fruit(0))
    assert [answer.reason for answer in player.results[1:]] == [Reason.CHAIN_ENDED] * 2
    assert terms(result) == {"cost/illegal": -2 * 2.0}

    def call_for_ever(turn: Turn) -> None:
        while turn.is_open:
            turn.call("?", None)

    result = played(EachTurn(call_for_ever), fruit(0), session={"max_heartbeats": 3})
    assert result.log.illegal == 3 * 4  # two warnings and a query, the first call and 3 more
    kept: list[Any] = []
    played(EachTurn(kept.append), fruit(0))
    with pytest.raises(RuntimeError, match="turn is over"):
        kept[0].call("evict", {"page_id": 0})


def test_recall_is_a_choice_of_functions() -> None:
    player = Scripted([[search("apple"), retrieve(0)]])
    result = played(player, fruit(0), session={"with_recall": False})
    assert [answer.reason for answer in player.results] == [Reason.UNKNOWN_FUNCTION] * 2
    assert result.log.answers[0].evidence == 0.0
    tools = [tool["function"]["name"] for tool in session_tools(fruit(0))]
    assert {"conversation_search", "retrieve", "core_memory_append"} <= set(tools)
    assert "conversation_search_date" not in tools
    bare = session_tools(fruit(0), session={"blocks": [], "with_recall": False})
    assert [tool["function"]["name"] for tool in bare] == [
        "send_message",
        "archival_memory_insert",
        "archival_memory_search",
        "evict",
    ]


def session_tools(table: EpisodeTable, **parts: Any) -> list[dict[str, Any]]:
    tools: list[list[dict[str, Any]]] = []
    played(EachTurn(lambda turn: tools.append(turn.tools())), table, **parts)
    return tools[0]


def test_blocks_are_free_and_last_for_the_episode() -> None:
    append: Call = ("core_memory_append", {"name": "human", "content": "Ana", **ON})
    player = Scripted([[append], []], [])
    result = played(player, fruit(4, times=(6, 6)), session={"blocks": [Block("human")]})
    assert terms(result) == {"evidence": 2.0}
    assert '"text": "Ana"' in player.seen[-1][0]["content"]


def test_a_page_larger_than_main_context_is_cut_and_counts() -> None:
    texts = [*TEXTS[:5], "kiwi six " * 50]
    table = table_of(texts, [(6, Query("fruit?", (5,)))])
    player = Scripted()
    result = played(player, table, unit="tokens", capacity=20, num_slots=10)
    assert shown(player.seen[-1])[-1].endswith(CUT_MARKER)
    assert len(shown(player.seen[-1])) == 1
    assert result.log.tokens_read == 20
    assert result.log.answers[0].evidence == 1.0
    whole = Scripted()
    played(whole, table, capacity=3)
    assert shown(whole.seen[-1])[-1].endswith("kiwi six ")


def test_an_entry_larger_than_main_context_is_cut_and_charged_as_it_is_shown() -> None:
    note = "the user has an apple " * 20
    player = Scripted([[search_archival("apple")]], [[insert(note)]])
    result = played(player, fruit(5), unit="tokens", capacity=20, num_slots=10)
    assert shown(player.seen[-1])[-1].endswith(CUT_MARKER)
    assert result.log.tokens_retrieved == result.log.tokens_read == 20
    assert result.log.answers[0].evidence == 0.0  # it pushed everything out


def test_queries_that_pay_nothing_are_counted() -> None:
    table = table_of(TEXTS, [(6, Query("why?", ())), (6, Query("no?", (1,), answerable=False))])
    result = played(Scripted([[search("pear")]]), table)
    assert [answer.evidence for answer in result.log.answers] == [None, None]
    assert "evidence" not in terms(result)


def test_preloaded_pages_are_in_recall_and_archival() -> None:
    table = fruit(0, 1)
    table = dataclasses.replace(
        table,
        episode_num_preloaded=np.array([2]),
        episode_num_events=table.episode_num_events - 2,
        event_kind=table.event_kind[:, 2:],
        event_index=table.event_index[:, 2:],
    )
    for call in (search("apple pear"), search_archival("apple pear"), insert("Ann: apple one")):
        result = played(Scripted([[call]]), table, capacity=6, archival_capacity=2)
        found = call[0] != "archival_memory_insert"
        assert result.log.answers[0].stored == 1.0
        assert result.log.answers[0].evidence == (1.0 if found else 0.0)
    with pytest.raises(ConfigurationError, match="begins with 2 pages in archival"):
        session_of(table, archival_capacity=1)


def test_statistics_and_embedder_are_the_tables() -> None:
    table = fruit(0)
    with pytest.raises(ConfigurationError, match=r"Tables\.statistics"):
        session_of(table, session={"statistics": Bm25Statistics.fit(["other", "texts"])})
    with pytest.raises(ConfigurationError, match="pass the same embedder"):
        session_of(table, session={"embedder": HashingEmbedder(17)})


def test_two_plays_show_a_player_the_same_texts() -> None:
    session = session_of(fruit(0))
    texts = []
    for _ in range(2):
        player = Scripted([[search_archival("apple")]], [[insert("apples are liked")]])
        session.play(0, player)
        texts.append([result.text for result in player.results])
    assert texts[0] == texts[1]
    # The first warning comes with the third page, in the third minute.
    assert '"time": "2024-01-01T00:03:00+00:00"' in texts[0][1]


@pytest.mark.parametrize("episode", [-1, 1, 10**6])
def test_an_unknown_episode_is_refused(episode: int) -> None:
    player = Scripted()
    with pytest.raises(ValueError, match=rf"Episode {episode} is outside 0\.\.0"):
        session_of(fruit(0)).play(episode, player)
    assert player.seen == []


def test_one_session_plays_many_episodes_alike() -> None:
    table = small_table(3)
    session = session_of(table)

    def search_twice(turn: Turn) -> None:
        for _ in range(2):
            turn.call(*search("violin"))

    player = EachTurn(search_twice)
    first, again = (play_live(session, player, [0, 1, 0]) for _ in range(2))
    for records in (first, again):
        for record in records:
            assert record.decision_s > 0
            record.decision_s = 0.0
    assert first == again
    assert first[0] == first[2]
    assert first[0].operations["search"] > 0


@given(
    seed=st.integers(0, 5),
    unit=st.sampled_from(["pages", "tokens"]),
    capacity=st.integers(1, 30),
    num_slots=st.integers(1, 6),
    evict_fraction=st.sampled_from([0.0, 0.25, 0.5]),
    most_preloaded=st.sampled_from([0, 4]),
)
@settings(max_examples=25, deadline=None)
def test_an_idle_player_is_the_environments_memgpt_queue(
    seed: int,
    unit: Any,
    capacity: int,
    num_slots: int,
    evict_fraction: float,
    most_preloaded: int,
) -> None:
    """Alike in all that both define: evidence, costs, tokens read, and needs that were absent.

    The environment stages candidates at each query by itself; an idle player searches nothing.
    """
    table = small_table(seed, most_preloaded=most_preloaded)
    options = PagingOptions(
        unit=unit,
        capacity=capacity if unit == "tokens" else min(capacity, 6),
        num_slots=num_slots,
        archival_capacity=None,
        evict_fraction=evict_fraction,
        reward=REWARD,
    )
    episodes = range(table.num_episodes)
    queue = play(LockstepPaging(table, options, 3), YieldOnly(), episodes)
    session = session_of(
        table,
        session={"queue_options": QueueOptions(evict_fraction=evict_fraction)},
        **asdict(options) | {"reward": REWARD},
    )
    live = play_live(session, Idle(), episodes)
    own = {"decisions", "decision_s", "operations", "funnel"}
    for expected, record in zip(queue, live, strict=True):
        there, here = asdict(expected), asdict(record)
        assert {name: here[name] for name in here.keys() - own} == {
            name: there[name] for name in there.keys() - own
        }
        for name in ("absent", "stored", "kept", "retrieved", "used"):
            assert here["funnel"][name] == there["funnel"][name]
        assert {op for op, count in here["operations"].items() if count} <= {"yield"}


def test_contexts_are_what_a_reader_would_read() -> None:
    append: Call = ("core_memory_append", {"name": "human", "content": "Ana", **ON})
    note = insert("the user has an apple")
    player = Scripted([[], [append, search_archival("apple")]], [[note]])
    result = played(player, fruit(0, times=(6, 6)), session={"blocks": [Block("human")]})
    assert result.contexts[0] == ContextTexts((), ("Ann: lime five", "Bob: kiwi six"))
    assert result.contexts[1].pinned == ("human: Ana",)
    assert result.contexts[1].pages[-1] == "the user has an apple"
    assert len(result.contexts[1].pages) == result.log.answers[1].num_resident == 3


def test_a_summary_is_pinned_for_readers() -> None:
    def summarise(texts: Any, limit_tokens: int) -> str:
        assert limit_tokens > 0
        return f"{len(texts)} texts"

    result = played(Scripted(), fruit(0), session={"summarizer": summarise})
    assert result.contexts[0].pinned == ("3 texts",)  # the summary before, and pages 2 and 3
