"""Build an `EpisodeTable` from documents: tokenise, embed and score everything, once.

The lexical statistics (idf, mean length) are passed in, fitted on the training split, and frozen;
the whole table is cached by the hash of all that it is made from.
"""

from __future__ import annotations

import hashlib
import json
import warnings
from collections.abc import Sequence
from dataclasses import asdict, replace
from pathlib import Path
from typing import Any

import numpy as np
import numpy.typing as npt
from safetensors import SafetensorError

from memrl.cache import move_aside
from memrl.documents import Document, Episode
from memrl.memory.bm25 import Bm25Statistics, bm25_scores
from memrl.memory.embedders import Embedder
from memrl.memory.scores import exact_pair_scores, exact_scores, quantize_scores
from memrl.memory.tokens import count_tokens
from memrl.surface import page_surface, speaker_index, speakers_named, text_surface
from memrl.table import (
    QUERY_SURFACE,
    SURFACE,
    TABLE_VERSION,
    EpisodeTable,
    Event,
    TableText,
)
from memrl.table_file import FORMAT, TableError


def fit_lexical_statistics(documents: Sequence[Document]) -> Bm25Statistics:
    """Fit idf and length statistics on the pages of the training documents.

    Pages that documents share count once.
    """
    blocks, _ = page_blocks(documents)
    return Bm25Statistics.fit([page.rendered for block in blocks for page in block.pages])


def page_blocks(documents: Sequence[Document]) -> tuple[list[Document], list[int]]:
    """Find the documents that share their pages (see `Document`).

    Returns:
        The first document of each block of pages, in order; and the block of every document.
    """
    numbers: dict[tuple[int, tuple[str, ...]], int] = {}
    blocks: list[Document] = []
    block_of = []
    for document in documents:
        number = numbers.setdefault((id(document.pages), document.speakers), len(blocks))
        if number == len(blocks):
            blocks.append(document)
        block_of.append(number)
    return blocks, block_of


def lexical_hash(statistics: Bm25Statistics) -> str:
    """What a table keeps of its lexical statistics: `meta["lexical_sha256"]`."""
    return _sha256(statistics.to_dict())


def build_table(
    documents: Sequence[Document],
    episodes: Sequence[Episode],
    embedder: Embedder,
    statistics: Bm25Statistics,
    *,
    name: str,
) -> EpisodeTable:
    """Tensorise documents and episodes.

    Args:
        documents: what the episodes index; scores are computed within each document.
        episodes: windows with their questions.
        embedder: gives the unit-norm vectors whose products are the dense scores.
        statistics: lexical statistics of the training split.
        name: the workload's name, for provenance.

    Raises:
        ValueError: if there is no episode, or an episode reaches outside its document.
    """
    if not episodes:
        raise ValueError(f"Workload {name!r} has no episode: nothing to tensorise.")
    _check_episodes(documents, episodes)
    blocks, block_of = page_blocks(documents)
    page_texts = [page.rendered for block in blocks for page in block.pages]
    query_texts = [query.text for doc in documents for query in doc.queries]
    vectors = embedder.embed(page_texts + query_texts)
    page_vectors, query_vectors = vectors[: len(page_texts)], vectors[len(page_texts) :]
    categories = sorted({query.category for doc in documents for query in doc.queries})
    block_offset = _offsets(len(block.pages) for block in blocks)
    query_offset = _offsets(len(doc.queries) for doc in documents)
    return EpisodeTable(
        page_offset=block_offset[block_of],
        page_count=np.diff(block_offset)[block_of],
        query_offset=query_offset,
        **_scores(documents, page_vectors, query_vectors, query_offset, statistics),
        page_tokens=np.array([max(1, count_tokens(text)) for text in page_texts], dtype=np.int32),
        page_surface=_page_surface(blocks, page_vectors),
        page_prior=np.zeros(len(page_texts), dtype=np.float32),
        page_embedding=page_vectors.astype(np.float16),
        query_embedding=query_vectors.astype(np.float16),
        query_surface=np.array(
            [text_surface(text) for text in query_texts], dtype=np.float32
        ).reshape(-1, len(QUERY_SURFACE)),
        **_speakers(documents, blocks),
        query_needs=_padded([q.needs for doc in documents for q in doc.queries]),
        query_route=_padded([q.route for doc in documents for q in doc.queries]),
        query_pays=np.array(
            [q.pays_evidence for doc in documents for q in doc.queries], dtype=bool
        ),
        query_category=np.array(
            [categories.index(q.category) for doc in documents for q in doc.queries], dtype=np.int64
        ),
        **_events(episodes),
        text=TableText(
            pages=page_texts,
            queries=query_texts,
            answers=[list(q.answers) for doc in documents for q in doc.queries],
            document_ids=[doc.document_id for doc in documents],
            clusters=[doc.cluster_id for doc in documents],
            page_ids=[page.source_id for block in blocks for page in block.pages],
            query_ids=[q.source_id for doc in documents for q in doc.queries],
            categories=categories,
            request_kinds=[""] * len(documents),
        ),
        meta={
            "version": TABLE_VERSION,
            "workload": name,
            "embedder": embedder.name,
            "lexical_sha256": lexical_hash(statistics),
        },
    )


