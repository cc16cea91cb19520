"""Surface features of a text: what can be seen without understanding it."""

from __future__ import annotations

import re
from collections.abc import Sequence

from memrl.documents import Page

MAX_SPEAKERS = 63
"""Speakers of one document that a bit mask of names can hold."""


def text_surface(text: str) -> tuple[float, float, float, float]:
    """Length, digits, capitalised words past the first, question marks; each in [0, 1]."""
    words = text.split()
    capitals = sum(word[0].isupper() for word in words[1:])
    return (
        min(len(text) / 400.0, 1.0),
        min(sum(ch.isdigit() for ch in text) / 8.0, 1.0),
        min(capitals / 8.0, 1.0),
        min(text.count("?") / 2.0, 1.0),
    )


def page_surface(page: Page, similarity_to_previous: float) -> tuple[float, ...]:
    """The columns of `memrl.table.SURFACE`.

    Args:
        page: any page. similarity_to_previous: cosine with the page before it, 0 for the first.
    """
    return min(page.role, 1), int(page.kind), *text_surface(page.text), similarity_to_previous


def speakers_named(text: str, speakers: Sequence[str]) -> int:
    """Bit mask of the speakers that a text names as whole words."""
    mask = 0
    for index, speaker in enumerate(speakers[:MAX_SPEAKERS]):
        if re.search(rf"\b{re.escape(speaker)}\b", text, flags=re.IGNORECASE):
            mask |= 1 << index
    return mask


def speaker_index(page: Page, speakers: Sequence[str]) -> int:
    """Position of a page's speaker among those of its document, -1 for none."""
    index = speakers.index(page.speaker) if page.speaker in speakers else -1
    return index if index < MAX_SPEAKERS else -1
