"""The index of an archive: it follows the rows of the store, which are the one truth."""

from __future__ import annotations

import json
import secrets
import sqlite3
import warnings
from collections.abc import Sequence
from pathlib import Path

import numpy as np
import numpy.typing as npt

from memrl.memory.database import StoreError
from memrl.memory.growing_index import GrowingIndex
from memrl.memory.index_file import read_index, write_index
from memrl.memory.index_options import IndexOptions, VectorIndexError
from memrl.memory.scores import exact_scores
from memrl.memory.vector_index import Ids, Vectors, nearest_many

PIECE_SCHEMA = """
    CREATE TABLE pieces (
        piece_id INTEGER PRIMARY KEY AUTOINCREMENT,  -- in order of storing; never used again
        entry_id INTEGER NOT NULL REFERENCES entries,
        text BLOB NOT NULL,
        embedding BLOB NOT NULL  -- float32, little endian
    ) STRICT;
    CREATE INDEX pieces_by_entry ON pieces (entry_id);
    CREATE TABLE deletions (  -- the latest ones
        number INTEGER PRIMARY KEY AUTOINCREMENT,
        piece_id INTEGER NOT NULL
    ) STRICT;
"""

_DELETIONS_KEPT = 1000  # an index that is further behind compares all ids
_ROWS_PER_FETCH = 4096
_TOKEN_KEY = "index_token"
_VECTORS_BY_ID = """
    SELECT piece_id, embedding FROM pieces WHERE piece_id IN (SELECT value FROM json_each(?))
"""


