"""Recall and archival as plain lists: what the queue and the executor are tested against."""

from __future__ import annotations

from collections.abc import Iterable, Sequence
from datetime import datetime

from memrl.errors import MemrlError
from memrl.memory.external import RecallPage
from memrl.memory.results import Hit, SearchPage, parse_days
from memrl.memory.saved_context import SavedContext


def one_page(hits: list[Hit], page: int, page_size: int) -> SearchPage:
    first = page * page_size
    return SearchPage(tuple(hits[first : first + page_size]), len(hits), page, page_size)


def _hit(page: RecallPage) -> Hit:
    return Hit(page.page_id, page.text, page.time, page.role)


class ListRecall:
    """A match holds every word of the query; in order of arrival."""

    def __init__(self) -> None:
        self.pages: dict[int, RecallPage] = {}
        self.context: SavedContext | None = None
        self.is_broken = False

    def append(self, page: RecallPage, context: SavedContext) -> None:
        self.extend([page])
        self.context = context

    def extend(self, pages: Iterable[RecallPage]) -> None:
        self._check()
        for page in pages:
            assert page.page_id not in self.pages
            assert page.time.tzinfo is not None
            self.pages[page.page_id] = page

    def save_context(self, context: SavedContext) -> None:
        self._check()
        self.context = context

    def get(self, page_ids: Sequence[int]) -> list[RecallPage]:
        self._check()
        return [self.pages[page_id] for page_id in page_ids]

    def search(self, query: str, *, page: int, page_size: int, roles: Sequence[str]) -> SearchPage:
        self._check()
        words = query.lower().split()
        hits = [
            _hit(stored)
            for stored in self.pages.values()
            if stored.role in roles and all(word in stored.text.lower() for word in words)
        ]
        return one_page(hits, page, page_size)

    def search_date(
        self, start: str, end: str, *, page: int, page_size: int, roles: Sequence[str]
    ) -> SearchPage:
        self._check()
        parse_days(start, end)
        hits = [
            _hit(stored)
            for stored in self.pages.values()
            if stored.role in roles and start <= stored.time.date().isoformat() <= end
        ]
        return one_page(hits, page, page_size)

    def _check(self) -> None:
        if self.is_broken:
            raise MemrlError("The disk that holds recall is full: free some space.")


class ListArchival:
    """Every passage is a hit, the one with most of the query's words first."""

    def __init__(self) -> None:
        self.entries: list[tuple[str, datetime]] = []
        self.is_broken = False

    @property
    def texts(self) -> list[str]:
        return [text for text, _ in self.entries]

    def insert(self, text: str, *, time: datetime) -> int:
        self._check()
        assert time.tzinfo is not None
        self.entries.append((text, time))
        return len(self.entries) - 1

    def search(self, query: str, *, page: int, page_size: int) -> SearchPage:
        self._check()
        words = set(query.lower().split())
        scored = [
            Hit(None, text, time, "assistant", float(len(words & set(text.lower().split()))))
            for text, time in self.entries
        ]
        hits = sorted(scored, key=lambda hit: -(hit.score or 0.0))
        return one_page(hits, page, page_size)

    def _check(self) -> None:
        if self.is_broken:
            raise MemrlError("The disk that holds archival is full: free some space.")
