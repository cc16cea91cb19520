from __future__ import annotations

import json
import math
import os
import shutil
import signal
import subprocess
import sys
import time
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
import torch
from torch import nn

from memrl import checkpoint
from memrl.checkpoint import (
    CheckpointError,
    flatten_optimizer,
    load_checkpoint,
    load_module,
    module_tensors,
    restore_optimizer,
    save_checkpoint,
)

STATE: dict[str, Any] = {"global_step": 5, "nested": {"list": [1, None, "ü"], "flag": True}}


def tensors() -> dict[str, torch.Tensor]:
    generator = torch.Generator().manual_seed(0)
    weights = torch.rand(3, 4, generator=generator)
    return {
        "float": weights,
        "transposed": weights.T,  # not contiguous, and shares memory with the first
        "same": weights,
        "half": weights.to(torch.bfloat16),
        "scalar": torch.tensor(-0.0),
        "special": torch.tensor([math.nan, math.inf, -math.inf]),
        "counts": torch.tensor([2**62, -1]),
        "mask": torch.tensor([True, False]),
        "empty": torch.zeros(0, 3),
    }


def assert_bit_equal(first: dict[str, torch.Tensor], second: dict[str, torch.Tensor]) -> None:
    assert first.keys() == second.keys()
    for key, tensor in first.items():
        assert tensor.dtype == second[key].dtype, key
        assert tensor.shape == second[key].shape, key
        bits = [
            t.detach().contiguous().reshape(-1).view(torch.uint8) for t in (tensor, second[key])
        ]
        assert torch.equal(*bits), key


def test_everything_comes_back_bit_equal(tmp_path: Path) -> None:
    state = STATE | {"big": 2**200 + 1, "lr": 0.1 + 0.2, "best": -math.inf}
    path = save_checkpoint(tmp_path, tensors(), state)
    for folder in (tmp_path, path):
        loaded, loaded_state = load_checkpoint(folder)
        assert_bit_equal(loaded, tensors())
        assert loaded_state == state


def test_loaded_tensors_share_nothing(tmp_path: Path) -> None:
    save_checkpoint(tmp_path, tensors(), STATE)
    loaded, _ = load_checkpoint(tmp_path)
    loaded["float"].zero_()
    assert torch.equal(loaded["same"], tensors()["same"])


def test_the_newest_is_found_and_the_one_before_it_kept(tmp_path: Path) -> None:
    for step in range(12):  # two digits: 10 comes after 9
        save_checkpoint(tmp_path, {"step": torch.tensor(step)}, {"global_step": step})
        loaded, state = load_checkpoint(tmp_path)
        assert loaded["step"].item() == state["global_step"] == step
        kept = {f"checkpoint-{number}" for number in (step, step + 1) if number}
        assert {path.name for path in tmp_path.iterdir()} == kept


@pytest.mark.parametrize(
    ("crash_at", "call", "survives"),
    [
        ("_write", 1, 2),
        ("_write", 2, 2),
        ("_sync_folder", 1, 2),
        ("_sync_folder", 2, 3),  # after the rename
        ("rmtree", 1, 3),
        ("rmtree", 2, 3),
    ],
)
def test_a_crash_at_any_point_leaves_a_whole_checkpoint(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, crash_at: str, call: int, survives: int
) -> None:
    save_checkpoint(tmp_path, {"step": torch.tensor(1)}, {"global_step": 1})
    save_checkpoint(tmp_path, {"step": torch.tensor(2)}, {"global_step": 2})
    if crash_at == "rmtree":
        # As if an earlier crash had come between the rename and the deletion.
        (tmp_path / "checkpoint-0").mkdir()
    target: Any = shutil if crash_at == "rmtree" else checkpoint
    real: Callable[..., None] = getattr(target, crash_at)
    calls = 0

    def crash(*arguments: Any) -> None:
        nonlocal calls
        calls += 1
        if calls == call:
            raise KeyboardInterrupt
        real(*arguments)

    with monkeypatch.context() as patch:
        patch.setattr(target, crash_at, crash)
        with pytest.raises(KeyboardInterrupt):
            save_checkpoint(tmp_path, {"step": torch.tensor(3)}, {"global_step": 3})
    loaded, state = load_checkpoint(tmp_path)
    assert loaded["step"].item() == state["global_step"] == survives
    save_checkpoint(tmp_path, {"step": torch.tensor(4)}, {"global_step": 4})
    assert load_checkpoint(tmp_path)[1] == {"global_step": 4}
    assert len(list(tmp_path.iterdir())) == 2


