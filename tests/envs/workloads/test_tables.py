from __future__ import annotations

import dataclasses
from collections.abc import Sequence
from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np
import numpy.typing as npt
import pytest
import table_fixtures  # noqa: F401 (loads the profile of hypothesis)
from hypothesis import given
from hypothesis import strategies as st

from envs.workloads import loading
from envs.workloads.files import DataFileMissingError
from envs.workloads.loading import load_workload
from envs.workloads.splits import Split, split_documents
from envs.workloads.tables import (
    build_tables,
    data_record,
    example_table,
    preset_tables,
    split_tables,
)
from memrl.cache import default_cache_folder
from memrl.config import ConfigurationError, parse_config
from memrl.memory.embedders import HashingEmbedder
from memrl.table import EpisodeTable, Event
from memrl.table_build import fit_lexical_statistics
from memrl.workload_config import ChatConfig, SplitConfig, WorkloadConfig

FIXTURES = Path(__file__).parents[2] / "fixtures"
CHAT = ChatConfig(
    num_documents=5,
    num_sessions=2,
    turns_per_session=14,
    facts_per_document=3,
    update_frac=0.0,
    multi_evidence_frac=0.0,
)
CONFIG = WorkloadConfig(
    window_pages=12,
    max_queries=3,
    train_episodes=3,
    validation_episodes=2,
    test_episodes=4,
    embedder="hashing",
    chat=CHAT,
)
SPLIT = Split(train=(0, 2), validation=(3,), test=(1, 4))


class CountingEmbedder:
    """Counts the texts that it embeds."""

    def __init__(self) -> None:
        self._inner = HashingEmbedder(16)
        self.name, self.dimension = self._inner.name, 16
        self.texts = 0

    def embed(self, texts: Sequence[str]) -> npt.NDArray[np.float32]:
        self.texts += len(texts)
        return self._inner.embed(texts)


def tables_of(folder: Path, config: WorkloadConfig = CONFIG, split: Split = SPLIT) -> Any:
    return build_tables(
        load_workload(config), split, config, embedder=HashingEmbedder(16), cache_folder=folder
    )


# ---------------------------------------------------------------------------------------- splits


def parts(split: Split) -> list[int]:
    return [*split.train, *split.validation, *split.test]


@pytest.mark.parametrize(
    ("fold", "expected"),
    [
        (0, Split((2, 3), (1,), (0,))),
        (2, Split((0, 1), (3,), (2,))),
        (3, Split((1, 2), (0,), (3,))),  # the validation document wraps around
    ],
)
def test_one_document_is_left_out(fold: int, expected: Split) -> None:
    assert split_documents(4, SplitConfig(kind="leave_one_out", fold=fold)) == expected


def test_over_all_folds_every_document_is_tested_once() -> None:
    splits = [split_documents(7, SplitConfig(kind="leave_one_out", fold=i)) for i in range(7)]
    assert [split.test for split in splits] == [(i,) for i in range(7)]
    assert sorted(split.validation[0] for split in splits) == list(range(7))
    assert all(len(split.train) == 5 for split in splits)


@given(
    num_documents=st.integers(3, 60),
    validation_frac=st.floats(0, 0.5),
    test_frac=st.floats(0, 0.5),
)
def test_fractions_divide_all_documents(
    num_documents: int, validation_frac: float, test_frac: float
) -> None:
    config = SplitConfig(validation_frac=validation_frac, test_frac=test_frac)
    num_validation = max(1, round(validation_frac * num_documents))
    num_test = max(1, round(test_frac * num_documents))
    if num_validation + num_test >= num_documents:
        with pytest.raises(ValueError, match="leave none"):
            split_documents(num_documents, config)
        return
    split = split_documents(num_documents, config)
    assert sorted(parts(split)) == list(range(num_documents))
    assert (len(split.validation), len(split.test)) == (num_validation, num_test)
    assert split.train
    assert all(part == tuple(sorted(part)) for part in (split.train, split.validation, split.test))


def test_fractions_are_of_a_fixed_shuffle() -> None:
    first, again = (split_documents(20, SplitConfig()) for _ in range(2))
    assert first == again
    assert parts(first) != list(range(20))


@pytest.mark.parametrize(
    ("num_documents", "config", "message"),
    [
        (2, SplitConfig(), "at least 3 documents.*there are 2"),
        (2, SplitConfig(kind="leave_one_out"), "at least 3 documents"),
        (4, SplitConfig(kind="leave_one_out", fold=4), r"fold 4 is outside 0\.\.3"),
        (4, SplitConfig(kind="leave_one_out", fold=-1), r"fold -1 is outside 0\.\.3"),
        (10, SplitConfig(validation_frac=0.5, test_frac=0.5), "0.5 and test_frac 0.5 leave none"),
    ],
)
def test_splits_that_cannot_be_made(num_documents: int, config: SplitConfig, message: str) -> None:
    with pytest.raises(ValueError, match=message):
        split_documents(num_documents, config)


# ---------------------------------------------------------------------------------------- loading


