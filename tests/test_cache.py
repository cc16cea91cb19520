from __future__ import annotations

import hashlib
import os
from pathlib import Path

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from memrl.cache import ArrayCache, content_key, default_cache_folder

KEY = content_key("a table")
ARRAYS = {
    "scores": np.arange(6, dtype=np.int16).reshape(2, 3),
    "mask": np.array([True, False]),
    "scalar": np.float64(0.25) * np.ones(()),
    "none": np.zeros((0, 4), dtype=np.float32),
}


pytestmark = pytest.mark.filterwarnings("error")


# ---------------------------------------------------------------------- keys


def test_content_key_is_fixed() -> None:
    # A change would orphan every cache.
    framed = b"\x03" + b"\0" * 7 + b"str" + b"\x05" + b"\0" * 7 + b"memrl"
    assert content_key("memrl") == hashlib.sha256(framed).hexdigest()


def test_content_key_separates_what_differs() -> None:
    ints = np.arange(4, dtype=np.int32)
    keys = [
        content_key(),
        content_key(""),
        content_key("", ""),
        content_key("ab", "c"),
        content_key("a", "bc"),
        content_key("abc"),
        content_key(b"abc"),
        content_key("str", "abc"),
        content_key(ints),
        content_key(ints.reshape(2, 2)),
        content_key(ints.astype(np.int64)),
        content_key(ints.astype(np.float32)),
        content_key(ints[::-1]),
        content_key(ints.tobytes()),
    ]
    assert len(set(keys)) == len(keys)


def test_content_key_ignores_byte_order_and_memory_layout() -> None:
    matrix = np.arange(6, dtype=np.int32).reshape(2, 3)
    assert content_key(matrix.astype(">i4")) == content_key(matrix)
    assert content_key(np.asfortranarray(matrix)) == content_key(matrix)


@given(st.lists(st.text(max_size=3), max_size=3), st.lists(st.text(max_size=3), max_size=3))
def test_content_key_is_injective_on_texts(left: list[str], right: list[str]) -> None:
    assert (content_key(*left) == content_key(*right)) == (left == right)


def test_content_key_refuses_other_types() -> None:
    for part in (3, None, np.array([{}], dtype=object)):
        with pytest.raises(TypeError, match="A cache key is made of"):
            content_key(part)  # type: ignore[arg-type]


