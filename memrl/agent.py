"""A learned policy at work: it manages the memory of a live chat, and a model answers from it.

    with memrl.agent.open("runs/locomo/seed0", backend, "agent-memory") as agent:
        agent.hear("I moved to Porto in May.", speaker="Ana")
        print(agent.ask("Where does Ana live?").text)

`open` takes the policy, the page scorer and the rules of a finished run. Main context counts as the
run's environment did, in pages or tokens. The policy is asked where the environment asked it: when
a message does not fit (MemGPT's warning at 70 % is not shown, since nobody would act on it), and at
a question. What it was trained on and a chat does not have is in `memrl.live_pages`; and a chat has
no end, so that ages and counts may grow beyond what training saw (observations are clipped there).
Runs of page caches have no texts and are refused. Questions and answers are no pages, as in
training: `hear` them to keep them.

With a path, all of it outlives the process: `recall.sqlite` and `archival.sqlite` as for any memory
(docs/memory.md), and `agent.json` with the clocks and speakers. A message whose `hear` was killed
before it returned either never came, or comes in, without its speaker, when the memory is opened
again.
"""

from __future__ import annotations

from collections.abc import Iterable, Sequence
from dataclasses import dataclass
from pathlib import Path

import memrl.memory
from envs.session_memory import EpisodeContext
from envs.workloads.loading import load_workload
from envs.workloads.tables import split_tables
from memrl.agent_state import STATE_FILE, AgentError, AgentState, load_state, room_of, slots_of
from memrl.config import ConfigurationError
from memrl.documents import Page
from memrl.evaluation.readers import Answer, LlmReader
from memrl.evaluation.saved_lineup import learned_contestants
from memrl.live_pages import LivePages, RecentEmbedder
from memrl.live_paging import LivePaging, Move
from memrl.llm.backend import Backend
from memrl.memory.blocks import Block
from memrl.memory.context_page import Role
from memrl.memory.database import Closing
from memrl.memory.embedders import Embedder, make_embedder
from memrl.memory.live import DEFAULT_INSTRUCTIONS, Memory
from memrl.memory.queue_moves import NewPage, QueueOptions
from memrl.memory.tokens import count_tokens
from memrl.options import PagingOptions
from memrl.policies.base import Policy, best_of
from memrl.policies.prior import PageScorer
from memrl.saved import SavedRun, load_run
from memrl.table import SURFACE
from memrl.world import World, load_world


@dataclass(frozen=True)
class Controller:
    """All that manages a memory.

    Attributes:
        policy: decides. options: resolved, that it learned under.
        world: whose lexical statistics recall has.
        scorer: of pages. embedder: of the vectors that the scorer was fitted on.
    """

    policy: Policy
    world: World
    scorer: PageScorer
    embedder: Embedder

    @property
    def options(self) -> PagingOptions:
        """Resolved options that the policy learned under."""
        return self.world.options


class Agent(Closing):
    """A memory under a policy, and a model that answers from it; best in a `with` statement.

    Made by `open`. An agent belongs to one thread.

    Args:
        controller: manages the memory. backend: answers.
        memory: opened for this controller. folder: where it is, None for a memory without one.
        speakers: named beforehand, in order.

    Attributes:
        memory: the live memory; read it, and leave its moves to the agent.
        moves: what the latest `hear`, `prepare` or `ask` did to the memory, in order.
    """

    def __init__(
        self,
        controller: Controller,
        backend: Backend,
        memory: Memory,
        folder: Path | None,
        saved: AgentState | None,
        speakers: Iterable[str] = (),
    ) -> None:
        self.memory = memory
        self.moves: list[Move] = []
        self._folder = folder
        self._reader = LlmReader(backend)
        page_ids = [page_id for page_id, _ in memory.recall.sizes()]
        if page_ids and saved is None:
            raise AgentError(
                f"The memory {folder} was made without an agent, or has lost its {STATE_FILE}: "
                "open another folder."
            )
        saved = saved or AgentState(controller.options.unit, speakers=[*speakers])
        known = len(saved.page_speaker)
        self._pages = LivePages(
            memory,
            controller.embedder,
            controller.scorer,
            speakers=saved.speakers,
            page_ids=page_ids[:known],
            page_speaker=saved.page_speaker,
        )
        self._paging = LivePaging(
            memory,
            self._pages,
            controller.policy,
            controller.options,
            queries_asked=saved.queries_asked,
        )
        saved.apply(memory.main.core)
        for page_id in page_ids[known:]:  # of a `hear` that was cut off
            self._paging.arrive(self._pages.add(page_id, ""))
            self._save()

    def hear(self, text: str, speaker: str = "", role: Role = "user") -> int:
        """Let a message in; where it does not fit, the policy stores and evicts first.

        Args:
            text: any text. speaker: who says it, "" for nobody.
            role: that it has for a model which is shown `memory.messages()`.

        Returns:
            Its page id.

        Raises:
            MemrlError: if a store cannot be written.
        """
        page = Page(text, speaker)
        (page_id,) = self.memory.extend([NewPage(page.rendered, role)])
        self.moves = self._paging.arrive(self._pages.add(page_id, speaker))
        self._save()
        return page_id

    def prepare(self, question: str) -> list[str]:
        """Have the policy bring into main context what a question needs.

        Returns:
            The texts in main context then, oldest first, for whoever answers.

        Raises:
            MemrlError: if a store cannot be written.
        """
        self.moves = self._paging.ask(question)
        self._save()
        return [page.text for page in self.memory.main.pages]

    def ask(self, question: str) -> Answer:
        """`prepare`, and have the model answer from main context.

        What does not fit the model's window is left out, the oldest first. A model that does not
        answer is an answer with `error`.
        """
        return self._reader.answer(question, self.prepare(question))

    def close(self) -> None:
        """See `Closing`."""
        self.memory.close()

    def _save(self) -> None:
        if self._folder is None:
            return
        core = self.memory.main.core
        state = AgentState(
            unit=self._paging.options.unit,
            room=room_of(self._paging.options),
            clock=core.clock,
            queries_asked=self._paging.queries_asked,
            speakers=self._pages.speakers,
            page_speaker=self._pages.page_speaker,
            slots=slots_of(core),
        )
        state.save(self._folder)


