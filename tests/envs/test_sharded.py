"""A group that plays a table shard by shard is like one that has all of it."""

from __future__ import annotations

import threading
import weakref
from collections.abc import Callable, Iterator, Sequence
from dataclasses import replace
from typing import Any, cast

import numpy as np
import pytest
import torch
from request_tables import cache_options, request_table
from table_fixtures import shared_table, small_table

from envs.batched import BatchedPaging
from envs.batched_events import EventTensors
from envs.batched_fixed import FixedShapePaging
from envs.lockstep import LockstepPaging
from envs.part_tensors import PartTensors, automatic_bytes, bytes_of_parts, playing_bytes
from envs.sharded import ShardedFixedShape, ShardedPaging, shards_for, tiered_group, training_group
from envs.table_window import _Loader
from memrl.algos.episode_draws import by_shard
from memrl.algos.labels import gain_labels
from memrl.algos.rollout import roll_out
from memrl.algos.static_rollout import StaticRollouts
from memrl.device_memory import DeviceMemoryError
from memrl.distributed import Ranks
from memrl.evaluation.play import play
from memrl.options import PagingOptions
from memrl.policies.belady import FarthestFirst, least_faults
from memrl.policies.clairvoyant import Clairvoyant
from memrl.policies.heuristics import CacheEviction, StoreAndRetrieve
from memrl.policies.network import SetNetwork
from memrl.policy_gradient_config import Tier
from memrl.state import TableTensors
from memrl.table import EpisodeTable
from memrl.table_part import part_sizes, table_part
from memrl.table_shards import TableShards, split_table

CPU = torch.device("cpu")
OPTIONS = PagingOptions(
    capacity=3, num_slots=4, num_candidates=2, archival_capacity=4, operation_budget=4
)
NUM_EPISODES = 14


def table(seed: int = 0) -> EpisodeTable:
    return small_table(
        seed,
        num_documents=6,
        num_pages=8,
        num_episodes=NUM_EPISODES,
        num_queries=4,
        longest_route=2,
    )


