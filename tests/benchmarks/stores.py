"""How fast recall, archival and a whole memory store and find.

    python tests/benchmarks/stores.py [--sizes 1000 10000 100000] [--repeats 50] [--json FILE]

Made-up messages of 20 words with Zipf frequencies, each with the name of one of two speakers, so
that half of all pages hold a query's most common term. A single insert on disk includes the flush
to the disk. `search rare` asks for two words that few pages hold, `search common` for a speaker's
name and the commonest words. Vectors are random, of the length of all-MiniLM-L6-v2's, so that no
model is timed. `memory` is what `memrl.memory.open` gives, with its default window, written to by
`append` and by function calls. Nothing is asserted about time.
"""

from __future__ import annotations

import argparse
import json
import platform
import sqlite3
import tempfile
import time
from collections.abc import Callable, Sequence
from datetime import UTC, datetime, timedelta
from pathlib import Path
from typing import Any

import numpy as np
import numpy.typing as npt
from rich.console import Console
from rich.progress import track
from rich.table import Table

from memrl.memory import live
from memrl.memory.archival import ArchivalStore, NewEntry
from memrl.memory.queue_manager import NewPage
from memrl.memory.recall import RecallPage, RecallStore

DIMENSION = 384
WORDS_PER_PAGE = 20
START = datetime(2024, 1, 1, tzinfo=UTC)
COLUMNS = ("store", "place", "pages", "operation", "p50_ms", "p95_ms")


class RandomVectors:
    """A vector for every text, from a seed: as fast as an embedder can be."""

    name = f"random-{DIMENSION}"
    dimension = DIMENSION

    def __init__(self) -> None:
        self._rng = np.random.default_rng(0)

    def embed(self, texts: Sequence[str]) -> npt.NDArray[np.float32]:
        """(n, DIMENSION) float32 unit vectors."""
        vectors = self._rng.standard_normal((len(texts), DIMENSION), dtype=np.float32)
        vectors /= np.linalg.norm(vectors, axis=1, keepdims=True)
        return vectors


def make_words(count: int = 20_000) -> list[str]:
    """Different words that no stemmer shortens."""
    letters = "bcdfghjklmnpqrtv"
    return ["".join(letters[n >> shift & 15] for shift in (0, 4, 8, 12)) for n in range(count)]


def make_texts(count: int) -> list[str]:
    """Messages with a speaker's name."""
    words, rng = np.array(make_words()), np.random.default_rng(1)
    weights = 1.0 / np.arange(1, len(words) + 1)
    chosen = rng.choice(len(words), size=(count, WORDS_PER_PAGE), p=weights / weights.sum())
    return [f"{'Ana' if n % 2 else 'Ben'}: {' '.join(row)}" for n, row in enumerate(words[chosen])]


class Timings:
    """Rows of the result, for one store of one size in one place."""

    def __init__(self, store: str, place: str, size: int) -> None:
        self._key = {"store": store, "place": place, "pages": size}
        self.rows: list[dict[str, Any]] = []

    def take(
        self,
        operation: str,
        action: Callable[[int], Any],
        repeats: int = 1,
        before: Callable[[int], Any] = lambda _: None,
    ) -> None:
        """Time `action(0)`, `action(1)` ...; what `before` does first is not counted."""
        times = []
        for number in range(repeats):
            before(number)
            start = time.perf_counter()
            action(number)
            times.append(1e3 * (time.perf_counter() - start))
        p50, p95 = np.percentile(times, [50, 95]).tolist()
        self.rows.append(self._key | {"operation": operation, "p50_ms": p50, "p95_ms": p95})


def measure_recall(path: Path | None, size: int, repeats: int) -> list[dict[str, Any]]:
    """Load `size` pages, then time single operations."""
    texts, words = make_texts(size + 2 * repeats), make_words()
    timings = Timings("recall", "disk" if path else "memory", size)

    def page(number: int) -> RecallPage:
        when = START + timedelta(minutes=number)
        return RecallPage(number, texts[number], "user", when, WORDS_PER_PAGE)

    rare = [f"{words[5000 + n]} {words[7000 + n]}" for n in range(repeats)]
    common = [f"Ana {words[n % 3]} {words[3 + n]}" for n in range(repeats)]
    pages = [page(number) for number in range(size)]
    with RecallStore(path) as store:
        timings.take("load all", lambda _: store.extend(pages))
        timings.take("insert", lambda n: store.append(page(size + n)), repeats)
        timings.take("first search", lambda _: store.search("Ana"))
        timings.take("search rare", lambda n: store.search(rare[n]), repeats)
        timings.take("search common", lambda n: store.search(common[n]), repeats)
        timings.take(
            "search after insert",
            lambda n: store.search(common[n]),
            repeats,
            before=lambda n: store.append(page(size + repeats + n)),
        )
        timings.take("search date", lambda n: store.search_date("2024-01-01", "2099-01-01", n), 20)
    if path:
        timings.take("open", lambda _: RecallStore(path).close(), 5)
    return timings.rows


