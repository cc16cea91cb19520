"""A small live memory on plain lists, and what must hold of it at any time."""

from __future__ import annotations

from datetime import datetime
from typing import Any

from external_fakes import ListArchival, ListRecall

from memrl.memory.blocks import Block
from memrl.memory.executor import Executor
from memrl.memory.main_context import MainContext
from memrl.memory.queue_manager import QueueManager, QueueOptions
from memrl.memory.summarizers import Summarizer
from memrl.memory.window import Window

NOON = datetime.fromisoformat("2024-05-01T12:00:00+00:00")
BLOCKS = (Block("persona", "Helpful."), Block("human", limit_chars=200))


def make_main(queue_tokens: int = 100, **window: int) -> MainContext:
    """A main context whose queue holds exactly `queue_tokens`."""
    sizes = {"working_tokens": 150, "summary_tokens": 60, "markup_tokens": 0} | window
    probe = MainContext("Be brief.", BLOCKS, window=Window(window_tokens=10_000, **sizes))
    fixed_tokens = 10_000 - probe.core.capacity_tokens
    sizes["window_tokens"] = fixed_tokens + queue_tokens
    return MainContext("Be brief.", BLOCKS, window=Window(**sizes), show_page_ids=False)


def make_queue(
    main: MainContext | None = None,
    *,
    recall: ListRecall | None = None,
    summarizer: Summarizer | None = None,
    options: QueueOptions | None = None,
) -> QueueManager:
    return QueueManager(
        main or make_main(),
        recall or ListRecall(),
        summarizer=summarizer,
        options=options,
        clock=lambda: NOON,
    )


def make_executor(queue: QueueManager | None = None, **options: Any) -> Executor:
    return Executor(queue or make_queue(), ListArchival(), **options)


def words(number: int) -> str:
    """A text of that many tokens."""
    return "word " * number


def check_main(main: MainContext) -> None:
    """Text and paging agree, and everything is within the window."""
    core, window = main.core, main.window
    assert [page.page_id for page in main.pages] == core.queue
    assert sum(page.page_tokens for page in main.pages) == core.occupied_tokens
    assert core.occupied_tokens <= core.capacity_tokens
    assert core.num_resident <= window.num_slots
    assert main.tokens <= window.window_tokens - window.reserved_tokens
    for page in main.pages:
        assert main.count(page.content) + window.markup_tokens <= page.page_tokens
