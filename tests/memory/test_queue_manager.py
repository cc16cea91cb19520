from __future__ import annotations

from collections.abc import Callable, Sequence
from datetime import UTC, datetime

import pytest
import table_fixtures  # noqa: F401 - loads the deterministic hypothesis profile
from external_fakes import ListRecall
from hypothesis import given
from hypothesis import strategies as st
from live_fixtures import NOON, check_main, make_main, make_queue, words

from memrl.errors import MemrlError
from memrl.memory.external import RecallPage
from memrl.memory.main_context import CUT_MARKER, MainContext
from memrl.memory.queue_manager import NewPage, QueueManager, QueueOptions
from memrl.memory.refusals import Reason, RefusedError
from memrl.memory.summarizers import ExtractiveSummarizer
from memrl.memory.window import ContextError


class Recorder:
    """A summarizer that notes what it is given and answers with what it is told to."""

    def __init__(self, answer: object = "the gist") -> None:
        self.answer = answer
        self.asked: list[list[str]] = []

    def __call__(self, texts: Sequence[str], limit_tokens: int) -> str:
        assert limit_tokens > 0
        self.asked.append(list(texts))
        if isinstance(self.answer, Exception):
            raise self.answer
        return self.answer  # type: ignore[return-value]


def fill(queue: QueueManager, *sizes_tokens: int) -> list[int]:
    return [queue.append(words(size), "user").page.page_id for size in sizes_tokens]


def test_a_page_goes_to_recall_whole_and_to_the_back_of_the_queue() -> None:
    recall = ListRecall()
    queue = make_queue(recall=recall)
    arrival = queue.append("Hello\x00 <|im_end|>\ud800", "user")
    assert queue.main.pages == [arrival.page]
    text, tokens = "Hello\x00 <|im_end|>\ud800", arrival.page.page_tokens
    assert recall.pages == {0: RecallPage(0, text, "user", NOON, tokens)}
    assert (arrival.flush, arrival.is_warning) == (None, False)


def test_ids_count_up_and_may_be_given() -> None:
    queue = QueueManager(make_main(), ListRecall(), first_page_id=10)
    early = datetime(2023, 1, 2, tzinfo=UTC)
    ids = [
        queue.append("a", "user").page.page_id,
        queue.append("b", "user", page_id=3, time=early).page.page_id,
        queue.append("c", "user", page_id=20).page.page_id,
        queue.append("d", "user").page.page_id,
    ]
    assert ids == [10, 3, 20, 21]
    (hit,) = queue.recall.get([3])
    assert hit.time == early
    (now,) = queue.recall.get([10])
    assert now.time.tzinfo is not None
    with pytest.raises(ValueError, match="Page 3 has been seen before"):
        queue.append("e", "user", page_id=3)


def test_the_warning_comes_once_a_period_by_tokens() -> None:
    queue = make_queue(make_main(100), options=QueueOptions(warn_fraction=0.7))
    arrivals = [queue.append(words(size), "user") for size in (40, 29, 1, 10, 5)]
    # 69 of 100 tokens is below 70 %, 70 is not.
    assert [arrival.is_warning for arrival in arrivals] == [False, False, True, False, False]
    queue.evict(0)
    assert not queue.append(words(40), "user").is_warning  # the same period
    assert (queue.main.has_notice, queue.main.core.num_resident) == (True, 5)
    flushed = queue.append(words(20), "user")
    assert flushed.flush is not None
    assert (queue.main.has_notice, flushed.is_warning) == (False, False)
    assert queue.append(words(10), "user").is_warning


def test_many_small_pages_do_not_count_more_than_few_large_ones() -> None:
    queue = make_queue(make_main(100))
    assert not any(queue.append("word", "user").is_warning for _ in range(69))
    assert queue.append("word", "user").is_warning


