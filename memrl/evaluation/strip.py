"""One episode of a policy slot by slot, as numbers alone: what a figure of it needs."""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, field, replace
from typing import ClassVar, Protocol

import numpy as np
from pydantic import ConfigDict

from memrl.actions import Op
from memrl.evaluation.lineup import Arena
from memrl.evaluation.play import actions
from memrl.evaluation.replay_watch import Process
from memrl.groups import PagingGroup
from memrl.memory.paging import EMPTY
from memrl.options import PagingOptions
from memrl.policies.base import Contestant
from memrl.privileged import num_scored
from memrl.table import EpisodeTable, Event


@dataclass
class Stay:
    """A page in a slot.

    Attributes:
        slot, page: numbers; pages are counted within the episode's window.
        first: events when it came. last: when another one came in its place, or a decision found
            that it was gone.
        is_retrieved: it came by RETRIEVE.
        is_needed: of a retrieved page, whether its query needs it; None of any other.
        is_kept: whether archival held it when it left; None where it stayed to the end.
    """

    slot: int
    page: int
    first: int
    last: int
    is_retrieved: bool
    is_kept: bool | None = None
    is_needed: bool | None = None


@dataclass(frozen=True)
class Store:
    """A page that was stored from a slot, after `event` events."""

    event: int
    slot: int
    page: int


@dataclass(frozen=True)
class Answer:
    """A query that was answered after `event` events; `evidence` is None where none is defined."""

    event: int
    evidence: float | None


@dataclass
class PlayedStrip:
    """How one policy played it.

    Attributes:
        policy: its name. episode_return: undiscounted, all terms.
        stays: by when they ended. stores, answers: in order.
        passed_by: events of arriving pages that were not let in.
    """

    policy: str
    episode_return: float
    stays: list[Stay] = field(default_factory=list)
    stores: list[Store] = field(default_factory=list)
    answers: list[Answer] = field(default_factory=list)
    passed_by: list[int] = field(default_factory=list)


@dataclass(frozen=True)
class EpisodeStrip:
    """What `strip.json` holds.

    Attributes:
        episode: number in the test table. document: what it is a part of. events: its length.
        num_slots: of main context. players: who played it.
    """

    __pydantic_config__: ClassVar[ConfigDict] = ConfigDict(extra="forbid", allow_inf_nan=False)
    episode: int
    document: str
    events: int
    num_slots: int
    players: list[PlayedStrip]


class StripGroup(PagingGroup, Protocol):
    """A group that shows what its rows hold; see `envs.lockstep.LockstepPaging`."""

    def process(self, row: int) -> Process:
        """The process of a row."""
        ...


def episode_strip(
    arena: Arena,
    players: Sequence[Contestant],
    make_group: Callable[[EpisodeTable, PagingOptions], StripGroup],
) -> EpisodeStrip | None:
    """Play the arena's first episode that asks what pays; None where none does.

    Args:
        arena: the episodes. players: who play, each under its own overrides.
        make_group: makes a group of one row, with what it holds to be seen.
    """
    asking = np.flatnonzero(num_scored(arena.table))
    if not len(asking):
        return None
    place, table = int(asking[0]), arena.table
    played = []
    for contestant in players:
        group = make_group(table, replace(arena.options, **contestant.overrides))
        played.append(played_strip(group, contestant, place))
    document = table.text.clusters[int(table.episode_document[place])]
    num_slots, events = arena.options.num_slots, int(table.episode_num_events[place])
    assert num_slots is not None  # of resolved options
    return EpisodeStrip(arena.episodes[place], document, events, num_slots, played)


def played_strip(group: StripGroup, contestant: Contestant, episode: int) -> PlayedStrip:
    """Play an episode in row 0, and note what enters and leaves main context.

    Args:
        group: under the options that the contestant plays by. episode: number in its table.
    """
    observation, terminated = group.reset([episode], [0]), False
    played = PlayedStrip(contestant.name, 0.0)
    here: dict[int, Stay] = {}
    retrieved: dict[int, bool] = {}  # page -> whether it is needed
    event = 0
    while not terminated:
        process = group.process(0)
        _note_slots(played, here, group.table, process, retrieved, event)
        retrieved.clear()
        action = int(actions(group, contestant.policy, observation)[0])
        op, row = group.layout.decode(action)
        if op is Op.STORE:
            played.stores.append(Store(process.event, row, process.slot_pages()[row]))
        if op is Op.EVICT and process.slot_pages()[row] == process.arriving != EMPTY:
            played.passed_by.append(process.event)
        if op is Op.RETRIEVE:
            page = process.candidates()[row]
            assert process.query is not None  # pages are retrieved for one
            needs = group.table.needs_in_window(process.episode, process.query)
            retrieved[page] = page in needs
        event, num_answers = process.event, len(process.log.answers)
        result = group.step(np.array([action]))
        played.episode_return += float(result.reward_terms[0].sum())
        observation, terminated = result.observation, bool(result.terminated[0])
        later = group.process(0).log.answers[num_answers:]
        played.answers += [Answer(event, answer.evidence) for answer in later]
    process = group.process(0)
    _note_slots(played, here, group.table, process, retrieved, event)
    for stay in here.values():
        stay.last = process.event
        played.stays.append(stay)
    return played


def _note_slots(
    played: PlayedStrip,
    here: dict[int, Stay],
    table: EpisodeTable,
    process: Process,
    retrieved: Mapping[int, bool],
    since: int,
) -> None:
    """End the stays of pages that are gone, and begin those of pages that are new."""
    slots: Sequence[int] = process.slot_pages()[:-1]  # without the arriving page
    for slot, page in enumerate(slots):
        stay = here.get(slot)
        if stay is not None and stay.page == page:
            continue
        came = process.event
        if page != EMPTY and page not in retrieved:
            came = _arrival(table, process, page, since)
        if stay is not None:
            stay.last = max(came, stay.first)
            stay.is_kept = process.core.is_archived(stay.page)
            played.stays.append(here.pop(slot))
        if page != EMPTY:
            first = came if stay is None else stay.last
            is_retrieved, is_needed = page in retrieved, retrieved.get(page)
            here[slot] = Stay(slot, page, first, process.event, is_retrieved, is_needed=is_needed)


def _arrival(table: EpisodeTable, process: Process, page: int, since: int) -> int:
    """Events when a page arrived, no earlier than the last of `since`.

    What was there from the beginning came before all events. Of a page cache later requests of the
    page were hits.
    """
    begin = max(since - 1, 0)
    kinds = table.event_kind[process.episode, begin : process.event]
    pages = table.event_index[process.episode, begin : process.event]
    arrived = np.flatnonzero((kinds != Event.QUERY) & (pages == page))
    return begin + int(arrived[0]) + 1 if len(arrived) else since
