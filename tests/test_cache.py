from __future__ import annotations

from pathlib import Path

import pytest

from memrl.cache import default_cache_folder, move_aside


def test_default_folder(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    monkeypatch.setenv("HOME", str(tmp_path))
    monkeypatch.setenv("MEMRL_CACHE", str(tmp_path / "elsewhere"))
    assert default_cache_folder() == tmp_path / "elsewhere"
    monkeypatch.delenv("MEMRL_CACHE")
    assert default_cache_folder() == tmp_path / ".cache" / "memrl"


def test_damaged_files_are_kept_side_by_side(tmp_path: Path) -> None:
    path = tmp_path / "table.safetensors"
    for content in ("first", "second"):
        path.write_text(content)
        with pytest.warns(RuntimeWarning, match="is damaged .*moved to"):
            move_aside(path, "a reason")
    assert not path.exists()
    assert sorted(file.read_text() for file in tmp_path.iterdir()) == ["first", "second"]


def test_a_file_that_another_process_has_moved_is_no_error(tmp_path: Path) -> None:
    with pytest.warns(RuntimeWarning, match="is damaged"):
        move_aside(tmp_path / "gone", "a reason")
    assert list(tmp_path.iterdir()) == []
