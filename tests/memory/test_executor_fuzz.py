"""A short run of the fuzz; `make fuzz` plays 100,000 calls."""

from __future__ import annotations

import pytest
from benchmarks import executor_fuzz

from memrl.memory.executor import Executor, Result
from memrl.memory.schemas import memory_functions


@pytest.mark.parametrize("stores", ["lists", "sqlite"])
def test_random_calls_are_answered_or_refused_with_a_reason(
    stores: executor_fuzz.StoreKind,
) -> None:
    report = executor_fuzz.fuzz(2_000, seed=0, stores=stores)
    assert sum(report.outcomes.values()) == 2_000
    assert report.missing_reasons == []
    answered = {function for function, outcome in report.by_function if outcome == "ok"}
    assert answered == set(memory_functions(executor_fuzz.LABELS))
    assert report.flushes > 100
    assert set(report.summarizer_failures) == {"raised", "blank", "not_text", "too_long"}


def test_the_fuzz_notices_a_defect(monkeypatch: pytest.MonkeyPatch) -> None:
    def without_heartbeat(_executor: Executor, _name: object, _arguments: object) -> Result:
        return Result("", "failed", "Failed: no reason.")

    monkeypatch.setattr(Executor, "execute", without_heartbeat)
    with pytest.raises(AssertionError):
        executor_fuzz.fuzz(1, seed=0)
