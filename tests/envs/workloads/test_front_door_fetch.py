"""Files are fetched to where the loaders look for them; what is there is not replaced."""

from __future__ import annotations

import gzip
import hashlib
import io
import json
import tarfile
import zipfile
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest
from file_server import Answer, FileServer, serving
from huggingface_hub import constants

from envs.workloads import download as download_module
from envs.workloads.download import DownloadError
from envs.workloads.fetch import RECORD, Fetched, chosen_files, fetch, hub_url, kept_name
from envs.workloads.files import DataSource
from envs.workloads.known_files import KnownFiles, PublishedFile

SOURCE = DataSource("set", "the set's site", "a licence")
CONTENT = b"a line\n" * 100
MEMBERS = {
    "top/part_a/x.txt": b"first",
    "top/part_a/y.txt": b"second",
    "top/part_b/deep/z.txt": b"third",
    "top/readme.md": b"not kept",
}
PATTERNS = ("part_a/*.txt", "part_b/*/*.txt")
KEPT = ("part_a/x.txt", "part_a/y.txt", "part_b/deep/z.txt")


def sha256(content: bytes) -> str:
    return hashlib.sha256(content).hexdigest()


@pytest.fixture
def server(monkeypatch: pytest.MonkeyPatch) -> Iterator[FileServer]:
    monkeypatch.setattr(download_module, "PAUSE_S", 0.0)
    monkeypatch.setenv("NO_PROXY", "*")
    with serving() as files:
        yield files


def know(
    monkeypatch: pytest.MonkeyPatch,
    *published: PublishedFile,
    repackaged: frozenset[str] = frozenset(),
) -> None:
    """Let these be the known files of the set."""
    official = frozenset(file.sha256 for file in published if file.sha256 and not file.unpack)
    known = {"set": KnownFiles(published, official, repackaged)}
    monkeypatch.setattr("envs.workloads.fetch.known_files", known.__getitem__)
    monkeypatch.setattr("envs.workloads.files.known_files", known.__getitem__)


def get(file: PublishedFile, root: Path) -> Fetched:
    def show(*shown: int | None) -> None:
        assert len(shown) == 2

    return fetch(SOURCE, file, root, show)


@pytest.fixture
def file(server: FileServer, monkeypatch: pytest.MonkeyPatch) -> PublishedFile:
    """A known file that can be fetched, in a folder of its own."""
    made = PublishedFile("sub/a.txt", server.put("/a", Answer(CONTENT)), sha256(CONTENT))
    know(monkeypatch, made, repackaged=frozenset({sha256(b"a part")}))
    return made


def put(root: Path, name: str, content: bytes) -> Path:
    path = root / "set" / name
    path.parent.mkdir(parents=True, exist_ok=True)
    path.write_bytes(content)
    return path


def contents(root: Path) -> dict[str, bytes]:
    """All files below the data set's folder but the record."""
    paths = sorted(path for path in (root / "set").rglob("*") if path.is_file())
    return {
        path.relative_to(root / "set").as_posix(): path.read_bytes()
        for path in paths
        if path.name != RECORD
    }


def record(root: Path) -> dict[str, Any]:
    found: dict[str, Any] = json.loads((root / "set" / RECORD).read_text(encoding="utf-8"))
    return found


# ---------------------------------------------------------------------- single files


def test_a_file_is_put_in_its_place_and_recorded(file: PublishedFile, tmp_path: Path) -> None:
    root = tmp_path / "not there yet"
    assert get(file, root) == Fetched("sub/a.txt", sha256(CONTENT), "fetched")
    assert contents(root) == {"sub/a.txt": CONTENT}
    assert record(root) == {"sub/a.txt": {"url": file.url, "sha256": sha256(CONTENT)}}


@pytest.mark.parametrize(
    ("name", "content"),
    [("sub/a.txt", CONTENT), ("sub/a.txt.gz", gzip.compress(CONTENT, mtime=0))],
)
def test_what_is_there_is_not_fetched_again(
    file: PublishedFile, server: FileServer, tmp_path: Path, name: str, content: bytes
) -> None:
    put(tmp_path, name, content)
    assert get(file, tmp_path) == Fetched(name, sha256(content), "there")
    assert server.asked == []


def test_a_compressed_file_of_another_version_is_no_reason(
    file: PublishedFile, tmp_path: Path
) -> None:
    put(tmp_path, "sub/a.txt.gz", gzip.compress(b"another"))
    assert get(file, tmp_path).state == "fetched"


def test_a_known_part_is_kept(file: PublishedFile, server: FileServer, tmp_path: Path) -> None:
    put(tmp_path, file.name, b"a part")
    assert get(file, tmp_path) == Fetched(file.name, sha256(b"a part"), "kept")
    assert contents(tmp_path) == {file.name: b"a part"}
    assert server.asked == []


def test_an_unknown_file_in_its_place_is_named_and_kept(
    file: PublishedFile, server: FileServer, tmp_path: Path
) -> None:
    path = put(tmp_path, file.name, b"somebody's own")
    with pytest.raises(DownloadError, match="Move it away") as caught:
        get(file, tmp_path)
    assert str(path) in str(caught.value)
    assert contents(tmp_path) == {file.name: b"somebody's own"}
    assert server.asked == []


