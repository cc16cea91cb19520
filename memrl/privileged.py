"""What only clairvoyant policies, training labels and reports may see.

Written once, with a leading batch axis, from the table's timetable of queries; environments add
what their search has ranked.
"""

from __future__ import annotations

import dataclasses
from dataclasses import dataclass

import torch
from torch import Tensor

from memrl.state import PagingState
from memrl.table import EpisodeTable, Event


@dataclass(frozen=True)
class QueryTimetable:
    """When each episode asks what; only queries that pay evidence.

    Attributes:
        clock: (E, Q) int64, value of the clock when the query is asked, 0 for none.
        needs: (E, Q, R) int64, pages of the window that it needs, -1 padded.
        route: (E, Q, R2) int64, pages of the window that lead to them, in order, -1 padded.
    """

    clock: Tensor
    needs: Tensor
    route: Tensor

    @classmethod
    def from_table(cls, table: EpisodeTable, device: torch.device | str = "cpu") -> QueryTimetable:
        """Collect the timetable of every episode."""
        rows: list[list[tuple[int, tuple[int, ...], tuple[int, ...]]]] = []
        for episode in range(table.num_episodes):
            offset = table.query_offset[table.episode_document[episode]]
            row = []
            for event in range(int(table.episode_num_events[episode])):
                query = int(table.event_index[episode, event])
                is_query = table.event_kind[episode, event] == Event.QUERY
                if is_query and table.query_pays[offset + query]:
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
        return cls(clock.to(device), needs.to(device), route.to(device))


@dataclass(frozen=True)
class PrivilegedState:
    """The hidden truth at B decision points; pages are indices within each episode's window.

    Attributes:
        state: what the observation is made from.
        needs: (B, R) pages that the query at hand needs, -1 padded; all -1 when it pays no
            evidence.
        route: (B, R2) pages that lead to them, in order, -1 padded; all -1 without any.
        future_events: (B, Q) events from now until a later query is asked, 0 for none.
        future_needs: (B, Q, R) what those queries need, -1 padded.
        ranking: (B, W) all hits of the present staging, best first, -1 padded.
        result_page: (B,) which K of the ranking are shown.
        stores: (B,) pages stored so far.
    """

    state: PagingState
    needs: Tensor
    route: Tensor
    future_events: Tensor
    future_needs: Tensor
    ranking: Tensor
    result_page: Tensor
    stores: Tensor

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
        state: B episodes. episode: (B,) int64, their numbers in the timetable's table.
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
    )
