"""An index's file, and the index for use without a store."""

from __future__ import annotations

import importlib.util
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from vector_fixtures import DIMENSION, Rows, clustered

from memrl.memory.checked_index import CheckedIndex
from memrl.memory.index_file import HEADER_BYTES
from memrl.memory.index_options import IndexKind, IndexOptions, VectorIndexError

HAS_FAISS = importlib.util.find_spec("faiss") is not None
KINDS: tuple[IndexKind, ...] = (
    ("faiss", "torch", "hnsw", "ivf", "ivf_pq") if HAS_FAISS else ("torch",)
)
PLAIN: IndexKind = "flat"
needs_faiss = pytest.mark.skipif(not HAS_FAISS, reason="FAISS is an extra")


def options_of(kind: IndexKind, **more: Any) -> IndexOptions:
    return IndexOptions(kind=kind, **{"grow_at": 300, "code_bytes": 4, **more})


def filled(
    kind: IndexKind, count: int = 400, rows: Rows | None = None
) -> tuple[CheckedIndex, Rows]:
    rows = rows or Rows()
    ids = np.arange(count) * 3
    rows.add(ids, clustered(np.random.default_rng(0), count))
    index = CheckedIndex(DIMENSION, options_of(kind), rows)
    index.add(ids, rows(ids))
    return index, rows


@pytest.mark.parametrize("kind", KINDS)
def test_a_file_gives_the_same_index(kind: IndexKind, tmp_path: Path) -> None:
    index, rows = filled(kind)
    index.remove([0, 30, 999])
    path = tmp_path / "index"
    index.save(path)
    loaded = CheckedIndex.load(path, DIMENSION, options_of(kind), rows)
    queries = clustered(np.random.default_rng(1), 20)
    for one, other in (index, loaded), (loaded, index):
        assert one.kind == other.kind
        assert one.ids.tolist() == other.ids.tolist()
        if kind != "hnsw":  # whose graph is made again without what was removed
            np.testing.assert_array_equal(one.search(queries, 7)[0], other.search(queries, 7)[0])
    new = clustered(np.random.default_rng(2), 1)
    rows.add(np.array([5]), new)
    loaded.add([5], new)
    assert loaded.search(new, 1)[0].tolist() == [[5]]
    assert [file.name for file in tmp_path.iterdir()] == ["index"]


@pytest.mark.parametrize("kind", KINDS)
@settings(max_examples=10, deadline=None)
@given(data=st.data())
def test_it_behaves_as_a_dict_of_vectors(
    kind: IndexKind, data: st.DataObject, tmp_path_factory: pytest.TempPathFactory
) -> None:
    """Adding, removing, saving and loading in any order."""
    rng = np.random.default_rng(data.draw(st.integers(0, 2**32 - 1)))
    path = tmp_path_factory.mktemp("index") / "index"
    rows = Rows()
    options = options_of(kind, grow_at=40, code_bytes=1, lists=2, effort=5.0)
    if kind == "ivf_pq":
        options = options_of(kind, grow_at=256, code_bytes=1, lists=2, effort=5.0)
    index = CheckedIndex(DIMENSION, options, rows)
    for step in data.draw(st.lists(st.sampled_from("aars"), max_size=8)):
        if step == "a":
            ids = np.setdiff1d(rng.permutation(1000)[: rng.integers(1, 150)], list(rows.by_id))
            rows.add(ids, clustered(rng, len(ids)))
            index.add(ids, rows(ids) if len(ids) else np.zeros((0, DIMENSION)))
        elif step == "r" and rows.by_id:
            gone = rng.permutation(list(rows.by_id))[: rng.integers(1, len(rows.by_id) + 1)]
            index.remove(gone)
            for key in gone.tolist():
                del rows.by_id[key]
        elif step == "s":
            index.save(path)
            index = CheckedIndex.load(path, DIMENSION, options, rows)
        assert index.ids.tolist() == sorted(rows.by_id)
        ids, cosines = index.search(clustered(rng, 2), 4)
        assert ids.shape == cosines.shape == (2, min(4, len(rows.by_id)))
        for key in list(rows.by_id)[:3]:
            found, _ = index.search(rows.by_id[key][None], 1)
            assert found[0, 0] == rows.ranked(rows.by_id[key], 1)[0]


