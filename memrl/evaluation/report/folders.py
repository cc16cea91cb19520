"""Finished run folders, read back, and whether they belong in one report."""

from __future__ import annotations

import json
import sys
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any, TypeVar

from pydantic import BaseModel, TypeAdapter, ValidationError

from memrl.actions import Op
from memrl.errors import listed
from memrl.evaluation import summary
from memrl.evaluation.calibration import Calibration
from memrl.evaluation.entry import Entry
from memrl.evaluation.report.shapes import Config, Metrics, Results, Start, require_shape
from memrl.evaluation.strip import EpisodeStrip
from memrl.resuming import OF_A_RUN, dotted
from memrl.run_files import (
    CALIBRATION_FILE,
    CONFIG_FILE,
    EPISODES_FILE,
    METRICS_FILE,
    PROVENANCE_FILE,
    RESULTS_FILE,
    STRIP_FILE,
    RunError,
    first_mistake,
    read_config,
    read_metrics,
    read_starts,
    strict_json,
)

_TEXT_LENGTH = 12  # of a hash or another value in a message
_MOST_KEYS = 4  # in a message
_OPERATIONS = {op.name.lower() for op in Op}
_CALIBRATION = TypeAdapter(Calibration)
_STRIP = TypeAdapter(EpisodeStrip)
Read = TypeVar("Read")
_FUNNEL = {"absent", "kept", "staged", "used"}  # what records of all versions have


@dataclass(frozen=True)
class FinishedRun:
    """What a finished run left in its folder.

    Attributes:
        folder: where it is. config: what it was started with, plain.
        start: provenance of its latest start. schema: version of its results.
        entries: its records. metrics: its lines of metrics, none where it has no such file.
        calibration, strip: of its gain regression, and an episode of it; None where it has none.
    """

    folder: Path
    config: dict[str, Any]
    start: dict[str, Any]
    schema: Any
    entries: list[Entry]
    metrics: list[dict[str, Any]]
    calibration: Calibration | None = None
    strip: EpisodeStrip | None = None

    @property
    def seeds(self) -> tuple[int, ...]:
        """Seeds of its records, sorted; several where it puts runs together."""
        return tuple(sorted(set(self.entries[0].seeds)))

    @property
    def fold(self) -> int | None:
        """Which document was left out, None where the split is another one."""
        split = self.config["split"]
        return int(split["fold"]) if split["kind"] == "leave_one_out" else None

    @property
    def commit(self) -> str | None:
        """Commit of the code, None where it ran outside a checkout."""
        commit = self.start.get("code", {}).get("commit")
        return None if commit is None else str(commit)

    @property
    def is_dirty(self) -> bool:
        """Whether there were changes on top of the commit."""
        return bool(self.start.get("code", {}).get("dirty"))

    @property
    def data(self) -> dict[str, Any]:
        """Names and hashes of its data."""
        return dict(self.start.get("data", {}))

    @property
    def data_of_all_folds(self) -> dict[str, Any]:
        """What of it does not depend on the fold."""
        return {key: own for key, own in self.data.items() if key not in ("tables", "repairs")}

    @property
    def settings(self) -> dict[str, Any]:
        """Dotted keys of the configuration with their values, less what tells runs apart."""
        return {key: own for key, own in dotted(self.config).items() if key not in OF_A_RUN}


def read_run(folder: Path) -> FinishedRun:
    """Read a finished run.

    Raises:
        RunError: if it is no run, is not finished, is damaged, or a policy has no episode.
    """
    config = read_config(folder)
    _require_shape(Config, config, f"{folder / CONFIG_FILE}", "start the run again elsewhere")
    if not (folder / RESULTS_FILE).exists():
        raise RunError(
            f"The run {folder} has no {RESULTS_FILE}: it is still being written, or was "
            "interrupted. Let it finish, go on with train.py --resume true, or leave it out."
        )
    results = _read_results(folder / RESULTS_FILE)
    starts = read_starts(folder / PROVENANCE_FILE)
    if not starts:
        raise RunError(
            f"The run {folder} has no {PROVENANCE_FILE}, so nobody can tell which code and data it "
            "is from: leave it out."
        )
    _require_shape(Start, starts[-1], f"{folder / PROVENANCE_FILE}", "leave the run out")
    entries = summary.read_entries(folder / EPISODES_FILE)
    _require_episodes(folder, [policy["name"] for policy in results["policies"]], entries)
    metrics, _ = read_metrics(folder / METRICS_FILE, sys.maxsize)
    for number, row in enumerate(metrics, start=1):
        where = f"Line {number} of {folder / METRICS_FILE}"
        _require_shape(Metrics, row, where, "repair or delete it")
    return FinishedRun(
        folder,
        config,
        starts[-1],
        results["schema"],
        entries,
        metrics,
        _read_if_there(folder / CALIBRATION_FILE, _CALIBRATION),
        _read_if_there(folder / STRIP_FILE, _STRIP),
    )


def _read_if_there(path: Path, shape: TypeAdapter[Read]) -> Read | None:
    """What only a figure needs."""
    if not path.exists():
        return None
    try:
        return shape.validate_json(path.read_bytes(), strict=True)
    except OSError as error:
        reason = str(error)
    except ValidationError as error:
        reason = first_mistake(error)
    raise RunError(f"{path} is damaged ({reason}): delete it, and its figure is left out.")


