"""From a configuration to its documents: loaded from a data set, or generated."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import asdict, replace

from envs.workloads.babi import load_babi
from envs.workloads.cache_tables import load_page_cache
from envs.workloads.chat import ChatParams, generate_chats
from envs.workloads.dmr import load_dmr
from envs.workloads.document_qa import load_document_qa
from envs.workloads.episodes import can_be_asked
from envs.workloads.files import DataFormatError
from envs.workloads.locomo import load_locomo
from envs.workloads.longmemeval import load_longmemeval
from envs.workloads.msc import load_msc
from envs.workloads.nested_kv import generate_nested_kv, load_nested_kv
from envs.workloads.opener import load_openers
from memrl.config import ConfigurationError
from memrl.documents import Document, Workload
from memrl.seeding import Streams
from memrl.workload_config import WorkloadConfig


def load_workload(config: WorkloadConfig) -> Workload:
    """Load or generate the documents that a configuration names.

    Documents without a question that can be asked are left out, and counted among the repairs: none
    of them could be validated or tested on.

    Raises:
        ConfigurationError: if the parameters of the chats cannot be met, or no document is left.
    """
    workload = _LOADERS[config.name](config)
    # No windows of documents are drawn: their episodes are whole documents, or streams are played.
    if config.name in ("nested_kv", "document_qa", "babi", "longmemeval", "page_cache"):
        return workload
    if config.name in ("dmr", "opener"):
        kept = tuple(
            document
            for document in workload.documents
            if any(
                query.asked_after is not None
                and (query.pays_evidence or config.include_unanswerable)
                for query in document.queries
            )
        )
        if not kept:
            raise ConfigurationError(
                f"None of the {len(workload.documents)} documents has a question with evidence: "
                "give --workload.include_unanswerable true, or check the data."
            )
        return _keeping(workload, kept, "its question pays no evidence")
    kept = tuple(doc for doc in workload.documents if can_be_asked(doc, config.window_pages))
    if not kept:
        raise ConfigurationError(
            f"None of the {len(workload.documents)} documents has a query that can be asked within "
            f"{config.window_pages} pages: widen workload.window_pages or check the queries' needs."
        )
    return _keeping(workload, kept, f"no question can be asked within {config.window_pages} pages")


def _keeping(workload: Workload, kept: tuple[Document, ...], reason: str) -> Workload:
    """The workload with these documents alone, and how many others it had."""
    left_out = len(workload.documents) - len(kept)
    if not left_out:
        return workload
    repairs = {**workload.repairs, f"documents left out: {reason}": left_out}
    return replace(workload, documents=kept, repairs=repairs)


def _load_locomo(config: WorkloadConfig) -> Workload:
    return load_locomo(
        config.data_dir,
        correct_evidence=config.correct_evidence,
        mask_wrong_answers=config.mask_wrong_answers,
    )


def _load_msc(config: WorkloadConfig) -> Workload:
    return load_msc(config.data_dir, conversations_per_part=config.msc.conversations_per_part)


def _load_dmr(config: WorkloadConfig) -> Workload:
    return load_dmr(config.data_dir, persona_labels=config.dmr.persona_labels)


def _load_openers(config: WorkloadConfig) -> Workload:
    return load_openers(
        config.data_dir,
        sessions=config.opener.sessions,
        about=config.opener.about,
        conversations_per_part=config.msc.conversations_per_part,
    )


def _load_document_qa(config: WorkloadConfig) -> Workload:
    settings = config.document_qa
    rng = Streams(settings.seed).generator("workload", 0)
    try:
        return load_document_qa(config.data_dir, settings, rng)
    except DataFormatError:
        raise
    except ValueError as error:
        raise ConfigurationError(f"workload.document_qa: {error}") from error


def _load_babi(config: WorkloadConfig) -> Workload:
    return load_babi(
        config.data_dir, tasks=config.babi.tasks, stories_per_task=config.babi.stories_per_task
    )


def _load_chats(config: WorkloadConfig) -> Workload:
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


_LOADERS: dict[str, Callable[[WorkloadConfig], Workload]] = {
    "chat": _load_chats,
    "locomo": _load_locomo,
    "msc": _load_msc,
    "dmr": _load_dmr,
    "opener": _load_openers,
    "nested_kv": _load_nested_kv,
    "document_qa": _load_document_qa,
    "babi": _load_babi,
    "longmemeval": _load_longmemeval,
    "page_cache": load_page_cache,
}
