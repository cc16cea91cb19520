"""Which episode comes next: draws that are a function of (seed, row, count) and of nothing else.

Counter-based, so that what a row plays does not depend on how many rows there are, on the device,
or on the order in which rows end.
"""

from __future__ import annotations

import torch
from torch import Tensor

from memrl.draws import random_words


def draw_episodes(seed: int, row: Tensor, count: Tensor, num_episodes: int) -> Tensor:
    """Draw one episode a row, uniformly.

    Args:
        seed: of the stream. row: (b,) int64, number of the row, or of its group.
        count: (b,) int64, episodes that it has begun before.
        num_episodes: E.

    Returns:
        (b,) int64 in 0..E-1.
    """
    # 2^53 values: the bias of the remainder is below E / 2^53.
    return random_words(seed, row, count) % num_episodes


class EpisodeDraws:
    """The streams of episodes of B rows.

    Args:
        num_envs: B. group_size: rows that draw the same. num_episodes: E. device: of the tensors.

    Attributes:
        seed: of the draws. count: (B,) int64, episodes that each row has drawn.
    """

    def __init__(
        self, num_envs: int, group_size: int, num_episodes: int, device: torch.device
    ) -> None:
        self.seed = 0
        self.count = torch.zeros(num_envs, dtype=torch.int64, device=device)
        self._num_episodes = num_episodes
        self._group = torch.arange(num_envs, device=device) // group_size

    def next(self, rows: Tensor) -> Tensor:
        """Draw for the given rows, (B,) bool; (B,) int64, without meaning for the others."""
        drawn = draw_episodes(self.seed, self._group, self.count, self._num_episodes)
        self.count += rows
        return drawn
