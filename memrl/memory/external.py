"""What the queue and the functions need of external storage; any store with these methods will do.

Every method may raise `MemrlError`; then nothing was stored.
"""

from __future__ import annotations

from collections.abc import Iterable, Sequence
from dataclasses import dataclass
from datetime import datetime
from typing import Protocol

from memrl.memory.results import SearchPage
from memrl.memory.saved_context import SavedContext


@dataclass(frozen=True, slots=True)
class RecallPage:
    """A page as recall keeps it.

    Attributes:
        page_id: 0 or more. text: any text; NUL and lone surrogates come back as they were.
        role: who wrote it; in a live memory one of `memrl.memory.context_page.ROLES`.
        time: when, with a time zone.
        page_tokens: what it takes in main context, where it may be cut.
    """

    page_id: int
    text: str
    role: str
    time: datetime
    page_tokens: int


class Recall(Protocol):
    """The append-only log of every page seen, and the main context that has come of it."""

    def append(self, page: RecallPage, context: SavedContext) -> None:
        """Write a page, never seen before, and the main context that it leads to: both or none."""
        ...

    def extend(self, pages: Iterable[RecallPage]) -> None:
        """Write many pages, all or none; main context stays as it was."""
        ...

    def save_context(self, context: SavedContext) -> None:
        """Write main context in the place of the one before."""
        ...

    def get(self, page_ids: Sequence[int]) -> Sequence[RecallPage]:
        """The pages, in the order asked for; KeyError for one never appended."""
        ...

    def search(self, query: str, *, page: int, page_size: int, roles: Sequence[str]) -> SearchPage:
        """Pages of these roles that match the words of the query, best first."""
        ...

    def search_date(
        self, start: str, end: str, *, page: int, page_size: int, roles: Sequence[str]
    ) -> SearchPage:
        """Pages of these roles from `start` to `end`, dates YYYY-MM-DD, both days included.

        Raises:
            SearchError: if the dates are reversed, see `memrl.memory.results.parse_days`.
        """
        ...


class Archival(Protocol):
    """Passages written on purpose, searched by meaning."""

    def insert(self, text: str, *, time: datetime) -> object:
        """Store a text of this time, with a time zone; what it returns is its own affair."""
        ...

    def search(self, query: str, *, page: int, page_size: int) -> SearchPage:
        """Passages by similarity to the query, best first."""
        ...
