"""Cuts a long text into pieces that an embedder can take in."""

from __future__ import annotations

import re
from collections.abc import Iterator

from memrl.memory.tokens import TokenCounter

# From large to small. Every pattern matches every character, so the parts join to the text.
_PARTS = (
    re.compile(r".*?(?:\n\s*|\Z)", re.DOTALL),  # paragraphs
    re.compile(r".*?(?:[.!?]\s+|\Z)", re.DOTALL),  # sentences
    re.compile(r"\s*\S+\s*|\s+"),  # words
)


def split_text(text: str, max_tokens: int, count_tokens: TokenCounter) -> list[str]:
    """Cut a text into pieces of at most `max_tokens` tokens that join to the text.

    Cuts are made between paragraphs where that suffices, else between sentences, words or, inside
    a word that is too long, characters. A single character is never cut, whatever it counts.

    Args:
        text: any text; "" is one empty piece.
        max_tokens: 1 or more.
        count_tokens: counts the tokens of a piece.
    """
    if count_tokens(text) <= max_tokens:
        return [text]
    pieces: list[str] = []
    parts: list[str] = []
    tokens = 0
    for part, part_tokens in _small_parts(text, max_tokens, count_tokens, level=0):
        if parts and tokens + part_tokens > max_tokens:
            pieces += _join(parts, max_tokens, count_tokens)
            parts, tokens = [], 0
        parts.append(part)
        tokens += part_tokens
    return pieces + _join(parts, max_tokens, count_tokens)


def _join(parts: list[str], max_tokens: int, count_tokens: TokenCounter) -> list[str]:
    """Join parts; in some tokenizers they count more together than alone, and stay apart then."""
    joined = "".join(parts)
    if len(parts) == 1 or count_tokens(joined) <= max_tokens:
        return [joined]
    half = len(parts) // 2
    return [
        *_join(parts[:half], max_tokens, count_tokens),
        *_join(parts[half:], max_tokens, count_tokens),
    ]


def _small_parts(
    text: str, max_tokens: int, count_tokens: TokenCounter, level: int
) -> Iterator[tuple[str, int]]:
    """Yield parts of at most `max_tokens` tokens, as large as the patterns allow; their tokens."""
    for part in _cut(text, max_tokens, level):
        tokens = count_tokens(part)
        if tokens <= max_tokens or len(part) == 1:
            yield part, tokens
        else:
            yield from _small_parts(part, max_tokens, count_tokens, level + 1)


def _cut(text: str, max_tokens: int, level: int) -> Iterator[str]:
    if level < len(_PARTS):
        yield from (match.group() for match in _PARTS[level].finditer(text) if match.group())
        return
    # A token has at least one character in nearly every tokenizer; deeper levels halve.
    size = max(1, min(max_tokens, (len(text) + 1) // 2))
    yield from (text[start : start + size] for start in range(0, len(text), size))
