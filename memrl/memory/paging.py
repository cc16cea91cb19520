"""The paging core: which page is in which tier, and what moves when.

This is the one truth about paging. The environment, the live library and a deployed agent run on
it. It knows page ids, sizes, slots, tiers and their order; it knows no text, no score and no
reward, and asks a `Search` for ranked candidates.

Tiers (Packer et al., arXiv 2310.08560v2, section 2): *main context* (slots, a budget, a FIFO
queue), *recall* (append-only log of every page seen) and *archival* (pages written on purpose, with
an optional capacity; a full archive drops the page that was stored first).
"""

from __future__ import annotations

from collections import OrderedDict
from collections.abc import Iterable
from dataclasses import dataclass
from typing import Literal, Protocol

EMPTY = -1
"""Page id of an empty slot."""

StageFrom = Literal["archival", "both"]


class Search(Protocol):
    """Ranks pages outside main context by their relevance to a focus."""

    def rank(self, archived: list[int], recall_only: list[int]) -> list[int]:
        """Return hits, best first, ties by page order.

        Args:
            archived: stored pages outside main context; all of them are hits.
            recall_only: pages outside main context that only recall holds; a search may leave out
                those that do not match.
        """
        ...


@dataclass(slots=True)
class PagingCounts:
    """What the core has done since it was made; every move is counted once.

    Attributes:
        pages_seen: pages appended to recall.
        pages_in, pages_out: moves into and out of main context.
        tokens_in, tokens_out: the sizes of those moves.
        stores: pages copied to archival.
        drops: pages that a full archive lost.
        losses: pages taken out of main context while no archived copy existed.
    """

    pages_seen: int = 0
    pages_in: int = 0
    pages_out: int = 0
    tokens_in: int = 0
    tokens_out: int = 0
    stores: int = 0
    drops: int = 0
    losses: int = 0


