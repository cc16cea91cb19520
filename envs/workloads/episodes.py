"""Episodes of a workload: windows of consecutive pages, and when each question is asked."""

from __future__ import annotations

import warnings
from collections.abc import Sequence
from typing import Literal, get_args

import numpy as np

from memrl.documents import Document, Episode, Query

Ask = Literal["interleaved", "end"]


def sample_episodes(
    documents: Sequence[Document],
    *,
    window_pages: int,
    max_queries: int,
    ask: Ask,
    episodes_per_document: int,
    rng: np.random.Generator,
    include_unanswerable: bool = False,
) -> tuple[Episode, ...]:
    """Draws windows of documents and the questions that are asked in them.

    A window is `window_pages` consecutive pages (the whole document when that is shorter). A query
    is eligible in it when it pays evidence and its needs and route lie inside. The start is drawn
    uniformly among the starts whose window has an eligible query, which is the distribution of
    drawing a start uniformly until its window has one. The queries are drawn without replacement.

    Each document has its own random stream, so episodes of a document do not depend on how many
    documents follow it.

    Args:
        documents: the documents; `Episode.document` is an index into them.
        window_pages: pages in a window, at least 1.
        max_queries: most queries of an episode, at least 1.
        ask: "interleaved": a query is asked after a number of arrived pages drawn uniformly from
            {position of its last need or route page + 1, ..., pages in the window}; without any,
            from {1, ...}.
            "end": all are asked when the whole window has arrived.
        episodes_per_document: at least 1.
        rng: source of randomness; its seed sequence is advanced by one spawn per document.
        include_unanswerable: whether queries that pay no evidence (unanswerable, or without needs)
            are eligible too; the needs that they cite, if any, must lie inside the window.

    Returns:
        Episodes in document order; documents in which no window has an eligible query are left out
        and named in one warning.

    Raises:
        ValueError: a count is below 1, `ask` is unknown, or no document has an eligible query.
    """
    counts = {
        "window_pages": window_pages,
        "max_queries": max_queries,
        "episodes_per_document": episodes_per_document,
    }
    for name, count in counts.items():
        if count < 1:
            raise ValueError(f"{name} is {count} but must be at least 1.")
    if ask not in get_args(Ask):
        raise ValueError(f"ask is {ask!r} but must be one of {', '.join(get_args(Ask))}.")
    episodes: list[Episode] = []
    skipped: list[str] = []
    for index, stream in enumerate(rng.spawn(len(documents))):
        document = documents[index]
        eligible = [
            number
            for number, query in enumerate(document.queries)
            if query.pays_evidence or include_unanswerable
        ]
        window = min(window_pages, len(document.pages))
        starts = _useful_starts(document, eligible, window)
        if not len(starts):
            skipped.append(document.document_id)
            continue
        for _ in range(episodes_per_document):
            start = int(starts[stream.integers(len(starts))])
            queries = _draw_queries(document, eligible, start, window, max_queries, ask, stream)
            episodes.append(Episode(index, start, window, queries))
    if not episodes:
        raise ValueError(
            f"None of the {len(documents)} documents has a query that can be asked within "
            f"{window_pages} pages: widen window_pages or check the queries' needs."
        )
    if skipped:
        warnings.warn(
            f"No window of {window_pages} pages has a query that can be asked in "
            f"{len(skipped)} of {len(documents)} documents, which are left out: "
            f"{', '.join(skipped)}.",
            stacklevel=2,
        )
    return tuple(episodes)


def told_episodes(documents: Sequence[Document]) -> tuple[Episode, ...]:
    """One episode a document: all its pages arrive, each query is asked where its source asks it.

    Queries that the source does not ask (`Query.asked_after` is None) are labels and stay unasked.
    """
    episodes = []
    for index, document in enumerate(documents):
        asked = [
            (query.asked_after, number)
            for number, query in enumerate(document.queries)
            if query.asked_after is not None
        ]
        episodes.append(Episode(index, 0, len(document.pages), tuple(sorted(asked))))
    return tuple(episodes)


def can_be_asked(document: Document, window_pages: int) -> bool:
    """Whether some window of a document has a query that pays evidence."""
    paying = [number for number, query in enumerate(document.queries) if query.pays_evidence]
    window = min(window_pages, len(document.pages))
    return bool(len(_useful_starts(document, paying, window)))


def _fits(query: Query, start: int, window: int) -> bool:
    cited = query.cited
    return not cited or (start <= cited[0] and cited[-1] < start + window)


def _useful_starts(
    document: Document, eligible: Sequence[int], window: int
) -> np.ndarray[tuple[int], np.dtype[np.int64]]:
    """Returns the starts, ascending, of the windows that at least one eligible query fits in."""
    num_starts = len(document.pages) - window + 1 if document.pages else 0
    useful = np.zeros(num_starts, dtype=bool)
    for number in eligible:
        cited = document.queries[number].cited
        if cited:
            useful[max(0, cited[-1] - window + 1) : cited[0] + 1] = True
        else:
            useful[:] = True
    return np.flatnonzero(useful)


def _draw_queries(
    document: Document,
    eligible: Sequence[int],
    start: int,
    window: int,
    max_queries: int,
    ask: Ask,
    rng: np.random.Generator,
) -> tuple[tuple[int, int], ...]:
    fitting = [number for number in eligible if _fits(document.queries[number], start, window)]
    drawn: list[tuple[int, int]] = []
    for position in rng.permutation(len(fitting))[:max_queries]:
        number = fitting[position]
        cited = document.queries[number].cited
        earliest = cited[-1] - start + 1 if cited else 1
        num_arrived = window if ask == "end" else int(rng.integers(earliest, window + 1))
        drawn.append((num_arrived, number))
    return tuple(sorted(drawn, key=lambda pair: pair[0]))
