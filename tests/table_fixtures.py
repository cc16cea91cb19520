"""Small tables of made-up documents, strategies for hypothesis, and play helpers for the tests.

Importing this module loads a deterministic hypothesis profile: no deadline, no example database.
"""

from __future__ import annotations

import dataclasses
from collections.abc import Sequence
from functools import lru_cache
from typing import Any

import numpy as np
import numpy.typing as npt
from hypothesis import Phase, settings
from hypothesis import strategies as st

from memrl.documents import Document, Episode, Page, PageKind, Query
from memrl.memory.embedders import HashingEmbedder
from memrl.options import DEFAULT_REWARD, STAGINGS, PagingOptions, RewardWeights
from memrl.table import EpisodeTable
from memrl.table_build import build_table, fit_lexical_statistics

settings.register_profile(
    "memrl",
    derandomize=True,
    database=None,
    deadline=None,
    phases=[Phase.explicit, Phase.generate, Phase.shrink],
)
settings.load_profile("memrl")

SPEAKERS = ("Ann", "Bob", "Cleo")
WORDS = [
    *("apple", "violin", "harbour", "lantern", "Lisbon", "Monday", "pottery", "seven", "1987"),
    *("garden", "ticket", "marathon", "cello", "recipe", "42", "bicycle", "Ann", "Bob", "why?"),
]

REWARD = RewardWeights(
    evidence=1.0,
    store=0.0625,
    evict=0.03125,
    retrieve=0.125,
    search=0.25,
    next=0.5,
    tokens=0.0009765625,
    illegal=2.0,
)
"""Weights that are all different powers of 2: sums are exact and tell which terms are in them."""


class RefusingEmbedder:
    """Embeds while `is_open`, counts its calls, and raises afterwards."""

    def __init__(self, dimension: int = 16) -> None:
        self._inner = HashingEmbedder(dimension)
        self.name = self._inner.name
        self.dimension = dimension
        self.is_open = True
        self.calls = 0

    def embed(self, texts: Sequence[str]) -> npt.NDArray[np.float32]:
        if not self.is_open:
            raise AssertionError("a text was embedded after the table had been built")
        self.calls += 1
        return self._inner.embed(texts)


def made_up_document(rng: np.random.Generator, name: str, num_pages: int) -> Document:
    """Make a conversation with plain, multi-evidence, unanswerable and needless queries."""

    def words(count: int) -> str:
        return " ".join(rng.choice(WORDS, count))

    pages = tuple(
        Page(
            text=words(int(rng.integers(1, 9))),
            speaker=SPEAKERS[i % 3] if rng.random() < 0.9 else "",
            role=i % 3,
            kind=PageKind.CAPTIONED_IMAGE if rng.random() < 0.2 else PageKind.TEXT,
            session=i // 5,
            timestamp=f"day {i // 5}",
            source_id=f"{name}_page_{i}",
        )
        for i in range(num_pages)
    )
    queries = []
    for i in range(num_pages):
        count = int(rng.choice([0, 1, 1, 1, 2, 3]))
        needs = sorted(rng.choice(num_pages, size=min(count, num_pages), replace=False).tolist())
        queries.append(
            Query(
                text=f"What about {words(3)}?",
                needs=tuple(needs),
                category=str(rng.choice(["one", "two"])),
                answers=(f"answer {i} of {name}",),
                answerable=bool(rng.random() < 0.8),
                source_id=f"{name}_answer_{i}",
            )
        )
    return Document(name, pages, tuple(queries), SPEAKERS)


def with_routes(document: Document, rng: np.random.Generator, most: int) -> Document:
    """Lead half of a document's queries to their needs by up to `most` other pages each."""
    queries = []
    for query in document.queries:
        others = np.setdiff1d(np.arange(len(document.pages)), query.needs)
        length = int(rng.integers(1, most + 1)) * int(rng.integers(2))
        route = rng.permutation(others)[:length].tolist()
        queries.append(dataclasses.replace(query, route=tuple(route)))
    return dataclasses.replace(document, queries=tuple(queries))