def cached_table(
    folder: Path | None,
    documents: Sequence[Document],
    episodes: Sequence[Episode],
    embedder: Embedder,
    statistics: Bm25Statistics,
    *,
    name: str,
) -> EpisodeTable:
    """Load the table made from exactly these inputs, or build and keep it.

    Args:
        folder: where tables are kept; None builds without keeping.
        documents, episodes, embedder, statistics, name: as `build_table`.
    """
    if folder is None:
        return build_table(documents, episodes, embedder, statistics, name=name)
    blocks, block_of = page_blocks(documents)
    key = _sha256(
        {
            "version": TABLE_VERSION,
            "format": FORMAT,
            "pages": [[asdict(page) for page in block.pages] for block in blocks],
            "documents": [asdict(replace(doc, pages=())) for doc in documents],
            "block_of": block_of,
            "episodes": [asdict(episode) for episode in episodes],
            "embedder": embedder.name,
            "statistics": statistics.to_dict(),
            "name": name,
        }
    )
    path = folder / f"{key[:32]}.safetensors"
    if path.exists():
        try:
            return EpisodeTable.load(path)
        except TableError as error:
            move_aside(path, str(error))
    table = build_table(documents, episodes, embedder, statistics, name=name)
    try:
        table.save(path)
    except (OSError, SafetensorError) as error:
        warnings.warn(f"The table cache {folder} cannot be written ({error}).", stacklevel=2)
    return table


# ---------------------------------------------------------------------- parts


def _sha256(value: object) -> str:
    return hashlib.sha256(json.dumps(value, sort_keys=True).encode()).hexdigest()


def _offsets(lengths: Any) -> npt.NDArray[np.int64]:
    return np.concatenate([[0], np.cumsum(list(lengths))]).astype(np.int64)


def _check_episodes(documents: Sequence[Document], episodes: Sequence[Episode]) -> None:
    for number, episode in enumerate(episodes):
        if not 0 <= episode.document < len(documents):
            raise ValueError(
                f"Episode {number} is of document {episode.document}; there are {len(documents)}."
            )
        document = documents[episode.document]
        end = episode.first_page + episode.num_pages
        if episode.num_pages < 1 or episode.first_page < 0 or end > len(document.pages):
            raise ValueError(
                f"Episode {number} spans pages {episode.first_page}..{end} of document "
                f"{document.document_id!r}, which has {len(document.pages)}."
            )
        if not 0 <= episode.num_preloaded <= episode.num_pages:
            raise ValueError(
                f"Episode {number} preloads {episode.num_preloaded} pages of a window of "
                f"{episode.num_pages}."
            )
        for num_arrived, query in episode.queries:
            if num_arrived < episode.num_preloaded:
                raise ValueError(
                    f"Episode {number} asks query {query} after {num_arrived} pages, but "
                    f"{episode.num_preloaded} are preloaded and count as arrived."
                )
            if not 0 <= query < len(document.queries):
                raise ValueError(
                    f"Episode {number} asks query {query} of document {document.document_id!r}, "
                    f"which has {len(document.queries)}."
                )
            cited = document.queries[query].cited
            if any(not episode.first_page <= page < end for page in cited):
                raise ValueError(
                    f"Episode {number} asks query {query} of document {document.document_id!r}, "
                    "whose needs or route lie outside the window."
                )


