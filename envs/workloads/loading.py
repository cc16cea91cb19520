"""From a configuration to its documents: loaded from a data set, or generated."""

from __future__ import annotations

from dataclasses import asdict, replace

from envs.workloads.babi import load_babi
from envs.workloads.cache_tables import load_page_cache
from envs.workloads.chat import ChatParams, generate_chats
from envs.workloads.document_qa import load_document_qa
from envs.workloads.episodes import can_be_asked
from envs.workloads.files import DataFormatError
from envs.workloads.locomo import load_locomo
from envs.workloads.longmemeval import load_longmemeval
from envs.workloads.nested_kv import generate_nested_kv, load_nested_kv
from memrl.config import ConfigurationError
from memrl.documents import Workload
from memrl.seeding import Streams
from memrl.workload_config import WorkloadConfig


def load_workload(config: WorkloadConfig) -> Workload:
    """Load or generate the documents that a configuration names.

    Documents without a question that can be asked are left out, and counted among the repairs: none
    of them could be validated or tested on.

    Raises:
        ConfigurationError: if the parameters of the chats cannot be met, or no document is left.
    """
    workload = _load(config)
    # No windows of documents are drawn: their episodes are whole documents, or streams are played.
    if config.name in ("nested_kv", "document_qa", "babi", "longmemeval", "page_cache"):
        return workload
    kept = tuple(doc for doc in workload.documents if can_be_asked(doc, config.window_pages))
    left_out = len(workload.documents) - len(kept)
    if not kept:
        raise ConfigurationError(
            f"None of the {left_out} documents has a query that can be asked within "
            f"{config.window_pages} pages: widen workload.window_pages or check the queries' needs."
        )
    if not left_out:
        return workload
    what = f"documents left out: no question can be asked within {config.window_pages} pages"
    return replace(workload, documents=kept, repairs={**workload.repairs, what: left_out})


def _load(config: WorkloadConfig) -> Workload:
    if config.name == "locomo":
        return load_locomo(
            config.data_dir,
            correct_evidence=config.correct_evidence,
            mask_wrong_answers=config.mask_wrong_answers,
        )
    if config.name == "nested_kv":
        return _load_nested_kv(config)
    if config.name == "document_qa":
        settings = config.document_qa
        rng = Streams(settings.seed).generator("workload", 0)
        try:
            return load_document_qa(config.data_dir, settings, rng)
        except DataFormatError:
            raise
        except ValueError as error:
            raise ConfigurationError(f"workload.document_qa: {error}") from error
    if config.name == "babi":
        return load_babi(
            config.data_dir,
            tasks=config.babi.tasks,
            stories_per_task=config.babi.stories_per_task,
        )
    if config.name == "page_cache":
        return load_page_cache(config)
    if config.name == "longmemeval":
        return _load_longmemeval(config)
    parameters = asdict(config.chat)
    seed = parameters.pop("seed")
    try:
        chat = ChatParams(**parameters)
    except ValueError as error:
        raise ConfigurationError(f"workload.chat: {error}") from error
    return generate_chats(chat, Streams(seed).generator("workload", 0))


def _load_longmemeval(config: WorkloadConfig) -> Workload:
    settings = config.longmemeval
    rng = Streams(settings.seed).generator("workload", 0)
    try:
        return load_longmemeval(config.data_dir, settings, rng)
    except DataFormatError:
        raise
    except ValueError as error:
        raise ConfigurationError(f"workload.longmemeval: {error}") from error


def _load_nested_kv(config: WorkloadConfig) -> Workload:
    settings = config.nested_kv
    rng = Streams(settings.seed).generator("workload", 0)
    if settings.source == "generated":
        return generate_nested_kv(
            levels=settings.levels,
            documents_per_level=settings.documents_per_level,
            num_pairs=settings.num_pairs,
            rng=rng,
        )
    return load_nested_kv(
        config.data_dir,
        levels=settings.levels,
        documents_per_level=settings.documents_per_level,
        rng=rng,
    )
