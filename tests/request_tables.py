"""Tables of request strings, for tests of page caches."""

from __future__ import annotations

from collections.abc import Sequence

import numpy as np

from memrl.documents import RequestStream, RequestWindow
from memrl.options import PagingOptions
from memrl.request_table import build_request_table, by_first_request
from memrl.table import EpisodeTable


def stream_of(
    requests: Sequence[int], tokens: Sequence[int] | None = None, name: str = "s"
) -> RequestStream:
    """A stream of requests; tokens is the size of each page by its number, 1 by default."""
    pages, distinct = by_first_request(np.array(requests))
    sizes = [1] * len(distinct) if tokens is None else [tokens[page] for page in distinct]
    return RequestStream(
        stream_id=name,
        pages=pages.astype(np.int32),
        page_tokens=np.array(sizes, dtype=np.int64),
        page_ids=tuple(f"{name}/{page}" for page in distinct),
        kind="by hand",
    )


def request_table(
    strings: Sequence[Sequence[int]], tokens: Sequence[int] | None = None
) -> EpisodeTable:
    """One episode for each string of requests."""
    streams = [stream_of(string, tokens, f"s{i}") for i, string in enumerate(strings)]
    windows = [RequestWindow(i, 0, len(string)) for i, string in enumerate(strings)]
    return build_request_table(streams, windows, name="by hand")


def cache_options(capacity: int, **fields: object) -> PagingOptions:
    """Options of a page cache of so many places."""
    defaults: dict[str, object] = {
        "capacity": capacity,
        "num_slots": capacity,
        "archival_capacity": 0,
        "num_candidates": 0,
        "evict_scope": "any",
    }
    return PagingOptions(**(defaults | fields))  # type: ignore[arg-type]
