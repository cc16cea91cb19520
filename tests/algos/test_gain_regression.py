from __future__ import annotations

from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest
import torch
from table_fixtures import small_table
from torch import Tensor

from envs.batched import BatchedPaging
from envs.workloads.loading import load_workload
from envs.workloads.splits import split_documents
from envs.workloads.tables import build_tables
from memrl.actions import ActionLayout, Op
from memrl.algos.gain_regression import GainRegression, gain_loss
from memrl.checkpoint import load_checkpoint, save_checkpoint
from memrl.config import LearnerConfig, NetworkConfig
from memrl.evaluation.lineup import Arena
from memrl.evaluation.play import mean_reward_per_question
from memrl.memory.embedders import HashingEmbedder
from memrl.options import PagingOptions
from memrl.policies.base import Contestant
from memrl.policies.heuristics import YieldOnly
from memrl.seeding import Streams
from memrl.table import EpisodeTable
from memrl.workload_config import ChatConfig, SplitConfig, WorkloadConfig

CPU = torch.device("cpu")
SMALL = LearnerConfig(
    rounds=3, episodes_per_round=4, updates_per_round=4, batch_size=32, learning_rate=1e-2
)
OPTIONS = PagingOptions(
    capacity=3, num_candidates=2, archival_capacity=4, staging="hybrid", operation_budget=4
)


def small() -> EpisodeTable:
    return small_table(0, num_documents=3, num_pages=9, num_episodes=8, num_queries=3)


def learner(seed: int = 0, config: LearnerConfig = SMALL, dropout: float = 0.3) -> GainRegression:
    return GainRegression(
        BatchedPaging(small(), OPTIONS, 3),
        NetworkConfig(hidden=8, dropout=dropout),
        config,
        Streams(seed),
        thresholds=(-0.5, 0.5),
        device=CPU,
    )


def weights(made: GainRegression) -> dict[str, Tensor]:
    """Network and optimizer, bit for bit."""
    tensors, state = made.checkpoint()
    assert state["round"] == made.round
    return {name: value.clone() for name, value in tensors.items()}


def data(made: GainRegression) -> dict[str, Tensor]:
    """Four times as many decisions of the dataset, drawn, as there are: differences will show."""
    count = len(made.dataset)
    drawn = made.dataset.sample(4 * count, np.random.default_rng(0), CPU)
    columns = {
        f"{kind}.{name}": values for kind, batch in drawn.items() for name, values in batch.items()
    }
    return columns | {"length": torch.tensor(count)}


def equal(first: dict[str, Tensor], second: dict[str, Tensor]) -> bool:
    return first.keys() == second.keys() and all(
        torch.equal(value, second[name]) for name, value in first.items()
    )


def train(made: GainRegression, rounds: int, *, last_updates: int | None = None) -> list[float]:
    """Some rounds, the last one perhaps in part; returns the losses."""
    losses = []
    for number in range(rounds):
        made.begin_round()
        is_last = number == rounds - 1
        updates = SMALL.updates_per_round
        for _ in range(last_updates if is_last and last_updates is not None else updates):
            losses.append(made.update())
    return losses


# ---------------------------------------------------------------------------------------- loss

LAYOUT = ActionLayout(2, 2)  # YIELD, NEXT, EVICT x 2, STORE x 2, SEARCH x 2, RETRIEVE x 2


def row(values: dict[int, float]) -> Tensor:
    return torch.tensor([[values.get(action, 0.0) for action in range(LAYOUT.num_actions)]])


def batch_of(labels: Tensor, mask: Tensor, layout: ActionLayout = LAYOUT) -> dict[str, Tensor]:
    """Of the observation only the numbers of rows are read."""
    return {
        "slots": torch.zeros(len(mask), layout.num_rows, 1),
        "candidates": torch.zeros(len(mask), layout.num_candidates, 1),
        "labels": labels,
        "action_mask": mask,
    }


