"""The rows of an archive: what an entry is, and how it is written, deleted and read back."""

from __future__ import annotations

import json
import sqlite3
from collections.abc import Sequence
from dataclasses import dataclass
from datetime import UTC, datetime

from memrl.memory.columns import decode_text, decode_time, encode_text, encode_time, is_id
from memrl.memory.database import StoreFormat
from memrl.memory.piece_index import PIECE_SCHEMA, delete_pieces
from memrl.memory.results import Hit

ARCHIVAL_FORMAT = StoreFormat(
    kind="archival",
    application_id=0x6D72_6172,  # "mrar"
    version=1,
    schema=f"""
    CREATE TABLE entries (
        entry_id INTEGER PRIMARY KEY AUTOINCREMENT,  -- in order of storing; never used again
        page_id INTEGER UNIQUE,
        role BLOB NOT NULL,
        utc_us INTEGER NOT NULL,
        offset_us INTEGER NOT NULL
    ) STRICT;
    {PIECE_SCHEMA}
    """,
)
_PIECES_BY_ID = """
    SELECT piece_id, page_id, text, utc_us, offset_us, role, entry_id
    FROM pieces JOIN entries USING (entry_id)
    WHERE piece_id IN (SELECT value FROM json_each(?))
"""


@dataclass(frozen=True, slots=True)
class NewEntry:
    """What is to be stored.

    Attributes:
        text: any text. page_id: the page that it is, 0 or more; None for a passage.
        role: who wrote it. time: with a time zone; None for the moment of storing.
    """

    text: str
    page_id: int | None = None
    role: str = "assistant"
    time: datetime | None = None


def insert_entry(
    connection: sqlite3.Connection, entry: NewEntry, pieces: Sequence[tuple[str, bytes]]
) -> int:
    """Write an entry of (text, vector) pieces and return its id; an archived page stays as it is.

    Raises:
        ValueError: if a field is out of range.
    """
    if entry.page_id is not None:
        if not is_id(entry.page_id):
            raise ValueError(f"Page {entry.page_id}: a page id is from 0 to 2^53-1.")
        archived = entry_of(connection, entry.page_id)
        if archived is not None:
            return archived
    time = entry.time if entry.time is not None else datetime.now(UTC)
    entry_id = connection.execute(
        "INSERT INTO entries (page_id, role, utc_us, offset_us) VALUES (?, ?, ?, ?)",
        (entry.page_id, encode_text(entry.role), *encode_time(time)),
    ).lastrowid
    assert entry_id is not None  # an INSERT has one
    connection.executemany(
        "INSERT INTO pieces (entry_id, text, embedding) VALUES (?, ?, ?)",
        ((entry_id, encode_text(text), vector) for text, vector in pieces),
    )
    return entry_id


def drop_oldest(connection: sqlite3.Connection, capacity: int) -> None:
    """Delete the entries that were stored first until at most `capacity` are left."""
    rows = connection.execute(
        "SELECT entry_id FROM entries ORDER BY entry_id LIMIT max(?, 0)",
        (num_entries(connection) - capacity,),
    )
    for (entry_id,) in rows.fetchall():
        delete_entry(connection, entry_id)


def num_entries(connection: sqlite3.Connection) -> int:
    """Entries in the archive."""
    [(count,)] = connection.execute("SELECT count(*) FROM entries")
    return int(count)


def entry_of(connection: sqlite3.Connection, page_id: int) -> int | None:
    """Entry of a page; None when it is not archived."""
    if not is_id(page_id):
        return None
    row = connection.execute(
        "SELECT entry_id FROM entries WHERE page_id = ?", (page_id,)
    ).fetchone()
    return None if row is None else int(row[0])


def delete_entry(connection: sqlite3.Connection, entry_id: int) -> None:
    """Delete an entry with its pieces; KeyError when there is none."""
    if not is_id(entry_id):
        raise KeyError(entry_id)
    delete_pieces(connection, entry_id)
    deleted = connection.execute("DELETE FROM entries WHERE entry_id = ?", (entry_id,))
    if deleted.rowcount == 0:
        raise KeyError(entry_id)


def hits_of(connection: sqlite3.Connection, scores: dict[int, float]) -> tuple[Hit, ...]:
    """Hits of pieces, by id with their scores, in their order."""
    rows = connection.execute(_PIECES_BY_ID, (json.dumps(list(scores)),))
    hits = {
        piece_id: Hit(
            page_id,
            decode_text(text),
            decode_time(utc_us, offset_us),
            decode_text(role),
            scores[piece_id],
            entry_id,
        )
        for piece_id, page_id, text, utc_us, offset_us, role, entry_id in rows
    }
    return tuple(hits[piece_id] for piece_id in scores)


def pieces_of_page(connection: sqlite3.Connection, page_id: int) -> list[int]:
    """Pieces of an archived page; KeyError when it is not archived."""
    entry_id = entry_of(connection, page_id)
    if entry_id is None:
        raise KeyError(page_id)
    rows = connection.execute("SELECT piece_id FROM pieces WHERE entry_id = ?", (entry_id,))
    return [piece_id for (piece_id,) in rows]