@pytest.mark.parametrize("kind", KINDS[-1:])
@pytest.mark.parametrize(
    ("damage", "reason"),
    [
        (lambda data: data[:-1], "cut off or grown"),
        (lambda data: data[:100], "damaged"),
        (lambda data: data + b"x", "cut off or grown"),
        (lambda _: b"", "no file of a vector index"),
        (lambda _: b"SQLite format 3\0" * 500, "no file of a vector index"),
        (lambda data: data[:-9] + b"\1" + data[-8:], "checksum differs"),
        (lambda data: data.replace(b'"version": 1', b'"version": 7', 1), "newer memrl"),
        (lambda data: data[:HEADER_BYTES], "cut off or grown"),
    ],
)
def test_what_is_no_whole_file_is_refused(
    kind: IndexKind, damage: Any, reason: str, tmp_path: Path
) -> None:
    index, rows = filled(kind)
    path = tmp_path / "index"
    index.save(path)
    damaged = damage(path.read_bytes())
    path.write_bytes(damaged)
    with pytest.raises(VectorIndexError, match=reason):
        CheckedIndex.load(path, DIMENSION, options_of(kind), rows)
    assert path.read_bytes() == damaged


@needs_faiss
def test_a_file_of_another_index_is_refused(tmp_path: Path) -> None:
    index, rows = filled("ivf")
    path = tmp_path / "index"
    index.save(path)
    for options, reason in (
        (options_of("hnsw"), "of kind ivf, not hnsw"),
        (options_of("flat"), "of kind ivf, not flat"),
        (options_of("ivf", lists=3), "made with lists None, not 3"),
    ):
        with pytest.raises(VectorIndexError, match=reason):
            CheckedIndex.load(path, DIMENSION, options, rows)
    with pytest.raises(VectorIndexError, match=f"vectors of {DIMENSION} dimensions, not 5"):
        CheckedIndex.load(path, 5, options_of("ivf"), rows)
    exact, _ = filled("flat", 100)
    exact.save(path)
    assert len(CheckedIndex.load(path, DIMENSION, options_of("hnsw"))) == 100
    with pytest.raises(FileNotFoundError):
        CheckedIndex.load(tmp_path / "other", DIMENSION)


def test_a_write_that_fails_leaves_the_old_file(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    index, _ = filled(PLAIN, 10)
    path = tmp_path / "index"
    index.save(path)
    before = path.read_bytes()

    def full(_: int) -> None:
        raise OSError("No space left on device")

    monkeypatch.setattr("memrl.memory.index_file.os.fsync", full)
    index.remove([0])
    with pytest.raises(OSError, match="No space"):
        index.save(path)
    assert path.read_bytes() == before
    assert [file.name for file in tmp_path.iterdir()] == ["index"]


UNIT = clustered(np.random.default_rng(0), 2)


@pytest.mark.parametrize(
    ("call", "reason"),
    [
        (lambda index: index.add([1], UNIT[:1, :5]), rf"as \(n, {DIMENSION}\) numbers, not as"),
        (lambda index: index.add([1], UNIT[0]), rf"not as \({DIMENSION},\)"),
        (lambda index: index.add([1], UNIT[:1] * np.nan), "NaN or infinity"),
        (lambda index: index.add([1], UNIT[:1] * 0), "zero"),
        (lambda index: index.add([1], UNIT[:1] * 2), "not of length 1"),
        (lambda index: index.add([1], UNIT), "2 vectors came with 1 ids"),
        (lambda index: index.add([1, 1], UNIT), "given twice"),
        (lambda index: index.add([3, 1], UNIT), "holds id 3 already"),
        (lambda index: index.add([-1], UNIT[:1]), "not -1"),
        (lambda index: index.add([2**63], UNIT[:1]), "from 0 to"),
        (lambda index: index.remove([3, 7]), "holds no id 7: nothing was removed"),
        (lambda index: index.search(UNIT, 0), "1 vector or more, not for 0"),
        (lambda index: index.search(UNIT[:, 1:], 1), "numbers, not as"),
        (lambda index: index.search(UNIT * np.inf, 1), "NaN or infinity"),
        (lambda index: index.search(UNIT * 0, 1), "zero"),
    ],
)
def test_bad_input_is_refused(call: Any, reason: str) -> None:
    index, _ = filled(PLAIN, 10)
    with pytest.raises(VectorIndexError, match=reason):
        call(index)
    assert index.ids.tolist() == list(range(0, 30, 3))


def test_more_than_there_are_gives_all() -> None:
    index, _ = filled(PLAIN, 10)
    ids, cosines = index.search(UNIT, 50)
    assert ids.shape == cosines.shape == (2, 10)
    assert CheckedIndex(DIMENSION).search(UNIT, 5)[0].shape == (2, 0)
    assert index.search(np.zeros((0, DIMENSION)), 5)[0].shape == (0, 5)
    with pytest.raises(ValueError, match="dimension"):
        CheckedIndex(0)
