"""The vector environment: rows are episodes of `PagingEnv`, one after the other."""

from __future__ import annotations

from typing import Any, cast

import gymnasium
import numpy as np
import pytest
import torch
from gymnasium.vector import AutoresetMode
from request_tables import request_table
from table_fixtures import with_room
from torch._subclasses.fake_tensor import (
    DataDependentOutputException,
    FakeTensor,
    FakeTensorMode,
)

from envs.batched import BatchedPagingEnv
from envs.batched_fixed import FixedShapePaging
from envs.draws import draw_episodes
from envs.lockstep import Observation
from envs.paging import PagingEnv
from envs.workloads.chat import ChatParams, generate_chats
from envs.workloads.episodes import sample_episodes
from memrl.memory.embedders import HashingEmbedder
from memrl.options import PagingOptions
from memrl.table import EpisodeTable
from memrl.table_build import build_table, fit_lexical_statistics

NUM_ENVS = 6
STEPS = 120
OPTIONS = PagingOptions(capacity=4, archival_capacity=6, num_candidates=3, evict_scope="any")


@pytest.fixture(scope="module")
def table() -> EpisodeTable:
    """Ten short episodes."""
    documents = generate_chats(ChatParams(num_documents=2), np.random.default_rng(0)).documents
    episodes = sample_episodes(
        documents,
        window_pages=16,
        max_queries=3,
        ask="interleaved",
        episodes_per_document=5,
        rng=np.random.default_rng(0),
    )
    lexical = fit_lexical_statistics(documents)
    return build_table(documents, episodes, HashingEmbedder(16), lexical, name="made-up")


@pytest.fixture(scope="module", params=["chats", "requests"])
def any_table(request: pytest.FixtureRequest, table: EpisodeTable) -> EpisodeTable:
    """Ten short episodes of messages and queries, or of requests."""
    rng = np.random.default_rng(0)
    strings = [rng.integers(0, 9, 10 + 3 * number).tolist() for number in range(10)]
    return table if request.param == "chats" else request_table(strings)


def make(table: EpisodeTable, **changes: Any) -> BatchedPagingEnv:
    return BatchedPagingEnv(table, with_room(OPTIONS, table), **({"num_envs": NUM_ENVS} | changes))


def random_action(rng: np.random.Generator, mask: torch.Tensor) -> int:
    """Usually legal, now and then anything."""
    if rng.random() < 0.05:
        return int(rng.integers(len(mask)))
    return int(rng.choice(np.flatnonzero(mask.numpy())))


def assert_row(observation: Observation, row: int, expected: dict[str, Any]) -> None:
    for name, value in expected.items():
        np.testing.assert_array_equal(observation[name][row].numpy(), value, err_msg=name)


def test_each_row_is_the_reference_played_episode_after_episode(any_table: EpisodeTable) -> None:
    env = make(any_table)
    references = [PagingEnv(any_table, env.options) for _ in range(NUM_ENVS)]
    begun = [0] * NUM_ENVS

    def begin(row: int) -> dict[str, Any]:
        count = torch.tensor([begun[row]])
        episode = draw_episodes(env._draws.seed, torch.tensor([row]), count, any_table.num_episodes)
        begun[row] += 1
        return references[row].reset(options={"episode": int(episode)})[0]

    observation, infos = env.reset(seed=7)
    for row in range(NUM_ENVS):
        assert_row(observation, row, begin(row))
    rng = np.random.default_rng(0)
    num_ended = 0
    for _ in range(STEPS):
        mask = infos["action_mask"]
        assert torch.equal(mask, observation["action_mask"])
        actions = torch.tensor([random_action(rng, mask[row]) for row in range(NUM_ENVS)])
        observation, rewards, terminated, truncated, infos = env.step(actions)
        assert not truncated.any()
        for row, reference in enumerate(references):
            seen, reward, ends, _, info = reference.step(np.int64(actions[row]))
            assert rewards[row].item() == pytest.approx(reward, abs=1e-12)
            terms = dict(zip(env.reward_names, infos["reward_terms"][row].tolist(), strict=True))
            assert terms == info["reward_terms"]
            assert infos["elapsed_events"][row] == info["elapsed_events"]
            assert infos["illegal"][row] == info["illegal"]
            assert terminated[row] == ends
            if ends:
                num_ended += 1
                assert infos["_final_obs"][row]
                assert_row(infos["final_obs"], row, seen)
                seen = begin(row)
            assert_row(observation, row, seen)
    assert num_ended > NUM_ENVS


