"""Official measures of answers and evidence of data sets whose questions have short gold answers.

Written from the evaluation scripts of each: SQuAD's normalisation; `best_subspan_em` of Lost in the
Middle (arXiv 2307.03172); answer, supporting-fact and joint EM and F1 of HotpotQA
(`hotpot_evaluate_v1.py`); the same with aliases and evidence triples of 2WikiMultihopQA
(`2wikimultihop_evaluate_v1.1.py`); answer EM and F1 over aliases and support F1 over paragraph
indices of MuSiQue (`evaluate_v1.0.py`); the exact answer of bAbI; ROUGE-L recall for Deep Memory
Retrieval (MemGPT, arXiv 2310.08560v2, section 3.1.1, which has an LLM judge as well), with
containment beside it. A reader's answer is scored by `score_answer`, what it cites by
`support_scores` and `triple_scores`. Each function scores one question; a benchmark's number is the
mean.

One difference is on purpose: upstream counts two accepted spellings of one gold triple as two
matches, so that a recall can exceed 1; here a gold triple is matched once.
"""

from __future__ import annotations

import re
import string
from collections import Counter
from collections.abc import Callable, Collection, Sequence
from dataclasses import dataclass
from functools import lru_cache

from memrl.set_scores import SetScores, set_scores

ARTICLES = ("a", "an", "the")
_DROP_PUNCTUATION = str.maketrans("", "", string.punctuation)
_ROUGE_WORD = re.compile("[a-z0-9]+")
_CLOSED_ANSWERS = ("yes", "no", "noanswer")

Triple = tuple[str, str, str]


@lru_cache
def _words(dropped: tuple[str, ...]) -> re.Pattern[str]:
    return re.compile(rf"\b({'|'.join(dropped)})\b")


def normalize_answer(text: str, dropped: tuple[str, ...] = ARTICLES) -> str:
    """Lower-case, drop ASCII punctuation and these words, and squeeze blanks, as SQuAD does."""
    bare = text.lower().translate(_DROP_PUNCTUATION)
    return " ".join(_words(dropped).sub(" ", bare).split())


# ---------------------------------------------------------------------- answers


@dataclass(frozen=True, slots=True)
class AnswerScores:
    """Each in [0, 1]; of several gold answers the best counts for each number by itself."""

    em: float
    f1: float
    precision: float
    recall: float


def exact_match(prediction: str, answers: Sequence[str]) -> float:
    """1 if the prediction equals a gold answer after normalisation."""
    normalized = normalize_answer(prediction)
    return float(any(normalize_answer(answer) == normalized for answer in answers))


def token_scores(prediction: str, answer: str) -> SetScores:
    """Precision and recall over the tokens of the normalised texts, counted with multiplicity."""
    given, right = normalize_answer(prediction).split(), normalize_answer(answer).split()
    shared = (Counter(given) & Counter(right)).total()
    return SetScores(
        precision=shared / len(given) if given else 0.0,
        recall=shared / len(right) if right else 0.0,
        em=float(given == right),
    )


def best_subspan_em(prediction: str, answers: Sequence[str]) -> float:
    """1 if a gold answer is contained in the first line of the prediction, both normalised.

    An answer of which normalisation leaves nothing is contained in everything; loaders drop those.
    """
    first_line = normalize_answer(prediction.split("\n")[0])
    return float(any(normalize_answer(answer) in first_line for answer in answers))


def hotpot_answer(prediction: str, answers: Sequence[str]) -> AnswerScores:
    """HotpotQA's and 2WikiMultihopQA's: yes, no and noanswer share no token with anything else."""
    scores = [_closed_token_scores(prediction, answer) for answer in answers]
    return AnswerScores(
        em=exact_match(prediction, answers),
        f1=max((score.f1 for score in scores), default=0.0),
        precision=max((score.precision for score in scores), default=0.0),
        recall=max((score.recall for score in scores), default=0.0),
    )


def _closed_token_scores(prediction: str, answer: str) -> SetScores:
    given, right = normalize_answer(prediction), normalize_answer(answer)
    if given != right and (given in _CLOSED_ANSWERS or right in _CLOSED_ANSWERS):
        return SetScores(0.0, 0.0, 0.0)
    return token_scores(prediction, answer)


def musique_answer(prediction: str, answers: Sequence[str]) -> AnswerScores:
    """MuSiQue's: an answer and a prediction of which normalisation leaves nothing agree."""
    scores = [token_scores(prediction, answer) for answer in answers]
    agree = any(score.em for score in scores)
    return AnswerScores(
        em=exact_match(prediction, answers),
        f1=1.0 if agree else max((score.f1 for score in scores), default=0.0),
        precision=1.0 if agree else max((score.precision for score in scores), default=0.0),
        recall=1.0 if agree else max((score.recall for score in scores), default=0.0),
    )


def babi_exact(prediction: str, answers: Sequence[str]) -> float:
    """1 if the prediction is the answer, case and blanks around words and commas aside.

    A list keeps its order: that of directions is the answer, and the data set has one order.
    """
    given = [part.strip().lower() for part in prediction.split(",")]
    return float(any(given == [part.strip().lower() for part in a.split(",")] for a in answers))


def rouge_l_recall(prediction: str, answers: Sequence[str]) -> float:
    """Longest common subsequence of words over the words of the answer; the best answer counts.

    Lin, *ROUGE* (2004). Words are lower-case runs of ASCII letters and digits, unstemmed: what
    Google's `rouge_score` does by default; MemGPT's paper does not say what it used.
    """
    given = _rouge_words(prediction)
    return max((_common_length(given, _rouge_words(a)) for a in answers), default=0.0)


