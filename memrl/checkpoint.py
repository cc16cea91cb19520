"""Checkpoints: tensors as safetensors, everything else as JSON; nothing is ever unpickled.

A checkpoint is one folder, `checkpoint-<k>`, that is written under a temporary name and renamed
into place, so that it is there completely or not at all; the one before it stays, older ones are
deleted only then. Whenever a program is killed, the newest checkpoint of a folder is a whole one.
The JSON carries the SHA-256 of the tensor file, so that damage and mixed-up files are noticed.
"""

from __future__ import annotations

import hashlib
import json
import os
import re
import shutil
from collections.abc import Mapping
from pathlib import Path
from typing import Any, cast

import safetensors.torch
import torch
from safetensors import SafetensorError

from memrl.errors import MemrlError

FORMAT = "memrl-checkpoint"
VERSION = 1
TENSORS_FILE = "tensors.safetensors"
STATE_FILE = "checkpoint.json"
_NAME = re.compile(r"checkpoint-(\d+)")


class CheckpointError(MemrlError):
    """A checkpoint is missing, damaged, of another version, or does not fit."""


def save_checkpoint(
    folder: Path, tensors: Mapping[str, torch.Tensor], state: Mapping[str, Any]
) -> Path:
    """Write a checkpoint into `folder`; of the earlier ones there the latest stays.

    Args:
        folder: created if missing.
        tensors: any shapes, dtypes and devices; tensors may share memory, and are stored apart.
        state: JSON values with string keys. Integers keep all digits and floats all bits (nan and
            infinities included, in Python's spelling); tuples come back as lists.

    Returns:
        The folder of the new checkpoint, `folder / "checkpoint-<k>"`.

    Raises:
        CheckpointError: if `state` holds something that JSON cannot.
        OSError: if the folder cannot be written.
    """
    _require_json(state, "state")
    folder.mkdir(parents=True, exist_ok=True)
    earlier = _checkpoints(folder)
    final = folder / f"checkpoint-{max(earlier, default=0) + 1}"
    temporary = folder / f".{final.name}.partial"
    if temporary.exists():
        shutil.rmtree(temporary)
    temporary.mkdir()
    payload = safetensors.torch.save(
        {key: tensor.detach().to("cpu", copy=True).contiguous() for key, tensor in tensors.items()}
    )
    header = {"format": FORMAT, "version": VERSION, "sha256": hashlib.sha256(payload).hexdigest()}
    _write(temporary / TENSORS_FILE, payload)
    _write(temporary / STATE_FILE, json.dumps({**header, "state": state}, indent=1).encode())
    _sync_folder(temporary)
    temporary.rename(final)
    _sync_folder(folder)
    for number in sorted(earlier)[:-1]:
        shutil.rmtree(earlier[number])
    return final


def has_checkpoint(folder: Path) -> bool:
    """Whether there is a checkpoint in `folder`, whole or damaged."""
    return bool(_checkpoints(folder))


def load_checkpoint(folder: Path) -> tuple[dict[str, torch.Tensor], dict[str, Any]]:
    """Read the newest checkpoint in `folder`, or `folder` itself if it is a checkpoint.

    Returns:
        The tensors, on the CPU, and the state.

    Raises:
        CheckpointError: if there is none, or it is damaged or of another version.
    """
    path = folder if (folder / STATE_FILE).exists() else _newest(folder)
    try:
        record = json.loads((path / STATE_FILE).read_bytes())
        payload = (path / TENSORS_FILE).read_bytes()
    except (OSError, ValueError) as error:
        raise CheckpointError(_damaged(path, str(error))) from error
    if not isinstance(record, dict) or record.get("format") != FORMAT:
        raise CheckpointError(_damaged(path, f"{STATE_FILE} is not of the format {FORMAT}"))
    if record.get("version") != VERSION:
        raise CheckpointError(
            f"The checkpoint {path} has version {record.get('version')}, this program reads "
            f"version {VERSION}: load it with the memrl that wrote it."
        )
    if record.get("sha256") != hashlib.sha256(payload).hexdigest():
        raise CheckpointError(_damaged(path, f"{TENSORS_FILE} has another SHA-256 than recorded"))
    state = record.get("state")
    if not isinstance(state, dict):
        raise CheckpointError(_damaged(path, f"{STATE_FILE} has no state"))
    try:
        return safetensors.torch.load(payload), state
    except SafetensorError as error:
        raise CheckpointError(_damaged(path, str(error))) from error


def module_tensors(module: torch.nn.Module, prefix: str) -> dict[str, torch.Tensor]:
    """The module's parameters and buffers under `prefix + name`, for `save_checkpoint`."""
    return {prefix + name: value for name, value in module.state_dict().items()}


def load_module(module: torch.nn.Module, tensors: Mapping[str, torch.Tensor], prefix: str) -> None:
    """Copy the tensors under `prefix` into the module, on whatever device it is.

    Raises:
        CheckpointError: if a name or a shape does not fit.
    """
    try:
        module.load_state_dict(under(prefix, tensors))
    except RuntimeError as error:
        kind = type(module).__name__
        raise CheckpointError(
            f"The checkpoint's {prefix!r} tensors do not fit this {kind}: {error}"
        ) from error


