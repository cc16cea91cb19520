"""A session: a live memory plays an episode of a workload, scored as the environment is.

Pages arrive in the queue manager under their index in the window. A player (`memrl.player`) is
called at the memory warning and at queries, and calls MemGPT's functions; what they cost and what
an answer earns is `envs.scoring`'s, the same as in the decision process.

Searches bring their hits into main context as source pages: each that was not there is brought in
and charged like a RETRIEVE, with its tokens, the best hit first. The sources of a hit in recall are
the page itself; of an archived entry, the pages that it quotes verbatim; an entry that quotes none
comes in as its own text, which is nobody's evidence. `archival_memory_insert` costs a STORE,
whatever it quotes, and counts as one entry of the archive; the first page of a search costs a
SEARCH, each later one a NEXT; `evict` is charged at queries alone, as in the environment; a refused
call is an illegal action. Editing blocks and `send_message` are free. The end of a turn is a YIELD.

Calls and results are not written into the queue: what a search found stands there as pages.
Queries and answers are no pages. One event is a minute of the session's clock.
"""

from __future__ import annotations

import time
from collections.abc import Iterable, Mapping
from contextlib import ExitStack
from dataclasses import dataclass
from datetime import UTC, datetime, timedelta
from typing import Any

from envs.process import options_for, window_page_tokens
from envs.scoring import EpisodeScore
from envs.session_memory import EpisodeArchive, EpisodeContext
from memrl.actions import Op
from memrl.config import ConfigurationError
from memrl.episode_log import REWARD_TERMS, ContextTexts, EpisodeLog
from memrl.memory.archival import ArchivalStore, NewEntry
from memrl.memory.blocks import Block
from memrl.memory.bm25 import Bm25Statistics
from memrl.memory.chain import MAX_HEARTBEATS, Chain
from memrl.memory.context_page import Message
from memrl.memory.embedders import Embedder
from memrl.memory.executor import Executor, Result
from memrl.memory.live import DEFAULT_BLOCKS, DEFAULT_INSTRUCTIONS
from memrl.memory.queue_manager import NewPage, QueueManager, QueueOptions
from memrl.memory.recall import RecallStore
from memrl.memory.results import DEFAULT_PAGE_SIZE, Hit
from memrl.memory.summarizers import Summarizer
from memrl.memory.tokens import count_tokens
from memrl.options import PagingOptions
from memrl.player import Player
from memrl.table import EpisodeTable, Event
from memrl.table_build import lexical_hash

START = datetime(2024, 1, 1, tzinfo=UTC)
ARCHIVAL_FUNCTIONS = ("archival_memory_insert", "archival_memory_search")
RECALL_FUNCTIONS = ("conversation_search", "retrieve")
"""Reach every page seen; without them, what was not stored is lost, as with `stage_from`."""
_OTHER_FUNCTIONS = ("send_message", "core_memory_append", "core_memory_replace", "evict")


@dataclass(frozen=True)
class SessionResult:
    """How an episode went.

    Attributes:
        log: operations, refusals and answers, as the environment writes them.
        reward_terms: summed weighted terms by name.
        decisions: calls, and ends of turns. seconds: of the whole episode, player included.
        replies: what `send_message` said last at each query, None where nothing was said.
        contexts: what main context showed when each query was answered.
        costs: of every operation of the memory, see `memrl.memory.accounting`.
    """

    log: EpisodeLog
    reward_terms: Mapping[str, float]
    decisions: int
    seconds: float
    replies: tuple[str | None, ...]
    contexts: tuple[ContextTexts, ...]
    costs: Mapping[str, Any]


