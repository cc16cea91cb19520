"""Eviction rules of caches: FIFO, LRU, LFU, SIEVE, S3-FIFO, ARC; and a cache that plays one.

A rule is told of every request in order and names the page that leaves. It is written once:
`simulate` drives it over a list of requests, and `memrl.policies.rule_eviction` over what an
environment shows. Pages are integers without meaning.

Each rule is the published one, and gives the misses of libCacheSim 0.3.5 (Yang et al.,
github.com/1a1a11a/libCacheSim), whose choices are taken where a paper leaves one:

    LFU      counts begin anew when a page comes back; among equals the one that has had its count
             longest leaves
    S3-FIFO  a tenth of the cache is the small queue, nine tenths the ghost; a page moves on from
             the small queue after two hits; until the first eviction a full small queue passes
             pages on to the main one
    ARC      `p` is a real number, as in the paper; with pages of several sizes, sizes take the
             place of counts, and `p` moves by 1 at least

One difference is meant: libCacheSim's S3-FIFO does not admit a page that would fill the small queue
by itself, which with fewer than 20 places of one page is every page; here every page is admitted.
"""

from __future__ import annotations

from collections import OrderedDict, defaultdict
from collections.abc import Callable, Iterable, Mapping
from typing import Protocol


class CacheRule(Protocol):
    """Which page leaves a cache when room is needed."""

    def hit(self, page: int) -> None:
        """A resident page is requested."""
        ...

    def miss(self, page: int, size: int) -> None:
        """Another page is requested; `evict` follows until it fits, then `admit`."""
        ...

    def evict(self) -> int:
        """Choose the resident that leaves, and let it go."""
        ...

    def admit(self, page: int, size: int) -> None:
        """The requested page comes in."""
        ...

    def forget(self, page: int) -> None:
        """A resident has left that the rule did not choose."""
        ...


MakeRule = Callable[[int], CacheRule]
"""Makes a rule for an empty cache of the given capacity."""


def simulate(
    make_rule: MakeRule,
    requests: Iterable[int],
    capacity: int,
    sizes: Mapping[int, int] | None = None,
) -> int:
    """Count the hits of a cache that brings pages in at misses only, and each of them.

    Args:
        make_rule: what evicts.
        requests: pages in the order in which they are requested.
        capacity: of the cache, in the unit of `sizes`.
        sizes: size of each page, at most `capacity`; None for 1 each.
    """
    rule = make_rule(capacity)
    resident: dict[int, int] = {}  # page -> size
    occupied = hits = 0
    for page in requests:
        if page in resident:
            rule.hit(page)
            hits += 1
            continue
        size = 1 if sizes is None else sizes[page]
        rule.miss(page, size)
        while occupied + size > capacity:
            occupied -= resident.pop(rule.evict())
        rule.admit(page, size)
        resident[page] = size
        occupied += size
    return hits


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


class Fifo:
    """First in, first out."""

    def __init__(self, capacity: int) -> None:
        del capacity
        self._queue: OrderedDict[int, None] = OrderedDict()

    def hit(self, page: int) -> None:
        """Nothing."""

    def miss(self, page: int, size: int) -> None:
        """Nothing."""

    def evict(self) -> int:
        """The page that came in first."""
        return self._queue.popitem(last=False)[0]

    def admit(self, page: int, size: int) -> None:
        """At the back."""
        del size
        self._queue[page] = None

    def forget(self, page: int) -> None:
        """Out of the queue."""
        del self._queue[page]


class Lru(Fifo):
    """Least recently used."""

    def hit(self, page: int) -> None:
        """To the back."""
        self._queue.move_to_end(page)


class Lfu:
    """Least frequently used since it came in; among equals the one with that count for longest."""

    def __init__(self, capacity: int) -> None:
        del capacity
        self._count: dict[int, int] = {}
        self._pages: defaultdict[int, OrderedDict[int, None]] = defaultdict(OrderedDict)
        self._least = 1

    def hit(self, page: int) -> None:
        """Count it."""
        count = self._leave(page) + 1
        self._count[page] = count
        self._pages[count][page] = None

    def miss(self, page: int, size: int) -> None:
        """Nothing."""

    def evict(self) -> int:
        """The page with the least count."""
        while self._least not in self._pages:
            self._least += 1
        page = next(iter(self._pages[self._least]))
        self._leave(page)
        return page

    def admit(self, page: int, size: int) -> None:
        """It has been requested once."""
        del size
        self._count[page] = self._least = 1
        self._pages[1][page] = None

    def forget(self, page: int) -> None:
        """Its count as well."""
        self._leave(page)

    def _leave(self, page: int) -> int:
        count = self._count.pop(page)
        del self._pages[count][page]
        if not self._pages[count]:
            del self._pages[count]
        return count


class Sieve:
    """SIEVE (Zhang et al., NSDI 2024): a FIFO queue and a hand that spares what was hit."""

    def __init__(self, capacity: int) -> None:
        del capacity
        self._queue: list[int] = []  # oldest first
        self._was_hit: dict[int, bool] = {}
        self._hand = 0

    def hit(self, page: int) -> None:
        """Mark it."""
        self._was_hit[page] = True

    def miss(self, page: int, size: int) -> None:
        """Nothing."""

    def evict(self) -> int:
        """The first unmarked page from the hand on to newer ones; marks that it passes go."""
        while self._was_hit[self._queue[self._hand]]:
            self._was_hit[self._queue[self._hand]] = False
            self._hand = (self._hand + 1) % len(self._queue)
        return self._remove(self._hand)

    def admit(self, page: int, size: int) -> None:
        """The newest, unmarked."""
        del size
        self._queue.append(page)
        self._was_hit[page] = False

    def forget(self, page: int) -> None:
        """Close the gap."""
        self._remove(self._queue.index(page))

    def _remove(self, place: int) -> int:
        """A hand that stood there moves on: to the next newer page, at the end to the oldest."""
        page = self._queue.pop(place)
        del self._was_hit[page]
        self._hand -= place < self._hand
        if self._hand == len(self._queue):
            self._hand = 0
        return page


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


RULES: dict[str, MakeRule] = {
    "FIFO": Fifo,
    "LRU": Lru,
    "LFU": Lfu,
    "SIEVE": Sieve,
    "S3-FIFO": S3Fifo,
    "ARC": Arc,
}
"""Every rule by the name that its rows carry."""
