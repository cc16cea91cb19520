from __future__ import annotations

import pytest

from envs.workloads.locomo_scoring import (
    evidence_recall,
    is_refusal,
    multi_part_f1,
    normalize_answer,
    official_question,
    score_answer,
    stemmed_tokens,
    token_f1,
)
from memrl.documents import Query


def query(category: str, *answers: str, needs: tuple[int, ...] = (1,)) -> Query:
    return Query("Q?", needs, category, answers, category != "adversarial")


@pytest.mark.parametrize(
    ("text", "expected"),
    [
        ("The  Cat, and a DOG!", "cat dog"),
        ("An apple a day", "apple day"),
        ("1,000 sandy beaches", "1000 sandy beaches"),
        ("rock'n'roll", "rocknroll"),
        ("the and a an", ""),
        ("Theodore", "theodore"),
        ("", ""),
    ],
)
def test_normalize_answer(text: str, expected: str) -> None:
    assert normalize_answer(text) == expected


def test_stemmed_tokens_are_porters() -> None:
    # Examples of Porter's paper, An algorithm for suffix stripping (1980).
    words = "caresses ponies cats feed agreed plastered motoring happy relational hopping"
    stems = "caress poni cat feed agre plaster motor happi relat hop"
    assert stemmed_tokens(words) == stems.split()


def test_words_of_two_letters_are_not_stemmed() -> None:
    assert stemmed_tokens("is as us i") == ["is", "as", "us", "i"]


def test_token_f1() -> None:
    # {run, park} of two and {run, park, everi, dai} of four: P = 1, R = 1/2.
    assert token_f1("running parks", "The run in a park")  # "in" stays
    assert token_f1("running parks", "run park every day") == pytest.approx(2 / 3)
    # Multiplicity: one "new" of the two is shared. P = 2/3, R = 2/2.
    assert token_f1("new new york", "New York") == pytest.approx(0.8)
    assert token_f1("Adopted cats and a dog", "adopt cat, dog") == 1.0


@pytest.mark.parametrize(
    ("prediction", "gold"), [("", "cat"), ("cat", ""), ("the", "a"), ("x", "y")]
)
def test_token_f1_without_overlap_is_zero(prediction: str, gold: str) -> None:
    assert token_f1(prediction, gold) == 0.0


def test_multi_part_f1() -> None:
    # Gold "beach" is hit in full; best for "old forest" is "forest": P = 1, R = 1/2, F1 = 2/3.
    assert multi_part_f1("forest, beaches", "beach, old forest") == pytest.approx((1 + 2 / 3) / 2)
    # One part too many in the prediction costs nothing, one missing costs its share.
    assert multi_part_f1("beach, forest, lake", "beach, forest") == 1.0
    assert multi_part_f1("beach", "beach, forest") == 0.5
    # An empty gold part is a part, as upstream.
    assert multi_part_f1("beach", "beach,") == 0.5


@pytest.mark.parametrize(
    ("prediction", "expected"),
    [
        ("Not mentioned in the conversation", True),
        ("There is NO INFORMATION AVAILABLE on that.", True),
        ("I do not know", False),
        ("", False),
    ],
)
def test_is_refusal(prediction: str, expected: bool) -> None:
    assert is_refusal(prediction) is expected


def test_score_answer_by_category() -> None:
    assert score_answer(query("multi_hop", "beach, forest"), "beach") == 0.5
    assert score_answer(query("single_hop", "beach, forest"), "beach") == pytest.approx(2 / 3)
    assert score_answer(query("temporal", "7 May 2023"), "May 2023") == pytest.approx(0.8)
    # Cut at the semicolon the gold is "Likely yes"; uncut it would have seven tokens.
    open_domain = query("open_domain", "Likely yes; because she loves the sea")
    assert score_answer(open_domain, "yes likely") == 1.0
    assert score_answer(query("adversarial"), "It is not mentioned.") == 1.0
    assert score_answer(query("adversarial"), "blue") == 0.0


def test_score_answer_takes_the_best_gold_answer() -> None:
    assert score_answer(query("single_hop", "cat", "dog"), "dog") == 1.0


def test_score_answer_is_undefined_without_a_gold_answer() -> None:
    assert score_answer(query("single_hop"), "anything") is None


def test_score_answer_rejects_other_categories() -> None:
    with pytest.raises(ValueError, match="'bridge' is not LoCoMo's"):
        score_answer(query("bridge", "x"), "x")


def test_official_question_asks_for_a_date_in_temporal_ones_only() -> None:
    hint = " Use DATE of CONVERSATION to answer with an approximate date."
    assert official_question(query("temporal", "May")) == "Q?" + hint
    assert official_question(query("single_hop", "May")) == "Q?"


def test_evidence_recall() -> None:
    asked = query("single_hop", "x", needs=(2, 5, 9))
    assert evidence_recall(asked, {5, 9, 11}) == pytest.approx(2 / 3)
    assert evidence_recall(asked, []) == 0.0
    assert evidence_recall(asked, range(10)) == 1.0
    assert evidence_recall(query("open_domain", "x", needs=()), {1}) is None
    assert evidence_recall(query("adversarial", needs=(4,)), {4}) == 1.0
