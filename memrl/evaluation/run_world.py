"""A finished run with its episodes, made again from its data, to be played anew."""

from __future__ import annotations

from dataclasses import dataclass
from pathlib import Path

from envs.workloads.loading import load_workload
from envs.workloads.tables import split_tables, workload_record
from memrl.config import ConfigurationError, RunConfig
from memrl.evaluation.saved_lineup import saved_contestants
from memrl.options import PagingOptions
from memrl.policies.base import Contestant, best_of
from memrl.resuming import require_same_data
from memrl.saved import load_run
from memrl.table import EpisodeTable

HEURISTIC = "heuristic"
"""As a name: the heuristic that scored best on the run's validation."""


@dataclass(frozen=True)
class RunWorld:
    """What a run's contestants play on.

    Attributes:
        folder: of the run. config: what it was started with.
        table: its test episodes. validation: those on which it chose. options: resolved.
        contestants: all that can be played again.
    """

    folder: Path
    config: RunConfig
    table: EpisodeTable
    validation: EpisodeTable
    options: PagingOptions
    contestants: list[Contestant]


def load_run_world(folder: Path) -> RunWorld:
    """The test and validation episodes of a finished run, made again from its data.

    Raises:
        MemrlError: if the run is not finished or damaged, or its data are missing or not the same.
    """
    run = load_run(folder)
    workload = load_workload(run.config.workload)
    require_same_data(folder, workload_record(workload))
    tables = split_tables(workload, run.config.split, run.config.workload)
    table, validation = (
        own.with_prior(run.scorer.logits(own)) for own in (tables.test, tables.validation)
    )
    options = run.config.paging.resolved(**tables.train.medians())
    contestants = saved_contestants(run, options, table)
    return RunWorld(folder, run.config, table, validation, options, contestants)


def contestant_of(world: RunWorld, name: str | None) -> Contestant:
    """The contestant of a name; None for the best learned one, `HEURISTIC` for the best rule.

    Raises:
        ConfigurationError: if there is none.
    """
    names = [one.name for one in world.contestants]
    found = None
    if name is None:
        found = best_of(world.contestants, "learned")
    elif name in names:
        found = world.contestants[names.index(name)]
    elif name == HEURISTIC:
        found = best_of(world.contestants, "heuristic")
    if found is None:
        raise ConfigurationError(
            f"The run {world.folder} has no policy {name!r} that can be played again: name one of "
            f"{', '.join(map(repr, names))}, or {HEURISTIC!r} for the best rule."
        )
    return found
