from __future__ import annotations

import gzip
import json
from collections.abc import Sequence
from itertools import pairwise
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from qa_fixtures import recorded_files

from envs.workloads import describe
from envs.workloads.files import DataFileMissingError, DataFormatError
from envs.workloads.loading import load_workload
from envs.workloads.nested_kv import (
    FILE_LEVELS,
    PAIRS_NAMES,
    contained_value,
    exact_value,
    follow,
    generate_nested_kv,
    load_nested_kv,
    make_document,
    orderings_name,
    whole_documents,
)
from envs.workloads.splits import split_documents
from envs.workloads.tables import build_tables
from memrl.documents import Document, Workload
from memrl.memory.embedders import HashingEmbedder
from memrl.table import Event
from memrl.workload_config import NestedKvConfig, SplitConfig, WorkloadConfig

PAIRS = [(f"key-{i}", f"value-{i}") for i in range(6)]


def rng(seed: int = 0) -> np.random.Generator:
    return np.random.default_rng(seed)


def write_pairs(folder: Path, pairs: object = PAIRS, name: str = PAIRS_NAMES[0]) -> Path:
    (folder / "memgpt_nested_kv").mkdir(exist_ok=True)
    path = folder / "memgpt_nested_kv" / name
    record = {"ordered_kv_records": pairs, "key": "key-0", "value": "value-0"}
    path.write_bytes(gzip.compress(f"{json.dumps(record)}\nthe second line is not read".encode()))
    return path


def write_orderings(folder: Path, level: int, lines: Sequence[object]) -> Path:
    path = folder / "memgpt_nested_kv" / orderings_name(level)
    texts = [line if isinstance(line, str) else json.dumps(line) for line in lines]
    path.write_text("\n".join(texts) + "\n", encoding="utf-8")
    return path


def load(folder: Path, *levels: int, documents_per_level: int = 2) -> Workload:
    return load_nested_kv(folder, levels=levels, documents_per_level=documents_per_level, rng=rng())


# ---------------------------------------------------------------------------------------- chains


def test_an_ordering_overwrites_values_by_the_next_key() -> None:
    document = make_document("d", PAIRS, (4, 1, 3))
    assert [page.text for page in document.pages] == [
        "Key-value pair: key = key-0, value = value-0",
        "Key-value pair: key = key-1, value = key-3",
        "Key-value pair: key = key-2, value = value-2",
        "Key-value pair: key = key-3, value = value-3",
        "Key-value pair: key = key-4, value = key-1",
        "Key-value pair: key = key-5, value = value-5",
    ]
    (query,) = document.queries
    assert (query.text, query.answers, query.category) == ("key-4", ("value-3",), "level 2")
    assert (query.route, query.needs) == ((4, 1), (3,))
    assert [page.source_id for page in document.pages] == [f"d/{i}" for i in range(6)]


def test_a_single_look_up_is_level_0_and_needs_no_route() -> None:
    (query,) = make_document("d", PAIRS, (2,)).queries
    assert (query.text, query.answers, query.category) == ("key-2", ("value-2",), "level 0")
    assert (query.route, query.needs) == ((), (2,))


def test_following_ends_at_a_value_that_is_no_key() -> None:
    assert follow({"a": "b", "b": "c", "x": "a"}, "x") == "c"
    with pytest.raises(ValueError, match="circle through key a"):
        follow({"a": "b", "b": "a"}, "a")


def test_everything_is_in_archival_before_the_one_question() -> None:
    documents = [make_document("d", PAIRS, (0,)), make_document("e", PAIRS[:4], (1, 2))]
    first, second = whole_documents(documents)
    assert (first.document, first.num_pages, first.num_preloaded) == (0, 6, 6)
    assert (second.document, second.num_pages, second.num_preloaded) == (1, 4, 4)
    assert (first.queries, second.queries) == (((6, 0),), ((4, 0),))


# ---------------------------------------------------------------------------------------- generator


def generate(seed: int = 0, **changes: Any) -> Workload:
    arguments: dict[str, Any] = {"levels": (0, 2, 5), "documents_per_level": 3, "num_pairs": 9}
    arguments |= changes
    return generate_nested_kv(**arguments, rng=rng(seed))


