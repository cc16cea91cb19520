"""Texts and vectors for the benchmark of retrieval: real ones, and more drawn around them."""

from __future__ import annotations

import os
from dataclasses import dataclass
from pathlib import Path

import numpy as np

from envs.workloads.document_qa import load_document_qa
from envs.workloads.locomo import load_locomo
from envs.workloads.msc import load_msc
from memrl.document_config import DocumentQaConfig
from memrl.memory.embedders import CachedEmbedder, SentenceTransformerEmbedder
from memrl.memory.vector_index import Vectors

DIMENSION = 384
NOISE_LENGTH = 0.5
"""Of what is added to a real vector, in a random direction; the cosine with it is then .89."""
_ROWS_PER_DRAW = 65_536


@dataclass(frozen=True)
class Corpus:
    """What is searched.

    Attributes:
        texts: the real ones, in the order of the first vectors; without data, made up.
        vectors: (n, 384) unit vectors. queries: (q, 384), of questions about the texts.
        questions: the q texts of the queries.
        num_real: how many of the vectors are embeddings of `texts`; the others are drawn.
    """

    texts: list[str]
    vectors: Vectors
    queries: Vectors
    questions: list[str]
    num_real: int


def make_corpus(size: int, num_texts: int, num_queries: int) -> Corpus:
    """Embed up to `num_texts` texts of the data sets, and draw more vectors up to `size`.

    LoCoMo's questions are the queries. Without `MEMRL_DATA` texts and vectors are random.
    """
    rng = np.random.default_rng(0)
    data_dir = os.environ.get("MEMRL_DATA")
    if data_dir:
        texts, questions = _real_texts(Path(data_dir))
        texts = [texts[row] for row in rng.permutation(len(texts[:num_texts]))]
        # Again from the first, where more are wanted than there are.
        order = np.resize(rng.permutation(len(questions)), num_queries)
        questions = [questions[row] for row in order]
        embedder = CachedEmbedder(SentenceTransformerEmbedder())
        real, queries = embedder.embed(texts), embedder.embed(questions)
    else:
        words = np.array([f"w{number}" for number in range(5000)])
        texts, questions = (
            [" ".join(row) for row in rng.choice(words, (count, 20))]
            for count in (num_texts, num_queries)
        )
        real, queries = _unit(rng, num_texts), _unit(rng, num_queries)
    vectors = np.empty((size, DIMENSION), dtype=np.float32)
    num_real = min(size, len(real))
    vectors[:num_real] = real[:num_real]
    for first in range(num_real, size, _ROWS_PER_DRAW):
        count = min(_ROWS_PER_DRAW, size - first)
        drawn = real[rng.integers(0, len(real), count)] + NOISE_LENGTH * _unit(rng, count)
        vectors[first : first + count] = drawn / np.linalg.norm(drawn, axis=1, keepdims=True)
    return Corpus(texts, vectors, queries, questions, num_real if data_dir else 0)


def _real_texts(root: Path) -> tuple[list[str], list[str]]:
    """Distinct (texts, questions), in this order.

    LoCoMo's pages, what MSC's speakers say of themselves, MSC's pages, and the passages of
    NaturalQuestions and of 2WikiMultihopQA's corpus.
    """
    locomo, msc = load_locomo(root), load_msc(root)
    rng = np.random.default_rng(0)
    corpora = [
        load_document_qa(root, DocumentQaConfig(dataset=dataset, scope="corpus"), rng)
        for dataset in ("nq", "2wiki")
    ]
    texts = [page.rendered for document in locomo.documents for page in document.pages]
    texts += [query.text for document in msc.documents for query in document.queries]
    texts += [page.rendered for document in msc.documents for page in document.pages]
    texts += [page.rendered for corpus in corpora for page in corpus.documents[0].pages]
    questions = {query.text for document in locomo.documents for query in document.queries}
    return [text for text in dict.fromkeys(texts) if text not in questions], sorted(questions)


def _unit(rng: np.random.Generator, count: int) -> Vectors:
    vectors = rng.standard_normal((count, DIMENSION), dtype=np.float32)
    unit: Vectors = vectors / np.linalg.norm(vectors, axis=1, keepdims=True)
    return unit
