"""The program `python -m envs.workloads`: what it prints, and its exit status."""

from __future__ import annotations

import gzip
import hashlib
import json
import os
import re
import socket
import subprocess
import sys
from collections.abc import Callable, Iterator
from pathlib import Path

import pytest
from file_server import Answer, FileServer, serving
from qa_fixtures import hotpot_question, musique_question, wiki_question, write, write_json
from qa_fixtures import write_lines as write_lines_of

from envs.workloads import babi, two_wiki
from envs.workloads import download as download_module
from envs.workloads.__main__ import main
from envs.workloads.catalogue import DATA_SETS
from envs.workloads.checking import Tally, check, tally
from envs.workloads.data_terminal import WIDTH
from envs.workloads.known_files import KnownFiles, PublishedFile, known_files

NAMES = (
    *("locomo", "msc", "dmr", "longmemeval", "lost_in_the_middle", "memgpt_nested_kv"),
    *("hotpotqa", "musique", "2wikimultihopqa", "babi", "cache_traces"),
)
MUSIQUE = "musique_ans_v1.0_dev.jsonl"

Run = Callable[..., tuple[int, str, str]]


@pytest.fixture
def run(tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]) -> Run:
    """Call the program with the folder below which the tests put their files."""
    monkeypatch.setattr(download_module, "PAUSE_S", 0.0)
    monkeypatch.setenv("NO_PROXY", "*")
    monkeypatch.setenv("MEMRL_DATA", str(tmp_path))

    def call(*arguments: str) -> tuple[int, str, str]:
        monkeypatch.setattr(sys, "argv", ["envs.workloads", *arguments])
        status = main()
        out, err = capsys.readouterr()
        assert "Traceback" not in out + err
        # A path is not broken.
        lines = [line for line in out.splitlines() if str(tmp_path) not in line]
        assert max(map(len, lines), default=0) <= WIDTH
        return status, out, err

    return call


def errors(err: str) -> list[str]:
    """Lines of standard error but those of progress bars."""
    return [line for line in err.splitlines() if "━" not in line]


def put_musique(folder: Path) -> Path:
    return write_lines_of(folder / "musique" / MUSIQUE, [musique_question()])


# ---------------------------------------------------------------------- the catalogue


def test_every_data_set_is_there_once() -> None:
    assert tuple(data_set.name for data_set in DATA_SETS) == NAMES
    for data_set in DATA_SETS:
        assert len({part.name for part in data_set.parts}) == len(data_set.parts)
        for part in data_set.parts:
            assert part.source.folder == data_set.name
            assert part.source.published
            assert part.source.licence
            assert part.files


@pytest.mark.parametrize("data_set", DATA_SETS, ids=lambda data_set: data_set.name)
def test_what_is_fetched_makes_every_part_whole(data_set: object, tmp_path: Path) -> None:
    assert data_set in DATA_SETS
    (found,) = (own for own in DATA_SETS if own is data_set)
    for file in known_files(found.name).published:
        if file.unpack and found.name == "msc":
            names = [f"msc_personasummary/session_{k}/{p}.txt" for k in range(1, 5) for p in PARTS]
        else:
            names = list(file.unpack) or [file.name]
        for name in names:
            write(tmp_path / found.name / name, b"")
    assert [part.name for part in found.parts if not part.is_whole(tmp_path)] == []


PARTS = ("valid", "test")


@pytest.mark.parametrize("data_set", DATA_SETS, ids=lambda data_set: data_set.name)
def test_the_real_data_are_whole_and_known(data_set: object, data_dir: Path) -> None:
    (found,) = (own for own in DATA_SETS if own is data_set)
    whole = [part for part in found.parts if part.is_whole(data_dir)]
    if not whole:
        pytest.skip(f"{found.name} is not below the data folder")
    for part in whole:
        checked = check(part, data_dir)
        assert checked.damage == ""
        assert checked.unknown == []
        assert len(checked.files) >= len(part.files)
        assert checked.workload is None or checked.workload.documents or checked.workload.streams