def assert_sound(document: Document, num_pairs: int) -> None:
    """The answer is what the pages say, and the route leads there."""
    texts = [page.text.removeprefix("Key-value pair: key = ") for page in document.pages]
    pairs = [text.split(", value = ") for text in texts]
    values = {key: value for key, value in pairs}
    assert len(values) == num_pairs
    (query,) = document.queries
    level = int(query.category.removeprefix("level "))
    passed = [*query.route, *query.needs]
    assert len(passed) == len(set(passed)) == level + 1
    assert query.text == pairs[passed[0]][0]
    for page, following in pairwise(passed):
        assert pairs[page][1] == pairs[following][0]
    assert query.answers == (pairs[passed[-1]][1],) == (follow(values, query.text),)
    assert query.answers[0] not in values


def test_generated_chains_are_sound() -> None:
    workload = generate()
    assert [doc.queries[0].category for doc in workload.documents] == [
        *["level 0"] * 3,
        *["level 2"] * 3,
        *["level 5"] * 3,
    ]
    for document in workload.documents:
        assert_sound(document, 9)
    texts = [page.text for document in workload.documents for page in document.pages]
    assert len(set(texts)) == len(texts), "no document shares a pair with another"
    assert len({document.document_id for document in workload.documents}) == 9


def test_the_seed_and_nothing_else_decides() -> None:
    assert generate() == generate()
    assert generate(seed=1).documents[0] != generate().documents[0]
    more = generate(documents_per_level=4).documents
    assert [more[i] for i in (0, 1, 2, 4, 5, 6)] == list(generate().documents[:6])


# ---------------------------------------------------------------------------------------- loader


def test_orderings_of_a_file_become_documents(tmp_path: Path) -> None:
    write_pairs(tmp_path)
    write_orderings(tmp_path, 1, [[0, 3], [5, 2]])
    workload = load(tmp_path, 1)
    assert [document.document_id for document in workload.documents] == [
        *("memgpt-level1-000", "memgpt-level1-001")
    ]
    assert workload.documents[1].queries[0].route == (5,)
    for document in workload.documents:
        assert_sound(document, 6)
    assert workload.repairs == {}
    assert workload.provenance["licence"] == "Apache-2.0"
    assert set(recorded_files(workload)) == {PAIRS_NAMES[0], orderings_name(1)}


def test_deeper_levels_are_drawn_over_the_same_pairs(tmp_path: Path) -> None:
    write_pairs(tmp_path, [[f"key-{i}", f"value-{i}"] for i in range(12)], PAIRS_NAMES[1])
    deep = max(FILE_LEVELS) + 1
    workload = load(tmp_path, deep, documents_per_level=3)
    assert len(workload.documents) == 3
    for document in workload.documents:
        assert_sound(document, 12)
        assert document.queries[0].category == f"level {deep}"
    assert workload == load(tmp_path, deep, documents_per_level=3)


def test_dirty_orderings_are_dropped_and_counted(tmp_path: Path) -> None:
    write_pairs(tmp_path)
    lines: list[object] = [
        *([0, 1], "", "  ", [2, 6], [-1, 2], [3, 3], [1, 2, 3], [4], "no list", "[1, 2", "{}"),
        *([1, 2.0], [True, 2], ["1", 2], [0, 1], [2, 5], "null"),
    ]
    write_orderings(tmp_path, 1, lines)
    workload = load(tmp_path, 1)
    passed = [(*doc.queries[0].route, *doc.queries[0].needs) for doc in workload.documents]
    assert passed == [(0, 1), (2, 5)]
    assert workload.documents[1].document_id == "memgpt-level1-015", "named by its line"
    assert workload.repairs == {
        "lines that are no list of indices dropped": 7,
        "orderings of another length than their file says dropped": 2,
        "orderings that their file repeats dropped": 1,
        "orderings with a repeated index dropped": 1,
        "orderings with an index outside the pairs dropped": 2,
    }
    assert "orderings with a repeated index dropped" in describe(workload)


def test_bytes_that_are_no_text_are_dropped(tmp_path: Path) -> None:
    write_pairs(tmp_path)
    path = write_orderings(tmp_path, 0, [[1]])
    path.write_bytes(path.read_bytes() + b"[\xff]\n" + b"[" * 100_000 + b"\n")
    assert load(tmp_path, 0).repairs == {"lines that are no list of indices dropped": 2}


def test_a_file_without_an_ordering_is_refused(tmp_path: Path) -> None:
    write_pairs(tmp_path)
    path = write_orderings(tmp_path, 2, [[1], "nothing"])
    with pytest.raises(DataFormatError, match="holds no list of 3 indices") as caught:
        load(tmp_path, 2)
    assert str(path) in str(caught.value)


