"""What the training data fixed for a run: its options in numbers, and its lexical statistics.

A run folder holds it in `world.json`, so that what was learned can be used without the data.
"""

from __future__ import annotations

import dataclasses
import json
from dataclasses import dataclass
from pathlib import Path

from memrl.checkpoint import CheckpointError
from memrl.memory.bm25 import Bm25Statistics
from memrl.options import PagingOptions
from memrl.run_files import replace_text, strict_json

WORLD_FILE = "world.json"
_VERSION = 1


@dataclass(frozen=True)
class World:
    """The rules that a policy learned under.

    Attributes:
        options: resolved by the training table.
        statistics: of the training documents; None for a page cache, whose pages have no text.
    """

    options: PagingOptions
    statistics: Bm25Statistics | None


def save_world(folder: Path, world: World) -> None:
    """Write `world.json` into a run folder."""
    record = {
        "version": _VERSION,
        "options": dataclasses.asdict(world.options),
        "statistics": None if world.statistics is None else world.statistics.to_dict(),
    }
    replace_text(folder / WORLD_FILE, strict_json(record) + "\n")


def load_world(folder: Path) -> World | None:
    """Read `world.json`; None where a run of an earlier version left none.

    Raises:
        CheckpointError: if it is damaged or of another version.
    """
    path = folder / WORLD_FILE
    if not path.exists():
        return None
    try:
        record = json.loads(path.read_text(encoding="utf-8"))
        if record["version"] != _VERSION:
            raise ValueError(f"version {record['version']}, not {_VERSION}")
        statistics = record["statistics"]
        return World(
            PagingOptions(**record["options"]),
            None if statistics is None else Bm25Statistics.from_dict(statistics),
        )
    except (ValueError, KeyError, TypeError) as error:
        raise CheckpointError(
            f"{path} is damaged or of another version ({error}): delete it, it is made again from "
            "the data."
        ) from error
