"""A window on a table: room on a device for one shard at a time, while the next is made ready."""

from __future__ import annotations

import traceback
from collections.abc import Sequence
from concurrent.futures import Future, ThreadPoolExecutor
from contextlib import nullcontext
from dataclasses import replace

import torch

from envs.batched_events import EventTensors
from envs.part_tensors import PartTensors
from memrl.device_memory import DeviceMemoryError
from memrl.on_device import made_once
from memrl.options import PagingOptions
from memrl.privileged import QueryTimetable
from memrl.state import TableTensors
from memrl.table_part import PartSizes, part_sizes
from memrl.table_shards import TableShards


class TableWindow:
    """Where a group finds its table's tensors, when these are a shard's.

    The room stays where it is, so that what was compiled or captured with it stays right; a shard
    is copied into it. While one is played, the next is made ready by a thread of its own: on CUDA
    it goes through pinned memory on a side stream. (A graph that is captured meanwhile needs
    `capture_error_mode="thread_local"`, as `memrl.algos.tiers` has it.)

    Args:
        shards: how the table is divided. options: resolved options of the group.
        device: where the room is.
        prefetch: whether to make the next shard ready while one is played; None for on CUDA only.

    Attributes:
        shards: see above.
        table: the whole, as an object of its own: who asks for its tensors on the device, gets
            those of the shard in the window, in which documents and episodes have other numbers.
        present: the shard in the window; None before the first.
        expected: the shard that is to be made ready, None for none.
    """

    def __init__(
        self,
        shards: TableShards,
        options: PagingOptions,
        device: torch.device,
        prefetch: bool | None = None,
    ) -> None:
        self.shards = shards
        self.table = replace(shards.table)
        self.present: int | None = None
        self.expected: int | None = None
        self._prefetches = device.type == "cuda" if prefetch is None else prefetch
        self._loader = _Loader(shards, options, device)
        every = [part_sizes(shards.part(shard)) for shard in range(len(shards))]
        largest = PartSizes(*(max(sizes) for sizes in zip(*every, strict=True)))
        self._room = room = PartTensors.room(shards.table, largest, device)
        made_once(self.table, device, TableTensors.__name__, lambda _: room.table)
        made_once(self.table, device, QueryTimetable.__name__, lambda _: room.timetable)
        made_once(self.table, device, EventTensors.key(options), lambda _: room.events)

    def bring_in(self, episodes: Sequence[int]) -> bool:
        """Fill the window with the shard of the given episodes; whether it was another one.

        Raises:
            ValueError: if they are of several shards.
        """
        for episode in episodes:
            self.table.check_episode(episode)
        shards = sorted(set(self.shards.shard_of[list(episodes)].tolist()))
        if len(shards) != 1:
            raise ValueError(
                f"The episodes are of the shards {shards}, and rows play in one at a time: divide "
                "them with memrl.algos.episode_draws.by_shard."
            )
        shard = int(shards[0])
        is_other = shard != self.present
        if is_other:
            self.present = None
            self._room.fill(self._loader.take(shard))
            self.present = shard
        if self._prefetches and self.expected not in (None, shard):
            self._loader.begin(self.expected)
        return is_other

    def places(self, episodes: Sequence[int]) -> list[int]:
        """Numbers of episodes in their shard."""
        places: list[int] = self.shards.place_of[list(episodes)].tolist()
        return places


class _Loader:
    """Makes tensors of shards, those of one shard ahead of time."""

    def __init__(self, shards: TableShards, options: PagingOptions, device: torch.device) -> None:
        self._shards = shards
        self._options = options
        self._device = device
        self._stream: torch.cuda.Stream | None = None
        if device.type == "cuda":
            self._stream = torch.cuda.Stream(device)  # type: ignore[no-untyped-call]
        self._threads = ThreadPoolExecutor(max_workers=1, thread_name_prefix="shard")
        self._ahead: tuple[int, Future[PartTensors]] | None = None

    def begin(self, shard: int) -> None:
        """Make a shard ready in the background, unless that is being done."""
        if self._ahead is None or self._ahead[0] != shard:
            self._forget()
            self._ahead = shard, self._threads.submit(self._made_aside, shard)

    def take(self, shard: int) -> PartTensors:
        """The shard's tensors on the device."""
        if self._ahead is None or self._ahead[0] != shard:
            self._forget()
            return self._made(shard)
        future = self._ahead[1]
        self._ahead = None
        try:
            made = future.result()
        except DeviceMemoryError as error:  # there may be more room now than when it was played
            traceback.clear_frames(error.__traceback__)
            return self._made(shard)
        if self._stream is not None:
            for tensor in made.tensors().values():  # not to be given away while it is read here
                tensor.record_stream(torch.cuda.current_stream(self._device))
        return made

    def _forget(self) -> None:
        """Let go of what was made ready and is not wanted."""
        if self._ahead is not None:
            self._ahead[1].exception()  # waits: two at a time would not fit
            self._ahead = None

    def _made_aside(self, shard: int) -> PartTensors:
        with torch.cuda.stream(self._stream) if self._stream else nullcontext():
            made = self._made(shard)
        if self._stream is not None:
            self._stream.synchronize()
        return made

    def _made(self, shard: int) -> PartTensors:
        return PartTensors.of(self._shards.part(shard), self._options, self._device)
