"""Who plays a live memory: called at the memory warning and at queries, it calls functions.

This is MemGPT's own way (Packer et al., arXiv 2310.08560v2, section 2.3): free text in the calls,
in contrast to `memrl.policies.base.Policy`, which picks from the environment's discrete actions.
"""

from __future__ import annotations

from typing import Any, Protocol

from memrl.memory.context_page import Message
from memrl.memory.executor import Result


class Turn(Protocol):
    """One turn of a player: calls chained by heartbeats, until one comes without."""

    @property
    def is_open(self) -> bool:
        """Whether another call may come."""
        ...

    def messages(self) -> list[Message]:
        """What the player sees of memory: main context as chat messages."""
        ...

    def tools(self) -> list[dict[str, Any]]:
        """The functions that may be called, as OpenAI tools."""
        ...

    def call(self, name: object, arguments: object) -> Result:
        """Run one call; see `memrl.memory.chain.Chain.call`."""
        ...


class Player(Protocol):
    """Decides by function calls what is stored, retrieved and evicted."""

    def on_warning(self, turn: Turn) -> None:
        """Memory pressure: the oldest pages will soon leave main context."""
        ...

    def on_query(self, turn: Turn, question: str) -> None:
        """Something is asked; main context as it is when this returns is the evidence."""
        ...
