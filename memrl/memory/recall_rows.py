"""The rows of a recall store: how pages and main context are written and read back."""

from __future__ import annotations

import json
import sqlite3
from collections.abc import Iterator, Sequence

from memrl.errors import MemrlError
from memrl.memory.columns import decode_text, decode_time, encode_text, encode_time, is_id
from memrl.memory.database import StoreError, StoreFormat
from memrl.memory.external import RecallPage
from memrl.memory.saved_context import SavedContext
from memrl.memory.term_index import TERM_SCHEMA

RECALL_FORMAT = StoreFormat(
    kind="recall",
    application_id=0x6D72_7263,  # "mrrc"
    version=1,
    schema=f"""
    CREATE TABLE roles (role_id INTEGER PRIMARY KEY, role BLOB NOT NULL UNIQUE) STRICT;
    CREATE TABLE pages (
        position INTEGER PRIMARY KEY,  -- 1, 2, 3 ... in order of arrival
        page_id INTEGER NOT NULL UNIQUE,
        text BLOB NOT NULL,
        role_id INTEGER NOT NULL REFERENCES roles,
        utc_us INTEGER NOT NULL,
        offset_us INTEGER NOT NULL,
        page_tokens INTEGER NOT NULL,
        num_terms INTEGER NOT NULL
    ) STRICT;
    CREATE INDEX pages_by_time ON pages (utc_us, offset_us);
    CREATE TABLE context (  -- one row at most
        only INTEGER PRIMARY KEY CHECK (only = 1),
        state TEXT NOT NULL
    ) STRICT;
    {TERM_SCHEMA}
    """,
)
_PAGES_BY_POSITION = """
    SELECT position, page_id, text, role_id, utc_us, offset_us, page_tokens FROM pages
    WHERE position IN (SELECT value FROM json_each(?))
"""


def num_pages(connection: sqlite3.Connection) -> int:
    """Pages in the store, which is the position of the last one."""
    [(position,)] = connection.execute("SELECT max(position) FROM pages")
    return position or 0


def roles_of(connection: sqlite3.Connection) -> dict[int, str]:
    """Role id -> role."""
    rows = connection.execute("SELECT role_id, role FROM roles")
    return {role_id: decode_text(role) for role_id, role in rows}


def positions_of(connection: sqlite3.Connection, page_ids: Sequence[int]) -> list[int]:
    """Positions of pages, in the order asked for; KeyError for one that is not there."""
    positions = []
    for page_id in page_ids:
        sql = "SELECT position FROM pages WHERE page_id = ?"
        row = connection.execute(sql, (page_id,)).fetchone() if is_id(page_id) else None
        if row is None:
            raise KeyError(page_id)
        positions.append(row[0])
    return positions


def pages_at(connection: sqlite3.Connection, positions: Sequence[int]) -> dict[int, RecallPage]:
    """Position -> page."""
    roles = roles_of(connection)
    rows = connection.execute(_PAGES_BY_POSITION, (json.dumps(list(positions)),))
    return {
        position: RecallPage(
            page_id,
            decode_text(text),
            roles[role_id],
            decode_time(utc_us, offset_us),
            page_tokens,
        )
        for position, page_id, text, role_id, utc_us, offset_us, page_tokens in rows
    }


def insert_page(
    connection: sqlite3.Connection, position: int, page: RecallPage, role_id: int, num_terms: int
) -> None:
    """Write a page after all others.

    Raises:
        ValueError: if the page is there already, or a field is out of range.
    """
    if not is_id(page.page_id) or not is_id(page.page_tokens):
        raise ValueError(
            f"Page {page.page_id} of {page.page_tokens} tokens: both must be from 0 to 2^53-1."
        )
    text, times = encode_text(page.text), encode_time(page.time)
    try:
        connection.execute(
            "INSERT INTO pages VALUES (?, ?, ?, ?, ?, ?, ?, ?)",
            (position, page.page_id, text, role_id, *times, page.page_tokens, num_terms),
        )
    except sqlite3.IntegrityError as error:
        raise ValueError(
            f"Page {page.page_id} has been seen before; recall is append-only."
        ) from error


def add_role(connection: sqlite3.Connection, role: str) -> int:
    """Give a role that is new to the store its id."""
    role_id = connection.execute(
        "INSERT INTO roles (role) VALUES (?)", (encode_text(role),)
    ).lastrowid
    assert role_id is not None  # an INSERT has one
    return role_id


def sizes_of(connection: sqlite3.Connection) -> Iterator[tuple[int, int]]:
    """(page id, page_tokens) of every page, in order of arrival."""
    yield from connection.execute("SELECT page_id, page_tokens FROM pages ORDER BY position")


def write_context(connection: sqlite3.Connection, context: SavedContext) -> None:
    """Put main context in the place of the one before."""
    connection.execute("INSERT OR REPLACE INTO context VALUES (1, ?)", (context.to_json(),))


def read_context(connection: sqlite3.Connection, name: str) -> SavedContext | None:
    """Main context as it was last written, None before that; StoreError if it is damaged."""
    row = connection.execute("SELECT state FROM context").fetchone()
    try:
        return None if row is None else SavedContext.from_json(row[0])
    except (ValueError, MemrlError) as error:
        raise StoreError(
            f"{name} is damaged (main context: {error}). It is left as it is; restore it from a "
            "copy."
        ) from error
