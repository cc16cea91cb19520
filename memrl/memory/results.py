"""What a search in external storage returns: one page of hits, and how many there are in all."""

from __future__ import annotations

from dataclasses import dataclass
from datetime import datetime

from memrl.errors import MemrlError

DEFAULT_PAGE_SIZE = 5
"""Hits of a page of results, as in MemGPT's code (its paper shows 10 in figure 6)."""


class SearchError(MemrlError):
    """A search was asked in a form that has no answer; the message says which form has one."""


@dataclass(frozen=True, slots=True)
class Hit:
    """One stored text that a search found.

    Attributes:
        page_id: page that the text belongs to; None for a passage that was written, not seen.
        text: exactly as it was stored.
        time: when it was stored, with a time zone. role: who wrote it, as in chat messages.
        score: of the search, larger is better; None where hits are ordered by time.
        entry_id: entry of the archive that the text belongs to; None for hits in recall.
    """

    page_id: int | None
    text: str
    time: datetime
    role: str
    score: float | None = None
    entry_id: int | None = None


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


def check_page(page: int, page_size: int) -> None:
    """Refuse a page of results that no search has.

    Raises:
        SearchError: if `page` is negative or `page_size` below 1.
    """
    if page < 0:
        raise SearchError(f"Pages of results are numbered from 0; there is no page {page}.")
    if page_size < 1:
        raise SearchError(f"A page of results holds at least 1 hit, not {page_size}.")