def test_repairs_are_counted_by_what_they_say() -> None:
    repairs = {
        "questions without text dropped": 1,
        "documents left out: no question can be asked within 9 pages": 2,
        "breakpoints (*) skipped": 4,
        "answers of adversarial questions ignored": 8,
        "questions without an answer kept": 16,
        "errata with evidence that does not resolve: needs left as cited": 32,
        "malformed evidence ids mended": 64,
        "passages that a question has twice merged": 128,
        "errata applied (errata.json is absent)": 0,
        "derived evidence: a turn that holds all of the answer's words": 256,
    }
    assert tally(repairs) == Tally(repaired=64 + 128, dropped=1 + 2 + 4 + 8, derived=256)
    assert tally({}) == (0, 0, 0)


# ---------------------------------------------------------------------- where they are


def test_nothing_is_there(run: Run) -> None:
    status, out, err = run()
    assert (status, err) == (0, "")
    assert [name for name in NAMES if re.search(f"^{name} +here +nothing *$", out, re.M)] == list(
        NAMES
    )
    assert "0 of 11 data sets are below" in out
    assert "--fetch NAME downloads one" in out
    assert "CC BY-NC 4.0 (non-commercial)" in out
    assert "GitHub snap-research/LoCoMo, data/locomo10.json" in out


