"""Questions, and what may be read for each: main context as it was, or a reference without paging.

The references need no environment. They read what had been seen when the question was asked: as
much as fits of everything, the best of a search, or nothing at all.
"""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from typing import Literal, Protocol

import numpy as np

from memrl.documents import Document, Query
from memrl.episode_log import ContextTexts, EpisodeLog
from memrl.errors import MemrlError
from memrl.options import PagingOptions
from memrl.page_texts import window_texts
from memrl.table import EpisodeTable, Event
from memrl.table_search import TableSearch


class ReadingError(MemrlError):
    """There is nothing from which a question could be answered."""


@dataclass(frozen=True)
class Asked:
    """A question, and what may be read for it.

    Attributes:
        episode: number in the table. query: index in the episode's document.
        texts: what may be read, oldest first.
        keep: positions in `texts`; what comes first is kept first where not all fit.
        pages: page of the window that each text is, None for a text that is no page.
    """

    episode: int
    query: int
    texts: tuple[str, ...] = ()
    keep: tuple[int, ...] = ()
    pages: tuple[int | None, ...] = ()


def table_query(table: EpisodeTable, episode: int, query: int) -> Query:
    """A question as the table has it, for scoring; pages are numbered within the document.

    A table does not say whether a question without needs is answerable; it is taken to be.
    """
    row = int(table.query_offset[table.episode_document[episode]]) + query
    needs = tuple(int(page) for page in table.query_needs[row] if page >= 0)
    return Query(
        text=table.text.queries[row],
        needs=needs,
        category=table.text.categories[int(table.query_category[row])],
        answers=tuple(table.text.answers[row]),
        answerable=bool(table.query_pays[row]) or not needs,
        source_id=table.text.query_ids[row],
    )


def table_dates(table: EpisodeTable, documents: Sequence[Document]) -> list[str]:
    """Dates of all pages on the page axis of a table, or of a part of one.

    Args:
        table: the workload. documents: those that it was made of, and any others.
    """
    by_id = {document.document_id: document for document in documents}
    dates = [""] * len(table.page_tokens)
    for number, name in enumerate(table.text.document_ids):
        first = int(table.page_offset[number])
        for place, page in enumerate(by_id[name].pages, start=first):
            dates[place] = page.timestamp
    return dates


# ---------------------------------------------------------------------- main context


def asked_in_log(
    table: EpisodeTable,
    options: PagingOptions,
    episode: int,
    log: EpisodeLog,
    dates: Sequence[str] | None = None,
) -> list[Asked]:
    """The questions of an episode with main context as it was at each answer, newest kept first.

    Args:
        table: the workload. options: resolved options that were played.
        episode: number in the table. log: what happened in it.
        dates: of every page on the table's page axis, shown before the texts; None for none.

    Raises:
        ReadingError: if main context was not noted.
    """
    if len(log.contexts) != len(log.answers):
        raise ReadingError(
            "What main context held at the answers was not noted: play the episodes with the "
            "reference environment."
        )
    texts = _dated(table, episode, window_texts(table, options, episode), dates)
    return [
        _newest_first(episode, answer.query, pages, texts)
        for answer, pages in zip(log.answers, log.contexts, strict=True)
    ]


class PlayedLive(Protocol):
    """What readers need of a live episode; see `memrl.evaluation.play_live.LiveEpisode`."""

    @property
    def log(self) -> EpisodeLog:
        """What happened."""
        ...

    @property
    def contexts(self) -> tuple[ContextTexts, ...]:
        """What main context showed when each query was answered."""
        ...


def asked_live(episode: int, played: PlayedLive, dates: Sequence[str] = ()) -> list[Asked]:
    """The same of a live session: working context and summary are kept before any page.

    Args:
        episode: number in the table. played: how it went.
        dates: of the pages of the window; what an archived entry says of its own has none.
    """
    log, asked = played.log, list[Asked]()
    for answer, context, pages in zip(log.answers, played.contexts, log.contexts, strict=True):
        first, count = len(context.pinned), len(context.pinned) + len(context.pages)
        texts = zip(context.pages, pages, strict=True)
        shown = [_with_date(text, dates[p] if p < len(dates) else "") for text, p in texts]
        asked.append(
            Asked(
                episode,
                answer.query,
                texts=(*context.pinned, *shown),
                keep=(*range(first), *reversed(range(first, count))),
                pages=(*[None] * first, *pages),
            )
        )
    return asked


# ---------------------------------------------------------------------- references


def no_memory(table: EpisodeTable, episode: int) -> list[Asked]:
    """The questions of an episode with nothing to read."""
    return [Asked(episode, query) for query, _ in _seen_when_asked(table, episode)]


def full_context(
    table: EpisodeTable,
    episode: int,
    keep: Literal["newest", "oldest"],
    dates: Sequence[str] | None = None,
) -> list[Asked]:
    """The questions with all that had been seen; of what does not fit, one end is kept.

    Args:
        table: the workload. episode: number in it.
        keep: which end. dates: see `asked_in_log`.
    """
    texts = _dated(table, episode, table.text.pages[table.episode_pages(episode)], dates)
    asked = []
    for query, seen in _seen_when_asked(table, episode):
        one = _newest_first(episode, query, seen, texts)
        order = one.keep if keep == "newest" else one.keep[::-1]
        asked.append(Asked(episode, query, one.texts, order, one.pages))
    return asked


def rag_top_k(
    table: EpisodeTable,
    options: PagingOptions,
    episode: int,
    top_k: int,
    dates: Sequence[str] | None = None,
) -> list[Asked]:
    """The questions with the k best pages of all that had been seen, the best kept first.

    Args:
        table: the workload. options: resolved; their `staging` ranks.
        episode: number in the table. top_k: pages. dates: see `asked_in_log`.
    """
    texts = _dated(table, episode, table.text.pages[table.episode_pages(episode)], dates)
    asked = []
    for query, seen in _seen_when_asked(table, episode):
        available = np.zeros(int(table.episode_num_pages[episode]), dtype=bool)
        available[list(seen)] = True
        search = TableSearch(table, options, episode, available, query=query)
        best = search.rank(list(seen), [])[:top_k]
        pages = sorted(best)
        keep = tuple(pages.index(page) for page in best)
        asked.append(Asked(episode, query, tuple(texts[p] for p in pages), keep, tuple(pages)))
    return asked


# ---------------------------------------------------------------------- parts


def _newest_first(episode: int, query: int, pages: Sequence[int], texts: Sequence[str]) -> Asked:
    return Asked(
        episode,
        query,
        texts=tuple(texts[page] for page in pages),
        keep=tuple(reversed(range(len(pages)))),
        pages=tuple(pages),
    )


def _dated(
    table: EpisodeTable, episode: int, texts: Sequence[str], dates: Sequence[str] | None
) -> Sequence[str]:
    if dates is None:
        return texts
    own = dates[table.episode_pages(episode)]
    return [_with_date(text, date) for text, date in zip(texts, own, strict=True)]


def _with_date(text: str, date: str) -> str:
    return f"({date}) {text}" if date else text


def _seen_when_asked(table: EpisodeTable, episode: int) -> Iterator[tuple[int, tuple[int, ...]]]:
    """Each query with the pages of the window that had arrived, in order of time."""
    seen = list(range(int(table.episode_num_preloaded[episode])))
    for number in range(int(table.episode_num_events[episode])):
        index = int(table.event_index[episode, number])
        if table.event_kind[episode, number] == Event.QUERY:
            yield index, tuple(seen)
        else:
            seen.append(index)
