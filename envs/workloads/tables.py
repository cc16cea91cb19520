"""From a configuration to the three tables of an experiment: train, validation, test.

Everything that is fitted (idf and length statistics here, the page scorer and thresholds elsewhere)
is fitted on the training documents alone. The episodes of validation and test are drawn from
streams of their own that do not depend on the seed of training, so that all seeds and policies meet
the same ones.
"""

from __future__ import annotations

import functools
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np

from envs.workloads.cache_tables import request_tables
from envs.workloads.chat import ChatParams, generate_chats
from envs.workloads.document_qa import load_document_qa
from envs.workloads.episodes import sample_episodes, told_episodes
from envs.workloads.loading import load_workload
from envs.workloads.nested_kv import generate_nested_kv, whole_documents
from envs.workloads.page_cache import halves, whole_streams
from envs.workloads.splits import DATA_SEED, Split, split_documents, split_workload
from envs.workloads.wrong_needs import with_wrong_needs
from memrl.cache import default_cache_folder
from memrl.config import ConfigurationError, parse_config
from memrl.document_config import DocumentQaConfig
from memrl.documents import Document, Episode, Workload
from memrl.memory.bm25 import Bm25Statistics
from memrl.memory.embedders import CachedEmbedder, Embedder, HashingEmbedder, make_embedder
from memrl.options import PagingOptions
from memrl.seeding import Streams
from memrl.table import EpisodeTable
from memrl.table_build import build_table, cached_table, fit_lexical_statistics
from memrl.workload_config import SplitConfig, WorkloadConfig


@dataclass(frozen=True)
class Tables:
    """The tables of one split, and the lexical statistics of `train`, which all of them have.

    `statistics` is None for a page cache, whose pages have no text.
    """

    train: EpisodeTable
    validation: EpisodeTable
    test: EpisodeTable
    statistics: Bm25Statistics | None


def preset_tables(preset: str | Path, *arguments: str) -> tuple[Tables, PagingOptions]:
    """The tables of a preset's split, and its options resolved by the training table.

    Args:
        preset: a file of `configs/`. arguments: as on the command line of `train.py`, such as
            "--workload.data_dir", "/data", "--split.fold", "3".

    Returns:
        Tables as `train.py` has them, but without the fitted `prior` of pages, which is 0 here.
    """
    config = parse_config(["--config", str(preset), *arguments])
    tables = split_tables(load_workload(config.workload), config.split, config.workload)
    return tables, config.paging.resolved(**tables.train.medians())


def split_tables(workload: Workload, split: SplitConfig, config: WorkloadConfig) -> Tables:
    """Split and tensorise with the configured embedder and the default cache.

    Raises:
        ConfigurationError: if the configuration does not fit these documents.
    """
    try:
        if workload.streams:
            return _request_tables(workload, split, config)
        return build_tables(workload, split_workload(workload.documents, split), config)
    except ValueError as error:
        raise ConfigurationError(str(error)) from error


def build_tables(
    workload: Workload,
    split: Split,
    config: WorkloadConfig,
    *,
    embedder: Embedder | None = None,
    cache_folder: Path | None = None,
) -> Tables:
    """Sample episodes and tensorise each part.

    Args:
        workload: the documents.
        split: which of them are in which part.
        config: how documents become episodes.
        embedder: None for the configured one, with its cache on disk.
        cache_folder: where tables are kept; None for the default cache.
    """
    embedder = embedder or CachedEmbedder(make_embedder(config.embedder))
    folder = (cache_folder or default_cache_folder()) / "tables"
    train_documents = [workload.documents[i] for i in split.train]
    statistics = fit_lexical_statistics(train_documents)
    parts = {
        "train": (train_documents, config.train_episodes),
        "validation": (
            [workload.documents[i] for i in split.validation],
            config.validation_episodes,
        ),
        "test": ([workload.documents[i] for i in split.test], config.test_episodes),
    }
    if len({id(document.pages) for document in workload.documents}) == 1:
        if config.train_wrong_needs_frac:
            raise ValueError(
                "train_wrong_needs_frac has to be 0 where all questions share a corpus."
            )
        return _corpus_tables(workload, split, embedder, statistics, folder)
    streams = Streams(DATA_SEED)
    if config.train_wrong_needs_frac:
        rng = streams.generator("workload", 2, 3)
        wrong = with_wrong_needs(train_documents, config.train_wrong_needs_frac, rng)
        parts["train"] = (wrong, config.train_episodes)
    tables: dict[str, EpisodeTable] = {}
    for number, (part, (documents, count)) in enumerate(parts.items()):
        rng = streams.generator("evaluation" if part != "train" else "workload", 2, number)
        episodes = _episodes(documents, count, config, rng)
        tables[part] = cached_table(
            folder, documents, episodes, embedder, statistics, name=workload.name
        )
    return Tables(**tables, statistics=statistics)


