from __future__ import annotations

from collections import Counter
from pathlib import Path

import numpy as np
import pytest
from msc_fixtures import (
    CHAT,
    dialogue_path,
    dialogue_record,
    summary_path,
    summary_record,
    write_msc,
)
from qa_fixtures import write_lines

from envs.workloads import describe
from envs.workloads.episodes import sample_episodes
from envs.workloads.loading import load_workload
from envs.workloads.msc import NOTE, conversation_pages, load_msc, note_queries
from envs.workloads.msc_records import SESSION_DIFFERS, Session, Turn
from envs.workloads.tables import split_tables
from memrl.config import ConfigurationError
from memrl.conversation_config import MscConfig
from memrl.policies.prior import fit_page_scorer, page_is_needed
from memrl.workload_config import SplitConfig, WorkloadConfig


def test_a_conversation_is_a_document_of_turns(tmp_path: Path) -> None:
    write_msc(tmp_path)
    workload = load_msc(tmp_path)
    document, test = workload.documents
    assert (document.document_id, document.is_test) == ("valid_0", False)
    assert (test.document_id, test.is_test) == ("test_0", True)
    assert [page.text for page in document.pages] == [text for own in CHAT for text, _ in own]
    assert [page.session for page in document.pages] == [0] * 4 + [1] * 2 + [2] * 3 + [3] * 2
    assert [page.role for page in document.pages] == [0, 1, 0, 1, 0, 1, 0, 1, 0, 0, 1]
    assert document.pages[5].rendered == "Speaker 2: I bought a new oven in Ulm."
    assert document.speakers == ("Speaker 1", "Speaker 2")
    assert document.pages[6].source_id == "valid_0/3:1"
    assert workload.name == "msc"


def test_time_is_counted_from_the_first_session(tmp_path: Path) -> None:
    write_msc(tmp_path)
    pages = load_msc(tmp_path).documents[0].pages
    assert list(dict.fromkeys(page.timestamp for page in pages)) == [
        *("first session", "6 days after the first session"),
        *("6 days 3 hours after the first session", "7 days 3 hours after the first session"),
    ]


def test_a_note_asks_for_the_turns_that_it_was_noted_of(tmp_path: Path) -> None:
    write_msc(tmp_path)
    workload = load_msc(tmp_path)
    queries = workload.documents[0].queries
    assert [(query.text, query.needs) for query in queries] == [
        ("I keep three goats.", (0,)),
        ("I bake rye bread.", (1, 8)),
        ("I bought an oven in Ulm.", (5,)),
        ("One of my goats ran away.", (6,)),
        ("My goat came back.", (9,)),
    ]
    assert {query.category for query in queries} == {NOTE}
    # The text is what a right answer would say, so there is no answer to score.
    assert {query.answers for query in queries} == {()}
    assert len({query.source_id for query in queries}) == 5
    assert all(query.pays_evidence and query.asked_after is None for query in queries)
    assert workload.repairs == {"notes of several turns of a conversation asked once": 2}
    assert "10 queries (10 with evidence recall)" in describe(workload)


def test_pages_without_a_note_ask_nothing() -> None:
    (query,) = note_queries("d", ["", "a", ""], Counter())
    assert query.needs == (1,)


def test_a_time_that_nothing_states_counts_as_none() -> None:
    turns = (Turn("Hello.", 0),)
    sessions = [Session(turns, 25), Session(turns), Session(turns, 2)]
    repairs: Counter[str] = Counter()
    pages = conversation_pages("d", sessions, repairs)
    assert [page.timestamp for page in pages] == [
        *("first session", "1 day 1 hour after the first session"),
        "1 day 1 hour after the first session",
    ]
    assert repairs == {"times between sessions that nothing states taken as none": 1}


def test_conversations_are_read_up_to_a_number_of_each_part(tmp_path: Path) -> None:
    write_msc(tmp_path, ("a", "b", "c"), ("d", "e"))
    few = load_msc(tmp_path, conversations_per_part=2).documents
    assert [document.document_id for document in few] == ["a", "b", "d", "e"]
    assert len(load_msc(tmp_path).documents) == 5


