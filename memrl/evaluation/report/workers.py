"""The same work on many conditions, by several processes where that pays."""

from __future__ import annotations

import os
from collections.abc import Callable, Iterable, Sequence
from concurrent.futures import ProcessPoolExecutor
from multiprocessing import get_context
from typing import TypeVar

from memrl.progress import progress_bar

Task = TypeVar("Task")
Result = TypeVar("Result")
_LEAST_TASKS = 2  # of a process: it takes seconds to begin


def of_each(
    function: Callable[[Task], Result],
    tasks: Sequence[Task],
    description: str,
    processes: int | None = None,
) -> list[Result]:
    """Results of a function for each task, in their order, with a progress bar.

    Args:
        function: of a module, so that another process finds it; has no effect but on files.
        tasks: what it is called with. description: of the bar.
        processes: at most so many; None for one a processor core where there are enough tasks.
    """
    if processes is None:
        processes = min(_cores(), len(tasks) // _LEAST_TASKS)
    with progress_bar(description, len(tasks)) as advance:
        if processes <= 1:
            return _gathered(map(function, tasks), advance)
        # Not forked: threads of libraries would be lost, with the locks that they hold.
        with ProcessPoolExecutor(processes, mp_context=get_context("spawn")) as pool:
            return _gathered(pool.map(function, tasks), advance)


def _gathered(results: Iterable[Result], advance: Callable[[int], None]) -> list[Result]:
    made = []
    for result in results:
        made.append(result)
        advance(1)
    return made


def _cores() -> int:
    """Processor cores that this process may use."""
    if hasattr(os, "sched_getaffinity"):  # not on every system
        return len(os.sched_getaffinity(0))
    return os.cpu_count() or 1