class Session:
    """Plays episodes of a table on live memories, one for each episode.

    Args:
        table: the workload.
        options: capacity, archival capacity (in entries) and reward weights; what only the
            environment's decisions know of is not used. Fractions are resolved by this table
            unless they are resolved already.
        statistics: lexical statistics that the table was built with (`Tables.statistics`).
        embedder: of the same name as the table's.
        with_recall: whether the player has the functions that reach recall.
        queue_options: when the queue warns and flushes; MemGPT's by default.
        summarizer: of what leaves the queue; None for none, as in the environment.
        instructions, blocks: of main context.
        page_size: hits on a page of results.
        max_heartbeats: most heartbeats in a turn.

    Raises:
        ConfigurationError: if the statistics or the embedder are not the table's, or an episode
            preloads more than archival holds.
    """

    def __init__(
        self,
        table: EpisodeTable,
        options: PagingOptions,
        *,
        statistics: Bm25Statistics,
        embedder: Embedder,
        with_recall: bool = True,
        queue_options: QueueOptions | None = None,
        summarizer: Summarizer | None = None,
        instructions: str = DEFAULT_INSTRUCTIONS,
        blocks: Iterable[Block] = DEFAULT_BLOCKS,
        page_size: int = DEFAULT_PAGE_SIZE,
        max_heartbeats: int = MAX_HEARTBEATS,
    ) -> None:
        if table.has_requests:
            raise ConfigurationError(
                f"The pages of workload {table.meta['workload']!r} have no text: a live memory has "
                "nothing to hold; play it with PagingEnv."
            )
        if lexical_hash(statistics) != table.meta["lexical_sha256"]:
            raise ConfigurationError(
                "The lexical statistics are not those that the table was built with: pass the ones "
                "that were fitted on the training documents (Tables.statistics)."
            )
        if embedder.name != table.meta["embedder"]:
            raise ConfigurationError(
                f"The table was embedded by {table.meta['embedder']}, not by {embedder.name}: "
                "pass the same embedder."
            )
        self.table = table
        self.options = options_for(table, options)
        self.statistics = statistics
        self.embedder = embedder
        self.functions = (
            *_OTHER_FUNCTIONS,
            *ARCHIVAL_FUNCTIONS,
            *(RECALL_FUNCTIONS if with_recall else ()),
        )
        self.queue_options = queue_options
        self.summarizer = summarizer
        self.instructions = instructions
        self.blocks = tuple(blocks)
        self.page_size = page_size
        self.max_heartbeats = max_heartbeats

    def play(self, episode: int, player: Player) -> SessionResult:
        """Play one episode of the table to its end.

        Raises:
            ValueError: if the table has no such episode.
        """
        self.table.check_episode(episode)
        start_s = time.perf_counter()
        with ExitStack() as stores:
            playing = _Playing(self, episode, stores)
            table = self.table
            for number in range(int(table.episode_num_events[episode])):
                index = int(table.event_index[episode, number])
                playing.clock = START + timedelta(minutes=number + 1)
                if table.event_kind[episode, number] == Event.QUERY:
                    playing.ask(index, player)
                else:
                    playing.arrive(index, player)
        terms = dict(zip(REWARD_TERMS, playing.score.take_terms().tolist(), strict=True))
        return SessionResult(
            log=playing.score.log,
            reward_terms=terms,
            decisions=playing.decisions,
            seconds=time.perf_counter() - start_s,
            replies=tuple(playing.replies),
            contexts=tuple(playing.contexts),
            costs=playing.queue.accounting.as_dict(),
        )


