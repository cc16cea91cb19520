"""Named, independent random streams, each indexed by counters.

A generator is a pure function of (seed, stream name, indices). Nothing has to be saved to continue
one: a resumed run asks for the generator of the same (round, step) and draws what an uninterrupted
run would have drawn. Streams are told apart by a hash of their name, so that a new name leaves the
draws of the others as they were.
"""

from __future__ import annotations

import hashlib
from typing import Any

import numpy as np
import torch

STREAMS = ("workload", "policy", "shuffle", "evaluation")


class Streams:
    """The random streams of one seed.

    Args:
        seed: any integer >= 0.

    Raises:
        ValueError: if the seed is negative.
    """

    def __init__(self, seed: int) -> None:
        if seed < 0:
            raise ValueError(f"The seed is {seed}: give an integer of 0 or more.")
        self.seed = seed

    def sequence(self, name: str, *indices: int) -> np.random.SeedSequence:
        """Seed sequence of stream `name` at `indices`, for example at (round, step).

        Args:
            name: one of `STREAMS`.
            indices: counters in [0, 2**32). (3,) and (3, 0) are different places of the stream.

        Raises:
            ValueError: if the name is unknown or an index is out of range.
        """
        if name not in STREAMS:
            raise ValueError(
                f"There is no random stream {name!r}: use one of {', '.join(STREAMS)}."
            )
        for index in indices:
            # SeedSequence splits larger integers into words, where two index tuples could collide.
            if not 0 <= index < 2**32:
                raise ValueError(f"Index {index} of stream {name!r} is outside [0, 2**32).")
        return np.random.SeedSequence(self.seed, spawn_key=(*_name_key(name), *map(int, indices)))

    def integer(self, name: str, *indices: int) -> int:
        """Integer seed in [0, 2**32), for interfaces that take one (`env.reset(seed=...)`)."""
        return int(self.sequence(name, *indices).generate_state(1, np.uint32)[0])

    def generator(self, name: str, *indices: int) -> np.random.Generator:
        """NumPy generator of stream `name` at `indices`; equal arguments draw equal numbers."""
        return np.random.default_rng(self.sequence(name, *indices))

    def torch_generator(
        self, name: str, *indices: int, device: torch.device | str = "cpu"
    ) -> torch.Generator:
        """Torch generator of stream `name` at `indices` on `device`.

        Draws differ between device kinds. On the CPU torch keeps only the low 32 bits of the seed.
        """
        state = self.sequence(name, *indices).generate_state(1, np.uint64)
        return torch.Generator(device=device).manual_seed(int(state[0]))

    def describe(self) -> dict[str, Any]:
        """The seed and each stream's spawn key, for the provenance record."""
        return {"seed": self.seed, "spawn_keys": {name: list(_name_key(name)) for name in STREAMS}}


def _name_key(name: str) -> tuple[int, int]:
    """Two 32-bit words that depend on nothing but the name (`hash` differs between processes)."""
    digest = hashlib.sha256(name.encode()).digest()
    return int.from_bytes(digest[:4], "little"), int.from_bytes(digest[4:8], "little")