def test_it_is_a_vector_environment(table: EpisodeTable) -> None:
    env = make(table)
    assert isinstance(env, gymnasium.vector.VectorEnv)
    assert env.metadata["autoreset_mode"] is AutoresetMode.SAME_STEP
    single = PagingEnv(table, env.options)
    assert env.single_observation_space == single.observation_space
    assert env.single_action_space == single.action_space
    observation, _ = env.reset(seed=0)
    arrays = {name: value.numpy() for name, value in observation.items()}
    arrays["action_mask"] = arrays["action_mask"].astype(np.int8)
    assert env.observation_space.contains(arrays)
    assert env.action_space.contains(np.zeros(NUM_ENVS, dtype=np.int64))


def played(env: BatchedPagingEnv, rows: int, steps: int = 60) -> list[list[Any]]:
    """What the first rows see when row r plays action numbers drawn by a stream of its own."""
    observation, infos = env.reset(seed=3)
    streams = [np.random.default_rng(row // env.group_size) for row in range(env.num_envs)]
    seen: list[list[Any]] = [[] for _ in range(rows)]
    for _ in range(steps):
        mask = infos["action_mask"]
        actions = [random_action(streams[row], mask[row]) for row in range(env.num_envs)]
        observation, rewards, ended, _, infos = env.step(np.array(actions))
        for row in range(rows):
            features = observation["slots"][row].sum().item()
            seen[row].append((rewards[row].item(), bool(ended[row]), features))
    return seen


def test_a_row_does_not_depend_on_how_many_there_are(table: EpisodeTable) -> None:
    few, many = (played(make(table, num_envs=number), rows=2) for number in (2, 9))
    assert few == many
    assert few[0] != few[1]


def test_rows_of_a_group_play_the_same_episodes_in_the_same_order(table: EpisodeTable) -> None:
    seen = played(make(table, group_size=3), rows=NUM_ENVS, steps=200)
    assert seen[0] == seen[1] == seen[2]
    assert seen[3] == seen[4] == seen[5]
    assert seen[0] != seen[3]
    assert sum(ended for _, ended, _ in seen[0]) > 1


class Recorder:
    """What each row meets, decision by decision, when it plays by a stream of its own."""

    def __init__(self, env: BatchedPagingEnv) -> None:
        self.env = env
        self.seen: list[list[Any]] = [[] for _ in range(env.num_envs)]
        self._streams = [np.random.default_rng(row) for row in range(env.num_envs)]

    def _has_acted(self, row: int) -> bool:
        """Whether an action has no outcome yet; a row that has only begun gives an empty one."""
        return bool(self.seen[row]) and isinstance(self.seen[row][-1], list)

    def play(self, steps: int) -> None:
        observation, infos = self.env.reset(seed=9)
        for _ in range(steps):
            decides, mask = infos["has_decision"], infos["action_mask"]
            actions = torch.zeros(self.env.num_envs, dtype=torch.int64)
            for row in decides.nonzero()[:, 0].tolist():
                actions[row] = random_action(self._streams[row], mask[row])
                features = tuple(value[row].double().sum().item() for value in observation.values())
                self.seen[row].append([features, int(actions[row])])
            acted = decides
            observation, rewards, ended, _, infos = self.env.step(actions)
            terms, elapsed = infos["reward_terms"], infos["elapsed_events"]
            assert not (infos["illegal"] & ~acted).any()
            for row in range(self.env.num_envs):
                if ended[row] or infos["has_decision"][row]:
                    outcome = (terms[row].tolist(), bool(ended[row]), int(elapsed[row]))
                    if outcome != ([0.0] * terms.shape[1], False, 0) or self._has_acted(row):
                        self.seen[row].append(outcome)
                else:
                    assert rewards[row] == 0
                    assert elapsed[row] == 0


@pytest.mark.parametrize("rounds", [1, 3])
def test_fixed_shapes_give_the_same_decision_by_decision(
    any_table: EpisodeTable, rounds: int
) -> None:
    expected, got = Recorder(make(any_table)), Recorder(make(any_table, rounds=rounds))
    expected.play(30)
    got.play(30 + 160 // rounds)
    for one, two in zip(expected.seen, got.seen, strict=True):
        assert len(one) > 50
        assert two[: len(one)] == one


@pytest.mark.gpu
@pytest.mark.skipif(not torch.cuda.is_available(), reason="there is no CUDA device")
@pytest.mark.parametrize("rounds", [None, 2])
def test_a_gpu_plays_as_a_cpu_does(table: EpisodeTable, rounds: int | None) -> None:
    one, two = (make(table, rounds=rounds, device=device) for device in ("cpu", "cuda"))
    seen = [env.reset(seed=4) for env in (one, two)]
    rng = np.random.default_rng(0)
    for _ in range(200):
        (expected, infos), (got, _) = seen[0][:2], seen[1][:2]
        for name, value in expected.items():  # logarithms differ in the last bit
            torch.testing.assert_close(got[name].cpu(), value, rtol=1e-6, atol=1e-6, msg=name)
        mask = infos["action_mask"]
        action = torch.tensor([random_action(rng, mask[row]) for row in range(NUM_ENVS)])
        steps = [env.step(action) for env in (one, two)]
        for before, after in zip(steps[0][1:4], steps[1][1:4], strict=True):
            assert torch.equal(before, after.cpu())
        seen = [(step[0], step[4]) for step in steps]


def test_a_step_of_fixed_shape_never_looks_at_a_value(any_table: EpisodeTable) -> None:
    """Fake tensors have shapes but no values: what needs one raises."""
    env = make(any_table, rounds=2)
    env.reset(seed=0)
    action = torch.zeros(NUM_ENVS, dtype=torch.int64)
    with FakeTensorMode(allow_non_fake_inputs=True):
        step = cast(FixedShapePaging, env._rows).advance(action)
    assert isinstance(step.illegal, FakeTensor)
    free = make(any_table)
    free.reset(seed=0)
    with FakeTensorMode(allow_non_fake_inputs=True), pytest.raises(DataDependentOutputException):
        free._rows.step(action)  # type: ignore[union-attr]


@pytest.mark.parametrize("rounds", [None, 2])
def test_a_compact_observation_lies_in_its_space(table: EpisodeTable, rounds: int | None) -> None:
    env = make(table, rounds=rounds, compact=True)
    seen = [env.reset(seed=0)[0]]
    generator = torch.Generator().manual_seed(0)
    for _ in range(20):
        action = torch.multinomial(env.action_masks().float(), 1, generator=generator)[:, 0]
        seen.append(env.step(action)[0])
    space = cast(gymnasium.spaces.Dict, env.observation_space)
    for observation in seen:
        for name, values in observation.items():
            own = values.numpy().astype(np.int8) if name == "action_mask" else values.numpy()
            assert space[name].contains(own), name


def test_a_seed_begins_the_stream_anew(table: EpisodeTable) -> None:
    env = make(table)
    assert played(env, rows=2) == played(env, rows=2)
    first = env.reset(seed=1)[0]["slots"]
    going_on = env.reset()[0]["slots"]
    assert torch.equal(env.reset(seed=1)[0]["slots"], first)
    assert torch.equal(env.reset()[0]["slots"], going_on)


def test_the_first_episodes_can_be_given(table: EpisodeTable) -> None:
    env = make(table)
    episodes = torch.tensor([3, 3, 0, 1, 2, 4])
    observation, _ = env.reset(seed=0, options={"episodes": episodes})
    single = PagingEnv(table, env.options)
    for row, episode in enumerate(episodes.tolist()):
        assert_row(observation, row, single.reset(options={"episode": episode})[0])


def advance(env: BatchedPagingEnv, rng: np.random.Generator, steps: int) -> list[Any]:
    seen = []
    for _ in range(steps):
        mask = env.action_masks()
        actions = [random_action(rng, mask[row]) for row in range(env.num_envs)]
        observation, rewards, ended, _, _ = env.step(np.array(actions))
        seen.append((rewards.tolist(), ended.tolist(), observation["globals"].tolist()))
    return seen


def test_saved_rows_can_be_continued_again(any_table: EpisodeTable) -> None:
    env = make(any_table)
    env.reset(seed=5)
    advance(env, np.random.default_rng(1), 25)
    saved = env.save(range(NUM_ENVS))
    assert len(saved) == NUM_ENVS
    counts = env._draws.count.clone()
    once = advance(env, np.random.default_rng(2), 40)
    env.restore(saved, range(NUM_ENVS))
    env._draws.count.copy_(counts)
    assert advance(env, np.random.default_rng(2), 40) == once


def test_a_copy_goes_the_way_of_its_source_and_changes_nothing_else(table: EpisodeTable) -> None:
    env = make(table)
    env.reset(seed=5)
    advance(env, np.random.default_rng(1), 25)
    before = env.action_masks()
    kept = env.save([2, 3])
    observation = env.copy([0, 1, 0], [1, 0, 5])
    assert torch.equal(observation["action_mask"][[1, 0, 5]], before[[0, 1, 0]])
    assert torch.equal(observation["action_mask"][2:5], before[2:5])
    assert env.log(5) == env.log(1)
    assert all(
        torch.equal(env.save([2, 3]).tensors[key], kept.tensors[key]) for key in kept.tensors
    )
    moves = [0, 0, 0, 0, 0, 0]
    moves[1] = moves[5] = int(before[0].nonzero()[-1])
    observation, rewards, _, _, _ = env.step(np.array(moves))
    assert rewards[1] == rewards[5]
    assert torch.equal(observation["slots"][1], observation["slots"][5])


def test_restoring_refuses_what_does_not_fit(table: EpisodeTable) -> None:
    env, other = make(table), make(table, num_envs=2)
    env.reset(seed=0)
    saved = env.save([0, 1])
    with pytest.raises(ValueError, match="2 saved rows for 1"):
        env.restore(saved, [0])
    with pytest.raises(ValueError, match="more than once"):
        env.restore(saved, [1, 1])
    with pytest.raises(ValueError, match=r"outside 0\.\.5"):
        env.save([6])
    foreign = BatchedPagingEnv(table, PagingOptions(capacity=3), num_envs=2)
    foreign.reset(seed=0)
    with pytest.raises(ValueError, match="other options"):
        env.restore(foreign.save([0, 1]), [0, 1])
    other.restore(saved, [1, 0])  # a group of another size takes them


@pytest.mark.parametrize(
    ("changes", "message"),
    [
        ({"num_envs": 6, "group_size": 4}, "whole groups, got 4"),
        ({"num_envs": 0}, "num_envs must be an integer of at least 1"),
        ({"num_envs": 2.5}, "num_envs must be an integer"),
        ({"num_envs": 2, "group_size": 0}, "group_size must be an integer"),
        ({"num_envs": 2, "store_scope": "any"}, "store_scope='any'"),
        ({"num_envs": 2, "observe_embeddings": True}, "observe_embeddings"),
    ],
)
def test_what_it_cannot_play_is_refused_by_name(
    table: EpisodeTable, changes: dict[str, Any], message: str
) -> None:
    with pytest.raises(ValueError, match=message):
        BatchedPagingEnv(table, **changes)


def test_wrong_actions_are_refused_and_change_nothing(table: EpisodeTable) -> None:
    env = make(table)
    with pytest.raises(gymnasium.error.ResetNeeded):
        env.step(np.zeros(NUM_ENVS, dtype=np.int64))
    env.reset(seed=0)
    before = env.save(range(NUM_ENVS))
    wrong: tuple[Any, ...] = (
        np.zeros(NUM_ENVS - 1, dtype=np.int64),
        np.zeros(NUM_ENVS),
        np.full(NUM_ENVS, env.layout.num_actions),
        np.full(NUM_ENVS, -1),
        torch.ones(NUM_ENVS, dtype=torch.bool),
        None,
    )
    for actions in wrong:
        with pytest.raises(ValueError, match=r"integers|outside"):
            env.step(actions)
    after = env.save(range(NUM_ENVS))
    assert all(torch.equal(after.tensors[name], before.tensors[name]) for name in before.tensors)
    with pytest.raises(ValueError, match="'episodes' only"):
        env.reset(options={"episode": 1})
    with pytest.raises(ValueError, match="takes 6 integers"):
        env.reset(options={"episodes": [0.5] * NUM_ENVS})
    with pytest.raises(ValueError, match=r"Episode 10 is outside 0\.\.9"):
        env.reset(options={"episodes": [10] * NUM_ENVS})


def test_a_path_is_no_table() -> None:
    with pytest.raises(TypeError, match="EpisodeTable, not str"):
        BatchedPagingEnv("table.safetensors", num_envs=2)  # type: ignore[arg-type]


def test_draws_are_uniform_and_rows_independent() -> None:
    rows = torch.arange(100).repeat_interleave(500)
    counts = torch.arange(500).repeat(100)
    drawn = draw_episodes(11, rows, counts, 10)
    share = torch.bincount(drawn, minlength=10) / len(drawn)
    assert (share - 0.1).abs().max() < 4 * (0.1 * 0.9 / len(drawn)) ** 0.5
    pairs = drawn.reshape(100, 500)
    same = (pairs[0] == pairs[1]).float().mean()
    assert abs(same - 0.1) < 4 * (0.1 * 0.9 / 500) ** 0.5