def _read_results(path: Path) -> dict[str, Any]:
    remedy = "delete it and score the run again with train.py --resume true"
    try:
        results: dict[str, Any] = json.loads(path.read_text(encoding="utf-8"))
    except (OSError, ValueError, RecursionError) as error:
        raise RunError(f"{path} is damaged ({error}): {remedy}.") from error
    _require_shape(Results, results, f"{path}", remedy)
    return results


def _require_shape(shape: type[BaseModel], value: Any, what: str, remedy: str) -> None:
    try:
        require_shape(shape, value)
    except ValueError as error:
        raise RunError(f"{what} is damaged, or of another version ({error}): {remedy}.") from error


def _require_episodes(folder: Path, names: Sequence[str], entries: Sequence[Entry]) -> None:
    """Refuse a policy of which nothing can be said."""
    there = {entry.name: entry for entry in entries}
    for name in dict.fromkeys([*names, *there]):
        if name not in there or not there[name].records:
            raise RunError(
                f"The policy {name!r} of {folder} has no episode in {EPISODES_FILE}: score the run "
                "again, or leave it out."
            )
        if not any(record.num_scored for record in there[name].records):
            raise RunError(
                f"No episode of the policy {name!r} of {folder} asks anything that pays, so there "
                "is nothing to report: leave the run out."
            )
    for entry in entries:
        for record in entry.records:
            if not record.operations.keys() >= _OPERATIONS or not record.funnel.keys() >= _FUNNEL:
                raise RunError(
                    f"Episode {record.episode} of the policy {entry.name!r} of {folder} lacks "
                    f"counts in {EPISODES_FILE}: score the run again, or leave it out."
                )


def differences(runs: Sequence[FinishedRun]) -> Iterator[str]:
    """What sets runs apart that one report should not mix: versions and data, a sentence each.

    Versions are compared with those of the first run. Data are compared with those of the first run
    that should have the same: all of it, tables too, with the first of the same workload and split
    settings and the same fold; what no fold changes with the first of these settings; and with
    another run of the workload at least its files. Different workloads have nothing in common. What
    was said once is not said again of further runs.
    """
    first: dict[str, tuple[FinishedRun, dict[str, Any]]] = {}
    said = set()
    for run in runs:
        apart, other = _apart(_version(runs[0]), _version(run)), runs[0]
        for data_of, data in _comparable_data(run).items():
            twin, expected = first.setdefault(data_of, (run, data))
            if twin is not run:
                different = _apart(expected, data)
                other = twin if different and not apart else other
                apart += different
                break  # what is compared less closely is a part of this
        told = listed(apart, _MOST_KEYS)
        if apart and told not in said:
            said.add(told)
            yield f"{other.folder} and {run.folder} differ in {told}"


def _comparable_data(run: FinishedRun) -> dict[str, dict[str, Any]]:
    """By what runs have to share for it, the data that are the same then; the closest first."""
    name = run.data.get("workload")
    documents = {
        key: own for key, own in run.settings.items() if key.startswith(("workload.", "split."))
    }
    provenance = run.data.get("provenance")
    files = provenance.get("files") if isinstance(provenance, dict) else None
    return {
        strict_json([name, documents, run.fold]): run.data,
        strict_json([name, documents]): run.data_of_all_folds,
        strict_json([name]): {"files": files},
    }


def require_alike(runs: Sequence[FinishedRun], *, mix: bool) -> list[str]:
    """The differences of `differences`, which are refused unless `mix`.

    Raises:
        RunError: at the first difference, which it names.
    """
    found = list(differences(runs))
    if found and not mix:
        raise RunError(
            f"{found[0]}: report runs of one version and one data set together, or add --mix true, "
            "and the report says so."
        )
    return found


def version_notes(runs: Sequence[FinishedRun]) -> list[str]:
    """Packages of which runs had different versions, in one sentence; none where all agree."""
    installed = [run.start.get("versions", {}) for run in runs]
    said = []
    for package in sorted({name for versions in installed for name in versions}):
        found = sorted({versions.get(package, "none") for versions in installed})
        if len(found) > 1:
            said.append(f"{package} ({listed(found, _MOST_KEYS)})")
    if not said:
        return []
    return [f"runs were made with different versions of {listed(said, _MOST_KEYS)}"]


def _version(run: FinishedRun) -> dict[str, Any]:
    return {"schema": run.schema, "commit": run.commit, "changes": run.is_dirty}


def _apart(first: Mapping[str, Any], second: Mapping[str, Any]) -> list[str]:
    """Keys with both values."""
    before, now = dotted(first), dotted(second)
    return [
        f"{key} ({_short(before.get(key))} and {_short(now.get(key))})"
        for key in sorted(before.keys() | now.keys())
        if before.get(key) != now.get(key)
    ]


def _short(value: Any) -> str:
    text = "none" if value is None else str(value)
    return text if len(text) <= _TEXT_LENGTH else text[:_TEXT_LENGTH] + "..."
