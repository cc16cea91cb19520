"""Traces of block and object caches: oracleGeneral, the text of the LIRS authors, CSV.

    oracleGeneral  24 bytes a request, little endian: uint32 time, uint64 id, uint32 size, int64
                   place of the next request of the same id, from 0 or from 1, -1 for none
                   (libCacheSim); `.oracleGeneral.bin`
    LIRS           one block number a line, lines of `*` are breakpoints and no requests; `.trace`
    CSV            a header that names the columns; those of the page and of its size are found by
                   their usual names; `.csv`

Each also compressed as `.gz`. Every request counts as a read. Pages get numbers of their own, by
first request, so that ids may be anything: numbers of any length, or any text.
"""

from __future__ import annotations

import csv
from collections import Counter
from collections.abc import Callable, Iterable, Sequence
from pathlib import Path
from typing import NamedTuple

import numpy as np
import numpy.typing as npt

from envs.workloads.files import (
    DataFormatError,
    DataSource,
    find_data_file,
    provenance_of,
    read_bytes,
    read_text_bytes,
)
from memrl.documents import RequestStream, Workload
from memrl.request_table import MOST_TOKENS, by_first_request

SOURCE = DataSource(
    folder="cache_traces",
    published="GitHub 1a1a11a/libCacheSim (data/) and ben-manes/caffeine (simulator, parser/lirs)",
    licence="GPL-3.0 and Apache-2.0; the LIRS authors state no licence for their traces",
)
PAGE_COLUMNS = ("id", "obj_id", "object_id", "key", "page", "block", "lbn", "lba")
"""Names of the column of pages in a CSV file, in any case."""
SIZE_COLUMNS = ("size", "obj_size", "object_size", "length", "bytes")
"""Names of the column of sizes; without one every page has size 1."""

_ORACLE_GENERAL = np.dtype([("time", "<u4"), ("id", "<u8"), ("size", "<u4"), ("next", "<i8")])
_NEVER = np.iinfo(np.int64).max
_MOST_REQUESTS = 2**48  # more than any trace has


class _Requests(NamedTuple):
    """What a file holds.

    Attributes:
        pages: (T,) int64 numbers by first request.
        page_ids: of each number.
        sizes: (T,) int64; None for 1.
    """

    pages: npt.NDArray[np.int64]
    page_ids: tuple[str, ...]
    sizes: npt.NDArray[np.int64] | None


def load_trace(trace: str, data_dir: str | Path | None = None) -> Workload:
    """Loads a trace as one stream of requests.

    Args:
        trace: name of its file below `cache_traces/`, with or without `.gz` and what tells the
            format ("lirs/loop", "cloudPhysicsIO.csv"); see `short_name`.
        data_dir: folder that holds `cache_traces/`; None takes the one named by `MEMRL_DATA`.

    Returns:
        The workload; `repairs` counts what was mended, skipped or dropped.

    Raises:
        DataFileMissingError: there is no such file (a `FileNotFoundError`).
        DataFormatError: the file is damaged, not in its format, or holds no request.
    """
    plain = trace.removesuffix(".gz")
    stems = [plain] if _reader_of(plain) else [plain + ending for ending in _READERS]
    packed = [stem + end for stem in stems for end in (".gz", "")]
    names = sorted(packed, key=lambda name: name != trace)  # the very file that is named first
    path = find_data_file(data_dir, SOURCE, names)
    reader = _reader_of(path.name)
    assert reader is not None  # all names have an ending
    repairs: Counter[str] = Counter()
    requests = reader(path, repairs)
    if not len(requests.pages):
        raise DataFormatError(f"{path} holds no request: fetch it again from {SOURCE.published}.")
    stream = _stream(trace, requests, repairs)
    counts = dict(sorted(repairs.items()))
    return Workload("page_cache", (), provenance_of(SOURCE, [path]), counts, (stream,))


def short_name(file_name: str) -> str:
    """The shortest name by which `load_trace` finds a file where its trace is in other formats too.

    Args:
        file_name: below `cache_traces/`.
    """
    plain = file_name.removesuffix(".gz")
    return plain.removesuffix(".oracleGeneral.bin").removesuffix(".trace")


def _stream(name: str, requests: _Requests, repairs: Counter[str]) -> RequestStream:
    """Number the pages, and give each the size that it had first."""
    pages = requests.pages
    tokens = np.ones(len(requests.page_ids), dtype=np.int64)
    if requests.sizes is not None:
        sizes = requests.sizes
        first = np.unique(pages, return_index=True)[1]
        tokens = sizes[first]
        _note(repairs, "requests of another size than their page's first", sizes != tokens[pages])
        _note(repairs, "pages of size 0 counted as 1", tokens < 1)
        _note(repairs, f"pages larger than {MOST_TOKENS} counted as that", tokens > MOST_TOKENS)
    return RequestStream(
        stream_id=name,
        pages=pages.astype(np.int32),
        page_tokens=tokens.clip(1, MOST_TOKENS),
        page_ids=requests.page_ids,
        kind=name,
    )


def _note(repairs: Counter[str], what: str, happened: npt.NDArray[np.bool_] | int) -> None:
    count = int(np.sum(happened))
    if count:
        repairs[what] += count


# ---------------------------------------------------------------------- formats


