"""Many episodes of the reference process, stepped together.

The processes are the same as in `PagingEnv`; only the observation and the mask are computed for all
of them in one call, which is what makes learning and evaluation on CPU practical. Forced moves
(only YIELD is legal) are played inside `step`, so every row of an observation is a real decision.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from typing import NamedTuple

import numpy as np
import numpy.typing as npt
import torch
from torch import Tensor

from envs.process import PagingProcess, Phase, options_for
from memrl.actions import ActionLayout, Op
from memrl.device_memory import RowMemory
from memrl.episode_log import REWARD_TERMS, EpisodeLog
from memrl.identity import page_handles
from memrl.masks import action_mask
from memrl.memory.paging import EMPTY
from memrl.observation import observe, observe_slots
from memrl.observation_text import ShownTexts
from memrl.options import PagingOptions
from memrl.page_texts import window_texts
from memrl.privileged import PrivilegedState, QueryTimetable, privileged_state
from memrl.shown import shown_slots, shown_state
from memrl.state import PagingState, StateBuffer, TableTensors
from memrl.table import EpisodeTable

Observation = dict[str, Tensor]


@dataclass(frozen=True)
class LockstepResult:
    """What a step gave, for B episodes.

    Attributes:
        observation: as `LockstepPaging.observation`.
        reward_terms: (B, len(REWARD_TERMS)) float64, weighted; their sum is the reward.
        terminated: (B,) bool. illegal: (B,) bool, the action was not legal and acted as YIELD.
        elapsed_events: (B,) int64, events since the decision before.
    """

    observation: Observation
    reward_terms: npt.NDArray[np.float64]
    terminated: npt.NDArray[np.bool_]
    illegal: npt.NDArray[np.bool_]
    elapsed_events: npt.NDArray[np.int64]


class GroupStep(NamedTuple):
    """What a step gave, for B rows, on their device; the observation is asked for separately.

    Attributes:
        reward_terms: (B, len(REWARD_TERMS)) float64, weighted, of the decision before.
        terminated: (B,) bool, the episode of that decision has ended. illegal: (B,) bool.
        elapsed_events: (B,) int64, since the decision before.
    """

    reward_terms: Tensor
    terminated: Tensor
    illegal: Tensor
    elapsed_events: Tensor


class LockstepPaging:
    """B reference processes behind one observation call.

    Args:
        table: the workload.
        options: options; fractions are resolved by this table unless they are resolved already.
        num_envs: B.

    Raises:
        ConfigurationError: for options that do not fit the table.
    """

    reward_names = REWARD_TERMS
    device = torch.device("cpu")

    def __init__(self, table: EpisodeTable, options: PagingOptions, num_envs: int) -> None:
        if num_envs < 1:
            raise ValueError(f"num_envs must be at least 1, got {num_envs}.")
        options = options_for(table, options)
        self.table = table
        self.options = options
        self.num_envs = num_envs
        self.layout = ActionLayout(options.num_rows, options.num_candidates)
        self._tensors = TableTensors.from_table(table)
        self._timetable = QueryTimetable.from_table(table)
        self._processes = [PagingProcess(table, options) for _ in range(num_envs)]
        self._buffer = StateBuffer(
            num_envs, (options.num_slots or 1) + 1, options.num_candidates, table.max_pages
        )
        self._mask = torch.zeros((num_envs, self.layout.num_actions), dtype=torch.bool)
        self._mask[:, 0] = True
        self._slot_of_row = torch.zeros((num_envs, self.layout.num_rows), dtype=torch.int64)
        for row, process in enumerate(self._processes):  # rows that never run still have a state
            process.reset(0)
            process.write_state(self._buffer, row)
        self._running = np.zeros(num_envs, dtype=bool)
        self._window_texts: list[tuple[int, list[str]]] = [(-1, [])] * num_envs  # by episode
        if options.observe_embeddings:
            self._page_embedding = torch.from_numpy(table.page_embedding.astype(np.float32))
            self._query_embedding = torch.from_numpy(table.query_embedding.astype(np.float32))

    # ------------------------------------------------------------------ stepping

    def reset(self, episodes: Sequence[int], rows: Sequence[int] | None = None) -> Observation:
        """Begin episodes in the given rows (default: rows 0, 1, ...), and observe all rows.

        A reward earned before the first decision (a query asked while nothing was to be decided) is
        paid with the first step.
        """
        self.begin(episodes, rows)
        return self.observation()

    def begin(self, episodes: Sequence[int], rows: Sequence[int] | None = None) -> None:
        """`reset` without an observation."""
        rows = range(len(episodes)) if rows is None else rows
        for row, episode in zip(rows, episodes, strict=True):
            self.table.check_episode(episode)
            self._processes[row].reset(episode)
            self._running[row] = True
        self._settle(list(rows))

    def step(self, actions: npt.NDArray[np.int64]) -> LockstepResult:
        """Play one action in every running row; rows that have ended ignore theirs.

        Args:
            actions: (B,) integers within the action space; an action that is not legal is counted,
                charged, and acts as YIELD.
        """
        result = self.advance(torch.as_tensor(actions))
        return LockstepResult(self.observation(), *(part.numpy() for part in result))

    def advance(self, action: Tensor) -> GroupStep:
        """`step` with tensors, and without an observation."""
        actions = action.tolist()
        rows = np.flatnonzero(self._running).tolist()
        for row in rows:
            self.layout.decode(actions[row])  # refuses what is outside before any row moves
        before = self._clocks()
        illegal = np.zeros(self.num_envs, dtype=bool)
        for row in rows:
            process = self._processes[row]
            if process.phase is Phase.END:
                continue
            op, argument = self.layout.decode(actions[row])
            if op in (Op.EVICT, Op.STORE, Op.SEARCH):
                argument = int(self._slot_of_row[row, argument])
            if self._mask[row, actions[row]]:
                process.apply(op, argument)
            else:
                illegal[row] = True
                process.apply_illegal()
        self._settle(rows)
        terms = np.zeros((self.num_envs, len(REWARD_TERMS)))
        terminated = np.zeros(self.num_envs, dtype=bool)
        for row in rows:
            terms[row] = self._processes[row].take_reward_terms()
            terminated[row] = self._processes[row].phase is Phase.END
        self._running &= ~terminated
        elapsed = self._clocks() - before
        return GroupStep(*map(torch.from_numpy, (terms, terminated, illegal, elapsed)))

    def _settle(self, rows: list[int]) -> None:
        """Play forced moves until each row has a decision or has ended."""
        while rows:
            for row in rows:
                self._processes[row].write_state(self._buffer, row)
            state = self._buffer.state(rows)
            mask = action_mask(state, self.options)
            self._mask[rows] = mask
            self._slot_of_row[rows] = shown_slots(state, self.options)
            has_choice = mask[:, 1:].any(dim=1).tolist()
            rows = [
                row
                for row, choice in zip(rows, has_choice, strict=True)
                if not choice and self._processes[row].phase is not Phase.END
            ]
            for row in rows:
                self._processes[row].yield_()

    # ------------------------------------------------------------------ views

    @property
    def row_memory(self) -> RowMemory:
        """Bytes of a row: its state and its observation, in the host's memory."""
        shown = sum(value.nbytes for value in self.observation().values())
        state = self._buffer.packed.nbytes + self._buffer.archived.nbytes
        return RowMemory.of_row((shown + state) / self.num_envs)

    def observation(self) -> Observation:
        """What `observe` gives, and `action_mask` (B, A) bool; embeddings by option."""
        state = self._buffer.state()
        observation = observe(state, self._tensors, self.options)
        observation["action_mask"] = self._mask.clone()
        if self.options.observe_embeddings:
            observation |= self._embeddings(state)
        return observation

    def action_masks(self) -> Tensor:
        """(B, A) bool, the legal actions."""
        return self._mask.clone()

    def at_query(self) -> Tensor:
        """(B,) bool, rows that stand at a query."""
        return self._buffer.state().at_query

    def observe(self, rows: Tensor) -> Observation:
        """What `observation` gives of the given rows, (M,), without masks and embeddings."""
        return observe(self._buffer.state(rows.tolist()), self._tensors, self.options)

    def observe_slots(self, rows: Tensor, slot: Tensor) -> Observation:
        """The same with the given slot rows, (M, n), alone; see `memrl.observation`."""
        state = self._buffer.state(rows.tolist())
        return observe_slots(state, self._tensors, self.options, slot)

    def shown_texts(self, rows: Sequence[int]) -> list[ShownTexts]:
        """The texts of what rows are shown, for those who read; see `memrl.observation_text`.

        The pages of a page cache have no text and are told apart by their handles.
        """
        return [self._texts_of(row) for row in rows]

    def _texts_of(self, row: int) -> ShownTexts:
        process = self._processes[row]
        if self.table.has_requests:
            handles = page_handles(shown_state(self._buffer.state([row]), self.options))[0].tolist()
            slots = [None if handle == EMPTY else f"page {handle}" for handle in handles]
            return ShownTexts(tuple(slots), (None,) * self.layout.num_candidates, None)
        episode, texts = self._window_texts[row]
        if episode != process.episode:
            texts = window_texts(self.table, self.options, process.episode)
            self._window_texts[row] = process.episode, texts

        def told(pages: Sequence[int]) -> tuple[str | None, ...]:
            return tuple(None if page == EMPTY else texts[page] for page in pages)

        query = None
        if process.query is not None:
            first = int(self.table.query_offset[process.document])
            query = self.table.text.queries[first + process.query]
        return ShownTexts(told(process.slot_pages()), told(process.candidates()), query)

    def _embeddings(self, state: PagingState) -> Observation:
        """Embeddings of slot rows, candidates and focus; zeros where there is none to look at."""
        tensors = self._tensors
        first = tensors.page_offset[state.document] + state.first_page

        def gather(page: Tensor, visible: Tensor) -> Tensor:
            rows = self._page_embedding[first[:, None] + page.clamp(min=0)]
            return rows * visible[..., None]

        # What only recall holds has no embedding.
        archived = state.archived.gather(1, state.candidate_page.clamp(min=0))
        query = tensors.query_offset[state.document] + state.focus
        focus = self._page_embedding[first + torch.where(state.focus_is_query, 0, state.focus)]
        if len(self._query_embedding):
            query = query.clamp(max=len(self._query_embedding) - 1)
            asked = self._query_embedding[query]
            focus = torch.where(state.focus_is_query[:, None], asked, focus)
        return {
            "slot_embeddings": gather(state.slot_page, state.slot_page >= 0),
            "candidate_embeddings": gather(
                state.candidate_page, (state.candidate_page >= 0) & archived
            ),
            "focus_embedding": focus,
        }

    def _clocks(self) -> npt.NDArray[np.int64]:
        return np.array([process.event for process in self._processes], dtype=np.int64)

    def log(self, row: int) -> EpisodeLog:
        """What happened so far in a row's episode."""
        return self._processes[row].log

    def process(self, row: int) -> PagingProcess:
        """The process of a row, for rendering and reports."""
        return self._processes[row]

    def privileged_state(self, rows: Tensor | None = None) -> PrivilegedState:
        """The hidden truth of the given rows, (M,), or of all; see `memrl.privileged`."""
        chosen = list(range(self.num_envs)) if rows is None else rows.tolist()
        processes = [self._processes[row] for row in chosen]
        ranking = torch.full((len(chosen), self.table.max_pages), -1, dtype=torch.int64)
        for place, process in enumerate(processes):
            ranking[place, : len(process.ranking)] = torch.tensor(
                process.ranking, dtype=torch.int64
            )
        return privileged_state(
            shown_state(self._buffer.state(chosen), self.options),
            self._timetable,
            torch.tensor([process.episode for process in processes]),
            ranking=ranking,
            result_page=torch.tensor([process.result_page for process in processes]),
            stores=torch.tensor([process.core.counts.stores for process in processes]),
        )
