"""Writes to a store until it is killed; every line it prints acknowledges what was stored.

    python crash_child.py            then, a line each on its input: KIND SEED PAGE PATH

The program itself only forks, so that a thousand writers need not import everything a thousand
times. PAGE is the first that a writer may store. It says `pid N` first, then `+ FIRST LAST` after
storing those pages, `? PAGE` before and `- PAGE` after deleting one; when the kernel has ended it,
the program says `dead`. A writer of the kind "memory" says `= HASH EDITS PAGES` after each change
of main context: what of it is saved, the edits of its block, the pages seen.
"""

from __future__ import annotations

import os
import random
import sys
from datetime import UTC, datetime
from hashlib import sha256
from pathlib import Path

from memrl.memory import live
from memrl.memory.archival import ArchivalStore, NewEntry
from memrl.memory.blocks import Block
from memrl.memory.embedders import HashingEmbedder
from memrl.memory.live import Memory
from memrl.memory.queue_manager import NewPage
from memrl.memory.recall import RecallPage, RecallStore
from memrl.memory.window import Window

TIME = datetime(2024, 3, 5, tzinfo=UTC)
DIMENSION = 64


def say(line: str) -> None:
    """Print a line by one system call: to a pipe, all of it arrives or nothing."""
    os.write(sys.stdout.fileno(), f"{line}\n".encode())


def text_of(page_id: int) -> str:
    """A text that tells its page, of 5 to 400 words."""
    rng = random.Random(page_id)
    words = (f"word{rng.randrange(2000)}" for _ in range(rng.choice([5, 20, 400])))
    return f"page{page_id} \0 {' '.join(words)}"


def write(kind: str, path: Path, seed: int, next_page: int) -> None:
    """Store pages one by one and in bulk, search and delete, without end."""
    rng = random.Random(seed)
    store: RecallStore | ArchivalStore
    if kind == "recall":
        store = RecallStore(path)
    else:
        store = ArchivalStore(path, HashingEmbedder(DIMENSION))
    while True:
        last = next_page + rng.choice([0] * 8 + [1, 40])
        pages = range(next_page, last + 1)
        if isinstance(store, RecallStore):
            store.extend(RecallPage(n, text_of(n), "user", TIME, n + 1) for n in pages)
        else:
            store.extend(NewEntry(text_of(n), n, "user", TIME) for n in pages)
        say(f"+ {next_page} {last}")
        next_page = last + 1
        if rng.random() < 0.1:
            store.search(f"word{rng.randrange(2000)}")
        if isinstance(store, ArchivalStore) and rng.random() < 0.2:
            victim = rng.choice(store.page_ids)
            say(f"? {victim}")  # from here on it may be gone
            store.delete_page(victim)
            say(f"- {victim}")


def hash_of(memory: Memory) -> str:
    """Short hash of what is saved of main context."""
    return sha256(memory.main.saved().to_json().encode()).hexdigest()[:16]


def edits_of(memory: Memory) -> int:
    """How often the block was edited: it says so."""
    return int(memory.main.working["human"].text)


def open_memory(path: Path) -> Memory:
    """A memory whose queue flushes often."""
    return live.open(
        path,
        embedder=HashingEmbedder(DIMENSION),
        blocks=[Block("human", "0")],
        window=Window(700, working_tokens=60, summary_tokens=100),
    )


def live_on(path: Path, seed: int) -> None:
    """Append, edit, evict and retrieve without end."""
    rng = random.Random(seed)
    memory = open_memory(path)
    while True:
        edits, core = edits_of(memory), memory.main.core
        seen = core.counts.pages_seen
        kind = rng.choice(["append"] * 3 + ["edit"] * 3 + ["evict", "retrieve", "extend", "store"])
        if kind == "append":
            memory.append(text_of(seen), "user", time=TIME)
        elif kind == "extend":
            memory.extend(NewPage(text_of(seen + n), "user", time=TIME) for n in range(20))
        elif kind == "edit":
            old, new = str(edits), str(edits + 1)
            arguments = {"name": "human", "old_content": old, "new_content": new}
            assert memory.call("core_memory_replace", arguments).status == "ok"
        elif kind == "store":
            memory.call("archival_memory_insert", {"content": text_of(seen)})
        elif seen:
            memory.call(kind, {"page_id": rng.randrange(seen)})
        say(f"= {hash_of(memory)} {edits_of(memory)} {core.counts.pages_seen}")


def main() -> None:
    """Fork a writer for every line of the input."""
    with ArchivalStore(None, HashingEmbedder(DIMENSION)) as store:  # fills the caches to inherit
        store.extend(NewEntry(text_of(page_id)) for page_id in range(200))
        store.search("word7")
    for line in sys.stdin:
        kind, seed, page, path = line.rstrip("\n").split(" ", 3)
        child = os.fork()
        if child == 0:
            say(f"pid {os.getpid()}")
            if kind == "memory":
                live_on(Path(path), int(seed))
            write(kind, Path(path), int(seed), int(page))
        os.waitpid(child, 0)
        say("dead")


if __name__ == "__main__":
    main()
