"""Content-addressed disk cache of arrays and embeddings.

A cache may be deleted at any time, and it never makes a program fail: what is damaged is moved
aside and made again, and a folder that cannot be written means work without a cache; both with one
warning. Nothing in it is unpickled.
"""

from __future__ import annotations

import contextlib
import hashlib
import json
import os
import re
import sqlite3
import tempfile
import warnings
import zlib
from collections.abc import Iterator, Mapping, Sequence
from contextlib import closing
from pathlib import Path
from typing import Any, NamedTuple

import numpy as np
import numpy.typing as npt
from safetensors import SafetensorError, safe_open
from safetensors.numpy import save

_LOCK_TIMEOUT_S = 60.0
_KEYS_PER_SELECT = 500  # below SQLite's smallest default limit of 999 parameters


def default_cache_folder() -> Path:
    """Return the folder named by `MEMRL_CACHE`, else `~/.cache/memrl`."""
    folder = os.environ.get("MEMRL_CACHE")
    return Path(folder).expanduser() if folder else Path.home() / ".cache" / "memrl"


def content_key(*parts: bytes | str | npt.NDArray[Any]) -> str:
    """Hash parts to a key: sha256, 64 hexadecimal digits.

    Every part goes in with its kind and length, so that ("ab", "c"), ("a", "bc") and (b"ab", "c")
    differ. Arrays are hashed by dtype, shape and content, not by byte order or memory layout.

    Raises:
        TypeError: if a part is of another type, or an array holds Python objects.
    """
    digest = hashlib.sha256()
    for part in parts:
        for field in _fields(part):
            digest.update(len(field).to_bytes(8, "little"))
            digest.update(field)
    return digest.hexdigest()


def _fields(part: bytes | str | npt.NDArray[Any]) -> tuple[bytes, ...]:
    if isinstance(part, bytes):
        return b"bytes", part
    if isinstance(part, str):
        return b"str", part.encode("utf-8", "surrogatepass")
    if isinstance(part, np.ndarray) and not part.dtype.hasobject:
        little = part.astype(part.dtype.newbyteorder("<"), copy=False)
        return b"array", little.dtype.str.encode(), repr(part.shape).encode(), little.tobytes()
    raise TypeError(
        f"A cache key is made of bytes, str and plain numpy arrays, not of {type(part).__name__}."
    )


def _move_aside(path: Path, reason: str) -> None:
    """Rename a damaged file to `*.damaged`, keeping earlier ones, and warn."""
    target = path.with_name(f"{path.name}.damaged")
    number = 1
    while target.exists():
        number += 1
        target = path.with_name(f"{path.name}.{number}.damaged")
    # Another process may have found the damage first and moved the file already.
    with contextlib.suppress(FileNotFoundError):
        path.rename(target)
    warnings.warn(
        f"The cache file {path} is damaged ({reason}): moved to {target.name} and made again.",
        RuntimeWarning,
        stacklevel=3,
    )


class _WarnOnce:
    """Turns errors about a folder that cannot be used into one warning."""

    def __init__(self, folder: Path) -> None:
        self._folder = folder
        self._has_warned = False

    @contextlib.contextmanager
    def tolerating(self, *errors: type[Exception]) -> Iterator[None]:
        try:
            yield
        except errors as error:
            if not self._has_warned:
                self._has_warned = True
                warnings.warn(
                    f"The cache folder {self._folder} cannot be used ({error}): working without "
                    "it. Set MEMRL_CACHE to a folder that can be written.",
                    RuntimeWarning,
                    stacklevel=4,
                )


class CachedArrays(NamedTuple):
    """What `ArrayCache.put` was given."""

    arrays: dict[str, npt.NDArray[Any]]
    metadata: dict[str, Any]


class ArrayCache:
    """Named arrays under a content key, one safetensors file each in `<root>/arrays`."""

    def __init__(self, root: Path | None = None) -> None:
        """Use the folder `root`, by default `default_cache_folder()`; it is created when needed."""
        self._folder = (root or default_cache_folder()) / "arrays"
        self._warn_once = _WarnOnce(self._folder)

    def get(self, key: str) -> CachedArrays | None:
        """Return what is stored under `key`, or None.

        A file that does not parse or whose checksum is wrong is moved aside and counts as absent.

        Raises:
            ValueError: if `key` is not of `content_key`'s form.
        """
        path = self._path(key)
        with self._warn_once.tolerating(OSError):
            try:
                return _read_arrays(path)
            except (FileNotFoundError, NotADirectoryError):
                return None
            except (SafetensorError, ValueError) as error:
                _move_aside(path, str(error))
        return None

    def put(
        self,
        key: str,
        arrays: Mapping[str, npt.NDArray[Any]],
        metadata: Mapping[str, Any] | None = None,
    ) -> None:
        """Store arrays and a JSON-able record under `key`, replacing what is there.

        The file appears at once and whole: readers never see half of it.

        Raises:
            ValueError: if `key` is not of `content_key`'s form, or a dtype is neither a number nor
                a bool.
            TypeError: if `metadata` cannot be written as JSON.
        """
        path = self._path(key)
        # asarray instead of ascontiguousarray, which gives a scalar an axis.
        plain = {name: np.asarray(array, order="C") for name, array in arrays.items()}
        for name, array in plain.items():
            if array.dtype.kind not in "biuf" or array.dtype.itemsize > 8:
                raise ValueError(f"Array {name!r} of dtype {array.dtype} cannot be cached.")
        record = json.dumps(dict(metadata or {}))
        header = {"metadata": record, "checksum": _checksum(plain, record)}
        with self._warn_once.tolerating(OSError):
            self._folder.mkdir(parents=True, exist_ok=True)
            _write_atomically(path, save(plain, metadata=header))

    def _path(self, key: str) -> Path:
        if not re.fullmatch("[0-9a-f]{64}", key):
            raise ValueError(f"{key!r} is no cache key: make one with content_key().")
        return self._folder / f"{key}.safetensors"


