"""Workloads: loaders of data sets and generators, and episodes over them."""

from __future__ import annotations

from collections import Counter
from collections.abc import Sequence

from envs.workloads.babi import load_babi
from envs.workloads.chat import ChatParams, generate_chats
from envs.workloads.dmr import load_dmr
from envs.workloads.document_qa import load_document_qa
from envs.workloads.episodes import sample_episodes
from envs.workloads.files import unknown_files
from envs.workloads.locomo import load_locomo
from envs.workloads.msc import load_msc
from envs.workloads.nested_kv import generate_nested_kv, load_nested_kv
from envs.workloads.opener import load_openers
from envs.workloads.page_cache import generate_streams
from envs.workloads.traces import load_trace
from memrl.documents import Workload
from memrl.errors import listed

__all__ = [
    "ChatParams",
    "describe",
    "generate_chats",
    "generate_nested_kv",
    "generate_streams",
    "is_derived",
    "load_babi",
    "load_dmr",
    "load_document_qa",
    "load_locomo",
    "load_msc",
    "load_nested_kv",
    "load_openers",
    "load_trace",
    "sample_episodes",
    "version_warning",
]

_MOST_NAMES = 4  # of files in a warning


def is_derived(what: str) -> bool:
    """Whether an entry of `Workload.repairs` counts evidence that the source does not mark."""
    return what.startswith("derived evidence")


def describe(workload: Workload) -> str:
    """Summarises a workload for a terminal: sizes, kinds, repairs, derived evidence.

    Where it was read from a file of an unknown version, the last line warns of it.
    """
    if workload.streams:
        return _describe_streams(workload)
    queries = [query for document in workload.documents for query in document.queries]
    shared = {id(document.pages): len(document.pages) for document in workload.documents}
    pages = sum(shared.values())
    paying = sum(query.pays_evidence for query in queries)
    lines = [
        f"{workload.name}: {len(workload.documents):,} documents, {pages:,} pages, "
        f"{len(queries):,} queries ({paying:,} with evidence recall)"
    ]
    categories = dict(Counter(query.category or "-" for query in queries))
    return "\n".join([*lines, *_sections({"queries by category": categories}, workload)])


def _describe_streams(workload: Workload) -> str:
    streams, kinds = workload.streams, Counter[str]()
    for stream in streams:
        kinds[stream.kind] += len(stream)
    lines = [
        f"{workload.name}: {len(streams):,} streams, {kinds.total():,} requests of "
        f"{sum(len(stream.page_ids) for stream in streams):,} pages"
    ]
    return "\n".join([*lines, *_sections({"requests by kind": dict(kinds)}, workload)])


def _sections(sections: dict[str, dict[str, int]], workload: Workload) -> list[str]:
    lines = []
    done: dict[str, dict[str, int]] = {"repairs": {}, "evidence not marked by the source": {}}
    for what, count in workload.repairs.items():
        done["evidence not marked by the source" if is_derived(what) else "repairs"][what] = count
    for title, counts in (sections | done).items():
        if counts:
            lines.append(f"{title}:")
            lines += [f"{count:>9,}  {what}" for what, count in counts.items()]
    unknown = unknown_files(workload.provenance)
    if unknown:
        lines.append(f"warning: {version_warning(unknown)}")
    return lines


def version_warning(names: Sequence[str]) -> str:
    """Says in one sentence that files are of a version that nobody compared results with.

    Args:
        names: of the files; the first ones are named.
    """
    return (
        f"{listed(names, _MOST_NAMES)}: not a version known by its sha256, so that results may not "
        "compare with published ones; the run records the sha256."
    )
