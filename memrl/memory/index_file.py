"""The file of an index: read whole or refused, replaced whole, and only ever a copy.

The vectors of a store are in its rows; the file spares making an index from them again. It begins
with a block of `HEADER_BYTES`: a line that names the format, then JSON that says what the index is,
how long the rest is and its SHA-256. Nothing in it is unpickled.
"""

from __future__ import annotations

import hashlib
import json
import os
from collections.abc import Callable, Mapping
from pathlib import Path
from typing import IO, Any

import numpy as np

from memrl.memory.faiss_index import FaissIndex, import_faiss
from memrl.memory.growing_index import GrowingIndex
from memrl.memory.index_kinds import IvfIndex, in_parts
from memrl.memory.index_options import IndexOptions, VectorIndexError

HEADER_BYTES = 4096
_MAGIC = b"memrl vector index\n"
_VERSION = 1
_READ_BYTES = 1 << 20


def write_index(path: Path, index: GrowingIndex, stamp: Mapping[str, str | int]) -> None:
    """Write an index so that `path` is there with the old or the new one, never with a part.

    Args:
        path: of the file; its folder is there.
        index: any; what was removed is not in the file.
        stamp: of what the index is, for its reader; a few short values.

    Raises:
        OSError: if it cannot be written.
    """
    base, kind = index.base, index.kind or "exact"
    if isinstance(base, FaissIndex) and len(base.dead):
        base.take_out_dead()
    temporary = path.with_name(f".{path.name}.partial")
    try:
        with temporary.open("wb") as stream:
            stream.write(bytes(HEADER_BYTES))
            writer = _Summing(stream.write)
            _write_content(index, writer)
            header = {
                "version": _VERSION,
                "kind": kind,
                "dimension": index.dimension,
                **_parameters(kind, index.options),
                "count": len(index),
                "trained_size": getattr(base, "trained_size", 0),
                "num_added": getattr(base, "num_added", 0),
                "content_bytes": writer.num_bytes,
                "sha256": writer.sha256.hexdigest(),
                "stamp": dict(stamp),
            }
            stream.seek(0)
            stream.write(_MAGIC + json.dumps(header).encode())
            stream.flush()
            os.fsync(stream.fileno())
        temporary.replace(path)
    finally:
        temporary.unlink(missing_ok=True)


def read_index(path: Path, index: GrowingIndex) -> dict[str, str | int]:
    """Read a file into an empty index of the options that it was written with.

    Returns:
        The stamp.

    Raises:
        VectorIndexError: if it is no whole file of such an index. The index stays empty.
        OSError: if it cannot be read.
    """
    with path.open("rb") as stream:
        header = _checked_header(path, stream, index)
        stream.seek(HEADER_BYTES)
        _read_content(path, stream, header, index)
    stamp: dict[str, str | int] = header["stamp"]
    return stamp


class _Summing:
    """Counts and hashes what is written."""

    def __init__(self, write: Callable[[bytes], int]) -> None:
        self._write = write
        self.num_bytes, self.sha256 = 0, hashlib.sha256()

    def __call__(self, part: bytes) -> int:
        self.num_bytes += len(part)
        self.sha256.update(part)
        return self._write(part)


def _parameters(kind: str, options: IndexOptions) -> dict[str, int | None]:
    """Options that an index was made with, as opposed to those that it is searched with."""
    of_kind: dict[str, dict[str, int | None]] = {
        "exact": {},
        "hnsw": {"links": options.links, "build_breadth": options.build_breadth},
        "ivf": {"lists": options.lists},
        "ivf_pq": {"lists": options.lists, "code_bytes": options.code_bytes},
    }
    return of_kind[kind]


def _write_content(index: GrowingIndex, write: Callable[[bytes], int]) -> None:
    if index.kind is None:
        ids = np.sort(index.ids())
        write(ids.astype("<i8").tobytes())
        for some in in_parts(ids):
            write(index.vectors(some).astype("<f4").tobytes())
        return
    assert isinstance(index.base, FaissIndex)  # what is approximate is of FAISS
    faiss = index.base.faiss
    faiss.write_index(index.base.inner, faiss.PyCallbackIOWriter(write))


def _checked_header(path: Path, stream: IO[bytes], index: GrowingIndex) -> dict[str, Any]:
    block = stream.read(HEADER_BYTES)
    if not block.startswith(_MAGIC):
        raise VectorIndexError(
            f"{path} is no file of a vector index: choose another path, or move it away."
        )
    try:
        header: dict[str, Any] = json.loads(block[len(_MAGIC) :].rstrip(b"\0"))
    except ValueError as error:
        raise VectorIndexError(f"{path} is damaged (its header): delete it.") from error
    if header["version"] > _VERSION:
        raise VectorIndexError(
            f"{path} was written by a newer memrl (format {header['version']}; this one knows up "
            f"to {_VERSION}): update memrl, or delete it."
        )
    kind = header["kind"]
    if kind not in ("exact", index.approximate):
        raise VectorIndexError(
            f"{path} holds an index of kind {kind}, not {index.options.kind}: open it with that "
            "kind, or delete it."
        )
    for name, value in _parameters(kind, index.options).items():
        if header[name] != value:
            raise VectorIndexError(
                f"{path} holds an index made with {name} {header[name]}, not {value}: open it with "
                "that, or delete it."
            )
    if header["dimension"] != index.dimension:
        raise VectorIndexError(
            f"{path} holds vectors of {header['dimension']} dimensions, not {index.dimension}: it "
            "belongs to another store; delete it."
        )
    _check_whole(path, stream, header)
    return header


def _check_whole(path: Path, stream: IO[bytes], header: Mapping[str, Any]) -> None:
    present = path.stat().st_size - HEADER_BYTES
    if present != header["content_bytes"]:
        raise VectorIndexError(
            f"{path} is cut off or grown ({present:,} bytes of {header['content_bytes']:,}): "
            "delete it."
        )
    sha256 = hashlib.sha256()
    while part := stream.read(_READ_BYTES):
        sha256.update(part)
    if sha256.hexdigest() != header["sha256"]:
        raise VectorIndexError(f"{path} is damaged (its checksum differs): delete it.")


def _read_content(
    path: Path, stream: IO[bytes], header: Mapping[str, Any], index: GrowingIndex
) -> None:
    if header["kind"] == "exact":
        count, dimension = header["count"], index.dimension
        ids = np.frombuffer(stream.read(8 * count), dtype="<i8").astype(np.int64)
        for some in in_parts(ids):
            vectors = np.frombuffer(stream.read(4 * dimension * len(some)), dtype="<f4")
            index.add(some, vectors.reshape(len(some), dimension).astype(np.float32))
        return
    faiss = import_faiss()
    try:
        inner = faiss.read_index(faiss.PyCallbackIOReader(stream.read))
    except RuntimeError as error:
        reason = str(error).strip().splitlines()[-1]
        raise VectorIndexError(
            f"{path} cannot be read by FAISS {faiss.__version__} ({reason}): delete it."
        ) from error
    base = index.empty_base(header["kind"], header["trained_size"])
    base.inner = inner
    if isinstance(base, IvfIndex):
        base.num_added = header["num_added"]
    index.replace_base(base)
