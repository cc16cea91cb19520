"""Recall, latency, throughput, build time and bytes of what can search an archive.

    PYTHONPATH=.:tests python tests/benchmarks/retrieval.py --sizes 1000 10000 --json out.json

Recall@10 is the share of the ten true nearest that an arm finds, by float64-exact cosines; lexical
arms rank by words and have none. They hold the real texts only. Seconds are CPU time of one thread
where an arm runs on a CPU; p50 and p95 are wall time of single searches. Arms that are not
installed are named and left out.
"""

from __future__ import annotations

import argparse
import gc
import os
import platform
import time
from collections.abc import Callable
from importlib import metadata
from pathlib import Path
from typing import Any

import numpy as np
import torch
from benchmarks.retrieval_arms import Arm, Found, all_arms
from benchmarks.retrieval_data import DIMENSION, NOISE_LENGTH, Corpus, make_corpus
from rich.console import Console
from rich.progress import track
from rich.table import Table

from memrl.memory.index_device import exact_index
from memrl.memory.index_options import GROW_AT, IndexOptions
from memrl.memory.vector_index import nearest_many
from memrl.run_files import strict_json

COUNT = 10
LEAST_SECONDS = 0.5  # of batches, so that a rate is no accident
PACKAGES = ("faiss-cpu", "faiss-gpu", "torch", "numpy", "usearch", "bm25s", "rank-bm25")
COLUMNS = {
    "arm": "",
    "vectors": ",d",
    "recall": ".3f",
    "single_cpu_ms": ".2f",
    "times_flat": ".1f",
    "p50_ms": ".2f",
    "p95_ms": ".2f",
    "single_qps": ",.0f",
    "batch_qps": ",.0f",
    "build_s": ".1f",
    "bytes_per_vector": ",.0f",
}


def exact_rows(corpus: Corpus, num_queries: int) -> list[set[int]]:
    """Rows of the true nearest of each query."""
    index = exact_index(DIMENSION, IndexOptions())
    index.add(np.arange(len(corpus.vectors)), corpus.vectors)
    found = nearest_many(index, corpus.queries[:num_queries], COUNT)
    return [set(ids.tolist()) for ids, _ in found]


def measure(
    make: Callable[[Corpus], Arm],
    corpus: Corpus,
    truth: list[set[int]],
    num_singles: int,
    batch_size: int,
) -> dict[str, Any]:
    """One arm on one corpus."""
    start = time.process_time()
    arm = make(corpus)
    build_s = time.process_time() - start
    arm.search(slice(0, 1), COUNT)  # what is made at the first search
    wall, cpu = [], []
    found: Found = []
    for number in range(num_singles):
        wall_start, cpu_start = time.perf_counter(), time.process_time()
        found += arm.search(slice(number, number + 1), COUNT)
        wall.append(1e3 * (time.perf_counter() - wall_start))
        cpu.append(1e3 * (time.process_time() - cpu_start))
    on_gpu = arm.name.endswith("GPU")  # whose time is no CPU's
    clock = time.perf_counter if on_gpu else time.process_time
    batches, batch_s = 0, 0.0
    while batch_s < LEAST_SECONDS:
        start = clock()
        arm.search(slice(0, batch_size), COUNT)
        batches, batch_s = batches + 1, batch_s + clock() - start
    held = min(len(corpus.vectors), len(corpus.texts)) if arm.is_lexical else len(corpus.vectors)
    num_bytes = arm.num_bytes()
    p50, p95 = np.percentile(wall, [50, 95]).tolist()
    shared = [len(set(rows) & true) / COUNT for rows, true in zip(found, truth, strict=False)]
    return {
        "arm": arm.name,
        "vectors": held,
        "recall": None if arm.is_lexical else float(np.mean(shared)),
        "single_cpu_ms": float(np.mean(cpu)),
        "p50_ms": p50,
        "p95_ms": p95,
        "single_qps": 1e3 / float(np.mean(wall if on_gpu else cpu)),
        "batch_qps": batches * batch_size / batch_s,
        "build_s": build_s,
        "bytes_per_vector": None if num_bytes is None else num_bytes / held,
    }


