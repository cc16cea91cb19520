"""Archival searches beside a live agent: a thread of its own, a bounded queue, many at once.

A store belongs to one thread, so the queue opens one for itself: read-only, beside the writer, all
of whose acknowledged entries a search sees. What waits is embedded and searched in one batch.
"""

from __future__ import annotations

import asyncio
import threading
from collections import deque
from collections.abc import Callable, Iterable, Sequence
from concurrent.futures import Future
from dataclasses import dataclass, field

from memrl.errors import MemrlError
from memrl.memory.archival import ArchivalStore
from memrl.memory.database import Closing
from memrl.memory.results import DEFAULT_PAGE_SIZE, SearchPage, check_page

DEFAULT_MAX_PENDING = 256
DEFAULT_BATCH_SIZE = 64


class SearchQueueError(MemrlError):
    """A search cannot be queued: the queue is full or closed."""


@dataclass(frozen=True, slots=True)
class _Request:
    query: str
    page: int
    page_size: int
    result: Future[SearchPage] = field(default_factory=Future)


class SearchQueue(Closing):
    """Searches one archive in the background.

    Any thread may submit. Searches are answered in the order of their submission, those of the same
    page and page size in batches.

    Args:
        open_store: opens the archive, in the queue's thread; for example
            `lambda: ArchivalStore(path, embedder, read_only=True)`. The queue closes it.
        max_pending: most searches that wait; whoever submits more waits too, or is refused.
        batch_size: most searches that are answered together.

    Raises:
        ValueError: if `max_pending` or `batch_size` is below 1.
        Exception: whatever `open_store` raises.
    """

    def __init__(
        self,
        open_store: Callable[[], ArchivalStore],
        *,
        max_pending: int = DEFAULT_MAX_PENDING,
        batch_size: int = DEFAULT_BATCH_SIZE,
    ) -> None:
        for name, value in (("max_pending", max_pending), ("batch_size", batch_size)):
            if value < 1:
                raise ValueError(f"{name} must be at least 1, got {value}.")
        self._max_pending, self._batch_size = max_pending, batch_size
        self._pending: deque[_Request] = deque()
        self._changed = threading.Condition()
        self._is_closed = False
        opened: Future[None] = Future()
        # A daemon: a program that forgets to close the queue ends all the same.
        self._thread = threading.Thread(
            target=self._serve, args=(open_store, opened), name="memrl-search", daemon=True
        )
        self._thread.start()
        opened.result()

    def __len__(self) -> int:
        return len(self._pending)

    def submit(
        self,
        query: str,
        page: int = 0,
        page_size: int = DEFAULT_PAGE_SIZE,
        *,
        timeout_s: float | None = None,
    ) -> Future[SearchPage]:
        """Queue a search; see `ArchivalStore.search`.

        Args:
            query, page, page_size: of the search.
            timeout_s: how long to wait for room in a full queue; None for as long as it takes, 0
                for not at all.

        Returns:
            A future of what is found, or of the error of the search. Cancelling it before its turn
            takes it out of the queue.

        Raises:
            SearchError: if `page` or `page_size` is out of range.
            SearchQueueError: if the queue is closed, or still full after `timeout_s`.
        """
        check_page(page, page_size)
        request = _Request(query, page, page_size)
        with self._changed:
            has_room = self._changed.wait_for(
                lambda: self._is_closed or len(self._pending) < self._max_pending, timeout_s
            )
            if self._is_closed:
                raise SearchQueueError("The search queue is closed: open another one.")
            if not has_room:
                raise SearchQueueError(
                    f"The search queue is full ({self._max_pending:,} searches wait): submit "
                    "later, wait longer, or raise max_pending."
                )
            self._pending.append(request)
            self._changed.notify_all()
        return request.result

    async def search(
        self, query: str, page: int = 0, page_size: int = DEFAULT_PAGE_SIZE
    ) -> SearchPage:
        """Search without holding up the event loop; errors as `submit`, and those of the search.

        Waits for room in a full queue; being cancelled takes the search out of it.
        """
        submitted = await asyncio.to_thread(self.submit, query, page, page_size)
        return await asyncio.wrap_future(submitted)

    def close(self) -> None:
        """Answer what was submitted, take nothing more, and close the store; twice is harmless."""
        with self._changed:
            self._is_closed = True
            self._changed.notify_all()
        if threading.current_thread() is not self._thread:  # a callback of a future closes it
            self._thread.join()

    # ------------------------------------------------------------------ in the thread

    def _serve(self, open_store: Callable[[], ArchivalStore], opened: Future[None]) -> None:
        try:
            store = open_store()
        except BaseException as error:
            # Raised where the queue is made.
            opened.set_exception(error)
            return
        opened.set_result(None)
        with store:
            while batch := self._next_batch():
                _answer(store, batch)

    def _next_batch(self) -> list[_Request]:
        """The searches at the head of the queue that go together; none when it is closed."""
        with self._changed:
            self._changed.wait_for(lambda: self._is_closed or bool(self._pending))
            batch: list[_Request] = []
            while self._pending and len(batch) < self._batch_size:
                head = self._pending[0]
                if batch and (head.page, head.page_size) != (batch[0].page, batch[0].page_size):
                    break
                batch.append(self._pending.popleft())
            self._changed.notify_all()
        return batch


def _answer(store: ArchivalStore, batch: Sequence[_Request]) -> None:
    live = [request for request in batch if request.result.set_running_or_notify_cancel()]
    if not live:
        return
    try:
        found = store.search_many([one.query for one in live], live[0].page, live[0].page_size)
    except BaseException as error:
        for request in live:
            request.result.set_exception(error)
        return
    for request, page in zip(live, found, strict=True):
        request.result.set_result(page)


def search_sessions(
    requests: Iterable[tuple[ArchivalStore, str]],
    page: int = 0,
    page_size: int = DEFAULT_PAGE_SIZE,
) -> list[SearchPage]:
    """Search many archives at once, such as those of many sessions.

    The queries of all archives are embedded in one batch, which is most of the work, and those of
    one archive are searched in one.

    Args:
        requests: n archives and what is searched in each; an archive may come more than once. All
            have the same embedder.
        page, page_size: see `ArchivalStore.search`.

    Returns:
        n pages, in the order of the requests, as `ArchivalStore.search` gives them.

    Raises:
        ValueError: if the embedders differ.
        StoreError, SearchError: see `ArchivalStore.search`.
    """
    check_page(page, page_size)
    asked = list(requests)
    names = {store.embedder_name for store, _ in asked}
    if len(names) > 1:
        raise ValueError(f"Archives searched at once have one embedder, not {sorted(names)}.")
    nothing = SearchPage((), total=0, page=page, page_size=page_size)
    found = [nothing] * len(asked)
    rows = [row for row, (_, query) in enumerate(asked) if query.strip()]
    if not rows:
        return found
    vectors = asked[rows[0]][0].embed([asked[row][1] for row in rows])
    places: dict[int, list[int]] = {}
    for place, row in enumerate(rows):
        places.setdefault(id(asked[row][0]), []).append(place)
    for some in places.values():
        store = asked[rows[some[0]]][0]
        for place, result in zip(
            some, store.search_vectors(vectors[some], page, page_size), strict=True
        ):
            found[rows[place]] = result
    return found
