"""How the files of a run folder are written and read back.

JSON is strict here, so that any reader takes it: a number that is not finite becomes null. Files
are replaced whole; only metrics are appended to, and there a torn last line is expected.
"""

from __future__ import annotations

import json
import math
from collections.abc import Mapping
from enum import Enum
from pathlib import Path
from typing import Any

import yaml
from pydantic import ValidationError

from memrl.errors import MemrlError

CONFIG_FILE = "config.yaml"
PROVENANCE_FILE = "provenance.json"
METRICS_FILE = "metrics.jsonl"
EPISODES_FILE = "episodes.jsonl"
RESULTS_FILE = "results.json"
CALIBRATION_FILE = "calibration.json"
STRIP_FILE = "strip.json"
_ELSEWHERE = "start the run again elsewhere."


class RunError(MemrlError):
    """A run folder cannot be used as asked."""


def plain(value: Any) -> Any:
    """The value in types that JSON and YAML know: tuples and arrays as lists, paths as text."""
    if isinstance(value, Mapping):
        return {str(key): plain(item) for key, item in value.items()}
    if isinstance(value, list | tuple):
        return [plain(item) for item in value]
    if isinstance(value, Enum):
        return plain(value.value)
    if isinstance(value, Path):
        return str(value)
    # NumPy and torch alike: a scalar or a nested list.
    return value.tolist() if hasattr(value, "tolist") else value


def strict_json(value: Any, indent: int | None = None) -> str:
    """JSON text of a plain value; numbers that are not finite become null."""
    return json.dumps(_finite(value), indent=indent, allow_nan=False, ensure_ascii=False)


def replace_text(path: Path, text: str) -> None:
    """Write a file so that it is there with the old or the new text, never with a part."""
    temporary = path.with_name(f".{path.name}.partial")
    temporary.write_text(text, encoding="utf-8", newline="")
    temporary.replace(path)


def config_text(config: Mapping[str, Any]) -> str:
    """YAML text of a plain configuration.

    Raises:
        RunError: if it holds something that YAML cannot.
    """
    try:
        return yaml.safe_dump(config, sort_keys=False, allow_unicode=True)
    except yaml.YAMLError as error:
        raise RunError(f"The configuration cannot be written as YAML: {error}") from error


def read_config(folder: Path) -> dict[str, Any]:
    """The configuration that a run folder was started with, as plain nested mappings.

    Raises:
        RunError: if it is missing or damaged.
    """
    path = folder / CONFIG_FILE
    try:
        config = yaml.safe_load(path.read_text(encoding="utf-8"))
    except FileNotFoundError as error:
        raise RunError(f"{path} is missing: {folder} is not the folder of a run.") from error
    except OSError as error:
        raise RunError(f"{path} cannot be read ({error}): {_ELSEWHERE}") from error
    except (yaml.YAMLError, UnicodeDecodeError, RecursionError) as error:
        reason = " ".join(str(error).split())
        raise RunError(f"{path} is damaged ({reason}): {_ELSEWHERE}") from error
    if not isinstance(config, dict):
        raise RunError(f"{path} is damaged (no mapping): {_ELSEWHERE}")
    return config


def read_starts(path: Path) -> list[dict[str, Any]]:
    """The provenance records in `path`, one for each start of the program; none without the file.

    Raises:
        RunError: if the file is there and not such a list.
    """
    if not path.exists():
        return []
    try:
        starts = json.loads(path.read_text(encoding="utf-8"))["starts"]
    except (OSError, ValueError, KeyError, TypeError, RecursionError) as error:
        raise RunError(f"{path} is damaged ({error}): {_ELSEWHERE}") from error
    if not isinstance(starts, list) or not all(isinstance(start, dict) for start in starts):
        raise RunError(f"{path} is damaged (no list of records): {_ELSEWHERE}")
    return starts


def append_start(path: Path, record: Mapping[str, Any]) -> None:
    """Add the provenance of one start to the list in `path`.

    Raises:
        RunError: if the file is there and not such a list.
    """
    replace_text(path, strict_json({"starts": [*read_starts(path), record]}, indent=1) + "\n")


def read_metrics(path: Path, last_step: int) -> tuple[list[dict[str, Any]], int]:
    """The metrics up to and including `last_step`, and how many bytes their lines take.

    Raises:
        RunError: if the file cannot be read, or a line is damaged; a last one without its end was
            torn and is left out.
    """
    try:
        lines = path.read_bytes().splitlines(keepends=True) if path.exists() else []
    except OSError as error:
        raise RunError(f"{path} cannot be read ({error}): repair or delete it.") from error
    rows: list[dict[str, Any]] = []
    kept_bytes = 0
    for number, line in enumerate(lines, start=1):
        if not line.endswith(b"\n"):
            break
        try:
            row = json.loads(line)
            step = int(row["global_step"])
        except (ValueError, KeyError, TypeError, OverflowError, RecursionError) as error:
            raise RunError(f"Line {number} of {path} is damaged: repair or delete it.") from error
        if step > last_step:
            break
        rows.append(row)
        kept_bytes += len(line)
    return rows, kept_bytes


def first_mistake(error: ValidationError) -> str:
    """The first thing that pydantic did not accept: where it is, and what is wrong with it."""
    mistake = error.errors(include_url=False)[0]
    where = ".".join(map(str, mistake["loc"]))
    return f"{where}: {mistake['msg']}" if where else str(mistake["msg"])


def _finite(value: Any) -> Any:
    if isinstance(value, dict):
        return {key: _finite(item) for key, item in value.items()}
    if isinstance(value, list):
        return [_finite(item) for item in value]
    return None if isinstance(value, float) and not math.isfinite(value) else value
