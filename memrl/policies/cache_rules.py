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

from memrl.policies.ghost_rules import Arc, S3Fifo


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


RULES: dict[str, MakeRule] = {
    "FIFO": Fifo,
    "LRU": Lru,
    "LFU": Lfu,
    "SIEVE": Sieve,
    "S3-FIFO": S3Fifo,
    "ARC": Arc,
}
"""Every rule by the name that its rows carry."""
