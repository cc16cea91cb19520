"""A live memory: both stores, main context, queue manager and functions, opened as one folder.

On disk: `recall.sqlite` (every page, and main context beside them) and `archival.sqlite` (passages
with their vectors), each with a `.lock` file. `memrl.memory.open` is the door; docs/memory.md shows
it in use.
"""

from __future__ import annotations

from collections.abc import Callable, Iterable, Sequence
from contextlib import ExitStack
from datetime import UTC, datetime
from pathlib import Path

from memrl.memory.archival import ArchivalStore
from memrl.memory.blocks import Block
from memrl.memory.bm25 import Bm25Statistics
from memrl.memory.chain import MAX_HEARTBEATS, Chain
from memrl.memory.context_page import Message, Role
from memrl.memory.database import Closing, StoreError
from memrl.memory.embedders import Embedder, make_embedder
from memrl.memory.executor import Executor, Result
from memrl.memory.index_options import IndexKind, IndexOptions
from memrl.memory.main_context import MainContext
from memrl.memory.model_files import DEFAULT_MODEL
from memrl.memory.queue_manager import Arrival, NewPage, QueueManager, QueueOptions
from memrl.memory.recall import RecallStore
from memrl.memory.results import DEFAULT_PAGE_SIZE
from memrl.memory.summarizers import ExtractiveSummarizer, Summarizer
from memrl.memory.tokens import TokenCounter, count_tokens
from memrl.memory.window import Window

RECALL_FILE, ARCHIVAL_FILE = "recall.sqlite", "archival.sqlite"

DEFAULT_INSTRUCTIONS = (
    "You have a memory. What you see here is a small part of it: older messages leave this context "
    "and stay in recall storage, and passages that you save are in archival storage. Call the "
    "functions to search both, to save what will matter later, and to answer with send_message."
)
DEFAULT_BLOCKS = (
    Block("persona", description="Who you are and how you talk."),
    Block("human", description="What you know about the user."),
)
READING_FUNCTIONS = (
    "send_message",
    "conversation_search",
    "conversation_search_date",
    "archival_memory_search",
)
"""Functions that a memory opened with `read_only=True` has."""


class Memory(Closing):
    """Recall, archival, main context and the functions on them; best in a `with` statement.

    Made by `open`. A memory belongs to one thread.

    Attributes:
        recall, archival: the stores. main: main context. queue: the queue manager.
        executor: the functions. queue.accounting: what all operations have cost.
    """

    def __init__(self, recall: RecallStore, archival: ArchivalStore, executor: Executor) -> None:
        self.recall = recall
        self.archival = archival
        self.executor = executor
        self.queue = executor.queue
        self.main = executor.queue.main

    def append(
        self, text: str, role: Role, *, page_id: int | None = None, time: datetime | None = None
    ) -> Arrival:
        """Let a message into recall and main context; see `QueueManager.append`."""
        return self.queue.append(text, role, page_id=page_id, time=time)

    def extend(self, pages: Iterable[NewPage]) -> list[int]:
        """Load a history into recall at once; see `QueueManager.extend`."""
        return self.queue.extend(pages)

    def messages(self) -> list[Message]:
        """What the model sees, as chat messages."""
        return self.main.messages()

    def call(self, name: object, arguments: object) -> Result:
        """Run one function call; see `Executor.execute`."""
        return self.executor.execute(name, arguments)

    def turn(self, *, max_heartbeats: int = MAX_HEARTBEATS, logs_calls: bool = True) -> Chain:
        """Begin a turn of the model: calls chained by heartbeats; see `Chain`.

        A memory that is open for reading alone logs no calls.
        """
        logs_calls = logs_calls and not self.recall.read_only
        return Chain(self.executor, max_heartbeats=max_heartbeats, logs_calls=logs_calls)

    def close(self) -> None:
        """See `Closing`."""
        self.recall.close()
        self.archival.close()


