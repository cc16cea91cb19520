"""Build the `EpisodeTable` of a page cache: requests, and pages that have nothing but a size."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

import numpy as np
import numpy.typing as npt

from memrl.documents import RequestStream, RequestWindow
from memrl.table import (
    QUERY_SURFACE,
    SURFACE,
    TABLE_VERSION,
    EpisodeTable,
    Event,
    TableText,
)

MOST_TOKENS = 2**31 - 1
"""Largest size that a table holds."""


def build_request_table(
    streams: Sequence[RequestStream], windows: Sequence[RequestWindow], *, name: str
) -> EpisodeTable:
    """Tensorise windows of streams, one document each.

    Pages of a window are numbered by their first request in it, so that a page's number tells no
    more than when it was first seen. There are no queries, embeddings or scores.

    Args:
        streams: what the windows index. windows: the episodes.
        name: the workload's name, for provenance.

    Raises:
        ValueError: if there is no window, or one reaches outside its stream.
    """
    if not windows:
        raise ValueError(f"Workload {name!r} has no episode: nothing to tensorise.")
    numbered = [_numbered(streams, number, window) for number, window in enumerate(windows)]
    counts = [len(pages) for _, pages in numbered]
    page_offset = np.concatenate([[0], np.cumsum(counts)]).astype(np.int64)
    num_pages, num_documents = int(page_offset[-1]), len(windows)
    used = [streams[window.stream] for window in windows]
    own = list(zip(used, (pages for _, pages in numbered), strict=True))
    tokens = np.concatenate([stream.page_tokens[pages] for stream, pages in own])
    if tokens.min() < 1 or tokens.max() > MOST_TOKENS:
        raise ValueError(f"Workload {name!r} has pages whose size is outside 1..{MOST_TOKENS}.")
    units = [
        window.cluster or stream.stream_id for window, stream in zip(windows, used, strict=True)
    ]
    return EpisodeTable(
        page_offset=page_offset[:-1],
        page_count=np.array(counts, dtype=np.int64),
        query_offset=np.zeros(num_documents + 1, dtype=np.int64),
        page_score_base=np.zeros(num_documents, dtype=np.int64),
        query_score_base=np.zeros(num_documents, dtype=np.int64),
        score_stride=np.zeros(num_documents, dtype=np.int64),
        page_tokens=tokens.astype(np.int32),
        page_surface=np.zeros((num_pages, len(SURFACE)), dtype=np.float32),
        page_speaker=np.full(num_pages, -1, dtype=np.int64),
        page_names=np.zeros(num_pages, dtype=np.int64),
        page_prior=np.zeros(num_pages, dtype=np.float32),
        page_embedding=np.zeros((num_pages, 0), dtype=np.float16),
        dense=np.zeros(max(counts), dtype=np.int16),
        lexical=np.zeros(max(counts), dtype=np.int16),
        **_no_queries(),
        **_events([requests for requests, _ in numbered]),
        episode_document=np.arange(num_documents),
        episode_first_page=np.zeros(num_documents, dtype=np.int64),
        episode_num_pages=np.array(counts, dtype=np.int64),
        episode_num_preloaded=np.zeros(num_documents, dtype=np.int64),
        text=TableText(
            pages=[""] * num_pages,
            queries=[],
            answers=[],
            document_ids=units,
            clusters=units,
            page_ids=[stream.page_ids[page] for stream, pages in own for page in pages],
            query_ids=[],
            categories=[],
            request_kinds=[stream.kind for stream in used],
        ),
        meta={"version": TABLE_VERSION, "workload": name},
    )


def _numbered(
    streams: Sequence[RequestStream], number: int, window: RequestWindow
) -> tuple[npt.NDArray[np.int64], npt.NDArray[np.int64]]:
    """The window's requests as its own page numbers, and the stream's page of each number."""
    stream = streams[window.stream]
    end = window.first_request + window.num_requests
    if window.first_request < 0 or window.num_requests < 1 or end > len(stream):
        raise ValueError(
            f"Window {number} spans requests {window.first_request}..{end} of stream "
            f"{stream.stream_id!r}, which has {len(stream)}."
        )
    return by_first_request(stream.pages[window.first_request : end])


def by_first_request(
    pages: npt.NDArray[Any],
) -> tuple[npt.NDArray[np.int64], npt.NDArray[Any]]:
    """Number pages in the order in which they are first requested.

    Args:
        pages: (T,) anything that can be sorted.

    Returns:
        (T,) numbers, and the page of each number.
    """
    distinct, first, inverse = np.unique(pages, return_index=True, return_inverse=True)
    order = np.argsort(first)
    rank = np.empty_like(order)
    rank[order] = np.arange(len(order))
    return rank[inverse].astype(np.int64), distinct[order]


def _no_queries() -> dict[str, Any]:
    return {
        "query_embedding": np.zeros((0, 0), dtype=np.float16),
        "query_surface": np.zeros((0, len(QUERY_SURFACE)), dtype=np.float32),
        "query_names": np.zeros(0, dtype=np.int64),
        "query_needs": np.full((0, 1), -1, dtype=np.int32),
        "query_route": np.full((0, 1), -1, dtype=np.int32),
        "query_pays": np.zeros(0, dtype=bool),
        "query_category": np.zeros(0, dtype=np.int64),
    }


def _events(requests: Sequence[npt.NDArray[np.int64]]) -> dict[str, Any]:
    lengths = np.array([len(row) for row in requests], dtype=np.int64)
    happens = np.arange(lengths.max()) < lengths[:, None]
    index = np.zeros(happens.shape, dtype=np.int32)
    index[happens] = np.concatenate(requests)
    kind = np.where(happens, Event.REQUEST, 0).astype(np.int16)
    return {"episode_num_events": lengths, "event_kind": kind, "event_index": index}
