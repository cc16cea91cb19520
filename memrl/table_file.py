"""Tables on disk: one safetensors file with a content hash, mapped into memory instead of read.

What is mapped costs memory only while it is used, so that a table larger than memory can be played
from. Texts and provenance are JSON in an array of bytes: the header, where safetensors has a place
for them, may hold 100 MB at most.
"""

from __future__ import annotations

import contextlib
import hashlib
import json
import os
import struct
from collections.abc import Mapping
from pathlib import Path
from typing import Any

import numpy as np
import numpy.typing as npt
import safetensors
from safetensors.numpy import save_file

from memrl.errors import MemrlError

FORMAT = "memrl-table-2"
"""Of the file, whatever the arrays are: 1 kept texts in the header and had no name."""

_SIDE = "side_json"
_MOST_HEADER_BYTES = 100_000_000  # of safetensors
_REBUILT = "delete it, it is rebuilt from the data"

Arrays = Mapping[str, npt.NDArray[Any]]


class TableError(MemrlError):
    """A table on disk cannot be used."""


def content_hash(arrays: Arrays, side: str) -> str:
    """SHA-256 over all arrays and the JSON beside them; no array is copied."""
    digest = hashlib.sha256(side.encode())
    for name, array in sorted(arrays.items()):
        digest.update(f"{name}:{array.dtype}:{array.shape};".encode())
        digest.update(np.ascontiguousarray(array).reshape(-1).view(np.uint8).data)
    return digest.hexdigest()


def write_table_file(path: Path, arrays: Arrays, side: str, version: int) -> None:
    """Write a file, atomically.

    Args:
        path: its folder is made if missing.
        arrays: by name. side: JSON. version: of the arrays.
    """
    path.parent.mkdir(parents=True, exist_ok=True)
    metadata = {"format": FORMAT, "version": str(version), "sha256": content_hash(arrays, side)}
    held = {name: np.ascontiguousarray(array) for name, array in arrays.items()}
    held[_SIDE] = np.frombuffer(side.encode(), dtype=np.uint8)
    # A name of its own: another process may be writing the same table.
    partial = path.with_name(f"{path.name}.{os.getpid()}.partial")
    try:
        save_file(held, partial, metadata=metadata)
        partial.replace(path)
    finally:
        partial.unlink(missing_ok=True)


def read_table_file(path: Path, version: int) -> tuple[dict[str, npt.NDArray[Any]], str]:
    """Map a file into memory, and check its content hash by reading it once from end to end.

    Args:
        path: of the file. version: of the arrays that can be used.

    Returns:
        The arrays by name, views of the file: what is written to them stays in this process. And
        the JSON.

    Raises:
        TableError: if the file is missing, no table, of another version, or damaged.
    """
    try:
        with safetensors.safe_open(path, framework="pt") as file:
            metadata = file.metadata() or {}
            arrays = {name: file.get_tensor(name).numpy() for name in file.offset_keys()}
    except FileNotFoundError as error:
        raise TableError(f"No episode table at {path}; build it with train.py.") from error
    except (safetensors.SafetensorError, OSError) as error:
        raise TableError(_unreadable(path, error)) from error
    if "sha256" not in metadata or not {"format", "side"} & metadata.keys():
        raise TableError(_no_table(path, "it names no content hash"))
    if (metadata.get("format"), metadata.get("version")) != (FORMAT, str(version)):
        found = f"{metadata.get('format', 'memrl-table-1')}, version {metadata.get('version')}"
        raise TableError(
            f"The episode table at {path} is of another version ({found}, and not {FORMAT}, "
            f"version {version}); {_REBUILT}."
        )
    side = bytes(arrays.pop(_SIDE, b"")).decode(errors="replace")
    if content_hash(arrays, side) != metadata["sha256"]:
        raise TableError(
            f"The episode table at {path} is damaged: its content does not match its hash; "
            f"{_REBUILT}."
        )
    return arrays, side


def _unreadable(path: Path, error: Exception) -> str:
    """What is wrong with a file that safetensors refuses."""
    stated, there = None, 0
    with contextlib.suppress(OSError):  # a folder, say: the first error tells
        there = path.stat().st_size
        stated = _stated_bytes(path)
    if stated is not None and there < stated:
        return (
            f"The episode table at {path} is damaged: it ends after {there:,} of {stated:,} bytes; "
            f"{_REBUILT}."
        )
    return _no_table(path, str(error))


def _no_table(path: Path, reason: str) -> str:
    return f"{path} is no episode table ({reason}): give a file that EpisodeTable.save wrote."


def _stated_bytes(path: Path) -> int | None:
    """Length that the header of a safetensors file gives it, or at least; None without a header."""
    with path.open("rb") as file:
        try:
            (length,) = struct.unpack("<Q", file.read(8))
            if length > _MOST_HEADER_BYTES:
                return None
            head = file.read(length)
            if len(head) < length:
                return 8 + int(length)
            header = json.loads(head)
            ends = [entry["data_offsets"][1] for name, entry in header.items() if name[0] != "_"]
            return 8 + int(length) + max(ends, default=0)
        except (struct.error, ValueError, KeyError, TypeError, IndexError, AttributeError):
            return None
