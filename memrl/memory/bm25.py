"""Lexical scores: BM25 whose idf and length statistics are fitted once and then frozen.

One function scores for the tensorised tables and for the live recall search, so both rank alike.
BM25 is Robertson and Zaragoza, "The Probabilistic Relevance Framework: BM25 and Beyond" (2009),
with the idf of Lucene, which is never negative.
"""

from __future__ import annotations

import math
import re
from collections import Counter
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from functools import lru_cache
from itertools import pairwise
from typing import Any, TypeVar

import numpy as np
import numpy.typing as npt
import snowballstemmer
from scipy import sparse

K1 = 1.2
"""Saturation of the term frequency."""
B = 0.75
"""Strength of the length normalisation."""
ANALYZER = "english-porter-1"
"""Name of what `analyze` does; statistics fitted with another analyzer are refused."""

# Lucene's English list, pronouns, auxiliaries, question words and what apostrophes leave over.
STOP_WORDS = frozenset(
    """
    a an and are as at be but by for if in into is it no not of on or such that the their then
    there these they this to was will with
    i you he she we me him her us them my your his our its
    am were been do does did has have had can could should would about from just so
    what when where who whom which why how
    d ll m re s t ve
    """.split()  # noqa: SIM905 - as a list it would take 70 lines
)
Length = TypeVar("Length", float, npt.NDArray[np.float64])

_WORD = re.compile(r"[^\W_]+")


def analyze(text: str) -> list[str]:
    """Split a text into its terms, in order, repetitions kept.

    A term is a lower-case run of letters and digits that is no stop word, reduced to its stem by
    Porter's algorithm when it has letters only. Chosen on the 1,111 answerable LoCoMo questions at
    hand, idf from the other conversations: recall of the evidence at 10 pages is .45 for plain
    words, .48 without stop words and .52 with stems as well (on 210 MuSiQue questions over pooled
    paragraphs stems cost .03, on 275 HotpotQA questions they change nothing).
    """
    words = (match.group() for match in _WORD.finditer(text.lower()))
    return [_stem(word) for word in words if word not in STOP_WORDS]


@lru_cache(maxsize=1 << 16)
def _stem(word: str) -> str:
    if not word.isalpha():
        return word
    # A stemmer keeps its word as state and cannot be shared by threads.
    return str(snowballstemmer.stemmer("porter").stemWord(word))


@dataclass(frozen=True, slots=True)
class Bm25Statistics:
    """What BM25 knows of a collection; fitted on training pages, then frozen.

    Attributes:
        document_frequencies: term -> number of fitted texts that hold it.
        num_documents: number of fitted texts.
        mean_length_terms: mean number of terms of a fitted text, repetitions counted; positive.
    """

    document_frequencies: Mapping[str, int]
    num_documents: int
    mean_length_terms: float

    def __post_init__(self) -> None:
        """Refuse statistics that no collection has."""
        if self.num_documents < 1 or not self.mean_length_terms > 0:
            raise ValueError(
                f"BM25 statistics of {self.num_documents} texts with a mean length of "
                f"{self.mean_length_terms} terms are of no use: fit them on the training pages."
            )

    @classmethod
    def fit(cls, texts: Sequence[str]) -> Bm25Statistics:
        """Count the terms of `texts`.

        Raises:
            ValueError: if no text has a term.
        """
        frequencies: Counter[str] = Counter()
        num_terms = 0
        for text in texts:
            terms = analyze(text)
            frequencies.update(set(terms))
            num_terms += len(terms)
        if num_terms == 0:
            raise ValueError(
                f"BM25 statistics need a text with at least one term; none of the {len(texts)} "
                "texts has one: fit on the pages of the training documents."
            )
        return cls(dict(sorted(frequencies.items())), len(texts), num_terms / len(texts))

    def idf(self, term: str) -> float:
        """Inverse document frequency, ln(1 + (n - df + .5) / (df + .5)) > 0; unseen: df = 0."""
        frequency = self.document_frequencies.get(term, 0)
        return math.log1p((self.num_documents - frequency + 0.5) / (frequency + 0.5))

    def to_dict(self) -> dict[str, Any]:
        """JSON-able form that `from_dict` reads."""
        return {
            "analyzer": ANALYZER,
            "document_frequencies": dict(self.document_frequencies),
            "num_documents": self.num_documents,
            "mean_length_terms": self.mean_length_terms,
        }

    @classmethod
    def from_dict(cls, record: Mapping[str, Any]) -> Bm25Statistics:
        """Read what `to_dict` wrote.

        Raises:
            ValueError: if the record lacks a field, or another analyzer made it.
        """
        try:
            analyzer = record["analyzer"]
            statistics = cls(
                {str(term): int(df) for term, df in record["document_frequencies"].items()},
                int(record["num_documents"]),
                float(record["mean_length_terms"]),
            )
        except (KeyError, AttributeError, TypeError) as error:
            raise ValueError(
                f"BM25 statistics are incomplete ({error!r}): fit them again on the training pages."
            ) from error
        if analyzer != ANALYZER:
            raise ValueError(
                f"BM25 statistics were fitted with analyzer {analyzer!r}, this version has "
                f"{ANALYZER!r}: fit them again on the training pages."
            )
        return statistics


