"""Traces are read, mended with a count, or refused; made-up files in the published layouts."""

from __future__ import annotations

import gzip
from pathlib import Path

import numpy as np
import pytest
from qa_fixtures import recorded_files

from envs.workloads.catalogue import DATA_SETS
from envs.workloads.files import DataFileMissingError, DataFormatError
from envs.workloads.traces import load_trace
from memrl.documents import RequestStream, Workload

RECORD = np.dtype([("time", "<u4"), ("id", "<u8"), ("size", "<u4"), ("next", "<i8")])
REQUESTS = [(1, 2**63 + 5, 512, 2), (1, 7, 4096, 3), (2, 2**63 + 5, 512, -1), (3, 7, 4096, -1)]


def put(folder: Path, name: str, content: bytes) -> None:
    path = folder / "cache_traces" / name
    path.parent.mkdir(parents=True, exist_ok=True)
    path.write_bytes(gzip.compress(content) if name.endswith(".gz") else content)


def oracle(requests: list[tuple[int, int, int, int]]) -> bytes:
    return np.array(requests, dtype=RECORD).tobytes()


def read(folder: Path, name: str, content: bytes) -> Workload:
    put(folder, name, content)
    return load_trace(name, folder)


def only(workload: Workload) -> RequestStream:
    (stream,) = workload.streams
    return stream


@pytest.mark.parametrize("name", ["t.oracleGeneral.bin", "t.oracleGeneral.bin.gz"])
def test_oracle_general(tmp_path: Path, name: str) -> None:
    workload = read(tmp_path, name, oracle(REQUESTS))
    stream = only(workload)
    assert stream.pages.tolist() == [0, 1, 0, 1]
    assert stream.page_ids == (str(2**63 + 5), "7")
    assert stream.page_tokens.tolist() == [512, 4096]
    assert workload.repairs == {}
    assert list(recorded_files(workload)) == [name]


def test_sizes_that_cannot_be_are_mended_and_counted(tmp_path: Path) -> None:
    requests = [(0, 1, 0, 3), (0, 2, 5, 2), (0, 2, 6, -1), (0, 1, 9, -1), (0, 3, 2**32 - 1, -1)]
    workload = read(tmp_path, "t.oracleGeneral.bin", oracle(requests))
    assert only(workload).page_tokens.tolist() == [1, 5, 2**31 - 1]
    assert workload.repairs == {
        f"pages larger than {2**31 - 1} counted as that": 1,
        "pages of size 0 counted as 1": 1,
        "requests of another size than their page's first": 2,
    }


def test_lirs_with_its_quirks(tmp_path: Path) -> None:
    content = b"5\r\n*\r\n3\r\n5\r\n\r\n 4 \r\nx\r\n1.5\r\n-1\r\n\xff\xfe\r\n" + b"9" * 30 + b"\n\n"
    workload = read(tmp_path, "lirs/t.trace.gz", content)
    assert only(workload).page_ids == ("5", "3", "4", "9" * 30)
    assert only(workload).pages.tolist() == [0, 1, 0, 2, 3]
    assert only(workload).page_tokens.tolist() == [1, 1, 1, 1]
    assert workload.repairs == {
        "breakpoints (*) skipped": 1,
        "empty lines skipped": 2,
        "lines that are no block number dropped": 4,
    }


def test_long_block_numbers_are_told_apart(tmp_path: Path) -> None:
    """Some differ in their last digit alone, some fit no int64 or uint64, one has 5,000 digits."""
    numbers = [2**63 - 1, 2**63, 2**64, 2**64 + 1, 10**18, 10**18 + 1]
    lines = [*map(str, numbers), "7", "007", f"0{2**64}", "0", "000", "1" * 5000]
    workload = read(tmp_path, "t.trace", "\n".join(lines).encode())
    assert only(workload).page_ids == (*map(str, numbers), "7", "0", "1" * 5000)
    assert only(workload).pages.tolist() == [0, 1, 2, 3, 4, 5, 6, 6, 2, 7, 7, 8]
    assert workload.repairs == {}


def test_places_of_next_requests_count_from_0_or_1_and_wrong_ones_are_counted(
    tmp_path: Path,
) -> None:
    def repairs(*following: int) -> dict[str, int]:
        requests = [(0, page, 1, n) for page, n in zip((5, 6, 5, 6), following, strict=True)]
        workload = read(tmp_path, "t.oracleGeneral.bin", oracle(requests))
        assert only(workload).pages.tolist() == [0, 1, 0, 1]
        return workload.repairs

    what = "requests whose next one is not where the file says: found anew"
    never = 2**63 - 1
    assert repairs(2, 3, -1, never) == repairs(3, 4, never, -1) == {}
    assert repairs(1, 3, -1, -1) == {what: 1}  # of another id
    assert repairs(-1, 3, -1, 900) == {what: 2}  # none, and past the end: a part of a trace