def flatten_optimizer(
    optimizer: torch.optim.Optimizer, prefix: str
) -> tuple[dict[str, torch.Tensor], dict[str, Any]]:
    """Split an optimizer's state into tensors and JSON, for `save_checkpoint`.

    Returns:
        The tensors under `prefix + "state.<parameter>.<name>"` and `prefix + "group.<i>.<name>"`
        (a learning rate can be a tensor), and the rest as {"state": ..., "groups": [...]}.
    """
    saved = optimizer.state_dict()
    tensors: dict[str, torch.Tensor] = {}

    def rest(values: Mapping[str, Any], where: str) -> dict[str, Any]:
        tensors.update(
            {f"{where}.{key}": value for key, value in values.items() if torch.is_tensor(value)}
        )
        return {key: value for key, value in values.items() if not torch.is_tensor(value)}

    state = {str(k): rest(v, f"{prefix}state.{k}") for k, v in saved["state"].items()}
    groups = [rest(v, f"{prefix}group.{i}") for i, v in enumerate(saved["param_groups"])]
    return tensors, {"state": state, "groups": groups}


def restore_optimizer(
    optimizer: torch.optim.Optimizer,
    tensors: Mapping[str, torch.Tensor],
    state: Mapping[str, Any],
    prefix: str,
) -> None:
    """Put back what `flatten_optimizer` returned, bit for bit.

    Made for optimizers that keep scalars and tensors of the parameter's shape (Adam, AdamW, SGD).

    Raises:
        CheckpointError: if it comes from another kind of optimizer or other parameters.
    """
    try:
        per_parameter = {int(key): dict(values) for key, values in state["state"].items()}
        groups = [dict(values) for values in state["groups"]]
        for key, tensor in under(prefix, tensors).items():
            kind, index, name = key.split(".", 2)
            place = per_parameter if kind == "state" else groups
            # Cloned: an optimizer updates its state in place, the caller's tensors stay as read.
            cast("Any", place)[int(index)][name] = tensor.clone()
        for group, current in zip(groups, optimizer.param_groups, strict=True):
            _require_fit(group, current, per_parameter)
            group.update({k: tuple(group[k]) for k, v in current.items() if isinstance(v, tuple)})
        optimizer.load_state_dict({"state": per_parameter, "param_groups": groups})
    except (KeyError, IndexError, ValueError, TypeError, AttributeError) as error:
        kind = type(optimizer).__name__
        raise CheckpointError(
            f"The checkpoint's {prefix!r} state does not fit this {kind}: {error}"
        ) from error


def _require_fit(
    group: Mapping[str, Any], current: Mapping[str, Any], state: Mapping[int, Mapping[str, Any]]
) -> None:
    """Raise ValueError unless a saved parameter group has the options and shapes of `current`."""
    if set(group) != set(current):
        different = ", ".join(sorted(set(group) ^ set(current)))
        raise ValueError(f"the parameter groups differ in {different}")
    for index, parameter in zip(group["params"], current["params"], strict=True):
        for name, value in state.get(index, {}).items():
            if torch.is_tensor(value) and value.dim() and value.shape != parameter.shape:
                shapes = f"{tuple(value.shape)}, not {tuple(parameter.shape)}"
                raise ValueError(f"{name} of parameter {index} has the shape {shapes}")


def under(prefix: str, tensors: Mapping[str, torch.Tensor]) -> dict[str, torch.Tensor]:
    """The tensors whose names begin with a prefix, by the rest of their names."""
    return {k.removeprefix(prefix): v for k, v in tensors.items() if k.startswith(prefix)}


def _checkpoints(folder: Path) -> dict[int, Path]:
    """The whole checkpoints in `folder` by number."""
    if not folder.is_dir():
        return {}
    matches = [(_NAME.fullmatch(path.name), path) for path in folder.iterdir()]
    return {int(match[1]): path for match, path in matches if match}


def _newest(folder: Path) -> Path:
    found = _checkpoints(folder)
    if not found:
        raise CheckpointError(
            f"There is no checkpoint in {folder}: the run ended before its first one, "
            "or this is not its folder."
        )
    return found[max(found)]


def _damaged(path: Path, reason: str) -> str:
    return (
        f"The checkpoint {path} is damaged ({reason}): delete it to go on from the one before it, "
        "if there is one, or from the beginning."
    )


def _require_json(value: Any, where: str) -> None:
    """Raise CheckpointError unless JSON can hold the value and give it back."""
    if isinstance(value, Mapping):
        for key, item in value.items():
            if not isinstance(key, str):
                raise CheckpointError(
                    f"Cannot save {where}: its key {key!r} is of type {type(key).__name__}, "
                    "and JSON has text keys only; convert it."
                )
            _require_json(item, f"{where}.{key}")
    elif isinstance(value, list | tuple):
        for index, item in enumerate(value):
            _require_json(item, f"{where}[{index}]")
    elif type(value) not in (bool, int, float, str, type(None)):
        raise CheckpointError(
            f"Cannot save {where}: JSON has no place for type {type(value).__name__}; "
            "convert it, or save it among the tensors."
        )


def _write(path: Path, payload: bytes) -> None:
    with path.open("wb") as file:
        file.write(payload)
        file.flush()
        os.fsync(file.fileno())


def _sync_folder(folder: Path) -> None:
    """Make renames in `folder` survive a power cut."""
    handle = os.open(folder, os.O_RDONLY)
    try:
        os.fsync(handle)
    finally:
        os.close(handle)
