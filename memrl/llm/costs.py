"""What asking a language model has cost: calls, tokens, seconds, and what came to nothing."""

from __future__ import annotations

import math
from collections import Counter
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from typing import Any

from memrl.llm.backend import Reply, Scores
from memrl.memory.accounting import Durations

_OTHER = "other"  # a failure that no attempt had: a prompt over the window
_SUMS = (
    *("calls", "attempts", "prompt_tokens", "cached_tokens", "reply_tokens", "seconds"),
    *("estimates", "cut", "decisions", "parse_failures"),
)
_COUNTERS = ("failures", "faults", "models")


@dataclass(slots=True)
class LlmCosts:
    """Sums over all that was asked so far.

    Attributes:
        calls: replies and scorings asked for.
        attempts: times that the model was asked, retries included.
        prompt_tokens, cached_tokens, reply_tokens: see `memrl.llm.backend.Usage`.
        seconds: of the model. decisions: choices, function calls or answers that came of it.
        parse_failures: replies that were none of the things that could be said.
        estimates: calls whose tokens are estimates. cut: replies that were cut at their longest.
        failures: calls that came to nothing, by the kind of their last fault.
        faults: what went wrong with attempts, by kind, the last ones included.
        models: replies by the name that the back end gave.
        durations: seconds of the model for each decision.
    """

    calls: int = 0
    attempts: int = 0
    prompt_tokens: int = 0
    cached_tokens: int = 0
    reply_tokens: int = 0
    seconds: float = 0.0
    decisions: int = 0
    parse_failures: int = 0
    estimates: int = 0
    cut: int = 0
    failures: Counter[str] = field(default_factory=Counter)
    faults: Counter[str] = field(default_factory=Counter)
    models: Counter[str] = field(default_factory=Counter)
    durations: Durations = field(default_factory=Durations)

    def add(self, reply: Reply | Scores) -> None:
        """Count one reply or scoring."""
        usage = reply.usage
        self.calls += 1
        self.attempts += usage.attempts
        self.prompt_tokens += usage.prompt_tokens
        self.cached_tokens += usage.cached_tokens
        self.reply_tokens += usage.reply_tokens
        self.seconds += usage.seconds
        self.estimates += usage.is_estimate
        kinds: list[str] = []
        if isinstance(reply, Reply):
            self.cut += reply.finish == "length"
            kinds = [fault.partition(":")[0] for fault in reply.faults]
            self.faults.update(kinds)
            if reply.model:
                self.models[reply.model] += 1
        if reply.error:
            self.failures[kinds[-1] if kinds else _OTHER] += 1

    def decided(self, seconds: float) -> None:
        """Count one decision, and the seconds of the model that it took."""
        self.decisions += 1
        self.durations.add(seconds)

    def as_dict(self, num_queries: int) -> dict[str, Any]:
        """JSON-able.

        Args:
            num_queries: queries that were answered meanwhile, whether the model was asked or not.

        Returns:
            The sums by name, `queries`, `durations` (see `Durations.as_dict`),
            `seconds_per_decision_p50` and `_p95`, and `tokens_per_query`, read and written; None
            where nothing was counted.
        """
        tokens = self.prompt_tokens + self.reply_tokens
        return {
            **{name: getattr(self, name) for name in _SUMS},
            **{name: dict(sorted(getattr(self, name).items())) for name in _COUNTERS},
            "queries": num_queries,
            "durations": self.durations.as_dict(),
            "seconds_per_decision_p50": _quantile(self.durations, 0.5),
            "seconds_per_decision_p95": _quantile(self.durations, 0.95),
            "tokens_per_query": tokens / num_queries if num_queries else None,
        }


def merged_costs(told: Sequence[Mapping[str, Any]]) -> dict[str, Any]:
    """What `LlmCosts.as_dict` would tell of all together; none gives the costs of nothing."""
    costs = LlmCosts()
    for own in told:
        for name in _SUMS:
            setattr(costs, name, getattr(costs, name) + own[name])
        for name in _COUNTERS:
            getattr(costs, name).update(own[name])
        costs.durations.include(own["durations"])
    return costs.as_dict(sum(own["queries"] for own in told))


def _quantile(durations: Durations, fraction: float) -> float | None:
    value = durations.quantile(fraction)
    return None if math.isnan(value) else value
