"""Generated streams of requests, and windows of them."""

from __future__ import annotations

import numpy as np
import pytest

from envs.workloads.page_cache import (
    as_blocks,
    consecutive_windows,
    generate_streams,
    halves,
    loop,
    make_stream,
    random_windows,
    scan,
    shift,
    whole_streams,
    zipf,
)
from memrl.documents import RequestStream, RequestWindow, Workload
from memrl.request_table import build_request_table


def generate(seed: int = 0, **changes: object) -> Workload:
    settings = {
        "kinds": ("zipf", "loop", "scan", "shift"),
        "streams_per_kind": 2,
        "num_requests": 600,
        "num_pages": 64,
        "most_tokens": 9,
    }
    return generate_streams(**(settings | changes), rng=np.random.default_rng(seed))  # type: ignore[arg-type]


def stream_of(length: int) -> RequestStream:
    return make_stream("s", np.arange(length) % 7, np.ones(7, dtype=np.int64), "loop")


def test_streams_are_of_the_kinds_and_lengths_asked_for() -> None:
    workload = generate()
    assert [stream.kind for stream in workload.streams] == [
        kind for kind in ("zipf", "loop", "scan", "shift") for _ in range(2)
    ]
    assert {len(stream) for stream in workload.streams} == {600}
    assert len({stream.stream_id for stream in workload.streams}) == 8
    for stream in workload.streams:
        assert stream.pages.dtype == np.int32
        assert len(stream.page_tokens) == len(stream.page_ids) == stream.pages.max() + 1
        assert stream.page_tokens.min() >= 1
        assert stream.page_tokens.max() <= 9
        first = np.unique(stream.pages, return_index=True)[1]
        assert (np.diff(first) > 0).all(), "pages are numbered by their first request"


def test_a_seed_gives_the_same_streams_and_another_one_others() -> None:
    one, again, other = generate(), generate(), generate(1)
    for first, second, third in zip(one.streams, again.streams, other.streams, strict=True):
        assert np.array_equal(first.pages, second.pages)
        assert np.array_equal(first.page_tokens, second.page_tokens)
        assert not np.array_equal(first.page_tokens, third.page_tokens)


def test_a_stream_does_not_depend_on_how_many_follow() -> None:
    few, many = generate(streams_per_kind=1), generate(streams_per_kind=3)
    assert np.array_equal(few.streams[1].pages, many.streams[3].pages)


@pytest.mark.usefixtures("poison_global_rng")
def test_no_global_random_state_is_used() -> None:
    generate()


def test_zipf_asks_for_few_pages_most_of_the_time() -> None:
    counts = np.sort(np.bincount(zipf(20_000, 200, np.random.default_rng(0)), minlength=200))[::-1]
    assert 0.15 < counts[:10].sum() / 20_000 < 0.8
    assert (counts > 0).sum() > 150


def test_a_loop_goes_round() -> None:
    requests = loop(500, 60, np.random.default_rng(3))
    length = int(requests.max()) + 1
    assert 30 <= length <= 60
    assert np.array_equal(requests[:-length], requests[length:])


def test_scans_bring_runs_of_pages_that_never_come_back() -> None:
    requests = scan(4000, 64, np.random.default_rng(0))
    cold = requests[requests >= 64]
    assert len(np.unique(cold)) == len(cold) > 200
    runs = np.split(cold, np.flatnonzero(np.diff(np.flatnonzero(requests >= 64)) > 1) + 1)
    assert len(runs) > 5
    assert {len(run) for run in runs} <= set(range(16, 33))


def test_the_working_set_shifts() -> None:
    requests = shift(6000, 80, np.random.default_rng(0))
    assert len(requests) == 6000
    early, late = set(requests[:40].tolist()), set(requests[-40:].tolist())
    assert len(early) <= 20
    assert len(set(requests.tolist())) > 50
    assert len(early & late) < len(early)


# ---------------------------------------------------------------------- windows


def test_consecutive_windows_lie_side_by_side_and_are_spread() -> None:
    streams = [stream_of(25), stream_of(6)]
    spans = whole_streams(streams, (0, 1))
    assert spans == (RequestWindow(0, 0, 25), RequestWindow(1, 0, 6))
    assert consecutive_windows(spans, 10, 9) == (
        RequestWindow(0, 0, 10),
        RequestWindow(0, 10, 10),
        RequestWindow(1, 0, 6),
    )
    spread = consecutive_windows([RequestWindow(2, 7, 100)], 10, 3)
    assert spread == tuple(RequestWindow(2, start, 10) for start in (7, 37, 67))


def test_random_windows_lie_inside() -> None:
    spans = [RequestWindow(0, 5, 25), RequestWindow(1, 2, 6)]
    windows = random_windows(spans, 10, 200, np.random.default_rng(0))
    starts = [window.first_request for window in windows if window.stream == 0]
    assert set(starts) == set(range(5, 21))
    assert {(w.first_request, w.num_requests) for w in windows if w.stream == 1} == {(2, 6)}


def test_halves_are_divided_in_time() -> None:
    train, validation, test = halves([stream_of(40), stream_of(7)], 0.25)
    assert train == (RequestWindow(0, 0, 15), RequestWindow(1, 0, 2))
    assert validation == (RequestWindow(0, 15, 5), RequestWindow(1, 2, 1))
    assert test == (RequestWindow(0, 20, 20), RequestWindow(1, 3, 4))
    assert halves([stream_of(6)], 0.0)[1] == (RequestWindow(0, 2, 1),), "never empty"
    with pytest.raises(ValueError, match="too few for two halves"):
        halves([stream_of(5)], 0.2)


def test_blocks_are_clusters_of_their_own() -> None:
    blocks = as_blocks([stream_of(40)], [RequestWindow(0, 20, 10), RequestWindow(0, 30, 10)])
    assert [block.cluster for block in blocks] == ["s@20", "s@30"]


@pytest.mark.parametrize("window", [(0, -1, 3), (0, 0, 0), (0, 20, 6)])
def test_a_window_outside_its_stream_is_refused(window: tuple[int, int, int]) -> None:
    with pytest.raises(ValueError, match="Window 0 spans requests"):
        build_request_table([stream_of(25)], [RequestWindow(*window)], name="made up")


def test_no_window_is_refused() -> None:
    with pytest.raises(ValueError, match="has no episode"):
        build_request_table([stream_of(25)], [], name="made up")


def test_a_windows_table_is_that_part_of_the_stream() -> None:
    stream = generate().streams[4]
    table = build_request_table([stream], [RequestWindow(0, 100, 50, "part")], name="made up")
    pages = stream.pages[100:150]
    first_seen = list(dict.fromkeys(pages.tolist()))
    assert table.event_index[0].tolist() == [first_seen.index(page) for page in pages.tolist()]
    assert table.page_tokens.tolist() == stream.page_tokens[first_seen].tolist()
    assert table.text.page_ids == [stream.page_ids[page] for page in first_seen]
    assert table.text.document_ids == ["part"]
    assert table.text.request_kinds == ["scan"]
