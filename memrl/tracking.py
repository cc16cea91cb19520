"""A run is a folder, `runs/<name>/seed<k>`, that holds all there is to know about it.

    config.yaml       resolved configuration; the run can be repeated from it
    provenance.json   one record for each start of the program, in order
    metrics.jsonl     one JSON object a line, each with its `global_step`, in order of steps
    tables/<name>.csv tables; a later one of the same name takes its place
    results.json      the final results
    wandb/            what wandb keeps, unless it is disabled

JSON here is strict, so that any reader takes it: a number that is not finite becomes null (wandb
gets the number itself). The folder is the truth and wandb a mirror of it.
"""

from __future__ import annotations

import csv
import os
import re
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from types import TracebackType
from typing import Any, Literal, Self

from memrl.resuming import require_config_file, require_same_config, require_same_data
from memrl.run_files import (
    CONFIG_FILE,
    METRICS_FILE,
    PROVENANCE_FILE,
    RESULTS_FILE,
    RunError,
    append_start,
    config_text,
    plain,
    read_metrics,
    replace_text,
    strict_json,
)
from memrl.wandb_mirror import Mirror, NullMirror, WandbMode, resolve_mode, start_mirror

_RUN_NAME = re.compile(r"[A-Za-z0-9][A-Za-z0-9._-]*")
_TABLE_NAME = re.compile(r"[A-Za-z0-9_-]+(/[A-Za-z0-9_-]+)*")


@dataclass
class Run:
    """An open run; also a context manager that closes it when the program fails.

    Attributes:
        folder: where everything of this run lies, checkpoints included.
        name: of the run; with `if_used="number"` it may differ from the one asked for.
        seed: of the run.
        resumed: whether the folder was there before; then `rewind` comes before the first `log`.
    """

    folder: Path
    name: str
    seed: int
    resumed: bool
    mirror: Mirror = field(repr=False)
    _last_step: int | None = field(default=None, init=False, repr=False)
    _ready: bool = field(init=False, repr=False)
    _open: bool = field(default=True, init=False, repr=False)

    def __post_init__(self) -> None:
        self._ready = not self.resumed

    def log(self, global_step: int, metrics: Mapping[str, Any]) -> None:
        """Append one line of metrics.

        Args:
            global_step: environment steps so far; not below that of an earlier line.
            metrics: numbers (scalar arrays and tensors too), texts, booleans and None.

        Raises:
            RunError: if the step goes backwards, or a resumed run has not been rewound yet.
        """
        if not self._ready:
            raise RunError(f"The run {self.folder} was resumed: call rewind(global_step) first.")
        if self._last_step is not None and global_step < self._last_step:
            raise RunError(
                f"Step {global_step} was logged after step {self._last_step} in {self.folder}: "
                "log in order of steps."
            )
        if "global_step" in metrics:
            raise RunError("A metric cannot be called global_step: that is the step itself.")
        row = {"global_step": int(global_step)} | {k: plain(v) for k, v in metrics.items()}
        with (self.folder / METRICS_FILE).open("a", encoding="utf-8") as file:
            file.write(strict_json(row) + "\n")
        self._last_step = int(global_step)
        self.mirror.log(row)

    def rewind(self, global_step: int) -> None:
        """Drop the lines of a resumed run that lie after the checkpoint it continues from.

        A checkpoint is taken after everything of its step has been logged. Then the file of a
        resumed run holds the lines of an uninterrupted one. The lines kept are logged again to the
        mirror, where every start is a run of its own: the newest one is complete.

        Raises:
            RunError: if the run was not resumed or has logged already, or if a line before the
                last one is damaged. A torn last line is dropped.
        """
        if self._ready:
            raise RunError(f"The run {self.folder} has begun: only a resumed one is rewound, once.")
        kept, kept_bytes = read_metrics(self.folder / METRICS_FILE, global_step)
        if (self.folder / METRICS_FILE).exists():
            os.truncate(self.folder / METRICS_FILE, kept_bytes)
        for row in kept:
            self.mirror.log({key: value for key, value in row.items() if value is not None})
        self._last_step = kept[-1]["global_step"] if kept else None
        self._ready = True

    def log_table(self, name: str, columns: Sequence[str], rows: Sequence[Sequence[Any]]) -> None:
        """Write a table as `tables/<name>.csv`; one of the same name is replaced.

        Args:
            name: letters, digits, "_", "-", with "/" for subfolders.
            columns: their names.
            rows: one value for each column; None is written as an empty field.

        Raises:
            RunError: if the name is unusable or a row has another length than `columns`.
        """
        if not _TABLE_NAME.fullmatch(name):
            raise RunError(f"A table cannot be called {name!r}: use letters, digits, _, - and /.")
        values: list[list[Any]] = [plain(row) for row in rows]
        for index, row in enumerate(values):
            if len(row) != len(columns):
                raise RunError(
                    f"Row {index} of table {name!r} has {len(row)} values for "
                    f"{len(columns)} columns."
                )
        path = self.folder / "tables" / f"{name}.csv"
        path.parent.mkdir(parents=True, exist_ok=True)
        temporary = path.with_suffix(".partial")
        with temporary.open("w", newline="", encoding="utf-8") as file:
            csv.writer(file).writerows([list(columns), *values])
        temporary.replace(path)
        self.mirror.table(name, columns, values)

    @property
    def is_mirrored(self) -> bool:
        """Whether anything is shown outside the folder, so that a picture is worth drawing."""
        return not isinstance(self.mirror, NullMirror)

    def log_image(self, name: str, path: Path) -> None:
        """Show a picture of the run folder in the mirror, under a name like a metric's."""
        self.mirror.image(name, path)

    def log_artifact_files(self, name: str, kind: str, paths: Sequence[Path]) -> None:
        """Give copies of files or folders to the mirror, as a new version of artifact `name`.

        Args:
            name: letters, digits, ".", "_", "-"; the run's name and seed are put before it.
            kind: for example "checkpoint" or "report".
            paths: existing files and folders.
        """
        self.mirror.artifact(f"{self.name}-s{self.seed}-{name}", kind, paths)

    def finish(self, results: Mapping[str, Any]) -> None:
        """Write the final results and close the run."""
        record = plain(results)
        replace_text(self.folder / RESULTS_FILE, strict_json(record, indent=1) + "\n")
        self.mirror.summary(record)
        self.close(exit_code=0)

    def close(self, exit_code: int) -> None:
        """Close the mirror; 0 means success. A second call does nothing."""
        if self._open:
            self._open = False
            self.mirror.close(exit_code)

    def __enter__(self) -> Self:
        """Return the run itself."""
        return self

    def __exit__(
        self,
        kind: type[BaseException] | None,
        error: BaseException | None,
        trace: TracebackType | None,
    ) -> None:
        """Close the run, as failed when an exception (Ctrl-C too) leaves the block."""
        self.close(exit_code=0 if error is None else 1)


