"""The files of data sets that are known by their sha256, and where they are downloaded from.

The list is `known_files.yaml` beside this module; what its keys mean stands there.
"""

from __future__ import annotations

import functools
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path, PurePosixPath
from typing import Any, Literal
from urllib.parse import urlsplit

import yaml

Version = Literal["official", "repackaged", "unknown"]
"""`official`: the bytes that are published. `repackaged`: a known part or other form of them."""

_LIST = Path(__file__).with_name("known_files.yaml")


@dataclass(frozen=True, slots=True)
class PublishedFile:
    """A file that can be downloaded: one of a data set, or an archive of several.

    Attributes:
        name: where it goes below the data set's folder.
        url: where it is; `hf://datasets/<owner>/<name>@<revision>/<path>` for the hub.
        sha256: of its bytes; None where it is not known.
        unpack: of an archive, patterns of the members to keep; the end of their path that matches
            says where they go below the data set's folder. Empty for a file that is no archive.
        on_demand: whether it is left out unless it is asked for by name.
    """

    name: str
    url: str
    sha256: str | None
    unpack: tuple[str, ...] = ()
    on_demand: bool = False


@dataclass(frozen=True, slots=True)
class KnownFiles:
    """What is known of a data folder.

    Attributes:
        published: what can be downloaded.
        official, repackaged: sha256 of files of these versions.
    """

    published: tuple[PublishedFile, ...] = ()
    official: frozenset[str] = frozenset()
    repackaged: frozenset[str] = frozenset()


@functools.cache
def known_files(folder: str) -> KnownFiles:
    """What is known of the folder of a data set; nothing where the list does not name it."""
    groups = _listed().get(folder, ())
    hashes: dict[str, set[str]] = {"official": set(), "repackaged": set()}
    for group in groups:
        digests = {digest for digest in group["files"].values() if digest}
        hashes[group.get("version", "official")] |= digests
    return KnownFiles(
        published=tuple(file for group in groups for file in _published(group)),
        official=frozenset(hashes["official"]),
        repackaged=frozenset(hashes["repackaged"]),
    )


def to_fetch(folder: str, names: Sequence[str]) -> str | None:
    """What `--fetch` takes to download one of these files of a data set; None where nothing does.

    Args:
        folder: of the data set. names: below it, compressed or not, best first.
    """
    published = known_files(folder).published
    for name in names:
        for file in published:
            is_member = any(PurePosixPath(name).match(pattern) for pattern in file.unpack)
            if is_member or name.removesuffix(".gz") == file.name.removesuffix(".gz"):
                return f"{folder}/{file.name}" if file.on_demand else folder
    return None


@functools.cache
def _listed() -> Mapping[str, Any]:
    listed: dict[str, Any] = yaml.safe_load(_LIST.read_text(encoding="utf-8"))
    return listed


def _published(group: Mapping[str, Any]) -> Iterator[PublishedFile]:
    """The files of a group that can be downloaded."""
    url, on_demand = group.get("url"), group.get("on_demand", False)
    if url is None:
        return
    if "archive" in group:
        name = urlsplit(url).path.rpartition("/")[2]
        yield PublishedFile(name, url, group["archive"], tuple(group["unpack"]), on_demand)
        return
    for name, sha256 in group["files"].items():
        yield PublishedFile(name, url + name if url.endswith("/") else url, sha256, (), on_demand)