def add_times_flat(rows: list[dict[str, Any]]) -> None:
    """How many times faster than the flat index each arm answers one query."""
    flat = {row["vectors"]: row["single_cpu_ms"] for row in rows if row["arm"] == "flat"}
    for row in rows:
        own = flat.get(row["vectors"])
        row["times_flat"] = None if own is None else own / row["single_cpu_ms"]


def show(rows: list[dict[str, Any]], batch_size: int) -> None:
    """Print the rows as a table."""
    table = Table(title=f"{DIMENSION} dimensions, the best {COUNT}; batches of {batch_size}")
    for column in COLUMNS:
        table.add_column(column, justify="left" if column == "arm" else "right")
    for row in rows:
        cells = ((row[column], form) for column, form in COLUMNS.items())
        table.add_row(*("-" if value is None else format(value, form) for value, form in cells))
    Console(width=140).print(table)


def draw(rows: list[dict[str, Any]], path: Path) -> None:
    """Milliseconds of a single query against the number of vectors, one line an arm."""
    from matplotlib.figure import Figure

    figure = Figure(figsize=(9, 4), layout="constrained")
    times, recalls = figure.subplots(1, 2)
    for arm in dict.fromkeys(row["arm"] for row in rows):
        own = [row for row in rows if row["arm"] == arm]
        sizes = [row["vectors"] for row in own]
        times.plot(sizes, [row["single_cpu_ms"] for row in own], marker="o", label=arm)
        if own[0]["recall"] is not None:
            recalls.plot(sizes, [row["recall"] for row in own], marker="o", label=arm)
    times.set(xscale="log", yscale="log", xlabel="vectors or texts", ylabel="CPU ms of one query")
    recalls.set(xscale="log", xlabel="vectors", ylabel=f"recall@{COUNT}", ylim=(0.8, 1.005))
    recalls.axhline(0.95, color="grey", linewidth=0.8, linestyle=":")
    times.legend(fontsize="small")
    figure.savefig(path)


def machine() -> dict[str, Any]:
    """What the figures depend on."""
    versions = {}
    for package in PACKAGES:
        try:
            versions[package] = metadata.version(package)
        except metadata.PackageNotFoundError:
            continue
    return {
        "platform": platform.platform(),
        "python": platform.python_version(),
        "gpu": torch.cuda.get_device_name() if torch.cuda.is_available() else None,
        "load": os.getloadavg()[0] if hasattr(os, "getloadavg") else None,
        "versions": versions,
    }


def main() -> None:
    """Measure, print, and write JSON and a figure on demand."""
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawTextHelpFormatter
    )
    parser.add_argument("--sizes", type=int, nargs="+", default=[1_000, 10_000, 100_000])
    parser.add_argument("--arms", nargs="*", default=[], help="only these")
    parser.add_argument("--texts", type=int, default=20_000, help="most real texts to embed")
    parser.add_argument("--grow_at", type=int, default=GROW_AT, help="see IndexOptions")
    parser.add_argument("--singles", type=int, default=200, help="queries that come one at a time")
    parser.add_argument("--batch", type=int, default=256, help="queries that come together")
    parser.add_argument("--json", type=Path, help="write the rows to this file, after each size")
    parser.add_argument("--figure", type=Path, help="draw to this file (.png or .svg)")
    arguments = parser.parse_args()
    torch.set_num_threads(1)
    arms, absent = all_arms(arguments.arms, arguments.grow_at)
    for reason in absent:
        print(f"left out: {reason}")
    rows: list[dict[str, Any]] = []
    for size in arguments.sizes:
        num_queries = max(arguments.batch, arguments.singles)
        corpus = make_corpus(size, arguments.texts, num_queries)
        truth = exact_rows(corpus, arguments.singles)
        for name in track(arms, f"{size:,} vectors", console=Console(stderr=True)):
            row = measure(arms[name], corpus, truth, arguments.singles, arguments.batch)
            rows.append({**row, "real_vectors": corpus.num_real})
            gc.collect()
            add_times_flat(rows)
            if arguments.json:
                told = {
                    "machine": machine(),
                    "noise_length": NOISE_LENGTH,
                    "batch": arguments.batch,
                }
                told["rows"] = rows
                arguments.json.write_text(strict_json(told, indent=1) + "\n")
    show(rows, arguments.batch)
    if arguments.figure:
        draw(rows, arguments.figure)


if __name__ == "__main__":
    main()
