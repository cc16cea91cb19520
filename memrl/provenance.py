"""What a result depends on besides its configuration: code, versions, device, data, command, seeds.

The record is meant to be published with the result. It holds no absolute path, no host or user name
and no environment variable.
"""

from __future__ import annotations

import os
import platform
import subprocess
from collections.abc import Mapping, Sequence
from datetime import UTC, datetime
from importlib import metadata
from pathlib import Path
from typing import Any

import torch

from memrl.launch import launched

PACKAGES = (
    "memrl",
    "torch",
    "numpy",
    "scipy",
    "scikit-learn",
    "gymnasium",
    "transformers",
    "tokenizers",
    "sentence-transformers",
    "safetensors",
    "faiss-cpu",
    "faiss-gpu",
    "snowballstemmer",
    "wandb",
    "trl",
    "peft",
    "llguidance",
)
_GIT_TIMEOUT_S = 20.0


def collect_provenance(
    command: Sequence[str], seed_streams: Mapping[str, Any], data: Mapping[str, Any]
) -> dict[str, Any]:
    """Describe this start of a program as a JSON-able record.

    Args:
        command: the command line, as in `sys.argv`. Absolute paths in it are shortened: to a
            relative path inside the working directory, elsewhere to `.../<last part>`.
        seed_streams: `Streams.describe()`.
        data: names and content hashes of the data sets and tables in use; recorded as given.

    Returns:
        A record with `started_utc`, `command`, `code` (commit, dirty), `versions`, `machine`,
        `seeds` and `data`. `code.commit` and `code.dirty` are None outside a git checkout.
    """
    return {
        "started_utc": datetime.now(UTC).isoformat(timespec="seconds"),
        "command": [_without_machine_path(argument) for argument in command],
        "code": _code_version(Path(__file__).resolve()),
        "versions": _versions(),
        "machine": _machine(),
        "seeds": dict(seed_streams),
        "data": dict(data),
    }


def _without_machine_path(argument: str) -> str:
    """Shorten the path in `path` or `--option=path` when it is absolute."""
    option, equals, value = argument.rpartition("=")
    if not os.path.isabs(value):
        return argument
    path = Path(os.path.normpath(value))
    if path.is_relative_to(Path.cwd()):
        return f"{option}{equals}{path.relative_to(Path.cwd())}"
    return f"{option}{equals}.../{path.name}"


def _code_version(source: Path) -> dict[str, Any]:
    """Commit of the checkout that tracks `source`; dirty counts untracked files as well.

    An installed copy can lie inside somebody else's checkout (a virtual environment does), whose
    commit says nothing about this code: hence the question whether git tracks the file itself.
    """
    tracked = _git(source.parent, "ls-files", "--error-unmatch", source.name)
    commit = _git(source.parent, "rev-parse", "HEAD") if tracked is not None else None
    status = _git(source.parent, "status", "--porcelain") if commit is not None else None
    return {"commit": commit, "dirty": None if status is None else bool(status)}


def _git(folder: Path, *arguments: str) -> str | None:
    """Output of a git command in `folder`, or None when there is no git or no such thing in it."""
    # Inside a git hook these variables point to the repository that runs the hook.
    environment = {key: value for key, value in os.environ.items() if not key.startswith("GIT_")}
    try:
        done = subprocess.run(
            ["git", "-C", str(folder), *arguments],
            capture_output=True,
            text=True,
            check=True,
            timeout=_GIT_TIMEOUT_S,
            env=environment,
        )
    except (OSError, subprocess.SubprocessError):
        return None
    return done.stdout.strip()


def _versions() -> dict[str, str]:
    """Installed versions from the packages' metadata; what is not installed is left out."""
    versions = {"python": platform.python_version()}
    for package in PACKAGES:
        try:
            versions[package] = metadata.version(package)
        except metadata.PackageNotFoundError:
            continue
    return versions


def _machine() -> dict[str, Any]:
    """Operating system, processor, accelerators, counts of threads and of processes that learn."""
    cuda = torch.cuda.is_available()
    return {
        "platform": platform.platform(),
        "processor": platform.machine(),
        "cpu_count": os.cpu_count(),
        "torch_threads": torch.get_num_threads(),
        "processes": launched()[1],
        "cuda": torch.version.cuda if cuda else None,
        "cuda_devices": [
            torch.cuda.get_device_name(index)
            for index in range(torch.cuda.device_count() if cuda else 0)
        ],
    }
