"""Lets a model choose one of a few texts: by how likely each is, or by what it replies."""

from __future__ import annotations

import math
from collections.abc import Sequence
from dataclasses import dataclass

from memrl.llm.backend import Backend, BackendError, Request
from memrl.llm.costs import LlmCosts

_AROUND = " \t\r\n.,:;!?\"'`*()[]"  # what models put around a phrase


@dataclass(frozen=True, slots=True)
class Choice:
    """What a model has chosen.

    Attributes:
        index: of the request's choices, None where nothing came of it.
        seconds: of the model.
    """

    index: int | None
    seconds: float


class Chooser:
    """Asks a model for one of a request's choices.

    A back end that can score gives each choice a likelihood; the most likely is taken, the first
    among equals. Any other replies, and the reply is read; one that is no choice counts as a
    failure to parse.

    Args:
        backend: the model.
        calibrates: take from each log-likelihood the one that the choice has after a prompt that
            tells nothing, so that what a model says anyway does not win (pointwise mutual
            information). It helps small models and can hurt larger ones.
        costs: where calls are counted; decisions are the caller's to count.

    Raises:
        BackendError: if likelihoods are to be calibrated that the back end does not give.
    """

    def __init__(self, backend: Backend, *, calibrates: bool, costs: LlmCosts) -> None:
        if calibrates and not backend.can_score:
            raise BackendError(
                f"{backend.name} gives no likelihoods of given texts, so there is nothing to "
                "calibrate: set calibration off, or take a local model."
            )
        self.backend = backend
        self.calibrates = calibrates
        self.costs = costs
        self._after_nothing: dict[Request, tuple[float, ...]] = {}

    def choose(
        self,
        requests: Sequence[Request],
        nulls: Sequence[Request],
        offsets: Sequence[Sequence[float]] | None = None,
    ) -> list[Choice]:
        """Choose for each request.

        Args:
            requests: with their choices.
            nulls: the same with a prompt that tells nothing; read only where this calibrates. What
                they give is kept, so each is asked once.
            offsets: added to the log-likelihoods of each request's choices; of no effect on a back
                end that cannot score.
        """
        if not requests:
            return []
        if not self.backend.can_score:
            return self._by_reply(requests)
        if self.calibrates:
            self._learn(nulls)
        choices = []
        for number, scores in enumerate(self.backend.score(requests)):
            self.costs.add(scores)
            log_likelihoods = scores.log_likelihoods
            if self.calibrates:
                log_likelihoods = _less(log_likelihoods, self._after_nothing[nulls[number]])
            if offsets is not None:
                log_likelihoods = _less(log_likelihoods, [-offset for offset in offsets[number]])
            choices.append(Choice(_best(log_likelihoods), scores.usage.seconds))
        return choices

    def _learn(self, nulls: Sequence[Request]) -> None:
        new = [null for null in dict.fromkeys(nulls) if null not in self._after_nothing]
        for null, scores in zip(new, self.backend.score(new) if new else [], strict=True):
            self.costs.add(scores)
            self._after_nothing[null] = scores.log_likelihoods

    def _by_reply(self, requests: Sequence[Request]) -> list[Choice]:
        choices = []
        for request, reply in zip(requests, self.backend.complete(requests), strict=True):
            self.costs.add(reply)
            index = None if reply.error else parse_choice(reply.text, request.choices)
            self.costs.parse_failures += index is None and not reply.error
            choices.append(Choice(index, reply.usage.seconds))
        return choices


def parse_choice(text: str, choices: Sequence[str]) -> int | None:
    """The choice that a reply is, or the longest that it begins with; None for neither.

    Case, white space and punctuation around it do not count; a number goes to its last digit.
    """
    said = _plain(text)
    starts = [
        (len(choice), -index)
        for index, choice in enumerate(map(_plain, choices))
        if said.startswith(choice) and not said[len(choice) : len(choice) + 1].isalnum()
    ]
    return -max(starts)[1] if starts else None


def _plain(text: str) -> str:
    return " ".join(text.casefold().split()).strip(_AROUND)


def _less(values: Sequence[float], others: Sequence[float]) -> tuple[float, ...]:
    """Differences; none where either has none."""
    if len(values) != len(others):
        return ()
    return tuple(value - other for value, other in zip(values, others, strict=True))


def _best(values: Sequence[float]) -> int | None:
    if not values or any(map(math.isnan, values)):
        return None
    return max(range(len(values)), key=values.__getitem__)
