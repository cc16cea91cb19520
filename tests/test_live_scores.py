"""The live engines score as the tables do: one BM25, one set of vectors."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import replace
from datetime import UTC, datetime
from pathlib import Path

import numpy as np
import numpy.typing as npt
import pytest
from minilm_files import minilm_folder
from table_fixtures import made_up_document

from envs.workloads.chat import ChatParams, generate_chats
from envs.workloads.locomo import load_locomo
from memrl.cache import EmbeddingCache
from memrl.documents import Document, Episode
from memrl.memory.archival import ArchivalStore, NewEntry
from memrl.memory.bm25 import Bm25Statistics
from memrl.memory.embedders import (
    CachedEmbedder,
    Embedder,
    HashingEmbedder,
    SentenceTransformerEmbedder,
)
from memrl.memory.recall import RecallPage, RecallStore
from memrl.memory.scores import quantize_scores
from memrl.table import EpisodeTable, focus_score_base
from memrl.table_build import build_table, fit_lexical_statistics

NOON = datetime(2024, 1, 1, tzinfo=UTC)


def foci_of(table: EpisodeTable, every: int) -> list[tuple[str, int]]:
    """Text and place of the scores of every query and every `every`-th page."""
    queries = [
        (text, focus_score_base(table, 0, query=number))
        for number, text in enumerate(table.text.queries)
    ]
    pages = [
        (text, focus_score_base(table, 0, page=number))
        for number, text in enumerate(table.text.pages)
    ]
    return queries + pages[::every]


def steps_apart(
    document: Document,
    embedder: Embedder,
    training: Sequence[Document],
    *,
    every: int = 1,
) -> tuple[npt.NDArray[np.int64], npt.NDArray[np.int64]]:
    """How many quantised steps the live scores are from the table's: lexical, dense."""
    statistics = fit_lexical_statistics(training)
    # What a session is handed is what the table was built with, also through JSON.
    statistics = Bm25Statistics.from_dict(statistics.to_dict())
    episode = Episode(0, 0, len(document.pages))
    table = build_table([document], [episode], embedder, statistics, name="one")
    texts, pages = table.text.pages, range(len(document.pages))
    lexical, dense = [], []
    with (
        RecallStore(statistics=statistics) as recall,
        ArchivalStore(None, embedder, piece_tokens=10_000) as archival,
    ):
        recall.extend(RecallPage(n, texts[n], "user", NOON, 1) for n in pages)
        archival.extend(NewEntry(texts[n], n, "user", NOON) for n in pages)
        for text, base in foci_of(table, every):
            there = slice(base, base + len(pages))
            live = quantize_scores(recall.scores(text, pages)).astype(int)
            lexical.append(live - table.lexical[there])
            live = quantize_scores(archival.scores(text, pages)).astype(int)
            dense.append(live - table.dense[there])
    return np.abs(np.concatenate(lexical)), np.abs(np.concatenate(dense))


@pytest.mark.parametrize("seed", range(4))
def test_made_up_conversations_score_alike(seed: int) -> None:
    rng = np.random.default_rng(seed)
    training = [made_up_document(rng, f"doc{n}", 30) for n in range(2)]
    for document in (training[0], made_up_document(rng, "held out", 40)):
        lexical, dense = steps_apart(document, HashingEmbedder(64), training)
        assert lexical.max() == 0
        assert dense.max() == 0


def test_generated_chats_score_alike() -> None:
    chats = generate_chats(ChatParams(num_documents=2), np.random.default_rng(0)).documents
    lexical, dense = steps_apart(chats[1], HashingEmbedder(), chats[:1], every=10)
    assert lexical.max() == 0
    assert dense.max() == 0


def test_a_locomo_conversation_scores_alike(data_dir: Path, tmp_path: Path) -> None:
    """With a model, a vector depends on its batch in the 7th digit: the cache keeps one of each."""
    model = SentenceTransformerEmbedder(minilm_folder(), device="cpu")
    embedder = CachedEmbedder(model, EmbeddingCache(tmp_path))
    training, held_out = load_locomo(data_dir).documents[:2]
    document = replace(
        held_out,
        pages=held_out.pages[:120],
        queries=tuple(replace(query, needs=()) for query in held_out.queries[:40]),
    )
    lexical, dense = steps_apart(document, embedder, [training], every=5)
    assert lexical.max() == 0
    assert dense.max() == 0
