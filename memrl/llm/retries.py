"""How long to wait before a server is asked again."""

from __future__ import annotations

import math
import time
from dataclasses import dataclass
from datetime import UTC
from email.utils import parsedate_to_datetime

import numpy as np


@dataclass(frozen=True)
class RetryOptions:
    """When a failed request is sent again.

    Attributes:
        retries: times that a request is sent again before it counts as failed.
        first_wait_s: before the first retry; doubled for every further one.
        longest_wait_s: most that is waited before one retry. A server that asks for more by
            `Retry-After` is not asked again.
        seed: of the jitter, a factor in [0.5, 1) that keeps requests apart.
    """

    retries: int = 4
    first_wait_s: float = 1.0
    longest_wait_s: float = 120.0
    seed: int = 0

    def __post_init__(self) -> None:
        """Refuse what would never end, or never wait."""
        if self.retries < 0 or self.seed < 0:
            raise ValueError(
                f"retries and seed must be at least 0, got {self.retries} and {self.seed}."
            )
        if not 0 < self.first_wait_s <= self.longest_wait_s < math.inf:
            raise ValueError(
                "first_wait_s must be above 0 and at most longest_wait_s, got "
                f"{self.first_wait_s} and {self.longest_wait_s}."
            )

    def wait_s(self, retry: int, draws: np.random.Generator) -> float:
        """Seconds before retry 1, 2, ...: doubling, with jitter."""
        doubled = self.first_wait_s * 2.0 ** min(retry - 1, 64)
        return min(doubled, self.longest_wait_s) * draws.uniform(0.5, 1.0)


def retry_after_s(header: str | None) -> float | None:
    """Seconds that a `Retry-After` header asks for, None without one that can be read.

    Args:
        header: seconds, or a date (RFC 9110, 10.2.3).
    """
    if header is None:
        return None
    try:
        seconds = float(header)
    except ValueError:
        try:
            date = parsedate_to_datetime(header)
        except ValueError:
            return None
        seconds = (date if date.tzinfo else date.replace(tzinfo=UTC)).timestamp() - time.time()
    return max(0.0, seconds) if math.isfinite(seconds) else None
