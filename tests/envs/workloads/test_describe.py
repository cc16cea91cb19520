from __future__ import annotations

from envs.workloads import describe
from memrl.documents import Document, Page, Query, Workload


def test_describe_counts_everything() -> None:
    queries = (
        Query("a?", (0,), "single"),
        Query("b?", (0, 1), "list"),
        Query("c?", (), "single"),
        Query("d?", (1,), "", answerable=False),
    )
    documents = tuple(Document(str(index), (Page("x"), Page("y")), queries) for index in range(600))
    repairs = {"derived evidence: a turn": 7, "things mended": 12, "errata applied": 0}
    workload = Workload("demo", documents, repairs=repairs)
    assert describe(workload).splitlines() == [
        "demo: 600 documents, 1,200 pages, 2,400 queries (1,200 with evidence recall)",
        "queries by category:",
        "    1,200  single",
        "      600  list",
        "      600  -",
        "repairs:",
        "       12  things mended",
        "        0  errata applied",
        "evidence not marked by the source:",
        "        7  derived evidence: a turn",
    ]


def test_describe_leaves_out_empty_sections() -> None:
    text = describe(Workload("empty", (Document("d", (Page("x"),), ()),)))
    assert text == "empty: 1 documents, 1 pages, 0 queries (0 with evidence recall)"
