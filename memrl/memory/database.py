"""The file under a store: opened whole or refused, one writer, acknowledged means durable.

A store is one SQLite database in WAL mode with synchronous=FULL: when a transaction has returned,
it survives `kill -9` and a power cut. Any number of processes may read while one writes. The file
appears under its name only when it is complete, so what is half-written is damaged, never new.

WAL needs shared memory: a store belongs on a local disk, not on a network file system. A store and
its connection belong to one thread, and not to a forked child.
"""

from __future__ import annotations

import contextlib
import os
import sqlite3
from collections.abc import Iterator, Mapping
from contextlib import closing, contextmanager
from dataclasses import dataclass
from pathlib import Path
from types import TracebackType
from typing import Self

from memrl.errors import MemrlError

_BUSY_TIMEOUT_S = 30.0  # a reader may meet the last writer tidying up; it never waits for a write
_FOLDER_ADVICE = "Its folder must be writable, also for reading: SQLite keeps a -shm file there."
_DAMAGE_ADVICE = "It is left as it is; restore it from a copy."
_SIDE_FILES = ("-wal", "-shm", "-journal")


class StoreError(MemrlError):
    """A store cannot be opened, read or written; the message names the file and says what to do."""


@dataclass(frozen=True, slots=True)
class StoreFormat:
    """What tells one kind of store from other files.

    Attributes:
        kind: for messages, such as "recall".
        application_id: written into the file's header; differs between kinds.
        version: of the schema; a file of a newer version is refused.
        schema: the statements that make the tables.
    """

    kind: str
    application_id: int
    version: int
    schema: str


class Database:
    """The SQLite database of one store.

    Args:
        path: of the file, made with its folder when there is none; None for memory.
        store_format: what the file must be.
        meta: settings that a new store gets; `meta` has those of the store that was opened.
        read_only: open an existing file beside its writer. Nothing can be written then.

    Attributes:
        meta: name -> value, as stored. is_closed: whether it was closed.

    Raises:
        StoreError: if another writer has the store open, or the file is not a whole store of this
            format and version. The file is left as it is.
    """

    def __init__(
        self,
        path: Path | None,
        store_format: StoreFormat,
        *,
        meta: Mapping[str, str | int],
        read_only: bool = False,
    ) -> None:
        self.name = f"The {store_format.kind} store " + (f"{path}" if path else "in memory")
        self.read_only = read_only
        self._format = store_format
        self._resources = contextlib.ExitStack()
        self.is_closed = False
        with contextlib.ExitStack() as opening:
            opening.callback(self.close)
            try:
                with self._explained("opened"):
                    self.connection = self._open(path, meta)
                    self._resources.callback(self.connection.close)
                    self.meta = dict(self.connection.execute("SELECT key, value FROM meta"))
            except OSError as error:
                raise StoreError(
                    f"{self.name} cannot be opened: {error}. {_FOLDER_ADVICE}"
                ) from error
            opening.pop_all()

    def close(self) -> None:
        """Release the file and the right to write; closing twice is harmless."""
        self._resources.close()
        self.is_closed = True

    @contextmanager
    def reading(self) -> Iterator[sqlite3.Connection]:
        """See one state of the store throughout.

        Raises:
            StoreError: if the store is closed, or the file turns out damaged.
        """
        with self._explained("read"), self._transaction("BEGIN"):
            yield self.connection

    @contextmanager
    def writing(self) -> Iterator[sqlite3.Connection]:
        """Change the store all at once; durable on return, unchanged when anything is raised.

        Raises:
            StoreError: if the store is closed or read-only, or the change cannot be written (a full
                disk).
        """
        if self.read_only:
            raise StoreError(f"{self.name} is open with read_only=True: nothing can be written.")
        with self._explained("written"), self._transaction("BEGIN IMMEDIATE"):
            yield self.connection

    @contextmanager
    def _transaction(self, begin: str) -> Iterator[None]:
        if self.is_closed:
            raise StoreError(f"{self.name} is closed: open it again.")
        self.connection.execute(begin)
        try:
            yield
            self.connection.execute("COMMIT")
        finally:
            # SQLite itself rolls back on a full disk.
            if self.connection.in_transaction:
                self.connection.execute("ROLLBACK")

    @contextmanager
    def _explained(self, verb: str) -> Iterator[None]:
        try:
            yield
        except sqlite3.ProgrammingError:
            raise  # a foreign thread: an error of the calling code
        except sqlite3.Error as error:
            reason, advice = _explanation(error)
            raise StoreError(f"{self.name} cannot be {verb}: {reason}. {advice}") from error

    # ------------------------------------------------------------------ opening

    def _open(self, path: Path | None, meta: Mapping[str, str | int]) -> sqlite3.Connection:
        if path is None:
            if self.read_only:
                raise StoreError(f"{self.name} is new and empty: it cannot be read_only.")
            connection = sqlite3.connect(":memory:", isolation_level=None)
            self._create_tables(connection, meta)
            return connection
        path = path.resolve()
        if self.read_only:
            if not path.exists():
                raise StoreError(f"{self.name} does not exist: open it for writing once.")
        else:
            path.parent.mkdir(parents=True, exist_ok=True)
            self._become_the_writer(path)
            if not path.exists():
                self._create_file(path, meta)
        self._verify(path)
        if self.read_only:
            return _connect_read_only(path)
        connection = sqlite3.connect(path, timeout=_BUSY_TIMEOUT_S, isolation_level=None)
        connection.execute("PRAGMA synchronous = FULL")
        return connection

    def _become_the_writer(self, path: Path) -> None:
        """Take the lock that a writer holds for life; the kernel frees it however a process ends.

        The lock is SQLite's own, on an empty database beside the store: portable, and not
        inherited by forked children, which a lock by `flock` would be.
        """
        lock = sqlite3.connect(f"{path}.lock", timeout=0, isolation_level=None)
        self._resources.callback(lock.close)
        try:
            lock.execute("BEGIN EXCLUSIVE")
        except sqlite3.OperationalError as error:
            if error.sqlite_errorcode & 0xFF != sqlite3.SQLITE_BUSY:
                raise
            raise StoreError(
                f"{self.name} is open for writing already, and has one writer at a time: close it "
                "there, or open it with read_only=True."
            ) from error

    def _create_file(self, path: Path, meta: Mapping[str, str | int]) -> None:
        log = Path(f"{path}-wal")
        if log.exists() and log.stat().st_size > 0:
            raise StoreError(
                f"{self.name} is gone, but {log.name} is left of it and would be read as part of a "
                "new store: put the store back, or move that file away."
            )
        draft = path.with_name(f"{path.name}.new")
        for left_over in (
            f"{draft}",
            *(f"{file}{s}" for file in (draft, path) for s in _SIDE_FILES),
        ):
            Path(left_over).unlink(missing_ok=True)
        with closing(sqlite3.connect(draft, isolation_level=None)) as connection:
            connection.execute("PRAGMA journal_mode = WAL")
            self._create_tables(connection, meta)
        draft.rename(path)
        _make_durable(path.parent)

    def _create_tables(self, connection: sqlite3.Connection, meta: Mapping[str, str | int]) -> None:
        connection.executescript(
            f"BEGIN; CREATE TABLE meta (key TEXT PRIMARY KEY, value ANY NOT NULL) STRICT;"
            f"{self._format.schema}"
            f"PRAGMA application_id = {self._format.application_id};"
            f"PRAGMA user_version = {self._format.version}; COMMIT;"
        )
        connection.executemany("INSERT INTO meta VALUES (?, ?)", meta.items())

    def _verify(self, path: Path) -> None:
        """Refuse what is not a whole store, through a connection that cannot change the file."""
        with closing(_connect_read_only(path)) as connection:
            [(application_id,)] = connection.execute("PRAGMA application_id")
            if application_id != self._format.application_id:
                raise StoreError(
                    f"{self.name} is no such store: the file is empty or cut off, another kind of "
                    "store, or of another program. It is left as it is; choose another path."
                )
            [(version,)] = connection.execute("PRAGMA user_version")
            if version > self._format.version:
                raise StoreError(
                    f"{self.name} was written by a newer memrl (format {version}; this one knows "
                    f"up to {self._format.version}): update memrl."
                )
            [(finding,), *_] = connection.execute("PRAGMA quick_check(1)")
            if finding != "ok":
                raise StoreError(
                    f"{self.name} is damaged ({' '.join(finding.split())}). {_DAMAGE_ADVICE}"
                )


