"""Nested key-value retrieval on a live memory: recall and archival hold every pair at the start."""

from __future__ import annotations

import dataclasses
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from session_players import session_of

from envs.session import Session, SessionResult
from envs.workloads.nested_kv import (
    exact_value,
    generate_nested_kv,
    load_nested_kv,
    make_document,
    whole_documents,
)
from memrl.actions import Op
from memrl.documents import Document
from memrl.evaluation.play_live import play_live
from memrl.memory.embedders import HashingEmbedder
from memrl.policies.key_follower import KeyFollower
from memrl.table import EpisodeTable
from memrl.table_build import build_table, fit_lexical_statistics

PAPER = {"page_size": 10}


def table_of_chains(documents: tuple[Document, ...]) -> EpisodeTable:
    statistics = fit_lexical_statistics(documents)
    episodes = whole_documents(documents)
    return build_table(documents, episodes, HashingEmbedder(16), statistics, name="nested_kv")


def kv_session(table: EpisodeTable, **parts: Any) -> Session:
    return session_of(table, capacity=8, archival_capacity=None, session=PAPER | parts)


def level_of(table: EpisodeTable, episode: int) -> int:
    row = table.query_offset[table.episode_document[episode]]
    return int(table.text.categories[table.query_category[row]].removeprefix("level "))


def check(table: EpisodeTable, episode: int, result: SessionResult) -> None:
    level = level_of(table, episode)
    [reply], [answer] = result.replies, result.log.answers
    [gold] = table.text.answers[int(table.query_offset[table.episode_document[episode]])]
    assert exact_value(reply or "", gold) == 1.0
    assert answer.evidence == 1.0  # the last pair is in main context
    searches = result.log.operations[Op.SEARCH] + result.log.operations[Op.NEXT]
    assert searches <= level + 2
    assert result.log.illegal == 0
    # Each look-up brings its pair in; what else shares a part of the UUID comes with it.
    assert result.log.operations[Op.RETRIEVE] >= level + 1


def test_chains_of_levels_0_to_6_are_followed_to_their_end() -> None:
    workload = generate_nested_kv(
        levels=range(7), documents_per_level=3, num_pairs=140, rng=np.random.default_rng(0)
    )
    table = table_of_chains(workload.documents)
    session = kv_session(table)
    assert {level_of(table, episode) for episode in range(table.num_episodes)} == set(range(7))
    for episode in range(table.num_episodes):
        check(table, episode, session.play(episode, KeyFollower()))


def test_its_record_stands_beside_a_policys() -> None:
    workload = generate_nested_kv(
        levels=[2], documents_per_level=2, num_pairs=20, rng=np.random.default_rng(1)
    )
    records = play_live(kv_session(table_of_chains(workload.documents)), KeyFollower(), [0, 1])
    for record in records:
        assert (record.num_queries, record.num_scored, record.evidence) == (1, 1, 1.0)
        assert record.operations["search"] == 4
        assert record.reward_terms["evidence"] == 1.0
        assert record.reward_terms["cost/search"] == -4 * 0.25
        assert record.evidence_by_category == {"level 2": [1.0, 1.0]}
        assert record.funnel["stored"] == record.funnel["absent"] == 1.0


def test_results_are_paged_through_where_a_key_is_found_late() -> None:
    """Ten other pairs hold the words of the key more often than its own pair does."""
    decoys = [(f"key-{n}", "x" + "-same" * (9 + n)) for n in range(12)]
    pairs = [*decoys, ("same", "treasure"), ("other", "nothing")]
    table = table_of_chains((make_document("paged", pairs, (12,)),))
    assert table.text.queries == ["same"]
    result = kv_session(table).play(0, KeyFollower())
    assert result.replies == ("treasure",)
    assert result.log.operations[Op.NEXT] == 1
    assert result.log.answers[0].evidence == 1.0
    assert result.reward_terms["cost/next"] == -0.5


def test_without_recall_it_is_refused_and_still_ends() -> None:
    workload = generate_nested_kv(
        levels=[1], documents_per_level=1, num_pairs=12, rng=np.random.default_rng(2)
    )
    table = table_of_chains(workload.documents)
    result = kv_session(table, with_recall=False).play(0, KeyFollower())
    assert result.log.illegal == 1
    assert result.replies == (table.text.queries[0],)
    assert result.log.answers[0].evidence == 0.0


def test_a_chain_that_goes_round_ends() -> None:
    pairs = [("key-a", "key-b"), ("key-b", "key-a"), ("key-c", "end")]
    pages = make_document("round", [(k, f"{v}-") for k, v in pairs], (2,))
    looped = dataclasses.replace(
        pages,
        pages=tuple(
            dataclasses.replace(page, text=f"Key-value pair: key = {key}, value = {value}")
            for page, (key, value) in zip(pages.pages, pairs, strict=True)
        ),
        queries=(dataclasses.replace(pages.queries[0], text="key-a"),),
    )
    result = kv_session(table_of_chains((looped,))).play(0, KeyFollower())
    assert result.replies == ("key-a",)
    assert result.log.operations[Op.SEARCH] == 2


@pytest.mark.slow
def test_memgpts_own_orderings(data_dir: Path) -> None:
    workload = load_nested_kv(
        data_dir, levels=range(7), documents_per_level=30, rng=np.random.default_rng(0)
    )
    documents = tuple(
        document
        for level in range(7)
        for document in [d for d in workload.documents if f"level{level}-" in d.document_id][:30]
    )
    table = table_of_chains(documents)
    session = kv_session(table)
    for episode in range(table.num_episodes):
        check(table, episode, session.play(episode, KeyFollower()))
