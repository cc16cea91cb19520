"""Downloading a file so that it is there whole and right, or as it was before.

What has arrived lies in `<name>.part` beside its place until its checksum is found right; only then
it is put there, in one step. An attempt that is cut goes on where it ended (HTTP Range), in this
call or in a later one: always if the checksum is known, which would show two versions mixed, else
only if the server names the version by an `ETag`, which lies in `<name>.part.etag`.
"""

from __future__ import annotations

import re
import time
from collections.abc import Callable
from pathlib import Path
from urllib.parse import urlsplit

import requests
from urllib3.exceptions import HTTPError

from envs.workloads.files import file_sha256
from memrl.errors import MemrlError

ATTEMPTS = 5
"""Attempts in a row that bring nothing new, after which a download is given up."""
PAUSE_S = 0.5
"""After the first of them; twice as long after each further one, half as long after others."""
TIMEOUT_S = 30.0
"""Without a connection, or without a byte over it."""

_RETRIED = frozenset({408, 425, 429, 500, 502, 503, 504})
_BLOCK = 1 << 16
_CONTENT_RANGE = re.compile(r"bytes (\d+)-\d+/(\d+|\*)")

Show = Callable[[int, int | None], None]
"""Told the bytes that have arrived, and of how many; None where the server does not say."""


class DownloadError(MemrlError):
    """A file cannot be had from where it is published."""


class _CutError(Exception):
    """An attempt failed; another one may not."""


class _Part:
    """What has arrived of a file."""

    def __init__(self, target: Path, *, is_checked: bool) -> None:
        self.path = target.with_name(f"{target.name}.part")
        self.tag_path = target.with_name(f"{target.name}.part.etag")
        self.is_checked = is_checked
        if not (is_checked or self.tag):
            self.drop()

    @property
    def size(self) -> int:
        """Bytes."""
        return self.path.stat().st_size if self.path.is_file() else 0

    @property
    def tag(self) -> str:
        """What the server calls the version; "" where it does not."""
        return self.tag_path.read_text(encoding="utf-8") if self.tag_path.is_file() else ""

    def begin(self, tag: str) -> None:
        """Begin anew with a version of that name."""
        self.drop()
        self.path.touch()
        # A weak tag names versions that mean the same, whose bytes may differ.
        if tag and not tag.startswith("W/"):
            self.tag_path.write_text(tag, encoding="utf-8")

    def drop(self) -> None:
        """Forget all that has arrived."""
        self.path.unlink(missing_ok=True)
        self.tag_path.unlink(missing_ok=True)


def download(url: str, target: Path, sha256: str | None, show: Show) -> str:
    """Downloads a file.

    Args:
        url: where it is.
        target: where it goes; what is there is replaced when all of it has arrived.
        sha256: what it has to have; None where that is not known.
        show: told how far it is.

    Returns:
        Its sha256.

    Raises:
        DownloadError: it cannot be had, or is not what it should be; nothing is replaced then.
    """
    part = _Part(target, is_checked=sha256 is not None)
    went_on = part.size > 0
    _receive_all(url, part, target, show)
    if went_on and sha256 is not None and file_sha256(part.path) != sha256:
        part.drop()  # what was there already may have been of another version
        _receive_all(url, part, target, show)
    digest = file_sha256(part.path)
    if sha256 not in (None, digest):
        part.drop()
        raise DownloadError(
            f"{url} is not the file that is known: its sha256 is {digest} instead of {sha256}. It "
            f"was thrown away; {target} is as it was."
        )
    part.path.replace(target)
    part.drop()
    return digest


def _receive_all(url: str, part: _Part, target: Path, show: Show) -> None:
    """Try until everything is there, or too many attempts in a row have brought nothing new."""
    most, failures = part.size, 0
    while True:
        try:
            _receive(url, part, show)
            return
        except _CutError as error:
            failures = 0 if part.size > most else failures + 1
            most = max(most, part.size)
            if failures == ATTEMPTS:
                raise DownloadError(
                    f"{url} could not be downloaded in {ATTEMPTS} attempts ({error}): check the "
                    "network and try again, which goes on where it ended, or put the file at "
                    f"{target} by hand."
                ) from error
            time.sleep(PAUSE_S * 2 ** (failures - 1))


def _receive(url: str, part: _Part, show: Show) -> None:
    """One attempt; goes on behind what is there if the server can."""
    # Compressed on the way, the bytes could not be counted.
    headers = {"Accept-Encoding": "identity"}
    if part.size:
        headers["Range"] = f"bytes={part.size}-"
        if part.tag:
            headers["If-Range"] = part.tag
    try:
        with requests.get(url, headers=headers, stream=True, timeout=TIMEOUT_S) as response:
            total = _begin(url, response, part)
            if total is None or part.size < total:
                _write(response, part, total, show)
    except (requests.ConnectionError, requests.Timeout, HTTPError) as error:
        raise _CutError(f"{urlsplit(url).hostname}: {_reason(error)}") from error
    except requests.RequestException as error:
        raise DownloadError(f"{url} could not be downloaded: {_reason(error)}.") from error
    if total is not None and part.size != total:
        if part.size > total:
            part.drop()
        raise _CutError(f"{part.size:,} of {total:,} bytes arrived")


def _begin(url: str, response: requests.Response, part: _Part) -> int | None:
    """Make the part fit what the response goes on with; returns the bytes of the whole file."""
    status, said = response.status_code, f"{response.status_code} {response.reason}"
    content_range = response.headers.get("Content-Range", "")
    if status == 416 and content_range == f"bytes */{part.size}":
        return part.size  # everything was there already
    match = _CONTENT_RANGE.fullmatch(content_range)
    if status == 416 or (status == 206 and (match is None or int(match[1]) != part.size)):
        part.drop()
        raise _CutError(f"the server did not go on where it was asked to: {said}")
    if status in _RETRIED:
        raise _CutError(f"the server said {said}")
    if status not in (200, 206):
        raise DownloadError(f"{url} cannot be had: the server said {said}.")
    if status == 206 and match is not None:
        return None if match[2] == "*" else int(match[2])
    part.begin(response.headers.get("ETag", ""))
    length = response.headers.get("Content-Length", "")
    return int(length) if length.isdecimal() else None


def _write(response: requests.Response, part: _Part, total: int | None, show: Show) -> None:
    with part.path.open("ab") as stream:
        show(stream.tell(), total)
        # As it was sent: a file that is itself compressed stays so, whatever the server calls it.
        for block in response.raw.stream(_BLOCK, decode_content=False):
            stream.write(block)
            show(stream.tell(), total)


def _reason(error: BaseException) -> str:
    """What is behind the error of a library that wraps it several times, in a few words."""
    while error.__context__ is not None:
        error = error.__context__
    text = getattr(error, "strerror", None) or str(error) or type(error).__name__
    return text.strip().partition("\n")[0]
