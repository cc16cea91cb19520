"""An archive under an approximate index, and the index's file beside its writer and readers."""

from __future__ import annotations

import importlib.util
import shutil
import warnings
from collections.abc import Iterator
from pathlib import Path
from unittest import mock

import pytest

from memrl.memory import growing_index, live
from memrl.memory.archival import ArchivalStore, NewEntry
from memrl.memory.database import StoreError
from memrl.memory.embedders import HashingEmbedder
from memrl.memory.index_options import ApproximateKind, IndexOptions, VectorIndexError

pytestmark = pytest.mark.skipif(
    importlib.util.find_spec("faiss") is None, reason="FAISS is an extra"
)
EMBEDDER = HashingEmbedder(16)
KINDS: tuple[ApproximateKind, ...] = ("hnsw", "ivf", "ivf_pq")
NUM_NOTES = 400


def options_of(kind: ApproximateKind) -> IndexOptions:
    return IndexOptions(kind=kind, grow_at=300, code_bytes=2, effort=5.0)


def opened(path: Path, kind: ApproximateKind, read_only: bool = False) -> ArchivalStore:
    return ArchivalStore(path, EMBEDDER, index=options_of(kind), read_only=read_only)


def notes(first: int, last: int) -> Iterator[NewEntry]:
    return (NewEntry(f"note{n * n} of page{n}", page_id=n) for n in range(first, last))


def agrees_with_exact(store: ArchivalStore, path: Path, first: int = 0) -> None:
    """Whether each page finds itself first, and no page comes that is not there."""
    with ArchivalStore(path, EMBEDDER, index="flat", read_only=True) as exact:
        for number in range(first, first + 60, 9):
            query = f"note{number * number} of page{number}"
            one, other = store.search(query, page_size=5), exact.search(query, page_size=5)
            assert one.total == other.total
            assert one.hits[0] == other.hits[0]
            assert len({hit.page_id for hit in one.hits} & {hit.page_id for hit in other.hits}) > 2


@pytest.mark.parametrize("kind", KINDS)
def test_a_store_follows_its_rows_and_reads_its_index_again(
    kind: ApproximateKind, tmp_path: Path
) -> None:
    path = tmp_path / "archive.db"
    with opened(path, kind) as store, opened(path, kind, read_only=True) as beside:
        store.extend(notes(0, NUM_NOTES))
        agrees_with_exact(store, path)
        for page in range(0, 60, 7):
            store.delete_page(page)
        store.extend(notes(NUM_NOTES, NUM_NOTES + 30))
        for some in (store, beside):
            agrees_with_exact(some, path, first=NUM_NOTES - 40)
        page_ids = [NUM_NOTES, 3, NUM_NOTES - 1]
        with ArchivalStore(path, EMBEDDER, index="torch", read_only=True) as exact:
            assert store.scores("note9", page_ids).tolist() == (
                exact.scores("note9", page_ids).tolist()
            )
    assert (tmp_path / "archive.db.index").exists()
    with (
        mock.patch.object(growing_index.GrowingIndex, "_rebuild") as rebuild,
        opened(path, kind) as store,
        opened(path, kind, read_only=True) as beside,
    ):
        store.delete_page(NUM_NOTES)
        store.extend(notes(NUM_NOTES + 30, NUM_NOTES + 60))
        for some in (store, beside):
            agrees_with_exact(some, path, first=NUM_NOTES - 30)
        assert not rebuild.called


def written(path: Path, kind: ApproximateKind = "ivf", last: int = NUM_NOTES) -> Path:
    with opened(path, kind) as store:
        store.extend(notes(0, last))
        store.search("note")
    return path.with_name(f"{path.name}.index")


@pytest.mark.parametrize("damage", ["truncated", "other type", "older", "of a copy"])
def test_a_file_that_does_not_belong_is_made_again(damage: str, tmp_path: Path) -> None:
    path = tmp_path / "archive.db"
    file = written(path)
    reason = "cut off"
    if damage == "truncated":
        file.write_bytes(file.read_bytes()[:-5])
    elif damage == "other type":
        reason = "of kind ivf, not hnsw"
    else:
        reason = "another state of the store"
        copy = tmp_path / "copy" / "archive.db"
        copy.parent.mkdir()
        for part in (path, file):
            shutil.copy(part, copy.with_name(part.name))
        with opened(copy if damage == "of a copy" else path, "ivf") as store:
            store.extend(notes(NUM_NOTES, NUM_NOTES + 50))
            store.save_index()
        shutil.copy(copy.with_name(file.name), file)
    kind: ApproximateKind = "hnsw" if damage == "other type" else "ivf"
    with opened(path, kind) as store:
        with pytest.warns(RuntimeWarning, match=f"{reason}.* is made again"):
            store.search("note9 of page3")
        agrees_with_exact(store, path)
        assert len(store.search("note9 of page3", page_size=1000).hits) == len(store)
    with opened(path, kind) as store, warnings.catch_warnings():
        warnings.simplefilter("error")
        agrees_with_exact(store, path)


def test_little_that_is_new_is_not_worth_a_file(tmp_path: Path) -> None:
    file = written(tmp_path / "archive.db")
    before = file.stat().st_mtime_ns
    with opened(tmp_path / "archive.db", "ivf") as store:
        store.extend(notes(NUM_NOTES, NUM_NOTES + 20))
        store.search("note")
    assert file.stat().st_mtime_ns == before
    with opened(tmp_path / "archive.db", "ivf") as store:
        store.extend(notes(NUM_NOTES + 20, NUM_NOTES + 60))
        store.search("note")
    assert file.stat().st_mtime_ns > before


def test_an_index_that_cannot_be_saved_is_only_a_warning(tmp_path: Path) -> None:
    with opened(tmp_path / "archive.db", "ivf") as store:
        store.extend(notes(0, NUM_NOTES))
        store.search("note")
        with (
            mock.patch("memrl.memory.index_file.os.fsync", side_effect=OSError("disk full")),
            pytest.warns(RuntimeWarning, match="not saved \\(disk full\\)"),
        ):
            store.close()
    with opened(tmp_path / "archive.db", "ivf") as store:
        assert len(store) == NUM_NOTES


def test_exact_stores_have_no_file(tmp_path: Path) -> None:
    with ArchivalStore(tmp_path / "archive.db", EMBEDDER) as store:
        store.extend(notes(0, NUM_NOTES))
        store.search("note")
    assert not (tmp_path / "archive.db.index").exists()
    with ArchivalStore(None, EMBEDDER) as store, pytest.raises(StoreError, match="has no file"):
        store.save_index()


def test_what_is_not_there_is_said_when_the_store_is_opened(tmp_path: Path) -> None:
    path = tmp_path / "archive.db"
    with pytest.raises(VectorIndexError, match="searches on a CPU only"):
        ArchivalStore(path, EMBEDDER, index=IndexOptions(kind="hnsw", device="cuda"))
    ArchivalStore(path, EMBEDDER).close()  # a refusal leaves no lock behind


def test_a_memory_is_searched_by_the_index_that_is_asked_for(tmp_path: Path) -> None:
    folder = tmp_path / "memory"
    with live.open(folder, embedder=EMBEDDER, index=options_of("hnsw")) as memory:
        memory.archival.extend(notes(0, NUM_NOTES))
        hits = memory.call("archival_memory_search", {"query": "note9 of page3"}).hits
        assert hits[0].page_id == 3
    assert (folder / "archival.sqlite.index").exists()
