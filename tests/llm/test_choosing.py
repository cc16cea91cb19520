"""Choosing by likelihood, calibrated or not, and by reply; what it costs."""

from __future__ import annotations

import math
from collections.abc import Sequence

import pytest

from memrl.llm.backend import BackendError, ChatMessage, Reply, Request, Usage
from memrl.llm.choosing import Choice, Chooser, parse_choice
from memrl.llm.costs import LlmCosts
from memrl.llm.scripted import ScriptedBackend

CHOICES = ("keep", "let go", "note 1", "note 12")


def request(text: str) -> Request:
    return Request((ChatMessage("user", text),), choices=CHOICES)


ASKED, NULL = request("what now"), request("nothing")


def scores_by(**by_text: Sequence[float]) -> ScriptedBackend:
    """Scores by the first word of the prompt."""
    return ScriptedBackend(scores=lambda asked: by_text[asked.messages[0].content.split()[0]])


def test_the_most_likely_choice_is_taken_the_first_among_equals() -> None:
    costs = LlmCosts()
    backend = scores_by(what=(-3.0, -1.0, -2.0, -1.0))
    chooser = Chooser(backend, calibrates=False, costs=costs)
    assert chooser.choose([ASKED], [NULL]) == [Choice(1, 0.0)]
    assert [asked.messages[0].content for asked in backend.requests] == ["what now"]
    assert costs.calls == 1
    assert chooser.choose([], []) == []


def test_calibration_takes_off_what_is_said_anyway() -> None:
    """By hand: -3+4, -1+0.5, -2+2.5, -9+9 = 1, -.5, .5, 0; without it the second choice wins."""
    backend = scores_by(what=(-3.0, -1.0, -2.0, -9.0), nothing=(-4.0, -0.5, -2.5, -9.0))
    costs = LlmCosts()
    chooser = Chooser(backend, calibrates=True, costs=costs)
    assert [choice.index for choice in chooser.choose([ASKED, ASKED], [NULL, NULL])] == [0, 0]
    assert [choice.index for choice in chooser.choose([ASKED], [NULL])] == [0]
    asked = [asked.messages[0].content for asked in backend.requests]
    assert asked.count("nothing") == 1, "a null prompt is scored once"
    assert costs.calls == 4


@pytest.mark.parametrize("scores", [(), (-1.0, math.nan, -2.0, -3.0)])
def test_scores_that_are_none_choose_nothing(scores: tuple[float, ...]) -> None:
    chooser = Chooser(scores_by(what=scores), calibrates=False, costs=LlmCosts())
    assert chooser.choose([ASKED], [NULL]) == [Choice(None, 0.0)]
    lame = scores_by(what=(-1.0, -2.0, -3.0, -4.0), nothing=scores)
    calibrated = Chooser(lame, calibrates=True, costs=LlmCosts())
    assert calibrated.choose([ASKED], [NULL]) == [Choice(None, 0.0)]


def test_calibration_needs_likelihoods() -> None:
    with pytest.raises(BackendError, match="nothing to calibrate"):
        Chooser(ScriptedBackend(), calibrates=True, costs=LlmCosts())


def test_replies_are_read_and_failures_counted() -> None:
    usage = Usage(prompt_tokens=10, cached_tokens=4, reply_tokens=2, seconds=0.5, attempts=2)
    replies = [
        Reply("Let go.", usage=usage),
        Reply("I would rather not say", usage=usage),
        Reply("", finish="failed", error="no answer came", usage=usage),
    ]
    costs = LlmCosts()
    chooser = Chooser(ScriptedBackend(replies), calibrates=False, costs=costs)
    chosen = chooser.choose([ASKED] * 3, [NULL] * 3)
    assert chosen == [Choice(1, 0.5), Choice(None, 0.5), Choice(None, 0.5)]
    assert (costs.calls, costs.failures, costs.parse_failures) == (3, {"other": 1}, 1)
    assert (costs.attempts, costs.prompt_tokens, costs.cached_tokens) == (6, 30, 12)
    for choice in chosen:
        costs.decided(choice.seconds)
    told = costs.as_dict(num_queries=2)
    assert told["tokens_per_query"] == (30 + 6) / 2
    assert told["seconds_per_decision_p50"] == pytest.approx(0.5, rel=0.05)
    assert told["seconds_per_decision_p95"] == pytest.approx(0.5, rel=0.05)
    assert told["seconds"] == 1.5
    assert told["decisions"] == 3


def test_nothing_counted_is_told_as_none() -> None:
    told = LlmCosts().as_dict(num_queries=0)
    assert told["seconds_per_decision_p50"] is told["tokens_per_query"] is None


@pytest.mark.parametrize(
    ("text", "index"),
    [
        ("keep", 0),
        ("  KEEP it, because it is a date", 0),
        ('"let   go"', 1),
        ("**note 12**", 3),
        ("note 12 tells it", 3),
        ("note 1: the first", 2),
        ("note 123", None),
        ("keeper", None),
        ("we should keep", None),
        ("", None),
        ("...", None),
    ],
)
def test_parse_choice(text: str, index: int | None) -> None:
    assert parse_choice(text, CHOICES) == index