def measure_archival(path: Path | None, size: int, repeats: int) -> list[dict[str, Any]]:
    """Load `size` entries, then time single operations."""
    texts, embedder = make_texts(size + 2 * repeats), RandomVectors()
    timings = Timings("archival", "disk" if path else "memory", size)
    entries = [NewEntry(texts[n], page_id=n, time=START) for n in range(size)]

    def insert(number: int) -> None:
        store.insert(texts[number], page_id=number, time=START)

    with ArchivalStore(path, embedder) as store:
        timings.take("load all", lambda _: store.extend(entries))
        timings.take("insert", lambda n: insert(size + n), repeats)
        timings.take("first search", lambda _: store.search("Ana"))
        timings.take("search", lambda _: store.search("Ana"), repeats)
        timings.take(
            "search after insert",
            lambda _: store.search("Ana"),
            repeats,
            before=lambda n: insert(size + repeats + n),
        )
        timings.take("delete", store.delete_page, repeats)
        timings.take(
            "search after delete",
            lambda _: store.search("Ana"),
            repeats,
            before=lambda n: store.delete_page(repeats + n),
        )
    if path:
        timings.take("open", lambda _: ArchivalStore(path, embedder).close(), 5)
    return timings.rows


def measure_memory(path: Path | None, size: int, repeats: int) -> list[dict[str, Any]]:
    """Load a history of `size` messages, then time single operations."""
    texts = make_texts(size + repeats)
    timings = Timings("memory", "disk" if path else "memory", size)
    history = [NewPage(texts[n], "user", time=START + timedelta(minutes=n)) for n in range(size)]

    def call(name: str, /, **arguments: object) -> None:
        assert memory.call(name, arguments).status == "ok"

    with live.open(path, embedder=RandomVectors()) as memory:
        timings.take("load all", lambda _: memory.extend(history))
        timings.take("append", lambda n: memory.append(texts[size + n], "user"), repeats)
        edit = {"name": "human", "content": "x"}
        timings.take("edit block", lambda _: call("core_memory_append", **edit), repeats)
        timings.take("retrieve", lambda n: call("retrieve", page_id=n), repeats)
    if path:
        timings.take("open", lambda _: live.open(path, embedder=RandomVectors()).close(), 5)
    return timings.rows


def show(rows: list[dict[str, Any]]) -> None:
    """Print the rows as a table."""
    table = Table(title="milliseconds: median and 95th percentile")
    for column in COLUMNS:
        numeric = column.endswith("_ms") or column == "pages"
        table.add_column(column, justify="right" if numeric else "left")
    for row in rows:
        table.add_row(
            *(
                f"{row[column]:,.2f}" if column.endswith("_ms") else str(row[column])
                for column in COLUMNS
            )
        )
    Console(width=100).print(table)


def main() -> None:
    """Measure, print, and write JSON on demand."""
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawTextHelpFormatter
    )
    parser.add_argument("--sizes", type=int, nargs="+", default=[1_000, 10_000, 100_000])
    parser.add_argument("--repeats", type=int, default=50, help="of each single operation")
    parser.add_argument("--folder", type=Path, help="where the stores on disk are made")
    parser.add_argument("--json", type=Path, help="write the rows to this file")
    arguments = parser.parse_args()
    rows: list[dict[str, Any]] = []
    for size in track(arguments.sizes, "Measuring", console=Console(stderr=True)):
        for measure in (measure_recall, measure_archival, measure_memory):
            rows += measure(None, size, arguments.repeats)
            with tempfile.TemporaryDirectory(dir=arguments.folder) as folder:
                rows += measure(Path(folder) / "store.db", size, arguments.repeats)
    show(rows)
    if arguments.json:
        machine = {
            "platform": platform.platform(),
            "python": platform.python_version(),
            "sqlite": sqlite3.sqlite_version,
        }
        arguments.json.write_text(json.dumps({"machine": machine, "rows": rows}, indent=2))


if __name__ == "__main__":
    main()
