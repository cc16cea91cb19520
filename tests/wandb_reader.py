"""Reads back what wandb wrote offline: a LevelDB log of protocol buffers.

The file is a sequence of blocks of 32 KiB, the first of which begins with a 7-byte header. A block
holds records of (crc, length, type) and their bytes; a record that crosses a block boundary comes
in parts. https://github.com/google/leveldb/blob/main/doc/log_format.md
"""

from __future__ import annotations

import importlib
import json
import struct
import time
from collections.abc import Iterator
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

_HEADER = b":W&B\xe1\xbe\x00"
_BLOCK_BYTES = 32 * 1024
_RECORD = struct.Struct("<IHB")
_FULL, _FIRST, _LAST = 1, 2, 4


@dataclass
class OfflineRun:
    """What a test asks about an offline run."""

    started_ns: int = 0
    name: str = ""
    group: str = ""
    job_type: str = ""
    tags: list[str] = field(default_factory=list)
    config: dict[str, Any] = field(default_factory=dict)
    history: list[dict[str, Any]] = field(default_factory=list)
    summary: dict[str, Any] = field(default_factory=dict)
    step_metrics: dict[str, str] = field(default_factory=dict)
    artifacts: dict[str, tuple[str, list[str]]] = field(default_factory=dict)
    exit_code: int | None = None


def read_offline_runs(run_folder: Path, timeout_s: float = 30.0) -> list[OfflineRun]:
    """All finished offline runs under `run_folder / "wandb"`, oldest first.

    wandb's writer is a process of its own, some milliseconds behind `finish`: this waits for it.
    """
    deadline = time.monotonic() + timeout_s
    while True:
        paths = (run_folder / "wandb").glob("offline-run-*/run-*.wandb")
        runs = sorted((_read(path) for path in paths), key=lambda run: run.started_ns)
        if all(run.exit_code is not None for run in runs):
            return runs
        assert time.monotonic() < deadline, "an offline run of wandb was never finished"
        time.sleep(0.01)


def _read(path: Path) -> OfflineRun:
    # Generated code, which type checkers cannot see into.
    pb: Any = importlib.import_module("wandb.proto.wandb_internal_pb2")

    run = OfflineRun()
    for payload in _payloads(path.read_bytes()):
        record = pb.Record.FromString(payload)
        kind = record.WhichOneof("record_type")
        if kind == "run":
            run.started_ns = run.started_ns or record.run.start_time.ToNanoseconds()
            # Later records of this kind hold only what has changed.
            run.name = record.run.display_name or run.name
            run.group = record.run.run_group or run.group
            run.job_type = record.run.job_type or run.job_type
            run.tags = list(record.run.tags) or run.tags
            run.config |= _items(record.run.config.update)
        elif kind == "history":
            run.history.append(_items(record.history.item))
        elif kind == "summary":
            run.summary |= _items(record.summary.update)
        elif kind == "metric":
            name = record.metric.name or record.metric.glob_name
            run.step_metrics[name] = record.metric.step_metric
        elif kind == "artifact":
            files = [entry.path for entry in record.artifact.manifest.contents]
            run.artifacts[record.artifact.name] = (record.artifact.type, files)
        elif kind == "exit":
            run.exit_code = record.exit.exit_code
    run.config.pop("_wandb", None)
    return run


def _items(items: Any) -> dict[str, Any]:
    return {item.key or "/".join(item.nested_key): json.loads(item.value_json) for item in items}


def _payloads(log: bytes) -> Iterator[bytes]:
    assert log.startswith(_HEADER), "not a wandb file, or of another version"
    position, parts = len(_HEADER), b""
    while position + _RECORD.size <= len(log):
        left = _BLOCK_BYTES - position % _BLOCK_BYTES
        if left < _RECORD.size:  # the rest of a block too short for a header is padding
            position += left
            continue
        _, length, kind = _RECORD.unpack_from(log, position)
        position += _RECORD.size
        chunk = log[position : position + length]
        position += length
        parts = chunk if kind in (_FULL, _FIRST) else parts + chunk
        if kind in (_FULL, _LAST):
            yield parts
