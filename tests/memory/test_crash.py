"""`kill -9` of a writer at any moment: what it acknowledged is stored, and every store opens."""

from __future__ import annotations

import os
import random
import select
import signal
import subprocess
import sys
import time
from collections.abc import Iterator
from dataclasses import dataclass, field
from pathlib import Path
from typing import IO

import numpy as np
import pytest
from crash_child import DIMENSION, edits_of, hash_of, open_memory, text_of

from memrl.memory.archival import ArchivalStore
from memrl.memory.embedders import HashingEmbedder
from memrl.memory.recall import RecallStore

ROOT = Path(__file__).resolve().parents[2]
LONGEST_LIFE_S = 0.15
KILLS_PER_STORE = 20


@dataclass
class Acknowledged:
    """What the writers of one store said."""

    stored: set[int] = field(default_factory=set)
    deleted: set[int] = field(default_factory=set)
    doubtful: set[int] = field(default_factory=set)  # being deleted when the kill came
    highest: int = -1
    context: tuple[str, int, int] = ("", 0, 0)  # of main context: hash, edits, pages

    def read(self, line: str) -> None:
        kind, *numbers = line.split()
        if kind == "=":
            self.context = (numbers[0], int(numbers[1]), int(numbers[2]))
        elif kind == "+":
            first, last = map(int, numbers)
            self.stored.update(range(first, last + 1))
            self.highest = max(self.highest, last)
        elif kind in "?-":
            page = int(numbers[0])
            self.stored.discard(page)
            (self.doubtful if kind == "?" else self.deleted).add(page)
            if kind == "-":
                self.doubtful.discard(page)


@pytest.fixture(scope="module")
def nest() -> Iterator[subprocess.Popen[bytes]]:
    command = [sys.executable, str(ROOT / "tests/crash_child.py")]
    environment = os.environ | {"PYTHONPATH": str(ROOT), "OMP_NUM_THREADS": "1"}
    with subprocess.Popen(
        command, stdin=subprocess.PIPE, stdout=subprocess.PIPE, bufsize=0, env=environment
    ) as process:
        try:
            yield process
        finally:
            assert process.stdin is not None
            process.stdin.close()


def lines_until_dead(output: IO[bytes], pid: int, life_s: float) -> list[str]:
    """Kill the writer `life_s` after it began; whole lines that it printed before it died."""
    printed = b""
    end = time.monotonic() + life_s
    while (rest := end - time.monotonic()) > 0:
        if select.select([output], [], [], rest)[0]:  # an unread pipe would stop the writer
            printed += os.read(output.fileno(), 1 << 16)
    os.kill(pid, signal.SIGKILL)
    while not printed.endswith(b"dead\n"):
        more = os.read(output.fileno(), 1 << 16)
        assert more, "the writer failed"
        printed += more
    *lines, dead = printed.decode().splitlines()
    assert dead == "dead"
    return lines


def kill_writer(
    nest: subprocess.Popen[bytes], kind: str, path: Path, seed: int, next_page: int
) -> list[str]:
    assert nest.stdin is not None
    assert nest.stdout is not None
    nest.stdin.write(f"{kind} {seed} {next_page} {path}\n".encode())
    word, pid = nest.stdout.readline().split()
    assert word == b"pid"
    # The first moments are when the file is made or recovered; half of the kills fall there.
    life_s = LONGEST_LIFE_S * random.Random(seed).random() ** 2
    return lines_until_dead(nest.stdout, int(pid), life_s)


def check_recall(path: Path, said: Acknowledged) -> None:
    with RecallStore(path) as store:
        count = len(store)
        assert count > said.highest  # the last transaction may be there without its word
        pages = store.get(range(count))
        assert [page.text for page in pages] == [text_of(n) for n in range(count)]
        assert [page.page_tokens for page in pages] == list(range(1, count + 1))
        for number in {0, count // 2, count - 1} if count else ():
            [hit] = store.search(f"page{number}").hits
            assert (hit.page_id, hit.text) == (number, text_of(number))
        said.stored, said.highest = set(range(count)), count - 1


def check_archival(path: Path, said: Acknowledged) -> None:
    embedder = HashingEmbedder(DIMENSION)
    with ArchivalStore(path, embedder) as store:
        archived = set(store.page_ids)
        assert said.stored <= archived
        assert not said.deleted & archived
        assert all(page > said.highest for page in archived - said.stored - said.doubtful)
        texts: dict[int | None, list[str]] = {}
        result = store.search("word7", page_size=10**6)
        for hit in result.hits:
            texts.setdefault(hit.page_id, []).append(hit.text)
        assert result.total == sum(map(len, texts.values()))
        assert set(texts) == archived
        for page, pieces in texts.items():
            whole = text_of(page or 0)
            assert "".join(sorted(pieces, key=whole.index)) == whole
        # The vector of every piece is that of its text: the index agrees with the rows.
        vectors = embedder.embed(["word7", *(hit.text for hit in result.hits)])
        scores = np.array([hit.score for hit in result.hits])
        np.testing.assert_allclose(scores, vectors[1:] @ vectors[0], atol=1e-6)
        said.stored, said.highest = archived, max([said.highest, *archived])
        said.doubtful.clear()


def check_memory(path: Path, said: Acknowledged) -> None:
    last, edits, pages = said.context
    with open_memory(path) as memory:
        main, found = memory.main, edits_of(memory)
        seen = main.core.counts.pages_seen
        assert len(memory.recall) == seen
        # The last change may be there without its word. A history leaves main context as it was.
        is_same = hash_of(memory) == last
        changes = {(0, 0), (0, 20)} if is_same else {(0, 0), (1, 0), (0, 1), (0, 20)}
        assert (found - edits, seen - pages) in changes
        assert [page.page_id for page in main.pages] == main.core.queue
        texts = [page.text for page in memory.recall.get(range(seen))]
        assert texts == [text_of(page_id) for page_id in range(seen)]
        assert main.tokens <= main.window.window_tokens
        said.context = (hash_of(memory), found, seen)


CHECKS = {"recall": check_recall, "archival": check_archival, "memory": check_memory}


def kill_many(nest: subprocess.Popen[bytes], kind: str, folder: Path, kills: int, seed: int) -> int:
    """Kill that many writers, `KILLS_PER_STORE` on each store; return the writes acknowledged."""
    total = 0
    for first in range(0, kills, KILLS_PER_STORE):
        path = folder / f"{kind}-{first}.db"
        said = Acknowledged()
        for number in range(first, min(first + KILLS_PER_STORE, kills)):
            lines = kill_writer(nest, kind, path, seed * 100_000 + number, said.highest + 1)
            for line in lines:
                said.read(line)
                total += line[0] in "+="
            CHECKS[kind](path, said)
    return total


pytestmark = pytest.mark.skipif(not hasattr(os, "fork"), reason="there is no kill -9 to survive")


@pytest.mark.parametrize("kind", CHECKS)
def test_twenty_kills(nest: subprocess.Popen[bytes], kind: str, tmp_path: Path) -> None:
    assert kill_many(nest, kind, tmp_path, kills=20, seed=1) > 20


@pytest.mark.slow
@pytest.mark.parametrize("kind", CHECKS)
def test_a_thousand_kills(nest: subprocess.Popen[bytes], kind: str, tmp_path: Path) -> None:
    assert kill_many(nest, kind, tmp_path, kills=1000, seed=2) > 1000
