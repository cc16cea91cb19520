"""Ctrl-C that leaves things whole: it is noticed at once and obeyed at the next safe point."""

from __future__ import annotations

import os
import signal
from collections.abc import Callable
from types import FrameType, TracebackType
from typing import Self


class Interrupted(Exception):
    """The user pressed Ctrl-C; raised by `InterruptGuard.check` where stopping is safe."""


class InterruptGuard:
    """Context manager that turns Ctrl-C into `Interrupted` at safe points.

    The first Ctrl-C is kept until `check` is called; a second one stops the program on the spot.

    Args:
        announces: whether to say so on standard error.
    """

    def __init__(self, *, announces: bool = True) -> None:
        self._announces = announces
        self._pending = False
        self._previous: object = None

    def check(self) -> None:
        """Stop here if Ctrl-C was pressed."""
        if self._pending:
            raise Interrupted

    def checking(self, advance: Callable[[int], None]) -> Callable[[int], None]:
        """The same callback, as a safe point."""

        def step(count: int) -> None:
            advance(count)
            self.check()

        return step

    def __enter__(self) -> Self:
        """Take over SIGINT."""
        self._previous = signal.signal(signal.SIGINT, self._on_signal)
        return self

    def __exit__(
        self,
        kind: type[BaseException] | None,
        error: BaseException | None,
        trace: TracebackType | None,
    ) -> None:
        """Give SIGINT back."""
        signal.signal(signal.SIGINT, self._previous)  # type: ignore[arg-type]

    def _on_signal(self, number: int, frame: FrameType | None) -> None:
        del number, frame
        if self._pending:
            raise KeyboardInterrupt
        self._pending = True
        if self._announces:
            # Not print(): a signal handler may run in the middle of another write to the stream.
            os.write(2, b"\nStopping at the next safe point; Ctrl-C again stops on the spot.\n")