def part(
    predicted: dict[int, float], labels: dict[int, float], legal: set[int]
) -> tuple[Tensor, dict[str, Tensor]]:
    mask = torch.tensor([[action in legal for action in range(LAYOUT.num_actions)]])
    return row(predicted), batch_of(row(labels), mask)


def loss(predicted: dict[int, float], labels: dict[int, float], legal: set[int]) -> float:
    return float(gain_loss([part(predicted, labels, legal)], gain_scale=0.5))


def test_the_loss_is_a_squared_error_in_clusters_of_the_gain_scale() -> None:
    store = LAYOUT.encode(Op.STORE, 1)
    assert loss({store: 1.0}, {store: 0.25}, {0, store}) == (1.0 - 0.5) ** 2


def test_each_kind_of_operation_counts_alike() -> None:
    first, second = LAYOUT.encode(Op.RETRIEVE, 0), LAYOUT.encode(Op.RETRIEVE, 1)
    errors = {int(Op.NEXT): 3.0, first: 1.0, second: 2.0}
    assert loss(errors, {}, {0, *errors}) == 3.0**2 + (1.0**2 + 2.0**2) / 2


def test_what_is_illegal_and_yield_do_not_count() -> None:
    evict, store = LAYOUT.encode(Op.EVICT, 0), LAYOUT.encode(Op.STORE, 0)
    assert loss({0: 5.0, evict: 7.0, store: 2.0}, {}, {0, store}) == 4.0
    assert loss({0: 5.0, evict: 7.0}, {0: 1.0}, {0}) == 0.0


def test_the_mean_is_over_the_legal_actions_of_the_batch() -> None:
    store = LAYOUT.encode(Op.STORE, 0)
    predicted = torch.zeros((3, LAYOUT.num_actions))
    predicted[:, store] = torch.tensor([1.0, 2.0, 9.0])
    mask = torch.zeros((3, LAYOUT.num_actions), dtype=torch.bool)
    mask[:2, store] = True
    batch = batch_of(torch.zeros_like(predicted), mask)
    assert float(gain_loss([(predicted, batch)], 1.0)) == (1.0 + 4.0) / 2


def test_parts_of_several_shapes_count_as_one_batch() -> None:
    """A view of the victim alone: YIELD, NEXT, EVICT, STORE, SEARCH."""
    store, retrieve = LAYOUT.encode(Op.STORE, 1), LAYOUT.encode(Op.RETRIEVE, 1)
    full = part({store: 1.0, retrieve: 3.0}, {}, {0, store, retrieve})
    mask = torch.tensor([[True, False, False, True, False]] * 2)
    predicted = torch.tensor([[0.0, 7.0, 7.0, 2.0, 7.0], [0.0, 7.0, 7.0, 4.0, 7.0]])
    alone = predicted, batch_of(torch.zeros(2, 5), mask, ActionLayout(1, 0))
    expected = (1.0**2 + 2.0**2 + 4.0**2) / 3 + 3.0**2
    assert float(gain_loss([full, alone], 1.0)) == float(gain_loss([alone, full], 1.0)) == expected


def as_full_observations(batch: dict[str, Tensor], layout: ActionLayout) -> dict[str, Tensor]:
    """Decisions under pressure as they are seen in the whole action space."""
    count = len(batch["labels"])
    slot = (batch["context_slots"] == batch["slots"]).all(dim=-1).int().argmax(dim=1)
    choice = torch.arange(5)
    places = torch.where(choice < 2, choice, 2 + (choice - 2) * layout.num_rows + slot[:, None])
    nowhere = torch.zeros((count, layout.num_actions))
    features = batch["slots"].shape[-1]
    return {
        "slots": batch["context_slots"],
        "candidates": torch.zeros((count, layout.num_candidates, features)),
        "globals": batch["globals"],
        "labels": nowhere.scatter(1, places, batch["labels"]),
        "action_mask": nowhere.bool().scatter(1, places, batch["action_mask"]),
    }


