"""Gymnasium ids. The environments are imported when one is made, not before."""

from __future__ import annotations

import dataclasses
import importlib
from types import ModuleType
from typing import Any

import gymnasium

IDS = {
    "memrl/Conversation-v0": "memrl.registration:make_conversation",
    "memrl/NestedKV-v0": "memrl.registration:make_nested_kv",
    "memrl/DocumentQA-v0": "memrl.registration:make_document_qa",
    "memrl/PageCache-v0": "memrl.registration:make_page_cache",
}


def register_envs() -> None:
    """Make every id known to `gymnasium.make`; calling it again changes nothing."""
    for env_id, entry_point in IDS.items():
        if env_id not in gymnasium.registry:
            gymnasium.register(id=env_id, entry_point=entry_point)


def make_conversation(table: Any = None, **kwargs: Any) -> gymnasium.Env[Any, Any]:
    """Make a `PagingEnv` over a conversation workload.

    Args:
        table: an `EpisodeTable`; None for a small set of generated chats with hashed embeddings,
            which needs no model and no data.
        kwargs: arguments of `PagingEnv`: `options` or its fields, `render_mode`.

    Raises:
        TypeError: if `table` is something else, such as a path, or an argument is unknown.
    """
    return _make(table, "tables.example_table", kwargs)


def make_nested_kv(table: Any = None, **kwargs: Any) -> gymnasium.Env[Any, Any]:
    """Make a `PagingEnv` over nested key-value retrieval.

    Unless `options` are given, main context holds 8 pages, archival all, and a lexical search
    shows 10 candidates at once; single fields can be given instead.

    Args:
        table: an `EpisodeTable`; None for a small set of generated chains, which needs no data.
        kwargs: arguments of `PagingEnv`: `options` or its fields, `render_mode`.

    Raises:
        TypeError: if `table` is something else, such as a path, or an argument is unknown.
    """
    return _make(
        table,
        "tables.example_nested_kv_table",
        kwargs,
        capacity=8,
        archival_capacity=None,
        num_candidates=10,
        staging="lexical",
    )


def make_document_qa(table: Any = None, **kwargs: Any) -> gymnasium.Env[Any, Any]:
    """Make a `PagingEnv` over question answering over documents.

    Unless `options` are given, main context holds 2 pages, archival all, and a hybrid search shows
    4 candidates at once; single fields can be given instead.

    Args:
        table: an `EpisodeTable`; None for a small set of generated questions, which needs no data.
        kwargs: arguments of `PagingEnv`: `options` or its fields, `render_mode`.

    Raises:
        TypeError: if `table` is something else, such as a path, or an argument is unknown.
    """
    return _make(
        table,
        "tables.example_document_qa_table",
        kwargs,
        capacity=2,
        archival_capacity=None,
        num_candidates=4,
        staging="hybrid",
    )


def make_page_cache(table: Any = None, **kwargs: Any) -> gymnasium.Env[Any, Any]:
    """Make a `PagingEnv` over a page cache.

    Unless `options` are given, the cache holds 16 pages of one size and the policy chooses which
    one leaves; nothing can be stored or retrieved. Single fields can be given instead, such as
    `admission="optional"`, or `unit="tokens"` with a `capacity` in tokens.

    Args:
        table: an `EpisodeTable`; None for a few generated streams of requests, which need no data.
        kwargs: arguments of `PagingEnv`: `options` or its fields, `render_mode`.

    Raises:
        TypeError: if `table` is something else, such as a path, or an argument is unknown.
    """
    return _make(
        table,
        "cache_tables.example_page_cache_table",
        kwargs,
        capacity=16,
        archival_capacity=0,
        num_candidates=0,
        evict_scope="any",
    )


def _make(
    table: Any, example: str, kwargs: dict[str, Any], **defaults: Any
) -> gymnasium.Env[Any, Any]:
    """Make the environment; `defaults` are fields that hold unless `options` are given."""
    from memrl.options import PagingOptions
    from memrl.table import EpisodeTable

    envs = own_envs()
    if table is not None and not isinstance(table, EpisodeTable):
        raise TypeError(
            f"table must be an EpisodeTable, not {type(table).__name__}: read a file of one with "
            "memrl.table.EpisodeTable.load(path)."
        )
    fields = [field.name for field in dataclasses.fields(PagingOptions)]
    unknown = sorted(set(kwargs) - {"options", "render_mode", *fields})
    if unknown:
        raise TypeError(
            f"There are no arguments {unknown}: an environment takes table, render_mode, options, "
            f"or the fields of PagingOptions ({', '.join(fields)}). A data set comes as a table: "
            "see envs.workloads.tables.preset_tables."
        )
    if table is None:
        module, function = example.split(".")
        table = getattr(getattr(envs.workloads, module), function)()
    if kwargs.get("options") is None:
        kwargs = {**defaults, **kwargs}
    env: gymnasium.Env[Any, Any] = envs.paging.PagingEnv(table, **kwargs)
    return env


def own_envs() -> ModuleType:
    """Import this project's `envs`.

    Raises:
        ImportError: if another package of that name stands before it on the import path.
    """
    package = importlib.import_module("envs")
    if getattr(package, "PROJECT", None) != "memrl":
        raise ImportError(
            f"memrl needs its own top-level package `envs`, but the one at "
            f"{getattr(package, '__file__', None) or 'an unknown place'} comes first on sys.path; "
            "rename that one or put memrl before it."
        )
    for module in ("envs.paging", "envs.workloads.tables"):
        importlib.import_module(module)
    return package
