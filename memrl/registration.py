"""Gymnasium ids. The environments are imported when one is made, not before."""

from __future__ import annotations

import importlib
from types import ModuleType
from typing import Any

import gymnasium

IDS = {"memrl/Conversation-v0": "memrl.registration:make_conversation"}


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
        TypeError: if `table` is something else, such as a path.
    """
    from memrl.table import EpisodeTable

    envs = own_envs()
    if table is not None and not isinstance(table, EpisodeTable):
        raise TypeError(
            f"table must be an EpisodeTable, not {type(table).__name__}: read a file of one with "
            "memrl.table.EpisodeTable.load(path)."
        )
    if table is None:
        table = envs.workloads.tables.example_table()
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