def test_where_no_checksum_is_known_what_came_is_recorded(
    server: FileServer, monkeypatch: pytest.MonkeyPatch, tmp_path: Path
) -> None:
    file = PublishedFile("a.txt", server.put("/a", Answer(b"new")), None)
    know(monkeypatch, file)
    assert get(file, tmp_path) == Fetched("a.txt", sha256(b"new"), "fetched")
    assert record(tmp_path)["a.txt"]["sha256"] == sha256(b"new")
    # Another time nothing can tell whether it is the published one.
    assert get(file, tmp_path) == Fetched("a.txt", sha256(b"new"), "kept")


def test_a_wrong_file_leaves_nothing(
    server: FileServer, file: PublishedFile, tmp_path: Path
) -> None:
    server.put("/a", Answer(b"an error page"))
    with pytest.raises(DownloadError, match="not the file that is known"):
        get(file, tmp_path)
    assert contents(tmp_path) == {}
    assert not (tmp_path / "set" / RECORD).exists()


def test_the_record_grows_and_a_damaged_one_is_begun_anew(
    server: FileServer, monkeypatch: pytest.MonkeyPatch, tmp_path: Path
) -> None:
    files = [PublishedFile(n, server.put(f"/{n}", Answer(n.encode())), None) for n in "abc"]
    know(monkeypatch, *files)
    for file in files[:2]:
        get(file, tmp_path)
    assert set(record(tmp_path)) == {"a", "b"}
    put(tmp_path, RECORD, b"{")
    get(files[2], tmp_path)
    assert set(record(tmp_path)) == {"c"}


def test_a_folder_that_cannot_be_written_to(file: PublishedFile, tmp_path: Path) -> None:
    (tmp_path / "set").write_bytes(b"")
    with pytest.raises(DownloadError, match="cannot be written to"):
        get(file, tmp_path)


# ---------------------------------------------------------------------- archives


def tar_of(members: dict[str, bytes]) -> bytes:
    raw = io.BytesIO()
    with tarfile.open(fileobj=raw, mode="w:gz") as tar:
        for name, content in members.items():
            info = tarfile.TarInfo(name)
            info.size = len(content)
            tar.addfile(info, io.BytesIO(content))
    return raw.getvalue()


def zip_of(members: dict[str, bytes]) -> bytes:
    raw = io.BytesIO()
    with zipfile.ZipFile(raw, "w") as archive:
        archive.mkdir("top")
        for name, content in members.items():
            archive.writestr(name, content)
    return raw.getvalue()


def published_archive(
    server: FileServer, monkeypatch: pytest.MonkeyPatch, packed: bytes
) -> PublishedFile:
    url = server.put("/set.tar.gz", Answer(packed))
    file = PublishedFile("set.tar.gz", url, sha256(packed), PATTERNS)
    know(monkeypatch, file)
    return file


@pytest.mark.parametrize("pack", [tar_of, zip_of])
def test_an_archive_is_unpacked_and_removed(
    server: FileServer, monkeypatch: pytest.MonkeyPatch, tmp_path: Path, pack: Any
) -> None:
    file = published_archive(server, monkeypatch, pack(MEMBERS))
    fetched = get(file, tmp_path)
    assert (fetched.state, set(fetched.members)) == ("fetched", set(KEPT))
    assert contents(tmp_path) == {name: MEMBERS[f"top/{name}"] for name in KEPT}
    assert record(tmp_path)["set.tar.gz"]["files"]["part_a/x.txt"] == sha256(b"first")
    # Another time nothing is fetched, unless a file is missing or another one.
    assert get(file, tmp_path).state == "there"
    assert len(server.asked) == 1
    (tmp_path / "set" / "part_a" / "x.txt").unlink()
    assert get(file, tmp_path).state == "fetched"
    assert contents(tmp_path)["part_a/x.txt"] == b"first"


def test_a_file_that_differs_from_a_member_is_kept(
    server: FileServer, monkeypatch: pytest.MonkeyPatch, tmp_path: Path
) -> None:
    file = published_archive(server, monkeypatch, tar_of(MEMBERS))
    own = put(tmp_path, "part_a/y.txt", b"somebody's own")
    with pytest.raises(DownloadError, match="Nothing was replaced") as caught:
        get(file, tmp_path)
    assert str(own) in str(caught.value)
    assert set(contents(tmp_path)) == {"part_a/y.txt", "set.tar.gz"}
    assert own.read_bytes() == b"somebody's own"
    # Moved away, the archive that is there already is unpacked.
    own.unlink()
    assert get(file, tmp_path).state == "fetched"
    assert len(server.asked) == 1
    assert set(contents(tmp_path)) == set(KEPT)


