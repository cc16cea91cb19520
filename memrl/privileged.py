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
        """Collect the timetable of every episode."""
        rows: list[list[tuple[int, tuple[int, ...], tuple[int, ...]]]] = []
        for episode in range(table.num_episodes):
            offset = table.query_offset[table.episode_document[episode]]
            row = []
            for event in np.flatnonzero(table.event_kind[episode] == Event.QUERY).tolist():
                query = int(table.event_index[episode, event])
                if table.query_pays[offset + query]:
                    needed = table.needs_in_window(episode, query)
                    row.append((event + 1, needed, table.route_in_window(episode, query)))
            rows.append(row)
        num_queries = max(max(map(len, rows)), 1)
        clock = torch.zeros((len(rows), num_queries), dtype=torch.int64)
        needs, route = (
            torch.full((len(rows), num_queries, pages.shape[1]), -1, dtype=torch.int64)
            for pages in (table.query_needs, table.query_route)
        )
        for episode, row in enumerate(rows):
            for position, (asked, needed, passed) in enumerate(row):
                clock[episode, position] = asked
                needs[episode, position, : len(needed)] = torch.tensor(needed)
                route[episode, position, : len(passed)] = torch.tensor(passed, dtype=torch.int64)
        again = torch.from_numpy(_next_requests(table))
        return cls(*(values.to(device) for values in (clock, needs, route, again)))


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