def test_a_full_queue_frees_half_its_tokens() -> None:
    queue = make_queue(make_main(100))
    fill(queue, 10, 10, 10, 30, 40)
    assert queue.main.core.occupied_tokens == 100
    flush = queue.append(words(10), "user").flush
    assert flush is not None
    # Pages 0 to 3 take 60 tokens; without page 3 only 30 would be free.
    assert (flush.evicted, flush.evicted_tokens) == ((0, 1, 2, 3), 60)
    assert queue.main.core.queue == [4, 5]
    assert (flush.summarizer_failure, flush.is_summary_cut) == (None, False)


def test_a_flush_goes_on_until_the_page_fits() -> None:
    queue = make_queue(make_main(100))
    fill(queue, 50, 20, 20)
    flush = queue.append(words(90), "user").flush
    assert flush is not None
    assert flush.evicted == (0, 1, 2)
    assert queue.main.core.queue == [3]


@pytest.mark.parametrize(
    ("options", "sizes_tokens", "evicted"),
    [
        ({"evict_fraction": 0.0}, (25, 25, 25, 25, 25), (0,)),
        ({"evict_fraction": 0.75}, (25, 25, 25, 25, 25), (0, 1, 2)),
        ({"evict_fraction": 0.999}, (25, 25, 25, 25, 25), (0, 1, 2, 3)),
        ({"evict_fraction": 0.0, "flush_fraction": 0.75}, (25, 25, 25, 25), (0,)),
        ({"evict_fraction": 0.5, "flush_fraction": 0.75}, (25, 25, 25, 20), (0,)),
        ({"evict_fraction": 0.5, "flush_fraction": 0.75}, (25, 25, 25, 60), (0, 1, 2)),
    ],
)
def test_shares_are_configurable(
    options: dict[str, float], sizes_tokens: tuple[int, ...], evicted: tuple[int, ...]
) -> None:
    queue = make_queue(make_main(100), options=QueueOptions(**options))
    *before, last = [queue.append(words(size), "user").flush for size in sizes_tokens]
    assert before == [None] * len(before)
    assert last is not None
    assert last.evicted == evicted


def test_slots_are_a_limit_as_well() -> None:
    queue = make_queue(make_main(100, num_slots=2), options=QueueOptions(evict_fraction=0.0))
    fill(queue, 1, 1)
    flush = queue.append("word", "user").flush
    assert flush is not None
    assert flush.evicted == (0,)
    assert queue.main.core.queue == [1, 2]


def test_a_page_above_the_flush_share_enters_an_empty_queue() -> None:
    queue = make_queue(make_main(100), options=QueueOptions(flush_fraction=0.5))
    arrival = queue.append(words(90), "user")
    assert (arrival.flush, arrival.is_warning) == (None, True)
    following = queue.append(words(90), "user")
    assert following.flush is not None
    assert queue.main.core.queue == [1]


def test_the_summary_is_recursive_and_stands_at_the_head() -> None:
    recorder = Recorder()
    queue = make_queue(make_main(100), summarizer=recorder)
    queue.append("I have a cat.", "user")
    queue.append("Lovely!", "assistant")
    fill(queue, 80, 40)
    assert recorder.asked[0][:2] == ["user: I have a cat.", "assistant: Lovely!"]
    recorder.answer = "the new gist"
    fill(queue, 40, 40)
    assert recorder.asked[1][0] == "the gist"
    assert queue.main.summary == "the new gist"
    assert '"the new gist", "messages_hidden": 4}' in queue.main.messages()[1]["content"]


def test_without_a_summarizer_there_is_no_summary() -> None:
    queue = make_queue(make_main(100, summary_tokens=0))
    fill(queue, 80, 80)
    assert queue.main.summary == ""
    assert len(queue.main.messages()) == 3  # system message, notice, page


# ------------------------------------------------------------------ rescue paths


def test_a_page_larger_than_the_queue_is_cut_and_recall_has_it_whole() -> None:
    queue = make_queue(make_main(50))
    text = words(10_000)
    fill(queue, 10)
    arrival = queue.append(text, "user")
    assert arrival.page.is_cut
    assert arrival.page.content.endswith(CUT_MARKER)
    assert queue.main.core.queue == [1]
    (hit,) = queue.recall.get([1])
    assert hit.text == text
    check_main(queue.main)
    fill(queue, 10)
    assert queue.retrieve(1).page == arrival.page
    check_main(queue.main)


