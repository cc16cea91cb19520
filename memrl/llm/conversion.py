"""GGUF files made folders in the safetensors format, once.

python -m memrl.llm.conversion MODEL      make a model ready beforehand
"""

from __future__ import annotations

import atexit
import json
import shutil
import sys
import tempfile
from pathlib import Path

from rich.console import Console
from safetensors import SafetensorError, safe_open

from memrl.cache import WarnOnce, default_cache_folder, move_aside
from memrl.llm.backend import BackendError
from memrl.llm.model_files import LOAD_ERRORS, ModelFiles, find_model
from memrl.memory.model_files import WEIGHTS, first_line

_CONVERSION = 1  # part of a converted folder's name: another way to convert has another number


def converted_folder(files: ModelFiles, cache: Path) -> Path:
    """Folder of a GGUF model in the safetensors format, in bfloat16; made at the first call.

    That takes transformers between 15 seconds and minutes; the result is kept in the cache by the
    file's hash, and loads in seconds. A folder is there whole or not at all, whoever else converts
    the same file. Where the cache cannot be written, it is made anew for each process.

    Raises:
        BackendError: if the file is damaged, of an architecture that transformers cannot read from
            GGUF, or the extra is not installed.
    """
    folder = cache / "models" / f"{files.name}-{files.weights_sha256[:16]}-{_CONVERSION}"
    if folder.is_dir():
        damage = _damage(folder)
        if not damage:
            return folder
        move_aside(folder, damage)
    partial = _new_folder(folder)
    _convert(files.source, partial)
    if partial.parent != folder.parent:
        return partial
    try:
        partial.rename(folder)
    except OSError:
        if not folder.is_dir():  # another process was faster
            raise
    return folder


def _damage(folder: Path) -> str:
    """What is wrong with a converted folder, "" for nothing that shows without reading it all."""
    try:
        for path in (folder / "config.json", folder / "tokenizer.json"):
            json.loads(path.read_text(encoding="utf-8"))
        weights = sorted(folder.glob(WEIGHTS))
        for path in weights:
            # Opening compares the length of the file with what its header promises.
            with safe_open(path, framework="pt"):
                pass
    except (OSError, ValueError, SafetensorError) as error:
        return first_line(error)
    return "" if weights else "it holds no weights"


def _new_folder(folder: Path) -> Path:
    """An empty folder beside the one given, or elsewhere; gone at the end if it keeps its name."""
    made = []
    with WarnOnce(folder.parent).tolerating(OSError):
        folder.parent.mkdir(parents=True, exist_ok=True)
        made.append(tempfile.mkdtemp(prefix=f".{folder.name}.", dir=folder.parent))
    path = Path(made[0] if made else tempfile.mkdtemp(prefix="memrl-"))
    atexit.register(shutil.rmtree, path, ignore_errors=True)
    return path


def _convert(source: Path, folder: Path) -> None:
    Console(stderr=True).print(f"Converting {source.name} to safetensors, once ...", style="dim")
    where = {"pretrained_model_name_or_path": str(source.parent), "gguf_file": source.name}
    try:
        import torch
        from transformers import AutoModelForCausalLM, AutoTokenizer, GgufConfig

        tokenizer = AutoTokenizer.from_pretrained(**where, local_files_only=True)
        # Without dequantize the model counts as quantized and refuses to be saved.
        model = AutoModelForCausalLM.from_pretrained(
            **where,
            local_files_only=True,
            dtype=torch.bfloat16,
            quantization_config=GgufConfig(dequantize=True),
        )
    except ImportError as error:
        raise BackendError(
            f"Reading {source.name} needs packages that are not installed ({first_line(error)}): "
            "pip install 'memrl[llm]'."
        ) from error
    except LOAD_ERRORS as error:
        raise BackendError(
            f"The model file {source} cannot be read ({first_line(error)}): it must be a whole "
            "GGUF file of an architecture that transformers reads."
        ) from error
    model.save_pretrained(folder)
    tokenizer.save_pretrained(folder)


def _main() -> None:
    try:
        cache = default_cache_folder()
        print(converted_folder(find_model(sys.argv[1], cache), cache))
    except BackendError as error:
        sys.exit(str(error))


if __name__ == "__main__":
    _main()