def test_default_folder(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    monkeypatch.setenv("HOME", str(tmp_path))
    monkeypatch.setenv("MEMRL_CACHE", str(tmp_path / "elsewhere"))
    assert default_cache_folder() == tmp_path / "elsewhere"
    monkeypatch.delenv("MEMRL_CACHE")
    assert default_cache_folder() == tmp_path / ".cache" / "memrl"


# ---------------------------------------------------------------------- arrays


def array_file(root: Path) -> Path:
    (file,) = (root / "arrays").glob("*.safetensors")
    return file


def test_arrays_come_back_as_they_were(tmp_path: Path) -> None:
    cache = ArrayCache(tmp_path)
    assert cache.get(KEY) is None
    cache.put(KEY, ARRAYS, {"version": 3, "name": "löwe"})
    found = ArrayCache(tmp_path).get(KEY)
    assert found is not None
    assert found.metadata == {"version": 3, "name": "löwe"}
    assert found.arrays.keys() == ARRAYS.keys()
    for name, array in ARRAYS.items():
        assert found.arrays[name].dtype == array.dtype
        np.testing.assert_array_equal(found.arrays[name], array, strict=True)
    assert cache.get(content_key("another")) is None


def test_views_are_stored_by_value(tmp_path: Path) -> None:
    cache = ArrayCache(tmp_path)
    matrix = np.arange(12.0).reshape(3, 4)
    cache.put(KEY, {"transposed": matrix.T, "strided": matrix[:, ::2]})
    found = cache.get(KEY)
    assert found is not None
    np.testing.assert_array_equal(found.arrays["transposed"], matrix.T, strict=True)
    np.testing.assert_array_equal(found.arrays["strided"], matrix[:, ::2], strict=True)
    assert found.metadata == {}


def test_put_replaces_and_leaves_no_other_file(tmp_path: Path) -> None:
    cache = ArrayCache(tmp_path)
    cache.put(KEY, {"x": np.zeros(3)})
    cache.put(KEY, {"x": np.ones(3)})
    found = cache.get(KEY)
    assert found is not None
    assert found.arrays["x"].tolist() == [1, 1, 1]
    assert os.listdir(tmp_path / "arrays") == [f"{KEY}.safetensors"]


@pytest.mark.parametrize("damage", ["flipped bit", "truncated", "empty", "text"])
def test_a_damaged_file_is_moved_aside_and_missed(tmp_path: Path, damage: str) -> None:
    cache = ArrayCache(tmp_path)
    other = content_key("another")
    cache.put(KEY, ARRAYS)
    file = array_file(tmp_path)
    cache.put(other, ARRAYS)
    content = bytearray(file.read_bytes())
    if damage == "flipped bit":
        content[-1] ^= 1
    cut = {"truncated": content[:-7], "empty": bytearray(), "text": bytearray(b"not a tensor")}
    broken = cut.get(damage, content)
    for count in (1, 2):
        file.write_bytes(broken)
        with pytest.warns(RuntimeWarning, match="is damaged"):
            assert cache.get(KEY) is None
        assert not file.exists()
        assert len(list((tmp_path / "arrays").glob("*.damaged"))) == count
    assert cache.get(KEY) is None
    assert cache.get(other) is not None
    cache.put(KEY, ARRAYS)
    assert cache.get(KEY) is not None


def test_changed_metadata_is_damage(tmp_path: Path) -> None:
    cache = ArrayCache(tmp_path)
    cache.put(KEY, ARRAYS, {"seed": 1})
    file = array_file(tmp_path)
    file.write_bytes(file.read_bytes().replace(b'seed\\": 1', b'seed\\": 2'))
    with pytest.warns(RuntimeWarning, match="checksum"):
        assert cache.get(KEY) is None


def test_what_cannot_be_cached_is_refused(tmp_path: Path) -> None:
    cache = ArrayCache(tmp_path)
    for key in ("", "../../etc/passwd", KEY.upper(), KEY[:-1], KEY + "\n"):
        with pytest.raises(ValueError, match="no cache key"):
            cache.put(key, ARRAYS)
        with pytest.raises(ValueError, match="no cache key"):
            cache.get(key)
    for array in (np.array(["text"]), np.array([{}], dtype=object)):
        with pytest.raises(ValueError, match="cannot be cached"):
            cache.put(KEY, {"x": array})
    with pytest.raises(TypeError):
        cache.put(KEY, ARRAYS, {"path": tmp_path})
    assert not (tmp_path / "arrays").exists()


def test_a_failed_write_leaves_the_old_file(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    cache = ArrayCache(tmp_path)
    cache.put(KEY, {"x": np.zeros(3)})

    def disk_full(*_: object) -> None:
        raise OSError(28, "No space left on device")

    monkeypatch.setattr("os.replace", disk_full)
    with pytest.warns(RuntimeWarning, match="No space left on device"):
        cache.put(KEY, {"x": np.ones(3)})
    found = cache.get(KEY)
    assert found is not None
    assert found.arrays["x"].tolist() == [0, 0, 0]
    assert os.listdir(tmp_path / "arrays") == [f"{KEY}.safetensors"]


def test_an_unusable_folder_means_no_cache_and_one_warning(tmp_path: Path) -> None:
    file = tmp_path / "file"
    file.write_text("in the way")
    cache = ArrayCache(file)
    with pytest.warns(RuntimeWarning, match="working without"):
        cache.put(KEY, ARRAYS)
    # A second warning would be an error.
    cache.put(KEY, ARRAYS)
    assert cache.get(KEY) is None


@pytest.mark.skipif(os.geteuid() == 0, reason="root may write everywhere")
def test_a_read_only_folder_can_be_read(tmp_path: Path) -> None:
    cache = ArrayCache(tmp_path)
    cache.put(KEY, ARRAYS)
    (tmp_path / "arrays").chmod(0o500)
    assert cache.get(KEY) is not None
    with pytest.warns(RuntimeWarning, match="working without"):
        cache.put(KEY, ARRAYS)
