"""A model that answers questions from what it may read, the same one for every policy."""

from __future__ import annotations

import json
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from typing import Any

from memrl.documents import Query
from memrl.evaluation.contexts import Asked, table_query
from memrl.llm import prompts
from memrl.llm.backend import Backend, ChatMessage, Reply, Request
from memrl.llm.costs import LlmCosts
from memrl.memory.display import make_display
from memrl.memory.tokens import TokenCounter, count_tokens, truncate
from memrl.page_texts import CUT_MARKER
from memrl.table import EpisodeTable

_AT_ONCE = 64  # questions between two reports of progress


@dataclass(frozen=True)
class Answer:
    """What a reader said to a question.

    Attributes:
        text: the answer, "" where none came.
        read: positions in `Asked.texts` that were read, in order. context_tokens: of these texts.
        error: why none came, "" otherwise.
    """

    text: str
    read: tuple[int, ...]
    context_tokens: int
    error: str = ""


class LlmReader:
    """Answers each question from its texts, oldest first, within a budget.

    Texts are taken in the order of `Asked.keep` until one does not fit; one that alone is above the
    budget is cut to it. Where the model's window is smaller than the budget, the last taken are
    left out again.

    Args:
        backend: the model.
        budget_tokens: most tokens of what is read, as `count` counts them; None for the window.
        max_reply_tokens: of an answer.
        question_of: how a question of a workload is put; its text, unless a benchmark puts some in
            another way.
        count: counts tokens; by default as the table counts its pages.

    Attributes:
        costs: of all questions so far.

    Raises:
        ValueError: if the budget or the answer has no room for a token.
    """

    def __init__(
        self,
        backend: Backend,
        *,
        budget_tokens: int | None = None,
        max_reply_tokens: int = 64,
        question_of: Callable[[str, Query], str] = lambda _, query: query.text,
        count: TokenCounter = count_tokens,
    ) -> None:
        least = min(max_reply_tokens, 1 if budget_tokens is None else budget_tokens)
        if least < 1:
            raise ValueError(
                "budget_tokens and max_reply_tokens must be at least 1, got "
                f"{budget_tokens} and {max_reply_tokens}."
            )
        self.backend = backend
        self.budget_tokens = budget_tokens
        self.max_reply_tokens = max_reply_tokens
        self.costs = LlmCosts()
        self._question_of = question_of
        self._count = count
        self._display = make_display()

    @property
    def settings(self) -> dict[str, Any]:
        """Who reads, and how much; JSON-able."""
        return {
            "budget_tokens": self.budget_tokens,
            "max_reply_tokens": self.max_reply_tokens,
            "model": dict(self.backend.identity),
            "prompts_sha256": prompts.module_sha256(),
        }

    def read(
        self,
        table: EpisodeTable,
        asked: Sequence[Asked],
        on_read: Callable[[int], None] | None = None,
    ) -> list[Answer]:
        """Answer questions.

        Args:
            table: the workload. asked: its questions, with what may be read.
            on_read: called with the number of questions answered since, for progress bars.
        """
        answers: list[Answer] = []
        for start in range(0, len(asked), _AT_ONCE):
            some = asked[start : start + _AT_ONCE]
            prepared = [self._prepared_in(table, one) for one in some]
            replies = self.backend.complete([request for request, _, _ in prepared])
            for (_, read, tokens), reply in zip(prepared, replies, strict=True):
                answers.append(self._answered(reply, read, tokens))
            if on_read is not None:
                on_read(len(some))
        return answers

    def answer(self, question: str, texts: Sequence[str]) -> Answer:
        """Answer a question that is in no table from texts, oldest first; the newest are kept."""
        keep = tuple(reversed(range(len(texts))))
        request, read, tokens = self._prepared(question, texts, keep)
        (reply,) = self.backend.complete([request])
        return self._answered(reply, read, tokens)

    def _answered(self, reply: Reply, read: tuple[int, ...], tokens: int) -> Answer:
        self.costs.add(reply)
        self.costs.decided(reply.usage.seconds)
        return Answer("" if reply.error else reply.text.strip(), read, tokens, reply.error)

    def _prepared_in(self, table: EpisodeTable, one: Asked) -> tuple[Request, tuple[int, ...], int]:
        workload = str(table.meta["workload"])
        question = self._question_of(workload, table_query(table, one.episode, one.query))
        return self._prepared(question, one.texts, one.keep)

    def _prepared(
        self, question: str, texts: Sequence[str], keep: Sequence[int]
    ) -> tuple[Request, tuple[int, ...], int]:
        """The request of a question, the positions that it shows, and their tokens."""
        taken = self._within_budget(texts, keep)
        window = self.backend.window_tokens

        def request(count: int) -> Request:
            shown = [text for _, text in sorted(taken[:count])]
            return Request(self._messages(question, shown), max_reply_tokens=self.max_reply_tokens)

        count = len(taken)
        if window is not None and not self._fits(request(count), window):
            fits, over = 0, count  # without any text it is the model that says that it does not fit
            while over - fits > 1:
                middle = (fits + over) // 2
                if self._fits(request(middle), window):
                    fits = middle
                else:
                    over = middle
            count = fits
        kept = sorted(taken[:count])
        tokens = sum(self._count(text) for _, text in kept)
        return request(count), tuple(place for place, _ in kept), tokens

    def _within_budget(self, texts: Sequence[str], keep: Sequence[int]) -> list[tuple[int, str]]:
        """Positions and texts that are within the budget, in the order of `keep`."""
        if self.budget_tokens is None:
            return [(place, texts[place]) for place in keep]
        taken: list[tuple[int, str]] = []
        left = self.budget_tokens
        for place in keep:
            text = texts[place]
            if not taken:
                text = truncate(text, self.budget_tokens, self._count, marker=CUT_MARKER)
            left -= self._count(text)
            if left < 0:
                break
            taken.append((place, text))
        return taken

    def _fits(self, request: Request, window: int) -> bool:
        return self.backend.count_tokens(request.messages) + self.max_reply_tokens <= window

    def _messages(self, question: str, texts: Sequence[str]) -> tuple[ChatMessage, ...]:
        asked = f"Question: {self._display(question)}\nAnswer:"
        if not texts:
            system = ChatMessage("system", prompts.READER_WITHOUT_NOTES)
            return system, ChatMessage("user", asked)
        # JSON strings on lines of their own: no note can end itself and begin a question.
        notes = "\n".join(json.dumps(self._display(text), ensure_ascii=False) for text in texts)
        system = ChatMessage("system", prompts.READER_INSTRUCTIONS)
        return system, ChatMessage("user", f"Notes, oldest first:\n{notes}\n\n{asked}")