SAVER = """
import itertools, sys, torch
from pathlib import Path
from memrl.checkpoint import save_checkpoint
for step in itertools.count(1):
    tensors = {"step": torch.full((200_000,), step)}
    save_checkpoint(Path(sys.argv[1]), tensors, {"global_step": step})
    print(step, flush=True)
"""


def test_kill_leaves_a_whole_and_recent_checkpoint(tmp_path: Path) -> None:
    program = subprocess.Popen(
        [sys.executable, "-c", SAVER, str(tmp_path)], stdout=subprocess.PIPE, text=True
    )
    assert program.stdout is not None
    with program.stdout as output:
        for _ in range(3):
            output.readline()
        time.sleep(0.005)
        os.kill(program.pid, signal.SIGKILL)
        program.wait()
        last_reported = max([3, *map(int, output.read().split())])
    loaded, state = load_checkpoint(tmp_path)
    assert state["global_step"] >= last_reported
    assert bool((loaded["step"] == state["global_step"]).all())


def test_missing_checkpoint(tmp_path: Path) -> None:
    for folder in (tmp_path, tmp_path / "nowhere"):
        with pytest.raises(CheckpointError, match=f"no checkpoint in {folder}"):
            load_checkpoint(folder)


def damage_tensors(path: Path) -> None:
    payload = bytearray((path / "tensors.safetensors").read_bytes())
    payload[-1] ^= 1
    (path / "tensors.safetensors").write_bytes(payload)


def change_record(path: Path, **changes: Any) -> None:
    record = json.loads((path / "checkpoint.json").read_text()) | changes
    (path / "checkpoint.json").write_text(json.dumps(record))


@pytest.mark.parametrize(
    ("damage", "message"),
    [
        (damage_tensors, "SHA-256"),
        (lambda path: (path / "tensors.safetensors").unlink(), "damaged .*tensors.safetensors"),
        (lambda path: (path / "checkpoint.json").unlink(), "damaged .*checkpoint.json"),
        (lambda path: (path / "checkpoint.json").write_text('{"format": '), "is damaged"),
        (lambda path: (path / "checkpoint.json").write_bytes(b"\xff\xfe"), "is damaged"),
        (lambda path: (path / "checkpoint.json").write_text("[]"), "memrl-checkpoint"),
        (lambda path: change_record(path, format="other"), "memrl-checkpoint"),
        (lambda path: change_record(path, version=99), "version 99, this program reads version 1"),
        (lambda path: change_record(path, state=None), "has no state"),
    ],
)
def test_damage_is_noticed(tmp_path: Path, damage: Callable[[Path], None], message: str) -> None:
    damage(save_checkpoint(tmp_path, tensors(), STATE))
    with pytest.raises(CheckpointError, match=message):
        load_checkpoint(tmp_path)


def test_files_of_two_checkpoints_do_not_pass_for_one(tmp_path: Path) -> None:
    first = save_checkpoint(tmp_path / "a", {"x": torch.tensor(1)}, STATE)
    second = save_checkpoint(tmp_path / "b", {"x": torch.tensor(2)}, STATE)
    (first / "tensors.safetensors").replace(second / "tensors.safetensors")
    with pytest.raises(CheckpointError, match="SHA-256"):
        load_checkpoint(second)


@pytest.mark.parametrize(
    ("state", "where"),
    [
        ({"rng": {"keys": {1, 2}}}, "state.rng.keys: .*type set"),
        ({"a": [0, torch.tensor(1)]}, r"state.a\[1\]: .*type Tensor"),
        ({"a": {3: 1}}, "state.a: its key 3"),
    ],
)
def test_state_that_json_cannot_hold_is_refused_before_anything_is_written(
    tmp_path: Path, state: dict[str, Any], where: str
) -> None:
    with pytest.raises(CheckpointError, match=where):
        save_checkpoint(tmp_path / "new", {}, state)
    assert not (tmp_path / "new").exists()


def two_groups(model: nn.Module) -> list[dict[str, Any]]:
    parameters = list(model.parameters())
    return [{"params": parameters[:2]}, {"params": parameters[2:], "lr": 1.0}]


