"""The index of an archive: it follows the rows of the store, which are the one truth."""

from __future__ import annotations

import sqlite3
from collections.abc import Sequence

import numpy as np
import numpy.typing as npt

from memrl.memory.database import StoreError
from memrl.memory.scores import exact_scores
from memrl.memory.vector_index import (
    Ids,
    IndexKind,
    VectorIndex,
    Vectors,
    make_index,
    nearest,
)

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
_MOST_DEAD = 256  # taking one vector out of FAISS costs as much as taking out many
_ROWS_PER_FETCH = 4096


class PieceIndex:
    """Vectors of the pieces of an archive, as they are at each search.

    Args:
        dimension: of the vectors.
        kind: what searches; both kinds give the same results.
        name: of the store, for messages.
    """

    def __init__(self, dimension: int, kind: IndexKind, name: str) -> None:
        self._dimension, self._kind, self._name = dimension, kind, name
        self._forget()

    def _forget(self) -> None:
        self._index: VectorIndex = make_index(self._dimension, self._kind)
        self._last_piece = 0  # the newest that the index has ever held
        self._last_deletion = 0
        self._dead: Ids = np.zeros(0, dtype=np.int64)  # still in the index, deleted in the store

    def __len__(self) -> int:
        return len(self._index) - len(self._dead)

    def synchronize(self, connection: sqlite3.Connection) -> None:
        """Hold what the rows of this transaction hold.

        Raises:
            StoreError: if a stored vector is damaged.
        """
        try:
            self._remove_deleted(connection)
            self._add_new(connection)
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
            self._dead = np.concatenate([self._dead, gone])
        else:
            kept = connection.execute("SELECT piece_id FROM pieces").fetchall()
            ids = np.array([piece_id for (piece_id,) in kept], dtype=np.int64)
            self._dead = np.setdiff1d(self._index.ids(), ids)
        if len(self._dead) > _MOST_DEAD:
            self._index.remove(self._dead)
            self._dead = self._dead[:0]
        self._last_deletion = rows[-1][0]

    def _add_new(self, connection: sqlite3.Connection) -> None:
        cursor = connection.execute(
            "SELECT piece_id, embedding FROM pieces WHERE piece_id > ? ORDER BY piece_id",
            (self._last_piece,),
        )
        while rows := cursor.fetchmany(_ROWS_PER_FETCH):
            if any(len(blob) != 4 * self._dimension for _, blob in rows):
                raise StoreError(
                    f"{self._name} is damaged (a vector has a wrong length). It is left as it is; "
                    "restore it from a copy."
                )
            vectors = np.frombuffer(b"".join(blob for _, blob in rows), dtype="<f4")
            ids = np.array([piece_id for piece_id, _ in rows], dtype=np.int64)
            self._index.add(ids, vectors.reshape(len(rows), self._dimension))
            self._last_piece = int(ids[-1])

    def nearest(self, query: Vectors, count: int) -> tuple[Ids, Vectors]:
        """See `vector_index.nearest`."""
        ids, scores = nearest(self._index, query, count + len(self._dead))
        is_live = ~np.isin(ids, self._dead)
        return ids[is_live][:count], scores[is_live][:count]

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
