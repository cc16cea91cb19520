"""Writes to a store until it is killed; every line it prints acknowledges what was stored.

    python crash_child.py            then, a line each on its input: KIND SEED PAGE PATH

The program itself only forks, so that a thousand writers need not import everything a thousand
times. PAGE is the first that a writer may store. It says `pid N` first, then `+ FIRST LAST` after
storing those pages, `? PAGE` before and `- PAGE` after deleting one; when the kernel has ended it,
the program says `dead`.
"""

from __future__ import annotations

import os
import random
import sys
from datetime import UTC, datetime
from pathlib import Path

from memrl.memory.archival import ArchivalStore, NewEntry
from memrl.memory.embedders import HashingEmbedder
from memrl.memory.recall import RecallPage, RecallStore

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
            write(kind, Path(path), int(seed), int(page))
        os.waitpid(child, 0)
        say("dead")


if __name__ == "__main__":
    main()
