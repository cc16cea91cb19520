"""What a table costs: to load, to put on a device, to divide into shards, to go to another shard.

    PYTHONPATH=.:tests python tests/benchmarks/tables.py [--copies 60] [--shards 8] [--device cpu]
        [--json FILE]

The table is that of `env_sps.py` so many times over, every copy with documents of its own. The file
has just been written, so that no disk is measured. Memory is what the process has beside mapped
files (RssAnon, Linux only). One thread; single measurements, of things that happen once in a run.
"""

from __future__ import annotations

import argparse
import dataclasses
import tempfile
import time
from collections.abc import Callable
from functools import partial
from pathlib import Path
from typing import Any

import numpy as np
import torch
from benchmarks.env_sps import make_table, save
from rich.console import Console
from rich.table import Table
from safetensors.numpy import load_file

from envs.batched import BatchedPaging
from envs.part_tensors import bytes_of_parts, playing_bytes
from envs.sharded import ShardedPaging
from memrl.options import PagingOptions
from memrl.table import EpisodeTable, TableText
from memrl.table_shards import split_table

NUM_ENVS = 256
MIB = 2**20


def tiled(table: EpisodeTable, copies: int) -> EpisodeTable:
    """The table so many times over."""
    numbers = np.arange(copies)
    arrays = {
        name: np.concatenate([array] * copies)
        for name, array in table.arrays().items()
        if name != "query_offset"
    }
    lengths = np.diff(table.query_offset)
    arrays["query_offset"] = np.concatenate([[0], np.cumsum(np.tile(lengths, copies))])
    for name, step in (
        ("page_offset", len(table.page_tokens)),
        ("page_score_base", len(table.dense)),
        ("query_score_base", len(table.dense)),
        ("episode_document", table.num_documents),
    ):
        arrays[name] = arrays[name] + np.repeat(numbers * step, len(table.arrays()[name]))
    lists = {
        field.name: getattr(table.text, field.name) * copies
        for field in dataclasses.fields(TableText)
        if field.name != "categories"
    }
    text = TableText(categories=table.text.categories, **lists)
    parts: dict[str, Any] = {**arrays, "text": text, "meta": table.meta}
    return EpisodeTable(**parts)


def own_memory_mib() -> float:
    """Memory of this process that is not a mapped file; nan where nothing tells."""
    try:
        lines = Path("/proc/self/status").read_text().splitlines()
    except OSError:
        return float("nan")
    return next((int(line.split()[1]) / 1024 for line in lines if "RssAnon" in line), float("nan"))


class Measurements:
    """Seconds and memory of one thing after the other."""

    def __init__(self, device: torch.device) -> None:
        self._device = device
        self.rows: list[dict[str, Any]] = []

    def take(self, name: str, call: Callable[[], Any]) -> Any:
        """Measure a call; returns what it gives."""
        before, start = own_memory_mib(), time.perf_counter()
        result = call()
        if self._device.type == "cuda":
            torch.cuda.synchronize(self._device)
        seconds = time.perf_counter() - start
        memory = own_memory_mib() - before
        self.rows.append({"what": name, "seconds": seconds, "memory_mib": memory})
        return result


def measure(
    whole: EpisodeTable, path: Path, num_shards: int, device: torch.device
) -> dict[str, Any]:
    """All measurements, and the sizes they hold for."""
    taken = Measurements(device)
    options = PagingOptions().resolved(**whole.medians())
    taken.take("save", lambda: whole.save(path))
    copied = taken.take("copy the file's arrays", lambda: load_file(path))
    del copied
    table = taken.take("load", lambda: EpisodeTable.load(path))
    taken.take("first group", lambda: BatchedPaging(table, options, NUM_ENVS, device))
    taken.take("second group", lambda: BatchedPaging(table, options, NUM_ENVS, device))
    total = playing_bytes(table)
    limit = int(1.02 * total / num_shards)
    shards = taken.take("divide", lambda: split_table(table, limit, bytes_of_parts(table)))
    for prefetch in (False, True):
        group = ShardedPaging(shards, options, NUM_ENVS, device, prefetch=prefetch)
        group.expect(1)
        group.begin([int(shards.episodes[0][0])])
        if group._window._loader._ahead is not None:  # while shard 0 would be played
            group._window._loader._ahead[1].result()
        name = "go to a shard that is ready" if prefetch else "go to a shard"
        group.expect(0)
        taken.take(name, partial(group.begin, [int(shards.episodes[1][0])]))
    return {
        "rows": taken.rows,
        "file_mib": path.stat().st_size / MIB,
        "device_mib": total / MIB,
        "episodes": table.num_episodes,
        "documents": table.num_documents,
        "shards": shards.sizes,
    }


def main() -> None:
    """Measure, print, and write JSON on demand."""
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawTextHelpFormatter
    )
    parser.add_argument("--copies", type=int, default=60)
    parser.add_argument("--shards", type=int, default=8)
    parser.add_argument("--device", default="cpu")
    parser.add_argument("--folder", type=Path, help="where the file is written")
    parser.add_argument("--json", type=Path, help="write the measurements to this file")
    arguments = parser.parse_args()
    torch.set_num_threads(1)
    with tempfile.TemporaryDirectory(dir=arguments.folder) as folder:
        path = Path(folder) / "table.safetensors"
        whole = tiled(make_table(), arguments.copies)
        result = measure(whole, path, arguments.shards, torch.device(arguments.device))
    table = Table(
        title=f"{result['documents']} documents, {result['episodes']} episodes: "
        f"{result['file_mib']:,.0f} MiB in the file, {result['device_mib']:,.0f} MiB on the device"
    )
    for column in ("what", "seconds", "memory_mib"):
        table.add_column(column, justify="left" if column == "what" else "right")
    for row in result["rows"]:
        table.add_row(row["what"], f"{row['seconds']:,.3f}", f"{row['memory_mib']:,.0f}")
    Console(width=100).print(table)
    if arguments.json:
        save(arguments.json, [result], arguments.device)


if __name__ == "__main__":
    main()