def _scores(
    documents: Sequence[Document],
    page_vectors: npt.NDArray[np.float32],
    query_vectors: npt.NDArray[np.float32],
    query_offset: npt.NDArray[np.int64],
    statistics: Bm25Statistics,
) -> dict[str, Any]:
    """Quantised scores, flattened: of each block of pages, page x page before query x page."""
    blocks, block_of = page_blocks(documents)
    offset = _offsets(len(block.pages) for block in blocks)
    dense, lexical = [], []
    page_base = np.zeros(len(documents), dtype=np.int64)
    query_base = np.zeros(len(documents), dtype=np.int64)
    base = 0
    members_of: list[list[int]] = [[] for _ in blocks]
    for index, number in enumerate(block_of):
        members_of[number].append(index)
    for number, (block, members) in enumerate(zip(blocks, members_of, strict=True)):
        pages = page_vectors[offset[number] : offset[number + 1]]
        page_base[members] = base
        base += len(pages) ** 2
        rows: list[int] = []
        for index in members:
            query_base[index] = base
            rows += range(query_offset[index], query_offset[index + 1])
            base += len(documents[index].queries) * len(pages)
        texts = [page.rendered for page in block.pages]
        questions = [query.text for index in members for query in documents[index].queries]
        dense.append(quantize_scores(exact_pair_scores(pages)).ravel())
        dense += [quantize_scores(exact_scores(pages, query_vectors[row])) for row in rows]
        for focus_texts in (texts, questions):
            lexical.append(quantize_scores(bm25_scores(focus_texts, texts, statistics)).ravel())
    return {
        "page_score_base": page_base,
        "query_score_base": query_base,
        "score_stride": np.array([len(document.pages) for document in documents], dtype=np.int64),
        "dense": np.concatenate(dense),
        "lexical": np.concatenate(lexical),
    }


def _page_surface(
    blocks: Sequence[Document], vectors: npt.NDArray[np.float32]
) -> npt.NDArray[np.float32]:
    rows: list[tuple[float, ...]] = []
    for block in blocks:
        for index, page in enumerate(block.pages):
            row = len(rows)
            previous = float(vectors[row] @ vectors[row - 1]) if index else 0.0
            rows.append(page_surface(page, previous))
    return np.array(rows, dtype=np.float32).reshape(-1, len(SURFACE))


def _speakers(documents: Sequence[Document], blocks: Sequence[Document]) -> dict[str, Any]:
    page_speaker = [speaker_index(page, block.speakers) for block in blocks for page in block.pages]
    page_names = [
        speakers_named(page.text, block.speakers) for block in blocks for page in block.pages
    ]
    query_names = [
        speakers_named(query.text, doc.speakers) for doc in documents for query in doc.queries
    ]
    return {
        "page_speaker": np.array(page_speaker, dtype=np.int64),
        "page_names": np.array(page_names, dtype=np.int64),
        "query_names": np.array(query_names, dtype=np.int64),
    }


def _padded(pages: Sequence[tuple[int, ...]]) -> npt.NDArray[np.int32]:
    """One row each, at least one column wide, -1 where there is no page."""
    width = max(map(len, pages), default=0)
    rows = np.full((len(pages), max(width, 1)), -1, dtype=np.int32)
    for row, own in zip(rows, pages, strict=True):
        row[: len(own)] = own
    return rows


def _events(episodes: Sequence[Episode]) -> dict[str, Any]:
    """Event rows: pages in order, each query right after its `num_arrived`-th page.

    Preloaded pages have arrived before the first event.
    """
    rows = []
    for episode in episodes:
        row = []
        asked = 0
        for arrived in range(episode.num_preloaded, episode.num_pages + 1):
            while asked < len(episode.queries) and episode.queries[asked][0] == arrived:
                row.append((Event.QUERY, episode.queries[asked][1]))
                asked += 1
            if arrived < episode.num_pages:
                row.append((Event.MESSAGE, arrived))
        if asked < len(episode.queries):
            raise ValueError(f"An episode's queries are not in order of time: {episode.queries}.")
        rows.append(row)
    longest = max(len(row) for row in rows)
    kind = np.zeros((len(rows), longest), dtype=np.int16)
    index = np.zeros((len(rows), longest), dtype=np.int32)
    for number, row in enumerate(rows):
        kind[number, : len(row)] = [event for event, _ in row]
        index[number, : len(row)] = [argument for _, argument in row]
    return {
        "episode_document": np.array([e.document for e in episodes], dtype=np.int64),
        "episode_first_page": np.array([e.first_page for e in episodes], dtype=np.int64),
        "episode_num_pages": np.array([e.num_pages for e in episodes], dtype=np.int64),
        "episode_num_events": np.array([len(row) for row in rows], dtype=np.int64),
        "episode_num_preloaded": np.array([e.num_preloaded for e in episodes], dtype=np.int64),
        "event_kind": kind,
        "event_index": index,
    }