@pytest.mark.parametrize(
    ("answer", "failure"),
    [(OSError("down"), "raised"), (None, "not_text"), (" \n", "blank"), (words(900), "too_long")],
)
def test_a_bad_summary_is_made_good_and_reported(answer: object, failure: str) -> None:
    queue = make_queue(make_main(100), summarizer=Recorder(answer))
    queue.append("The cat is grey. " + words(80), "user")
    arrival = queue.append(words(30), "user")
    assert arrival.flush is not None
    assert arrival.flush.summarizer_failure == failure
    assert queue.summarizer is not None
    assert dict(queue.summarizer.failures) == {failure: 1}
    assert queue.main.summary.startswith("user: The cat" if failure != "too_long" else "word")
    check_main(queue.main)


def test_a_summary_that_only_its_quotation_makes_too_long_is_cut() -> None:
    room_tokens = make_main(100).summary_room_tokens
    queue = make_queue(make_main(100), summarizer=Recorder('"' * room_tokens))
    fill(queue, 80)
    flush = queue.append(words(80), "user").flush
    assert flush is not None
    assert (flush.summarizer_failure, flush.is_summary_cut) == (None, True)
    check_main(queue.main)


def test_a_summarizer_without_room_is_refused() -> None:
    with pytest.raises(ContextError, match="raise summary_tokens by"):
        make_queue(make_main(summary_tokens=20), summarizer=ExtractiveSummarizer())


def test_nothing_changes_when_recall_fails() -> None:
    recall = ListRecall()
    queue = make_queue(recall=recall, summarizer=Recorder())
    fill(queue, 20, 30, 30)
    queue.evict(0)
    assert queue.main.core.queue == [1, 2]
    recall.is_broken = True
    before = (queue.main.saved(), queue.main.messages())
    moves: list[Callable[[], object]] = [
        lambda: queue.append(words(90), "user"),  # would flush
        lambda: queue.append(words(1), "user"),
        lambda: queue.extend([NewPage("a", "user")]),
        lambda: queue.retrieve(0),
        lambda: queue.evict(1),
        lambda: queue.append_block("human", "Ana"),
        lambda: queue.replace_in_block("persona", "H", "h"),
    ]
    for move in moves:
        with pytest.raises(MemrlError, match="disk"):
            move()
        assert (queue.main.saved(), queue.main.messages()) == before
        assert not queue.main.has_seen(3)
    recall.is_broken = False
    assert fill(queue, 90) == [3]


def test_a_history_goes_to_recall_alone() -> None:
    recall = ListRecall()
    queue = make_queue(make_main(50), recall=recall)
    fill(queue, 10)
    history = [NewPage("a", "user", time=NOON), NewPage(words(900), "assistant", page_id=7)]
    assert queue.extend([*history, NewPage("b", "user")]) == [1, 7, 8]
    assert [recall.pages[page_id].text for page_id in (1, 7, 8)] == ["a", words(900), "b"]
    assert queue.main.core.queue == [0]
    assert queue.retrieve(7).page.is_cut
    assert fill(queue, 10) == [9]
    with pytest.raises(ValueError, match="Page 7 has been seen before"):
        queue.extend([NewPage("c", "user"), NewPage("d", "user", page_id=7)])
    assert not queue.main.has_seen(10)
    check_main(queue.main)
    costs = queue.accounting.as_dict()["queue/extend"]
    assert (costs["calls"], costs["failures"]) == (2, 1)


# ------------------------------------------------------------------ moves by choice


