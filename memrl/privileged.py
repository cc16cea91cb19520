"""What only clairvoyant policies, training labels and reports may see.

Written once, with a leading batch axis, from the table's timetable of queries and requests;
environments add what their search has ranked.
"""

from __future__ import annotations

import dataclasses
from dataclasses import dataclass

import numpy as np
import numpy.typing as npt
import torch
from torch import Tensor

from memrl.memory.paging import EMPTY
from memrl.on_device import made_once, on_device
from memrl.state import PagingState
from memrl.table import EpisodeTable, Event


@dataclass(frozen=True)
class QueryTimetable:
    """When each episode asks or requests what; only queries that pay evidence.

    Attributes:
        clock: (E, Q) int64, value of the clock when the query is asked, 0 for none.
        needs: (E, Q, R) int64, pages of the window that it needs, -1 padded.
        route: (E, Q, R2) int64, pages of the window that lead to them, in order, -1 padded.
        next_request: (E, T) int64, value of the clock when the page that each event requests is
            requested again, 0 for never; (E, 1) zeros in a table without requests.
    """

    clock: Tensor
    needs: Tensor
    route: Tensor
    next_request: Tensor

    @classmethod
    def from_table(cls, table: EpisodeTable, device: torch.device | str = "cpu") -> QueryTimetable:
        """The timetable of every episode, made once for a table and device."""
        return made_once(table, device, cls.__name__, lambda place: cls._made(table, place))

    @classmethod
    def _made(cls, table: EpisodeTable, device: torch.device) -> QueryTimetable:
        episode, event, query = paying_queries(table)
        counts = np.bincount(episode, minlength=table.num_episodes)
        column = np.arange(len(episode)) - (np.cumsum(counts) - counts)[episode]
        clock = np.zeros((table.num_episodes, max(counts.max(), 1)), dtype=np.int64)
        clock[episode, column] = event + 1
        first_page = table.episode_first_page[episode]

        def in_window(pages: npt.NDArray[np.int32]) -> Tensor:
            """(E, Q, R) of (Q, R)."""
            rows = np.full((*clock.shape, pages.shape[1]), EMPTY, dtype=np.int64)
            needed = pages[query].astype(np.int64)
            rows[episode, column] = np.where(needed >= 0, needed - first_page[:, None], EMPTY)
            return on_device(rows, device)

        return cls(
            on_device(clock, device),
            in_window(table.query_needs),
            in_window(table.query_route),
            on_device(_next_requests(table), device),
        )


def paying_queries(
    table: EpisodeTable,
) -> tuple[npt.NDArray[np.int64], npt.NDArray[np.int64], npt.NDArray[np.int64]]:
    """Every query that an episode asks and that pays evidence, episode by episode, in order.

    Returns:
        Three arrays (n,) int64: number of the episode, of the event, and row on the query axis.
    """
    happens = np.arange(table.event_kind.shape[1]) < table.episode_num_events[:, None]
    episode, event = np.nonzero(happens & (table.event_kind == Event.QUERY))
    first = table.query_offset[table.episode_document[episode]]
    query = first + table.event_index[episode, event]
    pays = table.query_pays[query]
    return episode[pays], event[pays], query[pays]


def num_paying_queries(table: EpisodeTable) -> npt.NDArray[np.int64]:
    """(E,) queries of each episode that pay evidence."""
    return np.bincount(paying_queries(table)[0], minlength=table.num_episodes)


def num_scored(table: EpisodeTable) -> npt.NDArray[np.int64]:
    """(E,) what each episode is scored by: queries that pay evidence, and requests, which all do.

    The same as `memrl.evaluation.play.EpisodeRecord.num_scored`.
    """
    happens = np.arange(table.event_kind.shape[1]) < table.episode_num_events[:, None]
    requests = (happens & (table.event_kind == Event.REQUEST)).sum(axis=1)
    return np.asarray(num_paying_queries(table) + requests, dtype=np.int64)


def _next_requests(table: EpisodeTable) -> npt.NDArray[np.int64]:
    """`QueryTimetable.next_request`."""
    if not table.has_requests:
        return np.zeros((table.num_episodes, 1), dtype=np.int64)
    again = np.zeros(table.event_kind.shape, dtype=np.int64)
    for row, kinds, index in zip(again, table.event_kind, table.event_index, strict=True):
        events = np.flatnonzero(kinds == Event.REQUEST)
        order = events[np.argsort(index[events], kind="stable")]  # by page, then by time
        is_same = index[order[:-1]] == index[order[1:]]
        row[order[:-1][is_same]] = order[1:][is_same] + 1
    return again


@dataclass(frozen=True)
class PrivilegedState:
    """The hidden truth at B decision points; pages are indices within each episode's window.

    Attributes:
        state: what the rows of the observation are made from (`memrl.shown`).
        needs: (B, R) pages that the query at hand needs, -1 padded; all -1 when it pays no
            evidence.
        route: (B, R2) pages that lead to them, in order, -1 padded; all -1 without any.
        future_events: (B, Q) events from now until a later query is asked, 0 for none.
        future_needs: (B, Q, R) what those queries need, -1 padded.
        ranking: (B, W) all hits of the present staging, best first, -1 padded.
        result_page: (B,) which K of the ranking are shown.
        stores: (B,) pages stored so far.
        next_request: (B, N) events from now until the page of each slot row is requested, 0 for
            never.
    """

    state: PagingState
    needs: Tensor
    route: Tensor
    future_events: Tensor
    future_needs: Tensor
    ranking: Tensor
    result_page: Tensor
    stores: Tensor
    next_request: Tensor

    def rows(self, index: Tensor) -> PrivilegedState:
        """Select episodes; index is (M,) int64."""
        tensors = {
            field.name: getattr(self, field.name)[index]
            for field in dataclasses.fields(self)
            if field.name != "state"
        }
        return PrivilegedState(state=self.state.rows(index), **tensors)


def privileged_state(
    state: PagingState,
    timetable: QueryTimetable,
    episode: Tensor,
    *,
    ranking: Tensor,
    result_page: Tensor,
    stores: Tensor,
) -> PrivilegedState:
    """Look up present and later needs.

    Args:
        state: B episodes, as they are shown.
        episode: (B,) int64, their numbers in the timetable's table.
        timetable: of that table, on the same device.
        ranking, result_page, stores: as in `PrivilegedState`.
    """
    clock = timetable.clock[episode]  # (B, Q)
    needs = timetable.needs[episode]  # (B, Q, R)
    now = (clock == state.clock[:, None]) & state.at_query[:, None]
    # At most one query asks at a time.
    current, route = (
        torch.where(now[..., None], pages, -1).amax(dim=1)
        for pages in (needs, timetable.route[episode])
    )
    ahead = (clock - state.clock[:, None]).clamp(min=0)
    return PrivilegedState(
        state=state,
        needs=current,
        route=route,
        future_events=ahead,
        future_needs=torch.where((ahead > 0)[..., None], needs, -1),
        ranking=ranking,
        result_page=result_page,
        stores=stores,
        next_request=_requested_in(state, timetable, episode),
    )


def _requested_in(state: PagingState, timetable: QueryTimetable, episode: Tensor) -> Tensor:
    """`PrivilegedState.next_request`: each request is a use, so the latest use tells the next."""
    event = (state.slot_last_use - 1).clamp(min=0, max=timetable.next_request.shape[1] - 1)
    clock = timetable.next_request[episode[:, None], event]
    is_known = (state.slot_page != EMPTY) & (clock > 0)
    return torch.where(is_known, clock - state.clock[:, None], 0)
