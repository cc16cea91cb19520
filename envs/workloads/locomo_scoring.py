"""LoCoMo's official scores of answers and of retrieved evidence.

Written from the description of the benchmark's own evaluation (Maharana et al., arXiv 2402.17753,
section 6, and `task_eval/evaluation.py` of `snap-research/LoCoMo`): SQuAD-like normalisation that
drops commas and the word "and" as well, Porter stemming, and token F1.

Two differences are on purpose. Upstream stems with NLTK's variant of Porter's algorithm; here it is
the original one (with the evidence turns as predictions, 2 of 1,111 scores on seven conversations
differ, and the mean by less than .0001). And where upstream counts a question without evidence as
recall 1, the functions here say None, so that such questions are left out of a mean instead of
raising it.
"""

from __future__ import annotations

from collections import Counter
from collections.abc import Collection
from functools import lru_cache

import snowballstemmer

from envs.workloads import answer_scoring
from envs.workloads.locomo_records import LocomoCategory
from memrl.documents import Query

_REFUSALS = ("no information available", "not mentioned")
_DATE_HINT = " Use DATE of CONVERSATION to answer with an approximate date."


def normalize_answer(text: str) -> str:
    """Lower-cases, drops ASCII punctuation, the articles and "and", and squeezes blanks."""
    return answer_scoring.normalize_answer(text, (*answer_scoring.ARTICLES, "and"))


@lru_cache(maxsize=65536)
def _stem(word: str) -> str:
    # As in Porter's own program and in NLTK, words of one or two letters stay: "is" is no "i".
    if len(word) <= 2:
        return word
    # A stemmer object keeps state while it works, so each call gets its own.
    return str(snowballstemmer.stemmer("porter").stemWord(word))


def stemmed_tokens(text: str) -> list[str]:
    """Splits the normalised text at blanks and stems each word (Porter 1980)."""
    return [_stem(word) for word in normalize_answer(text).split()]


def token_f1(prediction: str, gold: str) -> float:
    """Harmonic mean of precision and recall over stemmed tokens, counted with multiplicity.

    0 when no token is shared, in particular when either side has none left after normalisation.
    """
    predicted, expected = stemmed_tokens(prediction), stemmed_tokens(gold)
    shared = (Counter(predicted) & Counter(expected)).total()
    return 2 * shared / (len(predicted) + len(expected)) if shared else 0.0


def multi_part_f1(prediction: str, gold: str) -> float:
    """Splits both at commas; mean over the gold parts of the best F1 among predicted parts."""
    predicted_parts = prediction.split(",")
    gold_parts = gold.split(",")
    best = [max(token_f1(predicted, part) for predicted in predicted_parts) for part in gold_parts]
    return sum(best) / len(best)


def is_refusal(prediction: str) -> bool:
    """Whether the prediction says that the conversation does not tell."""
    lowered = prediction.lower()
    return any(phrase in lowered for phrase in _REFUSALS)


def score_answer(query: Query, prediction: str) -> float | None:
    """Scores a prediction by the rule of the question's category.

    Adversarial: 1 for a refusal, else 0. Multi-hop: `multi_part_f1`. Open-domain: token F1 against
    the gold answer up to its first semicolon. Temporal and single-hop: token F1. Of several gold
    answers the best counts.

    Args:
        query: a question of the LoCoMo workload.
        prediction: the text to be scored.

    Returns:
        A score in [0, 1], or None when there is no gold answer to score against (masked as wrong,
        or missing in the source).

    Raises:
        ValueError: the query's category is not one of LoCoMo's.
    """
    try:
        category = LocomoCategory[query.category.upper()]
    except KeyError:
        names = ", ".join(member.name.lower() for member in LocomoCategory)
        raise ValueError(
            f"The category {query.category!r} is not LoCoMo's: score queries of one of {names}."
        ) from None
    if category is LocomoCategory.ADVERSARIAL:
        return float(is_refusal(prediction))
    if not query.answers:
        return None
    if category is LocomoCategory.MULTI_HOP:
        return max(multi_part_f1(prediction, gold) for gold in query.answers)
    if category is LocomoCategory.OPEN_DOMAIN:
        return max(token_f1(prediction, gold.split(";")[0]) for gold in query.answers)
    return max(token_f1(prediction, gold) for gold in query.answers)


def official_question(query: Query) -> str:
    """The question as the benchmark puts it to a reader: temporal ones ask for a date."""
    is_temporal = query.category == LocomoCategory.TEMPORAL.name.lower()
    return query.text + _DATE_HINT if is_temporal else query.text


def evidence_recall(query: Query, retrieved: Collection[int]) -> float | None:
    """Share of a query's needs among the retrieved pages.

    As upstream, it is defined for adversarial questions too (of the turns that the source cites);
    whether they pay is for the caller to say (`Query.pays_evidence`).

    Args:
        query: the question.
        retrieved: page indices, in the same numbering as `query.needs`.

    Returns:
        A share in [0, 1], or None when the query needs nothing.
    """
    if not query.needs:
        return None
    return sum(need in retrieved for need in query.needs) / len(query.needs)
