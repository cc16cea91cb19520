"""The texts of an episode's pages as main context shows them, and as people are shown them."""

from __future__ import annotations

from memrl.memory.tokens import count_tokens, truncate
from memrl.options import PagingOptions
from memrl.table import EpisodeTable

CUT_MARKER = " [cut]"


def printable(text: str) -> str:
    """A text on one line, without control codes of a terminal and lone surrogates."""
    shown = "".join(char if char.isprintable() else " " for char in text)
    return " ".join(shown.split())


def window_texts(table: EpisodeTable, options: PagingOptions, episode: int) -> list[str]:
    """Texts of the window's pages; one larger than main context is cut to it, with a marker.

    Args:
        table: the workload. options: resolved options. episode: number in the table.
    """
    window = table.episode_pages(episode)
    texts = table.text.pages[window]
    if options.unit == "pages":
        return texts
    limit = int(options.capacity)
    return [
        text if tokens <= limit else truncate(text, limit, count_tokens, marker=CUT_MARKER)
        for text, tokens in zip(texts, table.page_tokens[window].tolist(), strict=True)
    ]
