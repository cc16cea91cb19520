"""Runs that differ in seed and fold alone are one condition, and become one table."""

from __future__ import annotations

import json
import re
from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any

from memrl.evaluation import lineup, summary
from memrl.evaluation.budgets import is_point
from memrl.evaluation.entry import Entry
from memrl.evaluation.report.folders import FinishedRun
from memrl.resuming import require_mergeable
from memrl.run_files import RunError, strict_json

_MOST_KEYS = 3  # that a label spells out


@dataclass(frozen=True)
class Condition:
    """The runs of one setting.

    Attributes:
        label: tells it from the other conditions of the report.
        settings: dotted keys of the configuration in which conditions differ, with its own values.
        runs: its runs. entries: their records, put together, without points of budget curves.
        results: see `memrl.evaluation.summary.summarize`.
    """

    label: str
    settings: dict[str, Any]
    runs: list[FinishedRun]
    entries: list[Entry]
    results: dict[str, Any]

    @property
    def seeds(self) -> list[int]:
        """Training seeds of its records, sorted."""
        return sorted(set(self.entries[0].seeds))

    @property
    def is_cache(self) -> bool:
        """Whether hits are counted, and nothing is stored or asked."""
        return bool(self.results["played"]["workload"] == "page_cache")

    @property
    def capacity(self) -> float:
        """Size of main context."""
        return float(self.results["played"]["paging"]["capacity"])

    @property
    def unit(self) -> str:
        """What capacity counts: pages or tokens; of a fraction of the training median, that."""
        paging = self.results["played"]["paging"]
        unit = str(paging["unit"])
        return f"fraction of {unit}" if isinstance(paging["capacity"], float) else unit

    @property
    def measure(self) -> str:
        """What quality is called."""
        return "hit ratio" if self.is_cache else "reward / question"


def group_runs(runs: Sequence[FinishedRun]) -> list[list[FinishedRun]]:
    """The runs of each condition, in the order in which they were given.

    Versions and data count as settings, so that what is mixed on purpose is never averaged.
    """
    groups: dict[str, list[FinishedRun]] = {}
    for run in runs:
        groups.setdefault(_key(run), []).append(run)
    return list(groups.values())


def _key(run: FinishedRun) -> str:
    data = run.data if run.fold is None else run.data_of_all_folds
    return strict_json([run.settings, data, run.schema, run.commit])


def make_conditions(groups: Sequence[Sequence[FinishedRun]]) -> list[Condition]:
    """Put the records of each group together and summarise them; by workload, then by capacity.

    Raises:
        RunError: if runs cannot be put together, or one is given twice.
    """
    settings = _differing([group[0] for group in groups])
    labels = _labels([group[0] for group in groups], settings)
    made = []
    for group, label, own in zip(groups, labels, settings, strict=True):
        require_mergeable([run.folder for run in group])
        entries = summary.merge([run.entries for run in group])
        controls = (*lineup.CONTROLS, *lineup.CACHE_CONTROLS)
        results = summary.summarize(entries, controls, group[0].config)
        entries = [entry for entry in entries if not is_point(entry.settings)]
        made.append(Condition(label, own, list(group), entries, results))
    return sorted(made, key=lambda own: (own.results["played"]["workload"], own.capacity))


def missing_seeds(groups: Sequence[Sequence[FinishedRun]]) -> list[str]:
    """Which seeds some condition, or fold of one, lacks and others have; a sentence each."""
    everywhere = sorted({seed for group in groups for run in group for seed in run.seeds})
    missing = []
    for group in groups:
        of_fold: dict[int | None, set[int]] = {}
        for run in group:
            of_fold.setdefault(run.fold, set()).update(run.seeds)
        for fold, seeds in of_fold.items():
            lacking = [str(seed) for seed in everywhere if seed not in seeds]
            if lacking:
                what = f"{group[0].folder.parent}" + ("" if fold is None else f", fold {fold},")
                plural = "s" if len(lacking) > 1 else ""
                missing.append(f"{what} lacks seed{plural} {', '.join(lacking)}, which others have")
    return missing


def require_seeds(groups: Sequence[Sequence[FinishedRun]], *, mix: bool) -> list[str]:
    """The sentences of `missing_seeds`, which are refused unless `mix`.

    Raises:
        RunError: at the first one.
    """
    found = missing_seeds(groups)
    if found and not mix:
        raise RunError(
            f"{found[0]}: run it with train.py --seed, leave that seed out everywhere, or add "
            "--mix true, and the report says so."
        )
    return found


def _differing(first: Sequence[FinishedRun]) -> list[dict[str, Any]]:
    """Keys whose values are not the same in all conditions, with the values of each."""
    flat = [run.settings | {"schema": run.schema, "commit": run.commit} for run in first]
    keys = list(dict.fromkeys(key for own in flat for key in own))
    apart = [key for key in keys if len({json.dumps(own.get(key)) for own in flat}) > 1]
    return [{key: own[key] for key in apart if key in own} for own in flat]


def _labels(first: Sequence[FinishedRun], settings: Sequence[dict[str, Any]]) -> list[str]:
    """A name for each condition: its run's, and the few settings that tell it from others."""
    names = [re.sub(r"-fold\d+$", "", str(run.config["name"])) for run in first]
    labels: list[str] = []
    for name, own in zip(names, settings, strict=True):
        told = [f"{key.rpartition('.')[2]} {value}" for key, value in own.items()]
        label = name
        if told and len(told) <= _MOST_KEYS:
            label += ": " + ", ".join(told)
        number = 1 + sum(other == label or other.startswith(f"{label} (") for other in labels)
        labels.append(label if number == 1 else f"{label} ({number})")
    return labels
