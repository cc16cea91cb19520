"""Page caches: streams of requests that are generated or read from a trace, and windows of them.

The kinds of generated streams, each with parameters of its own drawn within bounds:

    zipf   independent requests; page number r (in a random order) has a share of 1 / r^s
    loop   pages one after the other, over and over: more of them than a cache of their half holds
    scan   `zipf`, again and again interrupted by a run of pages that are requested only once
    shift  uniform requests of a working set, of which a part is exchanged every now and then

A page keeps one size, drawn with log-uniform probability; where capacity counts pages it does not
matter.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import replace
from typing import Literal

import numpy as np
import numpy.typing as npt

from memrl.documents import RequestStream, RequestWindow, Workload
from memrl.request_table import by_first_request

Kind = Literal["zipf", "loop", "scan", "shift"]
Requests = npt.NDArray[np.int64]


def generate_streams(
    *,
    kinds: Sequence[Kind],
    streams_per_kind: int,
    num_requests: int,
    num_pages: int,
    most_tokens: int,
    rng: np.random.Generator,
) -> Workload:
    """Generates streams of requests.

    Args:
        kinds: which kinds, in this order.
        streams_per_kind: streams of each.
        num_requests: requests of a stream.
        num_pages: pages that a stream draws from, at least 8; a scan adds others.
        most_tokens: largest size of a page.
        rng: source of randomness; its seed sequence is advanced by one spawn per kind, and that of
            a kind by one spawn per stream.
    """
    streams = []
    for kind, of_kind in zip(kinds, rng.spawn(len(kinds)), strict=True):
        for number, stream in enumerate(of_kind.spawn(streams_per_kind)):
            requests = _GENERATORS[kind](num_requests, num_pages, stream)
            sizes = np.exp(stream.uniform(0, np.log(most_tokens + 1), int(requests.max()) + 1))
            streams.append(
                make_stream(f"{kind}-{number:02d}", requests, sizes.astype(np.int64), kind)
            )
    parameters: dict[str, object] = {
        "kinds": list(kinds),
        "streams_per_kind": streams_per_kind,
        "num_requests": num_requests,
        "num_pages": num_pages,
        "most_tokens": most_tokens,
    }
    provenance: dict[str, object] = {"generator": "page_cache", "params": parameters}
    return Workload("page_cache", (), provenance, streams=tuple(streams))


def make_stream(
    stream_id: str, requests: Requests, tokens: npt.NDArray[np.int64], kind: str
) -> RequestStream:
    """A stream of requests.

    Args:
        stream_id, kind: see `RequestStream`.
        requests: (T,) pages, any integers from 0.
        tokens: size of each page, by its integer.
    """
    pages, distinct = by_first_request(requests)
    return RequestStream(
        stream_id=stream_id,
        pages=pages.astype(np.int32),
        page_tokens=np.maximum(tokens[distinct], 1),
        page_ids=tuple(str(page) for page in distinct.tolist()),
        kind=kind,
    )


def zipf(num_requests: int, num_pages: int, rng: np.random.Generator) -> Requests:
    """Independent requests by Zipf's law, exponent .6 to 1.2."""
    share = np.arange(1, num_pages + 1) ** -rng.uniform(0.6, 1.2)
    drawn = rng.choice(num_pages, size=num_requests, p=share / share.sum())
    return rng.permutation(num_pages)[drawn]


