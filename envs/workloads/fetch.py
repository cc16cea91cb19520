"""Fetching the files of a data set into the layout that its loader accepts.

What comes is checked against the sha256 in `known_files.yaml`. Where none is known, nothing can be
checked; the sha256 of what came is written to `fetched.json` in the data set's folder, as that of
every fetched file is. Files that are there are never replaced by others.
"""

from __future__ import annotations

import json
import re
import shutil
import tarfile
import tempfile
import zipfile
import zlib
from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from fnmatch import fnmatchcase
from pathlib import Path, PurePosixPath
from typing import IO, Any, Literal

from envs.workloads.download import DownloadError, Show, download
from envs.workloads.files import DataSource, file_sha256, file_version
from envs.workloads.known_files import PublishedFile, known_files
from memrl.run_files import replace_text, strict_json

RECORD = "fetched.json"
"""Name of the file that says where the files of a folder were fetched, and their sha256."""

_HUB = re.compile(r"hf://datasets/([^@]+)@([^/]+)/(.+)")


@dataclass(frozen=True, slots=True)
class Fetched:
    """What became of a file that was to be fetched.

    Attributes:
        name: below the data set's folder.
        sha256: of the file, or of the archive it came in.
        state: `fetched`; `there` already; or `kept`: another version is there.
        members: of an archive, the names of the files that it held.
    """

    name: str
    sha256: str
    state: Literal["fetched", "there", "kept"]
    members: tuple[str, ...] = ()


def chosen_files(source: DataSource, pattern: str | None) -> list[PublishedFile]:
    """The files of a data set to fetch.

    Args:
        source: the data set.
        pattern: of their names, those of an archive's members included; None for all but those that
            are fetched on demand only.

    Raises:
        DownloadError: no file has such a name.
    """
    published = known_files(source.folder).published
    if pattern is None:
        return [file for file in published if not file.on_demand]
    chosen = [
        file
        for file in published
        if any(fnmatchcase(name, pattern) for name in (file.name, *file.unpack))
    ]
    if not chosen:
        names = ", ".join(f"{source.folder}/{file.name}" for file in published)
        raise DownloadError(f"No file {source.folder}/{pattern} can be fetched; there are {names}.")
    return chosen


def fetch(source: DataSource, file: PublishedFile, root: Path, show: Show) -> Fetched:
    """Fetches a file, unless it is there.

    Args:
        source: the data set. file: one of its files. root: the data folder.
        show: told how far the download is.

    Raises:
        DownloadError: it cannot be had or is not what it should be, or another file of an unknown
            version is in its place.
    """
    folder = root / source.folder
    try:
        (folder / file.name).parent.mkdir(parents=True, exist_ok=True)
        if file.unpack:
            return _fetch_archive(folder, file, show)
        return _present(source, folder, file) or _fetch_file(folder, file, show)
    except OSError as error:
        raise DownloadError(f"{folder} cannot be written to ({error}): make room.") from error


def hub_url(url: str) -> str:
    """The address of a file on the hub (`PublishedFile.url`); other addresses stay as they are.

    Raises:
        DownloadError: the hub is not to be used (HF_HUB_OFFLINE).
    """
    match = _HUB.fullmatch(url)
    if match is None:
        return url
    # Imported here: it takes as long as all the rest, and a listing needs it not.
    from huggingface_hub import constants, hf_hub_url

    if constants.HF_HUB_OFFLINE:
        raise DownloadError(f"{url} is on the hub, and HF_HUB_OFFLINE is set: unset it to fetch.")
    repository, revision, name = match.groups()
    return hf_hub_url(repository, name, repo_type="dataset", revision=revision)


# ---------------------------------------------------------------------- single files


def _present(source: DataSource, folder: Path, file: PublishedFile) -> Fetched | None:
    """What is there instead of fetching; a compressed copy will do."""
    packed = folder / f"{file.name}.gz"
    if packed.is_file():
        sha256 = file_sha256(packed)
        if file_version(packed, sha256, source) == "official":
            return Fetched(f"{file.name}.gz", sha256, "there")
    path = folder / file.name
    if not path.is_file():
        return None
    sha256 = file_sha256(path)
    version = file_version(path, sha256, source)
    if version == "official":
        return Fetched(file.name, sha256, "there")
    if file.sha256 is None or version == "repackaged":
        return Fetched(file.name, sha256, "kept")
    raise DownloadError(
        f"{path} is there, and is not the published file: its sha256 is {sha256} instead of "
        f"{file.sha256}. Move it away to fetch that."
    )


