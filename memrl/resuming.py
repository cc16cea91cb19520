"""Whether runs belong together: one that goes on, and several that become one table."""

from __future__ import annotations

import json
import re
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

from memrl.errors import listed
from memrl.run_files import (
    CONFIG_FILE,
    PROVENANCE_FILE,
    RunError,
    plain,
    read_config,
    read_starts,
    strict_json,
)

_ONE_RUN = ("seed", "split.fold")
OF_A_RUN = (*_ONE_RUN, "name")
"""Dotted keys in which the runs of one table may differ."""
_MOST_KEYS = 8  # named in a message


def require_config_file(folder: Path) -> None:
    """Raise RunError unless a run has been started in `folder`."""
    if not (folder / CONFIG_FILE).exists():
        raise RunError(f"There is no run to resume in {folder}: start it without --resume.")


def require_same_config(folder: Path, config: Mapping[str, Any]) -> None:
    """Raise RunError unless the run in `folder` was started with this plain configuration."""
    require_config_file(folder)
    before = read_config(folder)
    different = differing_keys(before, config)
    if different:
        raise RunError(
            f"The run {folder} was started with another configuration; it differs in "
            f"{listed(different, _MOST_KEYS)}: resume with the same values, or take another --name."
        )


def require_same_data(folder: Path, data: Mapping[str, Any]) -> None:
    """Raise RunError unless the run's latest start recorded the same data, hash for hash.

    Args:
        folder: of the run. data: record of the data at hand; keys that it lacks are not compared.
    """
    starts = read_starts(folder / PROVENANCE_FILE)
    before = starts[-1].get("data", {}) if starts else {}
    different = differing_keys(
        {key: before.get(key) for key in data}, json.loads(strict_json(plain(data)))
    )
    if different:
        raise RunError(
            f"The run {folder} was started on other data; it differs in "
            f"{listed(different, _MOST_KEYS)}: resume with the data it began with, or take "
            "another --name."
        )


def newest_name(root: Path, name: str, seed: int) -> str:
    """The latest of `name`, `name-2`, `name-3`, ... that has a run of this seed; else `name`."""
    numbers = {1: name}
    for path in root.glob(f"{name}-*"):
        match = re.fullmatch(rf"{re.escape(name)}-(\d+)", path.name)
        if match:
            numbers[int(match[1])] = path.name
    there = [n for n, own in numbers.items() if (root / own / f"seed{seed}").exists()]
    return numbers[max(there, default=1)]


def require_mergeable(folders: Sequence[Path]) -> None:
    """Raise RunError unless the runs are seeds and folds of one preset, each there once."""
    configs = [read_config(folder) for folder in folders]
    for folder, config in zip(folders[1:], configs[1:], strict=True):
        different = set(differing_keys(configs[0], config)) - {*OF_A_RUN}
        if different:
            raise RunError(
                f"{folders[0]} and {folder} were run with other settings; they differ in "
                f"{listed(sorted(different), _MOST_KEYS)}: merge seeds and folds of one preset."
            )
    first: dict[tuple[Any, ...], Path] = {}
    for folder, config in zip(folders, configs, strict=True):
        flat = dotted(config)
        twin = first.setdefault(tuple(flat.get(key) for key in _ONE_RUN), folder)
        if twin is not folder:
            raise RunError(
                f"{twin} and {folder} are the same seed and fold: give each of them once."
            )


def differing_keys(first: Any, second: Any) -> list[str]:
    """Dotted keys whose values differ between two nested mappings, or that only one has."""
    before, now = dotted(first), dotted(second)
    missing = object()
    return [
        key
        for key in sorted(before.keys() | now.keys())
        if before.get(key, missing) != now.get(key, missing)
    ]


def dotted(value: Any, prefix: str = "") -> dict[str, Any]:
    """Flatten nested mappings to {"a.b": leaf}."""
    if not isinstance(value, Mapping) or not value:
        return {prefix: value}
    flat: dict[str, Any] = {}
    for key, item in value.items():
        flat |= dotted(item, f"{prefix}.{key}" if prefix else str(key))
    return flat
