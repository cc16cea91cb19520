"""What stands before a policy at each decision of an episode, as steps of a replay."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Protocol

from torch import Tensor

from memrl.actions import ActionLayout, Op
from memrl.episode_log import EpisodeLog
from memrl.evaluation.replay_steps import Choice, ShownPage, Step
from memrl.memory.paging import PagingCore
from memrl.observation import FEATURES, GLOBALS
from memrl.observation_text import ShownTexts, describe_action, numbers_text
from memrl.options import PagingOptions
from memrl.policies.base import FEATURE
from memrl.table import EpisodeTable, Event

_FLAGS = ("victim", "stored", "retrieved", "arriving")
_HIDDEN = ("occupied", *_FLAGS)  # said by marks


class Process(Protocol):
    """What is asked of an episode in progress; see `envs.process.PagingProcess`."""

    episode: int
    document: int
    event: int
    arriving: int
    query: int | None
    focus_page: int
    focus_is_query: bool
    core: PagingCore

    @property
    def log(self) -> EpisodeLog:
        """What has happened."""
        ...

    def slot_pages(self) -> list[int]:
        """Page in each slot."""
        ...

    def candidates(self) -> list[int]:
        """Page in each candidate row."""
        ...


class WatchedGroup(Protocol):
    """What is asked of the environment; see `envs.lockstep.LockstepPaging`."""

    table: EpisodeTable
    options: PagingOptions
    layout: ActionLayout

    def process(self, row: int) -> Process:
        """The process of a row."""
        ...

    def shown_texts(self, rows: Sequence[int]) -> list[ShownTexts]:
        """The texts of what rows are shown."""
        ...


class Watch:
    """Notes the decisions of row 0 of a group, from the first one on.

    Args:
        group: the environment; its row 0 begins an episode next.
    """

    def __init__(self, group: WatchedGroup) -> None:
        self._group = group
        self._event = 0
        self._num_answers = 0
        self._resident: set[int] = set()
        self._archived: set[int] = set()

    def step(
        self,
        observation: Mapping[str, Tensor],
        action: int | None,
        scores: Sequence[float] | None,
    ) -> Step:
        """Note the decision at hand, before it is carried out.

        Args:
            observation: of one row. action: what was chosen; None at the end of the episode.
            scores: (A,) of the policy, None if it has none.
        """
        process, texts = self._group.process(0), self._group.shown_texts([0])[0]
        needs = self._needs(process)
        slots = self._rows(observation["slots"][0], process.slot_pages(), texts.slots, needs)
        found = self._rows(
            observation["candidates"][0], process.candidates(), texts.candidates, needs
        )
        choices = [] if action is None else self._choices(observation, texts, action, scores)
        return Step(
            event=process.event,
            headline=self._headline(texts, is_end=action is None),
            news=tuple(self._news(process, texts)),
            truth=tuple(self._truth(process, needs)),
            situation=numbers_text(GLOBALS, observation["globals"][0]),
            slots=tuple(slots),
            candidates=tuple(found),
            choices=tuple(choices),
            reward_terms={},
        )

    # ------------------------------------------------------------------ parts

    def _needs(self, process: Process) -> tuple[int, ...]:
        if process.query is None:
            return ()
        return self._group.table.needs_in_window(process.episode, process.query)

    def _rows(
        self,
        features: Tensor,
        pages: Sequence[int],
        texts: Sequence[str | None],
        needs: Sequence[int],
    ) -> list[ShownPage]:
        process = self._group.process(0)
        is_numbered = not self._group.table.has_requests
        rows = []
        for row, text in enumerate(texts):
            if text is None:
                continue
            page = pages[row] if is_numbered else None
            marks = [name for name in _FLAGS if features[row, FEATURE[name]] > 0]
            if process.query is not None and not process.focus_is_query:
                marks += ["focus"] if page == process.focus_page else []
            marks += ["needed"] if page in needs else []
            numbers = numbers_text(FEATURES, features[row], hidden=_HIDDEN)
            rows.append(ShownPage(row, page, tuple(marks), text, numbers))
        return rows

    def _choices(
        self,
        observation: Mapping[str, Tensor],
        texts: ShownTexts,
        action: int,
        scores: Sequence[float] | None,
    ) -> list[Choice]:
        layout = self._group.layout
        choices = []
        for legal in observation["action_mask"][0].nonzero().flatten().tolist():
            op, row = layout.decode(legal)
            about = None
            if op not in (Op.YIELD, Op.NEXT):
                about = (texts.candidates if op is Op.RETRIEVE else texts.slots)[row]
            score = None if scores is None else scores[legal]
            name = describe_action(layout, legal)
            choices.append(Choice(name, about or "", score, is_chosen=legal == action))
        if scores is not None:
            choices.sort(key=lambda choice: -(choice.score or 0.0))
        return choices

    def _headline(self, texts: ShownTexts, *, is_end: bool) -> str:
        if is_end:
            return "The episode has ended."
        if texts.query is not None:
            return f"Question: {texts.query}"
        return "A page has arrived and does not fit: what leaves, and is it stored first?"

    def _truth(self, process: Process, needs: Sequence[int]) -> list[str]:
        """Gold answers, and where the evidence is."""
        if process.query is None:
            return []
        table, core = self._group.table, process.core
        row = int(table.query_offset[process.document]) + process.query
        said = [f"gold answers: {' | '.join(table.text.answers[row]) or 'none'}"]
        for page in needs:
            place = "not arrived yet"
            if core.is_resident(page):
                place = "in main context"
            elif core.is_archived(page):
                place = "in archival"
            elif core.was_seen(page):
                place = "in recall alone"
            said.append(f"needs page {page}: {place}")
        return said if needs else [*said, "needs no page: it pays no evidence"]

    def _news(self, process: Process, texts: ShownTexts) -> list[str]:
        """What has happened since the last call, and remember where things stand."""
        news = self._events(process, is_asked=texts.query is not None)
        answers = process.log.answers
        for answer in answers[self._num_answers :]:
            paid = "none defined" if answer.evidence is None else f"{answer.evidence:.2f}"
            news.append(f"answered: evidence {paid}")
        core = process.core
        resident, archived = set(core.queue), set(core.archive)
        is_numbered = not self._group.table.has_requests
        if is_numbered:
            for page in sorted(self._resident - resident):
                kept = "archival has it" if page in archived else "it was not stored"
                news.append(f"page {page} left main context; {kept}")
            news += [f"page {page} was stored" for page in sorted(archived - self._archived)]
            news += [f"archival dropped page {p}" for p in sorted(self._archived - archived)]
        self._event, self._num_answers = process.event, len(answers)
        self._resident, self._archived = resident, archived
        return news

    def _events(self, process: Process, *, is_asked: bool) -> list[str]:
        table, episode = self._group.table, process.episode
        events = range(self._event, process.event)
        first = int(table.query_offset[process.document])
        pages = table.text.pages[table.episode_pages(episode)]
        news, num_requests = [], 0
        for number in events:
            kind, index = table.event_kind[episode, number], int(table.event_index[episode, number])
            if kind == Event.REQUEST:
                num_requests += 1
            elif kind == Event.MESSAGE:
                news.append(f"page {index} arrived: {pages[index]}")
            elif not is_asked or number < process.event - 1:  # else the headline says it
                news.append(f"asked: {table.text.queries[first + index]}")
        if num_requests:
            log = process.log
            news.append(f"{num_requests} requests; so far {log.hits} hits of {log.requests}")
        return news