def test_no_data_folder(run: Run, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.delenv("MEMRL_DATA")
    status, out, err = run()
    assert (status, err) == (0, "")
    assert out.count("nothing") == len(NAMES)
    assert "No data folder to look in: pass --data-dir or set MEMRL_DATA." in out
    for arguments in (["--check"], ["babi"], ["--fetch", "babi"]):
        status, out, err = run(*arguments)
        assert (status, out) == (1, "")
        assert err == "error: No data folder: pass --data-dir or set MEMRL_DATA.\n"


def test_what_is_there_is_named_part_by_part(run: Run, tmp_path: Path) -> None:
    put_musique(tmp_path)
    for names in (two_wiki.CORPUS_NAMES, two_wiki.CORPUS_QUERY_NAMES):
        write(tmp_path / "2wikimultihopqa" / names[0], b"")
    for part in ("train", "test"):
        write(tmp_path / "babi" / babi.file_names(3, part)[0], b"")
    write(tmp_path / "cache_traces" / "lirs" / "loop.trace.gz", b"")
    status, out, _ = run("--data-dir", str(tmp_path))
    assert status == 0
    assert re.search(rf"^musique +here +{MUSIQUE} *$", out, re.M)
    assert re.search("^2wikimultihopqa +here +corpus: 2 files; no questions *$", out, re.M)
    assert re.search("^babi +here +only 2 of 40 files *$", out, re.M)
    assert re.search("^cache_traces +here +1 of 15 files *$", out, re.M)
    assert "3 of 11 data sets are below" in out


# ---------------------------------------------------------------------- what is in them


def test_what_is_damaged_unknown_or_incomplete_is_said(run: Run, tmp_path: Path) -> None:
    put_musique(tmp_path)
    damaged = write_json(
        tmp_path / "hotpotqa" / "hotpot_dev_distractor_v1.json.gz", [hotpot_question()]
    )
    damaged.write_bytes(damaged.read_bytes()[:-9])
    write(tmp_path / "dmr" / "msc_self_instruct.jsonl.gz", b"no loader reads it yet").write_bytes(
        gzip.compress(b"x" * 1000)[:-9]
    )
    write(tmp_path / "babi" / babi.file_names(3, "test")[0], b"")
    status, out, err = run("--check")
    assert status == 1
    assert re.search(r"^musique +1 +1 +0 +0 +0 +1 unknown +\d", out, re.M)
    assert re.search(r"^hotpotqa +- +- +- +- +- +damaged +\d", out, re.M)
    assert re.search(r"^dmr +- +- +- +- +- +damaged +\d", out, re.M)
    assert "babi" not in out
    of_dmr, of_hotpotqa, incomplete, warning = errors(err)
    assert of_dmr.startswith(f"damaged: {tmp_path}/dmr/")
    assert of_hotpotqa.startswith(f"damaged: {damaged} is not a whole gzip file")
    assert incomplete == "incomplete: babi has 1 of 40 files: it was not read; fetch it again."
    assert warning.startswith(f"warning: musique/{MUSIQUE}: not a version known by its sha256")


def test_an_unknown_version_alone_is_no_failure(run: Run, tmp_path: Path) -> None:
    put_musique(tmp_path)
    status, _, err = run("--check")
    assert status == 0
    assert len(errors(err)) == 1


def test_a_data_folder_that_is_not_there_or_empty(run: Run, tmp_path: Path) -> None:
    absent = tmp_path / "absent"
    for arguments in (["--check"], ["babi"]):
        status, out, err = run(*arguments, "--data-dir", str(absent))
        assert (status, out) == (1, "")
        (line,) = errors(err)
        assert line.startswith(f"error: There is no data folder {absent}: create it, or pass --da")
    status, out, err = run("--check")
    assert (status, out) == (1, "")
    assert errors(err) == [f"error: No data set is below {tmp_path}: --fetch NAME downloads one."]


def test_names_stand_on_both_sides_of_an_option(run: Run, tmp_path: Path) -> None:
    put_musique(tmp_path)
    write_json(tmp_path / "hotpotqa" / "hotpot_dev_distractor_v1.json.gz", [hotpot_question()])
    write(tmp_path / "babi" / babi.file_names(3, "test")[0], b"")
    status, out, _ = run("musique", "--check", "hotpotqa")
    assert status == 0
    assert re.search("^musique .*\nhotpotqa ", out, re.M)


def test_a_data_set_in_full(run: Run, tmp_path: Path) -> None:
    path = put_musique(tmp_path)
    test, train = wiki_question("w1"), wiki_question("w2", supporting_facts=[["Nowhere", 0]])
    write_json(tmp_path / "2wikimultihopqa" / two_wiki.TEST_NAMES[1], [test])
    write_json(tmp_path / "2wikimultihopqa" / two_wiki.TRAIN_NAMES[1], [wiki_question("w3"), train])
    status, out, _ = run("musique", "2wikimultihopqa")
    assert status == 0
    assert "musique: 1 documents, 4 pages, 1 queries" in out
    assert f"sha256 {hashlib.sha256(path.read_bytes()).hexdigest()}" in out
    assert f"unknown  {MUSIQUE}" in out
    assert "2wikimultihopqa / questions" in out
    assert "supporting facts of passages that are not there dropped" in out
    assert re.search(r"^2wikimultihopqa +questions +1 +1 +0 +\d+ +0 +2 unknown", out, re.M)


def test_a_data_set_that_is_not_there(run: Run, tmp_path: Path) -> None:
    status, out, err = run("babi")
    assert (status, out) == (1, "")
    (line,) = errors(err)
    assert line.startswith("error: Found no babi/en/qa1_single-supporting-fact_test.txt.gz or ")
    assert "python -m envs.workloads --fetch babi" in line
    assert "CC BY 3.0" in line
    # Of a set that is there in part the first file that is missing is named.
    write(tmp_path / "babi" / babi.file_names(1, "test")[0], b"")
    assert "qa1_single-supporting-fact_train" in run("babi")[2]


@pytest.mark.parametrize(
    "arguments", [["nothing"], ["--fetch", "nothing"], ["--fetch", "nothing/x"]]
)
def test_a_name_that_no_data_set_has(run: Run, arguments: list[str]) -> None:
    status, out, err = run(*arguments)
    assert (status, out) == (1, "")
    assert err.startswith("error: There is no data set 'nothing'; there are locomo, msc, dmr,")
    assert err.count("\n") == 1


# ---------------------------------------------------------------------- fetching


@pytest.fixture
def server() -> Iterator[FileServer]:
    with serving() as files:
        yield files


def told(out: str) -> list[str]:
    """What is printed of the only file that was to be fetched."""
    _, file, *lines = out.splitlines()[:4]
    return [*file.split(), *(line.strip() for line in lines)]


def know_musique(monkeypatch: pytest.MonkeyPatch, url: str, content: bytes) -> str:
    """Let this be the known file of MuSiQue; returns its sha256."""
    digest = hashlib.sha256(content).hexdigest()
    known = KnownFiles((PublishedFile(MUSIQUE, url, digest),), frozenset({digest}))
    for module in ("fetch", "files"):
        monkeypatch.setattr(f"envs.workloads.{module}.known_files", lambda _: known)
    return digest


def test_fetched_then_read(
    run: Run, server: FileServer, monkeypatch: pytest.MonkeyPatch, tmp_path: Path
) -> None:
    content = f"{json.dumps(musique_question())}\n".encode()
    cut, whole = Answer(content, sends=40), Answer(content)
    url = server.put("/musique", cut, Answer(status=502), whole)
    known = know_musique(monkeypatch, url, content)
    status, out, err = run("--fetch", "musique")
    assert (status, errors(err)) == (0, [])
    assert (tmp_path / "musique" / MUSIQUE).read_bytes() == content
    assert "musique (licence: CC BY 4.0)" in out
    assert told(out) == ["fetched", MUSIQUE, f"sha256 {known}", "as published"]
    assert re.search(rf"^musique +here +{MUSIQUE} *$", out, re.M)
    assert "locomo" not in out
    status, out, _ = run("--fetch", "musique/*.jsonl", "--check")
    assert status == 0
    assert told(out) == ["there", MUSIQUE, f"sha256 {known}", "as published"]
    assert re.search(r"^musique +1 +1 +0 +0 +0 +1 official +\d", out, re.M)
    assert len(server.asked) == 3


def test_a_wrong_file_is_refused_in_one_line(
    run: Run, server: FileServer, monkeypatch: pytest.MonkeyPatch, tmp_path: Path
) -> None:
    know_musique(monkeypatch, server.put("/musique", Answer(b"an error page")), b"the file")
    status, _, err = run("--fetch", "musique")
    assert status == 1
    (line,) = errors(err)
    assert re.fullmatch(r"error: http\S+ is not the file that is known: .*", line)
    assert list((tmp_path / "musique").iterdir()) == []


def test_no_network_is_one_line(run: Run, monkeypatch: pytest.MonkeyPatch) -> None:
    with socket.socket() as probe:
        probe.bind(("127.0.0.1", 0))
        port = probe.getsockname()[1]
    know_musique(monkeypatch, f"http://127.0.0.1:{port}/musique", b"")
    status, _, err = run("--fetch", "musique")
    assert status == 1
    (line,) = errors(err)
    assert re.fullmatch(r"error: .*could not be downloaded.*Connection refused.*", line)


def test_what_is_kept_or_cannot_be_compared_is_said(
    run: Run, server: FileServer, monkeypatch: pytest.MonkeyPatch, tmp_path: Path
) -> None:
    known = KnownFiles((PublishedFile(MUSIQUE, server.put("/m", Answer(b"{}\n")), None),))
    for module in ("fetch", "files"):
        monkeypatch.setattr(f"envs.workloads.{module}.known_files", lambda _: known)
    digest = hashlib.sha256(b"{}\n").hexdigest()
    fetched = told(run("--fetch", "musique")[1])
    assert fetched[:3] == ["fetched", MUSIQUE, f"sha256 {digest}"]
    assert "no published sha256 is known" in fetched[3]
    kept = told(run("--fetch", "musique")[1])
    assert kept[:3] == ["kept", MUSIQUE, f"sha256 {digest}"]
    assert kept[3].startswith("another version is there; move it away")
    assert json.loads((tmp_path / "musique" / "fetched.json").read_text())[MUSIQUE]


def test_interrupted(run: Run, monkeypatch: pytest.MonkeyPatch) -> None:
    def interrupt(*_: object) -> None:
        raise KeyboardInterrupt

    monkeypatch.setattr("envs.workloads.__main__.fetch", interrupt)
    status, _, err = run("--fetch", "musique")
    assert status == 130
    assert errors(err)[-1] == "interrupted; the same command goes on where it ended"


def test_as_a_program(tmp_path: Path) -> None:
    """On the hub, which the tests do not use: an error without a network."""
    done = subprocess.run(
        [sys.executable, "-m", "envs.workloads", "--fetch", "dmr", "--data-dir", str(tmp_path)],
        capture_output=True,
        text=True,
        check=False,
        env=os.environ | {"HF_HUB_OFFLINE": "1"},
        cwd=Path(__file__).parents[3],
    )
    assert done.returncode == 1
    (line,) = errors(done.stderr)
    assert re.fullmatch("error: hf://datasets/MemGPT/.* HF_HUB_OFFLINE is set.*", line)