def test_decisions_seen_in_part_are_fitted_as_full_observations_are() -> None:
    made = learner()
    made.begin_round()
    batches = made.dataset.sample(200, np.random.default_rng(0), CPU)
    layout = ActionLayout(4, OPTIONS.num_candidates)
    full = as_full_observations(batches["pressure"], layout), batches["query"]
    whole = {name: torch.cat([part[name] for part in full]) for name in full[0]}
    results = []
    for parts in (batches.values(), [whole]):
        network = made.network.eval()
        loss = gain_loss([(network(batch), batch) for batch in parts], SMALL.gain_scale)
        gradients = torch.autograd.grad(loss, list(network.parameters()))
        results.append([loss.detach(), *gradients])
    for part, one in zip(*results, strict=True):
        torch.testing.assert_close(part, one)


# ---------------------------------------------------------------------------------------- fitting


def test_the_loss_falls_on_a_fixed_dataset() -> None:
    config = replace(SMALL, updates_per_round=50, batch_size=256)
    made = learner(config=config, dropout=0.0)
    made.begin_round()
    batches = made.dataset.sample(500, np.random.default_rng(0), CPU).values()

    @torch.no_grad()
    def error() -> float:
        network = made.network.eval()
        return float(gain_loss([(network(batch), batch) for batch in batches], SMALL.gain_scale))

    before = error()
    losses = [made.update() for _ in range(50)]
    assert error() < 0.8 * before
    assert np.mean(losses[-10:]) < 0.7 * np.mean(losses[:10])


def test_steps_are_counted() -> None:
    made = learner()
    assert (made.round, made.update_index, made.global_step) == (-1, 0, 0)
    made.begin_round()
    assert (made.round, made.update_index, made.global_step) == (0, 0, 0)
    for step in range(1, 5):
        made.update()
        assert (made.update_index, made.global_step) == (step, step)
    made.begin_round()
    assert (made.round, made.update_index, made.global_step) == (1, 0, 4)


def test_every_round_adds_its_decisions_and_tells_of_its_episodes() -> None:
    made = learner()
    finished: list[int] = []
    sizes = [0]
    for number in range(3):
        made.begin_round(finished.append)
        assert len(finished) == (number + 1) * SMALL.episodes_per_round
        sizes.append(len(made.dataset))
        made.update()
    assert sizes == sorted(set(sizes))
    assert set(finished) == {1}


def test_data_are_collected_by_the_weights_at_the_beginning_of_the_round() -> None:
    made = learner()
    train(made, 2)
    assert len(made.snapshots) == 2
    first, second = made.snapshots
    assert not all(torch.equal(first[name], second[name]) for name in first)
    made.update()
    now = made.network.state_dict()
    assert not all(torch.equal(second[name], now[name]) for name in second)


# ---------------------------------------------------------------------------------------- seeds


def test_the_same_seed_gives_the_same_bits() -> None:
    made = [learner(4) for _ in range(2)]
    losses = [train(one, 2) for one in made]
    assert losses[0] == losses[1]
    assert equal(weights(made[0]), weights(made[1]))
    assert equal(data(made[0]), data(made[1]))


def test_another_seed_gives_another_network_and_other_data() -> None:
    first, second = learner(0), learner(1)
    initial = [dict(one.network.state_dict()) for one in (first, second)]
    assert not any(
        torch.equal(value, initial[1][name])
        for name, value in initial[0].items()
        if value.unique().numel() > 1
    )
    for one in (first, second):
        train(one, 1)
    assert not equal(weights(first), weights(second))
    assert not equal(data(first), data(second))


@contextmanager
def forked_seeding_allowed() -> Iterator[None]:
    """Let torch be seeded; that its state is put back is what the poison checks at its end."""
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(torch, "manual_seed", torch.random.manual_seed)
        yield


