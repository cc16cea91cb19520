from __future__ import annotations

from collections.abc import Sequence

import pytest
import table_fixtures  # noqa: F401 - loads the deterministic hypothesis profile
from hypothesis import given
from hypothesis import strategies as st

from memrl.memory.summarizers import ExtractiveSummarizer, GuardedSummarizer, Summarizer
from memrl.memory.tokens import count_tokens

TEXTS = [
    "user: My kitten Biscuit sleeps on my keyboard. What a nice day!",
    "assistant: Biscuit the kitten sounds lovely. How old is the kitten?",
    "user: Biscuit is nine weeks old.\nThe trains were late.",
]


def test_central_sentences_are_kept_in_order() -> None:
    texts = [
        "The kitten sleeps on the keyboard. The trains were late again.",
        "My kitten likes it.",
    ]
    summary = ExtractiveSummarizer()(texts, 13)
    assert summary == "The kitten sleeps on the keyboard. My kitten likes it."
    # What is left goes to the best sentence that still fits, not to the best one.
    assert ExtractiveSummarizer()([*texts, "Yes."], 15) == summary + " Yes."


def test_everything_is_kept_where_it_fits_and_repetitions_are_not() -> None:
    assert ExtractiveSummarizer()(["One. Two!", "Two!", "Three?"], 100) == "One. Two! Three?"


def test_where_no_sentence_fits_the_most_central_is_cut() -> None:
    texts = ["kitten kitten keyboard piano", "kitten keyboard violin music"]
    summary = ExtractiveSummarizer()(texts, 2)
    assert any(text.startswith(summary) for text in texts)
    assert count_tokens(summary) == 2


@pytest.mark.parametrize("texts", [[], [""], [" \n", "\t"]])
def test_nothing_has_no_summary(texts: list[str]) -> None:
    assert ExtractiveSummarizer()(texts, 10) == ""


@given(st.lists(st.text(max_size=60), max_size=8), st.integers(0, 30))
def test_extraction_holds_the_limit_and_is_deterministic(texts: list[str], limit: int) -> None:
    summary = ExtractiveSummarizer()(texts, limit)
    assert count_tokens(summary) <= limit
    assert summary == ExtractiveSummarizer()(list(texts), limit)


def test_white_space_takes_linear_time() -> None:
    # Seconds would be minutes if each place of the run were tried.
    text = "One." + " " * 1_000_000 + "two" + "\n" * 1_000_000 + "three"
    assert ExtractiveSummarizer()([text], 10) == "One. two three"


class Scripted:
    def __init__(self, answer: object) -> None:
        self.answer = answer
        self.asked: list[tuple[list[str], int]] = []

    def __call__(self, texts: Sequence[str], limit_tokens: int) -> str:
        self.asked.append((list(texts), limit_tokens))
        if isinstance(self.answer, Exception):
            raise self.answer
        return self.answer  # type: ignore[return-value]


def test_a_good_summary_passes() -> None:
    primary = Scripted("They talk about a kitten.")
    guarded = GuardedSummarizer(primary)
    assert guarded(TEXTS, 24) == ("They talk about a kitten.", None)
    assert primary.asked == [(TEXTS, 24)]
    assert (guarded.calls, dict(guarded.failures)) == (1, {})


@pytest.mark.parametrize(
    ("answer", "failure"),
    [
        (RuntimeError("no model\nat all"), "raised"),
        (RecursionError(), "raised"),
        ("", "blank"),
        (" \n\t", "blank"),
        (None, "not_text"),
        (7, "not_text"),
        (b"bytes", "not_text"),
    ],
)
def test_a_failure_is_counted_and_extraction_takes_its_place(answer: object, failure: str) -> None:
    guarded = GuardedSummarizer(Scripted(answer))
    expected = ExtractiveSummarizer()(TEXTS, 24)
    assert guarded(TEXTS, 24) == (expected, failure)
    assert guarded(TEXTS, 24) == (expected, failure)
    assert (guarded.calls, dict(guarded.failures)) == (2, {failure: 2})


def test_the_latest_exception_is_reported_on_one_line() -> None:
    guarded = GuardedSummarizer(Scripted(RuntimeError("no model\nat all")))
    assert guarded.last_error == ""
    guarded(TEXTS, 24)
    assert guarded.last_error == "RuntimeError: no model"


def test_a_summary_above_the_limit_loses_sentences() -> None:
    primary: Summarizer = Scripted(
        "The kitten Biscuit is nine weeks old. It sleeps. Biscuit is a kitten."
    )
    summary, failure = GuardedSummarizer(primary)(TEXTS, 9)
    assert failure == "too_long"
    assert summary == "The kitten Biscuit is nine weeks old."


def test_being_interrupted_is_no_failure() -> None:
    def interrupt(_texts: Sequence[str], _limit_tokens: int) -> str:
        raise KeyboardInterrupt

    with pytest.raises(KeyboardInterrupt):
        GuardedSummarizer(interrupt)(TEXTS, 24)
