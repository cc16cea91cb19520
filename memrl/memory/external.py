"""What the queue and the functions need of external storage; any store with these methods will do.

Every method may raise `MemrlError`; then nothing was stored.
"""

from __future__ import annotations

from collections.abc import Sequence
from datetime import datetime
from typing import Protocol

from memrl.memory.results import Hit, SearchPage


class Recall(Protocol):
    """The append-only log of every page seen."""

    def append(
        self, page_id: int, text: str, *, role: str, time: datetime, page_tokens: int
    ) -> None:
        """Write one page.

        Args:
            page_id: never seen before. text: the whole text, exactly to be kept.
            role: one of `memrl.memory.context_page.ROLES`. time: with a time zone.
            page_tokens: what the page takes in main context, where it may be cut.
        """
        ...

    def get(self, page_ids: Sequence[int]) -> Sequence[Hit]:
        """The pages, in the order asked for; KeyError for one never appended."""
        ...

    def search(self, query: str, *, page: int, page_size: int, roles: Sequence[str]) -> SearchPage:
        """Pages of these roles that match the words of the query, best first."""
        ...

    def search_date(
        self, start: str, end: str, *, page: int, page_size: int, roles: Sequence[str]
    ) -> SearchPage:
        """Pages of these roles from `start` to `end`, dates YYYY-MM-DD, both days included."""
        ...


class Archival(Protocol):
    """Passages written on purpose, searched by meaning."""

    def insert(self, text: str) -> object:
        """Store a text; what is returned is the store's own affair."""
        ...

    def search(self, query: str, *, page: int, page_size: int) -> SearchPage:
        """Passages by similarity to the query, best first."""
        ...