def _corpus_tables(
    workload: Workload,
    split: Split,
    embedder: Embedder,
    statistics: Bm25Statistics,
    folder: Path,
) -> Tables:
    """Tables of documents that all ask about the same pages, whose scores they share."""
    episodes = whole_documents(workload.documents)
    whole = cached_table(
        folder, workload.documents, episodes, embedder, statistics, name=workload.name
    )
    return Tables(
        train=whole.of_documents(split.train),
        validation=whole.of_documents(split.validation),
        test=whole.of_documents(split.test),
        statistics=statistics,
    )


def _request_tables(workload: Workload, split: SplitConfig, config: WorkloadConfig) -> Tables:
    streams = workload.streams
    if config.train_wrong_needs_frac:
        raise ValueError("train_wrong_needs_frac has to be 0 in page caches, which have no needs.")
    if split.kind == "halves":
        parts = halves(streams, split.validation_frac)
    else:
        chosen = split_documents(len(streams), split)
        parts = tuple(
            whole_streams(streams, part) for part in (chosen.train, chosen.validation, chosen.test)
        )
    rng = Streams(DATA_SEED).generator("workload", 2, 0)
    tables = request_tables(workload, parts, config, rng, blocks=split.kind == "halves")
    return Tables(**tables, statistics=None)


def _episodes(
    documents: list[Document], count: int, config: WorkloadConfig, rng: np.random.Generator
) -> tuple[Episode, ...]:
    if config.name in ("nested_kv", "document_qa"):
        return whole_documents(documents)
    if config.name in ("babi", "dmr", "opener", "longmemeval"):
        return told_episodes(documents)
    return sample_episodes(
        documents,
        window_pages=config.window_pages,
        max_queries=config.max_queries,
        ask=config.ask,
        episodes_per_document=count,
        rng=rng,
        include_unanswerable=config.include_unanswerable,
    )


def workload_record(workload: Workload) -> dict[str, Any]:
    """What a run stores about its documents: where they come from, and what was mended."""
    return {
        "workload": workload.name,
        "provenance": workload.provenance,
        "repairs": workload.repairs,
    }


def data_record(workload: Workload, tables: Tables) -> dict[str, Any]:
    """What a run stores about its data: that of its documents, and hashes of the tables."""
    return {
        **workload_record(workload),
        "tables": {
            "train": tables.train.content_hash(),
            "validation": tables.validation.content_hash(),
            "test": tables.test.content_hash(),
        },
    }


@functools.cache
def example_table() -> EpisodeTable:
    """A few generated chats with hashed embeddings: no model, no data, a second to build."""
    workload = generate_chats(ChatParams(num_documents=4), np.random.default_rng(DATA_SEED))
    documents = workload.documents
    episodes = sample_episodes(
        documents,
        window_pages=100,
        max_queries=10,
        ask="interleaved",
        episodes_per_document=25,
        rng=np.random.default_rng(DATA_SEED),
    )
    statistics = fit_lexical_statistics(documents)
    return build_table(documents, episodes, HashingEmbedder(), statistics, name=workload.name)


@functools.cache
def example_nested_kv_table() -> EpisodeTable:
    """A few generated chains of look-ups among 40 pairs with hashed embeddings."""
    workload = generate_nested_kv(
        levels=range(7), documents_per_level=4, num_pairs=40, rng=np.random.default_rng(DATA_SEED)
    )
    documents = workload.documents
    statistics = fit_lexical_statistics(documents)
    episodes = whole_documents(documents)
    return build_table(documents, episodes, HashingEmbedder(), statistics, name=workload.name)


@functools.cache
def example_document_qa_table() -> EpisodeTable:
    """A few generated questions over 12 passages with hashed embeddings."""
    workload = load_document_qa(
        None,
        DocumentQaConfig(num_questions=60, num_passages=12),
        np.random.default_rng(DATA_SEED),
    )
    documents = workload.documents
    statistics = fit_lexical_statistics(documents)
    episodes = whole_documents(documents)
    return build_table(documents, episodes, HashingEmbedder(), statistics, name=workload.name)
