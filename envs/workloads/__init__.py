"""Workloads: loaders of data sets and generators, and episodes over them."""

from __future__ import annotations

from collections import Counter

from envs.workloads.babi import load_babi
from envs.workloads.chat import ChatParams, generate_chats
from envs.workloads.document_qa import load_document_qa
from envs.workloads.episodes import sample_episodes
from envs.workloads.locomo import load_locomo
from envs.workloads.nested_kv import generate_nested_kv, load_nested_kv
from memrl.documents import Workload

__all__ = [
    "ChatParams",
    "describe",
    "generate_chats",
    "generate_nested_kv",
    "load_babi",
    "load_document_qa",
    "load_locomo",
    "load_nested_kv",
    "sample_episodes",
]


def describe(workload: Workload) -> str:
    """Summarises a workload for a terminal: sizes, queries by category, repairs."""
    queries = [query for document in workload.documents for query in document.queries]
    shared = {id(document.pages): len(document.pages) for document in workload.documents}
    pages = sum(shared.values())
    paying = sum(query.pays_evidence for query in queries)
    lines = [
        f"{workload.name}: {len(workload.documents):,} documents, {pages:,} pages, "
        f"{len(queries):,} queries ({paying:,} with evidence recall)"
    ]
    sections = {
        "queries by category": dict(Counter(query.category or "-" for query in queries)),
        "repairs": workload.repairs,
    }
    for title, counts in sections.items():
        if counts:
            lines.append(f"{title}:")
            lines += [f"{count:>9,}  {what}" for what, count in counts.items()]
    return "\n".join(lines)