class PagingCore:
    """Main context, recall and archival of one agent.

    Args:
        capacity_tokens: budget of main context, in the unit that page sizes are given in.
        num_slots: most pages that main context can hold.
        archival_capacity: most pages that archival can hold; None for no limit.

    Raises:
        ValueError: if a limit is below its least possible value.
    """

    def __init__(
        self, *, capacity_tokens: int, num_slots: int, archival_capacity: int | None = None
    ) -> None:
        if capacity_tokens < 1:
            raise ValueError(f"capacity_tokens must be at least 1, got {capacity_tokens}.")
        if num_slots < 1:
            raise ValueError(f"num_slots must be at least 1, got {num_slots}.")
        if archival_capacity is not None and archival_capacity < 0:
            raise ValueError(
                f"archival_capacity must be 0 or more, or None for no limit, got "
                f"{archival_capacity}."
            )
        self.capacity_tokens = capacity_tokens
        self.num_slots = num_slots
        self.archival_capacity = archival_capacity
        self.occupied_tokens = 0
        self.counts = PagingCounts()
        self.clock = 0  # advanced by whoever drives the core; one tick an event
        self.slot_page: list[int] = [EMPTY] * num_slots
        self.slot_tokens: list[int] = [0] * num_slots  # size of the page, 0 for an empty slot
        self.slot_sequence: list[int] = [0] * num_slots  # the lowest of the residents is the victim
        self.slot_time_in: list[int] = [0] * num_slots  # clock when the page came in
        self.slot_last_use: list[int] = [0] * num_slots  # clock of the latest `touch`
        self.slot_uses: list[int] = [0] * num_slots
        self._sizes: dict[int, int] = {}
        self._queue: OrderedDict[int, int] = OrderedDict()  # page -> slot, oldest first
        self._archive: OrderedDict[int, None] = OrderedDict()  # page, first stored first

    # ------------------------------------------------------------------ what is where

    @property
    def queue(self) -> list[int]:
        """Resident pages in FIFO order, the next victim first."""
        return list(self._queue)

    @property
    def archive(self) -> list[int]:
        """Archived pages, the one stored first (the next to be dropped) first."""
        return list(self._archive)

    @property
    def recall(self) -> Iterable[int]:
        """Every page seen, in order of arrival."""
        return self._sizes.keys()

    @property
    def num_archived(self) -> int:
        """Pages in archival."""
        return len(self._archive)

    @property
    def num_resident(self) -> int:
        """Pages in main context."""
        return len(self._queue)

    @property
    def victim(self) -> int:
        """The page that FIFO would evict next, or `EMPTY`."""
        return next(iter(self._queue), EMPTY)

    def is_resident(self, page: int) -> bool:
        """Whether the page is in main context."""
        return page in self._queue

    def was_seen(self, page: int) -> bool:
        """Whether recall holds the page."""
        return page in self._sizes

    def is_archived(self, page: int) -> bool:
        """Whether archival holds a copy of the page."""
        return page in self._archive

    def slot_of(self, page: int) -> int:
        """Slot of a resident page; KeyError when it is not resident."""
        return self._queue[page]

    def page_tokens(self, page: int) -> int:
        """Size of a page that has been seen; KeyError otherwise."""
        return self._sizes[page]

    def fits(self, page: int) -> bool:
        """Whether a page that has been seen fits beside the residents: tokens and a free slot."""
        return (
            self.occupied_tokens + self._sizes[page] <= self.capacity_tokens
            and len(self._queue) < self.num_slots
        )

    # ------------------------------------------------------------------ moves

    def see(self, page: int, page_tokens: int) -> None:
        """Append a page to recall; it is in no other tier yet.

        Raises:
            ValueError: if the page is known already, or could never fit main context.
        """
        if page in self._sizes:
            raise ValueError(f"Page {page} has been seen before; recall is append-only.")
        if not 0 < page_tokens <= self.capacity_tokens:
            raise ValueError(
                f"Page {page} has {page_tokens} tokens, outside 1..{self.capacity_tokens}, the "
                "capacity of main context; truncate it first."
            )
        self._sizes[page] = page_tokens
        self.counts.pages_seen += 1

    def preload(self, page: int, page_tokens: int) -> None:
        """Hold a page in recall and in archival that nobody stored while this memory was in use.

        It is the next to be dropped after those preloaded before it, and counts as seen only.

        Raises:
            ValueError: if the page is known already, could never fit main context, or would need
                more than `archival_capacity`.
        """
        if self.archival_capacity is not None and len(self._archive) >= self.archival_capacity:
            raise ValueError(
                f"Page {page} cannot be preloaded: archival holds {self.archival_capacity} pages, "
                "its capacity."
            )
        self.see(page, page_tokens)
        self._archive[page] = None

    def page_in(self, page: int) -> int:
        """Put a page at the back of the queue, in the lowest free slot, and return the slot.

        Raises:
            ValueError: if the page is resident or does not fit; make room first.
        """
        if page in self._queue:
            raise ValueError(f"Page {page} is in main context already.")
        if not self.fits(page):
            raise ValueError(f"Page {page} does not fit main context; evict first.")
        slot = self.slot_page.index(EMPTY)
        self.slot_page[slot] = page
        self.slot_tokens[slot] = self._sizes[page]
        self.slot_sequence[slot] = self.counts.pages_in
        self.slot_time_in[slot] = self.slot_last_use[slot] = self.clock
        self.slot_uses[slot] = 0
        self._queue[page] = slot
        self.occupied_tokens += self._sizes[page]
        self.counts.pages_in += 1
        self.counts.tokens_in += self._sizes[page]
        return slot

    def page_out(self, page: int) -> int:
        """Take a page out of main context and return the slot it leaves; recall keeps it.

        Raises:
            KeyError: if the page is not resident.
        """
        slot = self._queue.pop(page)
        self.slot_page[slot] = EMPTY
        self.slot_tokens[slot] = 0
        self.occupied_tokens -= self._sizes[page]
        self.counts.pages_out += 1
        self.counts.tokens_out += self._sizes[page]
        self.counts.losses += page not in self._archive
        return slot

    def touch(self, page: int) -> None:
        """Count a use of a resident page at the present clock; KeyError when it is not resident."""
        slot = self._queue[page]
        self.slot_last_use[slot] = self.clock
        self.slot_uses[slot] += 1

    def victims_for(self, page: int) -> list[int]:
        """Pages that FIFO has to evict, in order, before a page that has been seen fits."""
        tokens = self.occupied_tokens + self._sizes[page]
        resident = len(self._queue)
        victims = []
        for victim in self._queue:
            if tokens <= self.capacity_tokens and resident < self.num_slots:
                break
            victims.append(victim)
            tokens -= self._sizes[victim]
            resident -= 1
        return victims

    def store(self, page: int) -> int:
        """Copy a page to archival; a full archive drops the page that was stored first.

        Storing a page that is archived changes nothing.

        Returns:
            The page that was dropped, or `EMPTY`.

        Raises:
            ValueError: if the page was never seen, or archival has no room at all.
        """
        if page not in self._sizes:
            raise ValueError(f"Page {page} was never seen and cannot be stored.")
        if self.archival_capacity == 0:
            raise ValueError("archival_capacity is 0: nothing can be stored.")
        if page in self._archive:
            return EMPTY
        dropped = EMPTY
        if self.archival_capacity is not None and len(self._archive) >= self.archival_capacity:
            dropped, _ = self._archive.popitem(last=False)
            self.counts.drops += 1
        self._archive[page] = None
        self.counts.stores += 1
        return dropped

    # ------------------------------------------------------------------ search

    def stage(self, search: Search, stage_from: StageFrom) -> list[int]:
        """Rank the pages outside main context that may become candidates, best first.

        Args:
            search: ranks pages against the focus it was made for.
            stage_from: "archival" for stored pages only; "both" to add pages that only recall
                holds.
        """
        archived = [page for page in self._archive if page not in self._queue]
        recall_only: list[int] = []
        if stage_from == "both":
            recall_only = [
                page
                for page in self._sizes
                if page not in self._queue and page not in self._archive
            ]
        return search.rank(archived, recall_only)
