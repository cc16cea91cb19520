"""Cuts a long text into pieces that an embedder can take in."""

from __future__ import annotations

import re
from collections.abc import Iterator

from memrl.memory.tokens import TokenCounter

# From large to small. Every pattern matches every character, so the parts join to the text.
_PARTS = (
    re.compile(r"[^\n]*\n\s*|[^\n]+"),  # paragraphs
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
    all_tokens = count_tokens(text)
    if all_tokens <= max_tokens:
        return [text]
    pieces: list[str] = []
    parts: list[str] = []
    tokens = 0
    for part, part_tokens in _small_parts(text, all_tokens, max_tokens, count_tokens):
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
    text: str, tokens: int, max_tokens: int, count_tokens: TokenCounter, level: int = 0
) -> Iterator[tuple[str, int]]:
    """Cut a text that has too many `tokens`; yield parts, as large as the patterns allow.

    Yields:
        A part and its tokens, at most `max_tokens` unless it is a single character.
    """
    if level < len(_PARTS):
        parts = [match.group() for match in _PARTS[level].finditer(text) if match.group()]
    else:
        size = max(1, min(len(text) * max_tokens // tokens, (len(text) + 1) // 2))
        parts = [text[start : start + size] for start in range(0, len(text), size)]
    for part in parts:
        part_tokens = count_tokens(part)
        if part_tokens <= max_tokens or len(part) == 1:
            yield part, part_tokens
        else:
            yield from _small_parts(part, part_tokens, max_tokens, count_tokens, level + 1)
