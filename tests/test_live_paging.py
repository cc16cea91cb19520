"""A live memory under a policy goes the way of the environment: same sights, same moves."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import replace
from typing import ClassVar

import numpy as np
import pytest
import torch
from table_fixtures import SPEAKERS, WORDS, random_action
from torch import Tensor

from envs.lockstep import LockstepPaging
from memrl.actions import Op
from memrl.agent import Controller, open_memory
from memrl.documents import Document, Episode, Page, Query
from memrl.live_pages import LivePages, RecentEmbedder
from memrl.live_paging import LivePaging, Move
from memrl.memory.embedders import HashingEmbedder
from memrl.memory.live import Memory
from memrl.memory.queue_moves import NewPage
from memrl.options import PagingOptions
from memrl.policies.network import GreedyGain, SetNetwork
from memrl.policies.prior import PageScorer
from memrl.privileged import PrivilegedState
from memrl.table import SURFACE, EpisodeTable
from memrl.table_build import build_table, fit_lexical_statistics
from memrl.world import World

DIMENSION = 16


class Watcher:
    """Plays at random, or as another policy does, and keeps what it has seen and done."""

    is_privileged: ClassVar[bool] = False

    def __init__(self, seed: int = 0, policy: GreedyGain | None = None) -> None:
        self.seen: list[dict[str, Tensor]] = []
        self.actions: list[int] = []
        self._rng = np.random.default_rng(seed)
        self._policy = policy

    def act(
        self,
        observation: Mapping[str, Tensor],
        action_mask: Tensor,
        privileged: PrivilegedState | None = None,
    ) -> Tensor:
        assert privileged is None
        self.seen.append({name: value.clone() for name, value in observation.items()})
        if self._policy is None:
            action = torch.tensor([random_action(action_mask[0].numpy(), self._rng)])
        else:
            action = self._policy.act(observation, action_mask)
        self.actions.append(int(action))
        return action


def chat_document(seed: int, num_pages: int) -> Document:
    """Messages as a live chat has them: no images, `role` is the speaker's place."""
    rng = np.random.default_rng(seed)
    pages = []
    for number in range(num_pages):
        speaker = int(rng.integers(-1, 3))
        text = " ".join(rng.choice(WORDS, int(rng.integers(1, 12))))
        name = SPEAKERS[speaker] if speaker >= 0 else ""
        pages.append(Page(text, name, max(speaker, 0), source_id=f"p{number}"))
    queries = tuple(
        Query(f"What of {' '.join(rng.choice(WORDS, 3))}?", (int(rng.integers(num_pages)),))
        for _ in range(4)
    )
    return Document("chat", tuple(pages), queries, SPEAKERS)


