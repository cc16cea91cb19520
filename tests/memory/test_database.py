from __future__ import annotations

import os
import shutil
import sqlite3
from contextlib import closing
from datetime import UTC, datetime
from pathlib import Path
from typing import TypeAlias

import pytest

from memrl.errors import MemrlError
from memrl.memory.archival import ArchivalStore, NewEntry
from memrl.memory.database import Database, StoreError
from memrl.memory.embedders import HashingEmbedder
from memrl.memory.recall import RecallPage, RecallStore

AnyStore: TypeAlias = RecallStore | ArchivalStore
EMBEDDER = HashingEmbedder(32)
NOON = datetime(2024, 3, 5, 12, 0, tzinfo=UTC)
BOTH = pytest.mark.parametrize("kind", ["recall", "archival"])


def opened(kind: str, path: Path, *, read_only: bool = False) -> AnyStore:
    if kind == "recall":
        return RecallStore(path, read_only=read_only)
    return ArchivalStore(path, EMBEDDER, read_only=read_only)


def add(store: AnyStore, *page_ids: int, text: str = "kitten") -> None:
    if isinstance(store, RecallStore):
        store.extend(RecallPage(n, f"{text} {n}", "user", NOON, 2) for n in page_ids)
    else:
        store.extend(NewEntry(f"{text} {n}", n, "user", NOON) for n in page_ids)


def pages(store: AnyStore) -> dict[int | None, str]:
    return {hit.page_id: hit.text for hit in store.search("kitten", page_size=10**6).hits}


def expected(*page_ids: int) -> dict[int | None, str]:
    return {n: f"kitten {n}" for n in page_ids}


def database_of(store: AnyStore) -> Database:
    return store._database


def bytes_in(folder: Path) -> dict[str, bytes]:
    """Every file but the lock, and what a reader makes: shared memory and an empty log."""
    contents = {path.name: path.read_bytes() for path in folder.iterdir() if path.is_file()}
    return {
        name: content
        for name, content in contents.items()
        if not name.endswith((".lock", "-shm")) and (content or not name.endswith("-wal"))
    }


@BOTH
def test_what_was_stored_is_there_again(kind: str, tmp_path: Path) -> None:
    path = tmp_path / "new folder" / "with ? and % and #.db"
    with opened(kind, path) as store:
        add(store, 1, 2)
        assert pages(store) == expected(1, 2)
    assert sorted(file.name for file in path.parent.iterdir()) == [path.name, f"{path.name}.lock"]
    with opened(kind, path) as store:
        add(store, 3)
        assert pages(store) == expected(1, 2, 3)
        store.close()
        store.close()
    with opened(kind, path, read_only=True) as store:
        assert pages(store) == expected(1, 2, 3)


@BOTH
def test_a_second_writer_is_refused_at_once(kind: str, tmp_path: Path) -> None:
    path = tmp_path / "store.db"
    with opened(kind, path) as store:
        add(store, 1)
        with pytest.raises(StoreError, match="one writer at a time"):
            opened(kind, path)
        os.symlink(path, tmp_path / "same.db")
        with pytest.raises(StoreError, match="one writer at a time"):
            opened(kind, tmp_path / "same.db")
        add(store, 2)
    with opened(kind, path) as store:
        assert pages(store) == expected(1, 2)


@BOTH
def test_readers_see_what_the_writer_adds(kind: str, tmp_path: Path) -> None:
    path = tmp_path / "store.db"
    with opened(kind, path) as writer, opened(kind, path, read_only=True) as reader:
        for number in range(5):
            add(writer, number)
            with opened(kind, path, read_only=True) as another:
                assert pages(reader) == pages(another) == expected(*range(number + 1))
        with pytest.raises(StoreError, match="read_only=True: nothing can be written"):
            add(reader, 9)
        with database_of(writer).writing():  # a reader never waits for a write
            assert pages(reader) == expected(*range(5))


@BOTH
def test_read_only_makes_nothing(kind: str, tmp_path: Path) -> None:
    with pytest.raises(StoreError, match="does not exist: open it for writing once"):
        opened(kind, tmp_path / "store.db", read_only=True)
    assert list(tmp_path.iterdir()) == []
    with pytest.raises(StoreError, match="cannot be read_only"):
        RecallStore(read_only=True)


