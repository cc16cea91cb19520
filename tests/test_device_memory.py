"""A device that runs out of memory: one error, which says how many environments would fit."""

from __future__ import annotations

import json
import re
from collections.abc import Callable, Mapping
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from table_fixtures import small_table
from torch import Tensor
from torch.profiler import ProfilerActivity, profile

from envs.batched import BatchedPaging, BatchedPagingEnv
from envs.batched_fixed import FixedShapePaging
from envs.batched_process import BatchedProcess
from envs.batched_state import EpisodeBatch
from envs.lockstep import LockstepPaging
from memrl.algos.gain_regression import GainRegression
from memrl.algos.group_policy_gradient import GroupPolicyGradient
from memrl.algos.rollout import roll_out
from memrl.algos.static_rollout import StaticRollouts, _Kept
from memrl.config import LearnerConfig, NetworkConfig
from memrl.device_memory import (
    WORKSPACE,
    DeviceMemoryError,
    RowMemory,
    environments_error,
    free_memory_bytes,
    naming_what_fits,
)
from memrl.observation import observe
from memrl.on_device import on_device
from memrl.options import PagingOptions
from memrl.policy_gradient_config import PolicyGradientConfig
from memrl.seeding import Streams

CPU = torch.device("cpu")
OPTIONS = PagingOptions(capacity=3, num_candidates=2, num_slots=4)
MIB = 2**20


def out_of_memory(*_: Any, **__: Any) -> Any:
    raise torch.OutOfMemoryError("CUDA out of memory. Tried to allocate 2.00 GiB.")


def free_is(monkeypatch: pytest.MonkeyPatch, num_bytes: int) -> None:
    monkeypatch.setattr("memrl.device_memory.free_memory_bytes", lambda _: num_bytes)


def refused(call: Callable[[], Any]) -> tuple[int, str]:
    """The number that would fit, and the message."""
    with pytest.raises(DeviceMemoryError) as caught:
        call()
    message = str(caught.value)
    return number_in(message), message


def number_in(message: str) -> int:
    assert message.endswith(".")
    assert "\n" not in message
    assert not re.search(r"\. [A-Z]", message), "more than one sentence"
    match = re.search(r"about ([\d,]+) would fit", message)
    assert match is not None, message
    return int(match[1].replace(",", ""))


# ---------------------------------------------------------------------- the number


@pytest.mark.parametrize(
    ("num_envs", "free_bytes", "fit"),
    [
        (65_536, 100 * MIB, 2_995),
        (8, 4 * 35_000 - 1, 3),
        (8, 4 * 35_000, 4),
        (8, 10**12, 4),  # an estimate that is too low: the batch has not fitted all the same
        (1, 10**12, 0),
        (5, 0, 0),
    ],
)
def test_as_many_fit_as_free_memory_holds(num_envs: int, free_bytes: int, fit: int) -> None:
    row = RowMemory.of_row(10_000)
    assert row.needed == 35_000
    error = environments_error(torch.device("cuda:1"), num_envs, row, free_bytes)
    message = str(error)
    assert number_in(message) == fit
    assert f"cuda:1 has not enough memory for {num_envs:,} environments of 34.2 KiB" in message
    assert "num_envs" in message
    assert "shard_bytes" in message


def test_other_errors_pass() -> None:
    for kind in (RuntimeError, ValueError, KeyError):
        with (
            pytest.raises(kind, match="something else"),
            naming_what_fits(CPU, 3, lambda: RowMemory(0, 0)),
        ):
            raise kind("something else")


def test_what_the_failed_call_had_made_is_free_again() -> None:
    made: list[Any] = []

    class Watched:
        def __del__(self) -> None:
            made.append("gone")

    def fails() -> None:
        kept = Watched()
        assert kept is not None
        out_of_memory()

    def row() -> RowMemory:
        assert made == []
        return RowMemory(0, 1)

    with pytest.raises(DeviceMemoryError), naming_what_fits(CPU, 3, row):
        fails()
    assert made == ["gone"]


def test_the_memory_of_this_machine() -> None:
    if not Path("/proc/meminfo").exists():
        pytest.skip("nothing tells how much memory is available")
    free = free_memory_bytes(CPU)
    assert 16 * MIB < free < 2**50


# ---------------------------------------------------------------------- building


