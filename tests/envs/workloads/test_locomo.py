from __future__ import annotations

import gzip
import hashlib
import json
import shutil
from pathlib import Path

import pytest
from qa_fixtures import recorded_files

from envs.workloads.locomo import load_locomo
from memrl.documents import Document, PageKind, Query, Workload

FIXTURES = Path(__file__).parents[2] / "fixtures"


@pytest.fixture(scope="module")
def workload() -> Workload:
    return load_locomo(FIXTURES)


@pytest.fixture(scope="module")
def uncorrected() -> Workload:
    return load_locomo(FIXTURES, correct_evidence=False, mask_wrong_answers=False)


def by_index(document: Document) -> dict[int, Query]:
    return {int(query.source_id.rsplit("/", 1)[1]): query for query in document.queries}


def test_pages_come_in_numeric_session_order(workload: Workload) -> None:
    document = workload.documents[0]
    assert document.document_id == "made-up-1"
    assert document.speakers == ("Orla", "Bram")
    assert [page.source_id for page in document.pages] == [
        *("D1:1", "D1:2", "D1:3", "D2:1", "D2:2", "D2:3", "D10:1")
    ]
    assert [page.session for page in document.pages] == [0, 0, 0, 1, 1, 1, 2]
    assert [page.role for page in document.pages] == [0, 0, 1, 1, 0, 0, 1]
    assert document.pages[0].timestamp == "12:40 pm on 1 June, 2030"
    assert document.pages[6].timestamp == "9:00 am on 4 July, 2030"
    assert document.pages[1].rendered == "Orla: A heron stood at the pier this morning."


def test_captions_follow_the_text_in_brackets(workload: Workload) -> None:
    pages = workload.documents[0].pages
    assert pages[6].text == "The new sail is red. [shows a picture: a boat with a red sail]"
    assert pages[5].text == "[shows a picture: a loaf on a table]"
    kinds = [page.kind for page in pages]
    assert kinds == [PageKind.TEXT] * 5 + [PageKind.CAPTIONED_IMAGE] * 2


def test_without_captions_a_turn_that_only_shows_a_picture_is_dropped() -> None:
    workload = load_locomo(FIXTURES, captions=False)
    pages = workload.documents[0].pages
    assert [page.source_id for page in pages][-2:] == ["D2:2", "D10:1"]
    assert pages[-1].text == "The new sail is red."
    assert pages[-1].kind is PageKind.CAPTIONED_IMAGE
    assert workload.repairs["turns without a speaker or without content dropped"] == 4


def test_evidence_is_mended_and_sorted(uncorrected: Workload) -> None:
    queries = by_index(uncorrected.documents[0])
    assert queries[0].needs == (1,)
    assert queries[1].needs == (3,)  # D:2:1
    assert queries[2].needs == (0, 4)  # "D1:1; D2:2"
    assert queries[3].needs == (1, 2, 3)  # "D2:1 D1:3 D1:2"
    assert queries[4].needs == (3,)  # D02:01
    assert queries[5].needs == (6,)  # "D" dropped
    assert queries[6].needs == ()
    assert queries[7].needs == (1, 2)  # D1:2 twice
    assert queries[8].needs == ()  # D2:9 does not exist
    assert queries[16].needs == (0,)  # a string instead of a list


def test_only_answerable_queries_with_needs_pay(uncorrected: Workload) -> None:
    queries = by_index(uncorrected.documents[0])
    assert [index for index, query in queries.items() if not query.pays_evidence] == [6, 8, 9, 10]
    assert [index for index, query in queries.items() if not query.answerable] == [9, 10]
    assert queries[9].needs == (3,)  # what the source cites stays


def test_answers_and_categories(uncorrected: Workload) -> None:
    queries = by_index(uncorrected.documents[0])
    assert queries[0].answers == ("a heron",)
    assert queries[1].answers == ("2019",)
    assert queries[9].answers == queries[10].answers == queries[11].answers == ()
    categories = [queries[index].category for index in (2, 1, 6, 0, 9)]
    assert categories == ["multi_hop", "temporal", "open_domain", "single_hop", "adversarial"]


def test_unusable_questions_are_dropped_and_the_index_is_kept(uncorrected: Workload) -> None:
    queries = by_index(uncorrected.documents[0])
    assert sorted(queries) == [*range(12), 16]
    # The same question twice stays two questions.
    assert queries[0].text == queries[7].text


def test_every_repair_is_counted(uncorrected: Workload) -> None:
    assert uncorrected.repairs == {
        "adversarial questions without an answer kept": 1,
        "answerable questions without an answer kept": 1,
        "answers of adversarial questions ignored": 1,
        "conversations without an id named by their position": 2,
        "conversations without questions kept": 1,
        "conversations without turns dropped": 2,
        "dates of sessions that do not exist ignored": 3,
        "duplicate evidence ids dropped": 1,
        "evidence entries without a turn id dropped": 1,
        "evidence given as one string read as a list": 1,
        "evidence ids of turns that do not exist dropped": 1,
        "evidence strings with several ids split": 2,
        "malformed evidence ids mended": 2,
        "numeric answers turned into text": 1,
        "questions left without evidence kept (no evidence recall)": 2,
        "questions repeated within their conversation kept": 1,
        "questions without text or with an unknown category dropped": 4,
        "sessions without a date kept": 1,
        "speakers missing from a conversation's header added": 3,
        "turns with a repeated id kept; evidence means the first": 1,
        "turns without a speaker or without content dropped": 3,
        "turns without a valid id named by their position": 1,
    }


