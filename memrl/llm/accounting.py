"""What the exchanges with a model came to: calls, tokens, seconds, and what went wrong."""

from __future__ import annotations

import math
from collections import Counter
from dataclasses import dataclass, field
from typing import Any

from memrl.llm.backend import Reply, Scores
from memrl.memory.accounting import Durations

_OTHER = "other"  # a failure that no attempt had: a prompt over the window


@dataclass(slots=True)
class ExchangeTotals:
    """Sums over all exchanges that were added.

    Attributes:
        calls: replies and scorings. retries: further attempts for them.
        prompt_tokens, cached_tokens, reply_tokens, seconds: see `memrl.llm.backend.Usage`.
        durations: of the calls, failed ones included.
        estimates: calls whose tokens are estimates.
        cut: replies that were cut at their longest.
        failures: calls that came to nothing, by the kind of their last fault.
        faults: what went wrong with attempts, by kind, the last ones included.
        models: replies by the name that the back end gave.
    """

    calls: int = 0
    retries: int = 0
    prompt_tokens: int = 0
    cached_tokens: int = 0
    reply_tokens: int = 0
    seconds: float = 0.0
    durations: Durations = field(default_factory=Durations)
    estimates: int = 0
    cut: int = 0
    failures: Counter[str] = field(default_factory=Counter)
    faults: Counter[str] = field(default_factory=Counter)
    models: Counter[str] = field(default_factory=Counter)

    def add(self, result: Reply | Scores) -> None:
        """Count one exchange."""
        usage = result.usage
        self.calls += 1
        self.retries += usage.attempts - 1
        self.prompt_tokens += usage.prompt_tokens
        self.cached_tokens += usage.cached_tokens
        self.reply_tokens += usage.reply_tokens
        self.seconds += usage.seconds
        self.durations.add(usage.seconds)
        self.estimates += usage.is_estimate
        kinds: list[str] = []
        if isinstance(result, Reply):
            self.cut += result.finish == "length"
            kinds = [fault.partition(":")[0] for fault in result.faults]
            self.faults.update(kinds)
            if result.model:
                self.models[result.model] += 1
        if result.error:
            self.failures[kinds[-1] if kinds else _OTHER] += 1

    def as_dict(self) -> dict[str, Any]:
        """JSON-able: the sums by name, with `seconds_p50` and `seconds_p95`, None without calls."""
        quantiles = {
            f"seconds_p{round(100 * fraction)}": self.durations.quantile(fraction)
            for fraction in (0.5, 0.95)
        }
        return {
            "calls": self.calls,
            "retries": self.retries,
            "prompt_tokens": self.prompt_tokens,
            "cached_tokens": self.cached_tokens,
            "reply_tokens": self.reply_tokens,
            "seconds": self.seconds,
            **{name: None if math.isnan(value) else value for name, value in quantiles.items()},
            "estimates": self.estimates,
            "cut": self.cut,
            "failures": dict(sorted(self.failures.items())),
            "faults": dict(sorted(self.faults.items())),
            "models": dict(sorted(self.models.items())),
        }