def test_a_batch_that_does_not_fit_in_real_memory() -> None:
    """No machine has 80 TB for a number of each row."""
    number, message = refused(lambda: BatchedPaging(small_table(0), OPTIONS, 10**13))
    assert "cpu has not enough memory for 10,000,000,000,000 environments" in message
    one = BatchedPaging(small_table(0), OPTIONS, 1)
    free = free_memory_bytes(CPU)
    if free:  # other programs take and give memory in between
        assert 0.2 * free < number * one.row_memory.needed < 5 * free


def failing_once(original: Callable[..., Any]) -> Callable[..., Any]:
    calls = 0

    def call(*arguments: Any, **fields: Any) -> Any:
        nonlocal calls
        calls += 1
        return (out_of_memory if calls == 1 else original)(*arguments, **fields)

    return call


@pytest.mark.parametrize("rounds", [None, 2])
def test_building_names_what_fits(monkeypatch: pytest.MonkeyPatch, rounds: int | None) -> None:
    needed = BatchedPaging(small_table(0), OPTIONS, 4).row_memory.needed
    free_is(monkeypatch, int(100.5 * needed))
    monkeypatch.setattr(EpisodeBatch, "__init__", failing_once(EpisodeBatch.__init__))
    number, _ = refused(
        lambda: BatchedPagingEnv(small_table(0), OPTIONS, num_envs=1000, rounds=rounds)
    )
    assert number == 100


def test_a_first_observation_names_what_fits(monkeypatch: pytest.MonkeyPatch) -> None:
    held, needed = BatchedPaging(small_table(0), OPTIONS, 4).row_memory
    free_is(monkeypatch, int(100.5 * needed))
    monkeypatch.setattr("envs.batched_episodes.observe", failing_once(observe))
    number, _ = refused(lambda: BatchedPaging(small_table(0), OPTIONS, 1000))
    assert number == int(100.5 + 1000 * held / needed)


def test_a_table_that_does_not_fit(monkeypatch: pytest.MonkeyPatch) -> None:
    free_is(monkeypatch, 5 * MIB)
    monkeypatch.setattr(Tensor, "to", out_of_memory)
    with pytest.raises(DeviceMemoryError) as caught:
        on_device(np.zeros(20 * MIB, dtype=np.int8), torch.device("meta"))
    message = str(caught.value)
    assert "20 MiB" in message
    assert "5 MiB are free" in message
    assert "shard_bytes" in message


# ---------------------------------------------------------------------- playing


@pytest.mark.parametrize("rounds", [None, 2])
@pytest.mark.parametrize("call", ["reset", "step", "observe"])
def test_playing_names_what_fits(
    monkeypatch: pytest.MonkeyPatch, rounds: int | None, call: str
) -> None:
    env = BatchedPagingEnv(small_table(0), OPTIONS, num_envs=50, rounds=rounds)
    env.reset(seed=0)
    held, needed = env._rows.row_memory
    free_is(monkeypatch, int(2.5 * needed))
    failing = {"reset": "settle", "step": "play", "observe": "paging_state"}
    where = EpisodeBatch if call == "observe" else BatchedProcess
    monkeypatch.setattr(where, failing[call], failing_once(getattr(where, failing[call])))
    number, message = refused(
        env.reset if call == "reset" else lambda: env.step(np.zeros(50, dtype=np.int64))
    )
    # What the rows hold would be free for fewer of them.
    assert number == int(2.5 + 50 * held / needed)
    assert "for 50 environments" in message


class FailingLogits:
    """Logits of a policy without preferences, until memory runs out."""

    def __init__(self, calls: int) -> None:
        self.calls = calls

    def __call__(self, inputs: Mapping[str, Tensor]) -> Tensor:
        self.calls -= 1
        if self.calls < 0:
            out_of_memory()
        slots, candidates = inputs["slots"], inputs["candidates"]
        width = 2 + 3 * slots.shape[1] + candidates.shape[1]
        return torch.zeros(len(slots), width)


@pytest.mark.parametrize("calls", [0, 12])
def test_a_rollout_counts_what_it_keeps(monkeypatch: pytest.MonkeyPatch, calls: int) -> None:
    group = BatchedPaging(small_table(0), OPTIONS, 40)
    held, needed = group.row_memory
    free_is(monkeypatch, int(3 * needed))
    number, _ = refused(
        lambda: roll_out(
            group,
            FailingLogits(calls),
            [episode % 8 for episode in range(40)],
            0,
            victim_alone=False,
            device=CPU,
        )
    )
    alone = int(3 + 40 * held / needed)
    if calls == 0:
        assert number == alone
    else:
        assert 0 < number < alone


