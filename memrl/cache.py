"""Disk cache: where it lies, what happens to damaged files, and the store of embeddings.

A cache may be deleted at any time, and it never makes a program fail: what is damaged is moved
aside and made again, and a folder that cannot be written means work without a cache; both with one
warning. Nothing in it is unpickled.
"""

from __future__ import annotations

import contextlib
import hashlib
import os
import sqlite3
import warnings
import zlib
from collections.abc import Iterator, Sequence
from contextlib import closing
from pathlib import Path

import numpy as np
import numpy.typing as npt

_LOCK_TIMEOUT_S = 60.0
_KEYS_PER_SELECT = 500  # below SQLite's smallest default limit of 999 parameters


def default_cache_folder() -> Path:
    """Return the folder named by `MEMRL_CACHE`, else `~/.cache/memrl`."""
    folder = os.environ.get("MEMRL_CACHE")
    return Path(folder).expanduser() if folder else Path.home() / ".cache" / "memrl"


def move_aside(path: Path, reason: str) -> None:
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


class WarnOnce:
    """Turns errors about a folder that cannot be used into one warning."""

    def __init__(self, folder: Path) -> None:
        self._folder = folder
        self._has_warned = False

    @contextlib.contextmanager
    def tolerating(self, *errors: type[Exception]) -> Iterator[None]:
        """End the block at one of the errors, and warn at the first of them."""
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
        self._warn_once = WarnOnce(folder)

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
        move_aside(self._path, str(error))
        # A journal left behind would be rolled back into the next database.
        self._path.with_name(f"{self._path.name}-journal").unlink(missing_ok=True)


def _text_key(text: str) -> bytes:
    return hashlib.sha256(text.encode("utf-8", "surrogatepass")).digest()