def _numbered(ids: Iterable[str], sizes: npt.NDArray[np.int64] | None) -> _Requests:
    """Number texts, which an array would fill up with NUL and cut off at those."""
    numbers: dict[str, int] = {}
    pages = np.array([numbers.setdefault(own, len(numbers)) for own in ids], dtype=np.int64)
    return _Requests(pages, tuple(numbers), sizes)


def _read_oracle_general(path: Path, repairs: Counter[str]) -> _Requests:
    raw = read_bytes(path)
    if raw and raw.isascii() and b"\0" not in raw:
        raise DataFormatError(
            f"{path} is text and no oracleGeneral file: end its name in .trace where it has a "
            "block number a line, in .csv where it has columns."
        )
    if len(raw) % _ORACLE_GENERAL.itemsize:
        raise DataFormatError(
            f"{path} is cut short: its {len(raw)} bytes are no multiple of the "
            f"{_ORACLE_GENERAL.itemsize} of a request; fetch it again."
        )
    records = np.frombuffer(raw, _ORACLE_GENERAL)
    following = records["next"]
    is_last = (following == -1) | (following == _NEVER)
    place = np.arange(len(records))
    is_possible = is_last | ((following > place) & (following < _MOST_REQUESTS))
    if not is_possible.all():
        wrong = int(is_possible.argmin())
        raise DataFormatError(
            f"{path} is no oracleGeneral file, or is damaged: request {wrong} names request "
            f"{following[wrong]} as the next one of its id."
        )
    pages, ids = by_first_request(records["id"])
    own = _next_places(pages)
    # A file that was cut or thinned names places of the whole one. Nothing here uses them.
    is_right = np.where(own < 0, is_last, (following == own) | (following == own + 1))
    _note(repairs, "requests whose next one is not where the file says: found anew", ~is_right)
    sizes = records["size"].astype(np.int64)
    return _Requests(pages, tuple(map(str, ids.tolist())), sizes)


def _next_places(pages: npt.NDArray[np.int64]) -> npt.NDArray[np.int64]:
    """Of each request (T,) the place of the next one of its page, -1 for none."""
    order = np.argsort(pages, kind="stable")
    is_same = pages[order[1:]] == pages[order[:-1]]
    places = np.full(len(pages), -1, dtype=np.int64)
    places[order[:-1][is_same]] = order[1:][is_same]
    return places


def _read_lirs(path: Path, repairs: Counter[str]) -> _Requests:
    lines = [line.strip() for line in read_text_bytes(path).splitlines()]
    blocks = [(line.lstrip(b"0") or b"0").decode() for line in lines if line.isdigit()]
    empty, breakpoints = lines.count(b""), lines.count(b"*")
    _note(repairs, "empty lines skipped", empty)
    _note(repairs, "breakpoints (*) skipped", breakpoints)
    _note(
        repairs,
        "lines that are no block number dropped",
        len(lines) - len(blocks) - empty - breakpoints,
    )
    return _numbered(blocks, None)


def _read_csv(path: Path, repairs: Counter[str]) -> _Requests:
    rows = csv.reader(_decoded(read_text_bytes(path), repairs))
    try:
        header = [name.strip().lower() for name in next(rows, [])]
        page, size = _column(header, PAGE_COLUMNS), _column(header, SIZE_COLUMNS)
        if page is None:
            raise DataFormatError(
                f"{path} names no column of pages ({', '.join(PAGE_COLUMNS)}) in its header "
                f"{header[:10]}: add a header."
            )
        kept = [row for row in rows if row]
    except csv.Error as error:
        raise DataFormatError(f"{path} is not valid CSV ({error}): fetch it again.") from error
    complete = [row for row in kept if len(row) == len(header) and row[page].strip()]
    _note(repairs, "rows without a page or with other columns dropped", len(kept) - len(complete))
    ids = [row[page].strip() for row in complete]
    if size is None:
        return _numbered(ids, None)
    texts = [row[size].strip() for row in complete]
    is_number = np.array([text.isascii() and text.isdigit() for text in texts], dtype=bool)
    _note(repairs, "requests whose size is no number counted as 1", ~is_number)
    # The digits are cut where the size is too large by far, so that it fits an integer.
    sizes = [int(text[:18]) if text.isascii() and text.isdigit() else 1 for text in texts]
    return _numbered(ids, np.array(sizes, dtype=np.int64))


def _decoded(raw: bytes, repairs: Counter[str]) -> list[str]:
    """The lines that are UTF-8."""
    lines, dropped = [], 0
    for line in raw.removeprefix(b"\xef\xbb\xbf").splitlines():
        try:
            lines.append(line.decode())
        except UnicodeDecodeError:
            dropped += 1
    _note(repairs, "lines that are not UTF-8 dropped", dropped)
    return lines


def _column(header: Sequence[str], names: Sequence[str]) -> int | None:
    return next((header.index(name) for name in names if name in header), None)


_Reader = Callable[[Path, "Counter[str]"], _Requests]
_READERS: dict[str, _Reader] = {
    ".oracleGeneral.bin": _read_oracle_general,
    ".trace": _read_lirs,
    ".csv": _read_csv,
}


def _reader_of(name: str) -> _Reader | None:
    plain = name.removesuffix(".gz")
    return next((read for ending, read in _READERS.items() if plain.endswith(ending)), None)
