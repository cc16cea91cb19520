from __future__ import annotations

import multiprocessing
import os
import sqlite3
import threading
from pathlib import Path

import numpy as np
import numpy.typing as npt
import pytest

from memrl.cache import EmbeddingCache

pytestmark = pytest.mark.filterwarnings("error")


def vectors(num: int, seed: int = 0) -> npt.NDArray[np.float32]:
    return np.random.default_rng(seed).normal(size=(num, 5)).astype(np.float32)


def database(root: Path) -> Path:
    return root / "embeddings.sqlite"


def test_vectors_come_back_bit_by_bit(tmp_path: Path) -> None:
    cache = EmbeddingCache(tmp_path)
    texts = [f"text {i}" for i in range(1200)] + ["", "'; DROP TABLE embeddings; --", "\ud800", "é"]
    made = vectors(len(texts))
    cache.put_many("model", texts[:700], made[:700])
    cache.put_many("model", texts[700:], made[700:])
    found = EmbeddingCache(tmp_path).get_many("model", [*texts, "unknown", texts[0]])
    assert found.keys() == set(texts)
    np.testing.assert_array_equal(np.stack([found[text] for text in texts]), made, strict=True)
    assert cache.get_many("other model", texts) == {}
    assert cache.get_many("model", []) == {}


def test_a_text_may_be_stored_again(tmp_path: Path) -> None:
    cache = EmbeddingCache(tmp_path)
    for value in (1, 2):
        cache.put_many("model", ["text"], np.full((1, 2), value, dtype=np.float32))
    assert cache.get_many("model", ["text"])["text"].tolist() == [2, 2]
    with pytest.raises(ValueError, match="zip"):
        cache.put_many("model", ["a", "b"], vectors(1))


def test_a_damaged_vector_is_missed_alone(tmp_path: Path) -> None:
    cache = EmbeddingCache(tmp_path)
    cache.put_many("model", ["good", "bad"], vectors(2))
    with sqlite3.connect(database(tmp_path)) as connection:
        connection.execute("UPDATE embeddings SET vector = zeroblob(20) WHERE rowid = 2")
    assert cache.get_many("model", ["good", "bad"]).keys() == {"good"}
    cache.put_many("model", ["bad"], vectors(1))
    assert cache.get_many("model", ["good", "bad"]).keys() == {"good", "bad"}


@pytest.mark.parametrize("damage", ["text", "overwritten pages", "truncated"])
@pytest.mark.parametrize("first_call", ["get", "put"])
def test_a_damaged_database_is_moved_aside(tmp_path: Path, damage: str, first_call: str) -> None:
    cache = EmbeddingCache(tmp_path)
    texts = [f"text {i}" for i in range(2000)]
    cache.put_many("model", texts, vectors(2000))
    content = database(tmp_path).read_bytes()
    middle = 4096 + (len(content) - 8192) // 2
    broken = {
        "text": b"this is no database at all" * 40,
        "overwritten pages": content[:4096] + b"\xff" * (len(content) - 4096),
        "truncated": content[:middle],
    }[damage]
    database(tmp_path).write_bytes(broken)
    journal = tmp_path / "embeddings.sqlite-journal"
    journal.write_bytes(b"\0" * 1000)  # what a process that was killed may leave behind
    if first_call == "get":
        with pytest.warns(RuntimeWarning, match="is damaged"):
            cache.get_many("model", texts)
    else:
        with pytest.warns(RuntimeWarning, match="is damaged"):
            cache.put_many("model", texts, vectors(2000))
    moved = tmp_path / "embeddings.sqlite.damaged"
    assert moved.read_bytes()[:26] == broken[:26]
    assert not journal.exists()
    cache.put_many("model", texts, vectors(2000))
    assert len(cache.get_many("model", texts)) == 2000


def test_a_foreign_table_of_that_name_is_left_alone(tmp_path: Path) -> None:
    with sqlite3.connect(database(tmp_path)) as connection:
        connection.execute("CREATE TABLE embeddings (other INTEGER)")
    cache = EmbeddingCache(tmp_path)
    with pytest.warns(RuntimeWarning, match="working without"):
        assert cache.get_many("model", ["text"]) == {}
    assert database(tmp_path).exists()
    assert not list(tmp_path.glob("*.damaged"))


def test_an_unusable_folder_means_no_cache_and_one_warning(tmp_path: Path) -> None:
    file = tmp_path / "file"
    file.write_text("in the way")
    cache = EmbeddingCache(file)
    with pytest.warns(RuntimeWarning, match="Set MEMRL_CACHE"):
        cache.put_many("model", ["text"], vectors(1))
    # A second warning would be an error.
    assert cache.get_many("model", ["text"]) == {}


@pytest.mark.skipif(os.geteuid() == 0, reason="root may write everywhere")
def test_a_read_only_folder_can_be_read(tmp_path: Path) -> None:
    cache = EmbeddingCache(tmp_path)
    cache.put_many("model", ["text"], vectors(1))
    database(tmp_path).chmod(0o400)
    tmp_path.chmod(0o500)
    assert cache.get_many("model", ["text"]).keys() == {"text"}
    with pytest.warns(RuntimeWarning, match="working without"):
        cache.put_many("model", ["more"], vectors(1))
    tmp_path.chmod(0o700)


def test_a_writer_waits_for_another_one(tmp_path: Path) -> None:
    cache = EmbeddingCache(tmp_path)
    cache.put_many("model", ["first"], vectors(1))
    other = sqlite3.connect(database(tmp_path), check_same_thread=False, isolation_level=None)
    other.execute("BEGIN EXCLUSIVE")
    release = threading.Timer(0.3, other.rollback)
    release.start()
    cache.put_many("model", ["second"], vectors(1))
    release.join()
    other.close()
    assert cache.get_many("model", ["first", "second"]).keys() == {"first", "second"}


def _write(root: Path, worker: int) -> None:
    cache = EmbeddingCache(root)
    for batch in range(10):
        texts = [f"{worker} {batch} {i}" for i in range(20)]
        cache.put_many("model", [*texts, "shared"], vectors(21, seed=worker * 10 + batch))
        if len(cache.get_many("model", texts)) != 20:
            raise AssertionError("a vector that was just stored is missing")


def test_processes_share_a_database(tmp_path: Path) -> None:
    context = multiprocessing.get_context("spawn")
    workers = [context.Process(target=_write, args=(tmp_path, worker)) for worker in range(3)]
    for process in workers:
        process.start()
    for process in workers:
        process.join()
    assert [process.exitcode for process in workers] == [0, 0, 0]
    texts = [f"{w} {b} {i}" for w in range(3) for b in range(10) for i in range(20)]
    found = EmbeddingCache(tmp_path).get_many("model", [*texts, "shared"])
    assert len(found) == 601
    np.testing.assert_array_equal(found["2 9 0"], vectors(21, seed=29)[0])
