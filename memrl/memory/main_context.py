"""Main context: what the model sees, and how its window is divided.

Layout (Packer et al., arXiv 2310.08560v2, section 2.1 and figure 3): one system message with the
instructions and the working context, then the queue, whose head is the summary of what left it.
Which pages are resident, their order, sizes and victim are the paging core's to say; here is only
their text, as it is shown. Every part has a share of the window that is fixed at construction, so
the queue's capacity never changes and an edit or a summary can never push a page out.
"""

from __future__ import annotations

from collections.abc import Iterable

from memrl.memory.blocks import Block, WorkingContext
from memrl.memory.context_page import ROLES, ContextPage, Message, as_role
from memrl.memory.display import COMMON_SPECIAL_TOKENS, json_line, make_display
from memrl.memory.paging import PagingCore
from memrl.memory.refusals import Reason, RefusedError
from memrl.memory.saved_context import SavedContext
from memrl.memory.tokens import TokenCounter, count_tokens, truncate
from memrl.memory.window import LEAST_QUEUE_TOKENS, ContextError, Window

CUT_MARKER = " [cut here: the rest is in recall storage]"
PRESSURE_NOTICE = (
    "Memory pressure: the oldest messages will soon leave this context. Save what will be needed "
    "later to working context or archival storage now. The user does not see this notice."
)

LIMIT_CHARS_PER_TOKEN = 32
"""A share of the window also bounds characters: to most counters white space is free."""


