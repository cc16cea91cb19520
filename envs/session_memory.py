"""The live memory of a session: pages of the table's sizes, an archive that knows its sources.

Both are the library's own (`memrl.memory`) with one thing added, so that a session is measured in
the same pages and by the same evidence as the environment.
"""

from __future__ import annotations

from collections.abc import Callable, Iterable, Sequence
from datetime import datetime

from memrl.episode_log import ContextTexts
from memrl.memory.archival import ArchivalStore
from memrl.memory.blocks import Block
from memrl.memory.context_page import ContextPage, as_role
from memrl.memory.display import Display
from memrl.memory.main_context import CUT_MARKER, MainContext
from memrl.memory.paging import PagingCore
from memrl.memory.results import SearchPage
from memrl.memory.tokens import truncate
from memrl.memory.window import Window
from memrl.options import PagingOptions

_ROOMY_TOKENS = 1 << 40
"""A window that never binds: the queue's capacity is that of the options."""


class EpisodeContext(MainContext):
    """Main context with the capacity of an environment, in its unit.

    A page takes the size that the table gives it; page ids and markup, which the environment does
    not know, are shown and not counted. With a capacity in pages nothing bounds `tokens`, what
    `messages()` take.

    Args:
        instructions, blocks: see `MainContext`.
        options: resolved options.
        size_of: page id and text -> size, in the unit of the options.
    """

    def __init__(
        self,
        instructions: str,
        blocks: Iterable[Block],
        options: PagingOptions,
        size_of: Callable[[int, str], int],
    ) -> None:
        super().__init__(instructions, blocks, window=Window(window_tokens=_ROOMY_TOKENS))
        self._cuts_at_capacity = options.unit == "tokens"
        self._size_of = size_of
        self.core = PagingCore(
            capacity_tokens=int(options.capacity), num_slots=options.num_slots or 1
        )

    def prepare(self, page_id: int, text: str, role: str) -> ContextPage:
        """How a page would be shown: whole, or cut to a capacity in tokens."""
        shown = self.display(text)
        kept = shown
        if self._cuts_at_capacity:
            kept = truncate(shown, self.core.capacity_tokens, self.count, marker=CUT_MARKER)
        return ContextPage(
            page_id=page_id,
            role=as_role(role),
            text=kept,
            content=f"[page {page_id}] {kept}",
            page_tokens=self._size_of(page_id, text),
            is_cut=kept != shown,
        )

    def texts(self) -> ContextTexts:
        """What it shows, instructions and notices left out."""
        pinned = [f"{b.label}: {self.display(b.text)}" for b in self.working if b.text]
        pinned += [self.summary] if self.summary else []
        return ContextTexts(tuple(pinned), tuple(page.text for page in self.pages))


class EpisodeArchive:
    """Archival that notes which pages each entry quotes; an `Archival` for the executor.

    A page is quoted where its whole text, speaker included, stands in the entry exactly as it was
    shown, not as part of a longer word.

    Args:
        store: where entries go.
        display: how texts are shown (`MainContext.display`): a quotation is of what was shown.

    Attributes:
        stored: pages that archival has held at some time, as entries or quoted by one.
    """

    def __init__(self, store: ArchivalStore, display: Display) -> None:
        self.store = store
        self._display = display
        self._shown: dict[int, str] = {}  # pages that have arrived
        self._sources: dict[int, tuple[int, ...]] = {}  # entry -> pages
        self.stored: set[int] = set()

    def arrive(self, page_id: int, text: str) -> None:
        """A page can be quoted from now on."""
        self._shown[page_id] = self._display(text)

    def insert(self, text: str, *, time: datetime) -> int:
        """Store a text with the pages that it quotes, and return its entry id."""
        entry_id = self.store.insert(text, time=time)
        shown = self._display(text)
        self._sources[entry_id] = tuple(
            page_id for page_id, page in self._shown.items() if _quotes(shown, page)
        )
        self.stored.update(self._sources[entry_id])
        return entry_id

    def search(self, query: str, *, page: int, page_size: int) -> SearchPage:
        """See `ArchivalStore.search`."""
        return self.store.search(query, page, page_size)

    def sources(self, entry_id: int) -> Sequence[int]:
        """Pages that an entry quotes, in order of arrival."""
        return self._sources.get(entry_id, ())

    def archived_pages(self) -> set[int]:
        """Pages that archival holds, as entries of their own or quoted by one."""
        quoted = {page for entry in self.store.ids for page in self._sources.get(entry, ())}
        return quoted | set(self.store.page_ids)


def _quotes(text: str, page: str) -> bool:
    """Whether a page's text stands in another one, between the ends of words."""
    if not page.strip():
        return False
    start = text.find(page)
    while start >= 0:
        end = start + len(page)
        begins_within = start > 0 and text[start - 1].isalnum() and page[0].isalnum()
        ends_within = end < len(text) and text[end].isalnum() and page[-1].isalnum()
        if not begins_within and not ends_within:
            return True
        start = text.find(page, start + 1)
    return False
