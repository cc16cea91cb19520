"""Labels and loss of page caches, by hand, and what is learned from them."""

from __future__ import annotations

import math
from typing import Any

import numpy as np
import pytest
import torch
from request_tables import cache_options, request_table

from envs.batched import BatchedPaging
from memrl.actions import ActionLayout, Op
from memrl.algos.eviction import cache_teachers, eviction_labels, ranking_loss
from memrl.algos.gain_regression import GainRegression, gain_loss
from memrl.config import LearnerConfig, NetworkConfig
from memrl.evaluation.play import play
from memrl.options import PagingOptions
from memrl.policies.belady import least_faults
from memrl.policies.cache_rules import RULES, simulate
from memrl.seeding import Streams

LAYOUT = ActionLayout(4, 0)


def labels_of(requests: list[int], options: PagingOptions, tokens: list[int] | None = None) -> Any:
    """Labels of EVICT at the first decision of a string; and of YIELD."""
    group = BatchedPaging(request_table([requests], tokens), options, 1)
    group.reset([0])
    labels = eviction_labels(group.privileged_state(), group.options)[0]
    block = group.layout.block(Op.EVICT)
    others = torch.cat([labels[: block.start], labels[block.stop :]])
    assert not others.any()
    return labels[block].tolist()


def test_labels_are_log_distances_beyond_the_victims() -> None:
    # At the request of 3 the cache holds 0, 1, 2, whose next requests are 2, 4 and no events off;
    # 3 itself comes back after 1.
    labels = labels_of([0, 1, 2, 3, 3, 0, 9, 1], cache_options(3, time_scale=1.0))
    expected = [0.0, math.log(4 / 2), math.log(10 / 2), math.log(1 / 2)]
    assert labels == pytest.approx(expected)


def test_what_observations_cannot_tell_counts_as_never() -> None:
    requests = [0, 1, 2, *[2] * 30, 0, 1]
    near, far = (labels_of(requests, cache_options(2, time_scale=s)) for s in (1.0, 100.0))
    assert near[:2] == [0.0, 0.0]
    assert far[:2] == pytest.approx([0.0, math.log(32 / 31)], rel=1e-5)


def test_with_tokens_a_large_page_is_worth_evicting() -> None:
    options = cache_options(9, unit="tokens", num_slots=9, time_scale=1.0)
    labels = labels_of([0, 1, 2, 0, 1], options, [2, 6, 4])
    assert labels[:2] == pytest.approx([0.0, math.log(2 * 6 / (1 * 2))])


def test_greedy_play_of_the_labels_is_belady() -> None:
    rng = np.random.default_rng(0)
    table = request_table([rng.integers(0, 9, 40).tolist() for _ in range(20)])
    options = cache_options(4, admission="optional")
    group = BatchedPaging(table, options, 20)
    observation = group.reset(range(20))
    while group.running.any():
        privileged = group.privileged_state()
        labels = eviction_labels(privileged, options)
        mask = observation["action_mask"]
        block = group.layout.block(Op.EVICT)
        best = labels[:, block].masked_fill(~mask[:, block], -torch.inf).amax(dim=1)
        ahead = torch.where(privileged.next_request > 0, privileged.next_request, 10**6)
        action = FARTHEST.act(observation, mask, privileged)
        chosen = ahead.gather(1, (action - 2).clamp(min=0)[:, None])[:, 0]
        legal = mask[:, block].any(dim=1)
        assert (chosen == ahead.masked_fill(~mask[:, block], -1).amax(dim=1))[legal].all()
        assert torch.equal(labels.gather(1, action[:, None])[:, 0][legal], best[legal])
        observation = group.step(action.numpy()).observation


FARTHEST = cache_teachers()[-1].policy


# ---------------------------------------------------------------------- loss


