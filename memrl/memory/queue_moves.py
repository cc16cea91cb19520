"""What goes into the queue and what comes of it: options, new pages, arrivals and flushes."""

from __future__ import annotations

from dataclasses import dataclass
from datetime import datetime

from memrl.memory.context_page import ContextPage, Role


@dataclass(frozen=True, slots=True)
class QueueOptions:
    """When the queue warns and flushes, as shares of its capacity in tokens.

    Attributes:
        warn_fraction: the notice of memory pressure is shown once this share is occupied, and until
            the next flush; None never shows it.
        flush_fraction: a page that would bring the queue above this share flushes it first.
        evict_fraction: share that a flush leaves free at least; 0 evicts just until the page fits.

    Raises:
        ValueError: if a share is out of its range.
    """

    warn_fraction: float | None = 0.7
    flush_fraction: float = 1.0
    evict_fraction: float = 0.5

    def __post_init__(self) -> None:
        """Refuse what is no share."""
        for name in ("warn_fraction", "flush_fraction"):
            share = getattr(self, name)
            if share is None and name == "warn_fraction":
                continue
            if not 0 < share <= 1:
                raise ValueError(f"{name} must lie in (0, 1], got {share}.")
        if not 0 <= self.evict_fraction < 1:
            raise ValueError(f"evict_fraction must lie in [0, 1), got {self.evict_fraction}.")


@dataclass(frozen=True, slots=True)
class NewPage:
    """A page that is to come.

    Attributes:
        text: any text. role: who wrote it.
        page_id: never seen before; None for the next one.
        time: with a time zone; None for the moment of writing.
    """

    text: str
    role: Role
    page_id: int | None = None
    time: datetime | None = None


def check_new_page(page: object) -> None:
    """Refuse what is no page, or not of the types of one.

    Raises:
        TypeError: naming the field.
    """
    if not isinstance(page, NewPage):
        raise TypeError(f"A history is made of NewPage, not of {type(page).__name__}.")
    page_id, time = page.page_id, page.time
    is_integer = isinstance(page_id, int) and not isinstance(page_id, bool)
    for name, value, is_right, expected in (
        ("text", page.text, isinstance(page.text, str), "a str"),
        ("page_id", page_id, page_id is None or is_integer, "an int or None"),
        ("time", time, time is None or isinstance(time, datetime), "a datetime or None"),
    ):
        if not is_right:
            raise TypeError(
                f"The {name} of a page must be {expected}, not of type {type(value).__name__}."
            )


@dataclass(frozen=True, slots=True)
class Flush:
    """What a flush did.

    Attributes:
        evicted: pages that left, oldest first. evicted_tokens: their sizes.
        summarizer_failure: why extraction took the summarizer's place (see `GuardedSummarizer`), or
            None.
        is_summary_cut: whether the summary was cut to its share of the window.
    """

    evicted: tuple[int, ...]
    evicted_tokens: int
    summarizer_failure: str | None
    is_summary_cut: bool


@dataclass(frozen=True, slots=True)
class Arrival:
    """A page has come into main context.

    Attributes:
        page: as it is shown. flush: what made room for it, or None.
        is_warning: whether the notice of memory pressure has appeared with it.
    """

    page: ContextPage
    flush: Flush | None
    is_warning: bool
