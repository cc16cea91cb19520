"""What a search in external storage returns: one page of hits, and how many there are in all."""

from __future__ import annotations

import re
from dataclasses import dataclass
from datetime import date, datetime

from memrl.memory.refusals import Reason, RefusedError, quoted

DEFAULT_PAGE_SIZE = 5
"""Hits of a page of results, as in MemGPT's code (its paper shows 10 in figure 6)."""


_ISO_DATE = re.compile(r"[0-9]{4}-[0-9]{2}-[0-9]{2}")


class SearchError(RefusedError):
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
        raise SearchError(
            Reason.OUT_OF_RANGE, f"Pages of results are numbered from 0; there is no page {page}."
        )
    if page_size < 1:
        raise SearchError(
            Reason.OUT_OF_RANGE, f"A page of results holds at least 1 hit, not {page_size}."
        )


def parse_day(name: str, text: str) -> date:
    """The day of the calendar that a text YYYY-MM-DD names.

    Args:
        name: what the text is, for the message.

    Raises:
        SearchError: NOT_A_DATE.
    """
    try:
        if not _ISO_DATE.fullmatch(text):  # `fromisoformat` reads other forms as well
            raise ValueError
        return date.fromisoformat(text)
    except ValueError:
        raise SearchError(
            Reason.NOT_A_DATE,
            f"{name} must be a date of the calendar, as YYYY-MM-DD, not {quoted(text)}.",
        ) from None


def parse_days(start: str, end: str) -> tuple[date, date]:
    """The first and the last day of a search.

    Raises:
        SearchError: NOT_A_DATE or DATES_REVERSED.
    """
    first, last = parse_day("start_date", start), parse_day("end_date", end)
    if first > last:
        raise SearchError(
            Reason.DATES_REVERSED, f"start_date {start} is after end_date {end}: exchange them."
        )
    return first, last
