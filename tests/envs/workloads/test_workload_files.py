from __future__ import annotations

import gzip
import hashlib
from collections import Counter
from pathlib import Path

import pytest

from envs.workloads import describe
from envs.workloads.files import (
    DataFileMissingError,
    DataFormatError,
    DataSource,
    file_sha256,
    find_data_file,
    provenance_of,
    read_json,
    read_json_lines,
)
from envs.workloads.known_files import KnownFiles
from memrl.documents import Document, Page, Workload

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


@pytest.mark.parametrize("encoding", ["utf-16", "utf-16-le", "utf-16-be"])
def test_lines_of_utf_16_are_refused_and_said_to_be_that(tmp_path: Path, encoding: str) -> None:
    text = '{"a": 1}\n{"b": "\u00f6"}\n'
    packed = put(tmp_path, "x.jsonl.gz", gzip.compress(text.encode(encoding)))
    with pytest.raises(DataFormatError, match=r"x\.jsonl\.gz is UTF-16 text: convert it to UTF-8"):
        read_json_lines(packed, Counter())
    assert read_json(put(tmp_path, "x.json", '{"a": 1}'.encode(encoding))) == {"a": 1}


def test_lines_of_utf_8_with_a_byte_order_mark_are_read(tmp_path: Path) -> None:
    repairs = Counter[str]()
    path = put(tmp_path, "x.jsonl", b'\xef\xbb\xbf{"a": 1}\n\0\n{"b": 2}\n')
    assert read_json_lines(path, repairs) == [{"a": 1}, {"b": 2}]
    assert repairs == {"lines of x.jsonl that are not JSON dropped": 1}


def test_file_sha256(tmp_path: Path) -> None:
    path = tmp_path / "abc"
    path.write_bytes(b"abc")
    # The test vector of FIPS 180-2, appendix B.1.
    expected = "ba7816bf8f01cfea414140de5dae2223b00361a396177a9cb410ff61f20015ad"
    assert file_sha256(path) == expected


# ---------------------------------------------------------------------- versions


def sha256(content: bytes) -> str:
    return hashlib.sha256(content).hexdigest()


@pytest.fixture
def known(monkeypatch: pytest.MonkeyPatch) -> None:
    """Of the set `b"published"` is official and a compressed part is repackaged."""
    part = gzip.compress(b"part", mtime=0)
    files = KnownFiles((), frozenset({sha256(b"published")}), frozenset({sha256(part)}))
    monkeypatch.setattr("envs.workloads.files.known_files", {"set": files}.__getitem__)


def put(folder: Path, name: str, content: bytes) -> Path:
    path = folder / "set" / name
    path.parent.mkdir(parents=True, exist_ok=True)
    path.write_bytes(content)
    return path


@pytest.mark.usefixtures("known")
@pytest.mark.parametrize(
    ("name", "content", "version"),
    [
        ("a.txt", b"published", "official"),
        ("a.txt.gz", gzip.compress(b"published", mtime=0), "official"),
        ("a.txt.gz", gzip.compress(b"part", mtime=0), "repackaged"),
        ("a.txt.gz", gzip.compress(b"part", mtime=1), "unknown"),
        ("a.txt", b"published ", "unknown"),
        ("a.txt", gzip.compress(b"published", mtime=0), "unknown"),
        ("a.txt.gz", gzip.compress(b"published", mtime=0)[:-9], "unknown"),
        ("a.txt.gz", b"published", "official"),
    ],
)
def test_a_version_is_known_by_its_hash(
    tmp_path: Path, name: str, content: bytes, version: str
) -> None:
    provenance = provenance_of(SOURCE, [put(tmp_path, name, content)])
    assert provenance == {
        "files": {name: {"sha256": sha256(content), "version": version}},
        "published": "the set's site",
        "licence": "a licence",
    }


@pytest.mark.usefixtures("known")
def test_files_of_one_name_are_told_apart_by_their_folders(tmp_path: Path) -> None:
    # The folder's name once more above it and below it.
    paths = [put(tmp_path / "set", f"{part}/x", part.encode()) for part in ("one", "two")]
    assert list(provenance_of(SOURCE, paths)["files"]) == ["one/x", "two/x"]  # type: ignore[call-overload]


@pytest.mark.usefixtures("known")
def test_an_unknown_version_is_one_line_of_the_description(tmp_path: Path) -> None:
    document = Document("d", (Page("x"),), ())

    def described(*contents: bytes) -> list[str]:
        paths = [put(tmp_path, f"{n}.txt", content) for n, content in enumerate(contents)]
        provenance = provenance_of(SOURCE, paths, options={"a": 1})
        assert provenance["options"] == {"a": 1}
        return describe(Workload("demo", (document,), provenance)).splitlines()

    assert len(described(b"published")) == 1
    *_, warning = described(b"published", b"x")
    assert warning.startswith("warning: 1.txt: not a version known by its sha256")
    *_, warning = described(*(bytes([n]) for n in range(7)))
    assert warning.startswith("warning: 0.txt, 1.txt, 2.txt, 3.txt and 3 more: not a version")
    assert len(described(*(bytes([n]) for n in range(7)))) == 2
