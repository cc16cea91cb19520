"""A prompted model that picks one legal action: the powers of a learned policy, and no others.

It reads the texts of what a learned policy sees the numbers of, and may do exactly what that one
may do; so a difference between the two is one of choosing. MemGPT's own way, with free text in
function calls, is `memrl.policies.prompted_functions`.
"""

from __future__ import annotations

import dataclasses
from collections.abc import Callable, Mapping, Sequence
from typing import Any, ClassVar

import torch
from torch import Tensor

from memrl.actions import Op
from memrl.llm import prompts
from memrl.llm.backend import Backend, BackendError, Request
from memrl.llm.choosing import Choice, Chooser
from memrl.llm.costs import LlmCosts
from memrl.observation_text import ShownTexts
from memrl.policies.base import GLOBAL, layout_of
from memrl.policies.choice_views import (
    LINE_TOKENS,
    VIEWS,
    Decision,
    ViewName,
    without_situation,
)
from memrl.policies.heuristics import StoreAndRetrieve
from memrl.privileged import PrivilegedState

Observation = Mapping[str, Tensor]


class PromptedChoice:
    """Asks a model at every decision with more than one legal action.

    Where nothing comes of it (a call that failed, a reply that is no choice) it acts YIELD.

    Args:
        backend: the model. Where it can score, the most likely choice is taken; else it replies.
        view: what it is shown; see `memrl.policies.choice_views`.
        calibrates: see `memrl.llm.choosing.Chooser`.
        line_tokens: most tokens of a text in the compact view.
        answer_offset: nats that are added, at a query, to the log-likelihood of answering from
            what is in view: what a model says anyway, set right by one number.
        pose: puts the text of a query as a question.

    Attributes:
        costs: of all decisions so far.

    Raises:
        BackendError: if likelihoods are to be calibrated, or offset, that the back end does not
            give.
    """

    is_privileged: ClassVar[bool] = False
    reads_text: ClassVar[bool] = True

    def __init__(
        self,
        backend: Backend,
        *,
        view: ViewName = "compact",
        calibrates: bool = False,
        line_tokens: int = LINE_TOKENS,
        answer_offset: float = 0.0,
        pose: Callable[[str], str] = str,
    ) -> None:
        if answer_offset and not backend.can_score:
            raise BackendError(
                f"{backend.name} gives no likelihoods of given texts, so an answer_offset has "
                "nothing to be added to: leave it out, or take a local model."
            )
        self.backend = backend
        self.costs = LlmCosts()
        self._view_name: ViewName = view
        self._view = VIEWS[view]
        self._line_tokens = line_tokens
        self._answer_offset = answer_offset
        self._pose = pose
        self._chooser = Chooser(backend, calibrates=calibrates, costs=self.costs)

    @property
    def settings(self) -> dict[str, Any]:
        """How it chooses, for the settings of a contestant; JSON-able."""
        return {
            "mode": "choice",
            "view": self._view_name,
            "line_tokens": self._line_tokens,
            "picks_by": "likelihood" if self.backend.can_score else "reply",
            "calibrated": self._chooser.calibrates,
            "answer_offset": self._answer_offset,
            "question": self._pose("..."),
            "model": dict(self.backend.identity),
            "prompts_sha256": prompts.module_sha256(),
        }

    def act(
        self,
        observation: Observation,
        action_mask: Tensor,
        privileged: PrivilegedState | None = None,
        *,
        texts: Sequence[ShownTexts] = (),
    ) -> Tensor:
        """Ask for the operations, then for the rows of those that could go to several.

        See `TextPolicy.act`.
        """
        del privileged
        _require_texts(texts, len(action_mask))
        rows = action_mask[:, 1:].any(dim=1).nonzero()[:, 0].tolist()
        layout = layout_of(observation)
        decisions = []
        for row in rows:
            seen = {name: values[row].cpu() for name, values in observation.items()}
            shown = texts[row]
            if shown.query is not None:
                shown = dataclasses.replace(shown, query=self._pose(shown.query))
            mask = action_mask[row].cpu()
            decisions.append(Decision.of(seen, mask, layout, shown, self._line_tokens))
        chosen = self._decide(decisions)
        actions = torch.zeros(len(action_mask), dtype=torch.int64)
        actions[rows] = torch.tensor(chosen, dtype=torch.int64)
        return actions.to(action_mask.device)

    def _decide(self, decisions: Sequence[Decision]) -> list[int]:
        """The action of each decision."""
        operations = self._choose(
            [self._view.operations(decision) for decision in decisions],
            [self._offsets(decision) for decision in decisions],
        )
        seconds = [choice.seconds for choice in operations]
        actions = [0] * len(decisions)
        unsettled: list[tuple[int, Op]] = []
        for place, (decision, choice) in enumerate(zip(decisions, operations, strict=True)):
            if choice.index is None:
                continue
            op = list(decision.legal)[choice.index]
            actions[place] = decision.layout.encode(op, decision.legal[op][0])
            if len(decision.legal[op]) > 1:
                unsettled.append((place, op))
        arguments = self._choose(
            [self._view.arguments(decisions[place], op) for place, op in unsettled]
        )
        for (place, op), choice in zip(unsettled, arguments, strict=True):
            seconds[place] += choice.seconds
            actions[place] = _encoded(decisions[place], op, choice.index)
        for own in seconds:
            self.costs.decided(own)
        return actions

    def _offsets(self, decision: Decision) -> list[float]:
        """What is added to each operation that is asked for."""
        return [
            self._answer_offset if decision.at_query and op is Op.YIELD else 0.0
            for op in decision.legal
        ]

    def _choose(
        self, requests: Sequence[Request], offsets: Sequence[Sequence[float]] | None = None
    ) -> list[Choice]:
        nulls = [without_situation(one) for one in requests]
        return self._chooser.choose(requests, nulls, offsets)


