"""Summarizers: what becomes of the pages that leave the queue.

The recursive summary is made of the summary before and the evicted pages (Packer et al.,
arXiv 2310.08560v2, section 2.2). A queue without a summarizer keeps no summary.
"""

from __future__ import annotations

import math
import re
from collections import Counter, defaultdict
from collections.abc import Sequence
from typing import Protocol, cast

from memrl.memory.bm25 import analyze
from memrl.memory.tokens import TokenCounter, count_tokens, truncate

# Neither side can match a run of white space from each of its places: time stays linear.
_SENTENCE_END = re.compile(r"(?<=[.!?])\s+|\n")


class Summarizer(Protocol):
    """Makes one text of many; a language model behind a prompt is the usual one."""

    def __call__(self, texts: Sequence[str], limit_tokens: int, /) -> str:
        """Summarise.

        Args:
            texts: the summary before, if there was one, and the pages, oldest first.
            limit_tokens: most that the summary should take.
        """
        ...


class ExtractiveSummarizer:
    """Keeps the most central sentences, in their order; deterministic, no model.

    A sentence's vector is tf * idf over the terms of `memrl.memory.bm25.analyze`, idf from the
    sentences at hand, length 1. Its centrality is its cosine to their sum: what many others talk
    about stays. The best that still fit are taken, ties by order; a repeated sentence counts once.

    Args:
        count: counts tokens.
    """

    def __init__(self, count: TokenCounter = count_tokens) -> None:
        self.count = count

    def __call__(self, texts: Sequence[str], limit_tokens: int) -> str:
        """Extract; see `Summarizer`. Never above the limit; "" if no text has a visible character.

        Where no sentence fits, the most central one is cut.
        """
        sentences = list(dict.fromkeys(s for text in texts for s in _split(text)))
        if not sentences or limit_tokens < 1:
            return ""
        centralities = _centralities(sentences)
        ranked = sorted(range(len(sentences)), key=lambda i: (-centralities[i], i))
        chosen: list[int] = []
        room_tokens = limit_tokens
        for i in ranked:
            size_tokens = self.count(sentences[i])
            if size_tokens <= room_tokens:
                chosen.append(i)
                room_tokens -= size_tokens
        kept = [sentences[i] for i in sorted(chosen)] or [sentences[ranked[0]]]
        # Counts need not add up exactly where a tokenizer joins words.
        return truncate(" ".join(kept), limit_tokens, self.count)


def _split(text: str) -> list[str]:
    return [part.strip() for part in _SENTENCE_END.split(text) if part.strip()]


def _centralities(sentences: Sequence[str]) -> list[float]:
    """Cosine of each sentence's tf-idf vector to the sum of all; 0 for one without terms."""
    frequencies = [Counter(analyze(sentence)) for sentence in sentences]
    document_frequencies = Counter(term for terms in frequencies for term in terms)
    vectors = []
    for terms in frequencies:
        vector = {
            term: count * math.log1p(len(sentences) / document_frequencies[term])
            for term, count in terms.items()
        }
        norm = math.sqrt(math.fsum(weight**2 for weight in vector.values())) or 1.0
        vectors.append({term: weight / norm for term, weight in vector.items()})
    total: defaultdict[str, float] = defaultdict(float)
    for vector in vectors:
        for term, weight in vector.items():
            total[term] += weight
    return [math.fsum(weight * total[term] for term, weight in v.items()) for v in vectors]


class GuardedSummarizer:
    """A summarizer that cannot fail: what it does wrong is counted and made good by extraction.

    Args:
        primary: the summarizer to ask first. count: counts tokens.

    Attributes:
        calls: summaries asked for.
        failures: kind of failure -> how often: "raised", "not_text", "blank" (extraction from the
            texts takes its place) and "too_long" (its own sentences are extracted).
        last_error: the latest exception, as one line; "" without any.
    """

    def __init__(self, primary: Summarizer, count: TokenCounter = count_tokens) -> None:
        self.primary = primary
        self.count = count
        self.calls = 0
        self.failures: Counter[str] = Counter()
        self.last_error = ""
        self._extract = ExtractiveSummarizer(count)

    def __call__(self, texts: Sequence[str], limit_tokens: int) -> tuple[str, str | None]:
        """Summarise.

        Returns:
            The summary, not above the limit, and the kind of failure or None.
        """
        self.calls += 1
        summary, failure = self._ask(texts, limit_tokens)
        if failure == "too_long":
            summary = self._extract([summary], limit_tokens)
        elif failure is not None:
            summary = self._extract(texts, limit_tokens)
        if failure is not None:
            self.failures[failure] += 1
        return summary, failure

    def _ask(self, texts: Sequence[str], limit_tokens: int) -> tuple[str, str | None]:
        try:
            summary = cast(object, self.primary(texts, limit_tokens))
        except Exception as error:  # whatever a foreign model raises, the queue has to go on
            self.last_error = f"{type(error).__name__}: {error}".partition("\n")[0]
            return "", "raised"
        if not isinstance(summary, str):
            return "", "not_text"
        if not summary.strip():
            return "", "blank"
        return summary, "too_long" if self.count(summary) > limit_tokens else None