class _Playing:
    """One episode in progress."""

    def __init__(self, session: Session, episode: int, stores: ExitStack) -> None:
        table, options = session.table, session.options
        self.session = session
        self.score = EpisodeScore(table, episode, options.reward)
        self.clock = START
        self.decisions = 0
        self.replies: list[str | None] = []
        self.contexts: list[ContextTexts] = []
        self.query: int | None = None  # the one being asked
        self._texts = table.text.pages[table.episode_pages(episode)]
        document = int(table.episode_document[episode])
        self._first_query = int(table.query_offset[document])
        self._page_tokens = dict(enumerate(window_page_tokens(table, options, episode)))
        self._own_texts: dict[tuple[int, str], int] = {}  # entry and text -> page of it
        self.main = EpisodeContext(session.instructions, session.blocks, options, self._size_of)
        self.queue = QueueManager(
            self.main,
            stores.enter_context(RecallStore(statistics=session.statistics)),
            summarizer=session.summarizer,
            options=session.queue_options,
            clock=lambda: self.clock,
        )
        store = stores.enter_context(
            ArchivalStore(
                None,
                session.embedder,
                capacity=None
                if options.archival_capacity is None
                else int(options.archival_capacity),
            )
        )
        self._archive = EpisodeArchive(store, self.main.display)
        self.executor = Executor(
            self.queue,
            self._archive,
            names=[name for name in session.functions if self._exists(name)],
            page_size=session.page_size,
        )
        self._preload(store, int(table.episode_num_preloaded[episode]))

    def _exists(self, function: str) -> bool:
        return bool(self.session.blocks) or not function.startswith("core_memory")

    def _preload(self, store: ArchivalStore, num_preloaded: int) -> None:
        pages = range(num_preloaded)
        self.queue.extend(NewPage(self._texts[page], "user", page) for page in pages)
        if num_preloaded:
            store.extend(NewEntry(self._texts[page], page, "user", self.clock) for page in pages)
        for page in pages:
            self._archive.arrive(page, self._texts[page])
        self._archive.stored.update(pages)

    def _size_of(self, page_id: int, text: str) -> int:
        options = self.session.options
        if page_id not in self._page_tokens:  # an entry's own text
            tokens = max(1, count_tokens(text))
            is_cut = options.unit == "tokens"
            self._page_tokens[page_id] = min(tokens, int(options.capacity)) if is_cut else tokens
        return 1 if options.unit == "pages" else self._page_tokens[page_id]

    # ------------------------------------------------------------------ events

    def arrive(self, page: int, player: Player) -> None:
        """A page arrives; at the memory warning the player has a turn."""
        arrival = self.queue.append(self._texts[page], "user", page_id=page)
        self._archive.arrive(page, self._texts[page])
        if arrival.is_warning:
            turn = _Turn(self)
            player.on_warning(turn)
            self._end(turn)

    def ask(self, query: int, player: Player) -> None:
        """Something is asked; the player has a turn, then evidence is paid."""
        core = self.main.core
        self.query = query
        archived = self._archive.archived_pages()
        self.score.ask(
            query,
            is_resident=core.is_resident,
            was_stored=self._archive.stored.__contains__,
            is_archived=archived.__contains__,
        )
        turn = _Turn(self)
        player.on_query(turn, self.session.table.text.queries[self._first_query + query])
        self._end(turn)
        residents = {page: self._page_tokens[page] for page in core.queue}
        self.score.answer(query, residents=residents)
        self.replies.append(turn.reply)
        self.contexts.append(self.main.texts())
        self.query = None

    def _end(self, turn: _Turn) -> None:
        turn.is_over = True
        self.decisions += 1
        self.score.count(Op.YIELD)

    # ------------------------------------------------------------------ what calls cost

    def account(self, result: Result) -> None:
        """Charge a call, and bring in what a search found."""
        self.decisions += 1
        if result.status == "failed":
            self.score.refused()
        elif result.function == "archival_memory_insert":
            self._charge(Op.STORE)
        elif result.page is not None:
            self._charge(Op.NEXT if result.page else Op.SEARCH)
            for hit in result.hits:
                self._bring_in(hit)
        elif result.function == "retrieve":
            self._charge_retrieve(self.main.core.queue[-1])
        elif result.function == "evict":
            self.score.count(Op.EVICT)
            if self.query is not None:
                self.score.charge("evict")

    def _charge(self, op: Op) -> None:
        self.score.count(op)
        self.score.charge(op.name.lower())

    def _charge_retrieve(self, page: int) -> None:
        self.score.count(Op.RETRIEVE)
        self.score.retrieved(page, self._page_tokens[page])

    def _bring_in(self, hit: Hit) -> None:
        sources = self._sources(hit)
        self.score.show(sources)
        for page in sources:
            if self.main.core.is_resident(page):
                continue
            self._enter(page, hit)
            self._charge_retrieve(page)

    def _enter(self, page: int, hit: Hit) -> None:
        if self.main.has_seen(page):
            self.queue.retrieve(page)
        else:
            self.queue.append(hit.text, "result", page_id=page)

    def _sources(self, hit: Hit) -> list[int]:
        if hit.page_id is not None:
            return [hit.page_id]
        assert hit.entry_id is not None  # what is no page is an entry
        quoted = self._archive.sources(hit.entry_id)
        if quoted:
            return list(quoted)
        first = len(self._texts)
        own = self._own_texts.setdefault((hit.entry_id, hit.text), first + len(self._own_texts))
        return [own]


class _Turn:
    """One turn of the player; see `memrl.player.Turn`."""

    def __init__(self, playing: _Playing) -> None:
        self._playing = playing
        self._chain = Chain(
            playing.executor, max_heartbeats=playing.session.max_heartbeats, logs_calls=False
        )
        self.reply: str | None = None
        self.is_over = False

    @property
    def is_open(self) -> bool:
        return self._chain.is_open and not self.is_over

    def messages(self) -> list[Message]:
        return self._playing.main.messages()

    def tools(self) -> list[dict[str, Any]]:
        return self._playing.executor.tools()

    def call(self, name: object, arguments: object) -> Result:
        if self.is_over:
            raise RuntimeError("This turn is over: a player calls functions within its own turns.")
        result = self._chain.call(name, arguments)
        if result.message is not None:
            self.reply = result.message
        self._playing.account(result)
        return result
