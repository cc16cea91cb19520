"""Which episodes an iteration plays, also where the table is on the device shard by shard.

A group that has the whole table is drawn from uniformly, without replacement within an iteration.
One that has a shard at a time is played in passes: every pass goes through all shards in an order
of its own, and stays at each for as many iterations as its episodes fill. A shard's episodes come
in the order of one permutation after the other, so that each has been drawn as often as the others
of its shard, give or take one. What does not fill an iteration waits for the next pass: after v
passes a shard of E episodes has been drawn floor(v E / count) times `count`, which differs from v
passes by less than an iteration.

Every draw is a function of the seed, the attempt and the number of the iteration.
"""

from __future__ import annotations

from collections.abc import Iterator, Mapping, Sequence
from functools import lru_cache
from itertools import zip_longest
from typing import Any, Protocol, runtime_checkable

import numpy as np
import numpy.typing as npt

from memrl.checkpoint import CheckpointError
from memrl.seeding import Streams
from memrl.table import EpisodeTable
from memrl.table_shards import TableShards

Episodes = npt.NDArray[np.int64]


class Group(Protocol):
    """What is asked of a group here."""

    @property
    def table(self) -> EpisodeTable:
        """The workload."""
        ...


@runtime_checkable
class Sharded(Protocol):
    """What a group has besides that plays a table shard by shard."""

    @property
    def shards(self) -> TableShards:
        """How its table is divided; all rows play in one shard at a time."""
        ...

    def expect(self, shard: int) -> None:
        """Say which shard comes next."""
        ...


def draw_episodes(group: Group, count: int, streams: Streams, *place: int) -> Episodes:
    """Draw what an iteration plays.

    Args:
        group: where it is played.
        count: episodes of an iteration, always the same.
        streams: the run's seeds.
        place: of the iteration in the stream "workload"; the last index is its number.

    Returns:
        (count,) numbers in the group's table.
    """
    if not isinstance(group, Sharded) or len(group.shards) == 1:
        rng, num_episodes = streams.generator("workload", *place), group.table.num_episodes
        return rng.choice(num_episodes, size=count, replace=num_episodes < count)
    *learner, iteration = place
    visits = _visits(group.shards.sizes, count, iteration, streams, tuple(learner))
    shard, number = next(visits)
    group.expect(next(other for other, _ in visits if other != shard))
    episodes = group.shards.episodes[shard]
    return episodes[_in_turn(len(episodes), number * count, count, streams, (*learner, 1 + shard))]


def by_shard(group: Group, episodes: Sequence[int]) -> Iterator[list[int]]:
    """Divide episodes into those that can be played at one time.

    Yields:
        Places in `episodes`, in order.
    """
    if not isinstance(group, Sharded):
        yield list(range(len(episodes)))
        return
    shard_of = group.shards.shard_of[list(episodes)]
    present = sorted(set(shard_of.tolist()))
    for shard, after in zip_longest(present, present[1:]):
        if after is not None:
            group.expect(after)
        yield np.flatnonzero(shard_of == shard).tolist()


def shards_record(group: Group) -> dict[str, Any]:
    """How the table is divided, for a checkpoint."""
    if not isinstance(group, Sharded):
        return {"episodes": [group.table.num_episodes]}
    return {"episodes": group.shards.sizes, "most_bytes": group.shards.most_bytes}


def require_same_shards(group: Group, record: Mapping[str, Any] | None) -> None:
    """Refuse to go on with other shards than a checkpoint's, which would be other draws.

    Args:
        group: where learning goes on.
        record: of `shards_record`; None from a time before there were shards.

    Raises:
        CheckpointError: if they differ.
    """
    before = record or {"episodes": [group.table.num_episodes]}
    now = shards_record(group)
    if before["episodes"] == now["episodes"]:
        return
    most_bytes = before.get("most_bytes")
    advice = f"--shard_bytes {most_bytes}" if most_bytes else "a larger --shard_bytes"
    raise CheckpointError(
        f"The run drew its episodes from {len(before['episodes'])} shards of the training table, "
        f"and would now draw them from {len(now['episodes'])} others: resume with {advice}."
    )


def _visits(
    sizes: Sequence[int], count: int, iteration: int, streams: Streams, learner: tuple[int, ...]
) -> Iterator[tuple[int, int]]:
    """From an iteration on, which shard is played and how many iterations it has had before."""
    episodes = np.asarray(sizes, dtype=np.int64)

    def played(passes: int) -> npt.NDArray[np.int64]:
        """Iterations that each shard has had after so many passes."""
        return passes * episodes // count

    passes = iteration * count // int(episodes.sum())  # or more: what was left has been rounded off
    while played(passes + 1).sum() <= iteration:
        passes += 1
    skipped = iteration - int(played(passes).sum())
    while True:
        order = streams.generator("workload", *learner, 0, passes).permutation(len(sizes))
        for shard in order.tolist():
            first, end = int(played(passes)[shard]), int(played(passes + 1)[shard])
            if skipped < end - first:
                yield shard, first + skipped
            skipped = max(skipped - (end - first), 0)
        passes += 1


def _in_turn(
    size: int, start: int, count: int, streams: Streams, place: tuple[int, ...]
) -> Episodes:
    """Entries start..start+count-1 of one permutation of 0..size-1 after the other."""
    first, last = start // size, (start + count - 1) // size
    orders = [_order(size, streams, (*place, number)) for number in range(first, last + 1)]
    return np.concatenate(orders)[start - first * size :][:count]


@lru_cache(maxsize=4)  # iterations in a row ask for the same one
def _order(size: int, streams: Streams, place: tuple[int, ...]) -> Episodes:
    return streams.generator("workload", *place).permutation(size)
