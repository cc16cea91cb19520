"""Reading parts of data sets whole, and what comes of it: files, versions, records, repairs."""

from __future__ import annotations

import time
from collections import Counter
from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import NamedTuple

from envs.workloads import is_derived
from envs.workloads.catalogue import Part
from envs.workloads.files import DataFormatError, provenance_of, read_bytes, unknown_files
from memrl.documents import Workload

_DROPPED = ("dropped", "left out", "skipped", "ignored")
_NOTED = ("kept", "left as cited")
"""Words of the descriptions in `Workload.repairs`: of what was not used, and used as it was."""


class Tally(NamedTuple):
    """How many things a loader mended, did not use, and derived because the source lacks them."""

    repaired: int
    dropped: int
    derived: int


@dataclass(frozen=True, slots=True)
class Checked:
    """A part that was read.

    Attributes:
        part: which.
        workload: what was loaded; None where no loader reads the part, or where it is damaged.
        files: by name below the data set's folder `sha256` and `version`.
        seconds: that it took.
        damage: what is wrong with a file; "" for nothing.
    """

    part: Part
    workload: Workload | None
    files: Mapping[str, Mapping[str, str]]
    seconds: float
    damage: str

    @property
    def unknown(self) -> list[str]:
        """Names of the files of an unknown version."""
        return unknown_files({"files": self.files})


def check(part: Part, root: Path) -> Checked:
    """Reads a part whose files are there.

    Args:
        part: the part. root: the data folder.
    """
    start = time.perf_counter()
    workload, damage = None, ""
    paths = part.present(root)
    try:
        if part.load is not None:
            workload = part.load(root)
        for path in paths:
            read_bytes(path)
    except DataFormatError as error:
        damage = str(error)
    # A loader may have read more than the part takes.
    provenance = workload.provenance if workload else provenance_of(part.source, paths)
    files = provenance["files"]
    assert isinstance(files, dict)
    return Checked(part, workload, files, time.perf_counter() - start, damage)


def tally(repairs: Mapping[str, int]) -> Tally:
    """How many things a loader mended, dropped and derived; notes count as none of them.

    Args:
        repairs: see `Workload`; the descriptions say what was done.
    """
    counts = Counter[str]()
    for what, count in repairs.items():
        is_dropped = any(word in what for word in _DROPPED)
        is_noted = any(word in what for word in _NOTED)
        kind = "dropped" if is_dropped else "noted" if is_noted else "repaired"
        counts["derived" if is_derived(what) else kind] += count
    return Tally(counts["repaired"], counts["dropped"], counts["derived"])
