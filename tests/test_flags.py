from __future__ import annotations

import torch

from memrl.flags import first_true


def test_the_first_of_several_or_of_none() -> None:
    flags = torch.tensor(
        [[False, True, True], [True, False, True], [False, False, True], [False, False, False]]
    )
    assert first_true(flags).tolist() == [1, 0, 2, 0]
    assert first_true(flags[None]).tolist() == [[1, 0, 2, 0]]
    assert first_true(flags[:0]).shape == (0,)


def test_it_is_what_argmax_finds() -> None:
    flags = torch.rand((500, 25), generator=torch.Generator().manual_seed(0)) < 0.1
    assert torch.equal(first_true(flags), flags.int().argmax(dim=1))
