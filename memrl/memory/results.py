"""What a search in external storage returns: one page of hits, and how many there are in all."""

from __future__ import annotations

from dataclasses import dataclass
from datetime import datetime


@dataclass(frozen=True, slots=True)
class Hit:
    """One stored text that a search found.

    Attributes:
        page_id: page that the text belongs to; None for a passage that was written, not seen.
        text: exactly as it was stored.
        time: when it was stored, with a time zone. role: who wrote it, as in chat messages.
        score: of the search, larger is better; None where hits are ordered by time.
    """

    page_id: int | None
    text: str
    time: datetime
    role: str
    score: float | None = None


@dataclass(frozen=True, slots=True)
class SearchPage:
    """One page of the results of a search.

    Attributes:
        hits: at most `page_size`, best (or earliest) first; empty past the last page.
        total: hits on all pages.
        page: number of this page, from 0. page_size: hits of a full page.
    """

    hits: tuple[Hit, ...]
    total: int
    page: int
    page_size: int

    @property
    def num_pages(self) -> int:
        """Pages that hold all hits; 0 without any."""
        return -(-self.total // self.page_size)
