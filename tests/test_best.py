from __future__ import annotations

import math
from pathlib import Path

import torch
from torch import nn

from memrl.best import BestSoFar
from memrl.checkpoint import load_checkpoint, save_checkpoint


def module(value: float) -> nn.Linear:
    made = nn.Linear(2, 1)
    set_to(made, value)
    return made


def weights(made: nn.Linear) -> set[float]:
    return set(made.weight.flatten().tolist())


def set_to(made: nn.Linear, value: float) -> None:
    """As training does: in place."""
    with torch.no_grad():
        made.weight.fill_(value)
        made.bias.fill_(-value)


def test_before_the_first_offer_the_weights_are_the_initial_ones() -> None:
    net = module(1.0)
    best = BestSoFar(net)
    assert (best.score, best.round) == (-math.inf, -1)
    set_to(net, 2.0)
    best.load_into_module()
    assert weights(net) == {1.0}


def test_the_weights_with_the_highest_score_are_kept() -> None:
    net = module(0.0)
    best = BestSoFar(net)
    for number, score in enumerate([0.2, 0.5, 0.1, 0.4]):
        set_to(net, float(number))
        best.offer(score, number)
    assert (best.score, best.round) == (0.5, 1)
    best.load_into_module()
    assert weights(net) == {1.0}
    assert net.bias.tolist() == [-1.0]
    set_to(net, 9.0)  # what is kept is not what is trained on
    best.load_into_module()
    assert weights(net) == {1.0}


def test_among_equals_the_earlier_one_is_kept() -> None:
    net = module(1.0)
    best = BestSoFar(net)
    best.offer(0.5, 0)
    set_to(net, 2.0)
    best.offer(0.5, 1)
    assert best.round == 0
    best.load_into_module()
    assert weights(net) == {1.0}


def test_a_negative_score_is_better_than_none() -> None:
    net = module(1.0)
    best = BestSoFar(net)
    set_to(net, 2.0)
    best.offer(-3.0, 0)
    assert (best.score, best.round) == (-3.0, 0)
    best.load_into_module()
    assert weights(net) == {2.0}


def test_a_score_that_is_not_a_number_is_never_the_best() -> None:
    net = module(1.0)
    best = BestSoFar(net)
    best.offer(0.5, 0)
    set_to(net, 2.0)
    best.offer(math.nan, 1)
    assert best.round == 0


def test_it_comes_back_from_a_checkpoint(tmp_path: Path) -> None:
    net = module(1.0)
    best = BestSoFar(net)
    best.offer(1 / 3, 4)
    save_checkpoint(tmp_path, *best.checkpoint())
    other = module(5.0)
    restored = BestSoFar(other)
    restored.restore(*load_checkpoint(tmp_path))
    assert (restored.score, restored.round) == (1 / 3, 4)
    restored.offer(0.3, 5)
    restored.load_into_module()
    assert torch.equal(other.weight, net.weight)
    restored.offer(0.4, 6)
    assert restored.round == 6


def test_a_checkpoint_before_the_first_offer_comes_back_too(tmp_path: Path) -> None:
    save_checkpoint(tmp_path, *BestSoFar(module(1.0)).checkpoint())
    other = module(5.0)
    restored = BestSoFar(other)
    restored.restore(*load_checkpoint(tmp_path))
    assert (restored.score, restored.round) == (-math.inf, -1)
    restored.load_into_module()
    assert weights(other) == {1.0}


def test_what_was_read_is_not_shared() -> None:
    tensors, state = BestSoFar(module(1.0)).checkpoint()
    net = module(5.0)
    best = BestSoFar(net)
    best.restore(tensors, state)
    for tensor in tensors.values():
        tensor.fill_(7.0)
    best.load_into_module()
    assert weights(net) == {1.0}