def open(
    run: str | Path,
    backend: Backend,
    path: str | Path | None = None,
    *,
    embedder: Embedder | None = None,
    speakers: Sequence[str] = (),
) -> Agent:
    """Open a chat whose memory the policy of a finished run manages.

    Args:
        run: folder of the run. Of its networks the one that scored best on its validation plays.
        backend: the model that answers.
        path: folder of the memory, made when there is none; None keeps it in this process.
        embedder: the one that the run names, where it is to be found under another name.
        speakers: who will speak, in the order that tells them apart; others may join.

    Raises:
        MemrlError: if the run is not finished, damaged or a page cache's; if the memory is not an
            agent's, is damaged, counts in another unit or has another room; or see
            `memrl.memory.open`.
    """
    controller = load_controller(Path(run), embedder)
    folder = None if path is None else Path(path)
    # Before anything of the memory is touched.
    saved = None if folder is None else load_state(folder, controller.options)
    memory = open_memory(controller, folder)
    try:
        return Agent(controller, backend, memory, folder, saved, speakers)
    except BaseException:
        memory.close()
        raise


def open_memory(controller: Controller, folder: Path | None) -> Memory:
    """The memory that a controller can manage: sizes, archive and statistics are its world's.

    Raises:
        MemrlError: see `memrl.memory.open`.
    """
    options = controller.options
    capacity = options.archival_capacity

    def size_of(_: int, text: str) -> int:
        size = 1 if options.unit == "pages" else max(1, count_tokens(text))
        return min(size, int(options.capacity))

    def make_main(blocks: Iterable[Block]) -> EpisodeContext:
        return EpisodeContext(DEFAULT_INSTRUCTIONS, blocks, options, size_of)

    return memrl.memory.open(
        folder,
        embedder=controller.embedder,
        blocks=(),
        make_main=make_main,
        queue_options=QueueOptions(warn_fraction=None, evict_fraction=0.0),
        statistics=controller.world.statistics,
        archival_capacity=None if capacity is None else int(capacity),
    )


def load_controller(folder: Path, embedder: Embedder | None = None) -> Controller:
    """What manages a memory, from the folder of a finished run; arguments and errors as `open`."""
    run = load_run(folder)
    if run.config.workload.name == "page_cache":
        raise AgentError(
            f"The run {folder} learned page caches, whose pages have no text: it cannot manage a "
            "chat; take a run of conversations or documents."
        )
    embedder = RecentEmbedder(embedder or make_embedder(run.config.workload.embedder))
    num_features = embedder.dimension + len(SURFACE)
    if num_features != len(run.scorer.weight):
        raise ConfigurationError(
            f"The run {folder} learned from vectors of {len(run.scorer.weight) - len(SURFACE)} "
            f"dimensions, {embedder.name} makes {embedder.dimension}: give the embedder "
            f"{run.config.workload.embedder!r} that it was trained with."
        )
    best = best_of(learned_contestants(run), "learned")
    assert best is not None  # every run learns
    return Controller(best.policy, load_world(folder) or _world_of(run), run.scorer, embedder)


def _world_of(run: SavedRun) -> World:
    """The world of a run that left no `world.json`, from the data that it learned from."""
    config = run.config
    tables = split_tables(load_workload(config.workload), config.split, config.workload)
    return World(config.paging.resolved(**tables.train.medians()), tables.statistics)
