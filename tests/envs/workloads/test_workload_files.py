from __future__ import annotations

import gzip
from pathlib import Path

import pytest

from envs.workloads.files import (
    DataFileMissingError,
    DataSource,
    file_sha256,
    find_data_file,
    read_json,
)

SOURCE = DataSource("set", "the set's site", "a licence")


def test_first_name_wins(tmp_path: Path) -> None:
    (tmp_path / "set").mkdir()
    (tmp_path / "set" / "b.json").write_text("1", encoding="utf-8")
    assert find_data_file(tmp_path, SOURCE, ("a.json", "b.json")).name == "b.json"
    (tmp_path / "set" / "a.json").write_text("2", encoding="utf-8")
    assert find_data_file(str(tmp_path), SOURCE, ("a.json", "b.json")).name == "a.json"


def test_a_folder_is_not_a_file(tmp_path: Path) -> None:
    (tmp_path / "set" / "a.json").mkdir(parents=True)
    with pytest.raises(DataFileMissingError, match=r"set/a\.json"):
        find_data_file(tmp_path, SOURCE, ("a.json",))


def test_read_json_by_suffix(tmp_path: Path) -> None:
    plain, packed = tmp_path / "x.json", tmp_path / "x.json.gz"
    plain.write_text('{"ö": [1]}', encoding="utf-8")
    packed.write_bytes(gzip.compress(plain.read_bytes()))
    assert read_json(plain) == read_json(packed) == {"ö": [1]}


def test_file_sha256(tmp_path: Path) -> None:
    path = tmp_path / "abc"
    path.write_bytes(b"abc")
    # The test vector of FIPS 180-2, appendix B.1.
    expected = "ba7816bf8f01cfea414140de5dae2223b00361a396177a9cb410ff61f20015ad"
    assert file_sha256(path) == expected
