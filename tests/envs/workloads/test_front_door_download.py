"""A download ends with the whole, right file, or with what was there before."""

from __future__ import annotations

import gzip
import hashlib
import socket
from collections.abc import Iterator
from pathlib import Path

import pytest
from file_server import Answer, FileServer, serving

from envs.workloads import download as download_module
from envs.workloads.download import ATTEMPTS, DownloadError, download

CONTENT = bytes(range(256)) * 1000
SHA256 = hashlib.sha256(CONTENT).hexdigest()
OLD = b"what was there before"


@pytest.fixture
def server() -> Iterator[FileServer]:
    with serving() as files:
        yield files


@pytest.fixture(autouse=True)
def no_pauses(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(download_module, "PAUSE_S", 0.0)
    # A proxy of the machine that runs the tests is not for them to use.
    monkeypatch.setenv("NO_PROXY", "*")


@pytest.fixture
def target(tmp_path: Path) -> Path:
    path = tmp_path / "file.bin"
    path.write_bytes(OLD)
    return path


def fetch(url: str, target: Path, sha256: str | None = SHA256) -> tuple[str, list[int]]:
    """The sha256, and how many bytes were there each time that progress was shown."""
    shown: list[int] = []
    totals: set[int | None] = set()

    def show(done: int, total: int | None) -> None:
        shown.append(done)
        totals.add(total)

    digest = download(url, target, sha256, show)
    assert totals <= {None, len(target.read_bytes())}
    return digest, shown


def refused(url: str, target: Path, match: str, sha256: str | None = SHA256) -> str:
    """The message with which a download fails; what was there is still there."""
    with pytest.raises(DownloadError, match=match) as caught:
        fetch(url, target, sha256)
    message = str(caught.value)
    assert "\n" not in message
    assert target.read_bytes() == OLD
    return message


def is_alone(target: Path) -> bool:
    return list(target.parent.iterdir()) == [target]


@pytest.mark.parametrize("sha256", [SHA256, None])
def test_a_whole_file(server: FileServer, target: Path, sha256: str | None) -> None:
    digest, shown = fetch(server.put("/file", Answer(CONTENT)), target, sha256)
    assert digest == SHA256
    assert target.read_bytes() == CONTENT
    assert is_alone(target)
    assert (shown[0], shown[-1]) == (0, len(CONTENT))
    assert server.ranges == [""]


@pytest.mark.parametrize("length", [None, -1])
def test_an_empty_file_and_one_of_unstated_length(
    server: FileServer, target: Path, length: int | None
) -> None:
    fetch(server.put("/file", Answer(CONTENT, length=length)), target)
    assert target.read_bytes() == CONTENT
    fetch(server.put("/file", Answer(b"", length=length)), target, None)
    assert target.read_bytes() == b""
    assert is_alone(target)


def test_a_cut_connection_goes_on_where_it_ended(server: FileServer, target: Path) -> None:
    cuts = [Answer(CONTENT, sends=100_000), Answer(CONTENT, sends=50_000)]
    _, shown = fetch(server.put("/file", *cuts, Answer(CONTENT)), target)
    assert server.ranges == ["", "bytes=100000-", "bytes=150000-"]
    assert target.read_bytes() == CONTENT
    assert is_alone(target)
    assert shown == sorted(shown)


def test_a_server_that_sends_less_than_it_is_asked_for(server: FileServer, target: Path) -> None:
    little = Answer(CONTENT, sends=1000, length=1000)
    fetch(server.put("/file", Answer(CONTENT, sends=10), *[little] * 8, Answer(CONTENT)), target)
    assert server.ranges[1:4] == ["bytes=10-", "bytes=1010-", "bytes=2010-"]
    assert target.read_bytes() == CONTENT


def test_a_later_call_goes_on_where_an_earlier_one_ended(server: FileServer, target: Path) -> None:
    url = server.put("/file", Answer(CONTENT, sends=1000), Answer(status=503))
    assert "goes on where it ended" in refused(url, target, "503")
    server.put("/file", Answer(CONTENT))
    fetch(url, target)
    assert server.ranges[-1] == "bytes=1000-"
    assert target.read_bytes() == CONTENT
    assert is_alone(target)


def test_what_had_arrived_whole_is_not_fetched_again(server: FileServer, target: Path) -> None:
    Path(f"{target}.part").write_bytes(CONTENT)
    fetch(server.put("/file", Answer(CONTENT)), target)
    assert server.ranges == [f"bytes={len(CONTENT)}-"]
    assert target.read_bytes() == CONTENT


def test_a_server_without_ranges_starts_anew(server: FileServer, target: Path) -> None:
    cut = Answer(CONTENT, sends=100_000, has_ranges=False)
    fetch(server.put("/file", cut, Answer(CONTENT, has_ranges=False)), target)
    assert server.ranges == ["", "bytes=100000-"]
    assert target.read_bytes() == CONTENT


@pytest.mark.parametrize("content_range", ["bytes 5-9/10", "bytes */*", "", "lines 1-2/3"])
def test_a_server_that_goes_on_elsewhere_is_asked_for_all(
    server: FileServer, target: Path, content_range: str
) -> None:
    wrong = Answer(CONTENT, headers={"Content-Range": content_range})
    fetch(server.put("/file", Answer(CONTENT, sends=10), wrong, Answer(CONTENT)), target)
    assert server.ranges == ["", "bytes=10-", ""]
    assert target.read_bytes() == CONTENT


def test_more_than_the_whole_file_had_arrived(server: FileServer, target: Path) -> None:
    Path(f"{target}.part").write_bytes(CONTENT + b"more")
    fetch(server.put("/file", Answer(CONTENT)), target)
    assert server.ranges == [f"bytes={len(CONTENT) + 4}-", ""]
    assert target.read_bytes() == CONTENT


def test_what_had_arrived_of_another_version_is_thrown_away(
    server: FileServer, target: Path
) -> None:
    Path(f"{target}.part").write_bytes(b"x" * 1000)
    fetch(server.put("/file", Answer(CONTENT)), target)
    assert server.ranges == ["bytes=1000-", ""]
    assert target.read_bytes() == CONTENT


def test_a_wrong_checksum_is_refused_and_nothing_is_lost(server: FileServer, target: Path) -> None:
    wrong = CONTENT[:-1] + b"!"
    message = refused(server.put("/file", Answer(wrong)), target, "not the file that is known")
    assert hashlib.sha256(wrong).hexdigest() in message
    assert SHA256 in message
    assert is_alone(target)
    assert len(server.asked) == 1


@pytest.mark.parametrize("tag", ["", 'W/"1"'])
def test_without_checksum_and_version_nothing_is_put_together(
    server: FileServer, target: Path, tag: str
) -> None:
    url = server.put("/file", Answer(CONTENT, sends=10, tag=tag), Answer(status=500))
    refused(url, target, "500", sha256=None)
    server.put("/file", Answer(CONTENT[::-1], tag=tag))
    assert fetch(url, target, None)[0] == hashlib.sha256(CONTENT[::-1]).hexdigest()
    assert server.ranges[-1] == ""


@pytest.mark.parametrize(("tag", "content"), [('"1"', CONTENT), ('"2"', CONTENT[::-1])])
def test_without_checksum_the_server_names_the_version(
    server: FileServer, target: Path, tag: str, content: bytes
) -> None:
    url = server.put("/file", Answer(CONTENT, sends=10, tag='"1"'), Answer(status=500))
    refused(url, target, "500", sha256=None)
    server.put("/file", Answer(content, tag=tag))
    fetch(url, target, None)
    assert server.asked[-1] == ("/file", "bytes=10-", '"1"')
    assert target.read_bytes() == content
    assert is_alone(target)


def test_a_missing_file_is_not_asked_for_twice(server: FileServer, target: Path) -> None:
    url = server.url("/nowhere")
    assert url in refused(url, target, "404 Not Found")
    assert len(server.asked) == 1
    assert is_alone(target)


@pytest.mark.parametrize("status", [408, 429, 500, 502, 503, 504])
def test_a_busy_server_is_asked_again(server: FileServer, target: Path, status: int) -> None:
    busy = [Answer(status=status)] * (ATTEMPTS - 1)
    fetch(server.put("/file", *busy, Answer(CONTENT)), target)
    assert target.read_bytes() == CONTENT
    server.asked.clear()
    target.write_bytes(OLD)
    refused(server.put("/file", Answer(status=status)), target, str(status))
    assert len(server.asked) == ATTEMPTS


def test_attempts_that_bring_something_new_count_as_none(server: FileServer, target: Path) -> None:
    cuts = [Answer(CONTENT, sends=1000)] * (3 * ATTEMPTS)
    fetch(server.put("/file", *cuts, Answer(CONTENT)), target)
    assert target.read_bytes() == CONTENT


def test_a_redirect_is_followed_with_the_range(server: FileServer, target: Path) -> None:
    server.put("/moved", Answer(CONTENT, sends=10), Answer(CONTENT))
    url = server.put("/file", Answer(status=302, headers={"Location": server.url("/moved")}))
    fetch(url, target)
    assert target.read_bytes() == CONTENT
    assert [(path, asked) for path, asked, _ in server.asked] == [
        *(("/file", ""), ("/moved", "")),
        *(("/file", "bytes=10-"), ("/moved", "bytes=10-")),
    ]


def test_a_circle_of_redirects(server: FileServer, target: Path) -> None:
    url = server.put("/file", Answer(status=302, headers={"Location": "/file"}))
    refused(url, target, "redirect")


def test_a_server_that_promises_more_than_it_sends(server: FileServer, target: Path) -> None:
    url = server.put("/file", Answer(CONTENT, length=len(CONTENT) + 5, has_ranges=False))
    refused(url, target, f"{ATTEMPTS} attempts")
    # One attempt brings all there is; the others bring it once more, which is nothing new.
    assert len(server.asked) == ATTEMPTS + 1


def test_a_server_that_promises_less_than_it_sends(server: FileServer, target: Path) -> None:
    url = server.put("/file", Answer(CONTENT, length=len(CONTENT) - 5))
    refused(url, target, "not the file that is known")


def test_what_is_called_compressed_stays_as_it_was_sent(server: FileServer, target: Path) -> None:
    packed = gzip.compress(CONTENT)
    url = server.put("/file.gz", Answer(packed, headers={"Content-Encoding": "gzip"}))
    fetch(url, target, hashlib.sha256(packed).hexdigest())
    assert target.read_bytes() == packed


def test_nothing_is_compressed_on_the_way(server: FileServer, target: Path) -> None:
    fetch(server.put("/file", Answer(CONTENT, compresses=True)), target)
    assert target.read_bytes() == CONTENT


def test_nobody_answers(target: Path) -> None:
    with socket.socket() as probe:
        probe.bind(("127.0.0.1", 0))
        port = probe.getsockname()[1]
    message = refused(f"http://127.0.0.1:{port}/file", target, "Connection refused")
    assert f"put the file at {target} by hand" in message
    assert is_alone(target)


def test_an_unknown_host(target: Path) -> None:
    message = refused("http://no-such-host.invalid/file", target, "could not be downloaded")
    assert "no-such-host.invalid: " in message


def test_a_server_that_falls_silent(target: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(download_module, "TIMEOUT_S", 0.05)
    with socket.socket() as silent:
        silent.bind(("127.0.0.1", 0))
        silent.listen()
        url = f"http://127.0.0.1:{silent.getsockname()[1]}/file"
        refused(url, target, "timed out")


def test_an_address_that_is_none(target: Path) -> None:
    refused("nowhere", target, "could not be downloaded")