class Closing:
    """What is open until it is closed, best in a `with` statement."""

    def close(self) -> None:
        """Release the files; everything acknowledged is in them. Closing twice is harmless."""
        raise NotImplementedError

    def __enter__(self) -> Self:
        return self

    def __exit__(
        self,
        kind: type[BaseException] | None,
        error: BaseException | None,
        trace: TracebackType | None,
    ) -> None:
        self.close()


class Store(Closing):
    """What every store is."""

    def __init__(self, database: Database) -> None:
        self._database = database

    @property
    def read_only(self) -> bool:
        """Whether nothing can be written."""
        return self._database.read_only

    def close(self) -> None:
        """See `Closing`."""
        self._database.close()


def _connect_read_only(path: Path) -> sqlite3.Connection:
    return sqlite3.connect(
        f"{path.as_uri()}?mode=ro", uri=True, timeout=_BUSY_TIMEOUT_S, isolation_level=None
    )


def _make_durable(folder: Path) -> None:
    """Write a folder's list of files to disk, where folders can be opened (not on Windows)."""
    if os.name == "nt":
        return
    descriptor = os.open(folder, os.O_RDONLY)
    try:
        os.fsync(descriptor)
    finally:
        os.close(descriptor)


def _explanation(error: sqlite3.Error) -> tuple[str, str]:
    """(what happened, what to do)."""
    code = getattr(error, "sqlite_errorcode", sqlite3.SQLITE_ERROR) & 0xFF
    if code == sqlite3.SQLITE_FULL:
        return "the disk is full", "Nothing that was stored before is lost; free some space."
    if code in (sqlite3.SQLITE_CANTOPEN, sqlite3.SQLITE_READONLY):
        return f"{error}", _FOLDER_ADVICE
    if code in (sqlite3.SQLITE_CORRUPT, sqlite3.SQLITE_NOTADB):
        return f"the file is damaged ({error})", _DAMAGE_ADVICE
    return f"{error}", "Nothing that was stored before is lost."
