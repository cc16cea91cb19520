"""The queue manager: lets pages into main context, warns under pressure, flushes when it is full.

Packer et al., arXiv 2310.08560v2, section 2.2: a warning at 70 % of the context, a flush at 100 %
that evicts 50 % and summarises what it evicts. All by tokens, never by number of messages.

Shares are of the queue's capacity, as `evict_fraction` of the environment is; the paper's are of
the whole window, where a long system message could leave a small queue always above the warning.
"""

from __future__ import annotations

import math
from collections.abc import Callable
from dataclasses import dataclass
from datetime import UTC, datetime

from memrl.memory.accounting import Accounting
from memrl.memory.context_page import ContextPage, Role
from memrl.memory.external import Recall
from memrl.memory.main_context import MainContext
from memrl.memory.refusals import Reason, RefusedError
from memrl.memory.summarizers import GuardedSummarizer, Summarizer
from memrl.memory.window import ContextError

_LEAST_SUMMARY_TOKENS = 16
"""Least room for the text of a summary; below it, a summary would say nothing."""


@dataclass(frozen=True, slots=True)
class QueueOptions:
    """When the queue warns and flushes, as shares of its capacity in tokens.

    Attributes:
        warn_fraction: the notice of memory pressure is shown once this share is occupied, and until
            the next flush.
        flush_fraction: a page that would bring the queue above this share flushes it first.
        evict_fraction: share that a flush leaves free at least; 0 evicts just until the page fits.

    Raises:
        ValueError: if a share is out of its range.
    """

    warn_fraction: float = 0.7
    flush_fraction: float = 1.0
    evict_fraction: float = 0.5

    def __post_init__(self) -> None:
        """Refuse what is no share."""
        for name in ("warn_fraction", "flush_fraction"):
            if not 0 < getattr(self, name) <= 1:
                raise ValueError(f"{name} must lie in (0, 1], got {getattr(self, name)}.")
        if not 0 <= self.evict_fraction < 1:
            raise ValueError(f"evict_fraction must lie in [0, 1), got {self.evict_fraction}.")


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