def test_chats_are_generated_from_their_own_seed() -> None:
    first, again = load_workload(CONFIG), load_workload(CONFIG)
    assert first == again
    assert (first.name, len(first.documents)) == ("chat", 5)
    other = load_workload(replace(CONFIG, chat=replace(CHAT, seed=1)))
    assert other.documents != first.documents
    assert first.provenance


def test_every_parameter_of_the_chats_reaches_the_generator() -> None:
    workload = load_workload(CONFIG)
    described = str(workload.provenance)
    for field in dataclasses.fields(ChatConfig):
        if field.name != "seed":
            assert field.name in described
    longer = load_workload(replace(CONFIG, chat=replace(CHAT, turns_per_session=24)))
    assert len(longer.documents[0].pages) > len(workload.documents[0].pages)


def test_locomo_is_read_from_the_given_folder(tmp_path: Path) -> None:
    workload = load_workload(WorkloadConfig(name="locomo", data_dir=str(FIXTURES)))
    assert workload.name == "locomo"
    assert len(workload.documents) >= 2
    config = WorkloadConfig(name="locomo", data_dir=str(tmp_path))
    with pytest.raises(DataFileMissingError, match="locomo"):
        load_workload(config)


# ---------------------------------------------------------------------------------------- tables


def test_each_part_holds_its_documents_and_episodes(tmp_path: Path) -> None:
    workload = load_workload(CONFIG)
    tables = tables_of(tmp_path)
    ids = [document.document_id for document in workload.documents]
    for table, numbers, episodes in (
        (tables.train, SPLIT.train, 3),
        (tables.validation, SPLIT.validation, 2),
        (tables.test, SPLIT.test, 4),
    ):
        assert table.text.document_ids == [ids[number] for number in numbers]
        assert table.num_episodes == episodes * len(numbers)
        assert table.max_pages == 12
        num_queries = (table.event_kind == Event.QUERY).sum(axis=1)
        assert 1 <= num_queries.min() <= num_queries.max() <= 3
        assert table.meta["workload"] == "chat"


def test_lexical_statistics_are_those_of_the_training_documents(tmp_path: Path) -> None:
    tables = tables_of(tmp_path)
    hashes = [t.meta["lexical_sha256"] for t in (tables.train, tables.validation, tables.test)]
    assert len(set(hashes)) == 1
    other = tables_of(tmp_path, split=Split((0, 1), (3,), (2, 4)))
    assert other.train.meta["lexical_sha256"] != hashes[0]
    # The same validation document, but other training documents: other lexical scores.
    assert tables.validation.text.pages == other.validation.text.pages
    assert not np.array_equal(tables.validation.lexical, other.validation.lexical)
    assert np.array_equal(tables.validation.dense, other.validation.dense)
    workload = load_workload(CONFIG)
    assert fit_lexical_statistics([workload.documents[i] for i in SPLIT.train]) is not None


def test_questions_at_the_end_come_after_the_last_page(tmp_path: Path) -> None:
    tables = tables_of(tmp_path, replace(CONFIG, ask="end"))
    for table in (tables.train, tables.test):
        for episode in range(table.num_episodes):
            kinds = table.event_kind[episode, : table.episode_num_events[episode]].tolist()
            assert kinds == sorted(kinds)
            assert kinds[-1] == Event.QUERY


def test_unanswerable_questions_are_asked_on_request_only(tmp_path: Path) -> None:
    chat = replace(CHAT, facts_per_document=12, num_sessions=4, turns_per_session=24)
    without = replace(CONFIG, max_queries=50, window_pages=120, chat=chat)

    def asked(table: EpisodeTable) -> npt.NDArray[np.bool_]:
        pays = []
        for episode in range(table.num_episodes):
            offset = table.query_offset[table.episode_document[episode]]
            for event in range(int(table.episode_num_events[episode])):
                if table.event_kind[episode, event] == Event.QUERY:
                    pays.append(table.query_pays[offset + table.event_index[episode, event]])
        return np.array(pays)

    assert asked(tables_of(tmp_path, without).train).all()
    assert not asked(tables_of(tmp_path, replace(without, include_unanswerable=True)).train).all()


def test_episodes_do_not_depend_on_anything_but_the_configuration(tmp_path: Path) -> None:
    first, again = tables_of(tmp_path / "a"), tables_of(tmp_path / "b")
    for name in ("train", "validation", "test"):
        assert getattr(first, name).content_hash() == getattr(again, name).content_hash()
    # Validation and test meet other windows than training would from the same documents.
    moved = tables_of(tmp_path, split=Split((1, 4), (3,), (0, 2)))
    assert moved.test.text.document_ids == first.train.text.document_ids
    fewer = min(moved.test.num_episodes, first.train.num_episodes)
    assert not np.array_equal(
        moved.test.episode_first_page[:fewer], first.train.episode_first_page[:fewer]
    )