def made_up_episode(
    rng: np.random.Generator,
    documents: Sequence[Document],
    num_pages: int,
    num_queries: int,
    num_preloaded: int = 0,
) -> Episode:
    """Draw a window and queries whose needs lie inside it; several may come at one time."""
    number = int(rng.integers(len(documents)))
    document = documents[number]
    first = int(rng.integers(len(document.pages) - num_pages + 1))
    inside = [
        i
        for i, query in enumerate(document.queries)
        if all(first <= page < first + num_pages for page in query.cited)
    ]
    chosen = rng.choice(inside, min(num_queries, len(inside)), replace=False).tolist()
    times = sorted(int(time) for time in rng.integers(num_preloaded, num_pages + 1, len(chosen)))
    queries = tuple(zip(times, chosen, strict=True))
    return Episode(number, first, num_pages, queries, num_preloaded)


def coarse_scores(table: EpisodeTable, rng: np.random.Generator) -> EpisodeTable:
    """Replace all scores by a few values, so that ties are everywhere, and draw a prior."""
    return dataclasses.replace(
        table,
        dense=rng.choice(np.array([-16384, 0, 8192, 16384], dtype=np.int16), table.dense.shape),
        lexical=rng.choice(np.array([0, 0, 8192, 16384], dtype=np.int16), table.lexical.shape),
        page_tokens=rng.integers(1, 13, table.page_tokens.shape).astype(np.int32),
        page_prior=rng.normal(0, 3, table.page_prior.shape).astype(np.float32),
    )


@lru_cache(maxsize=32)
def small_table(
    seed: int = 0,
    *,
    num_documents: int = 2,
    num_pages: int = 14,
    num_episodes: int = 8,
    num_queries: int = 5,
    coarse: bool = False,
    most_preloaded: int = 0,
    longest_route: int = 0,
) -> EpisodeTable:
    """Build a table of made-up documents; windows leave out up to 3 pages of their document.

    Every second episode begins with up to `most_preloaded` pages in archival. Routes, which half of
    the queries have then, are up to `longest_route` pages long.
    """
    rng = np.random.default_rng(seed)
    documents = [made_up_document(rng, f"doc{d}", num_pages) for d in range(num_documents)]
    if longest_route:
        documents = [with_routes(document, rng, longest_route) for document in documents]
    shortest = max(1, num_pages - 3)
    episodes = [
        made_up_episode(rng, documents, int(rng.integers(shortest, num_pages + 1)), num_queries)
        for _ in range(num_episodes)
    ]
    for number in range(0, num_episodes if most_preloaded else 0, 2):
        length, preloaded = episodes[number].num_pages, int(rng.integers(1, most_preloaded + 1))
        episodes[number] = made_up_episode(rng, documents, length, num_queries, preloaded)
    statistics = fit_lexical_statistics(documents)
    table = build_table(documents, episodes, HashingEmbedder(16), statistics, name="made up")
    return coarse_scores(table, rng) if coarse else table


@lru_cache(maxsize=32)
def shared_table(
    seed: int = 0,
    *,
    num_blocks: int = 3,
    documents_per_block: int = 3,
    num_pages: int = 9,
    num_episodes: int = 14,
) -> EpisodeTable:
    """Build a table whose documents share their pages, in mixed order.

    Each block of pages is asked about by several documents, which divide its queries unevenly; the
    scores of all queries are in the table, also of documents without an episode.
    """
    rng = np.random.default_rng(seed)
    documents = []
    for number in range(num_blocks):
        block = made_up_document(rng, f"block{number}", num_pages - number)
        places = rng.choice(len(block.queries) + 1, documents_per_block - 1)
        borders = [0, *sorted(places.tolist()), len(block.queries)]
        documents += [
            dataclasses.replace(block, document_id=f"{number}.{n}", queries=block.queries[own])
            for n, own in enumerate(map(slice, borders[:-1], borders[1:]))
        ]
    documents = [documents[number] for number in rng.permutation(len(documents))]
    episodes = [
        made_up_episode(rng, documents, int(rng.integers(4, num_pages - num_blocks + 1)), 3)
        for _ in range(num_episodes)
    ]
    statistics = fit_lexical_statistics(documents)
    return build_table(documents, episodes, HashingEmbedder(16), statistics, name="shared")