def shards(seed: int = 0) -> TableShards:
    made = split_table(table(seed), playing_bytes(table(seed)) // 2, bytes_of_parts(table(seed)))
    assert len(made) >= 3
    return made


# ---------------------------------------------------------------------- bytes


def cache_table() -> EpisodeTable:
    """Eight strings of requests of several lengths."""
    rng = np.random.default_rng(0)
    return request_table([rng.integers(0, 4 + n, 12 + 2 * n).tolist() for n in range(8)])


@pytest.mark.parametrize("num_queries", [0, 1, 5, None])
@pytest.mark.parametrize("unit", ["pages", "tokens"])
def test_shapes_and_bytes_are_those_of_the_tensors(num_queries: int | None, unit: Any) -> None:
    whole = cache_table()
    if num_queries is not None:
        whole = small_table(3, num_documents=4, num_queries=num_queries, longest_route=2)
    options = PagingOptions(capacity=9, unit=unit, num_slots=3)
    for part in (whole, table_part(whole, np.array([0])), table_part(whole, np.array([1, 4, 5]))):
        made = PartTensors.of(part, options, CPU).tensors()
        room = PartTensors.room(whole, part_sizes(part), CPU).tensors()
        assert made.keys() == room.keys()
        for name, tensor in made.items():
            assert (tensor.shape, tensor.dtype) == (room[name].shape, room[name].dtype), name
        num_bytes = sum(tensor.nbytes for tensor in made.values())
        assert bytes_of_parts(whole)(part_sizes(part)) == num_bytes
    assert playing_bytes(whole) == bytes_of_parts(whole)(part_sizes(whole))
    most = EventTensors.from_table(whole, options, CPU).max_queries
    assert PartTensors.room(whole, part_sizes(part), CPU).events.max_queries == most


def test_a_part_fills_what_it_needs_of_the_room() -> None:
    """Nothing of what was there before is read."""
    whole = table()
    room = PartTensors.room(whole, part_sizes(whole), CPU)
    for tensor in room.tensors().values():
        tensor.fill_(99)
    part = PartTensors.of(table_part(whole, np.array([1, 4])), OPTIONS, CPU)
    room.fill(part)
    for name, values in part.tensors().items():
        filled = room.tensors()[name][tuple(slice(length) for length in values.shape)]
        assert torch.equal(filled, values), name
    asked = part.timetable.clock.shape[1]
    assert not room.timetable.clock[:2, asked:].any()
    assert (room.timetable.needs[:2, asked:] == -1).all()
    assert (room.timetable.route[:2, asked:] == -1).all()


@pytest.mark.parametrize(
    ("table_bytes", "free_bytes", "expected"),
    [
        (500, 1000, 500),
        (501, 1000, 128),  # a quarter, rounded down to a power of 2
        (501, 1001, 128),
        (10**12, 140 * 2**30, 32 * 2**30),
        (10**12, 128 * 2**30, 32 * 2**30),
        (10, 0, 1),
    ],
)
def test_memory_decides_how_large_a_shard_is(
    table_bytes: int, free_bytes: int, expected: int
) -> None:
    assert automatic_bytes(table_bytes, free_bytes) == expected


def test_what_fits_is_played_as_ever() -> None:
    for most in (None, playing_bytes(table()), 10**12):
        group = training_group(table(), OPTIONS, 3, shard_bytes=most)
        assert type(group) is BatchedPaging
        assert group.table is table()
    sharded = training_group(table(), OPTIONS, 3, shard_bytes=playing_bytes(table()) - 1)
    assert isinstance(sharded, ShardedPaging)
    assert len(sharded.shards) == 2
    assert sharded.table.content_hash() == table().content_hash()
    with pytest.raises(DeviceMemoryError, match="set shard_bytes to"):
        training_group(table(), OPTIONS, 3, shard_bytes=10)


def test_the_reference_plays_from_all_of_the_table() -> None:
    options = replace(OPTIONS, store_scope="any")
    assert type(training_group(table(), options, 3, shard_bytes=10)) is LockstepPaging
    group = training_group(table(), OPTIONS, 3, environment="reference", shard_bytes=10)
    assert type(group) is LockstepPaging


def test_a_tier_is_played_in_fixed_shapes_where_it_can_be() -> None:
    half = playing_bytes(table()) // 2
    for tier, options, environment, most, kind, played in (
        ("eager", OPTIONS, "batched", None, BatchedPaging, "eager"),
        ("eager", OPTIONS, "batched", half, ShardedPaging, "eager"),
        ("compile", OPTIONS, "batched", None, FixedShapePaging, "compile"),
        ("compile", OPTIONS, "batched", half, ShardedFixedShape, "compile"),
        ("compile", OPTIONS, "reference", half, LockstepPaging, "eager"),
        ("compile", replace(OPTIONS, store_scope="any"), "batched", half, LockstepPaging, "eager"),
    ):
        group, tier_played = tiered_group(
            table(),
            options,
            3,
            cast("Tier", tier),
            environment=cast("Any", environment),
            shard_bytes=most,
        )
        assert type(group) is kind
        assert tier_played == played


def test_the_device_with_the_least_memory_decides_for_all_ranks(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    """As on two devices, of which this one has room for the whole table."""
    whole = playing_bytes(table())
    monkeypatch.setattr("envs.sharded.free_memory_bytes", lambda _: 4 * whole)
    monkeypatch.setattr("envs.sharded.bytes_there", lambda *_: 0)
    asked: list[int] = []

    class Two(Ranks):
        def gather(self, values: torch.Tensor) -> list[torch.Tensor]:
            asked.append(int(values))
            return [values, torch.tensor([whole // 2])]

    assert shards_for(table(), None, "cuda") is None
    shards = shards_for(table(), None, "cuda", Two())
    assert asked == [whole]
    assert shards is not None
    assert shards.most_bytes == whole // 2


# ---------------------------------------------------------------------- playing


def same(first: Any, second: Any) -> bool:
    return first.keys() == second.keys() and all(
        torch.equal(value, second[name]) for name, value in first.items()
    )


def parts_of(group: Any, episodes: Sequence[int]) -> Iterator[list[int]]:
    """The episodes of one shard after the other."""
    for places in by_shard(group, episodes):
        yield [episodes[place] for place in places]


def labels_of(group: Any) -> torch.Tensor:
    return gain_labels(
        group.privileged_state(),
        TableTensors.from_table(group.table, group.device),
        group.options,
        realization=0.4,
        staging_realization=0.2,
        room_price=1.0,
    )


@pytest.mark.parametrize("make", [table, shared_table])
@pytest.mark.parametrize(("prefetch", "compact"), [(False, False), (True, True)])
def test_every_episode_is_played_as_from_the_whole_table(
    prefetch: bool, compact: bool, make: Callable[[], EpisodeTable]
) -> None:
    whole = BatchedPaging(make(), OPTIONS, 3, compact=compact)
    divided = ShardedPaging(
        split_table(make(), playing_bytes(make()) // 2, bytes_of_parts(make())),
        OPTIONS,
        3,
        prefetch=prefetch,
        compact=compact,
    )
    assert len(divided.shards) >= 3
    rng = np.random.default_rng(0)
    order = rng.permutation(NUM_EPISODES).tolist()
    for part in parts_of(divided, order):
        for episodes in (part[start : start + 3] for start in range(0, len(part), 3)):
            rows = range(len(episodes))
            seen = [whole.reset(episodes, rows), divided.reset(episodes, rows)]
            running = np.arange(3) < len(episodes)
            while running.any():
                for name, value in seen[0].items():
                    assert torch.equal(value[running], seen[1][name][running]), name
                labels = [labels_of(whole), labels_of(divided)]
                legal = seen[0]["action_mask"] & torch.from_numpy(running)[:, None]
                assert torch.equal(labels[0][legal], labels[1][legal])
                action = torch.multinomial(
                    seen[0]["action_mask"].float(), 1, generator=_generator(rng)
                )[:, 0]
                one, two = whole.step(action), divided.step(action)
                for name in ("reward_terms", "terminated", "illegal", "elapsed_events"):
                    before, after = getattr(one, name), getattr(two, name)
                    assert np.array_equal(before[running], after[running]), name
                seen = [one.observation, two.observation]
                for row in np.flatnonzero(running & one.terminated).tolist():
                    assert whole.log(row) == divided.log(row)
                running &= ~one.terminated


def test_page_caches_are_played_in_shards_too() -> None:
    whole, options = cache_table(), cache_options(3)
    parts = split_table(whole, playing_bytes(whole) // 2, bytes_of_parts(whole))
    assert len(parts) >= 3
    at_once, in_shards = BatchedPaging(whole, options, 4), ShardedPaging(parts, options, 4)
    episodes = range(whole.num_episodes)
    for policy in (CacheEviction("recency"), FarthestFirst()):
        one = play(at_once, policy, episodes)
        parted = [
            record
            for places in by_shard(in_shards, episodes)
            for record in play(in_shards, policy, list(places))
        ]
        assert one == sorted(parted, key=lambda record: record.episode)
        assert sum(record.hits for record in one) > 0
        faults = sum(record.requests - record.hits for record in one)
        strings = [
            whole.event_index[episode, : whole.episode_num_events[episode]].tolist()
            for episode in episodes
        ]
        least = sum(least_faults(string, 3) for string in strings)
        assert faults == least if policy.is_privileged else faults > least


def test_steps_of_fixed_shape_play_in_shards_too() -> None:
    """In place: a captured graph would go on reading the right memory."""
    whole = FixedShapePaging(table(), OPTIONS, 3, CPU, rounds=2, draws=None)
    divided = ShardedFixedShape(shards(), OPTIONS, 3, rounds=2)
    addresses = {
        name: tensor.data_ptr()
        for name, tensor in {
            **divided._window._room.tensors(),
            **{str(place): tensor for place, tensor in enumerate(divided.state())},
        }.items()
    }
    generator = torch.Generator().manual_seed(0)
    for part in parts_of(divided, range(NUM_EPISODES)):
        episodes = torch.tensor(part * 3)[:3]
        whole.begin(episodes)
        divided.begin(episodes)
        for _ in range(25):
            seen = whole.observation(), divided.observation()
            assert same(*seen)
            action = torch.multinomial(seen[0]["action_mask"].float(), 1, generator=generator)
            steps = whole.advance(action[:, 0]), divided.advance(action[:, 0])
            assert all(map(torch.equal, *steps))
    for name, tensor in divided._window._room.tensors().items():
        assert tensor.data_ptr() == addresses[name]
    for place, tensor in enumerate(divided.state()):
        assert tensor.data_ptr() == addresses[str(place)]


def test_rollouts_are_the_same_from_shards_in_both_tiers() -> None:
    network = SetNetwork(8, slot_pool=False).eval()
    plain = ShardedPaging(shards(), OPTIONS, 4)
    fixed = ShardedFixedShape(shards(), OPTIONS, 4, rounds=2)
    static = StaticRollouts(fixed, network, victim_alone=True, tier="eager")
    for seed, part in enumerate(parts_of(plain, range(NUM_EPISODES))):
        episodes = (part * 4)[:4]
        whole = BatchedPaging(table(), OPTIONS, 4)
        rollouts = [
            *(
                roll_out(group, network, episodes, seed, victim_alone=True, device=CPU)
                for group in (whole, plain)
            ),
            static.play(episodes, seed),
        ]
        paid = [rollout.reward_terms.sum(axis=0) for rollout in rollouts]
        assert np.array_equal(paid[0], paid[1])
        assert np.allclose(paid[0], paid[2])
        for kind, decisions in rollouts[0].decisions.items():
            for other in rollouts[1:]:
                assert len(other.decisions[kind]) == len(decisions)
                if len(decisions):
                    actions = other.decisions[kind].column("action")
                    assert torch.equal(actions, decisions.column("action"))


def _generator(rng: np.random.Generator) -> torch.Generator:
    return torch.Generator().manual_seed(int(rng.integers(2**31)))


def test_records_carry_the_numbers_of_the_whole_table() -> None:
    whole, divided = BatchedPaging(table(), OPTIONS, 4), ShardedPaging(shards(), OPTIONS, 4)
    for policy in (StoreAndRetrieve(top_k=2), Clairvoyant(OPTIONS.reward)):
        expected = play(whole, policy, range(NUM_EPISODES))
        parts = parts_of(divided, range(NUM_EPISODES))
        played = [record for part in parts for record in play(divided, policy, part)]
        assert sorted(played, key=lambda record: record.episode) == expected


def test_misuse_is_refused() -> None:
    group = ShardedPaging(shards(), OPTIONS, 3)
    first, second = (int(numbers[0]) for numbers in group.shards.episodes[:2])
    with pytest.raises(ValueError, match=r"shards \[0, 1\]"):
        group.reset([first, second])
    with pytest.raises(ValueError, match=r"outside 0\.\.13"):
        group.reset([NUM_EPISODES])
    with pytest.raises(ValueError, match="row more than once"):
        group.reset([first, first], [1, 1])


def test_rows_can_be_saved_and_restored_within_a_shard() -> None:
    group = ShardedPaging(shards(), OPTIONS, 3)
    first, second = (int(numbers[0]) for numbers in group.shards.episodes[:2])
    group.reset([first] * 3)
    saved = group.save([0, 1])
    before = group.observation()
    group.step(np.zeros(3, dtype=np.int64))
    again = group.restore(saved, [2, 0])
    assert all(torch.equal(again[name][[2, 0]], before[name][[0, 1]]) for name in before)
    group.reset([second] * 3)
    with pytest.raises(ValueError, match="another shard"):
        group.restore(saved, [0, 1])


def test_rows_that_are_not_named_stand_idle_in_another_shard() -> None:
    group = ShardedPaging(shards(), OPTIONS, 4)
    longest = [int(numbers[-1]) for numbers in group.shards.episodes]
    for shard in (0, 2, 1, 0, 2):
        group.reset([longest[shard]] * 4)
        group.step(np.zeros(4, dtype=np.int64))
        other = (shard + 1) % 3
        group.reset([longest[other]], [2])
        assert group.running.tolist() == [False, False, True, False]
        result = group.step(np.zeros(4, dtype=np.int64))
        assert not result.reward_terms[[0, 1, 3]].any()


def test_fractions_are_resolved_by_the_whole_table() -> None:
    options = PagingOptions(capacity=0.4, num_candidates=2)
    group = ShardedPaging(shards(), options, 2)
    assert group.options == BatchedPaging(table(), options, 2).options


def test_a_batch_that_does_not_fit_is_named_without_the_whole_table(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    made: list[EpisodeTable] = []
    original = EventTensors.from_table

    def noting(whole: EpisodeTable, *given: Any) -> EventTensors:
        made.append(whole)
        return original(whole, *given)

    monkeypatch.setattr(EventTensors, "from_table", noting)
    with pytest.raises(DeviceMemoryError, match="environments"):
        ShardedPaging(shards(), OPTIONS, 10**13)
    assert all(part.num_episodes < NUM_EPISODES for part in made[1:])


# ---------------------------------------------------------------------- what is on the device


class Watched:
    """Weak references to the dense scores of the shards that are made, in order."""

    def __init__(self, monkeypatch: pytest.MonkeyPatch) -> None:
        self.made: list[tuple[int, weakref.ref[Any], str]] = []
        original = _Loader._made

        def watched(loader: Any, shard: int) -> PartTensors:
            made = original(loader, shard)
            dense = weakref.ref(made.table.dense)
            self.made.append((shard, dense, threading.current_thread().name.partition("_")[0]))
            return made

        monkeypatch.setattr(_Loader, "_made", watched)

    def alive(self) -> list[int]:
        return [shard for shard, made, _ in self.made if made() is not None]


def first_of(group: ShardedPaging, shard: int) -> list[int]:
    return [int(group.shards.episodes[shard][0])]


def settled(group: ShardedPaging) -> None:
    """Wait for the thread."""
    if group._window._loader._ahead is not None:
        group._window._loader._ahead[1].exception()


def test_without_prefetching_nothing_is_kept_beside_the_window(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    group, watched = ShardedPaging(shards(), OPTIONS, 2), Watched(monkeypatch)
    for shard in (0, 2, 2, 1):
        group.expect(0)
        group.reset(first_of(group, shard))
        assert watched.alive() == []
    assert [(shard, name) for shard, _, name in watched.made] == [
        (0, "MainThread"),
        (2, "MainThread"),
        (1, "MainThread"),
    ]


def test_the_expected_shard_is_made_beside_the_window(monkeypatch: pytest.MonkeyPatch) -> None:
    group, watched = ShardedPaging(shards(), OPTIONS, 2, prefetch=True), Watched(monkeypatch)
    group.reset(first_of(group, 0))  # nothing is expected yet
    settled(group)
    assert watched.alive() == []
    group.expect(1)
    group.reset(first_of(group, 0))
    settled(group)
    assert watched.alive() == [1]
    group.reset(first_of(group, 1))
    settled(group)
    assert watched.alive() == [], "what is expected is there itself"
    group.expect(2)
    group.reset(first_of(group, 1))
    settled(group)
    assert watched.alive() == [2]
    group.reset(first_of(group, 0))  # not as announced: what was made for nothing goes
    settled(group)
    assert [(shard, name) for shard, _, name in watched.made] == [
        (0, "MainThread"),
        (1, "shard"),
        (2, "shard"),
        (0, "MainThread"),
        (2, "shard"),
    ]
    assert watched.alive() == [2], "what is expected comes anew"


def test_the_tensors_of_a_group_are_the_window() -> None:
    group = ShardedPaging(shards(), OPTIONS, 2)
    room = group._window._room
    assert group._tensors is room.table
    assert TableTensors.from_table(group.table, "cpu") is room.table
    assert TableTensors.from_table(table(), "cpu") is not room.table
    whole = weakref.ref(group.table)
    scores = weakref.ref(room.table.dense)
    del group, room
    assert whole() is None
    assert scores() is None


def failing(original: Callable[..., Any], error: Exception) -> Callable[..., Any]:
    def call(*arguments: Any) -> Any:
        if threading.current_thread() is not threading.main_thread():
            raise error
        return original(*arguments)

    return call


def test_a_shard_that_had_no_room_is_made_when_it_is_played(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    group, watched = ShardedPaging(shards(), OPTIONS, 2, prefetch=True), Watched(monkeypatch)
    original = EventTensors.from_table
    monkeypatch.setattr(EventTensors, "from_table", failing(original, DeviceMemoryError("full")))
    group.expect(1)
    group.reset(first_of(group, 0))
    group.reset(first_of(group, 1))
    assert [(shard, name) for shard, _, name in watched.made] == [
        (0, "MainThread"),
        (1, "MainThread"),
    ]


def test_other_errors_of_the_thread_reach_the_caller(monkeypatch: pytest.MonkeyPatch) -> None:
    group = ShardedPaging(shards(), OPTIONS, 2, prefetch=True)
    original = EventTensors.from_table
    monkeypatch.setattr(EventTensors, "from_table", failing(original, OSError("disk gone")))
    group.expect(1)
    group.reset(first_of(group, 0))
    with pytest.raises(OSError, match="disk gone"):
        group.reset(first_of(group, 1))


@pytest.mark.gpu
@pytest.mark.skipif(not torch.cuda.is_available(), reason="there is no CUDA device")
def test_a_gpu_plays_the_shards_as_a_cpu_does() -> None:
    one = ShardedPaging(shards(), OPTIONS, 2)
    two = ShardedPaging(shards(), OPTIONS, 2, device="cuda")
    for turn in range(30):
        shard = turn % len(one.shards)
        observations = []
        for group in (one, two):
            group.expect((turn + 1) % len(one.shards))
            observations.append(group.reset(first_of(group, shard) * 2))
            observations.append(group.step(np.zeros(2, dtype=np.int64)).observation)
        for before, after in zip(observations[:2], observations[2:], strict=True):
            assert same(before, {name: value.cpu() for name, value in after.items()})
    assert TableTensors.from_table(two.table, "cuda").dense.is_cuda


@pytest.mark.gpu
@pytest.mark.skipif(not torch.cuda.is_available(), reason="there is no CUDA device")
def test_a_gpu_finds_its_own_number_of_shards(monkeypatch: pytest.MonkeyPatch) -> None:
    assert type(training_group(table(), OPTIONS, 2, device="cuda")) is BatchedPaging
    monkeypatch.setattr("envs.sharded.free_memory_bytes", lambda _: playing_bytes(table()))
    assert type(training_group(table(), OPTIONS, 2, device="cuda")) is BatchedPaging, "it is there"
    group = training_group(replace(table()), OPTIONS, 2, device="cuda")
    assert isinstance(group, ShardedPaging)
    assert group.shards.most_bytes == automatic_bytes(10**12, playing_bytes(table()))
