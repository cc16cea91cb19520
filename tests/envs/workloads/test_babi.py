from __future__ import annotations

from collections import Counter
from pathlib import Path

import pytest
from qa_fixtures import recorded_files, write

from envs.workloads.babi import NAMES, file_names, load_babi
from envs.workloads.episodes import told_episodes
from envs.workloads.files import DataFileMissingError, DataFormatError
from envs.workloads.loading import load_workload
from envs.workloads.tables import split_tables
from memrl.document_config import BabiConfig
from memrl.documents import Document, Workload
from memrl.memory.embedders import HashingEmbedder
from memrl.table import Event
from memrl.table_build import build_table, fit_lexical_statistics
from memrl.workload_config import SplitConfig, WorkloadConfig

STORY = (
    "1 Una went to the cellar.\n"
    "2 Otto took the lantern.\n"
    "3 Where is Una? \tcellar\t1\n"
    "4 Una went to the attic.\n"
    "5 Where is Una?\tattic\t4 1\n"
    "6 What did Otto take and where is Una?\tlantern,attic\t2 4\n"
)
OTHER = "1 Ira sat.\n2 Ira slept.\n3 Who slept?\tIra\t2\n"


def load(
    folder: Path, train: str | bytes, test: str | bytes = OTHER, most: int | None = None
) -> Workload:
    for part, text in (("train", train), ("test", test)):
        write(folder / "babi" / file_names(1, part)[0], text)
    return load_babi(folder, tasks=(1,), stories_per_task=most)


def trained(workload: Workload) -> list[Document]:
    return [document for document in workload.documents if not document.is_test]


def test_statements_are_pages_and_questions_are_asked_where_they_stand(tmp_path: Path) -> None:
    workload = load(tmp_path, STORY)
    assert [document.document_id for document in workload.documents] == [
        *("babi-qa01-test-0000", "babi-qa01-train-0000")
    ]
    assert [document.is_test for document in workload.documents] == [True, False]
    (story,) = trained(workload)
    assert [page.text for page in story.pages] == [
        *("Una went to the cellar.", "Otto took the lantern.", "Una went to the attic.")
    ]
    first, second, third = story.queries
    assert (first.text, first.answers, first.needs) == ("Where is Una?", ("cellar",), (0,))
    # Question lines take numbers: line 4 is the third statement.
    assert (second.needs, third.needs) == ((0, 2), (1, 2))
    assert third.answers == ("lantern,attic",)
    assert [query.asked_after for query in story.queries] == [2, 3, 3]
    assert {query.category for query in story.queries} == {"qa01"}
    assert workload.repairs == {}
    assert workload.name == "babi"


def test_episodes_follow_the_story(tmp_path: Path) -> None:
    documents = load(tmp_path, STORY).documents
    episodes = told_episodes(documents)
    assert [(e.document, e.num_pages, e.num_preloaded) for e in episodes] == [(0, 2, 0), (1, 3, 0)]
    assert episodes[1].queries == ((2, 0), (3, 1), (3, 2))
    statistics = fit_lexical_statistics(documents)
    table = build_table(documents, episodes, HashingEmbedder(16), statistics, name="babi")
    page, query = int(Event.MESSAGE), int(Event.QUERY)
    assert table.event_kind[1].tolist() == [page, page, query, page, query, query]


def test_stories_are_read_up_to_a_number(tmp_path: Path) -> None:
    stories = "".join(OTHER.replace("Ira", name) for name in ("Ada", "Bea", "Cas"))
    workload = load(tmp_path, stories, most=2)
    assert len(trained(workload)) == 2
    assert len(trained(load(tmp_path, stories))) == 3


def test_a_repeated_story_is_read_once_from_the_test_file_first(tmp_path: Path) -> None:
    workload = load(tmp_path, STORY + OTHER + STORY, OTHER + OTHER)
    assert [document.is_test for document in workload.documents] == [True, False]
    assert workload.repairs == {"stories that their task has twice dropped": 3}


def test_dirty_stories_are_mended(tmp_path: Path) -> None:
    """Line ends of another system, empty lines, `|` instead of tabs."""
    text = STORY.replace("\t", "|").replace("\n", "\r\n").replace("4 Una", "\n  \n4 Una")
    workload = load(tmp_path, text)
    assert workload.repairs == {"question lines with | instead of tabs mended": 3}
    assert trained(workload)[0].queries == trained(load(tmp_path / "clean", STORY))[0].queries
    assert [page.text for page in trained(workload)[0].pages][2] == "Una went to the attic."


@pytest.mark.parametrize("tabs", [" ", "  ", ""])
def test_questions_without_their_tabs_are_mended(tmp_path: Path, tabs: str) -> None:
    story = trained(load(tmp_path / "clean", STORY))[0]
    workload = load(tmp_path, STORY.replace("\t", tabs))
    assert trained(workload) == [story]
    assert workload.repairs == {"question lines without their tabs mended": 3}
    # One of the two tabs is there.
    assert trained(load(tmp_path, STORY.replace("\t4 1", " 4 1")))[0].queries == story.queries
    assert trained(load(tmp_path, STORY.replace("?\t", "? ")))[0].queries == story.queries


@pytest.mark.parametrize(
    "line", ["4 Where is Una? attic", "4 Where is Una?", "4 Where is Una attic 1",
             "4 Where is Una? the attic 1", "4 Where? Or when? attic 1"]
)  # fmt: skip
def test_what_is_neither_statement_nor_question_is_no_page(tmp_path: Path, line: str) -> None:
    workload = load(tmp_path, f"1 Una sat.\n2 Una slept.\n3 Who?\tUna\t2\n{line}\n")
    assert [page.text for page in trained(workload)[0].pages] == ["Una sat.", "Una slept."]
    assert len(trained(workload)[0].queries) == 1
    what = "lines that are neither a statement nor a whole question dropped"
    assert workload.repairs == {what: 1}