def test_csv_finds_its_columns_and_drops_what_is_no_request(tmp_path: Path) -> None:
    content = (
        b"\xef\xbb\xbfversion,time,op,Size,LBN\r\n"
        b"1,10,2a,512,a\n1,10,2a,1024,b\n1,11,28,512,a\n"
        b"1,11,28,,b\n1,12\n1,13,28,9,\n\n1,13,28,9,\xff\n1,14,28,x,c\n"
    )
    workload = read(tmp_path, "t.csv", content)
    assert only(workload).page_ids == ("a", "b", "c")
    assert only(workload).pages.tolist() == [0, 1, 0, 1, 2]
    assert only(workload).page_tokens.tolist() == [512, 1024, 1]
    assert workload.repairs == {
        "lines that are not UTF-8 dropped": 1,
        "requests of another size than their page's first": 1,
        "requests whose size is no number counted as 1": 2,
        "rows without a page or with other columns dropped": 2,
    }


def test_csv_ids_are_told_apart_to_the_last_character(tmp_path: Path) -> None:
    workload = read(tmp_path, "t.csv", b"id,size\nx,1\nx\0,2\nx,1\nx\0\0,3\n")
    assert only(workload).page_ids == ("x", "x\0", "x\0\0")
    assert only(workload).pages.tolist() == [0, 1, 0, 2]
    assert workload.repairs == {}


def test_csv_without_sizes(tmp_path: Path) -> None:
    stream = only(read(tmp_path, "t.csv.gz", b"key\nx\ny\nx\n"))
    assert stream.pages.tolist() == [0, 1, 0]
    assert stream.page_tokens.tolist() == [1, 1]


def test_a_trace_is_found_without_its_ending(tmp_path: Path) -> None:
    put(tmp_path, "lirs/t.trace.gz", b"1\n2\n")
    stream = only(load_trace("lirs/t", tmp_path))
    assert stream.stream_id == stream.kind == "lirs/t"
    assert len(stream) == 2


def test_every_trace_loads_by_the_name_in_the_list_and_by_its_file_name(tmp_path: Path) -> None:
    (traces,) = (data_set for data_set in DATA_SETS if data_set.name == "cache_traces")
    contents = {".bin": oracle(REQUESTS[2:] * 2), ".csv": b"lbn\n1\n", ".trace": b"1\n2\n3\n"}
    for part in traces.parts:
        name = part.files[0][0].removesuffix(".gz")
        put(tmp_path, f"{name}.gz", contents[Path(name).suffix])
    for part in traces.parts:
        name = part.files[0][0].removesuffix(".gz")
        for wanted in (part.name, name, f"{name}.gz"):
            assert list(recorded_files(load_trace(wanted, tmp_path))) == [f"{name}.gz"]


def test_the_file_of_the_very_name_goes_first(tmp_path: Path) -> None:
    put(tmp_path, "t.csv", b"lbn\n1\n")
    put(tmp_path, "t.csv.gz", b"lbn\n1\n")
    for name in ("t.csv", "t.csv.gz"):
        assert list(recorded_files(load_trace(name, tmp_path))) == [name]


@pytest.mark.parametrize(
    ("name", "content", "message"),
    [
        ("t.oracleGeneral.bin", oracle(REQUESTS)[:-3], "is cut short: its 93 bytes"),
        ("t.oracleGeneral.bin", b"", "holds no request"),
        ("t.oracleGeneral.bin", oracle(REQUESTS[::-1]), "request 3 names request 2 as the next"),
        ("t.oracleGeneral.bin", oracle([(0, 1, 1, -2)]), "request 0 names request -2 as the next"),
        ("t.oracleGeneral.bin", oracle([(0, 1, 1, 2**50)]), "is no oracleGeneral file"),
        ("t.oracleGeneral.bin", b"1,10,2a,512,41\n9,11,28\n", "is text and no oracleGeneral file"),
        ("t.trace", "1\n2\n".encode("utf-16"), "is UTF-16 text: convert it to UTF-8"),
        ("t.csv", "lbn\n1\n".encode("utf-16-be"), "is UTF-16 text: convert it to UTF-8"),
        ("t.trace", b"*\n\n*\n", "holds no request"),
        ("t.csv", b"", "names no column of pages"),
        ("t.csv", b"time,size\n1,2\n", r"names no column of pages .* \['time', 'size'\]"),
        ("t.csv", b"id\n", "holds no request"),
        ("t.csv", b'id,size\n"' + b"x" * 140_000 + b'",1\n', "is not valid CSV"),
    ],
)
def test_what_is_no_trace_is_refused(
    tmp_path: Path, name: str, content: bytes, message: str
) -> None:
    with pytest.raises(DataFormatError, match=message):
        read(tmp_path, name, content)


def test_a_file_that_is_cut_short_is_refused(tmp_path: Path) -> None:
    put(tmp_path, "t.trace.gz", b"1\n" * 1000)
    path = tmp_path / "cache_traces" / "t.trace.gz"
    path.write_bytes(path.read_bytes()[:-9])
    with pytest.raises(DataFormatError, match="not a whole gzip file"):
        load_trace("t", tmp_path)


def test_a_missing_file_is_named_with_its_source_and_licence(tmp_path: Path) -> None:
    with pytest.raises(DataFileMissingError, match=r"cache_traces/lirs/t\.trace\.gz .*GPL-3\.0"):
        load_trace("lirs/t", tmp_path)