def _checksum(arrays: Mapping[str, npt.NDArray[Any]], record: str) -> str:
    parts: list[str | npt.NDArray[Any]] = [record]
    for name in sorted(arrays):
        parts += [name, arrays[name]]
    return content_key(*parts)


def _read_arrays(path: Path) -> CachedArrays:
    with safe_open(path, framework="numpy") as file:
        header = file.metadata() or {}
        arrays = {name: file.get_tensor(name) for name in file.keys()}  # noqa: SIM118
    record = header.get("metadata", "")
    if _checksum(arrays, record) != header.get("checksum"):
        raise ValueError("its checksum is wrong")
    return CachedArrays(arrays, json.loads(record))


def _write_atomically(path: Path, content: bytes) -> None:
    descriptor, name = tempfile.mkstemp(dir=path.parent, prefix=f"{path.stem[:8]}-", suffix=".tmp")
    try:
        with os.fdopen(descriptor, "wb") as file:
            file.write(content)
        os.replace(name, path)
    except BaseException:
        Path(name).unlink(missing_ok=True)
        raise


class EmbeddingCache:
    """Vectors by model and text, in the SQLite file `<root>/embeddings.sqlite`.

    Several processes may use it at once. Every call opens the file and closes it again, so that
    forked and spawned workers share nothing. SQLite's default journal is used because a write-ahead
    log does not work on network file systems, where home folders of clusters are.
    """

    def __init__(self, root: Path | None = None) -> None:
        """Use the folder `root`, by default `default_cache_folder()`; it is created when needed."""
        folder = root or default_cache_folder()
        self._path = folder / "embeddings.sqlite"
        self._warn_once = _WarnOnce(folder)

    def get_many(self, model: str, texts: Sequence[str]) -> dict[str, npt.NDArray[np.float32]]:
        """Return the vectors that are stored for some of `texts`.

        Args:
            model: `Embedder.name`.
            texts: any number of texts.

        Returns:
            text -> (dimension,) float32; texts without a whole vector are left out.
        """
        by_key = {_text_key(text): text for text in texts}
        found: dict[str, npt.NDArray[np.float32]] = {}
        with self._tolerating_damage(), closing(self._connect()) as connection:
            keys = list(by_key)
            for start in range(0, len(keys), _KEYS_PER_SELECT):
                some = keys[start : start + _KEYS_PER_SELECT]
                marks = ",".join("?" * len(some))
                rows = connection.execute(
                    "SELECT key, crc32, vector FROM embeddings "
                    f"WHERE model = ? AND key IN ({marks})",
                    (model, *some),
                )
                for key, crc32, vector in rows:
                    if zlib.crc32(vector) == crc32:
                        found[by_key[key]] = np.frombuffer(vector, dtype="<f4").astype(np.float32)
        return found

    def put_many(self, model: str, texts: Sequence[str], vectors: npt.NDArray[np.float32]) -> None:
        """Store one vector per text, all or none of them.

        Args:
            model: `Embedder.name`.
            texts: n texts.
            vectors: (n, dimension) float32.
        """
        blobs = [row.tobytes() for row in vectors.astype("<f4")]
        rows = [
            (model, _text_key(text), zlib.crc32(blob), blob)
            for text, blob in zip(texts, blobs, strict=True)
        ]
        with self._tolerating_damage(), closing(self._connect()) as connection, connection:
            connection.executemany("INSERT OR REPLACE INTO embeddings VALUES (?, ?, ?, ?)", rows)

    def _connect(self) -> sqlite3.Connection:
        self._path.parent.mkdir(parents=True, exist_ok=True)
        connection = sqlite3.connect(self._path, timeout=_LOCK_TIMEOUT_S)
        try:
            connection.execute(
                "CREATE TABLE IF NOT EXISTS embeddings (model TEXT, key BLOB, crc32 INTEGER, "
                "vector BLOB, PRIMARY KEY (model, key))"
            )
        except sqlite3.Error:
            connection.close()
            raise
        return connection

    @contextlib.contextmanager
    def _tolerating_damage(self) -> Iterator[None]:
        with self._warn_once.tolerating(OSError, sqlite3.OperationalError):
            try:
                yield
            except sqlite3.DatabaseError as error:
                self._move_database_aside(error)

    def _move_database_aside(self, error: sqlite3.DatabaseError) -> None:
        # The bare class says that the file is corrupt or no database; its subclasses say that the
        # disk is full, a permission or a table is missing, or somebody held a lock for too long.
        if type(error) is not sqlite3.DatabaseError:
            raise error
        _move_aside(self._path, str(error))
        # A journal left behind would be rolled back into the next database.
        self._path.with_name(f"{self._path.name}-journal").unlink(missing_ok=True)


def _text_key(text: str) -> bytes:
    return hashlib.sha256(text.encode("utf-8", "surrogatepass")).digest()