OPTIMIZERS: list[Callable[[nn.Module], torch.optim.Optimizer]] = [
    lambda model: torch.optim.Adam(model.parameters(), lr=1e-2, eps=1e-5),
    lambda model: torch.optim.AdamW(model.parameters(), lr=torch.tensor(1e-2), amsgrad=True),
    lambda model: torch.optim.Adam(two_groups(model)),
    lambda model: torch.optim.SGD(model.parameters(), lr=1e-2, momentum=0.9),
]


def make_model() -> nn.Module:
    with torch.random.fork_rng():
        torch.manual_seed(0)
        return nn.Sequential(nn.Linear(4, 8), nn.BatchNorm1d(8), nn.Linear(8, 1))


def train(model: nn.Module, optimizer: torch.optim.Optimizer, steps: range) -> None:
    for step in steps:
        batch = torch.rand(16, 4, generator=torch.Generator().manual_seed(step))
        optimizer.zero_grad()
        model(batch).square().mean().backward()
        optimizer.step()


@pytest.mark.parametrize("make_optimizer", OPTIMIZERS)
def test_training_continues_bit_equal(
    tmp_path: Path, make_optimizer: Callable[[nn.Module], torch.optim.Optimizer]
) -> None:
    model = make_model()
    optimizer = make_optimizer(model)
    optimizer.param_groups[0]["lr"] = 0.003  # as a schedule does
    train(model, optimizer, range(5))
    saved, options = flatten_optimizer(optimizer, "optimizer.")
    save_checkpoint(tmp_path, module_tensors(model, "policy.") | saved, {"optimizer": options})
    train(model, optimizer, range(5, 10))

    resumed = make_model()
    resumed_optimizer = make_optimizer(resumed)
    loaded, state = load_checkpoint(tmp_path)
    load_module(resumed, loaded, "policy.")
    restore_optimizer(resumed_optimizer, loaded, state["optimizer"], "optimizer.")
    again = flatten_optimizer(resumed_optimizer, "optimizer.")
    assert_bit_equal(again[0], {k: v for k, v in loaded.items() if k.startswith("optimizer.")})
    assert json.dumps(again[1]) == json.dumps(state["optimizer"])
    for group, original in zip(
        resumed_optimizer.param_groups, make_optimizer(model).param_groups, strict=True
    ):
        assert {k: type(v) for k, v in group.items() if k != "lr"} == {
            k: type(v) for k, v in original.items() if k != "lr"
        }
    train(resumed, resumed_optimizer, range(5, 10))
    assert_bit_equal(module_tensors(resumed, ""), module_tensors(model, ""))


def test_restored_optimizer_does_not_change_the_tensors_it_came_from() -> None:
    model = make_model()
    optimizer = torch.optim.Adam(model.parameters())
    train(model, optimizer, range(2))
    saved, options = flatten_optimizer(optimizer, "")
    saved = {key: value.clone() for key, value in saved.items()}
    before = {key: value.clone() for key, value in saved.items()}
    restore_optimizer(optimizer, saved, options, "")
    train(model, optimizer, range(2))
    assert_bit_equal(saved, before)


def test_fresh_optimizer_without_state_is_restored() -> None:
    optimizer = torch.optim.Adam(make_model().parameters())
    saved, options = flatten_optimizer(optimizer, "")
    assert saved == {}
    restore_optimizer(optimizer, saved, json.loads(json.dumps(options)), "")
    assert optimizer.param_groups[0]["betas"] == (0.9, 0.999)


def test_what_does_not_fit_is_refused() -> None:
    model = make_model()
    optimizer = torch.optim.Adam(model.parameters())
    train(model, optimizer, range(1))
    saved, options = flatten_optimizer(optimizer, "o.")
    wide = nn.Sequential(nn.Linear(4, 9), nn.BatchNorm1d(9), nn.Linear(9, 1))
    with pytest.raises(CheckpointError, match=r"'p\.' tensors do not fit this Sequential"):
        load_module(wide, module_tensors(model, "p."), "p.")
    with pytest.raises(
        CheckpointError, match=r"'o.' state .* has the shape \(8, 4\), not \(9, 4\)"
    ):
        restore_optimizer(torch.optim.Adam(wide.parameters()), saved, options, "o.")
    with pytest.raises(CheckpointError, match="this SGD"):
        restore_optimizer(torch.optim.SGD(model.parameters()), saved, options, "o.")
    with pytest.raises(CheckpointError, match="this Adam"):
        restore_optimizer(torch.optim.Adam(nn.Linear(4, 8).parameters()), saved, options, "o.")