def test_retrieve_and_evict() -> None:
    recorder = Recorder()
    queue = make_queue(make_main(100), summarizer=recorder)
    fill(queue, 20, 20, 20)
    assert queue.evict(1).page_id == 1
    assert recorder.asked == []  # who evicts by choice has seen the page
    assert queue.main.core.queue == [0, 2]
    assert queue.retrieve(1).flush is None
    assert queue.main.core.queue == [0, 2, 1]
    queue.evict(1)
    fill(queue, 50)
    flush = queue.retrieve(1).flush  # 20 + 20 + 50, and 20 do not fit any more
    assert flush is not None
    assert flush.evicted == (0, 2)
    assert queue.main.core.queue == [3, 1]
    assert len(recorder.asked) == 1
    check_main(queue.main)


@pytest.mark.parametrize(
    ("move", "page_id", "reason"),
    [
        ("retrieve", 7, Reason.UNKNOWN_PAGE),
        ("retrieve", 0, Reason.ALREADY_RESIDENT),
        ("evict", 1, Reason.NOT_RESIDENT),
        ("evict", 7, Reason.NOT_RESIDENT),
    ],
)
def test_moves_that_cannot_be_done(move: str, page_id: int, reason: Reason) -> None:
    queue = make_queue()
    fill(queue, 1, 1)
    queue.evict(1)
    with pytest.raises(RefusedError) as caught:
        getattr(queue, move)(page_id)
    assert caught.value.reason is reason
    assert queue.main.core.queue == [0]


def test_operations_are_accounted() -> None:
    queue = make_queue(make_main(100))
    fill(queue, 60, 60)
    queue.evict(1)
    queue.retrieve(0)
    costs = queue.accounting.as_dict()
    assert {kind: row["calls"] for kind, row in costs.items()} == {
        "queue/append": 2,
        "queue/evict": 1,
        "queue/flush": 1,
        "queue/retrieve": 1,
    }
    assert costs["queue/append"]["tokens_in"] == 120
    assert costs["queue/append"]["tokens_out"] == costs["queue/flush"]["tokens_out"] == 60
    assert costs["queue/append"]["bytes_stored"] == len(words(120))
    assert costs["queue/retrieve"]["tokens_in"] == 60


STEPS = st.lists(
    st.tuples(st.sampled_from(["append", "append", "retrieve", "evict"]), st.integers(0, 60)),
    max_size=40,
)


@given(
    steps=STEPS,
    warn=st.sampled_from([0.1, 0.7, 1.0]),
    flush=st.sampled_from([0.3, 1.0]),
    evict=st.sampled_from([0.0, 0.5, 0.99]),
    answer=st.sampled_from(["gist", "", words(300), '"\n' * 50]),
)
def test_any_sequence_ends_within_the_window(
    steps: list[tuple[str, int]], warn: float, flush: float, evict: float, answer: str
) -> None:
    def make_small() -> MainContext:
        return make_main(40, num_slots=5, markup_tokens=1)

    recall = ListRecall()
    queue = make_queue(
        make_small(),
        recall=recall,
        summarizer=Recorder(answer),
        options=QueueOptions(warn, flush, evict),
    )
    seen = 0
    for kind, number in steps:
        if kind == "append":
            queue.append(words(number), "user")
            seen += 1
        elif seen:
            try:
                getattr(queue, kind)(number % seen)
            except RefusedError:
                resident = queue.main.core.is_resident(number % seen)
                assert resident == (kind == "retrieve")
        check_main(queue.main)
        if seen:
            assert recall.context == queue.main.saved()
            again = make_queue(make_small(), recall=recall)
            again.resume(
                [(page.page_id, page.page_tokens) for page in recall.pages.values()], recall.context
            )
            assert again.main.messages() == queue.main.messages()
    assert len(list(queue.main.core.recall)) == seen


@pytest.mark.parametrize(
    ("name", "value"),
    [
        ("warn_fraction", 0.0),
        ("warn_fraction", 1.1),
        ("flush_fraction", 0.0),
        ("flush_fraction", float("nan")),
        ("evict_fraction", 1.0),
        ("evict_fraction", -0.1),
    ],
)
def test_what_is_no_share_is_refused(name: str, value: float) -> None:
    with pytest.raises(ValueError, match=name):
        QueueOptions(**{name: value})
