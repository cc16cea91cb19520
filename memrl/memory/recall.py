"""Recall: the append-only log of every page seen, searched by words and by date.

The store keeps main context beside the log (`memrl.memory.saved_context`), so that a page and what
its arrival made of main context are written in one transaction.

Packer et al., arXiv 2310.08560v2, section 2: recall storage holds all messages for ever. The
original finds substrings, unranked; here BM25 ranks, with the terms and the scores of
`memrl.memory.bm25` (see `memrl.memory.term_index`). A query is text: quotes, operators, wildcards
and statements in it are words or nothing.
"""

from __future__ import annotations

import sqlite3
from collections.abc import Iterable, Sequence
from datetime import date
from pathlib import Path

import numpy as np
import numpy.typing as npt

from memrl.memory.bm25 import Bm25Statistics, analyze
from memrl.memory.columns import DAY_US
from memrl.memory.database import Database, Store
from memrl.memory.external import RecallPage
from memrl.memory.recall_rows import (
    RECALL_FORMAT,
    add_role,
    insert_page,
    num_pages,
    pages_at,
    positions_of,
    read_context,
    roles_of,
    sizes_of,
    write_context,
)
from memrl.memory.results import DEFAULT_PAGE_SIZE, Hit, SearchPage, check_page, parse_days
from memrl.memory.saved_context import SavedContext
from memrl.memory.scores import quantize_scores
from memrl.memory.term_index import TermIndex

__all__ = ["RecallPage", "RecallStore"]


