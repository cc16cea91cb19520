"""Official measures against cases worked out by hand from the rules of each script."""

from __future__ import annotations

import pytest

from envs.workloads.answer_scoring import (
    AnswerScores,
    babi_exact,
    best_subspan_em,
    contains_answer,
    exact_match,
    hotpot_answer,
    joint_scores,
    musique_answer,
    normalize_answer,
    rouge_l_recall,
    score_answer,
    support_scores,
    token_scores,
    triple_scores,
)
from memrl.set_scores import SetScores


@pytest.mark.parametrize(
    ("text", "expected"),
    [
        ("The  Harbour, at night!", "harbour at night"),
        ("An owl's nest", "owls nest"),
        ("a.b", "ab"),
        ("theatre and an anthem", "theatre and anthem"),
        ("THE", ""),
        ("«Ünal»", "«ünal»"),  # only ASCII punctuation goes
        ("", ""),
    ],
)
def test_normalisation(text: str, expected: str) -> None:
    assert normalize_answer(text) == expected


def test_dropped_words_are_a_choice() -> None:
    assert normalize_answer("the salt and a spoon", ("a", "and")) == "the salt spoon"


def test_exact_match_takes_any_answer() -> None:
    assert exact_match("the Green Lamp.", ["red lamp", "Green lamp"]) == 1.0
    assert exact_match("green lamps", ["green lamp"]) == 0.0
    assert exact_match("green lamp", []) == 0.0


def test_tokens_count_with_multiplicity() -> None:
    # given: tall tall tower; right: tall red tower -> 2 shared of 3 and of 3.
    scores = token_scores("tall tall tower", "a tall red tower")
    assert (scores.precision, scores.recall) == (2 / 3, 2 / 3)
    assert scores.f1 == pytest.approx(2 / 3)
    # 1 shared of 1 given, 1 of 4 right.
    scores = token_scores("Oslo", "Oslo in the south, Norway")
    assert (scores.precision, scores.recall, scores.f1) == (1.0, 0.25, 0.4)
    assert token_scores("the", "an") == SetScores(0.0, 0.0, 1.0)


# ---------------------------------------------------------------------- NaturalQuestions


@pytest.mark.parametrize(
    ("prediction", "answers", "score"),
    [
        ("It opened on May 18, 1931, they say.", ["18 May 1931", "May 18, 1931"], 1.0),
        ("It opened in 1931.", ["18 May 1931"], 0.0),
        ("Unknown.\nMay 18, 1931", ["May 18, 1931"], 0.0),  # only the first line counts
        ("the Beatle", ["Beatles"], 0.0),
        ("Beatlesque", ["The Beatles"], 1.0),  # a substring, not a word
        ("anything", ["The"], 1.0),  # why loaders drop such an answer
        ("anything", [], 0.0),
    ],
)
def test_best_subspan(prediction: str, answers: list[str], score: float) -> None:
    assert best_subspan_em(prediction, answers) == score


# ---------------------------------------------------------------------- HotpotQA and 2Wiki


def test_a_closed_answer_shares_no_token_with_another() -> None:
    assert hotpot_answer("no", ["no way"]) == AnswerScores(0.0, 0.0, 0.0, 0.0)
    assert hotpot_answer("yes, the river", ["yes"]) == AnswerScores(0.0, 0.0, 0.0, 0.0)
    assert hotpot_answer("Yes.", ["yes"]) == AnswerScores(1.0, 1.0, 1.0, 1.0)
    assert hotpot_answer("noanswer", ["the noanswer act"]) == AnswerScores(0.0, 0.0, 0.0, 0.0)


def test_the_best_alias_counts_for_every_number() -> None:
    # First alias: 1 of 2 given, 1 of 1 right. Second: 2 of 2 given, 2 of 4 right.
    scores = hotpot_answer("Count Orlo", ["Orlo", "count orlo of brenn"])
    assert scores.em == 0.0
    assert (scores.precision, scores.recall) == (1.0, 1.0)
    assert scores.f1 == pytest.approx(2 / 3)
    assert hotpot_answer("the", ["a"]).f1 == 0.0, "nothing is shared where nothing is left"
    assert hotpot_answer("x", []) == AnswerScores(0.0, 0.0, 0.0, 0.0)


def test_supporting_facts() -> None:
    right = [("Brenn", 0), ("Orlo", 2)]
    # Two given, one right of two: 1/2 and 1/2.
    scores = support_scores([("Brenn", 0), ("Orlo", 1)], right)
    assert (scores.precision, scores.recall, scores.f1, scores.em) == (0.5, 0.5, 0.5, 0.0)
    assert support_scores([("Orlo", 2), ("Brenn", 0), ("Brenn", 0)], right).em == 1.0
    assert support_scores([], right) == SetScores(0.0, 0.0, 0.0)
    assert support_scores([("brenn", 0), ("ORLO", 2)], right).f1 == 0.0
    assert support_scores([("brenn", 0), ("ORLO", 2)], right, ignore_case=True).em == 1.0


