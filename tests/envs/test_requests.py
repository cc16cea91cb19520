"""Page caches: what happens at requests, on cases worked out by hand."""

from __future__ import annotations

import numpy as np
import pytest
from play_by_hand import Play
from request_tables import request_table
from table_fixtures import REWARD

from envs.batched import BatchedPagingEnv
from envs.paging import PagingEnv
from envs.process import Phase, options_for
from memrl.actions import Op
from memrl.config import ConfigurationError
from memrl.evaluation.play import record_of
from memrl.identity import IDENTITY
from memrl.memory.paging import EMPTY
from memrl.options import PagingOptions
from memrl.table import Event

CACHE = {"archival_capacity": 0, "num_candidates": 0, "evict_scope": "any"}


def play(requests: list[int], capacity: int, **fields: object) -> Play:
    """One episode of requests; pages are numbered in the order of their first request."""
    tokens = fields.pop("tokens", None)
    table = request_table([requests], tokens)  # type: ignore[arg-type]
    return Play(table, capacity=capacity, **(CACHE | fields))


def test_hits_are_scored_at_once_and_ask_nothing() -> None:
    cache = play([0, 1, 0, 0, 2, 1, 3], capacity=2)
    process = cache.process
    assert process.event == 5, "the first decision is at the miss of page 2"
    assert (process.log.requests, process.log.hits) == (5, 2)
    assert process.arriving == 2
    assert process.core.slot_uses == [2, 0]
    assert process.core.slot_last_use == [4, 2]
    assert cache(Op.EVICT, 0) == {"evidence": 3 * REWARD.evidence}, "with the hit that came next"
    assert process.event == 7
    assert cache.legal == {(Op.YIELD, 0), (Op.EVICT, 0), (Op.EVICT, 1)}
    assert cache(Op.YIELD) == {}
    assert cache.terminated
    assert (process.log.requests, process.log.hits) == (7, 3)


def test_a_page_comes_back_by_demand_alone_and_is_seen_once() -> None:
    cache = play([0, 1, 0, 1, 0], capacity=1)
    for event in (2, 3, 4, 5):
        assert cache.process.event == event
        assert cache.process.pages_arrived == 2
        assert list(cache.process.core.recall) == [0, 1]
        assert cache(Op.YIELD) == {}
    assert cache.terminated
    assert cache.process.core.counts.pages_in == 5
    assert cache.process.log.hits == 0


def test_a_page_may_pass_where_admission_is_optional() -> None:
    cache = play([0, 1, 0, 1, 0], capacity=1, admission="optional")
    assert (Op.EVICT, 1) in cache.legal
    assert cache(Op.EVICT, 1) == {"evidence": REWARD.evidence}
    assert cache.queue == [0]
    assert cache(Op.EVICT, 1) == {"evidence": REWARD.evidence}
    assert cache.terminated


def test_a_large_page_may_need_several_evictions() -> None:
    cache = play([0, 1, 2, 0, 3], capacity=6, num_slots=6, unit="tokens", tokens=[2, 2, 2, 5])
    assert cache.process.arriving == 3
    cache(Op.EVICT, 1)
    assert cache.process.arriving == 3, "2 tokens are free, 5 are needed"
    cache(Op.EVICT, 0)
    assert (cache.queue, cache.process.arriving) == ([2], 3)
    cache(Op.EVICT, 2)
    assert cache.queue == [3]
    assert cache.terminated


def test_fifo_decides_nothing() -> None:
    table = request_table([[0, 1, 2, 0]])
    cache = Play(table, capacity=2, **(CACHE | {"evict_scope": "victim"}))
    assert cache.process.phase is Phase.END
    assert cache.process.log.requests == 4


def test_the_table_numbers_pages_by_their_first_request() -> None:
    table = request_table([[7, 3, 7, 9], [3, 3]], tokens=[1] * 3 + [5] + [1] * 3 + [2, 1, 4])
    assert table.event_kind[0].tolist() == [Event.REQUEST] * 4
    assert table.event_index.tolist() == [[0, 1, 0, 2], [0, 0, 0, 0]]
    assert table.event_index.dtype == np.int32
    assert table.page_tokens.tolist() == [2, 5, 4, 5]
    assert table.text.page_ids == ["s0/7", "s0/3", "s0/9", "s1/3"]
    assert table.has_requests


def test_the_record_of_an_episode_counts_requests_as_questions() -> None:
    cache = play([0, 1, 0, 0, 2], capacity=2)
    terms = cache(Op.YIELD)
    record = record_of(cache.process.table, 0, cache.process.log, terms, decisions=1)
    assert (record.requests, record.hits, record.num_scored, record.num_queries) == (5, 2, 5, 0)
    assert record.evidence == 2
    assert record.evidence_by_category == {"by hand": [2, 5]}


# ---------------------------------------------------------------------- what a policy is told


def test_info_tells_pages_apart() -> None:
    env = PagingEnv(request_table([[0, 1, 0, 2, 0, 3]]), capacity=2, **CACHE)  # type: ignore[arg-type]
    observation, info = env.reset()
    assert not set(IDENTITY) & set(observation)
    first = info["handles"]
    assert first.shape == (3,)
    assert first.dtype == np.int64
    assert len(set(first.tolist())) == 3
    assert (first >= 0).all()
    assert info["time_in"].tolist() == [1, 2, 4]
    assert info["last_use"].tolist() == [3, 2, 4]
    assert info["uses"].tolist() == [1, 0, 0]
    assert info["sizes"].tolist() == [1, 1, 1]
    assert f"page {first[0]}" in env.observation_text()
    _, _, _, _, info = env.step(np.int64(env.layout.encode(Op.EVICT, 1)))
    assert info["handles"][:2].tolist() == [first[0], first[2]]
    assert info["uses"].tolist() == [2, 0, 0]
    assert info["handles"][2] not in first
    _, _, terminated, _, info = env.step(np.int64(0))
    assert terminated
    assert info["handles"][2] == EMPTY


def test_the_vector_environment_tells_the_same() -> None:
    table = request_table([[0, 1, 0, 2, 0, 3]])
    options = PagingOptions(capacity=2, **CACHE)  # type: ignore[arg-type]
    single, env = PagingEnv(table, options), BatchedPagingEnv(table, options, num_envs=3)
    _, expected = single.reset()
    observation, infos = env.reset(seed=0)
    assert not set(IDENTITY) & set(observation)
    for name in IDENTITY:
        assert infos[name].tolist() == [expected[name].tolist()] * 3
    for action in (single.layout.encode(Op.EVICT, 1), 0):
        _, _, _, _, expected = single.step(np.int64(action))
        _, _, _, _, infos = env.step(np.full(3, action))
        if not expected["action_mask"][1:].any():
            break
        for name in IDENTITY:
            assert infos[name].tolist() == [expected[name].tolist()] * 3
    assert not set(IDENTITY) & set(infos["final_obs"])


def test_conversations_tell_no_identity() -> None:
    from table_fixtures import small_table

    _, info = PagingEnv(small_table(0), capacity=3).reset(seed=0)
    assert not set(IDENTITY) & set(info)


# ---------------------------------------------------------------------- what is refused


def test_embeddings_of_pages_without_text_are_refused() -> None:
    with pytest.raises(ConfigurationError, match="observe_embeddings"):
        options_for(request_table([[0]]), PagingOptions(observe_embeddings=True))
