from __future__ import annotations

import os
import random
import subprocess
import sys

import numpy as np
import pytest
import torch
from rng_guard import GlobalRandomnessError, global_rng_poisoned

from memrl import seeding
from memrl.seeding import STREAMS, Streams


def draw(streams: Streams, name: str, *indices: int) -> list[int]:
    return [int(n) for n in streams.generator(name, *indices).integers(2**62, size=4)]


def test_equal_arguments_draw_equal_numbers_and_any_other_argument_others() -> None:
    places = [
        (seed, name, indices)
        for seed in (0, 1, 2**70)
        for name in STREAMS
        for indices in ((), (0,), (0, 0), (1,), (0, 1), (1, 0), (2**32 - 1,))
    ]
    drawn = [tuple(draw(Streams(seed), name, *indices)) for seed, name, indices in places]
    again = [tuple(draw(Streams(seed), name, *indices)) for seed, name, indices in places]
    assert drawn == again
    assert len(set(drawn)) == len(places)


def test_a_resumed_run_draws_what_an_uninterrupted_one_draws() -> None:
    first = Streams(5)
    uninterrupted = [draw(first, "shuffle", step) for step in range(6)]
    resumed = Streams(5)
    assert [draw(resumed, "shuffle", step) for step in range(3, 6)] == uninterrupted[3:]


def test_a_new_name_leaves_the_others_as_they_were(monkeypatch: pytest.MonkeyPatch) -> None:
    before = [draw(Streams(3), name) for name in STREAMS]
    monkeypatch.setattr(seeding, "STREAMS", ("added", *reversed(STREAMS)))
    assert [draw(Streams(3), name) for name in STREAMS] == before
    assert draw(Streams(3), "added") not in before


def test_streams_do_not_depend_on_the_process() -> None:
    code = "from memrl.seeding import Streams; print(Streams(7).integer('policy', 1, 2))"
    for hash_seed in ("1", "2"):
        environment = os.environ | {"PYTHONHASHSEED": hash_seed}
        done = subprocess.run(
            [sys.executable, "-c", code],
            capture_output=True,
            text=True,
            check=True,
            env=environment,
        )
        assert int(done.stdout) == Streams(7).integer("policy", 1, 2)


def test_draws_are_those_of_earlier_releases() -> None:
    # Changing these numbers changes every published result of this project.
    streams = Streams(0)
    assert [streams.integer(name) for name in STREAMS] == [
        717010102,
        3144181520,
        1089496339,
        3358975651,
    ]
    assert streams.generator("policy", 3, 1).integers(1000, size=5).tolist() == [
        556,
        786,
        23,
        899,
        897,
    ]


def test_torch_generators_are_reproducible_and_independent() -> None:
    streams = Streams(11)
    first = torch.rand(8, generator=streams.torch_generator("policy", 4))
    same = torch.rand(8, generator=streams.torch_generator("policy", 4))
    other = torch.rand(8, generator=streams.torch_generator("policy", 5))
    assert torch.equal(first, same)
    assert not torch.equal(first, other)


def test_streams_are_uncorrelated() -> None:
    draws = np.stack([Streams(1).generator(name).standard_normal(20_000) for name in STREAMS])
    correlations = np.corrcoef(draws) - np.eye(len(STREAMS))
    assert np.abs(correlations).max() < 0.04  # more than five standard errors


def test_unusable_arguments_are_refused() -> None:
    with pytest.raises(ValueError, match=r"no random stream 'polcy'.*workload, policy"):
        Streams(0).generator("polcy")
    with pytest.raises(ValueError, match="outside"):
        Streams(0).generator("policy", 2**32)
    with pytest.raises(ValueError, match="outside"):
        Streams(0).generator("policy", -1)
    with pytest.raises(ValueError, match="0 or more"):
        Streams(-1)


@pytest.mark.usefixtures("poison_global_rng")
def test_streams_leave_the_global_states_alone() -> None:
    streams = Streams(2)
    streams.generator("workload").normal(size=3)
    torch.rand(3, generator=streams.torch_generator("workload"))


NORMAL = np.random.normal  # taken before the guard replaces it


@pytest.mark.parametrize(
    "use",
    [
        lambda: random.random(),
        lambda: random.shuffle([1, 2]),
        lambda: random.seed(1),
        lambda: np.random.seed(1),  # noqa: NPY002
        lambda: np.random.rand(2),  # noqa: NPY002
        lambda: np.random.choice(3),  # noqa: NPY002
        lambda: np.random.default_rng(),
        lambda: NORMAL(),
        lambda: torch.manual_seed(3),
        lambda: torch.rand(2),
        lambda: torch.randn(2),
        lambda: torch.randint(5, (2,)),
        lambda: torch.randperm(4),
        lambda: torch.multinomial(torch.ones(3), 1),
        lambda: torch.empty(3).uniform_(),
        lambda: torch.nn.functional.dropout(torch.ones(3)),
    ],
)
def test_the_guard_notices_global_randomness(use: object) -> None:
    assert callable(use)
    states = random.getstate(), np.random.get_state(), torch.get_rng_state()  # noqa: NPY002
    try:
        with pytest.raises(GlobalRandomnessError), global_rng_poisoned():
            use()
    finally:
        random.setstate(states[0])
        np.random.set_state(states[1])  # noqa: NPY002
        torch.set_rng_state(states[2])


def test_the_guard_lets_passed_generators_through_and_removes_itself() -> None:
    normal = np.random.normal
    with global_rng_poisoned():
        np.random.default_rng(3).normal()
        random.Random(3).random()
        torch.rand(2, generator=torch.Generator().manual_seed(1))
        assert np.random.normal is not normal
    assert np.random.normal is normal