def test_joint_measures_multiply() -> None:
    answer = hotpot_answer("tall tower", ["tall red tower"])  # 1 and 2/3
    support = support_scores([("Brenn", 0), ("Orlo", 1)], [("Brenn", 0)])  # 1/2 and 1
    joint = joint_scores(answer, support)
    assert (joint.precision, joint.em) == (0.5, 0.0)
    assert joint.recall == pytest.approx(2 / 3)
    assert joint.f1 == pytest.approx(4 / 7)
    assert joint_scores(answer, support, SetScores(0.0, 1.0, 0.0)).f1 == 0.0
    whole = SetScores(1.0, 1.0, 1.0)
    assert joint_scores(whole, whole) == whole


def test_triples() -> None:
    golds = [
        [("Orlo", "born in", "Brenn"), ("Count Orlo", "born in", "Brenn")],
        [("Brenn", "lies in", "the Vale")],
    ]
    # Normalised but with its articles; one of two given is right, one of two golds is matched.
    scores = triple_scores([("orlo", "Born in.", "BRENN"), ("Brenn", "lies in", "Vale")], golds)
    assert (scores.precision, scores.recall, scores.f1, scores.em) == (0.5, 0.5, 0.5, 0.0)
    assert triple_scores([golds[0][1], golds[1][0]], golds) == SetScores(1.0, 1.0, 1.0)
    # Both spellings of one gold triple match it once.
    scores = triple_scores([*golds[0]], golds)
    assert (scores.precision, scores.recall, scores.em) == (1.0, 0.5, 0.0)
    assert triple_scores([*golds[0], *golds[1]], golds).em == 0.0
    assert triple_scores([], golds) == SetScores(0.0, 0.0, 0.0)


# ---------------------------------------------------------------------- MuSiQue and bAbI


def test_musique_takes_the_best_alias_and_agrees_on_nothing() -> None:
    # 2 shared of 3 given and of 2 right: 2/3 and 1.
    scores = musique_answer("old port town", ["harbour", "port town"])
    assert scores.em == 0.0
    assert scores.f1 == pytest.approx(0.8)
    assert musique_answer("the", ["a"]) == AnswerScores(1.0, 1.0, 1.0, 1.0)
    assert musique_answer("the", ["port"]).f1 == 0.0
    assert musique_answer("no", ["no port"]).f1 == pytest.approx(2 / 3), "no closed answers here"


@pytest.mark.parametrize(
    ("prediction", "answer", "score"),
    [
        ("Kitchen ", "kitchen", 1.0),
        ("the kitchen", "kitchen", 0.0),
        ("apple, milk", "apple,milk", 1.0),
        ("milk,apple", "apple,milk", 0.0),
        ("n,w", "w,n", 0.0),
        ("", "nothing", 0.0),
    ],
)
def test_babi_is_exact(prediction: str, answer: str, score: float) -> None:
    assert babi_exact(prediction, [answer]) == score


# ---------------------------------------------------------------------- Deep Memory Retrieval


@pytest.mark.parametrize(
    ("prediction", "answers", "score"),
    [
        # Words of the answer in order: three, goats; "I" and "keep" are not in it in that place.
        ("Well, three small goats, as I said.", ["I keep three goats"], 2 / 4),
        ("goats three", ["three goats"], 1 / 2),
        ("THREE goats!", ["Three, goats."], 1.0),
        ("a b a c a", ["a a a b"], 3 / 4),  # a a a; or a a b would end too early
        ("It's a 12-minute walk", ["it s 12 minute"], 1.0),  # runs of letters and digits
        ("bread", ["goats", "rye bread"], 1 / 2),  # the best answer
        ("", ["goats"], 0.0),
        ("goats", ["!"], 0.0),
        ("goats", [], 0.0),
    ],
)
def test_rouge_l_recall(prediction: str, answers: list[str], score: float) -> None:
    assert rouge_l_recall(prediction, answers) == score


@pytest.mark.parametrize(
    ("prediction", "answers", "score"),
    [
        ("You told me of the three goats.", ["Three goats!"], 1.0),
        ("Three of my goats", ["three goats"], 0.0),  # not one after the other
        ("nothing at all", ["No"], 0.0),  # whole words
        ("No, never.", ["no"], 1.0),
        ("bread", ["goats", "Bread!"], 1.0),
        ("anything", ["The"], 0.0),
        ("anything", [], 0.0),
    ],
)
def test_containment(prediction: str, answers: list[str], score: float) -> None:
    assert contains_answer(prediction, answers) == score


def test_each_data_set_has_its_measures() -> None:
    assert score_answer("nq", "Oslo it is", ["Oslo"]) == {"best_subspan_em": 1.0}
    for dataset in ("hotpotqa", "2wiki", "musique", "generated", "chat"):
        scores = score_answer(dataset, "Oslo city", ["Oslo"])
        assert scores == {"em": 0.0, "f1": pytest.approx(2 / 3)}
    assert score_answer("babi", "Oslo", ["oslo"]) == {"em": 1.0}
    dmr = score_answer("dmr", "It was Oslo, I think.", ["We went to Oslo."])
    assert dmr == {"rouge_l_recall": 1 / 4, "contains": 0.0}
    assert score_answer("nq", "Oslo", []) == {"best_subspan_em": None}
    assert score_answer("hotpotqa", "Oslo", []) == {"em": None, "f1": None}
    with pytest.raises(ValueError, match=r"one of chat, nq, hotpotqa.*got 'squad'"):
        score_answer("squad", "Oslo", ["Oslo"])
