"""The queue manager: lets pages into main context, warns under pressure, flushes when it is full.

Packer et al., arXiv 2310.08560v2, section 2.2: a warning at 70 % of the context, a flush at 100 %
that evicts 50 % and summarises what it evicts. All by tokens, never by number of messages.

A move is planned first, written down with what it makes of main context, and then carried out: when
a call has returned, it survives the process, and when it raises, nothing has changed.

Shares are of the queue's capacity, as `evict_fraction` of the environment is; the paper's are of
the whole window, where a long system message could leave a small queue always above the warning.
"""

from __future__ import annotations

import math
from collections.abc import Callable, Iterable, Iterator
from dataclasses import replace
from datetime import UTC, datetime

from memrl.memory.accounting import Accounting
from memrl.memory.blocks import Block
from memrl.memory.columns import is_id
from memrl.memory.context_page import ContextPage, Role
from memrl.memory.external import Recall, RecallPage
from memrl.memory.main_context import MainContext
from memrl.memory.queue_moves import Arrival, Flush, NewPage, QueueOptions, check_new_page
from memrl.memory.refusals import Reason, RefusedError
from memrl.memory.saved_context import SavedContext
from memrl.memory.summarizers import GuardedSummarizer, Summarizer
from memrl.memory.window import ContextError

__all__ = ["Arrival", "Flush", "NewPage", "QueueManager", "QueueOptions"]

_LEAST_SUMMARY_TOKENS = 16
"""Least room for the text of a summary; below it, a summary would say nothing."""


