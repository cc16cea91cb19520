"""Progress bars on standard error, for anything that takes more than a few seconds."""

from __future__ import annotations

from collections.abc import Callable, Iterator
from contextlib import contextmanager

from rich.console import Console
from rich.progress import BarColumn, MofNCompleteColumn, Progress, TextColumn, TimeRemainingColumn

from memrl.launch import launched


@contextmanager
def progress_bar(description: str, total: int) -> Iterator[Callable[[int], None]]:
    """Show a bar while the block runs; call what it yields with the number of steps done."""
    columns = (
        TextColumn("{task.description}"),
        BarColumn(),
        MofNCompleteColumn(),
        TimeRemainingColumn(),
    )
    is_silent = launched()[0] > 0  # of several processes the first one shows how far they are
    with Progress(*columns, console=Console(stderr=True), disable=is_silent) as progress:
        task = progress.add_task(description, total=total)
        yield lambda steps: progress.advance(task, steps)