def table_and_scorer(document: Document, seed: int) -> tuple[EpisodeTable, PageScorer]:
    rng = np.random.default_rng(seed)
    num_pages = len(document.pages)
    times = sorted(int(time) for time in rng.integers(num_pages // 2, num_pages + 1, 4))
    episode = Episode(0, 0, num_pages, tuple((time, n) for n, time in enumerate(times)))
    table = build_table(
        [document],
        [episode],
        HashingEmbedder(DIMENSION),
        fit_lexical_statistics([document]),
        name="chat",
    )
    scorer = PageScorer(rng.normal(0, 2, DIMENSION + len(SURFACE)), 0.3, 1.0)
    return table.with_prior(scorer.logits(table)), scorer


def live_memory(
    options: PagingOptions, embedder: RecentEmbedder, scorer: PageScorer, document: Document
) -> Memory:
    world = World(options, fit_lexical_statistics([document]))
    return open_memory(Controller(Watcher(), world, scorer, embedder), None)


def play_live(
    document: Document,
    table: EpisodeTable,
    scorer: PageScorer,
    options: PagingOptions,
    who: Watcher,
) -> list[Move]:
    embedder = RecentEmbedder(HashingEmbedder(DIMENSION))
    with live_memory(options, embedder, scorer, document) as memory:
        pages = LivePages(memory, embedder, scorer, speakers=SPEAKERS)
        paging = LivePaging(memory, pages, who, options)
        moves: list[Move] = []
        for number in range(int(table.episode_num_events[0])):
            index = int(table.event_index[0, number])
            if table.event_kind[0, number] == 1:
                moves += paging.ask(document.queries[index].text)
            else:
                page = document.pages[index]
                (page_id,) = memory.extend([NewPage(page.rendered, "user")])
                moves += paging.arrive(pages.add(page_id, page.speaker))
        assert not memory.main.has_notice
        assert memory.main.summary == ""
    return moves


def play_environment(table: EpisodeTable, options: PagingOptions, who: Watcher) -> LockstepPaging:
    group = LockstepPaging(table, options, num_envs=1)
    observation = group.reset([0])
    terminated = False
    while not terminated:
        action = who.act(observation, observation["action_mask"])
        result = group.step(action.numpy())
        observation, terminated = result.observation, bool(result.terminated[0])
    return group


def assert_same_sights(live: list[dict[str, Tensor]], table: list[dict[str, Tensor]]) -> None:
    for number, (one, other) in enumerate(zip(live, table, strict=True)):
        assert one.keys() == other.keys()
        for name, values in other.items():
            assert torch.equal(one[name], values), (number, name)


BASE = PagingOptions(
    capacity=4,
    num_slots=4,
    archival_capacity=6,
    num_candidates=3,
    store_scope="any",
    evict_scope="any",
)
VARIANTS = {
    "preset": replace(BASE, store_scope="victim", evict_scope="victim"),
    "free": BASE,
    "tokens": replace(BASE, unit="tokens", capacity=30, num_slots=5, archival_capacity=None),
    "recall": replace(BASE, stage_from="both", staging="hybrid", admission="optional"),
    "dense": replace(
        BASE, staging="dense", archival_capacity=2, evict_fraction=0.5, operation_budget=3
    ),
}


@pytest.mark.parametrize(("seed", "name"), list(enumerate(VARIANTS)))
def test_random_play_meets_the_same_sights_and_moves(seed: int, name: str) -> None:
    options, document = VARIANTS[name], chat_document(seed, 15)
    table, scorer = table_and_scorer(document, seed)
    live, environment = Watcher(seed), Watcher(seed)
    moves = play_live(document, table, scorer, options, live)
    group = play_environment(table, options, environment)
    assert live.actions == environment.actions
    assert_same_sights(live.seen, environment.seen)
    chosen = [move.op for move in moves if not move.is_forced]
    assert {op: chosen.count(op) for op in Op} == dict(group.log(0).operations)
    assert len(chosen) > 20
    assert len(set(chosen)) >= 4


def test_a_network_decides_alike() -> None:
    torch.manual_seed(1)
    policy = GreedyGain(SetNetwork(8), 1.0)
    document = chat_document(3, 24)
    table, scorer = table_and_scorer(document, 3)
    live, environment = Watcher(policy=policy), Watcher(policy=policy)
    play_live(document, table, scorer, BASE, live)
    play_environment(table, BASE, environment)
    assert live.actions == environment.actions
    assert len(set(live.actions)) > 3


def test_an_empty_memory_has_nothing_to_decide() -> None:
    document = chat_document(0, 4)
    embedder, who = RecentEmbedder(HashingEmbedder(DIMENSION)), Watcher()
    _, scorer = table_and_scorer(document, 0)
    with live_memory(BASE, embedder, scorer, document) as memory:
        paging = LivePaging(memory, LivePages(memory, embedder, scorer), who, BASE)
        assert paging.ask("Who is there?") == [Move(Op.YIELD, None, is_forced=True)]
        (page_id,) = memory.extend([NewPage("\ud800 \x00", "user")])
        paging.arrive(paging.pages.add(page_id, ""))
        assert paging.ask("")[-1].op is Op.YIELD
    assert who.seen == [] or paging.queries_asked == 2
