"""Recall and archival as plain lists: what the queue and the executor are tested against."""

from __future__ import annotations

from collections.abc import Sequence
from datetime import datetime

from memrl.errors import MemrlError
from memrl.memory.results import Hit, SearchPage


def one_page(hits: list[Hit], page: int, page_size: int) -> SearchPage:
    first = page * page_size
    return SearchPage(tuple(hits[first : first + page_size]), len(hits), page, page_size)


class ListRecall:
    """A match holds every word of the query; in order of arrival."""

    def __init__(self) -> None:
        self.hits: dict[int, Hit] = {}
        self.page_tokens: dict[int, int] = {}
        self.is_broken = False

    def append(
        self, page_id: int, text: str, *, role: str, time: datetime, page_tokens: int
    ) -> None:
        self._check()
        assert page_id not in self.hits
        assert time.tzinfo is not None
        self.hits[page_id] = Hit(page_id, text, time, role)
        self.page_tokens[page_id] = page_tokens

    def get(self, page_ids: Sequence[int]) -> list[Hit]:
        self._check()
        return [self.hits[page_id] for page_id in page_ids]

    def search(self, query: str, *, page: int, page_size: int, roles: Sequence[str]) -> SearchPage:
        self._check()
        words = query.lower().split()
        hits = [
            hit
            for hit in self.hits.values()
            if hit.role in roles and all(word in hit.text.lower() for word in words)
        ]
        return one_page(hits, page, page_size)

    def search_date(
        self, start: str, end: str, *, page: int, page_size: int, roles: Sequence[str]
    ) -> SearchPage:
        self._check()
        hits = [
            hit
            for hit in self.hits.values()
            if hit.role in roles and start <= hit.time.date().isoformat() <= end
        ]
        return one_page(hits, page, page_size)

    def _check(self) -> None:
        if self.is_broken:
            raise MemrlError("The disk that holds recall is full: free some space.")


class ListArchival:
    """Every passage is a hit, the one with most of the query's words first."""

    def __init__(self) -> None:
        self.texts: list[str] = []
        self.time = datetime.fromisoformat("2024-05-01T12:00:00+00:00")
        self.is_broken = False

    def insert(self, text: str) -> int:
        self._check()
        self.texts.append(text)
        return len(self.texts) - 1

    def search(self, query: str, *, page: int, page_size: int) -> SearchPage:
        self._check()
        words = set(query.lower().split())
        scored = [(len(words & set(text.lower().split())), text) for text in self.texts]
        scored.sort(key=lambda pair: -pair[0])
        hits = [Hit(None, text, self.time, "assistant", float(score)) for score, text in scored]
        return one_page(hits, page, page_size)

    def _check(self) -> None:
        if self.is_broken:
            raise MemrlError("The disk that holds archival is full: free some space.")
