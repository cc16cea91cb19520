from __future__ import annotations

import asyncio
import threading
from collections.abc import Iterator, Sequence
from concurrent.futures import CancelledError
from contextlib import ExitStack
from pathlib import Path

import numpy as np
import numpy.typing as npt
import pytest

from memrl.memory.archival import ArchivalStore, NewEntry
from memrl.memory.database import StoreError
from memrl.memory.embedders import HashingEmbedder
from memrl.memory.results import SearchError
from memrl.memory.search_queue import SearchQueue, SearchQueueError, search_sessions

EMBEDDER = HashingEmbedder(32)
WAIT_S = 30.0


class Held(HashingEmbedder):
    """Embeds when it is allowed to, and remembers in which batches."""

    def __init__(self) -> None:
        super().__init__(32)
        self.may_go, self.has_begun = threading.Event(), threading.Event()
        self.batches: list[list[str]] = []

    def embed(self, texts: Sequence[str]) -> npt.NDArray[np.float32]:
        self.batches.append(list(texts))
        self.has_begun.set()
        assert self.may_go.wait(WAIT_S)
        if "bad" in texts:
            raise StoreError("This search fails.")
        return super().embed(texts)


@pytest.fixture
def path(tmp_path: Path) -> Iterator[Path]:
    """An archive whose writer stays open."""
    with ArchivalStore(tmp_path / "archive.db", EMBEDDER) as store:
        store.extend(NewEntry(f"note {n}", page_id=n) for n in range(20))
        yield tmp_path / "archive.db"


def reader(path: Path, embedder: HashingEmbedder = EMBEDDER) -> ArchivalStore:
    return ArchivalStore(path, embedder, read_only=True)


def test_many_threads_get_what_a_search_finds(path: Path) -> None:
    found = {}
    with SearchQueue(lambda: reader(path), max_pending=3, batch_size=2) as queue:

        def ask(number: int) -> None:
            for page in (0, 1):
                future = queue.submit(f"note {number}", page, 4)
                found[number, page] = future.result(WAIT_S)

        threads = [threading.Thread(target=ask, args=(number,)) for number in range(12)]
        for thread in threads:
            thread.start()
        for thread in threads:
            thread.join()
    with reader(path) as store:
        assert len(found) == 24
        for (number, page), result in found.items():
            assert result == store.search(f"note {number}", page, 4)


def test_what_waits_is_searched_together(path: Path) -> None:
    held = Held()
    with SearchQueue(lambda: reader(path, held), batch_size=3) as queue:
        first = queue.submit("first")
        assert held.has_begun.wait(WAIT_S)
        others = [queue.submit(f"other {n}") for n in range(4)]
        others.append(queue.submit("other page", 1))
        held.may_go.set()
        for future in (first, *others):
            future.result(WAIT_S)
    assert held.batches == [
        ["first"],
        ["other 0", "other 1", "other 2"],
        ["other 3"],
        ["other page"],
    ]


def test_a_full_queue_refuses_or_waits(path: Path) -> None:
    held = Held()
    with SearchQueue(lambda: reader(path, held), max_pending=2) as queue:
        queue.submit("first")
        assert held.has_begun.wait(WAIT_S)
        queue.submit("second")
        third = queue.submit("third")
        assert len(queue) == 2
        for timeout_s in (0, 0.01):
            with pytest.raises(SearchQueueError, match="full \\(2 searches wait"):
                queue.submit("fourth", timeout_s=timeout_s)
        waiting = threading.Thread(target=lambda: late.append(queue.submit("fourth")))
        late: list[object] = []
        waiting.start()
        assert third.cancel()
        held.may_go.set()
        waiting.join(WAIT_S)
        assert len(late) == 1
    with pytest.raises(CancelledError):
        third.result()
    assert not any("third" in batch for batch in held.batches)


def test_an_error_reaches_its_caller_and_the_queue_goes_on(path: Path) -> None:
    held = Held()
    held.may_go.set()
    with SearchQueue(lambda: reader(path, held), batch_size=1) as queue:
        bad, good = queue.submit("bad"), queue.submit("note 3")
        with pytest.raises(StoreError, match="This search fails"):
            bad.result(WAIT_S)
        assert good.result(WAIT_S).total == 20
        with pytest.raises(SearchError):
            queue.submit("note", page=-1)


def test_closing_answers_what_was_submitted(path: Path) -> None:
    held = Held()
    queue = SearchQueue(lambda: reader(path, held))
    futures = [queue.submit(f"note {n}") for n in range(5)]
    held.may_go.set()
    queue.close()
    queue.close()
    assert all(future.result(0).total == 20 for future in futures)
    with pytest.raises(SearchQueueError, match="closed"):
        queue.submit("note")
    assert not any(thread.name == "memrl-search" for thread in threading.enumerate())


def test_a_store_that_does_not_open_is_said_at_once(tmp_path: Path) -> None:
    with pytest.raises(StoreError, match="does not exist"):
        SearchQueue(lambda: reader(tmp_path / "none.db"))
    for bad in ({"max_pending": 0}, {"batch_size": 0}):
        with pytest.raises(ValueError, match=next(iter(bad))):
            SearchQueue(lambda: reader(tmp_path / "none.db"), **bad)


def test_an_agent_sees_what_was_stored_before_it_searched(tmp_path: Path) -> None:
    async def live(store: ArchivalStore, queue: SearchQueue) -> None:
        for number in range(5):
            store.insert(f"fact{number}", page_id=number)
            results = await asyncio.gather(*(queue.search(f"fact{n}") for n in range(number + 1)))
            assert [page.hits[0].page_id for page in results] == list(range(number + 1))
        with pytest.raises(SearchError):
            await queue.search("fact", page_size=0)

    path = tmp_path / "archive.db"
    with ArchivalStore(path, EMBEDDER) as store, SearchQueue(lambda: reader(path)) as queue:
        asyncio.run(live(store, queue))


def test_sessions_searched_at_once_find_what_each_finds_alone() -> None:
    held = Held()
    held.may_go.set()
    with ExitStack() as opened:
        stores = [opened.enter_context(ArchivalStore(None, held)) for _ in range(4)]
        for number, store in enumerate(stores[:3]):
            store.extend(NewEntry(f"note {n} of {number}") for n in range(3 + number))
        requests = [(stores[n % 4], f"note {n}" if n % 5 else " ") for n in range(11)]
        held.batches.clear()
        found = search_sessions(requests, page_size=2)
        assert len(held.batches) == 1
        assert found == [store.search(query, page_size=2) for store, query in requests]
        assert search_sessions([]) == []
        other = opened.enter_context(ArchivalStore(None, HashingEmbedder(8)))
        with pytest.raises(ValueError, match="one embedder"):
            search_sessions([(stores[0], "a"), (other, "b")])