@pytest.mark.parametrize("where", ["allocate", "play"])
def test_rollouts_of_fixed_shape_count_their_buffers(
    monkeypatch: pytest.MonkeyPatch, where: str
) -> None:
    rows = FixedShapePaging(small_table(0), OPTIONS, 40, CPU, rounds=2, draws=None)
    static = StaticRollouts(rows, FailingLogits(2), victim_alone=False, tier="eager")
    held, needed = rows.row_memory
    buffers = [static._reward, static._clock, static._chose]
    buffers += [values for kept in static._kept.values() for values in kept.columns.values()]
    own = sum(values.nbytes for values in buffers) / 40
    free_is(monkeypatch, int(5.5 * needed))
    if where == "play":
        number, _ = refused(lambda: static.play([0] * 40, 0))
        assert number == 20, "most of the memory is its own, and yet it has not fitted"
        # One decision of each kind more than is counted, for those that do not fit.
        assert static._all_of_it() == pytest.approx((held + own, needed + own), rel=0.01)
        return
    monkeypatch.setattr(_Kept, "__init__", out_of_memory)
    number, _ = refused(
        lambda: StaticRollouts(rows, FailingLogits(9), victim_alone=False, tier="eager")
    )
    assert number == pytest.approx((5.5 * needed + 40 * held) / (needed + own), abs=1)


def test_collecting_states_names_what_fits(monkeypatch: pytest.MonkeyPatch) -> None:
    group = BatchedPaging(small_table(0), OPTIONS, 6)
    learner = GainRegression(
        group,
        NetworkConfig(hidden=8),
        LearnerConfig(episodes_per_round=6),
        Streams(0),
        thresholds=(0.0,),
        device=CPU,
    )
    monkeypatch.setattr("memrl.algos.gain_regression.gain_labels", out_of_memory)
    _, message = refused(learner.begin_round)
    assert "6 environments" in message


def test_learning_from_a_rollout_names_what_fits(monkeypatch: pytest.MonkeyPatch) -> None:
    learner = GroupPolicyGradient(
        BatchedPaging(small_table(0), OPTIONS, 6),
        NetworkConfig(hidden=8, slot_pool=False),
        PolicyGradientConfig(num_groups=3, group_size=2, num_minibatches=2),
        Streams(0),
        gain_scale=0.1,
        initial=None,
        device=CPU,
    )
    monkeypatch.setattr("memrl.algos.policy_gradient.clipped_loss", out_of_memory)
    number, message = refused(learner.iterate)
    assert "6 environments" in message
    assert number <= 3


# ---------------------------------------------------------------------- what is counted


def test_a_row_holds_what_its_tensors_take() -> None:
    group = BatchedPaging(small_table(0), OPTIONS, 7)
    kept = [*group.save(range(7)).tensors.values(), *group.observation().values()]
    assert group.row_memory.held * 7 == sum(tensor.nbytes for tensor in kept)
    assert group.row_memory.held == BatchedPaging(small_table(0), OPTIONS, 1).row_memory.held
    reference = LockstepPaging(small_table(0), OPTIONS, 3).row_memory
    assert 0.3 < reference.held / group.row_memory.held < 1.5


@pytest.mark.parametrize("rounds", [None, 2])
def test_a_step_needs_no_more_than_is_counted(tmp_path: Path, rounds: int | None) -> None:
    """By torch's own record of every allocation."""
    table = small_table(0, num_pages=40, num_episodes=4, num_queries=10)
    options = PagingOptions(capacity=12, num_candidates=8)
    env = BatchedPagingEnv(table, options, num_envs=128, rounds=rounds)
    needed = []
    generator = torch.Generator().manual_seed(3)
    for number in range(6):
        with profile(activities=[ProfilerActivity.CPU], profile_memory=True) as record:
            if number == 0:
                env.reset(seed=0)
            else:
                legal = env.action_masks().float()
                env.step(torch.multinomial(legal, 1, generator=generator)[:, 0])
        record.export_chrome_trace(str(tmp_path / "trace.json"))
        events = json.loads((tmp_path / "trace.json").read_text())["traceEvents"]
        memory = [event for event in events if event.get("name") == "[memory]"]
        memory.sort(key=lambda event: float(event["ts"]))
        total = [event["args"]["Total Allocated"] for event in memory]
        needed.append(max(total) - total[0] + memory[0]["args"]["Bytes"])
    held, most = env._rows.row_memory
    assert most == (1 + WORKSPACE) * held
    assert 0.5 * held < max(needed) / 128 < most - held