class RecallStore(Store):
    """Every page seen, in order of arrival.

    Args:
        path: file of the store, made when there is none; None keeps it in memory.
        statistics: frozen BM25 statistics, those of a table, for the table's scores; None takes
            the statistics of the pages in the store as they are at each search.
        read_only: open an existing file beside its writer, and see what that one adds.

    Raises:
        StoreError: see `memrl.memory.database`.
    """

    def __init__(
        self,
        path: str | Path | None = None,
        *,
        statistics: Bm25Statistics | None = None,
        read_only: bool = False,
    ) -> None:
        self._statistics = statistics
        super().__init__(
            Database(
                Path(path) if path is not None else None,
                RECALL_FORMAT,
                meta={},
                read_only=read_only,
            )
        )
        self._index = TermIndex(self._database.connection)

    def __len__(self) -> int:
        with self._database.reading() as connection:
            return num_pages(connection)

    # ------------------------------------------------------------------ writing

    def append(self, page: RecallPage, context: SavedContext | None = None) -> None:
        """Add a page; when this returns, the page is stored for good.

        Args:
            page: never appended before.
            context: main context with this page, written in the same transaction; None leaves it.

        Raises:
            ValueError: if the page was appended before, or a field is out of range.
            StoreError: if it cannot be written; the store is as it was.
        """
        with self._database.writing() as connection:
            self._insert(connection, [page])
            if context is not None:
                write_context(connection, context)

    def extend(self, pages: Iterable[RecallPage]) -> None:
        """Add many pages in one transaction, all or none; errors as `append`."""
        with self._database.writing() as connection:
            self._insert(connection, pages)

    def save_context(self, context: SavedContext) -> None:
        """Write main context for good; StoreError if it cannot be, then the last one stays."""
        with self._database.writing() as connection:
            write_context(connection, context)

    def _insert(self, connection: sqlite3.Connection, pages: Iterable[RecallPage]) -> None:
        role_ids = {role: role_id for role_id, role in roles_of(connection).items()}
        for position, page in enumerate(pages, start=num_pages(connection) + 1):
            if page.role not in role_ids:
                role_ids[page.role] = add_role(connection, page.role)
            terms = analyze(page.text)
            insert_page(connection, position, page, role_ids[page.role], len(terms))
            self._index.add(position, terms)

    # ------------------------------------------------------------------ reading

    @property
    def context(self) -> SavedContext | None:
        """Main context as it was last written; None before that. StoreError if it is damaged."""
        with self._database.reading() as connection:
            return read_context(connection, self._database.name)

    def sizes(self) -> list[tuple[int, int]]:
        """(page id, page_tokens) of every page, in order of arrival."""
        with self._database.reading() as connection:
            return list(sizes_of(connection))

    def get(self, page_ids: Sequence[int]) -> list[RecallPage]:
        """Return pages in the order asked for.

        Raises:
            KeyError: if one was never appended.
        """
        with self._database.reading() as connection:
            positions = positions_of(connection, page_ids)
            pages = pages_at(connection, positions)
        return [pages[position] for position in positions]

    def search(
        self,
        query: str,
        page: int = 0,
        page_size: int = DEFAULT_PAGE_SIZE,
        roles: Iterable[str] | None = None,
    ) -> SearchPage:
        """Find pages that hold a term of the query, best BM25 score first, ties by arrival.

        Scores are compared quantised, as the tables hold them.

        Args:
            query: any text. One without terms (empty, stop words only) has no hits.
            page: page of the results, from 0; one past the end is empty and has the right total.
            page_size: hits of a full page.
            roles: only pages of these roles; None for all.

        Raises:
            SearchError: if `page` or `page_size` is out of range.
        """
        check_page(page, page_size)
        with self._database.reading() as connection:
            self._index.synchronize()
            is_hit, scores = self._index.score(query, self._statistics)
            if roles is not None:
                is_hit &= np.isin(self._index.role_ids, _role_ids(connection, roles))
            hits = np.flatnonzero(is_hit)
            first = page * page_size
            best = _best(hits, quantize_scores(scores[hits]), first + page_size)[first:].tolist()
            found = pages_at(connection, [index + 1 for index in best])
        return SearchPage(
            tuple(_hit(found[index + 1], float(scores[index])) for index in best),
            total=len(hits),
            page=page,
            page_size=page_size,
        )

    def scores(self, query: str, page_ids: Sequence[int]) -> npt.NDArray[np.float32]:
        """BM25 scores of some pages, equal to `bm25.bm25_scores([query], texts, statistics)[0]`.

        Args:
            query: any text.
            page_ids: n pages.

        Returns:
            (n,) float32 in [0, 1).

        Raises:
            KeyError: if a page was never appended.
        """
        with self._database.reading() as connection:
            self._index.synchronize()
            _, scores = self._index.score(query, self._statistics)
            positions = np.array(positions_of(connection, page_ids), dtype=np.int64)
        return scores[positions - 1]

    def search_date(
        self,
        start: str,
        end: str,
        page: int = 0,
        page_size: int = DEFAULT_PAGE_SIZE,
        roles: Iterable[str] | None = None,
    ) -> SearchPage:
        """Find pages of the days from `start` to `end`, both included, earliest first.

        The day of a page is the one on the calendar where it was written: in its own time zone.

        Args:
            start, end: dates as YYYY-MM-DD.
            page, page_size, roles: as in `search`.

        Raises:
            SearchError: if a date does not parse or they are in the wrong order, or `page` or
                `page_size` is out of range.
        """
        check_page(page, page_size)
        first, last = parse_days(start, end)
        first_us, last_us = _day_start_us(first), _day_start_us(last) + DAY_US - 1
        # No time zone is a day away from UTC, so the index on UTC narrows the search.
        where = "utc_us BETWEEN ? AND ? AND utc_us + offset_us BETWEEN ? AND ?"
        bounds: list[int] = [first_us - DAY_US, last_us + DAY_US, first_us, last_us]
        with self._database.reading() as connection:
            if roles is not None:
                ids = _role_ids(connection, roles)
                where += f" AND role_id IN ({', '.join('?' * len(ids))})"
                bounds += ids
            [(total,)] = connection.execute(f"SELECT count(*) FROM pages WHERE {where}", bounds)
            positions: list[int] = []
            if page * page_size < total:
                rows = connection.execute(
                    f"SELECT position FROM pages WHERE {where} "
                    "ORDER BY utc_us, position LIMIT ? OFFSET ?",
                    (*bounds, min(page_size, total), page * page_size),
                )
                positions = [position for (position,) in rows]
            found = pages_at(connection, positions)
        hits = tuple(_hit(found[position], None) for position in positions)
        return SearchPage(hits, total=total, page=page, page_size=page_size)


def _best(
    hits: npt.NDArray[np.int64], scores: npt.NDArray[np.int16], count: int
) -> npt.NDArray[np.int64]:
    """The first `count` of the hits, by score descending, then in their own order (ascending)."""
    if count < len(hits):
        lowest = np.partition(scores, len(hits) - count)[len(hits) - count]
        hits, scores = hits[scores >= lowest], scores[scores >= lowest]
    return hits[np.argsort(-scores.astype(np.int64), kind="stable")][:count]


def _role_ids(connection: sqlite3.Connection, roles: Iterable[str]) -> list[int]:
    wanted = set(roles)
    return [role_id for role_id, role in roles_of(connection).items() if role in wanted]


def _hit(page: RecallPage, score: float | None) -> Hit:
    return Hit(page.page_id, page.text, page.time, page.role, score)


def _day_start_us(day: date) -> int:
    """Microseconds from 1970 to the midnight that begins a day, on the day's own calendar."""
    return (day - date(1970, 1, 1)).days * DAY_US