def test_damaged_conversations(workload: Workload) -> None:
    assert [document.document_id for document in workload.documents] == [
        *("made-up-1", "made-up-2", "conversation-3")
    ]
    second, fourth = workload.documents[1:]
    assert second.queries == ()
    assert [page.source_id for page in second.pages] == ["D1:1", "D1:2", "D1:1", "D1:4"]
    assert second.speakers == ("Pia", "Quentin", "Rosa")
    assert [page.role for page in second.pages] == [0, 1, 1, 2]
    assert second.pages[0].timestamp == ""
    assert fourth.speakers == ("Sven", "Tove")
    assert fourth.pages[0].session == 0
    assert fourth.queries[0].needs == (0,)


def test_errata_correct_evidence_and_mask_answers(workload: Workload) -> None:
    queries = by_index(workload.documents[0])
    assert queries[0].needs == (1, 2)
    assert queries[0].answers == ("a heron",)  # the evidence was wrong, not the answer
    assert queries[2].needs == (0,)
    assert queries[2].answers == ()
    assert queries[3].needs == (1, 2, 3)  # null: cited evidence stays
    assert queries[3].answers == ()
    assert queries[4].needs == (3,)
    assert queries[5].needs == (6,)  # one corrected id does not exist
    assert queries[9].needs == (4,)
    assert workload.repairs["evidence corrected by errata"] == 3
    assert workload.repairs["wrong answers masked by errata"] == 2
    unresolved = "errata with evidence that does not resolve: needs left as cited"
    assert workload.repairs[unresolved] == 1
    assert workload.repairs["errata entries that match no question ignored"] == 1


def test_each_correction_can_be_left_out() -> None:
    only_evidence = by_index(load_locomo(FIXTURES, mask_wrong_answers=False).documents[0])
    assert (only_evidence[2].needs, only_evidence[2].answers) == ((0,), ("soup, bread",))
    only_answers = by_index(load_locomo(FIXTURES, correct_evidence=False).documents[0])
    assert (only_answers[2].needs, only_answers[2].answers) == ((0, 4), ())


def test_provenance_names_file_hash_and_options(workload: Workload) -> None:
    files = recorded_files(workload)
    assert set(files) == {"locomo10.json", "errata.json"}
    for name, own in files.items():
        content = (FIXTURES / "locomo" / name).read_bytes()
        assert own == {"sha256": hashlib.sha256(content).hexdigest(), "version": "unknown"}
    options = {"correct_evidence": True, "mask_wrong_answers": True, "captions": True}
    assert workload.provenance["options"] == options
    json.dumps(workload.provenance)


def test_compressed_files_load_alike(tmp_path: Path, workload: Workload) -> None:
    folder = tmp_path / "locomo"
    folder.mkdir()
    raw = (FIXTURES / "locomo" / "locomo10.json").read_bytes()
    (folder / "locomo10.json.gz").write_bytes(gzip.compress(raw))
    shutil.copy(FIXTURES / "locomo" / "errata.json", folder)
    assert load_locomo(tmp_path).documents == workload.documents


def test_data_dir_from_environment(monkeypatch: pytest.MonkeyPatch, workload: Workload) -> None:
    monkeypatch.setenv("MEMRL_DATA", str(FIXTURES))
    assert load_locomo(None).documents == workload.documents
    monkeypatch.setenv("MEMRL_DATA", "/nowhere")
    assert load_locomo(FIXTURES).documents == workload.documents


def test_real_data(data_dir: Path) -> None:
    plain = load_locomo(data_dir, correct_evidence=False, mask_wrong_answers=False)
    documents = plain.documents
    if "locomo7.json.gz" not in recorded_files(plain):
        pytest.skip("the expected counts are those of the seven-conversation file")
    assert [document.document_id for document in documents] == [
        *("conv-26", "conv-30", "conv-42", "conv-43", "conv-48", "conv-49", "conv-50")
    ]
    assert sum(len(document.pages) for document in documents) == 3855
    assert sum(document.pages[-1].session + 1 for document in documents) == 181
    queries = [query for document in documents for query in document.queries]
    by_category = {name: 0 for name in ("multi_hop", "temporal", "open_domain", "single_hop")}
    by_category["adversarial"] = 0
    for query in queries:
        by_category[query.category] += 1
    assert list(by_category.values()) == [201, 236, 68, 610, 330]
    assert all(query.answers for query in queries if query.answerable)
    assert all(
        set(page.speaker for page in document.pages) == set(document.speakers)
        for document in documents
    )
    # 99.65 % of the questions resolve: all but four without evidence and one dangling id.
    assert plain.repairs == {
        "adversarial questions without an answer kept": 328,
        "answers of adversarial questions ignored": 2,
        "dates of sessions that do not exist ignored": 16,
        "duplicate evidence ids dropped": 1,
        "evidence entries without a turn id dropped": 1,
        "evidence ids of turns that do not exist dropped": 1,
        "evidence strings with several ids split": 4,
        "malformed evidence ids mended": 2,
        "numeric answers turned into text": 6,
        "questions left without evidence kept (no evidence recall)": 4,
        "questions repeated within their conversation kept": 12,
    }


def test_real_errata(data_dir: Path) -> None:
    workload = load_locomo(data_dir)
    if set(recorded_files(workload)) != {"locomo7.json.gz", "errata.json"}:
        pytest.skip("the expected counts are those of the seven-conversation file with its errata")
    # Of 119 entries 79 concern the answer; 73 name other evidence than the source, of which two
    # name what a malformed id of the source means once mended.
    assert workload.repairs["wrong answers masked by errata"] == 79
    assert workload.repairs["evidence corrected by errata"] == 71
    unresolved = "errata with evidence that does not resolve: needs left as cited"
    assert unresolved not in workload.repairs
    assert "errata entries that match no question ignored" not in workload.repairs