def run_folder(root: Path, name: str, seed: int) -> Path:
    """The folder of a run.

    Raises:
        RunError: if the name could not be a folder's name.
    """
    if not _RUN_NAME.fullmatch(name):
        raise RunError(
            f"A run cannot be called {name!r}: use letters, digits, '.', '_' and '-', "
            "and begin with a letter or a digit."
        )
    return root / name / f"seed{seed}"


def start_run(
    root: Path,
    name: str,
    seed: int,
    config: Mapping[str, Any],
    provenance: Mapping[str, Any],
    *,
    resume: bool = False,
    if_used: Literal["refuse", "number"] = "refuse",
    wandb_mode: WandbMode | None = None,
    group: str | None = None,
    tags: Sequence[str] = (),
    job_type: str = "train",
) -> Run:
    """Open a new run folder, or with `resume` the one that is there.

    Args:
        root: the folder of all runs; created if missing.
        name: of the run, usually that of its preset.
        seed: of the run.
        config: resolved configuration, nested; without what may change on resuming. Its `name` is
            set to the run's.
        provenance: of this start (`collect_provenance`).
        resume: continue the run of exactly this name and seed, under the same configuration.
        if_used: what to do when the folder is used: refuse, or take the first free one of
            `<name>-2`, `<name>-3`, ...
        wandb_mode: None asks the environment variable WANDB_MODE, and else is `offline`.
        group: of the wandb run; the name if None.
        tags: of the wandb run.
        job_type: of the wandb run.

    Raises:
        RunError: if the folder is used, or cannot be resumed, read or written.
    """
    settings = plain(config)
    try:
        mode = resolve_mode(wandb_mode)
    except ValueError as error:
        raise RunError(str(error)) from error
    try:
        if resume:
            folder = run_folder(root, name, seed)
            require_same_config(folder, settings | {"name": name})
            require_same_data(folder, provenance.get("data", {}))
        else:
            folder = _new_folder(root, name, seed, if_used, settings)
        append_start(folder / PROVENANCE_FILE, plain(provenance))
    except OSError as error:
        raise _unusable(run_folder(root, name, seed), error) from error
    name = folder.parent.name
    mirror = start_mirror(
        mode,
        folder,
        name=f"{name}-s{seed}",
        config=settings | {"name": name},
        group=group or name,
        tags=list(tags),
        job_type=job_type,
    )
    run = Run(folder, name, seed, resumed=resume, mirror=mirror)
    files = [folder / CONFIG_FILE, folder / PROVENANCE_FILE]
    run.log_artifact_files("provenance", "provenance", files)
    return run


def require_startable(root: Path, name: str, seed: int, *, resume: bool, if_used: str) -> None:
    """Raise RunError where `start_run` would, as far as the folders show; before long work."""
    folder = run_folder(root, name, seed)
    if resume:
        require_config_file(folder)
        return
    if if_used == "refuse":
        require_unused(folder)
    try:
        folder.parent.mkdir(parents=True, exist_ok=True)
    except OSError as error:
        raise _unusable(folder, error) from error


def require_unused(folder: Path) -> None:
    """Raise RunError if a run folder holds anything."""
    if folder.exists() and any(folder.iterdir()):
        raise _used(folder)


def _unusable(folder: Path, error: OSError) -> RunError:
    return RunError(
        f"The run folder {folder} cannot be used ({error}): make it readable and writable, or take "
        "another root folder."
    )


def _used(folder: Path) -> RunError:
    return RunError(
        f"The run folder {folder} is used already: continue that run with --resume true, "
        "take another --name, or delete the folder."
    )


def _new_folder(
    root: Path, name: str, seed: int, if_used: str, settings: Mapping[str, Any]
) -> Path:
    """Create a run folder and claim it by its configuration file, which states the run's name."""
    number = 1
    while True:
        numbered = name if number == 1 else f"{name}-{number}"
        folder = run_folder(root, numbered, seed)
        config = config_text({**settings, "name": numbered})
        folder.mkdir(parents=True, exist_ok=True)
        if not any(folder.iterdir()):
            try:
                # "x": of two programs that start at once, one gets the folder.
                with (folder / CONFIG_FILE).open("x", encoding="utf-8") as file:
                    file.write(config)
            except FileExistsError:
                pass
            else:
                return folder
        if if_used == "refuse":
            raise _used(folder)
        number += 1
