"""Recall@k of rankings and support of answers, against a table worked out by hand."""

from __future__ import annotations

import io

import pytest
from rich.console import Console
from table_fixtures import small_table, with_scores

from envs.batched import paging_group
from memrl.config import RunConfig, run_settings
from memrl.documents import Document, Episode, Page, Query
from memrl.evaluation.entry import Entry
from memrl.evaluation.play import play
from memrl.evaluation.retrieval import ranking_recall, recall_table, support_table
from memrl.evaluation.summary import summarize
from memrl.evaluation.terminal import detail_tables, markdown_table, print_details
from memrl.memory.embedders import HashingEmbedder
from memrl.options import PagingOptions
from memrl.policies.heuristics import StoreAndRetrieve
from memrl.table import EpisodeTable
from memrl.table_build import build_table, fit_lexical_statistics
from memrl.workload_config import WorkloadConfig

OPTIONS = PagingOptions(capacity=4, num_slots=4, archival_capacity=None, num_candidates=2)


def library(*needs: tuple[int, ...], route: tuple[int, ...] = ()) -> EpisodeTable:
    """Four passages in archival and one question an episode; the first ranks 3, 2, 1, 0 densely."""
    pages = tuple(Page(f"passage {word}") for word in ("one", "two", "three", "four"))
    queries = tuple(Query("which?", own, category="kind", route=route) for own in needs)
    document = Document("d", pages, queries)
    episodes = [Episode(0, 0, 4, ((4, number),), 4) for number in range(len(queries))]
    statistics = fit_lexical_statistics([document])
    table = build_table([document], episodes, HashingEmbedder(8), statistics, name="library")
    for number in range(len(queries)):
        table = with_scores(table, query=number, dense=(0.1, 0.2, 0.3, 0.4), lexical=[0] * 4)
    return table


def test_recall_by_ranking_and_k() -> None:
    # Of the ranking 3, 2, 1, 0 the first page, and the third and the fourth one, are needed.
    recalls = ranking_recall(library((3,), (0, 1)), OPTIONS, paging_group)
    assert list(recalls) == ["dense", "lexical", "hybrid", "hybrid_neighbours"]
    assert recalls["dense"] == {"1": 0.5, "2": 0.5}
    # Without a lexical score, pages rank in their order: 0, 1, 2, 3.
    assert recalls["lexical"] == {"1": 0.25, "2": 0.5}
    columns, rows = recall_table(recalls)
    assert columns == ["ranking", "recall@1", "recall@2"]
    assert rows[1] == ["lexical", "0.250", "0.500"]
    assert rows[3][0] == "hybrid + neighbours"


def test_questions_without_needs_are_left_out() -> None:
    recalls = ranking_recall(library((3,), ()), OPTIONS, paging_group)
    assert recalls["dense"] == {"1": 1.0, "2": 1.0}


def test_no_recall_where_pages_arrive_or_routes_lead_on() -> None:
    options = PagingOptions(capacity=4, num_slots=4)
    assert ranking_recall(small_table(0), options, paging_group) == {}
    assert ranking_recall(library((3,), route=(1,)), OPTIONS, paging_group) == {}


def test_support_of_what_was_retrieved() -> None:
    """Two of the ranking 3, 2, 1, 0 are retrieved: one of one, none of two, all of two needs."""
    table = library((2,), (0, 1), (2, 3))
    policy = StoreAndRetrieve(top_k=2)
    records = play(paging_group(table, OPTIONS, 3), policy, [0, 1, 2])
    assert [record.support for record in records] == [
        {"pages": 2.0, "precision": 0.5, "f1": pytest.approx(2 / 3), "em": 0.0},
        {"pages": 2.0, "precision": 0.0, "f1": 0.0, "em": 0.0},
        {"pages": 2.0, "precision": 1.0, "f1": 1.0, "em": 1.0},
    ]
    settings = run_settings(RunConfig(workload=WorkloadConfig(name="document_qa")))
    results = summarize([Entry("top 2", False, {}, [{}], records, [0] * 3)], [], settings)
    assert support_table(results["policies"]) == (
        ["policy", "pages / q", "precision", "recall", "F1", "EM"],
        [["top 2", "2.0", "0.500", "0.667", "0.556", "0.333"]],
    )
    results["ranking_recall"] = ranking_recall(table, OPTIONS, paging_group)
    titles = [title for title, _, _ in detail_tables(results)]
    assert len(titles) == 3
    file = io.StringIO()
    print_details(results, Console(file=file, width=180))
    for text in (file.getvalue(), markdown_table(results)):
        assert "recall@2" in text
        assert "0.556" in text
    assert "Pages in main context at the answer against the needs." in markdown_table(results)


def test_support_is_of_documents_alone() -> None:
    records = play(paging_group(library((2,)), OPTIONS, 1), StoreAndRetrieve(top_k=2), [0])
    entry = Entry("top 2", False, {}, [{}], records, [0])
    results = summarize([entry], [], run_settings(RunConfig()))
    assert [title.split(":")[0] for title, _, _ in detail_tables(results)] == ["by category"]