def test_the_page_scorer_is_fitted_on_what_was_noted(tmp_path: Path) -> None:
    """Where nothing but notes is asked, the pages that are needed are those that people noted."""
    names = tuple(f"valid_{number}" for number in range(8))
    write_msc(tmp_path, names)
    config = WorkloadConfig(
        name="msc",
        data_dir=str(tmp_path),
        embedder="hashing:16",
        ask="end",
        window_pages=11,
        max_queries=3,
        train_episodes=2,
    )
    workload = load_workload(config)
    split = SplitConfig(kind="published", validation_frac=0.2)
    tables = split_tables(workload, split, config)
    assert tables.test.text.document_ids == ["test_0"]
    assert len(tables.train.text.document_ids) == 6
    noted = [bool(note) for own in CHAT for _, note in own]
    assert page_is_needed(tables.train).reshape(6, 11).tolist() == [noted] * 6
    scorer, logits = fit_page_scorer(tables.train)
    assert scorer.penalty > 0
    mean = logits.reshape(6, 11).mean(axis=0)
    assert mean[np.array(noted)].mean() > mean[~np.array(noted)].mean()


def test_notes_are_asked_after_their_turns(tmp_path: Path) -> None:
    write_msc(tmp_path)
    documents = load_msc(tmp_path).documents
    for ask in ("interleaved", "end"):
        episodes = sample_episodes(
            documents,
            window_pages=9,
            max_queries=2,
            ask=ask,
            episodes_per_document=20,
            rng=np.random.default_rng(0),
        )
        asked = [
            (arrived, episode.first_page, documents[episode.document].queries[number])
            for episode in episodes
            for arrived, number in episode.queries
        ]
        assert len(asked) > 40
        assert all(first + arrived > query.needs[-1] for arrived, first, query in asked)
        assert all(arrived == 9 for arrived, _, _ in asked) == (ask == "end")


def test_conversations_without_notes_cannot_be_asked_about(tmp_path: Path) -> None:
    """Those of the other layout alone: nobody noted anything there."""
    for part in ("valid", "test"):
        write_lines(dialogue_path(tmp_path, 4, part), [dialogue_record(f"{part}_0", 4)])
    workload = load_msc(tmp_path)
    assert [len(document.pages) for document in workload.documents] == [11, 11]
    assert not any(document.queries for document in workload.documents)
    with pytest.raises(ConfigurationError, match="None of the 2 documents has a query"):
        load_workload(WorkloadConfig(name="msc", data_dir=str(tmp_path)))


def test_the_number_of_conversations_is_the_configurations(tmp_path: Path) -> None:
    write_msc(tmp_path, ("a", "b", "c"))
    for most, documents in ((None, 4), (1, 2)):
        config = WorkloadConfig(
            name="msc", data_dir=str(tmp_path), msc=MscConfig(conversations_per_part=most)
        )
        assert len(load_workload(config).documents) == documents


def test_a_conversation_of_one_page_without_a_note_is_left_out(tmp_path: Path) -> None:
    write_msc(tmp_path, ("a", "b"))
    dull = summary_record("a", 1, dialog=[{"text": "Hi.", "id": "bot_0"}])
    write_lines(summary_path(tmp_path, 1), [dull, summary_record("b", 1)])
    for session in (2, 3, 4):
        write_lines(summary_path(tmp_path, session), [summary_record("b", session)])
        dialogue_path(tmp_path, session).unlink(missing_ok=True)
    workload = load_workload(WorkloadConfig(name="msc", data_dir=str(tmp_path)))
    assert [document.document_id for document in workload.documents] == ["b", "test_0"]
    what = "documents left out: no question can be asked within 150 pages"
    assert workload.repairs[what] == 1


def test_the_whole_data_set(data_dir: Path) -> None:
    workload = load_msc(data_dir)
    documents = workload.documents
    assert len(documents) == 735
    assert sum(document.is_test for document in documents) == 370
    assert sum(len(document.pages) for document in documents) == 36_572
    assert {page.session for document in documents for page in document.pages} == {0, 1, 2, 3}
    noted = {
        (document.document_id, page)
        for document in documents
        for query in document.queries
        for page in query.needs
    }
    assert len(noted) == 24_116  # 66 % of the turns
    assert workload.repairs == {
        "notes of several turns of a conversation asked once": 278,
        SESSION_DIFFERS: 21,
    }
