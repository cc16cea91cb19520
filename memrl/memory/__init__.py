"""The memory system: the paging core and what is built around it; the ground floor of memrl.

    import memrl.memory

    with memrl.memory.open("agent-memory") as memory: ...

See `memrl.memory.live.open`, and docs/memory.md for the whole. The live memory is imported when it
is first asked for: the paging core alone needs neither SQLite nor torch.
"""

from __future__ import annotations

from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from memrl.memory.live import Memory, open
    from memrl.memory.queue_manager import NewPage

__all__ = ["Memory", "NewPage", "open"]


def __getattr__(name: str) -> object:
    if name not in __all__:
        raise AttributeError(f"module {__name__!r} has no attribute {name!r}")
    from memrl.memory import live

    return getattr(live, name)