@pytest.mark.parametrize(
    "pairs",
    [
        [],
        "pairs",
        None,
        [["key-0", "value-0", "more"]],
        [["key-0"]],
        [["key-0", 5]],
        [[["key-0"], "value-0"]],
        [["key-0", "value-0"], ["key-0", "value-1"]],
        [["key-0", "key-1"], ["key-1", "value-1"]],
    ],
)
def test_a_record_that_is_no_dictionary_is_refused(tmp_path: Path, pairs: object) -> None:
    path = write_pairs(tmp_path, pairs)
    with pytest.raises(DataFormatError, match="does not begin with a record of pairs") as caught:
        load(tmp_path, 0)
    assert str(path) in str(caught.value)


@pytest.mark.parametrize("content", [b"", b"[1, 2]\n", b"{}\n", b'{"ordered_kv_records": [[\n'])
def test_a_first_line_that_is_no_record_is_refused(tmp_path: Path, content: bytes) -> None:
    write_pairs(tmp_path).write_bytes(gzip.compress(content))
    with pytest.raises(DataFormatError, match="does not begin with a record of pairs"):
        load(tmp_path, 0)


def test_a_truncated_gzip_is_refused(tmp_path: Path) -> None:
    path = write_pairs(tmp_path)
    path.write_bytes(path.read_bytes()[:-9])
    with pytest.raises(DataFormatError, match="is not a whole gzip file"):
        load(tmp_path, 0)


def test_a_missing_file_is_one_clear_error(tmp_path: Path) -> None:
    parts = ("cpacker/MemGPT", "Apache-2.0", "MEMRL_DATA")
    for name in ("memgpt_nested_kv/kv-retrieval-140_keys", f"memgpt_nested_kv/{orderings_name(3)}"):
        with pytest.raises(DataFileMissingError) as caught:
            load(tmp_path, 3)
        assert all(part in str(caught.value) for part in (name, *parts))
        write_pairs(tmp_path)


def test_real_data(data_dir: Path) -> None:
    config = WorkloadConfig(
        name="nested_kv",
        data_dir=str(data_dir),
        nested_kv=NestedKvConfig(source="memgpt", levels=(*FILE_LEVELS, 6), documents_per_level=5),
    )
    workload = load_workload(config)
    for document in workload.documents:
        assert_sound(document, 140)
    counts = [
        sum(doc.queries[0].category == f"level {level}" for doc in workload.documents)
        for level in range(7)
    ]
    repeated = "orderings that their file repeats dropped"
    lines = [
        len((data_dir / "memgpt_nested_kv" / orderings_name(level)).read_text().splitlines())
        for level in FILE_LEVELS
    ]
    # Every line is read; of a single index some repeat each other.
    assert set(workload.repairs) == {repeated}
    assert counts[1:] == [*lines[1:], 5]
    assert counts[0] + workload.repairs[repeated] == lines[0]


# ---------------------------------------------------------------------------------------- tables


def test_tables_of_a_split() -> None:
    settings = NestedKvConfig(levels=(0, 1, 3), documents_per_level=4, num_pairs=7)
    config = WorkloadConfig(name="nested_kv", embedder="hashing", nested_kv=settings)
    workload = load_workload(config)
    assert len(workload.documents) == 12
    split = split_documents(12, SplitConfig())
    tables = build_tables(workload, split, config, embedder=HashingEmbedder(16))
    for table, documents in ((tables.train, split.train), (tables.test, split.test)):
        assert table.num_episodes == table.num_documents == len(documents)
        assert table.event_kind.tolist() == [[Event.QUERY]] * len(documents)
        assert table.episode_num_preloaded.tolist() == [7] * len(documents)
        for episode, number in enumerate(documents):
            (query,) = workload.documents[number].queries
            assert table.needs_in_window(episode, 0) == query.needs
            assert table.route_in_window(episode, 0) == query.route


# ---------------------------------------------------------------------------------------- scoring


@pytest.mark.parametrize(
    ("prediction", "exact", "contained"),
    [
        ("ab-12", 1.0, 1.0),
        (" ab-12\n", 1.0, 1.0),
        ("AB-12", 0.0, 1.0),
        ("The value is ab-12.", 0.0, 1.0),
        ("ab-1", 0.0, 0.0),
        ("ab 12", 0.0, 0.0),
        ("", 0.0, 0.0),
    ],
)
def test_scores_of_answers(prediction: str, exact: float, contained: float) -> None:
    assert exact_value(prediction, "ab-12") == exact
    assert contained_value(prediction, "ab-12") == contained