def open(
    path: str | Path | None = None,
    *,
    embedder: Embedder | str = DEFAULT_MODEL,
    instructions: str = DEFAULT_INSTRUCTIONS,
    blocks: Iterable[Block] = DEFAULT_BLOCKS,
    window: Window | None = None,
    make_main: Callable[[Iterable[Block]], MainContext] | None = None,
    queue_options: QueueOptions | None = None,
    summarizer: Summarizer | None = None,
    count: TokenCounter = count_tokens,
    statistics: Bm25Statistics | None = None,
    archival_capacity: int | None = None,
    index: IndexKind | IndexOptions = "auto",
    functions: Sequence[str] | None = None,
    page_size: int = DEFAULT_PAGE_SIZE,
    clock: Callable[[], datetime] = lambda: datetime.now(UTC),
    read_only: bool = False,
) -> Memory:
    """Open the memory in a folder, or make one.

    Args:
        path: of the folder, made when there is none; None keeps everything in memory.
        embedder: of archival: a model's name or folder, "hashing" (words, no meaning, no model), or
            an embedder; always the one that the memory began with.
        instructions: system instructions; the program's, never stored.
        blocks: of the working context. Those that the memory holds already keep what they say;
            others are added behind them.
        window, queue_options: sizes, in tokens, and when the queue warns and flushes.
        make_main: makes another main context of the blocks; `instructions`, `window` and `count`
            are then its own affair. None for `MainContext`.
        summarizer: None for the extractive one.
        count: counts tokens; the default is fast and needs no download.
        statistics: frozen BM25 statistics of recall; see `RecallStore`.
        archival_capacity: most entries of archival; None for no limit.
        index: what searches archival; see `ArchivalStore`.
        functions: names of those that may be called; None for all.
        page_size: hits on a page of results.
        clock: the present time, with a time zone; stamps messages that come without a time, and
            what the model saves in archival.
        read_only: look into a memory that another process may be writing. Searches see what that
            one adds; main context is as it was when this was opened.

    Raises:
        EmbeddingModelError: if the embedding model is not there.
        StoreError: if the path is empty or a file's, another process writes to the memory, or a
            file in it is damaged, missing, of another kind or version, or made with another
            embedder. Nothing is changed then.
        ContextError: if the window leaves the queue no room.
        RefusedError: if the stored blocks are above the working context's share of the window.
    """
    folder = None if path is None else _folder_at(path)
    embedder = make_embedder(embedder) if isinstance(embedder, str) else embedder
    if read_only and functions is None:
        functions = READING_FUNCTIONS
    with ExitStack() as opening:
        if folder is not None:
            _refuse_half(folder, embedder)
        recall = opening.enter_context(
            RecallStore(folder and folder / RECALL_FILE, statistics=statistics, read_only=read_only)
        )
        archival = opening.enter_context(
            ArchivalStore(
                folder and folder / ARCHIVAL_FILE,
                embedder,
                capacity=archival_capacity,
                count_tokens=count,
                index=index,
                read_only=read_only,
            )
        )
        saved = recall.context
        kept = saved.blocks if saved else ()
        labels = {block.label for block in kept}
        shown = [*kept, *(block for block in blocks if block.label not in labels)]
        if make_main is None:
            main = MainContext(instructions, shown, window=window, count=count)
        else:
            main = make_main(shown)
        queue = QueueManager(
            main,
            recall,
            summarizer=summarizer or ExtractiveSummarizer(count),
            options=queue_options,
            clock=clock,
        )
        queue.resume(recall.sizes(), saved)
        executor = Executor(queue, archival, names=functions, page_size=page_size)
        opening.pop_all()
    return Memory(recall, archival, executor)


def _folder_at(path: str | Path) -> Path:
    if not str(path).strip():
        raise StoreError("The path of a memory is empty: name a folder, or pass None for none.")
    folder = Path(path)
    if folder.exists() and not folder.is_dir():
        raise StoreError(
            f"{folder} is a file, not a folder: a memory is a folder, name another one."
        )
    return folder


def _refuse_half(folder: Path, embedder: Embedder) -> None:
    """Refuse a memory that has lost one of its files; a new one would hide the loss.

    A folder whose making was interrupted has one store, an empty one, and is made whole.
    """
    files = {RECALL_FILE: folder / RECALL_FILE, ARCHIVAL_FILE: folder / ARCHIVAL_FILE}
    present = [name for name, file in files.items() if file.exists()]
    if len(present) != 1:
        return
    (name,) = present
    (missing,) = files.keys() - {name}
    store: RecallStore | ArchivalStore
    if name == RECALL_FILE:
        store = RecallStore(files[name], read_only=True)
    else:
        store = ArchivalStore(files[name], embedder, read_only=True)
    with store:
        if len(store):
            raise StoreError(
                f"The memory {folder} has lost its file {missing}, and {name} holds "
                f"{len(store):,} texts: put the file back from a copy, or open another folder."
            )