def _require_texts(texts: Sequence[ShownTexts], num_rows: int) -> None:
    if len(texts) != num_rows:
        raise ValueError(
            f"A prompted policy reads the texts of {num_rows} rows and was given {len(texts)}: "
            "play it where there are texts, see TextPolicy."
        )


def _encoded(decision: Decision, op: Op, index: int | None) -> int:
    """The action of an operation on a chosen row; YIELD where none was."""
    if index is None:
        return decision.layout.encode(Op.YIELD)
    return decision.layout.encode(op, decision.legal[op][index])


@dataclasses.dataclass(frozen=True)
class PromptedAtQueries:
    """The cheaper hybrid: a model at queries, a rule under pressure.

    Attributes:
        prompted: asked at queries.
        store_threshold: under pressure a page about to be lost is stored when the fitted page
            scorer's logit reaches this; -inf stores every page, +inf none.
    """

    prompted: PromptedChoice
    store_threshold: float
    is_privileged: ClassVar[bool] = False
    reads_text: ClassVar[bool] = True

    @property
    def settings(self) -> dict[str, Any]:
        """See `PromptedChoice.settings`."""
        # JSON has no infinity.
        rule = f"stores from a prior of {self.store_threshold}"
        return self.prompted.settings | {"mode": "choice at queries", "under_pressure": rule}

    @property
    def costs(self) -> LlmCosts:
        """Of all decisions at queries so far."""
        return self.prompted.costs

    def act(
        self,
        observation: Observation,
        action_mask: Tensor,
        privileged: PrivilegedState | None = None,
        *,
        texts: Sequence[ShownTexts] = (),
    ) -> Tensor:
        """Divide the rows between the two; see `TextPolicy.act`."""
        del privileged
        _require_texts(texts, len(action_mask))
        rule = StoreAndRetrieve(top_k=0, store_threshold=self.store_threshold)
        actions = rule.act(observation, action_mask)
        rows = (observation["globals"][:, GLOBAL["at_query"]] > 0).nonzero()[:, 0]
        if len(rows):
            seen = {name: values[rows] for name, values in observation.items()}
            own_texts = [texts[row] for row in rows.tolist()]
            actions[rows] = self.prompted.act(seen, action_mask[rows], texts=own_texts)
        return actions
