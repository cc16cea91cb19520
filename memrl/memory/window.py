"""How the window of a model is divided between the parts of main context."""

from __future__ import annotations

from dataclasses import dataclass

from memrl.errors import MemrlError

LEAST_QUEUE_TOKENS = 32
"""Least capacity of a queue: a page that was cut, with its marker."""


class ContextError(MemrlError):
    """The window cannot hold what it has to hold."""


@dataclass(frozen=True, slots=True)
class Window:
    """How the tokens of the model's window are divided; the queue has what the others leave.

    Attributes:
        window_tokens: the whole window.
        reserved_tokens: kept free for what the caller adds: function schemas, the reply.
        working_tokens: most that the working context takes; 0 is used where there are no blocks.
        summary_tokens: most that the summary at the head takes; 0 for a queue without a summary.
        markup_tokens: what a chat template adds to one message.
        num_slots: most pages in the queue; for a capacity in pages, make this the tighter limit.

    Raises:
        ValueError: if a number is below its least value.
    """

    window_tokens: int = 8_192
    reserved_tokens: int = 0
    working_tokens: int = 1_024
    summary_tokens: int = 256
    markup_tokens: int = 4
    num_slots: int = 1_024

    def __post_init__(self) -> None:
        """Refuse numbers that no window has."""
        for name in self.__slots__:
            least = 1 if name in ("window_tokens", "num_slots") else 0
            if getattr(self, name) < least:
                raise ValueError(f"{name} must be at least {least}, got {getattr(self, name)}.")
