"""The wandb side of a run: a mirror of its folder that can never end the run it mirrors.

Callers hold a `Mirror` and never ask whether wandb is on; when it is off they hold a `NullMirror`.
wandb is imported only where it is used. In the mode `offline` nothing here waits for a network.
"""

from __future__ import annotations

import os
import warnings
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import TYPE_CHECKING, Any, Literal, Protocol, cast

if TYPE_CHECKING:
    import wandb

WandbMode = Literal["online", "offline", "disabled"]
_MODES: Mapping[str, WandbMode] = {
    "online": "online",
    "offline": "offline",
    "disabled": "disabled",
    # Spellings that wandb still accepts in WANDB_MODE.
    "run": "online",
    "dryrun": "offline",
}
_INIT_TIMEOUT_S = 30.0


class Mirror(Protocol):
    """Where a run's numbers and files are shown besides its folder."""

    def log(self, row: Mapping[str, Any]) -> None:
        """Show one row of metrics; it holds its `global_step`."""

    def table(self, name: str, columns: Sequence[str], rows: Sequence[Sequence[Any]]) -> None:
        """Show a table; a later one of the same name takes its place."""

    def image(self, name: str, path: Path) -> None:
        """Show a picture; a later one of the same name takes its place."""

    def artifact(self, name: str, kind: str, paths: Sequence[Path]) -> None:
        """Copy files, and folders with all they hold, as a new version of artifact `name`."""

    def summary(self, results: Mapping[str, Any]) -> None:
        """Set the run's final results."""

    def close(self, exit_code: int) -> None:
        """Finish; 0 means success."""


class NullMirror:
    """A mirror that shows nothing."""

    def log(self, row: Mapping[str, Any]) -> None:
        """Ignore the row."""

    def table(self, name: str, columns: Sequence[str], rows: Sequence[Sequence[Any]]) -> None:
        """Ignore the table."""

    def image(self, name: str, path: Path) -> None:
        """Ignore the picture."""

    def artifact(self, name: str, kind: str, paths: Sequence[Path]) -> None:
        """Ignore the files."""

    def summary(self, results: Mapping[str, Any]) -> None:
        """Ignore the results."""

    def close(self, exit_code: int) -> None:
        """Do nothing."""


@dataclass
class WandbMirror:
    """A started wandb run. What wandb fails at is warned of, once per kind of call."""

    run: wandb.Run
    _failed: set[str] = field(default_factory=set)

    def log(self, row: Mapping[str, Any]) -> None:
        """Log the row; the x-axis of every metric is `global_step`."""
        self._attempt("log metrics", lambda: self.run.log(dict(row)))

    def table(self, name: str, columns: Sequence[str], rows: Sequence[Sequence[Any]]) -> None:
        """Log a `wandb.Table`."""
        import wandb

        def call() -> None:
            data = [list(row) for row in rows]
            table = wandb.Table(columns=list(columns), data=data, allow_mixed_types=True)
            self.run.log({name: table})

        self._attempt("log a table", call)

    def image(self, name: str, path: Path) -> None:
        """Log a `wandb.Image`; the file is copied before this returns."""
        import wandb

        self._attempt("log a picture", lambda: self.run.log({name: wandb.Image(str(path))}))

    def artifact(self, name: str, kind: str, paths: Sequence[Path]) -> None:
        """Log a `wandb.Artifact`; the files are copied before this returns."""
        import wandb

        def call() -> None:
            artifact = wandb.Artifact(name, kind)
            for path in paths:
                if path.is_dir():
                    artifact.add_dir(str(path), name=path.name)  # several may hold the same names
                else:
                    artifact.add_file(str(path))
            self.run.log_artifact(artifact)

        self._attempt("store an artifact", call)

    def summary(self, results: Mapping[str, Any]) -> None:
        """Write the results to the run's summary."""
        self._attempt("write the summary", lambda: self.run.summary.update(dict(results)))

    def close(self, exit_code: int) -> None:
        """Finish the wandb run."""
        self._attempt("finish", lambda: self.run.finish(exit_code=exit_code))

    def _attempt(self, what: str, call: Callable[[], object]) -> None:
        try:
            call()
        except Exception as error:  # whatever wandb runs into, the run goes on
            if what not in self._failed:
                self._failed.add(what)
                warnings.warn(
                    f"wandb could not {what} ({error}); the run goes on, and its folder has it.",
                    RuntimeWarning,
                    stacklevel=3,
                )


def resolve_mode(mode: WandbMode | None) -> WandbMode:
    """The mode asked for, else that of the environment variable WANDB_MODE, else `offline`.

    Raises:
        ValueError: if the mode or WANDB_MODE is none of the known ones.
    """
    asked = mode or os.environ.get("WANDB_MODE") or "offline"
    if asked not in _MODES:
        raise ValueError(f"The wandb mode is {asked!r}: use online, offline or disabled.")
    return _MODES[asked]


def start_mirror(mode: WandbMode, folder: Path, **init: Any) -> Mirror:
    """Start a wandb run whose files lie in `folder / "wandb"`.

    When `online` cannot start (no key, no network), `offline` is tried; when that fails too, the
    run goes on without wandb. Either is warned of.

    Args:
        mode: `disabled` imports and starts nothing.
        folder: an existing folder.
        init: name, config, group, tags and job_type as `wandb.init` takes them.
    """
    attempts: tuple[WandbMode, ...] = ("online", "offline") if mode == "online" else (mode,)
    for attempt in attempts:
        if attempt == "disabled":
            break
        try:
            return WandbMirror(_init(attempt, folder, init))
        except Exception as error:  # wandb raises many kinds, and none of them may cost the run
            warnings.warn(
                f"wandb could not start {attempt} ({error}); "
                "the run goes on, and its folder has everything.",
                RuntimeWarning,
                stacklevel=3,
            )
    return NullMirror()


def _init(mode: WandbMode, folder: Path, init: Mapping[str, Any]) -> wandb.Run:
    import wandb

    run = wandb.init(
        mode=cast("Any", mode),
        dir=folder,
        project=os.environ.get("WANDB_PROJECT", "memrl"),
        # A program may hold several runs at once, and another tool's run is not ours to end.
        reinit="create_new",
        # Console capture would store every redraw of a progress bar.
        settings=wandb.Settings(init_timeout=_INIT_TIMEOUT_S, console="off"),
        **init,
    )
    run.define_metric("*", step_metric="global_step")
    return run