def loop(num_requests: int, num_pages: int, rng: np.random.Generator) -> Requests:
    """One page after the other, round and round half to all of the pages."""
    length = int(rng.integers(num_pages // 2, num_pages + 1))
    return np.arange(num_requests) % length


def scan(num_requests: int, num_pages: int, rng: np.random.Generator) -> Requests:
    """Zipf's law with scans: runs of as many new pages as a quarter to half of the others."""
    requests = zipf(num_requests, num_pages, rng)
    length = int(rng.integers(num_pages // 4, num_pages // 2 + 1))
    cold = num_pages
    at = int(rng.integers(length, 3 * length))
    while at + length <= num_requests:
        requests[at : at + length] = np.arange(cold, cold + length)
        cold += length
        at += length + int(rng.integers(2 * length, 6 * length))
    return requests


def shift(num_requests: int, num_pages: int, rng: np.random.Generator) -> Requests:
    """Uniform over an eighth to a quarter of the pages, half of which change again and again."""
    size = int(rng.integers(num_pages // 8, num_pages // 4 + 1))
    working_set = rng.permutation(num_pages)[:size]
    parts: list[Requests] = []
    left = num_requests
    while left > 0:
        length = min(left, int(rng.integers(4 * size, 12 * size)))
        parts.append(working_set[rng.integers(size, size=length)])
        others = np.setdiff1d(np.arange(num_pages), working_set)
        half = (size + 1) // 2
        working_set = rng.permutation(working_set)
        working_set[:half] = rng.permutation(others)[:half]
        left -= length
    return np.concatenate(parts)


_GENERATORS: dict[Kind, Callable[[int, int, np.random.Generator], Requests]] = {
    "zipf": zipf,
    "loop": loop,
    "scan": scan,
    "shift": shift,
}

# ---------------------------------------------------------------------- episodes


def whole_streams(
    streams: Sequence[RequestStream], chosen: Sequence[int]
) -> tuple[RequestWindow, ...]:
    """The chosen streams as one window each."""
    return tuple(RequestWindow(number, 0, len(streams[number])) for number in chosen)


def halves(
    streams: Sequence[RequestStream], validation_frac: float
) -> tuple[tuple[RequestWindow, ...], ...]:
    """Train, validation and test: the first half of each stream without and with its end, the rest.

    Args:
        streams: each of 6 requests at least. validation_frac: share of the first half.

    Raises:
        ValueError: if a stream is shorter.
    """
    parts: tuple[list[RequestWindow], ...] = ([], [], [])
    for number, stream in enumerate(streams):
        if len(stream) < 6:
            raise ValueError(
                f"Stream {stream.stream_id!r} has {len(stream)} requests: too few for two halves."
            )
        middle = len(stream) // 2
        cut = min(max(middle - round(validation_frac * middle), 1), middle - 1)
        ends = (0, cut, middle, len(stream))
        for part, start, end in zip(parts, ends, ends[1:], strict=False):
            part.append(RequestWindow(number, start, end - start))
    return tuple(tuple(part) for part in parts)


def random_windows(
    spans: Sequence[RequestWindow], num_requests: int, per_span: int, rng: np.random.Generator
) -> tuple[RequestWindow, ...]:
    """Windows at random places.

    Args:
        spans: parts of streams to take them from.
        num_requests: of a window; a shorter span is taken whole.
        per_span: windows of each.
        rng: its seed sequence is advanced by one spawn per span.
    """
    windows = []
    for span, own in zip(spans, rng.spawn(len(spans)), strict=True):
        length = min(num_requests, span.num_requests)
        starts = own.integers(span.num_requests - length + 1, size=per_span).tolist()
        starts = [span.first_request + start for start in starts]
        windows += [replace(span, first_request=s, num_requests=length) for s in starts]
    return tuple(windows)


def consecutive_windows(
    spans: Sequence[RequestWindow], num_requests: int, per_span: int
) -> tuple[RequestWindow, ...]:
    """Windows side by side, evenly spread over each span where not all are taken.

    Args:
        spans, num_requests: as for `random_windows`; what is left at the end is left out.
        per_span: most windows of a span.
    """
    windows = []
    for span in spans:
        length = min(num_requests, span.num_requests)
        places = span.num_requests // length
        count = min(per_span, places)
        starts = [span.first_request + place * places // count * length for place in range(count)]
        windows += [replace(span, first_request=s, num_requests=length) for s in starts]
    return tuple(windows)


def as_blocks(
    streams: Sequence[RequestStream], windows: Sequence[RequestWindow]
) -> tuple[RequestWindow, ...]:
    """The same windows, each a cluster of statistics of its own, named after where it begins."""
    return tuple(
        replace(window, cluster=f"{streams[window.stream].stream_id}@{window.first_request}")
        for window in windows
    )
