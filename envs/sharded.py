"""Episodes of a table that is larger than the device's memory: played shard by shard."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Literal

import torch
from torch import Tensor

from envs.batched_episodes import EpisodeRows, SavedRows, is_batchable
from envs.batched_fixed import FixedShapePaging
from envs.batched_paging import BatchedPaging, paging_group
from envs.lockstep import LockstepPaging, Observation
from envs.part_tensors import automatic_bytes, bytes_of_parts, playing_bytes
from envs.process import options_for
from envs.table_window import TableWindow
from memrl.device_memory import RowMemory, free_memory_bytes
from memrl.distributed import ALONE, Ranks
from memrl.on_device import bytes_there
from memrl.options import PagingOptions
from memrl.policy_gradient_config import Tier
from memrl.table import EpisodeTable
from memrl.table_shards import TableShards, split_table


def training_group(
    table: EpisodeTable,
    options: PagingOptions,
    num_envs: int,
    *,
    environment: Literal["batched", "reference"] = "batched",
    device: torch.device | str = "cpu",
    shard_bytes: int | None = None,
    ranks: Ranks = ALONE,
) -> BatchedPaging | LockstepPaging:
    """Episodes side by side: of the whole table where that fits, else of one shard at a time.

    Args:
        table: the workload. options, num_envs, environment, device: as in `paging_group`.
        shard_bytes: most bytes of a shard on the device; None for what `automatic_bytes` finds on
            CUDA, and for the whole table on the CPU. The reference always plays from all of it.
        ranks: who makes such a group at the same time, and is to have the same shards.

    Raises:
        DeviceMemoryError: if an episode and its document alone take more than a shard may.
    """
    if environment == "batched" and is_batchable(options):
        shards = shards_for(table, shard_bytes, device, ranks)
        if shards is not None:
            return ShardedPaging(shards, options, num_envs, device)
    return paging_group(table, options, num_envs, environment=environment, device=device)


def tiered_group(
    table: EpisodeTable,
    options: PagingOptions,
    num_envs: int,
    tier: Tier,
    *,
    environment: Literal["batched", "reference"] = "batched",
    device: torch.device | str = "cpu",
    shard_bytes: int | None = None,
    ranks: Ranks = ALONE,
) -> tuple[BatchedPaging | LockstepPaging | FixedShapePaging, Tier]:
    """The same for a resolved tier: in fixed shapes, unless it is eager or the reference plays.

    Returns:
        The group, and the tier in which it can be played.
    """
    if tier == "eager" or environment == "reference" or not is_batchable(options):
        group = training_group(
            table,
            options,
            num_envs,
            environment=environment,
            device=device,
            shard_bytes=shard_bytes,
            ranks=ranks,
        )
        return group, "eager"
    shards = shards_for(table, shard_bytes, device, ranks)
    if shards is None:
        return FixedShapePaging(table, options, num_envs, device), tier
    return ShardedFixedShape(shards, options, num_envs, device), tier


def shards_for(
    table: EpisodeTable,
    shard_bytes: int | None,
    device: torch.device | str,
    ranks: Ranks = ALONE,
) -> TableShards | None:
    """How a table is to be played on a device: None for at once; see `training_group`."""
    device = torch.device(device)
    if shard_bytes is None:
        if device.type != "cuda":
            return None
        free = free_memory_bytes(device) + bytes_there(table, device)
        # Of several devices the one with the least memory decides.
        own = automatic_bytes(playing_bytes(table), free)
        shard_bytes = int(min(ranks.gather(torch.tensor([own]))))
    shards = split_table(table, shard_bytes, bytes_of_parts(table))
    return None if shards.is_whole else shards


class InShards(EpisodeRows):
    """What groups have besides that play a shard at a time.

    To begin episodes of another shard brings that one in; all must be of one shard. `table` is the
    whole, in which episodes have their numbers; `privileged_state` shows documents and episodes by
    those in the shard, which are also those of `TableTensors.from_table(group.table,
    group.device)`.
    """

    _window: TableWindow
    _shard: Tensor | None = None  # (B,) int64, the shard of each row

    @property
    def shards(self) -> TableShards:
        """How the table is divided."""
        return self._window.shards

    def expect(self, shard: int) -> None:
        """Say which shard comes after the one that is begun next."""
        self._window.expected = shard

    def _nowhere(self, num_envs: int) -> Tensor:
        with self.naming_what_fits():
            return torch.full((num_envs,), -1, device=self.device)

    def _bring_in(self, episodes: Sequence[int]) -> bool:
        is_other = self._window.bring_in(episodes)
        if self._shard is not None and self._window.present is not None:
            self._shard.fill_(self._window.present)
        return is_other

    def restore(self, saved: SavedRows, rows: Sequence[int] | Tensor) -> Observation:
        """See `EpisodeRows.restore`.

        Raises:
            ValueError: also if the rows were saved in another shard.
        """
        there = saved.tensors.get("shard")
        if there is None or set(there.tolist()) - {self._window.present}:
            raise ValueError("restore() got rows of another shard of the table.")
        return super().restore(saved, rows)

    def _prospect(self) -> RowMemory:
        part = self.shards.part(0)  # tensors of the whole table are what there is no room for
        one = EpisodeRows(part, self.options, 1, compact=self._compact)
        return one.row_memory._replace(held=0.0)

    def _row_tensors(self) -> dict[str, tuple[Tensor, int]]:
        own = {} if self._shard is None else {"shard": (self._shard, 0)}
        return super()._row_tensors() | own


class ShardedPaging(InShards, BatchedPaging):
    """`BatchedPaging` in one shard at a time; see `InShards`.

    Rows that are not named when another shard is brought in stand idle then.

    Args:
        shards: how the table is divided.
        options: options; fractions are resolved by the whole table unless they are already.
        num_envs, device, compact: see `BatchedPaging`.
        prefetch: see `TableWindow`.
    """

    def __init__(
        self,
        shards: TableShards,
        options: PagingOptions,
        num_envs: int,
        device: torch.device | str = "cpu",
        *,
        prefetch: bool | None = None,
        compact: bool = False,
    ) -> None:
        options, device = options_for(shards.table, options), torch.device(device)
        self._window = TableWindow(shards, options, device, prefetch)
        super().__init__(self._window.table, options, num_envs, device, compact=compact)
        self._shard = self._nowhere(num_envs)

    def begin(self, episodes: Sequence[int], rows: Sequence[int] | None = None) -> None:
        """See `BatchedPaging.begin`.

        Raises:
            ValueError: also if the episodes are of several shards.
        """
        if self._bring_in(episodes) and len(episodes) < self.num_envs:
            super().begin([0] * self.num_envs)  # nobody is to stand in what is gone
            self.running.zero_()
        super().begin(self._window.places(episodes), rows)


class ShardedFixedShape(InShards, FixedShapePaging):
    """`FixedShapePaging` without a next episode, in one shard at a time; see `InShards`.

    Args:
        shards, options, prefetch: see `ShardedPaging`.
        num_envs, device, rounds, compact: see `FixedShapePaging`.
    """

    def __init__(
        self,
        shards: TableShards,
        options: PagingOptions,
        num_envs: int,
        device: torch.device | str = "cpu",
        *,
        rounds: int = 2,
        prefetch: bool | None = None,
        compact: bool = False,
    ) -> None:
        options, device = options_for(shards.table, options), torch.device(device)
        self._window = TableWindow(shards, options, device, prefetch)
        super().__init__(
            self._window.table,
            options,
            num_envs,
            device,
            rounds=rounds,
            draws=None,
            compact=compact,
        )
        self._shard = self._nowhere(num_envs)

    def begin(self, episodes: Tensor) -> None:
        """See `FixedShapePaging.begin`; the only look at the host is here.

        Raises:
            ValueError: if the episodes are of several shards.
        """
        numbers = episodes.tolist()
        self._bring_in(numbers)
        super().begin(torch.tensor(self._window.places(numbers), device=self.device))
