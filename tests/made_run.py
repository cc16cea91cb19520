"""A finished run folder made by hand: untrained networks, the tiny preset, no learning."""

from __future__ import annotations

import json
from functools import partial
from pathlib import Path
from typing import Any

import numpy as np
import torch
import yaml
from tiny_runs import TINY

from envs.batched import paging_group
from envs.workloads.loading import load_workload
from envs.workloads.tables import Tables, split_tables, workload_record
from memrl.checkpoint import module_tensors, save_checkpoint
from memrl.config import RunConfig, parse_config
from memrl.evaluation import lineup, summary
from memrl.evaluation.entry import Entry
from memrl.evaluation.lineup import Arena
from memrl.policies.base import Contestant
from memrl.policies.network import GreedyGain, SetNetwork
from memrl.policies.prior import PageScorer
from memrl.run_files import append_start, plain
from memrl.table import SURFACE
from memrl.world import World, save_world


def make_run(folder: Path, *, seed: int = 0, **values: Any) -> Path:
    """Write a run folder as `train.py` leaves it; top-level values of its preset may be replaced.

    The network's weights are scaled up, so that it tells rows apart, and it likes to store and to
    retrieve.
    """
    folder.mkdir(parents=True)
    settings = TINY | {"seed": seed} | values
    (folder / "config.yaml").write_text(yaml.safe_dump(settings), encoding="utf-8")
    config = parse_config(["--config", str(folder / "config.yaml")])
    workload = load_workload(config.workload)
    tables = split_tables(workload, config.split, config.workload)
    append_start(folder / "provenance.json", {"data": plain(workload_record(workload))})
    network, scorer = made_network(config), made_scorer(tables)
    save_checkpoint(
        folder,
        module_tensors(network, "best.") | {"scorer.weight": torch.from_numpy(scorer.weight)},
        {"scorer": {"bias": scorer.bias, "penalty": scorer.penalty}},
    )
    test = tables.test.with_prior(scorer.logits(tables.test))
    options = config.paging.resolved(**tables.train.medians())
    save_world(folder, World(options, tables.statistics))
    policy = GreedyGain(network, config.learner.gain_scale, config.learner.gain_margin)
    lines = [
        *lineup.heuristic_lines(config.evaluation, tables.train.page_prior, torch.Generator()),
        *lineup.learned_lines(policy, config.evaluation),
        *lineup.bound_lines(options),
    ]
    chosen = [line[0] for line in lines]
    played = Arena(test, options, partial(paging_group, environment="reference")).play(chosen)
    entries = [Entry.of(*pair, seed) for pair in zip(chosen, played, strict=True)]
    summary.write_entries(folder / "episodes.jsonl", entries)
    results = {"policies": [_result(one, n) for n, one in enumerate(chosen)]}
    (folder / "results.json").write_text(json.dumps(results), encoding="utf-8")
    return folder


def made_network(config: RunConfig) -> SetNetwork:
    """Weights that belong to the run's seed."""
    with torch.random.fork_rng():
        torch.manual_seed(config.seed)
        network = SetNetwork(config.network.hidden)
    with torch.no_grad():
        for parameter in network.parameters():
            parameter.mul_(4.0)
        network.operation_head.bias.add_(torch.tensor([-3.0, 0.0, 2.0, -6.0, 8.0]))
    return network


def made_scorer(tables: Tables) -> PageScorer:
    """A scorer that likes what it likes."""
    num_features = tables.train.page_embedding.shape[1] + len(SURFACE)
    return PageScorer(np.random.default_rng(0).normal(0, 1, num_features), 0.1, 1.0)


def _result(contestant: Contestant, number: int) -> dict[str, Any]:
    """The part of a results file that is read again; the later, the better on validation."""
    return {
        "name": contestant.name,
        "settings": [dict(contestant.settings)],
        "validation": [number / 100],
    }