@pytest.mark.parametrize(
    "line", ["4 Where?\there\t9", "4 Where?\there\t3", "4 Where?\there\t4", "4 Where?\there",
             "4 Where?\there\tone", "4 Where?\there\t-1", "4 \there\t1", "4 Where?\there\t1 0"]
)  # fmt: skip
def test_questions_whose_evidence_does_not_resolve_are_dropped(tmp_path: Path, line: str) -> None:
    workload = load(tmp_path, f"1 Una sat.\n2 Una slept.\n3 Who?\tUna\t2\n{line}\n5 And?\tUna\t1\n")
    (story,) = trained(workload)
    assert [query.text for query in story.queries] == ["Who?", "And?"]
    what = "questions whose supporting lines do not come before them dropped"
    assert workload.repairs == {what: 1}


def test_a_question_without_an_answer_is_kept(tmp_path: Path) -> None:
    workload = load(tmp_path, "1 Una sat.\n2 Who?\t\t1\n")
    assert trained(workload)[0].queries[0].answers == ()
    assert workload.repairs == {"questions without an answer kept": 1}


@pytest.mark.parametrize("line", ["no number", "7 Another number.", "2 A number twice.", "1x A."])
def test_a_story_with_a_line_out_of_order_is_dropped_whole(tmp_path: Path, line: str) -> None:
    broken = f"1 Una sat.\n2 Una stood.\n{line}\n3 Who?\tUna\t1\n"
    workload = load(tmp_path, f"{STORY}{broken}{OTHER.replace('Ira', 'Ada')}")
    assert len(trained(workload)) == 2
    assert workload.repairs == {"stories with a line without its number dropped": 1}


def test_a_story_that_asks_or_tells_nothing_is_dropped(tmp_path: Path) -> None:
    workload = load(tmp_path, f"1 Una sat.\n2 Una stood.\n{STORY}1 Who?\tUna\t1\n")
    assert len(trained(workload)) == 1
    assert workload.repairs["stories without a statement or a question dropped"] == 2


@pytest.mark.parametrize("text", ["", "\n\n", "no story", "1 Una sat.\n"])
def test_a_file_without_a_story_is_refused(tmp_path: Path, text: str) -> None:
    with pytest.raises(DataFormatError, match=r"holds no story with a question.*babi"):
        load(tmp_path, text)


def test_bytes_that_are_no_text_are_refused(tmp_path: Path) -> None:
    with pytest.raises(DataFormatError, match=r"qa1_.*train.* is not UTF-8 text"):
        load(tmp_path, STORY.encode() + b"\xff\n")


def test_utf_16_is_said_to_be_that(tmp_path: Path) -> None:
    with pytest.raises(DataFormatError, match=r"qa1_.*train.* is UTF-16 text: convert it"):
        load(tmp_path, STORY.encode("utf-16"))


def test_a_truncated_gzip_is_refused(tmp_path: Path) -> None:
    load(tmp_path, STORY)
    path = tmp_path / "babi" / file_names(1, "train")[0]
    path.write_bytes(path.read_bytes()[:-9])
    with pytest.raises(DataFormatError, match="not a whole gzip file"):
        load_babi(tmp_path, tasks=(1,), stories_per_task=None)


def test_a_missing_file_is_one_clear_error(tmp_path: Path) -> None:
    with pytest.raises(DataFileMissingError, match=r"qa20_agents-motivations_test.*CC BY 3\.0"):
        load_babi(tmp_path, tasks=(20,), stories_per_task=None)


def test_names_of_the_tarball_are_accepted(tmp_path: Path) -> None:
    assert len(NAMES) == 20
    for part, text in (("train", STORY), ("test", OTHER)):
        write(tmp_path / "babi" / file_names(7, part)[2], text)
    workload = load_babi(tmp_path, tasks=(7,), stories_per_task=None)
    assert len(workload.documents) == 2
    assert set(recorded_files(workload)) == {file_names(7, part)[2] for part in ("train", "test")}


# ---------------------------------------------------------------------- tables and real data


def test_tables_of_the_published_split(tmp_path: Path) -> None:
    stories = "".join(STORY.replace("Una", name) for name in ("Ada", "Bea", "Cas", "Dov"))
    load(tmp_path, stories)
    config = WorkloadConfig(
        name="babi",
        data_dir=str(tmp_path),
        embedder="hashing",
        babi=BabiConfig(tasks=(1,), stories_per_task=3),
    )
    workload = load_workload(config)
    tables = split_tables(workload, SplitConfig(kind="published", validation_frac=0.3), config)
    assert [len(t.text.document_ids) for t in (tables.train, tables.validation)] == [2, 1]
    assert tables.test.text.document_ids == ["babi-qa01-test-0000"]
    assert tables.train.episode_num_preloaded.tolist() == [0, 0]
    assert tables.train.episode_num_events.tolist() == [6, 6]
    assert tables.train.text.categories == ["qa01"]


def test_all_tasks_load_whole(data_dir: Path) -> None:
    workload = load_babi(data_dir, tasks=range(1, 21), stories_per_task=None)
    counts = Counter(
        (query.category, document.is_test)
        for document in workload.documents
        for query in document.queries
    )
    # Task 4 repeats stories within its files and between them; nothing else is dropped.
    few = {key: count for key, count in counts.items() if count != 1000}
    assert few.keys() == {("qa04", True), ("qa04", False)}
    assert workload.repairs == {
        "stories that their task has twice dropped": 2000 - sum(few.values())
    }
