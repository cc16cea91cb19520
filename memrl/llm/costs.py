"""What asking a language model has cost: calls, tokens, seconds, and what came to nothing."""

from __future__ import annotations

import math
from dataclasses import dataclass, field

from memrl.llm.backend import Reply, Scores
from memrl.memory.accounting import Durations


@dataclass(slots=True)
class LlmCosts:
    """Sums over all that was asked so far.

    Attributes:
        calls: replies and scorings asked for. failures: of these, those that came to nothing.
        attempts: times that the model was asked, retries included.
        prompt_tokens, cached_tokens, reply_tokens: see `memrl.llm.backend.Usage`.
        seconds: of the model. decisions: choices, function calls or answers that came of it.
        parse_failures: replies that were none of the things that could be said.
        durations: seconds of the model for each decision.
    """

    calls: int = 0
    failures: int = 0
    attempts: int = 0
    prompt_tokens: int = 0
    cached_tokens: int = 0
    reply_tokens: int = 0
    seconds: float = 0.0
    decisions: int = 0
    parse_failures: int = 0
    durations: Durations = field(default_factory=Durations)

    def add(self, reply: Reply | Scores) -> None:
        """Count one reply or scoring."""
        usage = reply.usage
        self.calls += 1
        self.failures += bool(reply.error)
        self.attempts += usage.attempts
        self.prompt_tokens += usage.prompt_tokens
        self.cached_tokens += usage.cached_tokens
        self.reply_tokens += usage.reply_tokens
        self.seconds += usage.seconds

    def decided(self, seconds: float) -> None:
        """Count one decision, and the seconds of the model that it took."""
        self.decisions += 1
        self.durations.add(seconds)

    def as_dict(self, num_queries: int) -> dict[str, float | None]:
        """JSON-able.

        Args:
            num_queries: queries that were answered meanwhile, whether the model was asked or not.

        Returns:
            The sums by name, `seconds_per_decision_p50` and `_p95`, and `tokens_per_query`, read
            and written; None where nothing was counted.
        """
        tokens = self.prompt_tokens + self.reply_tokens
        quantiles = {
            f"seconds_per_decision_p{round(100 * fraction)}": self.durations.quantile(fraction)
            for fraction in (0.5, 0.95)
        }
        return {
            "calls": self.calls,
            "failures": self.failures,
            "attempts": self.attempts,
            "prompt_tokens": self.prompt_tokens,
            "cached_tokens": self.cached_tokens,
            "reply_tokens": self.reply_tokens,
            "seconds": self.seconds,
            "decisions": self.decisions,
            "parse_failures": self.parse_failures,
            **{name: None if math.isnan(value) else value for name, value in quantiles.items()},
            "tokens_per_query": tokens / num_queries if num_queries else None,
        }
