"""A table's tensors on a device: made once, and shared by all that play its episodes there."""

from __future__ import annotations

import threading
from collections.abc import Callable, Hashable
from typing import Any, TypeVar, cast
from weakref import WeakKeyDictionary

import numpy as np
import numpy.typing as npt
import torch
from torch import Tensor

from memrl.device_memory import naming_the_table
from memrl.table import EpisodeTable

_Made = TypeVar("_Made")

_PIECE_BYTES = 64 * 2**20  # of pinned memory, twice

_made: WeakKeyDictionary[EpisodeTable, dict[Hashable, Any]] = WeakKeyDictionary()
_lock = threading.Lock()  # the next shard of a table is made ready by a thread of its own


def made_once(
    table: EpisodeTable,
    device: torch.device | str,
    key: Hashable,
    make: Callable[[torch.device], _Made],
) -> _Made:
    """What `make` gives, made at the first call for a table, device and key.

    It lives as long as the table: whoever made it first may be gone, and what is larger than the
    device is freed with the shard that it belongs to. It is shared, so it must not be changed, and
    it must not hold the table.

    Args:
        table: what it is made from. device: where its tensors live.
        key: tells it from other things made from the same table.
        make: called with the device.
    """
    device = _with_index(torch.device(device))
    with _lock:
        made = _made.setdefault(table, {})
    if (key, device) not in made:
        made[key, device] = make(device)
    return cast("_Made", made[key, device])


def bytes_there(table: EpisodeTable, device: torch.device) -> int:
    """Memory of a device that all tensors take that are kept for a table."""
    kept = (value for made in _made.get(table, {}).values() for value in vars(made).values())
    tensors = (value for value in kept if isinstance(value, Tensor))
    device = _with_index(device)
    return sum(tensor.nbytes for tensor in tensors if tensor.device == device)


def _with_index(device: torch.device) -> torch.device:
    """The device by its full name: "cuda" is the current one."""
    if device == torch.device("cuda"):
        return torch.device("cuda", torch.cuda.current_device())
    return device


def on_device(array: npt.NDArray[Any], device: torch.device) -> Tensor:
    """An array as a tensor: shared on the CPU, copied to any other device.

    To CUDA it goes in pieces through pinned memory on the current stream, so that a table mapped
    from disk is never in the host's memory as a whole.

    Raises:
        DeviceMemoryError: if it does not fit.
    """
    source = torch.from_numpy(np.ascontiguousarray(array))
    with naming_the_table(device, source.nbytes):
        return _in_pieces(source, device) if device.type == "cuda" else source.to(device)


def _in_pieces(source: Tensor, device: torch.device) -> Tensor:
    target = torch.empty(source.shape, dtype=source.dtype, device=device)
    flat, there = source.reshape(-1), target.view(-1)
    length = min(_PIECE_BYTES // source.element_size(), max(len(flat), 1))
    buffers = [torch.empty(length, dtype=source.dtype, pin_memory=True) for _ in range(2)]
    copied = [torch.cuda.Event() for _ in range(2)]  # type: ignore[no-untyped-call]
    for number, start in enumerate(range(0, len(flat), length)):
        piece = flat[start : start + length]
        buffer, event = buffers[number % 2][: len(piece)], copied[number % 2]
        event.synchronize()  # of the piece before the last; at once when there was none
        buffer.copy_(piece)
        there[start : start + length].copy_(buffer, non_blocking=True)
        event.record()
    return target