def test_the_number_of_training_episodes_leaves_the_test_as_it_is(tmp_path: Path) -> None:
    first = tables_of(tmp_path)
    more = tables_of(tmp_path, replace(CONFIG, train_episodes=7))
    assert more.train.num_episodes == 14
    assert more.test.content_hash() == first.test.content_hash()
    assert more.validation.content_hash() == first.validation.content_hash()


def test_tables_are_kept(tmp_path: Path) -> None:
    workload, embedder = load_workload(CONFIG), CountingEmbedder()
    first = build_tables(workload, SPLIT, CONFIG, embedder=embedder, cache_folder=tmp_path)
    embedded = embedder.texts
    assert embedded > 0
    assert len(list((tmp_path / "tables").glob("*.safetensors"))) == 3
    again = build_tables(workload, SPLIT, CONFIG, embedder=embedder, cache_folder=tmp_path)
    assert embedder.texts == embedded
    assert again.train.content_hash() == first.train.content_hash()


def test_by_default_they_are_kept_in_the_cache_and_embedded_as_configured() -> None:
    folder = default_cache_folder() / "tables"
    before = set(folder.glob("*")) if folder.exists() else set()
    config = replace(CONFIG, chat=replace(CHAT, seed=77))
    tables = build_tables(load_workload(config), SPLIT, config)
    assert len(set(folder.glob("*.safetensors")) - before) == 3
    assert tables.train.meta["embedder"] == HashingEmbedder().name


# ---------------------------------------------------------------------------------------- records


def test_the_record_of_the_data_names_source_repairs_and_hashes(tmp_path: Path) -> None:
    workload = replace(load_workload(CONFIG), repairs={"mended": 3})
    tables = tables_of(tmp_path)
    record = data_record(workload, tables)
    assert record == {
        "workload": "chat",
        "provenance": workload.provenance,
        "repairs": {"mended": 3},
        "tables": {
            "train": tables.train.content_hash(),
            "validation": tables.validation.content_hash(),
            "test": tables.test.content_hash(),
        },
    }


def test_the_example_is_small_and_made_once() -> None:
    table = example_table()
    assert table is example_table()
    assert table.num_documents == 4
    assert table.num_episodes == 100
    assert table.max_pages == 100
    assert table.meta["embedder"] == HashingEmbedder().name


def test_documents_without_a_question_are_left_out_and_counted(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    workload = load_workload(CONFIG)
    silent = [0, 2]
    documents = tuple(
        replace(document, queries=()) if number in silent else document
        for number, document in enumerate(workload.documents)
    )
    monkeypatch.setattr(
        loading, "generate_chats", lambda *_: replace(workload, documents=documents)
    )
    loaded = load_workload(CONFIG)
    assert loaded.documents == tuple(documents[number] for number in (1, 3, 4))
    (what,) = loaded.repairs.keys() - workload.repairs.keys()
    assert "no question can be asked within 12 pages" in what
    assert loaded.repairs[what] == 2
    monkeypatch.setattr(
        loading, "generate_chats", lambda *_: replace(workload, documents=documents[:1])
    )
    with pytest.raises(ConfigurationError, match="None of the 1 documents has a query"):
        load_workload(CONFIG)


def test_a_presets_tables_are_those_of_its_split(tmp_path: Path) -> None:
    preset = tmp_path / "small.yaml"
    preset.write_text("workload: {embedder: hashing, train_episodes: 2, validation_episodes: 1}\n")
    few = ("--workload.chat.num_documents", "5", "--paging.capacity", "0.1")
    made, options = preset_tables(preset, *few)
    config = parse_config(["--config", str(preset), *few])
    expected = split_tables(load_workload(config.workload), config.split, config.workload)
    assert made.test.content_hash() == expected.test.content_hash()
    assert made.train.num_episodes == 2 * made.train.num_documents
    assert options == config.paging.resolved(**expected.train.medians())


def test_wrong_needs_are_those_of_training_documents_alone() -> None:
    workload = load_workload(CONFIG)
    right = build_tables(workload, SPLIT, CONFIG, embedder=HashingEmbedder(16))
    config = replace(CONFIG, train_wrong_needs_frac=0.9999)
    wrong = build_tables(workload, SPLIT, config, embedder=HashingEmbedder(16))
    assert wrong.validation.content_hash() == right.validation.content_hash()
    assert wrong.test.content_hash() == right.test.content_hash()
    assert np.array_equal(wrong.train.page_tokens, right.train.page_tokens)
    before, after = right.train.query_needs, wrong.train.query_needs
    assert ((after >= 0) == (before >= 0)).all()
    assert not (after == before)[before >= 0].any()


def test_wrong_needs_are_refused_where_nothing_could_be_replaced() -> None:
    arguments = ("--workload.train_wrong_needs_frac", "0.5")
    with pytest.raises(ConfigurationError, match="has to be 0 in page caches"):
        preset_tables("configs/page_cache.yaml", *arguments)
    with pytest.raises(ValueError, match="train_wrong_needs_frac must lie in"):
        replace(CONFIG, train_wrong_needs_frac=1.5)