def table_of(
    texts: Sequence[str],
    queries: Sequence[tuple[int, Query]] = (),
    *,
    tokens: Sequence[int] | None = None,
) -> EpisodeTable:
    """One document, one episode: these pages, and queries as pairs (pages arrived, query)."""
    pages = tuple(
        Page(text, speaker=SPEAKERS[i % 2], role=i % 2, source_id=f"p{i}")
        for i, text in enumerate(texts)
    )
    document = Document("doc", pages, tuple(query for _, query in queries), SPEAKERS)
    asked = tuple((time, number) for number, (time, _) in enumerate(queries))
    episode = Episode(0, 0, len(pages), asked)
    table = build_table(
        [document],
        [episode],
        HashingEmbedder(16),
        fit_lexical_statistics([document]),
        name="by hand",
    )
    if tokens is not None:
        table = dataclasses.replace(table, page_tokens=np.array(tokens, dtype=np.int32))
    return table


def with_scores(
    table: EpisodeTable,
    *,
    query: int,
    dense: Sequence[float] | None = None,
    lexical: Sequence[float] | None = None,
) -> EpisodeTable:
    """Set the scores of one query of a table's first document, from floats in [-1, 1]."""
    begin = int(table.query_score_base[0] + query * table.page_count[0])
    changed = {}
    for name, values in (("dense", dense), ("lexical", lexical)):
        if values is not None:
            array = getattr(table, name).copy()
            array[begin : begin + len(values)] = np.rint(np.array(values) * 32767)
            changed[name] = array
    return dataclasses.replace(table, **changed)


def option_fields(draw: Any, table_pages: int) -> dict[str, Any]:
    """Draw the fields of resolved options for windows of about `table_pages` pages."""
    unit = draw(st.sampled_from(["pages", "tokens"]))
    capacity = draw(st.integers(1, 6 if unit == "pages" else 30))
    return {
        "unit": unit,
        "capacity": capacity,
        "num_slots": draw(st.integers(1, 6)),
        "archival_capacity": draw(st.sampled_from([None, 0, 1, 2, 4, table_pages])),
        "num_candidates": draw(st.sampled_from([0, 1, 2, 3, 5])),
        "staging": draw(st.sampled_from(STAGINGS)),
        "stage_from": draw(st.sampled_from(["archival", "both"])),
        "store_scope": draw(st.sampled_from(["victim", "any"])),
        "evict_scope": draw(st.sampled_from(["victim", "any"])),
        "admission": draw(st.sampled_from(["forced", "optional"])),
        "evict_fraction": draw(st.sampled_from([0.0, 0.0, 0.25, 0.5])),
        "operation_budget": draw(st.sampled_from([1, 2, 5, 16])),
        "time_scale": draw(st.sampled_from([1.0, 10.0, 100.0])),
        "reward": draw(st.sampled_from([REWARD, DEFAULT_REWARD])),
    }


def with_room(options: PagingOptions, table: EpisodeTable) -> PagingOptions:
    """Options that just hold what the table preloads, where they would not."""
    preloaded, capacity = int(table.episode_num_preloaded.max()), options.archival_capacity
    if isinstance(capacity, float):
        capacity = options.resolved(**table.medians()).archival_capacity
    if capacity is None or capacity >= preloaded:
        return options
    return dataclasses.replace(options, archival_capacity=preloaded)


@st.composite
def paging_options(draw: Any, table_pages: int = 14) -> PagingOptions:
    """Resolved options of every kind."""
    return PagingOptions(**option_fields(draw, table_pages))


def random_action(
    mask: npt.NDArray[Any], rng: np.random.Generator, *, p_illegal: float = 0.0
) -> int:
    """Draw a legal action, one besides YIELD more often than not; or now and then any action."""
    if p_illegal and rng.random() < p_illegal:
        return int(rng.integers(len(mask)))
    legal = np.flatnonzero(mask)
    if len(legal) > 1 and rng.random() < 0.5:
        legal = legal[1:]
    return int(rng.choice(legal))
