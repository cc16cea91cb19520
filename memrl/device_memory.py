"""What a device's memory holds: how much is free, and one error for all that runs out of it."""

from __future__ import annotations

import traceback
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import NamedTuple

import torch

from memrl.errors import MemrlError

WORKSPACE = 2.5
"""Memory that a step of an environment works in, over what its rows are: 1.3 to 2.3 by torch's
profiler on a CPU, for 8 to 64 slots, 4 and 16 candidates, both ways of stepping."""

_MIB = 2**20


class DeviceMemoryError(MemrlError):
    """A device has not enough memory for what is to be on it."""


class RowMemory(NamedTuple):
    """Bytes of one environment.

    Attributes:
        held: what it takes between steps. needed: what it takes at most, `held` included.
    """

    held: float
    needed: float

    @classmethod
    def of_row(cls, row_bytes: float) -> RowMemory:
        """Of an environment whose state and observation take so many bytes."""
        return cls(row_bytes, row_bytes * (1 + WORKSPACE))


def free_memory_bytes(device: torch.device) -> int:
    """Bytes that could still be allocated on a device, those included that torch keeps in reserve.

    On the CPU what Linux calls available; 0 where nothing tells.
    """
    if device.type == "cuda":
        reserve = torch.cuda.memory_reserved(device) - torch.cuda.memory_allocated(device)
        return int(torch.cuda.mem_get_info(device)[0]) + reserve
    try:
        lines = Path("/proc/meminfo").read_text().splitlines()
    except OSError:
        return 0
    sizes = {name: value for name, _, value in (line.partition(":") for line in lines)}
    return 1024 * int(sizes.get("MemAvailable", "0 kB").split()[0])


def environments_error(
    device: torch.device, num_envs: int, row: RowMemory, free_bytes: float
) -> DeviceMemoryError:
    """The error of a batch that does not fit.

    Args:
        device: that ran out. num_envs: of the batch. row: bytes of one of them.
        free_bytes: what is free without the batch.
    """
    # The batch has not fitted, whatever was estimated.
    fit = min(int(free_bytes / max(row.needed, 1)), num_envs // 2)
    return DeviceMemoryError(
        f"{device} has not enough memory for {num_envs:,} environments of "
        f"{row.needed / 1024:,.1f} KiB each: {free_bytes / _MIB:,.0f} MiB are free for them, into "
        f"which about {fit:,} would fit; take so many (num_envs, or policy_gradient.num_groups "
        "times group_size), or smaller shards of the table (shard_bytes)."
    )


@contextmanager
def naming_what_fits(
    device: torch.device, num_envs: int, row: Callable[[], RowMemory]
) -> Iterator[None]:
    """Turn running out of memory within the block into the error that says what would fit.

    Args:
        device: where the batch lives. num_envs: its size.
        row: bytes of one environment; called when memory has run out only.

    Raises:
        DeviceMemoryError: see above.
    """
    try:
        yield
    except (RuntimeError, MemoryError) as error:
        if not is_out_of_memory(error):
            raise
        memory = row()
        # What the failed calls had made so far is free again.
        traceback.clear_frames(error.__traceback__)
        free = free_memory_bytes(device) + num_envs * memory.held
        raise environments_error(device, num_envs, memory, free) from error


@contextmanager
def naming_the_table(device: torch.device, num_bytes: int) -> Iterator[None]:
    """The same for a block that puts so many bytes of a table on a device."""
    try:
        yield
    except (RuntimeError, MemoryError) as error:
        if not is_out_of_memory(error):
            raise
        traceback.clear_frames(error.__traceback__)
        free = free_memory_bytes(device)
        raise DeviceMemoryError(
            f"{device} has not enough memory for a table, of which {num_bytes / _MIB:,.0f} MiB are "
            f"to go there at once and {free / _MIB:,.0f} MiB are free: play it in smaller shards "
            "(shard_bytes), or with fewer environments."
        ) from error


def is_out_of_memory(error: Exception) -> bool:
    """Whether an allocation has failed; on the CPU torch has no error of its own for it."""
    known = isinstance(error, torch.OutOfMemoryError | MemoryError)
    return known or any(words in str(error) for words in ("can't allocate memory", "out of memory"))