def batch(labels: list[float], legal: list[bool]) -> dict[str, torch.Tensor]:
    rows, mask = torch.zeros((1, LAYOUT.num_actions)), torch.zeros((1, LAYOUT.num_actions)).bool()
    rows[0, LAYOUT.block(Op.EVICT)], mask[0, LAYOUT.block(Op.EVICT)] = (
        torch.tensor(labels),
        torch.tensor(legal),
    )
    mask[0, 0] = True
    shapes = {"slots": torch.zeros((1, 4, 0)), "candidates": torch.zeros((1, 0, 0))}
    return {"labels": rows, "action_mask": mask, **shapes}


def predicted(values: list[float]) -> torch.Tensor:
    rows = torch.zeros((1, LAYOUT.num_actions))
    rows[0, LAYOUT.block(Op.EVICT)] = torch.tensor(values)
    return rows


def test_the_ranking_loss_by_hand() -> None:
    """Targets 1/4 and 3/4, predictions 1/2 each; what is not legal does not count."""
    made = batch([0.0, math.log(3), 5.0, 5.0], [True, True, False, False])
    loss = ranking_loss([(predicted([2.0, 2.0, 9.0, -9.0]), made)], 1.0)
    assert float(loss) == pytest.approx(math.log(2))
    scaled = batch([0.0, 2 * math.log(3), 5.0, 5.0], [True, True, False, False])
    again = ranking_loss([(predicted([2.0, 2.0, 9.0, -9.0]), scaled)], 2.0)
    assert float(again) == pytest.approx(math.log(2))


def test_it_is_least_at_the_labels_and_blind_to_a_constant() -> None:
    values = [0.0, 0.7, -1.2, 2.0]
    made = batch(values, [True] * 4)
    best = ranking_loss([(predicted(values), made)], 1.0)
    shifted = ranking_loss([(predicted([v + 3 for v in values]), made)], 1.0)
    assert float(best) == pytest.approx(float(shifted))
    rng = np.random.default_rng(0)
    for _ in range(20):
        other = [v + rng.normal() for v in values]
        assert ranking_loss([(predicted(other), made)], 1.0) > best
    assert float(gain_loss([(predicted(values), made)], 1.0)) == pytest.approx(0.0, abs=1e-9)


def test_rows_without_a_choice_do_not_count() -> None:
    made = batch([0.0, math.log(3), 0.0, 0.0], [True, True, False, False])
    none = batch([0.0] * 4, [False] * 4)
    both = {name: torch.cat([made[name], none[name]]) for name in made}
    rows = torch.cat([predicted([2.0, 2.0, 0.0, 0.0]), predicted([1.0, 5.0, 2.0, 2.0])])
    assert float(ranking_loss([(rows, both)], 1.0)) == pytest.approx(math.log(2))
    assert float(ranking_loss([(rows[1:], none)], 1.0)) == 0.0


# ---------------------------------------------------------------------- learning


def test_a_learner_of_loops_beats_every_rule_that_loops_defeat() -> None:
    """LRU and FIFO miss every request of a loop of more pages than places; keeping pages that came
    early hits many, more than S3-FIFO, which does so by chance."""
    strings = [list(range(length)) * 6 for length in range(8, 14)]
    table, options = request_table(strings), cache_options(6)
    group = BatchedPaging(table, options, 6)
    config = LearnerConfig(
        rounds=2, episodes_per_round=6, updates_per_round=40, batch_size=64, gain_scale=1.0
    )
    learner = GainRegression(
        group,
        NetworkConfig(hidden=16),
        config,
        Streams(0),
        thresholds=(),
        device=torch.device("cpu"),
    )
    for _ in range(2):
        learner.begin_round()
        losses = [learner.update() for _ in range(40)]
    assert np.mean(losses[-10:]) < np.mean(losses[:10])
    hits = sum(record.hits for record in play(group, learner.policy, range(6)))
    by_rule = {
        name: sum(simulate(rule, string, 6) for string in strings) for name, rule in RULES.items()
    }
    assert by_rule["LRU"] == by_rule["FIFO"] == 0
    most = sum(len(string) - least_faults(string, 6) for string in strings)
    assert max(by_rule.values()) < hits <= most
