"""What may be read for a question: main context as it was, and the references without paging."""

from __future__ import annotations

from dataclasses import replace

import numpy as np
import pytest
from play_by_hand import TEXTS, apples
from session_players import Scripted, insert, search, search_archival, session_of
from table_fixtures import small_table, table_of, with_scores

from envs.batched import BatchedPaging
from envs.lockstep import LockstepPaging
from memrl.documents import Document, Episode, Page, Query
from memrl.episode_log import EpisodeLog
from memrl.evaluation.contexts import (
    Asked,
    ReadingError,
    asked_in_log,
    asked_live,
    full_context,
    no_memory,
    rag_top_k,
    table_dates,
    table_query,
)
from memrl.evaluation.play import play
from memrl.evaluation.play_live import LiveEpisode, play_live
from memrl.groups import PagingGroup
from memrl.memory.blocks import Block
from memrl.memory.embedders import HashingEmbedder
from memrl.options import PagingOptions
from memrl.page_texts import CUT_MARKER
from memrl.policies.heuristics import StoreAndRetrieve
from memrl.table_build import build_table, fit_lexical_statistics
from memrl.table_part import table_part

OPTIONS = PagingOptions(capacity=3, num_slots=3, staging="dense")
SAID = [f"{('Ann', 'Bob')[page % 2]}: {text}" for page, text in enumerate(TEXTS)]


def log_of(group: PagingGroup) -> EpisodeLog:
    logs: list[EpisodeLog] = []
    play(group, StoreAndRetrieve(1), [0], on_log=lambda _, log: logs.append(log))
    return logs[0]


def test_main_context_is_read_oldest_first_and_the_newest_kept_first() -> None:
    table = apples(6)
    log = log_of(LockstepPaging(table, OPTIONS, 1))
    assert asked_in_log(table, OPTIONS, 0, log) == [
        Asked(0, 0, texts=(SAID[4], SAID[5], SAID[0]), keep=(2, 1, 0), pages=(4, 5, 0))
    ]
    dates = [f"day {page}" for page in range(6)]
    (dated,) = asked_in_log(table, OPTIONS, 0, log, dates)
    assert dated.texts[2] == f"(day 0) {SAID[0]}"
    (some,) = asked_in_log(table, OPTIONS, 0, log, ["", *dates[1:]])
    assert some.texts[2] == SAID[0], "a page without a date has none"


def test_a_page_that_was_cut_is_read_cut() -> None:
    table = table_of(["kiwi six " * 50], [(1, Query("what?", (0,)))])
    options = PagingOptions(unit="tokens", capacity=20, num_slots=2)
    (asked,) = asked_in_log(table, options, 0, log_of(LockstepPaging(table, options, 1)))
    assert asked.texts[0].endswith(CUT_MARKER)
    (whole,) = full_context(table, 0, "newest")
    assert whole.texts[0] == table.text.pages[0]


def test_what_the_batched_environment_did_not_note_is_refused() -> None:
    table = apples(6)
    with pytest.raises(ReadingError, match="reference environment"):
        asked_in_log(table, OPTIONS, 0, log_of(BatchedPaging(table, OPTIONS, 1)))


def test_working_context_of_a_live_session_is_kept_before_any_page() -> None:
    append = ("core_memory_append", {"name": "human", "content": "Ana", "request_heartbeat": True})
    player = Scripted([[append, search_archival("apple")]], [[insert("likes apples")]])
    table = table_of(TEXTS, [(6, Query("fruit?", (0,)))])
    session = session_of(table, session={"blocks": [Block("human")]})
    played: list[LiveEpisode] = []
    play_live(session, player, [0], on_played=lambda _, live: played.append(live))
    (asked,) = asked_live(0, played[0])
    assert asked.texts == ("human: Ana", SAID[4], SAID[5], "likes apples")
    assert asked.keep == (0, 3, 2, 1)
    assert asked.pages == (None, 4, 5, 6), "the entry's own text is a page that nobody needs"
    (dated,) = asked_live(0, played[0], [f"day {page}" for page in range(6)])
    assert dated.texts == ("human: Ana", f"(day 4) {SAID[4]}", f"(day 5) {SAID[5]}", "likes apples")


def test_references_read_what_had_been_seen_when_they_were_asked() -> None:
    table = apples(2, 6)
    assert no_memory(table, 0) == [Asked(0, 0), Asked(0, 1)]
    early, late = full_context(table, 0, "newest")
    assert early == Asked(0, 0, tuple(SAID[:2]), (1, 0), (0, 1))
    assert late == Asked(0, 1, tuple(SAID), (5, 4, 3, 2, 1, 0), tuple(range(6)))
    oldest = full_context(table, 0, "oldest")[1]
    assert oldest == replace(late, keep=tuple(range(6)))
    # Dense scores are .9, .5, .8, .3, .2, .1.
    assert rag_top_k(table, OPTIONS, 0, 2) == [
        Asked(0, 0, tuple(SAID[:2]), (0, 1), (0, 1)),
        Asked(0, 1, (SAID[0], SAID[2]), (0, 1), (0, 2)),
    ]
    upside_down = with_scores(table, query=1, dense=[0.1, 0.2, 0.3, 0.5, 0.8, 0.9])
    best = rag_top_k(upside_down, OPTIONS, 0, 3)[1]
    assert (best.pages, best.keep) == ((3, 4, 5), (2, 1, 0)), "in time, the best kept first"


def test_preloaded_pages_have_been_seen() -> None:
    table = small_table(3, most_preloaded=6)
    episode = int(np.flatnonzero(table.episode_num_preloaded)[0])
    for one in full_context(table, episode, "newest"):
        assert len(one.pages) >= table.episode_num_preloaded[episode]
        window = table.text.pages[table.episode_pages(episode)]
        assert list(one.texts) == window[: len(one.texts)]


def test_a_question_as_the_table_has_it() -> None:
    query = Query("why?", (1, 3), category="odd", answers=("so",), source_id="q7")
    no_answer = Query("who?", (1,), answerable=False)
    table = table_of(TEXTS, [(6, query), (6, no_answer), (6, Query("when?", ()))])
    assert table_query(table, 0, 0) == query
    assert not table_query(table, 0, 1).answerable
    assert table_query(table, 0, 2).needs == ()


def test_dates_follow_the_page_axis() -> None:
    """Also where documents share their pages, and of a part of a table, whose rows have moved."""
    pages = tuple(Page(f"text {n}", timestamp=f"day {n}") for n in range(3))
    query = (Query("what?", (0,)),)
    documents = [
        Document("a", pages, query),
        Document("b", pages, query),
        Document("c", (Page("x", timestamp="later"), Page("y")), query),
    ]
    episodes = [Episode(n, 0, len(d.pages), ((1, 0),)) for n, d in enumerate(documents)]
    statistics = fit_lexical_statistics(documents)
    table = build_table(documents, episodes, HashingEmbedder(), statistics, name="by hand")
    assert table_dates(table, documents) == ["day 0", "day 1", "day 2", "later", ""]
    part = table_part(table, np.array([2]))
    assert table_dates(part, documents[::-1]) == ["later", ""]


def test_a_search_session_reads_what_it_found() -> None:
    table = table_of(TEXTS, [(6, Query("fruit?", (0,)))])
    played: list[LiveEpisode] = []
    player = Scripted([[search("apple")]])
    play_live(session_of(table), player, [0], on_played=lambda _, live: played.append(live))
    (asked,) = asked_live(0, played[0])
    assert asked.texts[-1] == SAID[0]
    assert asked.pages[-1] == 0