class QueueManager:
    """Writes every page to recall and keeps the queue within its capacity.

    Args:
        main: main context. recall: gets every page, whole, before main context does.
        summarizer: makes the recursive summary; None keeps none.
        options: when to warn and flush.
        accounting: counts "queue/append", "queue/extend", "queue/retrieve", "queue/evict" and
            "queue/flush".
        clock: the present time, with a time zone; stamps pages that come without one.
        first_page_id: ids of pages that come without one count up from here; where others give
            ids, begin above theirs.

    Attributes:
        now: the clock; archival has its times from it as well.

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
        self.now = clock
        self._next_page_id = first_page_id

    def resume(self, sizes: Iterable[tuple[int, int]], saved: SavedContext | None) -> None:
        """Take up a memory where it was left: its pages, the queue, the summary and the notice.

        Blocks are main context's own from its construction. Pages that no longer fit a queue that
        has become smaller stay in recall alone, the oldest first.

        Args:
            sizes: (page id, page_tokens) of every page in recall, in order of arrival.
            saved: main context as it was last written; None where there was none.

        Raises:
            ContextError: if the queue names a page that recall does not have.
        """
        main, core = self.main, self.main.core
        for page_id, page_tokens in sizes:
            core.see(page_id, min(max(page_tokens, 1), core.capacity_tokens))
            self._next_page_id = max(self._next_page_id, page_id + 1)
        if saved is None:
            return
        unknown = [page_id for page_id in saved.queue if not main.has_seen(page_id)]
        if unknown:
            raise ContextError(
                f"The saved queue names pages {unknown} that recall does not have: the store is "
                "damaged, restore it from a copy."
            )
        main.set_summary(saved.summary, saved.num_hidden)
        resident = list(saved.queue)
        while len(resident) > core.num_slots or (
            sum(map(core.page_tokens, resident)) > core.capacity_tokens
        ):
            del resident[0]
        for page in self.recall.get(resident):
            main.page_in(main.prepare(page.page_id, page.text, page.role))
        if saved.notice_after is not None:
            main.show_notice(saved.notice_after)

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
            TypeError: see `check_new_page`.
            ValueError: if the id is out of range or has been given before.
            MemrlError: if recall cannot store the page; then nothing has changed.
        """
        new = NewPage(text, role, page_id, time)
        with self.accounting.measure("queue/append", self.main.core.counts) as operation:
            page, stored = self._numbered(new, self._next_page_id)

            def write(context: SavedContext) -> None:
                self.recall.append(stored, context)
                operation.stored(text)
                self._next_page_id = max(self._next_page_id, page.page_id + 1)
                self.main.see(page)

            return self._admit(page, write, is_new=True)

    def extend(self, pages: Iterable[NewPage]) -> list[int]:
        """Load a history into recall in one transaction, all or none; main context stays as it is.

        Args:
            pages: in order of time.

        Returns:
            Their page ids.

        Raises:
            TypeError, ValueError: as `append`.
            MemrlError: if recall cannot store the pages; then nothing has changed.
        """
        loaded: list[ContextPage] = []
        with self.accounting.measure("queue/extend", self.main.core.counts) as operation:

            def numbered() -> Iterator[RecallPage]:
                next_page_id = self._next_page_id
                for new in pages:
                    page, stored = self._numbered(new, next_page_id)
                    next_page_id = max(next_page_id, page.page_id + 1)
                    loaded.append(page)
                    operation.stored(new.text)
                    yield stored

            self.recall.extend(numbered())
            for page in loaded:
                self.main.see(page)
                self._next_page_id = max(self._next_page_id, page.page_id + 1)
        return [page.page_id for page in loaded]

    def _numbered(self, new: NewPage, next_page_id: int) -> tuple[ContextPage, RecallPage]:
        """How main context would show a new page, and how recall keeps it."""
        check_new_page(new)
        page_id = next_page_id if new.page_id is None else new.page_id
        if not is_id(page_id):
            raise ValueError(f"Page {page_id}: a page id is from 0 to 2^53-1.")
        if self.main.has_seen(page_id):
            raise ValueError(f"Page {page_id} has been seen before; recall is append-only.")
        page = self.main.prepare(page_id, new.text, new.role)
        time = self.now() if new.time is None else new.time
        return page, RecallPage(page_id, new.text, new.role, time, page.page_tokens)

    def retrieve(self, page_id: int) -> Arrival:
        """Bring a page from recall to the back of the queue.

        Raises:
            RefusedError: UNKNOWN_PAGE or ALREADY_RESIDENT.
            MemrlError: if recall cannot be read or written; then nothing has changed.
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
            (stored,) = self.recall.get([page_id])
            page = self.main.prepare(page_id, stored.text, stored.role)
            return self._admit(page, self.recall.save_context, is_new=False)

    def evict(self, page_id: int) -> ContextPage:
        """Take a page out of main context by choice; it is not summarised, recall keeps it.

        Raises:
            RefusedError: NOT_RESIDENT.
            MemrlError: if main context cannot be saved; then nothing has changed.
        """
        core = self.main.core
        if not core.is_resident(page_id):
            raise RefusedError(Reason.NOT_RESIDENT, f"Page {page_id} is not in main context.")
        with self.accounting.measure("queue/evict", core.counts):
            queue = tuple(page for page in core.queue if page != page_id)
            self.recall.save_context(replace(self.main.saved(), queue=queue))
            return self.main.page_out(page_id)

    # ------------------------------------------------------------------ working context

    def append_block(self, label: str, content: str) -> Block:
        """Add a line to a block; errors as `MainContext.append_block`, or MemrlError if unsaved."""
        return self._edit(lambda: self.main.append_block(label, content))

    def replace_in_block(self, label: str, old: str, new: str) -> Block:
        """Replace a text in a block; errors as `MainContext.replace_in_block`, or unsaved."""
        return self._edit(lambda: self.main.replace_in_block(label, old, new))

    def _edit(self, edit: Callable[[], Block]) -> Block:
        working = self.main.working
        try:
            block = edit()
            self.recall.save_context(self.main.saved())
        except BaseException:
            self.main.working = working
            raise
        return block

    # ------------------------------------------------------------------ making room

    def _admit(
        self, page: ContextPage, write: Callable[[SavedContext], None], *, is_new: bool
    ) -> Arrival:
        """Flush if the page does not fit, let it in, and warn once a period.

        Args:
            page: to come in. is_new: whether it comes from outside, not from recall.
            write: writes down what main context will be; nothing has changed before it returns.
        """
        main, core = self.main, self.main.core
        occupied_tokens, num_resident = core.occupied_tokens, core.num_resident
        flush = None
        if num_resident and not self._has_room(page, occupied_tokens, num_resident):
            with self.accounting.measure("queue/flush", core.counts):
                flush, planned = self._flush(page, write, is_new=is_new)
        else:
            planned = self._planned(page, main.saved())
            write(planned)
        main.page_in(page)
        is_warning = planned.notice_after is not None and not main.has_notice
        if is_warning:
            main.show_notice(page.page_id)
        return Arrival(page, flush, is_warning)

    def _planned(self, page: ContextPage, context: SavedContext) -> SavedContext:
        """Main context once a page has come into `context`."""
        core = self.main.core
        occupied_tokens = page.page_tokens + sum(map(core.page_tokens, context.queue))
        context = replace(context, queue=(*context.queue, page.page_id))
        warn_fraction = self.options.warn_fraction
        if warn_fraction is None:
            return context
        is_pressing = occupied_tokens >= warn_fraction * core.capacity_tokens
        if context.notice_after is None and is_pressing:
            return replace(context, notice_after=page.page_id)
        return context

    def _has_room(self, page: ContextPage, occupied_tokens: int, num_resident: int) -> bool:
        core = self.main.core
        limit_tokens = self.options.flush_fraction * core.capacity_tokens
        return num_resident < core.num_slots and occupied_tokens + page.page_tokens <= limit_tokens

    def _victims(self, page: ContextPage) -> list[ContextPage]:
        """Pages that leave from the front of the queue until enough is free for a page.

        An empty queue holds any page, because none is larger than its capacity.
        """
        core = self.main.core
        keep_tokens = math.floor((1 - self.options.evict_fraction) * core.capacity_tokens)
        occupied_tokens = core.occupied_tokens
        victims: list[ContextPage] = []
        for victim in self.main.pages:
            num_resident = core.num_resident - len(victims)
            if occupied_tokens <= keep_tokens and self._has_room(
                page, occupied_tokens, num_resident
            ):
                break
            victims.append(victim)
            occupied_tokens -= victim.page_tokens
        return victims

    def _flush(
        self, page: ContextPage, write: Callable[[SavedContext], None], *, is_new: bool
    ) -> tuple[Flush, SavedContext]:
        """Make room for a page, and summarise what leaves; also main context with the page."""
        main = self.main
        victims = self._victims(page)
        kept = tuple(main.core.queue[len(victims) :])
        num_hidden = main.core.counts.pages_seen + is_new - len(kept) - 1  # all but the page
        summary, failure = self._summary_with(victims)
        context = replace(main.saved(), queue=kept, notice_after=None)
        is_cut = False
        if summary is not None:
            shown, is_cut = main.fit_summary(summary, num_hidden)
            context = replace(context, summary=shown, num_hidden=num_hidden)
        planned = self._planned(page, context)
        write(planned)
        for victim in victims:
            main.page_out(victim.page_id)
        main.hide_notice()
        main.set_summary(context.summary, context.num_hidden)
        flush = Flush(
            evicted=tuple(victim.page_id for victim in victims),
            evicted_tokens=sum(victim.page_tokens for victim in victims),
            summarizer_failure=failure,
            is_summary_cut=is_cut,
        )
        return flush, planned

    def _summary_with(self, victims: list[ContextPage]) -> tuple[str | None, str | None]:
        """The summary once these have left, None without a summarizer; and its kind of failure."""
        if self.summarizer is None:
            return None, None
        texts = [self.main.summary] if self.main.summary else []
        texts += [f"{page.role}: {page.text}" for page in victims]
        return self.summarizer(texts, self.main.summary_room_tokens)
