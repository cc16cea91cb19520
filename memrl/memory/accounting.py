"""What each operation of the memory system costs: calls, tokens, bytes and seconds."""

from __future__ import annotations

import math
import time
from collections.abc import Callable, Iterator, Mapping
from contextlib import contextmanager
from dataclasses import dataclass, field
from typing import Any

from memrl.memory.paging import PagingCounts

_SHORTEST_S, _LONGEST_S = 1e-7, 1e4
_STEPS_PER_OCTAVE = 8  # a bucket's middle is within 4.5 % of everything in it
_NUM_BUCKETS = math.ceil(math.log2(_LONGEST_S / _SHORTEST_S) * _STEPS_PER_OCTAVE)


class Durations:
    """Quantiles of any number of durations in fixed memory: counts in buckets of equal ratio.

    Nothing is sampled, so equal durations give equal quantiles. Durations outside 100 ns..10,000 s
    count in the outermost bucket.
    """

    def __init__(self) -> None:
        self._counts = [0] * _NUM_BUCKETS
        self._least_s = math.inf
        self._most_s = 0.0

    def add(self, duration_s: float, count: int = 1) -> None:
        """Count a duration, `count` times."""
        ratio = max(duration_s, _SHORTEST_S) / _SHORTEST_S
        bucket = min(int(math.log2(ratio) * _STEPS_PER_OCTAVE), _NUM_BUCKETS - 1)
        self._counts[bucket] += count
        self._least_s = min(self._least_s, duration_s)
        self._most_s = max(self._most_s, duration_s)

    def quantile(self, fraction: float) -> float:
        """Least duration that `fraction` of them do not exceed, within 4.5 %; NaN without any."""
        rank = max(1, math.ceil(fraction * sum(self._counts)))
        below = 0
        for bucket, count in enumerate(self._counts):
            below += count
            if below >= rank:
                middle_s: float = _SHORTEST_S * 2 ** ((bucket + 0.5) / _STEPS_PER_OCTAVE)
                return min(max(middle_s, self._least_s), self._most_s)
        return math.nan

    def as_dict(self) -> dict[str, Any]:
        """JSON-able, for `include`."""
        is_empty = self._least_s == math.inf
        return {
            "buckets": {str(own): count for own, count in enumerate(self._counts) if count},
            "least_s": None if is_empty else self._least_s,
            "most_s": None if is_empty else self._most_s,
        }

    def include(self, counted: Mapping[str, Any]) -> None:
        """Count all that `as_dict` of others told."""
        for bucket, count in counted["buckets"].items():
            self._counts[int(bucket)] += count
        if counted["buckets"]:
            self._least_s = min(self._least_s, counted["least_s"])
            self._most_s = max(self._most_s, counted["most_s"])


@dataclass(slots=True)
class OperationCosts:
    """What one kind of operation has cost so far.

    Attributes:
        calls: how often it was begun. failures: how often it was refused or raised.
        tokens_in, tokens_out: sizes of pages that it moved into and out of main context.
        bytes_stored: UTF-8 bytes of text that it wrote to recall, archival or working context.
        seconds: their sum. durations: their distribution.
    """

    calls: int = 0
    failures: int = 0
    tokens_in: int = 0
    tokens_out: int = 0
    bytes_stored: int = 0
    seconds: float = 0.0
    durations: Durations = field(default_factory=Durations)

    def as_dict(self) -> dict[str, float | None]:
        """JSON-able, with `seconds_p50` and `seconds_p95`; these are None before the first call."""
        quantiles = {
            f"seconds_p{round(100 * fraction)}": self.durations.quantile(fraction)
            for fraction in (0.5, 0.95)
        }
        return {
            "calls": self.calls,
            "failures": self.failures,
            "tokens_in": self.tokens_in,
            "tokens_out": self.tokens_out,
            "bytes_stored": self.bytes_stored,
            "seconds": self.seconds,
            **{name: None if math.isnan(value) else value for name, value in quantiles.items()},
        }


@dataclass(slots=True)
class Operation:
    """One operation under way; what is set here is added to its kind's costs when it ends."""

    bytes_stored: int = 0
    is_failure: bool = False

    def stored(self, text: str) -> None:
        """Count a text that was written to a store."""
        self.bytes_stored += len(text.encode("utf-8", "surrogatepass"))


class Accounting:
    """Costs by kind of operation.

    Operations nest (a function call may flush the queue): each row has all that it caused, so rows
    are not to be added up. Totals of the moves are the paging core's `counts`.

    Args:
        clock: seconds from any start, never going back.
    """

    def __init__(self, clock: Callable[[], float] = time.perf_counter) -> None:
        self._clock = clock
        self._costs: dict[str, OperationCosts] = {}

    def __getitem__(self, kind: str) -> OperationCosts:
        """Costs of a kind of operation; KeyError before its first call."""
        return self._costs[kind]

    @contextmanager
    def measure(self, kind: str, counts: PagingCounts) -> Iterator[Operation]:
        """Count what happens in the block as one operation.

        Args:
            kind: one of a few names, never a text that a model wrote.
            counts: of the paging core, which knows the tokens moved.
        """
        operation = Operation()
        tokens_in, tokens_out = counts.tokens_in, counts.tokens_out
        start_s = self._clock()
        try:
            yield operation
        except BaseException:
            operation.is_failure = True
            raise
        finally:
            duration_s = self._clock() - start_s
            costs = self._costs.setdefault(kind, OperationCosts())
            costs.calls += 1
            costs.failures += operation.is_failure
            costs.tokens_in += counts.tokens_in - tokens_in
            costs.tokens_out += counts.tokens_out - tokens_out
            costs.bytes_stored += operation.bytes_stored
            costs.seconds += duration_s
            costs.durations.add(duration_s)

    def as_dict(self) -> dict[str, Any]:
        """Costs of every kind that was called, by name: JSON-able."""
        return {kind: costs.as_dict() for kind, costs in sorted(self._costs.items())}