class QueueManager:
    """Writes every page to recall and keeps the queue within its capacity.

    Args:
        main: main context. recall: gets every page, whole, before main context does.
        summarizer: makes the recursive summary; None keeps none.
        options: when to warn and flush.
        accounting: counts "queue/append", "queue/retrieve", "queue/evict" and "queue/flush".
        clock: the present time, with a time zone; stamps pages that come without one.
        first_page_id: ids of pages that come without one count up from here; where others give
            ids, begin above theirs.

    Raises:
        ContextError: if there is a summarizer and the window leaves a summary no room.
    """

    def __init__(
        self,
        main: MainContext,
        recall: Recall,
        *,
        summarizer: Summarizer | None = None,
        options: QueueOptions | None = None,
        accounting: Accounting | None = None,
        clock: Callable[[], datetime] = lambda: datetime.now(UTC),
        first_page_id: int = 0,
    ) -> None:
        if summarizer is not None and main.summary_room_tokens < _LEAST_SUMMARY_TOKENS:
            raise ContextError(
                f"The summary's share of {main.window.summary_tokens} tokens is too small for a "
                f"summarizer: raise summary_tokens by "
                f"{_LEAST_SUMMARY_TOKENS - main.summary_room_tokens} or more, or take none."
            )
        self.main = main
        self.recall = recall
        self.summarizer = None if summarizer is None else GuardedSummarizer(summarizer, main.count)
        self.options = options or QueueOptions()
        self.accounting = accounting or Accounting()
        self._clock = clock
        self._next_page_id = first_page_id

    def append(
        self, text: str, role: Role, *, page_id: int | None = None, time: datetime | None = None
    ) -> Arrival:
        """Let a new page into recall and main context.

        A page larger than the queue is cut there, with a marker; recall has it whole.

        Args:
            text: any text. role: who it is from.
            page_id: an id never given before; None for the next free one.
            time: of the page, with a time zone; None for now.

        Raises:
            ValueError: if the id has been given before.
            MemrlError: if recall cannot store the page; then nothing has changed.
        """
        page_id = self._next_page_id if page_id is None else page_id
        if self.main.has_seen(page_id):
            raise ValueError(f"Page {page_id} has been seen before; recall is append-only.")
        with self.accounting.measure("queue/append", self.main.core.counts) as operation:
            page = self.main.prepare(page_id, text, role)
            self.recall.append(
                page_id,
                text,
                role=role,
                time=self._clock() if time is None else time,
                page_tokens=page.page_tokens,
            )
            operation.stored(text)
            self._next_page_id = max(self._next_page_id, page_id + 1)
            self.main.see(page)
            return self._admit(page)

    def retrieve(self, page_id: int) -> Arrival:
        """Bring a page from recall to the back of the queue.

        Raises:
            RefusedError: UNKNOWN_PAGE or ALREADY_RESIDENT.
            MemrlError: if recall cannot be read; then nothing has changed.
        """
        if not self.main.has_seen(page_id):
            raise RefusedError(
                Reason.UNKNOWN_PAGE,
                f"There is no page {page_id}: take an id that a search has shown.",
            )
        if self.main.core.is_resident(page_id):
            raise RefusedError(
                Reason.ALREADY_RESIDENT, f"Page {page_id} is in main context already."
            )
        with self.accounting.measure("queue/retrieve", self.main.core.counts):
            (hit,) = self.recall.get([page_id])
            return self._admit(self.main.prepare(page_id, hit.text, hit.role))

    def evict(self, page_id: int) -> ContextPage:
        """Take a page out of main context by choice; it is not summarised, recall keeps it.

        Raises:
            RefusedError: NOT_RESIDENT.
        """
        if not self.main.core.is_resident(page_id):
            raise RefusedError(Reason.NOT_RESIDENT, f"Page {page_id} is not in main context.")
        with self.accounting.measure("queue/evict", self.main.core.counts):
            return self.main.page_out(page_id)

    # ------------------------------------------------------------------ making room

    def _admit(self, page: ContextPage) -> Arrival:
        """Flush if the page does not fit, let it in, and warn once a period."""
        core = self.main.core
        flush = None
        if core.num_resident and not self._has_room(page):
            flush = self._flush(page)
        self.main.page_in(page)
        is_pressing = core.occupied_tokens >= self.options.warn_fraction * core.capacity_tokens
        is_warning = is_pressing and not self.main.has_notice
        if is_warning:
            self.main.show_notice(page.page_id)
        return Arrival(page, flush, is_warning)

    def _has_room(self, page: ContextPage) -> bool:
        core = self.main.core
        limit_tokens = self.options.flush_fraction * core.capacity_tokens
        return core.fits(page.page_id) and core.occupied_tokens + page.page_tokens <= limit_tokens

    def _flush(self, page: ContextPage) -> Flush:
        """Evict from the front of the queue until enough is free, and summarise what left.

        It ends: each turn takes out a page, and an empty queue holds any page that was cut to its
        capacity.
        """
        core = self.main.core
        keep_tokens = math.floor((1 - self.options.evict_fraction) * core.capacity_tokens)
        with self.accounting.measure("queue/flush", core.counts):
            evicted = []
            while core.num_resident and (
                core.occupied_tokens > keep_tokens or not self._has_room(page)
            ):
                evicted.append(self.main.page_out(core.victim))
            self.main.hide_notice()
            failure, is_cut = self._summarise(evicted)
        return Flush(
            evicted=tuple(gone.page_id for gone in evicted),
            evicted_tokens=sum(gone.page_tokens for gone in evicted),
            summarizer_failure=failure,
            is_summary_cut=is_cut,
        )

    def _summarise(self, evicted: list[ContextPage]) -> tuple[str | None, bool]:
        if self.summarizer is None:
            return None, False
        texts = [self.main.summary] if self.main.summary else []
        texts += [f"{page.role}: {page.text}" for page in evicted]
        summary, failure = self.summarizer(texts, self.main.summary_room_tokens)
        core = self.main.core
        num_hidden = core.counts.pages_seen - core.num_resident - 1  # not the page that arrives
        return failure, self.main.set_summary(summary, num_hidden)