def _rouge_words(text: str) -> list[str]:
    return _ROUGE_WORD.findall(text.lower())


def _common_length(given: Sequence[str], right: Sequence[str]) -> float:
    """Length of the longest common subsequence as a share of `right`; 0 where that is empty."""
    lengths = [0] * (len(right) + 1)
    for word in given:
        diagonal = 0
        for place, other in enumerate(right, start=1):
            above = lengths[place]
            lengths[place] = diagonal + 1 if word == other else max(above, lengths[place - 1])
            diagonal = above
    return lengths[-1] / len(right) if right else 0.0


def contains_answer(prediction: str, answers: Sequence[str]) -> float:
    """1 if the words of a gold answer stand in the prediction one after the other, normalised.

    Whole words, unlike `best_subspan_em`: "no" is not in "nothing". An answer of which
    normalisation leaves nothing is in no prediction.
    """
    given = f" {normalize_answer(prediction)} "
    normalized = (normalize_answer(answer) for answer in answers)
    return float(any(answer and f" {answer} " in given for answer in normalized))


def _dmr_numbers(prediction: str, answers: Sequence[str]) -> dict[str, float]:
    return {
        "rouge_l_recall": rouge_l_recall(prediction, answers),
        "contains": contains_answer(prediction, answers),
    }


def _hotpot_numbers(prediction: str, answers: Sequence[str]) -> dict[str, float]:
    scores = hotpot_answer(prediction, answers)
    return {"em": scores.em, "f1": scores.f1}


def _musique_numbers(prediction: str, answers: Sequence[str]) -> dict[str, float]:
    scores = musique_answer(prediction, answers)
    return {"em": scores.em, "f1": scores.f1}


_ANSWER_MEASURES: dict[str, Callable[[str, Sequence[str]], dict[str, float]]] = {
    "chat": _hotpot_numbers,
    "nq": lambda given, right: {"best_subspan_em": best_subspan_em(given, right)},
    "hotpotqa": _hotpot_numbers,
    "2wiki": _hotpot_numbers,
    "musique": _musique_numbers,
    "generated": _hotpot_numbers,
    "dmr": _dmr_numbers,
    "babi": lambda given, right: {"em": babi_exact(given, right)},
}


def answer_datasets() -> tuple[str, ...]:
    """Data sets that `score_answer` knows."""
    return tuple(_ANSWER_MEASURES)


def score_answer(dataset: str, prediction: str, answers: Sequence[str]) -> dict[str, float | None]:
    """Score a reader's answer by the official measures of its data set.

    Args:
        dataset: "chat", "nq", "hotpotqa", "2wiki", "musique", "generated", "dmr" or "babi"; what is
            generated is scored as HotpotQA.
        prediction: the text to be scored.
        answers: `Query.answers`; any of them is right.

    Returns:
        Measures in [0, 1] by name, all None without a gold answer.

    Raises:
        ValueError: if the data set is another one.
    """
    if dataset not in _ANSWER_MEASURES:
        raise ValueError(f"dataset must be one of {', '.join(_ANSWER_MEASURES)}, got {dataset!r}.")
    scores = _ANSWER_MEASURES[dataset](prediction, answers)
    return {name: score if answers else None for name, score in scores.items()}


# ---------------------------------------------------------------------- evidence


def support_scores(
    given: Collection[tuple[str, int]],
    right: Collection[tuple[str, int]],
    *,
    ignore_case: bool = False,
) -> SetScores:
    """Score supporting facts (title, sentence index); 2WikiMultihopQA's script ignores case.

    MuSiQue's support, over paragraph indices, is `memrl.set_scores.set_scores`.
    """
    if ignore_case:
        given, right = (
            {(title.lower(), number) for title, number in facts} for facts in (given, right)
        )
    return set_scores(given, right)


def triple_scores(given: Collection[Triple], right: Sequence[Collection[Triple]]) -> SetScores:
    """Score evidence triples of 2WikiMultihopQA.

    Args:
        given: predicted triples (subject, relation, object).
        right: for each gold triple the forms that are accepted.
    """
    predicted = {_normal_triple(triple) for triple in given}
    golds = [{_normal_triple(triple) for triple in forms} for forms in right]
    num_given_right = sum(any(triple in forms for forms in golds) for triple in predicted)
    num_matched = sum(bool(forms & predicted) for forms in golds)
    is_whole = num_given_right == len(predicted) == len(golds) == num_matched
    return SetScores(
        precision=num_given_right / len(predicted) if predicted else 0.0,
        recall=num_matched / len(golds) if golds else 0.0,
        em=float(is_whole),
    )


def _normal_triple(triple: Triple) -> tuple[str, ...]:
    # Unlike an answer, a triple keeps its articles.
    return tuple(" ".join(part.lower().translate(_DROP_PUNCTUATION).split()) for part in triple)


def joint_scores(*parts: AnswerScores | SetScores) -> SetScores:
    """HotpotQA's joint measure of answer and support, 2WikiMultihopQA's of triples as well.

    Precisions, recalls and EMs are multiplied; the joint F1 is that of the products.
    """
    precision = recall = em = 1.0
    for part in parts:
        precision, recall, em = precision * part.precision, recall * part.recall, em * part.em
    return SetScores(precision, recall, em)