@BOTH
@pytest.mark.parametrize(
    "damage", ["empty", "text", "short", "half", "one page", "hole", "other kind", "foreign"]
)
def test_what_is_no_whole_store_is_refused_and_left_untouched(
    kind: str, damage: str, tmp_path: Path
) -> None:
    path = tmp_path / "store.db"
    with opened(kind, path) as store:
        add(store, *range(500))
    size = path.stat().st_size
    whole = path.read_bytes()
    if damage == "other kind":
        path.unlink()
        opened("archival" if kind == "recall" else "recall", path).close()
    elif damage == "foreign":
        path.unlink()
        with closing(sqlite3.connect(path)) as connection:
            connection.execute("CREATE TABLE pages (page_id)")
    else:
        middle = size // 8192 * 4096
        path.write_bytes(
            {
                "empty": b"",
                "text": b"my notes\n" * 1000,
                "short": whole[:50],
                "half": whole[: size // 2 + 100],
                "one page": whole[:4096],
                "hole": whole[:4096] + bytes(middle) + whole[4096 + middle :],
            }[damage]
        )
    before = bytes_in(tmp_path)
    is_other = damage in ("empty", "short", "other kind", "foreign")
    reason = "is no such store" if is_other else "(file is|is) damaged"
    for read_only in (False, True):
        with pytest.raises(StoreError, match=reason) as raised:
            opened(kind, path, read_only=read_only)
        assert isinstance(raised.value, MemrlError)
        assert str(path) in str(raised.value)
        assert "left as it is" in str(raised.value)
    assert bytes_in(tmp_path) == before


@BOTH
def test_a_newer_version_is_refused(kind: str, tmp_path: Path) -> None:
    path = tmp_path / "store.db"
    opened(kind, path).close()
    with closing(sqlite3.connect(path)) as connection:
        connection.execute("PRAGMA user_version = 2")
    before = bytes_in(tmp_path)
    with pytest.raises(StoreError, match=r"newer memrl \(format 2; this one knows up to 1\)"):
        opened(kind, path)
    assert bytes_in(tmp_path) == before


@BOTH
def test_damage_that_appears_later_is_one_clear_error(kind: str, tmp_path: Path) -> None:
    path = tmp_path / "store.db"
    with opened(kind, path) as store:
        add(store, *range(2000))
    with opened(kind, path, read_only=True) as store:
        with path.open("r+b") as file:
            file.seek(4096)
            file.write(b"\xff" * (path.stat().st_size - 4096))
        with pytest.raises(StoreError, match=r"cannot be read: the file is damaged"):
            pages(store)


def test_a_damaged_vector_is_noticed(tmp_path: Path) -> None:
    path = tmp_path / "store.db"
    with ArchivalStore(path, EMBEDDER) as store:
        add(store, 1, 2)
    with closing(sqlite3.connect(path)) as connection, connection:
        connection.execute("UPDATE pieces SET embedding = x'00' WHERE piece_id = 2")
    with ArchivalStore(path, EMBEDDER) as store, pytest.raises(StoreError, match="wrong length"):
        store.search("kitten")


@BOTH
def test_a_full_disk_loses_nothing(kind: str, tmp_path: Path) -> None:
    path = tmp_path / "store.db"
    with opened(kind, path) as store:
        add(store, 1, 2)
        connection = database_of(store).connection
        [(used,)] = connection.execute("PRAGMA page_count")
        connection.execute(f"PRAGMA max_page_count = {used + 3}")
        for count in (1, 60):
            with pytest.raises(StoreError, match=r"the disk is full\. Nothing that was stored"):
                add(store, *range(10, 10 + count), text="kitten " * 3000)
            assert pages(store) == expected(1, 2)
        connection.execute("PRAGMA max_page_count = 1000000")
        add(store, 3)
        assert pages(store) == expected(1, 2, 3)
    with opened(kind, path) as store:
        assert pages(store) == expected(1, 2, 3)


@BOTH
def test_the_log_of_a_lost_store_is_not_taken_into_a_new_one(kind: str, tmp_path: Path) -> None:
    path = tmp_path / "store.db"
    with opened(kind, path) as store:
        add(store, 1)
        shutil.copy(f"{path}-wal", tmp_path / "copy")
    path.unlink()
    (tmp_path / "copy").rename(f"{path}-wal")
    before = bytes_in(tmp_path)
    with pytest.raises(StoreError, match=r"store\.db-wal is left of it"):
        opened(kind, path)
    assert bytes_in(tmp_path) == before


@BOTH
def test_a_store_can_be_deleted_and_made_anew(kind: str, tmp_path: Path) -> None:
    path = tmp_path / "store.db"
    opened(kind, path).close()
    opened(kind, path, read_only=True).close()
    path.unlink()  # the side files that a reader makes are still there
    with opened(kind, path) as store:
        add(store, 1)
        assert pages(store) == expected(1)


@BOTH
def test_a_draft_that_a_killed_process_left_is_replaced(kind: str, tmp_path: Path) -> None:
    (tmp_path / "store.db.new").write_bytes(b"half of a database")
    (tmp_path / "store.db.new-wal").write_bytes(b"and of its log")
    with opened(kind, tmp_path / "store.db") as store:
        add(store, 1)
        assert pages(store) == expected(1)
    assert sorted(bytes_in(tmp_path)) == ["store.db"]


@BOTH
def test_a_place_that_cannot_hold_a_store_is_one_clear_error(kind: str, tmp_path: Path) -> None:
    (tmp_path / "file").write_bytes(b"")
    (tmp_path / "folder.db").mkdir()
    for path in (tmp_path / "file" / "store.db", tmp_path / "folder.db"):
        with pytest.raises(StoreError, match="cannot be opened"):
            opened(kind, path)


@BOTH
def test_pages_from_a_failing_source_are_not_stored(kind: str, tmp_path: Path) -> None:
    def numbers() -> list[int]:
        raise OSError("the source is gone")

    with opened(kind, tmp_path / "store.db") as store:
        add(store, 1)
        with pytest.raises(OSError, match="the source is gone"), database_of(store).writing():
            numbers()
        add(store, 2)
        assert pages(store) == expected(1, 2)


@BOTH
def test_durability_settings(kind: str, tmp_path: Path) -> None:
    with opened(kind, tmp_path / "store.db") as store:
        connection = database_of(store).connection
        assert connection.execute("PRAGMA journal_mode").fetchall() == [("wal",)]
        assert connection.execute("PRAGMA synchronous").fetchall() == [(2,)]
