"""The list of known files is complete and sound, and names what the loaders accept."""

from __future__ import annotations

import re
from fnmatch import fnmatchcase
from pathlib import Path

import pytest

from envs.workloads import babi, hotpotqa, locomo, musique, natural_questions, nested_kv, two_wiki
from envs.workloads.catalogue import DATA_SETS, DataSet
from envs.workloads.fetch import chosen_files
from envs.workloads.files import DataFileMissingError, find_data_file
from envs.workloads.known_files import KnownFiles, PublishedFile, _listed, known_files

FOLDERS = (
    *("locomo", "msc", "dmr", "longmemeval", "lost_in_the_middle", "memgpt_nested_kv"),
    *("hotpotqa", "musique", "2wikimultihopqa", "babi", "cache_traces"),
)


def test_every_data_set_is_listed() -> None:
    assert set(_listed()) == set(FOLDERS)
    assert known_files("no such set") == KnownFiles()


@pytest.mark.parametrize("folder", FOLDERS)
def test_groups_are_as_the_head_of_the_list_says(folder: str) -> None:
    keys = {"url", "files", "version", "archive", "unpack", "on_demand"}
    for group in _listed()[folder]:
        assert set(group) <= keys
        assert group.get("version", "official") in ("official", "repackaged")
        assert ("archive" in group) == ("unpack" in group)
        for name, digest in group["files"].items():
            assert digest is None or re.fullmatch("[0-9a-f]{64}", digest)
            assert not name.startswith("/")
            assert ".." not in name
            if "unpack" in group:
                assert any(fnmatchcase(name, pattern) for pattern in group["unpack"])


@pytest.mark.parametrize("folder", FOLDERS)
def test_what_can_be_fetched(folder: str) -> None:
    known = known_files(folder)
    names = [file.name for file in known.published]
    assert names
    assert len(set(names)) == len(names)
    assert not known.official & known.repackaged
    assert any(not file.on_demand for file in known.published)
    for file in known.published:
        assert re.fullmatch(r"(https?|hf)://\S+[^/]", file.url)
        # What can change at its address is known by its hash.
        assert file.sha256 or re.search("/[0-9a-f]{40}/", file.url)
        if file.sha256 and not file.unpack:
            assert file.sha256 in known.official


def test_names_are_those_that_loaders_accept() -> None:
    def fetched(folder: str) -> set[str]:
        return {file.name for file in known_files(folder).published}

    assert fetched("locomo") == {locomo.FILE_NAMES[1], locomo.ERRATA_NAME}
    assert fetched("hotpotqa") <= set(hotpotqa.FILE_NAMES)
    assert fetched("musique") <= set(musique.FILE_NAMES)
    orderings = {nested_kv.orderings_name(level) for level in nested_kv.FILE_LEVELS}
    assert fetched("memgpt_nested_kv") == {nested_kv.PAIRS_NAMES[1], *orderings}
    assert fetched("babi") == {
        babi.file_names(task, part)[1] for task in range(1, 21) for part in ("train", "test")
    }
    published = {
        natural_questions.published_names(number, position)[1]
        for number, positions in natural_questions.PUBLISHED_POSITIONS.items()
        for position in positions
    }
    assert fetched("lost_in_the_middle") == {natural_questions.ORACLE_NAMES[1], *published}
    corpus = {two_wiki.CORPUS_NAMES[1], two_wiki.CORPUS_QUERY_NAMES[1]}
    assert fetched("2wikimultihopqa") == {"data_ids_april7.zip", *corpus}
    archive = known_files("2wikimultihopqa").published[0]
    members = {two_wiki.TEST_NAMES[1], two_wiki.TRAIN_NAMES[1], two_wiki.ALIASES_NAME}
    assert set(archive.unpack) == members


def test_urls() -> None:
    (oracle, short, long) = known_files("longmemeval").published
    assert (oracle.on_demand, short.on_demand, long.on_demand) == (False, False, True)
    assert re.fullmatch(
        r"hf://datasets/xiaowu0162/longmemeval-cleaned@[0-9a-f]{40}/longmemeval_oracle\.json",
        oracle.url,
    )
    (archive,) = known_files("msc").published
    assert archive == PublishedFile(
        "msc_v0.1.tar.gz",
        "https://parl.ai/downloads/msc/msc_v0.1.tar.gz",
        "e640e37cf4317cd09fc02a4cd57ef130a185f23635f4003b0cee341ffcb45e60",
        ("msc_*/session_*/valid.txt", "msc_*/session_*/test.txt"),
    )
    errata = known_files("locomo").published[1]
    assert (errata.name, errata.url.rpartition("/")[2]) == ("errata.json", "errors.json")


@pytest.mark.parametrize("data_set", DATA_SETS, ids=lambda data_set: data_set.name)
def test_the_command_in_the_message_fetches_the_file(data_set: DataSet, tmp_path: Path) -> None:
    for part in data_set.parts:
        for names in part.files:
            with pytest.raises(DataFileMissingError) as caught:
                find_data_file(tmp_path, part.source, names)
            (want,) = re.findall(r"--fetch ([^ )]+)\)", str(caught.value))
            folder, _, pattern = want.partition("/")
            assert folder == data_set.name
            files = chosen_files(part.source, pattern or None)
            fetched = {file.name for file in files} | {name for f in files for name in f.unpack}
            assert any(fnmatchcase(name, pattern) for name in names for pattern in fetched), want


def test_no_command_is_named_for_what_cannot_be_fetched(tmp_path: Path) -> None:
    (trace,) = (own for own in DATA_SETS if own.name == "cache_traces")
    with pytest.raises(DataFileMissingError) as caught:
        find_data_file(tmp_path, trace.parts[0].source, ("lirs/other.trace",))
    assert "--fetch" not in str(caught.value)
