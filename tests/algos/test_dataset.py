from __future__ import annotations

import numpy as np
import pytest
import torch
from torch import Tensor

from memrl.algos.dataset import DecisionDataset, DecisionsByKind

CPU = torch.device("cpu")


def chunk(first: int, count: int) -> tuple[dict[str, Tensor], Tensor, Tensor]:
    """Decisions numbered from `first`; the number can be read off every one of their tensors."""
    number = torch.arange(first, first + count, dtype=torch.float32)
    observation = {
        "slots": number[:, None, None].expand(count, 3, 2) / 8,
        "candidates": number[:, None, None].expand(count, 2, 2) / 8,
        "globals": number[:, None].expand(count, 4) / 8,
        "action_mask": torch.zeros(count, 5),
        "text": number,
    }
    mask = (number[:, None] % 2 == torch.arange(5) % 2).bool()
    return observation, mask, number[:, None].expand(count, 5) / 3


def dataset() -> DecisionDataset:
    made = DecisionDataset()
    for first, count in ((0, 7), (7, 1), (8, 12)):
        add(made, first, count)
    return made


def add(made: DecisionDataset, first: int, count: int) -> None:
    observation, mask, labels = chunk(first, count)
    made.append(observation, mask, labels=labels)


def test_it_counts_decisions() -> None:
    assert len(DecisionDataset()) == 0
    assert len(dataset()) == 20


def test_a_batch_holds_whole_decisions() -> None:
    batch = dataset().sample(200, np.random.default_rng(0), CPU)
    number = batch["globals"][:, 0] * 8
    assert set(batch) == {"slots", "candidates", "globals", "action_mask", "labels"}
    assert batch["slots"].shape == (200, 3, 2)
    assert batch["slots"].dtype == batch["labels"].dtype == torch.float32
    assert batch["action_mask"].dtype == torch.bool
    assert torch.equal(batch["slots"], (number / 8)[:, None, None].expand(200, 3, 2))
    assert torch.equal(batch["candidates"], (number / 8)[:, None, None].expand(200, 2, 2))
    assert torch.equal(batch["labels"], (number / 3)[:, None].expand(200, 5))
    assert torch.equal(batch["action_mask"][:, 0], number % 2 == 0)
    assert sorted(set(number.tolist())) == list(range(20))


def test_decisions_are_drawn_uniformly() -> None:
    batch = dataset().sample(20_000, np.random.default_rng(1), CPU)
    counts = (batch["globals"][:, 0] * 8).long().bincount(minlength=20)
    assert counts.tolist() == pytest.approx([1000] * 20, abs=5 * 1000**0.5)


@pytest.mark.usefixtures("poison_global_rng")
def test_a_batch_depends_on_the_generator_alone() -> None:
    made = dataset()
    first, again, other = (
        made.sample(16, np.random.default_rng(seed), CPU)["labels"] for seed in (5, 5, 6)
    )
    assert torch.equal(first, again)
    assert not torch.equal(first, other)


def test_merging_the_chunks_changes_nothing() -> None:
    merged, separate = dataset(), dataset()
    merged.consolidate()
    merged.consolidate()
    assert len(merged) == 20
    for made in (merged, separate):
        add(made, 20, 4)
        assert len(made) == 24
    batches = [made.sample(64, np.random.default_rng(2), CPU) for made in (merged, separate)]
    for name, values in batches[0].items():
        assert torch.equal(values, batches[1][name])
    assert float(batches[0]["globals"].max()) * 8 > 19


def test_what_was_added_is_not_changed_from_outside() -> None:
    made = DecisionDataset()
    observation, mask, labels = (chunk(0, 4)[0], *(t.clone() for t in chunk(0, 4)[1:]))
    made.append(observation, mask, labels=labels)
    before = made.sample(16, np.random.default_rng(0), CPU)
    mask.fill_(False)
    labels.fill_(9.0)
    after = made.sample(16, np.random.default_rng(0), CPU)
    assert torch.equal(before["action_mask"], after["action_mask"])
    assert torch.equal(before["labels"], after["labels"])


def test_features_are_kept_to_half_precision_and_labels_are_not() -> None:
    made = DecisionDataset()
    observation, mask, _ = chunk(0, 1)
    third = 1 / 3
    observation["globals"] = torch.full((1, 4), third)
    made.append(observation, mask, labels=torch.full((1, 5), third))
    batch = made.sample(1, np.random.default_rng(0), CPU)
    assert float(batch["globals"][0, 0]) == pytest.approx(third, abs=2e-4)
    assert float(batch["labels"][0, 0]) == pytest.approx(third, abs=1e-7)


def test_chosen_rows_come_back_in_the_order_asked_for() -> None:
    made = dataset()
    batch = made.rows(torch.tensor([19, 0, 7, 7]), CPU)
    assert (batch["globals"][:, 0] * 8).tolist() == [19.0, 0.0, 7.0, 7.0]
    assert batch["slots"].dtype == torch.float32
    assert torch.equal(made.column("labels")[:, 0] * 3, torch.arange(20.0))


# ---------------------------------------------------------------------------------------- kinds


def by_kind() -> DecisionsByKind:
    """Decisions 0..11 of one kind, and 12..19 of another, whose observations have another shape."""
    made = DecisionsByKind(("near", "far"))
    add(made["near"], 0, 12)
    observation, mask, labels = chunk(12, 8)
    observation["slots"] = observation["slots"][:, :1]
    observation["context_slots"] = chunk(12, 8)[0]["slots"]
    made["far"].append(observation, mask[:, :3], labels=labels[:, :3])
    return made


def test_kinds_are_drawn_as_if_they_were_one() -> None:
    made = by_kind()
    assert (len(made), len(made["near"]), len(made["far"])) == (20, 12, 8)
    drawn = made.sample(20_000, np.random.default_rng(1), CPU)
    assert {kind: len(batch["labels"]) for kind, batch in drawn.items()} == {
        "near": pytest.approx(12_000, abs=400),
        "far": pytest.approx(8_000, abs=400),
    }
    assert drawn["far"]["slots"].shape[1:] == (1, 2)
    assert drawn["far"]["context_slots"].shape[1:] == (3, 2)
    assert drawn["far"]["context_slots"].dtype == torch.float32
    assert "context_slots" not in drawn["near"]
    number = torch.cat([batch["globals"][:, 0] * 8 for batch in drawn.values()]).long()
    assert number.bincount(minlength=20).tolist() == pytest.approx([1000] * 20, abs=5 * 1000**0.5)
    far = drawn["far"]
    assert torch.equal(far["labels"][:, 0] * 3, far["globals"][:, 0] * 8)


def test_a_kind_of_which_none_is_drawn_is_left_out() -> None:
    made = DecisionsByKind(("near", "far"))
    add(made["far"], 0, 3)
    assert set(made.sample(50, np.random.default_rng(0), CPU)) == {"far"}
