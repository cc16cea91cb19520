from __future__ import annotations

import json
import math

import numpy as np
import pytest

from memrl.memory.accounting import Accounting, Durations
from memrl.memory.paging import PagingCore


def test_quantiles_are_within_their_bound() -> None:
    seconds = np.random.default_rng(0).lognormal(-7, 2, size=5001)
    durations = Durations()
    for value in seconds:
        durations.add(float(value))
    for fraction in (0.01, 0.5, 0.95, 1.0):
        exact = float(np.quantile(seconds, fraction, method="inverted_cdf"))
        assert durations.quantile(fraction) == pytest.approx(exact, rel=0.045)


def test_one_duration_is_exact_and_none_is_no_number() -> None:
    durations = Durations()
    assert math.isnan(durations.quantile(0.5))
    durations.add(0.0123)
    assert durations.quantile(0.5) == durations.quantile(0.95) == 0.0123


@pytest.mark.parametrize("seconds", [0.0, 1e-12, 1e9])
def test_durations_beyond_the_buckets_count(seconds: float) -> None:
    durations = Durations()
    durations.add(seconds)
    assert durations.quantile(0.5) == seconds


def test_an_operation_is_counted_with_what_it_moved() -> None:
    times = iter([10.0, 10.5, 20.0, 20.25])
    accounting = Accounting(clock=lambda: next(times))
    core = PagingCore(capacity_tokens=10, num_slots=2)
    core.see(0, 3)
    core.see(1, 4)
    with accounting.measure("move", core.counts) as operation:
        core.page_in(0)
        core.page_in(1)
        core.page_out(0)
        operation.stored("né\ud800")
    with pytest.raises(KeyError), accounting.measure("move", core.counts):
        core.page_out(7)
    costs = accounting["move"]
    assert (costs.calls, costs.failures, costs.tokens_in, costs.tokens_out) == (2, 1, 7, 3)
    assert costs.bytes_stored == 6  # 1 + 2 + 3
    assert costs.seconds == 0.75
    record = accounting.as_dict()
    assert json.loads(json.dumps(record)) == record
    assert record["move"]["seconds_p50"] == pytest.approx(0.25, rel=0.045)
    assert record["move"]["seconds_p95"] == pytest.approx(0.5, rel=0.045)
    with pytest.raises(KeyError):
        accounting["other"]


def test_a_refusal_that_was_caught_is_marked_by_hand() -> None:
    accounting = Accounting()
    core = PagingCore(capacity_tokens=1, num_slots=1)
    with accounting.measure("call", core.counts) as operation:
        operation.is_failure = True
    assert accounting["call"].failures == 1
