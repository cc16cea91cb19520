from __future__ import annotations

import pytest
import torch

from memrl.draws import random_uniforms, random_words


def splitmix(word: int) -> int:
    """SplitMix64's finaliser on Python's unbounded integers."""
    word = (word ^ (word >> 30)) * 0xBF58476D1CE4E5B9 % 2**64
    word = (word ^ (word >> 27)) * 0x94D049BB133111EB % 2**64
    return word ^ (word >> 31)


@pytest.mark.parametrize("seed", [0, 1, 2**63 - 1])
def test_draws_are_those_of_unsigned_words(seed: int) -> None:
    gamma = 0x9E3779B97F4A7C15
    streams, counts = torch.arange(200), torch.arange(200) * 37
    expected = []
    for stream, count in zip(streams.tolist(), counts.tolist(), strict=True):
        word = splitmix((stream * gamma + seed * gamma + 0xBF58476D1CE4E5B9) % 2**64)
        expected.append(splitmix((word + (count + 1) * gamma) % 2**64) >> 11)
    assert random_words(seed, streams, counts).tolist() == expected
    assert random_uniforms(seed, streams, counts).tolist() == [word / 2**53 for word in expected]


def test_uniforms_fill_the_unit_interval_and_neighbours_are_unrelated() -> None:
    streams = torch.arange(100)[:, None].expand(100, 500).reshape(-1)
    counts = torch.arange(500).repeat(100)
    drawn = random_uniforms(3, streams, counts).view(100, 500)
    assert 0.0 <= float(drawn.min()) < 1e-3
    assert 1 - 1e-3 < float(drawn.max()) < 1.0
    assert float(drawn.mean()) == pytest.approx(0.5, abs=4 * (1 / 12 / drawn.numel()) ** 0.5)
    centred = drawn - 0.5
    for products in (centred[1:] * centred[:-1], centred[:, 1:] * centred[:, :-1]):
        assert abs(float(products.mean())) < 4 / 12 / products.numel() ** 0.5