def _fetch_file(folder: Path, file: PublishedFile, show: Show) -> Fetched:
    sha256 = download(hub_url(file.url), folder / file.name, file.sha256, show)
    _record(folder, file.name, {"url": file.url, "sha256": sha256})
    return Fetched(file.name, sha256, "fetched")


def _record(folder: Path, name: str, entry: dict[str, Any]) -> None:
    replace_text(folder / RECORD, strict_json(_recorded(folder) | {name: entry}, indent=2) + "\n")


def _recorded(folder: Path) -> dict[str, Any]:
    """What was fetched before; nothing where the record is absent or damaged."""
    try:
        record = json.loads((folder / RECORD).read_bytes())
    except (FileNotFoundError, ValueError):
        return {}
    return record if isinstance(record, dict) else {}


# ---------------------------------------------------------------------- archives


def _fetch_archive(folder: Path, file: PublishedFile, show: Show) -> Fetched:
    """Fetch an archive, put the members to keep in their places, and remove it."""
    assert file.sha256 is not None  # the list knows that of every archive
    members = _unpacked_before(folder, file)
    if members:
        return Fetched(file.name, file.sha256, "there", tuple(members))
    path = folder / file.name
    if not path.is_file() or file_sha256(path) != file.sha256:
        download(hub_url(file.url), path, file.sha256, show)
    with tempfile.TemporaryDirectory(prefix=".unpacked-", dir=folder) as scratch:
        hashes = {name: file_sha256(Path(scratch) / name) for name in _unpack(path, file, scratch)}
        for name, sha256 in hashes.items():
            place = folder / name
            if place.exists() and (not place.is_file() or file_sha256(place) != sha256):
                raise DownloadError(
                    f"{place} is there, and is not what {file.name} holds: move it away and fetch "
                    "again. Nothing was replaced."
                )
        for name in hashes:
            (folder / name).parent.mkdir(parents=True, exist_ok=True)
            (Path(scratch) / name).replace(folder / name)
    _record(folder, file.name, {"url": file.url, "sha256": file.sha256, "files": hashes})
    path.unlink()
    return Fetched(file.name, file.sha256, "fetched", tuple(hashes))


def _unpacked_before(folder: Path, file: PublishedFile) -> list[str]:
    """Names of the members that an earlier call put in their places, if all are as they were."""
    entry = _recorded(folder).get(file.name)
    if not isinstance(entry, dict) or entry.get("sha256") != file.sha256:
        return []
    hashes = entry.get("files", {})
    is_whole = all(
        (folder / name).is_file() and file_sha256(folder / name) == sha256
        for name, sha256 in hashes.items()
    )
    return list(hashes) if is_whole else []


def _unpack(path: Path, file: PublishedFile, scratch: str) -> list[str]:
    """Unpack the members to keep; returns where they lie below the scratch folder."""
    names = []
    try:
        for member, stream in _members(path):
            name = kept_name(member, file.unpack)
            if name is None:
                continue
            place = Path(scratch) / name
            place.parent.mkdir(parents=True, exist_ok=True)
            with stream, place.open("wb") as copy:
                shutil.copyfileobj(stream, copy)
            names.append(name)
    except (tarfile.TarError, zipfile.BadZipFile, EOFError, zlib.error) as error:
        raise DownloadError(f"{path} cannot be unpacked ({error}): remove it.") from error
    missing = [p for p in file.unpack if not any(kept_name(name, [p]) for name in names)]
    if missing:
        raise DownloadError(f"{path} holds no {' and no '.join(missing)}.")
    return names


def _members(path: Path) -> Iterator[tuple[str, IO[bytes]]]:
    """Names and contents of the plain files of an archive."""
    if zipfile.is_zipfile(path):
        with zipfile.ZipFile(path) as archive:
            for info in archive.infolist():
                if not info.is_dir():
                    yield info.filename, archive.open(info)
        return
    with tarfile.open(path) as tar:
        for member in tar:
            stream = tar.extractfile(member) if member.isreg() else None
            if stream is not None:
                yield member.name, stream


def kept_name(member: str, patterns: Sequence[str]) -> str | None:
    """The longest end of a member's path that one of the patterns matches, part by part."""
    parts = PurePosixPath(member).parts
    if ".." in parts:
        return None
    for start in range(len(parts)):
        for pattern in patterns:
            wanted = PurePosixPath(pattern).parts
            if len(wanted) == len(parts) - start and all(map(fnmatchcase, parts[start:], wanted)):
                return "/".join(parts[start:])
    return None
