"""Finding and reading the files of a data set below one data folder.

The data folder is the one given to a loader, or the one that the environment variable `MEMRL_DATA`
names. Below it every data set has a folder of its own (`<data folder>/locomo/...`).
"""

from __future__ import annotations

import gzip
import hashlib
import json
import os
import zlib
from collections import Counter
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path, PurePath

from envs.workloads.known_files import Version, known_files, to_fetch
from memrl.errors import MemrlError

DATA_DIR_VARIABLE = "MEMRL_DATA"


class DataFileMissingError(MemrlError, FileNotFoundError):
    """A data set is not where it was looked for."""


class DataFormatError(MemrlError, ValueError):
    """A data file is damaged or is not laid out as its data set's files are."""


@dataclass(frozen=True, slots=True)
class DataSource:
    """Where a data set is published, for messages and provenance.

    Attributes:
        folder: name of its folder below the data folder, by which `known_files` lists its files.
        published: where its files can be obtained.
        licence: under which licence.
    """

    folder: str
    published: str
    licence: str


def find_data_file(
    data_dir: str | Path | None, source: DataSource, file_names: Sequence[str]
) -> Path:
    """Returns the first of `file_names` that exists in the data set's folder.

    Args:
        data_dir: the data folder; None takes the one named by `MEMRL_DATA`.
        source: the data set.
        file_names: accepted names, best first.

    Raises:
        DataFileMissingError: no data folder is given, or none of the files is in it.
    """
    root = data_dir if data_dir is not None else os.environ.get(DATA_DIR_VARIABLE, "")
    wanted = " or ".join(f"{source.folder}/{name}" for name in file_names)
    origin = f"It is published at {source.published} under {source.licence}."
    if not str(root):
        raise DataFileMissingError(
            f"No data folder to look for {wanted} in: pass data_dir or set {DATA_DIR_VARIABLE}. "
            f"{origin}"
        )
    folder = Path(root).expanduser() / source.folder
    for name in file_names:
        if (folder / name).is_file():
            return folder / name
    fetched = to_fetch(source.folder, file_names)
    fetching = f"fetch it (python -m envs.workloads --fetch {fetched}), " if fetched else ""
    raise DataFileMissingError(
        f"Found no {wanted} below {Path(root).expanduser()}: put the file there, "
        f"{fetching}or point data_dir or {DATA_DIR_VARIABLE} at the "
        f"folder that holds it. {origin}"
    )


def read_bytes(path: Path) -> bytes:
    """Reads a file, decompressing it when its name ends in `.gz`.

    Raises:
        DataFormatError: the compressed file is damaged or cut short.
    """
    raw = path.read_bytes()
    try:
        return gzip.decompress(raw) if path.suffix == ".gz" else raw
    except (EOFError, gzip.BadGzipFile, zlib.error) as error:
        raise DataFormatError(
            f"{path} is not a whole gzip file ({error}): fetch it again."
        ) from error


def read_text_bytes(path: Path) -> bytes:
    """Reads a file of text that should be UTF-8, decompressing it when its name ends in `.gz`.

    Raises:
        DataFormatError: the compressed file is damaged or cut short, or the text is UTF-16.
    """
    raw = read_bytes(path)
    # A byte order mark, or one NUL in the first character, of which UTF-8 text has none.
    is_marked = raw[:2] in (b"\xff\xfe", b"\xfe\xff")
    if is_marked or (len(raw) > 1 and (raw[0] == 0) != (raw[1] == 0)):
        raise DataFormatError(
            f"{path} is UTF-16 text: convert it to UTF-8 (iconv -f UTF-16 -t UTF-8)."
        )
    return raw


def read_json(path: Path) -> object:
    """Reads a JSON file, decompressing it when its name ends in `.gz`.

    Raises:
        DataFormatError: the file is damaged, cut short, or not JSON.
    """
    raw = read_bytes(path)
    try:
        content: object = json.loads(raw)
    except (ValueError, RecursionError) as error:
        raise DataFormatError(f"{path} is not valid JSON ({error}): fetch it again.") from error
    return content


def read_json_lines(path: Path, repairs: Counter[str]) -> list[object]:
    """Reads a file of one JSON value a line, decompressing it when its name ends in `.gz`.

    Empty lines are skipped; lines that are no JSON, or no UTF-8, are dropped and counted.

    Raises:
        DataFormatError: the compressed file is damaged or cut short, or the text is UTF-16.
    """
    values = []
    for line in read_text_bytes(path).splitlines():
        if not line.strip():
            continue
        try:
            values.append(json.loads(line))
        except (ValueError, RecursionError):
            repairs[f"lines of {path.name} that are not JSON dropped"] += 1
    return values


def file_sha256(path: Path) -> str:
    """Returns the sha256 of a file's bytes as 64 hexadecimal digits."""
    with path.open("rb") as stream:
        return hashlib.file_digest(stream, "sha256").hexdigest()


def provenance_of(
    source: DataSource, paths: Iterable[Path], **further: object
) -> dict[str, object]:
    """Describes what a workload was read from.

    Args:
        source: the data set. paths: the files that were read.
        further: more entries.

    Returns:
        `files`: by name below the data set's folder `sha256` and `version`, see `Version`;
        `published` and `licence` of the source; the further entries.
    """
    files = {}
    for path in paths:
        sha256 = file_sha256(path)
        files[_name_below(source.folder, path)] = {
            "sha256": sha256,
            "version": file_version(path, sha256, source),
        }
    where = {"published": source.published, "licence": source.licence}
    return {"files": files, **where, **further}


def file_version(path: Path, sha256: str, source: DataSource) -> Version:
    """Returns of which version a file is; a compressed one also by what it holds.

    Args:
        path: the file. sha256: of its bytes. source: the data set it belongs to.
    """
    known = known_files(source.folder)
    if sha256 in known.official or _content_sha256(path) in known.official:
        return "official"
    return "repackaged" if sha256 in known.repackaged else "unknown"


def _content_sha256(path: Path) -> str | None:
    """Of what a whole compressed file holds."""
    if path.suffix != ".gz":
        return None
    try:
        with gzip.open(path) as stream:
            return hashlib.file_digest(stream, "sha256").hexdigest()
    except (EOFError, gzip.BadGzipFile, zlib.error):
        return None


def _name_below(folder: str, path: PurePath) -> str:
    """The path below the last folder of that name."""
    parts = path.parts
    if folder not in parts[:-1]:
        return path.name
    return "/".join(parts[len(parts) - parts[::-1].index(folder, 1) :])


def unknown_files(provenance: Mapping[str, object]) -> list[str]:
    """Names of the files in a provenance, or in one within it, that are of an unknown version."""
    parts = [provenance, *(own for own in provenance.values() if isinstance(own, Mapping))]
    files = [own["files"] for own in parts if isinstance(own.get("files"), Mapping)]
    pairs = [pair for own in files for pair in own.items()]
    return [name for name, own in pairs if own["version"] == "unknown"]