class PieceIndex:
    """Vectors of the pieces of an archive, as they are at each search.

    Args:
        dimension: of the vectors.
        options: what searches.
        name: of the store, for messages.
        path: of the index's file, which spares making an approximate index again; None for none.
    """

    def __init__(
        self, dimension: int, options: IndexOptions, name: str, path: Path | None = None
    ) -> None:
        self._dimension, self._options, self._name = dimension, options, name
        self._path = path
        self._connection: sqlite3.Connection | None = None
        self._forget()

    def _forget(self) -> None:
        self._index = GrowingIndex(self._dimension, self._options, self._stored_vectors)
        self._last_piece = 0  # the newest that the index has ever held
        self._last_deletion = 0
        self._num_unsaved = 0  # vectors added and removed since it was read or written
        self._is_new = True

    def __len__(self) -> int:
        return len(self._index)

    def synchronize(self, connection: sqlite3.Connection) -> None:
        """Hold what the rows of this transaction hold, and search in it until the next call.

        Raises:
            StoreError: if a stored vector is damaged.
            VectorIndexError: if the index cannot be made as its options say.
        """
        self._connection = connection
        try:
            if self._is_new:
                self._read_file(connection)
            self._remove_deleted(connection)
            self._add_new(connection)
            if self._index.settle():
                self._num_unsaved = len(self._index)
        except BaseException:
            # Stopped half-way, by Ctrl-C too: what it holds is not known.
            self._forget()
            raise

    def _remove_deleted(self, connection: sqlite3.Connection) -> None:
        rows = connection.execute(
            "SELECT number, piece_id FROM deletions WHERE number > ? ORDER BY number",
            (self._last_deletion,),
        ).fetchall()
        if not rows:
            return
        if rows[0][0] == self._last_deletion + 1:
            gone = np.array([piece_id for _, piece_id in rows], dtype=np.int64)
            gone = gone[gone <= self._last_piece]  # the others came and went unseen
        else:
            kept = connection.execute("SELECT piece_id FROM pieces").fetchall()
            ids = np.array([piece_id for (piece_id,) in kept], dtype=np.int64)
            gone = np.setdiff1d(self._index.ids(), ids)
        if len(gone):
            self._index.remove(gone)
            self._num_unsaved += len(gone)
        self._last_deletion = rows[-1][0]

    def _add_new(self, connection: sqlite3.Connection) -> None:
        cursor = connection.execute(
            "SELECT piece_id, embedding FROM pieces WHERE piece_id > ? ORDER BY piece_id",
            (self._last_piece,),
        )
        while rows := cursor.fetchmany(_ROWS_PER_FETCH):
            vectors = self._decoded([blob for _, blob in rows])
            ids = np.array([piece_id for piece_id, _ in rows], dtype=np.int64)
            self._index.add(ids, vectors)
            self._last_piece = int(ids[-1])
            self._num_unsaved += len(ids)

    # ------------------------------------------------------------------ file

    def _read_file(self, connection: sqlite3.Connection) -> None:
        """Begin with what the file holds, if it is of this store; else with nothing."""
        self._is_new = False
        if self._path is None or self._index.approximate is None or not self._path.exists():
            return
        try:
            stamp = read_index(self._path, self._index)
            if stamp.get("token") != _stored_token(connection):
                self._forget()
                self._is_new = False
                raise VectorIndexError(f"{self._path} is of another state of the store.")
        except (VectorIndexError, OSError) as error:
            warnings.warn(
                f"{error} The index of {self._name} is made again.", RuntimeWarning, stacklevel=2
            )
            return
        self._last_piece, self._last_deletion = (
            int(stamp[key]) for key in ("last_piece", "last_deletion")
        )

    @property
    def is_worth_saving(self) -> bool:
        """Whether it is approximate, and a tenth of it or more is not in the file."""
        return (
            self._path is not None
            and self._index.kind is not None
            and 10 * self._num_unsaved >= len(self._index)
        )

    def write_file(self, connection: sqlite3.Connection) -> None:
        """Write the index, synchronized in this transaction, which writes to the store.

        Only the file whose token the store holds is read: one that is older than the store's last
        saving, or of a copy of the store that went its own way, is not.

        Raises:
            StoreError: if the store has no file.
            OSError: if it cannot be written; the file is as it was.
        """
        if self._path is None:
            raise StoreError(f"{self._name} has no file, and neither has its index: give a path.")
        token = secrets.token_hex(16)
        connection.execute("INSERT OR REPLACE INTO meta VALUES (?, ?)", (_TOKEN_KEY, token))
        stamp: dict[str, str | int] = {
            "token": token,
            "last_piece": self._last_piece,
            "last_deletion": self._last_deletion,
        }
        write_index(self._path, self._index, stamp)
        self._num_unsaved = 0

    # ------------------------------------------------------------------ searching

    def _stored_vectors(self, ids: Ids) -> Vectors:
        """(n, dimension) vectors of stored pieces, for an index that does not hold them."""
        assert self._connection is not None  # nothing is asked before the first synchronize
        rows = self._connection.execute(_VECTORS_BY_ID, (json.dumps(ids.tolist()),)).fetchall()
        blobs = dict(rows)
        return self._decoded([blobs[piece_id] for piece_id in ids.tolist()])

    def _decoded(self, blobs: Sequence[bytes]) -> Vectors:
        if any(len(blob) != 4 * self._dimension for blob in blobs):
            raise StoreError(
                f"{self._name} is damaged (a vector has a wrong length). It is left as it is; "
                "restore it from a copy."
            )
        vectors = np.frombuffer(b"".join(blobs), dtype="<f4")
        return vectors.reshape(len(blobs), self._dimension).astype(np.float32, copy=False)

    def nearest(self, queries: Vectors, count: int) -> list[tuple[Ids, Vectors]]:
        """See `vector_index.nearest_many`."""
        return nearest_many(self._index, queries, count)

    def best_scores(
        self, query: Vectors, pieces: Sequence[Sequence[int]]
    ) -> npt.NDArray[np.float32]:
        """(n,) float32, for each of n non-empty groups of pieces the best cosine with the query."""
        if not pieces:
            return np.zeros(0, dtype=np.float32)
        ids = np.array([piece_id for group in pieces for piece_id in group], dtype=np.int64)
        starts = np.cumsum([0] + [len(group) for group in pieces[:-1]])
        scores: Vectors = np.maximum.reduceat(exact_scores(self._index.vectors(ids), query), starts)
        return scores


def _stored_token(connection: sqlite3.Connection) -> str | None:
    row = connection.execute("SELECT value FROM meta WHERE key = ?", (_TOKEN_KEY,)).fetchone()
    return None if row is None else str(row[0])


def delete_pieces(connection: sqlite3.Connection, entry_id: int) -> None:
    """Delete the pieces of an entry, so that every index learns of it."""
    connection.execute(
        "INSERT INTO deletions (piece_id) SELECT piece_id FROM pieces WHERE entry_id = ?",
        (entry_id,),
    )
    connection.execute(
        "DELETE FROM deletions WHERE number <= (SELECT max(number) FROM deletions) - ?",
        (_DELETIONS_KEPT,),
    )
    connection.execute("DELETE FROM pieces WHERE entry_id = ?", (entry_id,))
