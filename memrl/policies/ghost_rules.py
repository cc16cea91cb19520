"""Eviction rules that remember pages which have left: S3-FIFO and ARC.

What they have in common with the other rules is in `memrl.policies.cache_rules`.
"""

from __future__ import annotations

from collections import OrderedDict


class _Queue(OrderedDict[int, int]):
    """Pages from the oldest to the newest with a number each, and the size of all of them."""

    def __init__(self) -> None:
        super().__init__()
        self.size = 0

    def push(self, page: int, size: int) -> None:
        self[page] = size
        self.size += size

    def take(self, page: int) -> int:
        """Remove a page; returns its size."""
        size = self.pop(page)
        self.size -= size
        return size

    def take_oldest(self) -> tuple[int, int]:
        page, size = self.popitem(last=False)
        self.size -= size
        return page, size


class S3Fifo:
    """S3-FIFO (Yang et al., SOSP 2023): a small queue that filters, a main one, and ghosts."""

    def __init__(self, capacity: int) -> None:
        self._small_capacity = int(0.1 * capacity)
        self._main_capacity = capacity - self._small_capacity
        self._ghost_capacity = int(0.9 * capacity)
        self._small, self._main, self._ghost = _Queue(), _Queue(), _Queue()
        self._hits: dict[int, int] = {}
        self._has_evicted = False
        self._was_ghost = False

    def hit(self, page: int) -> None:
        """Count it."""
        self._hits[page] += 1

    def miss(self, page: int, size: int) -> None:
        """Remember whether it is a ghost, and raise it."""
        del size
        self._was_ghost = page in self._ghost
        if self._was_ghost:
            self._ghost.take(page)

    def evict(self) -> int:
        """From the small queue as long as the main one keeps to its share."""
        self._has_evicted = True
        page = None
        while page is None:
            if self._small and self._main.size <= self._main_capacity:
                page = self._from_small()
            else:
                page = self._from_main()
        return page

    def _from_small(self) -> int | None:
        """The oldest page with fewer than two hits becomes a ghost; those before it move on."""
        while self._small:
            page, size = self._small.take_oldest()
            if self._hits[page] < 2:
                del self._hits[page]
                self._haunt(page, size)
                return page
            self._hits[page] = 0
            self._main.push(page, size)
        return None

    def _haunt(self, page: int, size: int) -> None:
        if size > self._ghost_capacity:
            return
        while self._ghost.size + size > self._ghost_capacity:
            self._ghost.take_oldest()
        self._ghost.push(page, size)

    def _from_main(self) -> int:
        """The oldest page without a hit left; those before it go round with one less."""
        while True:
            page, size = self._main.take_oldest()
            if not self._hits[page]:
                del self._hits[page]
                return page
            self._hits[page] = min(self._hits[page], 3) - 1
            self._main.push(page, size)

    def admit(self, page: int, size: int) -> None:
        """A ghost goes to the main queue, any other page to the small one."""
        is_filling = not self._has_evicted and self._small.size >= self._small_capacity
        queue = self._main if self._was_ghost or is_filling else self._small
        queue.push(page, size)
        self._hits[page] = 0
        self._was_ghost = False

    def forget(self, page: int) -> None:
        """Without becoming a ghost."""
        (self._small if page in self._small else self._main).take(page)
        del self._hits[page]


class Arc:
    """ARC (Megiddo and Modha, FAST 2003): recency and frequency, balanced by ghosts of both."""

    def __init__(self, capacity: int) -> None:
        self._capacity = capacity
        self._target = 0.0  # p, what t1 is to hold
        self._t1, self._t2 = _Queue(), _Queue()  # requested once, and more often
        self._b1, self._b2 = _Queue(), _Queue()  # their ghosts
        self._came_from: _Queue | None = None  # where the requested page haunted
        self._incoming = 0

    def hit(self, page: int) -> None:
        """To the back of t2."""
        queue = self._t1 if page in self._t1 else self._t2
        self._t2.push(page, queue.take(page))

    def miss(self, page: int, size: int) -> None:
        """A ghost moves the target towards its own side."""
        b1, b2 = self._b1, self._b2
        self._incoming, self._came_from = size, None
        if page in b1:
            self._came_from = b1
            self._target = min(self._target + max(b2.size / b1.size, 1.0), self._capacity)
        elif page in b2:
            self._came_from = b2
            self._target = max(self._target - max(b1.size / b2.size, 1.0), 0.0)

    def evict(self) -> int:
        """The paper's cases II and III (ghosts), and IV."""
        t1, t2, b1, b2 = self._t1, self._t2, self._b1, self._b2
        if self._came_from is not None:
            return self._replace()
        if t1.size + b1.size + self._incoming > self._capacity:
            if not b1:
                return (t1 or t2).take_oldest()[0]
            b1.take_oldest()
        elif t1.size + t2.size + b1.size + b2.size >= 2 * self._capacity and b2:
            b2.take_oldest()
        return self._replace()

    def _replace(self) -> int:
        is_over = self._t1.size > self._target or (
            self._came_from is self._b2 and self._t1.size == self._target
        )
        takes_first = bool(self._t1) and (is_over or not self._t2)
        queue, ghosts = (self._t1, self._b1) if takes_first else (self._t2, self._b2)
        page, size = queue.take_oldest()
        ghosts.push(page, size)
        return page

    def admit(self, page: int, size: int) -> None:
        """A ghost comes back to t2, any other page to t1."""
        if self._came_from is None:
            self._t1.push(page, size)
        else:
            self._came_from.take(page)
            self._t2.push(page, size)
        self._came_from = None

    def forget(self, page: int) -> None:
        """Without becoming a ghost."""
        (self._t1 if page in self._t1 else self._t2).take(page)