def bm25_scores(
    queries: Sequence[str], pages: Sequence[str], stats: Bm25Statistics
) -> npt.NDArray[np.float32]:
    """Score every page for every query, each query on a scale of its own upper bound.

    The score is sum_t idf(t) * (k1 + 1) * tf / (tf + k1 * (1 - b + b * length / mean_length)),
    divided by its supremum sum_t idf(t) * (k1 + 1), where t runs over the *distinct* terms of the
    query: repeating a word in the query changes nothing, so whole pages can be queries. A page
    that holds every term often and is short approaches 1. The division does not change the ranking
    of a query; it makes queries comparable. Terms never seen in fitting count as the rarest ones.

    A score depends on its query, its page and `stats` alone, bit for bit: a collection may grow
    and be scored one query at a time.

    Args:
        queries: Q texts; one without terms scores 0 everywhere.
        pages: P texts; one without terms scores 0.
        stats: frozen statistics.

    Returns:
        (Q, P) float32 in [0, 1).
    """
    weights = [query_weights(query, stats) for query in queries]
    column = {term: i for i, term in enumerate(sorted(set().union(*weights)))}
    indices = np.array([column[term] for terms in weights for term in terms], dtype=np.int64)
    row_ends = np.cumsum([0] + [len(terms) for terms in weights])
    shares = np.array([weight for terms in weights for weight in terms.values()])
    bounds = np.array([math.fsum(shares[a:b]) for a, b in pairwise(row_ends)])
    query_matrix = sparse.csr_matrix((shares, indices, row_ends), shape=(len(queries), len(column)))
    scores = (query_matrix @ _saturated_frequencies(pages, column, stats).T).toarray()
    normalised: npt.NDArray[np.float32] = np.divide(
        scores, bounds[:, None], out=np.zeros_like(scores), where=scores > 0
    ).astype(np.float32)
    return normalised


def query_weights(query: str, stats: Bm25Statistics) -> dict[str, float]:
    """Distinct term -> idf * (k1 + 1), sorted, so that sums over terms have one rounding."""
    return {term: (K1 + 1.0) * stats.idf(term) for term in sorted(set(analyze(query)))}


def length_norm(length_terms: Length, stats: Bm25Statistics) -> Length:
    """What a term frequency tf is weighed against, as tf / (tf + norm): grows with the length.

    Args:
        length_terms: number of terms of a page, repetitions counted; a number or an array.
        stats: frozen statistics.
    """
    return K1 * (1.0 - B + B * length_terms / stats.mean_length_terms)


def _saturated_frequencies(
    pages: Sequence[str], column: Mapping[str, int], stats: Bm25Statistics
) -> sparse.csr_matrix:
    """(P, V) float64 matrix of tf / (tf + k1 * length norm), V the terms in `column`."""
    values: list[float] = []
    indices: list[int] = []
    row_ends = [0]
    for page in pages:
        terms = analyze(page)
        norm = length_norm(float(len(terms)), stats)
        for term, frequency in Counter(terms).items():
            if term in column:
                values.append(frequency / (frequency + norm))
                indices.append(column[term])
        row_ends.append(len(indices))
    return sparse.csr_matrix(
        (np.array(values, dtype=np.float64), np.array(indices, dtype=np.int64), row_ends),
        shape=(len(pages), len(column)),
    )