class MainContext:
    """System instructions, working context, summary and the text of the resident pages.

    Args:
        instructions: system instructions; trusted, shown as they are.
        blocks: the working context.
        window: how the window is divided.
        archival_capacity: of the paging core, in pages; None for no limit.
        count: counts tokens; `transformers_token_counter` for the counts of a model.
        special_tokens: see `memrl.memory.display.make_display`.
        show_page_ids: begin each page with "[page 12]", so that a model can name it in a call.

    Attributes:
        core: the paging core, in tokens; move pages by the methods here, so that text follows.
        working: the working context at present. summary: the summary as it is shown.

    Raises:
        ContextError: if instructions, blocks and reserves leave the queue no room.
        RefusedError: WORKING_CONTEXT_FULL if the blocks are above their share to begin with.
    """

    def __init__(
        self,
        instructions: str,
        blocks: Iterable[Block] = (),
        *,
        window: Window | None = None,
        archival_capacity: int | None = None,
        count: TokenCounter = count_tokens,
        special_tokens: Iterable[str] = COMMON_SPECIAL_TOKENS,
        show_page_ids: bool = True,
    ) -> None:
        self.instructions = instructions
        self.window = window or Window()
        self.count = count
        self.display = make_display(special_tokens)
        self.show_page_ids = show_page_ids
        self.working = WorkingContext(blocks)
        self.summary = ""
        self._num_hidden = 0  # pages that the summary stands for
        self._pages: dict[int, ContextPage] = {}
        self._notice_after: int | None = None  # page that the notice follows
        self._check_working(self.working)
        self.core = PagingCore(
            capacity_tokens=self._queue_room_tokens(),
            num_slots=self.window.num_slots,
            archival_capacity=archival_capacity,
        )

    # ------------------------------------------------------------------ what is shown

    @property
    def pages(self) -> list[ContextPage]:
        """Resident pages in the order of the queue, the next victim first."""
        return [self._pages[page_id] for page_id in self.core.queue]

    def messages(self) -> list[Message]:
        """The whole main context as chat messages; within the window less its reserve."""
        messages = [Message(role="system", content=self._system_content(self.working))]
        if self.summary:
            content = _summary_content(self.summary, self._num_hidden)
            messages.append(Message(role="system", content=content))
        notice = Message(role="system", content=PRESSURE_NOTICE)
        if self._notice_after is not None and not self.core.is_resident(self._notice_after):
            messages.append(notice)
        for page in self.pages:
            messages.append(Message(role=ROLES[page.role], content=page.content))
            if page.page_id == self._notice_after:
                messages.append(notice)
        return messages

    @property
    def tokens(self) -> int:
        """Tokens of `messages()`, markup included."""
        return sum(self._size(message["content"]) for message in self.messages())

    # ------------------------------------------------------------------ pages

    def prepare(self, page_id: int, text: str, role: str) -> ContextPage:
        """How a page would be shown: its markers broken, and cut to what the queue can hold.

        A page that the core has seen is cut to its size there, so that this size stays true.

        Raises:
            ValueError: if the role is none of `ROLES`.
        """
        prefix = f"[page {page_id}] " if self.show_page_ids else ""
        limit_chars = LIMIT_CHARS_PER_TOKEN * self.core.capacity_tokens
        shown = prefix + self.display(text[:limit_chars])
        tail = CUT_MARKER if len(text) > limit_chars else ""
        is_known = self.has_seen(page_id)
        limit_tokens = self.core.page_tokens(page_id) if is_known else self.core.capacity_tokens
        kept = truncate(
            shown,
            limit_tokens,
            lambda part: self._size(part + tail),
            marker="" if tail else CUT_MARKER,
        )
        content = kept + tail
        return ContextPage(
            page_id=page_id,
            role=as_role(role),
            text=content[len(prefix) :],
            content=content,
            page_tokens=limit_tokens if is_known else max(1, self._size(content)),
            is_cut=content != shown,
        )

    def has_seen(self, page_id: int) -> bool:
        """Whether the page was ever given to the core."""
        try:
            self.core.page_tokens(page_id)
        except KeyError:
            return False
        return True

    def see(self, page: ContextPage) -> None:
        """Make a page known to the core; ValueError if it was known, as in the core."""
        self.core.see(page.page_id, page.page_tokens)

    def page_in(self, page: ContextPage) -> None:
        """Put a page that has been seen at the back of the queue; ValueError as in the core."""
        self.core.page_in(page.page_id)
        self._pages[page.page_id] = page

    def page_out(self, page_id: int) -> ContextPage:
        """Take a page out of the queue and return it; KeyError when it is not resident."""
        self.core.page_out(page_id)
        return self._pages.pop(page_id)

    # ------------------------------------------------------------------ working context

    def append_block(self, label: str, content: str) -> Block:
        """Add a line to a block.

        Raises:
            KeyError: if there is no such block.
            RefusedError: BLOCK_FULL or WORKING_CONTEXT_FULL; then nothing has changed.
        """
        return self._set_block(self.working[label].append(content))

    def replace_in_block(self, label: str, old: str, new: str) -> Block:
        """Replace the one occurrence of `old` in a block.

        Raises:
            KeyError: if there is no such block.
            RefusedError: TEXT_NOT_FOUND, TEXT_AMBIGUOUS, BLOCK_FULL or WORKING_CONTEXT_FULL; then
                nothing has changed.
        """
        return self._set_block(self.working[label].substitute(old, new))

    def _set_block(self, block: Block) -> Block:
        working = self.working.with_block(block)
        self._check_working(working)
        self.working = working
        return block

    # ------------------------------------------------------------------ summary and notice

    @property
    def summary_room_tokens(self) -> int:
        """Tokens that the text of a summary can take at present; 0 for no summary at all."""
        envelope = _summary_content("", self.core.counts.pages_seen)
        return max(0, self.window.summary_tokens - self._size(envelope))

    def fit_summary(self, text: str, num_hidden: int) -> tuple[str, bool]:
        """How a summary would be shown, cut to its share, and whether it was cut.

        Args:
            text: what it says; "" for none.
            num_hidden: pages outside main context, for the model to know.
        """
        text = text.strip()
        shown = self.display(text[: LIMIT_CHARS_PER_TOKEN * self.window.summary_tokens])
        fitted = ""
        if shown and self.summary_room_tokens:
            fitted = truncate(
                shown,
                self.window.summary_tokens,
                lambda part: self._size(_summary_content(part, num_hidden)),
            )
        return fitted, fitted != self.display(text)

    def set_summary(self, text: str, num_hidden: int) -> bool:
        """Put a summary at the head of the queue; "" takes it away.

        Args:
            text, num_hidden: as in `fit_summary`.

        Returns:
            Whether it was cut.
        """
        self.summary, is_cut = self.fit_summary(text, num_hidden)
        self._num_hidden = num_hidden
        return is_cut

    @property
    def has_notice(self) -> bool:
        """Whether the notice of memory pressure is shown."""
        return self._notice_after is not None

    def show_notice(self, after_page_id: int) -> None:
        """Show the notice behind a page; at the head of the queue once that page is gone."""
        self._notice_after = after_page_id

    def hide_notice(self) -> None:
        """Take the notice away."""
        self._notice_after = None

    # ------------------------------------------------------------------ saving

    def saved(self) -> SavedContext:
        """What of main context outlives the process."""
        return SavedContext(
            blocks=tuple(self.working),
            summary=self.summary,
            num_hidden=self._num_hidden,
            queue=tuple(self.core.queue),
            notice_after=self._notice_after,
        )

    # ------------------------------------------------------------------ sizes

    def _size(self, content: str) -> int:
        return self.count(content) + self.window.markup_tokens

    @property
    def _system_quota_tokens(self) -> int:
        working_tokens = self.window.working_tokens if len(self.working) else 0
        return self._size(self.instructions) + working_tokens

    def _queue_room_tokens(self) -> int:
        shares = {
            "the instructions and the working context": self._system_quota_tokens,
            "the summary": self.window.summary_tokens,
            "the notice of memory pressure": self._size(PRESSURE_NOTICE),
            "the reserve": self.window.reserved_tokens,
        }
        room_tokens = self.window.window_tokens - sum(shares.values())
        if room_tokens < LEAST_QUEUE_TOKENS:
            parts = ", ".join(f"{tokens:,} for {part}" for part, tokens in shares.items())
            raise ContextError(
                f"A window of {self.window.window_tokens:,} tokens leaves the queue no room "
                f"({room_tokens:,} of at least {LEAST_QUEUE_TOKENS}): {parts}. Take a larger "
                "window, shorter instructions or smaller shares."
            )
        return room_tokens

    def _check_working(self, working: WorkingContext) -> None:
        size_tokens = self._size(self._system_content(working))
        over_tokens = size_tokens - self._system_quota_tokens
        if over_tokens > 0:
            raise RefusedError(
                Reason.WORKING_CONTEXT_FULL,
                f"The working context would be {over_tokens:,} tokens above its share of "
                f"{self.window.working_tokens:,}: shorten a block, or move text to archival "
                "memory.",
            )

    def _system_content(self, working: WorkingContext) -> str:
        lines = [
            json_line(
                {
                    "block": block.label,
                    "characters": f"{len(block.text)}/{block.limit_chars}",
                    **({"description": block.description} if block.description else {}),
                    "text": self.display(block.text),
                }
            )
            for block in working
        ]
        return "\n".join([self.instructions, *lines])


def _summary_content(text: str, num_hidden: int) -> str:
    return json_line({"summary_of_earlier_messages": text, "messages_hidden": num_hidden})