def test_members_never_leave_the_folder(
    server: FileServer, monkeypatch: pytest.MonkeyPatch, tmp_path: Path
) -> None:
    evil = {"../part_a/e.txt": b"e", "/part_a/f.txt": b"f", "top/../../part_a/g.txt": b"g"}
    file = published_archive(server, monkeypatch, tar_of(MEMBERS | evil))
    get(file, tmp_path)
    assert set(contents(tmp_path)) == {*KEPT, "part_a/f.txt"}
    assert [path.name for path in tmp_path.iterdir()] == ["set"]


def test_links_in_an_archive_are_not_followed(
    server: FileServer, monkeypatch: pytest.MonkeyPatch, tmp_path: Path
) -> None:
    raw = io.BytesIO(tar_of({}))
    with tarfile.open(fileobj=raw, mode="w:gz") as tar:
        for name, content in MEMBERS.items():
            info = tarfile.TarInfo(name)
            info.size = len(content)
            tar.addfile(info, io.BytesIO(content))
        for number, kind in enumerate((tarfile.SYMTYPE, tarfile.LNKTYPE)):
            link = tarfile.TarInfo(f"part_a/link{number}.txt")
            link.type, link.linkname = kind, "/etc/passwd"
            tar.addfile(link)
    get(published_archive(server, monkeypatch, raw.getvalue()), tmp_path)
    assert set(contents(tmp_path)) == set(KEPT)


@pytest.mark.parametrize(
    ("packed", "match"),
    [
        (tar_of({"top/part_a/x.txt": b""}), "holds no part_b/"),
        (tar_of(MEMBERS)[:-30], "cannot be unpacked"),
        (b"no archive", "cannot be unpacked"),
    ],
    ids=["without part", "cut", "none"],  # a gzip holds the time: of itself it would be the name
)
def test_an_archive_that_is_none(
    server: FileServer,
    monkeypatch: pytest.MonkeyPatch,
    tmp_path: Path,
    packed: bytes,
    match: str,
) -> None:
    file = published_archive(server, monkeypatch, packed)
    with pytest.raises(DownloadError, match=match):
        get(file, tmp_path)
    assert set(contents(tmp_path)) == {"set.tar.gz"}


@pytest.mark.parametrize(
    ("member", "patterns", "name"),
    [
        ("top/a/x.txt", ["a/*.txt"], "a/x.txt"),
        ("a/x.txt", ["a/*.txt"], "a/x.txt"),
        ("top/dev.json", ["dev.json", "train.json"], "dev.json"),
        ("top/a/x.txt", ["*/*.txt", "*.txt"], "a/x.txt"),
        ("top/a/b/x.txt", ["a/*.txt"], None),
        ("__MACOSX/._dev.json", ["dev.json"], None),
        ("dev.json/other", ["dev.json"], None),
        ("a/../a/x.txt", ["a/*.txt"], None),
    ],
)
def test_the_end_of_a_members_path_says_where_it_goes(
    member: str, patterns: list[str], name: str | None
) -> None:
    assert kept_name(member, patterns) == name


# ---------------------------------------------------------------------- what is chosen


def test_files_are_chosen_by_name(monkeypatch: pytest.MonkeyPatch) -> None:
    files = (
        PublishedFile("a.json", "https://host/a.json", None),
        PublishedFile("large/b.json", "https://host/b.json", None, on_demand=True),
        PublishedFile("c.zip", "https://host/c.zip", "0" * 64, ("dev.json",)),
    )
    know(monkeypatch, *files)
    assert chosen_files(SOURCE, None) == [files[0], files[2]]
    assert chosen_files(SOURCE, "*.json") == [files[0], files[1], files[2]]
    assert chosen_files(SOURCE, "large/*") == [files[1]]
    assert chosen_files(SOURCE, "dev.json") == [files[2]]
    with pytest.raises(DownloadError, match=r"set/x\*.* set/a\.json, set/large/b\.json"):
        chosen_files(SOURCE, "x*")


HUB = "hf://datasets/owner/name@0123abc/folder/a b.json"


def test_the_hub_is_asked_under_its_own_addresses(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(constants, "HF_HUB_OFFLINE", False)
    url = hub_url(HUB)
    assert url.endswith("/datasets/owner/name/resolve/0123abc/folder/a%20b.json")
    assert url.startswith("https://")
    assert hub_url("https://host/a") == "https://host/a"


def test_the_hub_is_left_alone_where_it_is_not_to_be_used(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(constants, "HF_HUB_OFFLINE", True)
    with pytest.raises(DownloadError, match="HF_HUB_OFFLINE is set"):
        hub_url(HUB)


def test_a_file_of_the_hub(
    server: FileServer, monkeypatch: pytest.MonkeyPatch, tmp_path: Path
) -> None:
    monkeypatch.setattr(constants, "HF_HUB_OFFLINE", False)
    template = server.url("/{repo_id}/resolve/{revision}/{filename}")
    monkeypatch.setattr(constants, "HUGGINGFACE_CO_URL_TEMPLATE", template)
    server.put("/datasets/owner/name/resolve/0123abc/folder/a%20b.json", Answer(CONTENT))
    file = PublishedFile("a.json", HUB, sha256(CONTENT))
    know(monkeypatch, file)
    assert get(file, tmp_path).state == "fetched"
    assert record(tmp_path)["a.json"]["url"] == HUB