@pytest.mark.usefixtures("poison_global_rng")
def test_no_global_random_state_is_used() -> None:
    with forked_seeding_allowed():
        train(learner(), 2)


# ---------------------------------------------------------------------------------------- resuming


@pytest.mark.parametrize(("rounds", "updates"), [(1, 2), (2, 0), (2, 4)])
def test_a_restored_learner_goes_on_to_the_same_bits(
    tmp_path: Path, rounds: int, updates: int
) -> None:
    """Stopped after some updates of a round, its checkpoint read from disk by a new learner."""

    def go_on(made: GainRegression) -> list[float]:
        losses = [made.update() for _ in range(SMALL.updates_per_round - updates)]
        made.begin_round()
        return losses + [made.update() for _ in range(3)]

    whole = learner()
    train(whole, rounds, last_updates=updates)
    save_checkpoint(tmp_path, *whole.checkpoint())
    expected = go_on(whole)

    restored = learner()
    finished: list[int] = []
    restored.restore(*load_checkpoint(tmp_path), finished.append)
    assert len(finished) == rounds * SMALL.episodes_per_round
    assert (restored.round, restored.update_index) == (rounds - 1, updates)
    assert go_on(restored) == expected
    assert equal(weights(restored), weights(whole))
    assert equal(data(restored), data(whole))


def test_a_restored_learner_can_be_restored_again(tmp_path: Path) -> None:
    whole = learner()
    train(whole, 1, last_updates=3)
    tensors, state = whole.checkpoint()
    first = learner()
    first.restore(tensors, state)
    save_checkpoint(tmp_path, *first.checkpoint())
    second = learner()
    second.restore(*load_checkpoint(tmp_path))
    assert equal(weights(second), weights(whole))


class StoppedError(Exception):
    pass


def test_a_learner_stopped_while_it_collects_can_be_restored() -> None:
    whole = learner()
    train(whole, 2, last_updates=2)

    stopped = learner()
    train(stopped, 1)

    def stop(_: int) -> None:
        raise StoppedError

    with pytest.raises(StoppedError):
        stopped.begin_round(stop)
    restored = learner()
    restored.restore(*stopped.checkpoint())
    for _ in range(2):
        restored.update()
    assert equal(weights(restored), weights(whole))
    assert equal(data(restored), data(whole))


# ---------------------------------------------------------------------------------------- learning


def test_it_learns_to_store_and_retrieve_in_documents_that_it_never_saw() -> None:
    workload_config = WorkloadConfig(
        ask="end",
        window_pages=30,
        max_queries=4,
        train_episodes=16,
        validation_episodes=1,
        test_episodes=6,
        chat=ChatConfig(
            num_documents=10,
            num_sessions=3,
            turns_per_session=14,
            facts_per_document=5,
            multi_evidence_frac=0.0,
            update_frac=0.2,
        ),
    )
    workload = load_workload(workload_config)
    split = split_documents(len(workload.documents), SplitConfig())
    tables = build_tables(workload, split, workload_config, embedder=HashingEmbedder(64))
    options = PagingOptions(capacity=6, num_slots=6, archival_capacity=16, num_candidates=4)
    config = LearnerConfig(
        episodes_per_round=24, updates_per_round=120, batch_size=256, learning_rate=3e-3
    )
    made = GainRegression(
        BatchedPaging(tables.train, options, 24),
        NetworkConfig(hidden=32),
        config,
        Streams(0),
        thresholds=(0.0,),
        device=CPU,
    )
    for _ in range(2):
        made.begin_round()
        for _ in range(config.updates_per_round):
            made.update()
    arena = Arena(tables.test, options, BatchedPaging)
    learned, fifo = arena.play([Contestant("learned", made.policy), Contestant("-", YieldOnly())])
    assert mean_reward_per_question(learned) > mean_reward_per_question(fifo) + 0.1
    assert sum(record.operations["store"] for record in learned) > 0
    assert sum(record.operations["retrieve"] for record in learned) > 0
