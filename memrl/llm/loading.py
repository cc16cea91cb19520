"""A causal language model and its tokenizer, loaded on a device in a dtype."""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any, Literal

import torch

from memrl.llm.backend import BackendError
from memrl.llm.conversion import converted_folder
from memrl.llm.model_files import LOAD_ERRORS, ModelFiles
from memrl.memory.model_files import first_line

Dtype = Literal["auto", "float32", "bfloat16", "float16"]

_BF16_INSTRUCTIONS = ("avx512_bf16", "amx_bf16")


def pick_dtype(name: Dtype, device: torch.device) -> torch.dtype:
    """The dtype that a name means; "auto" is bfloat16 where the device computes in it."""
    if name != "auto":
        dtype: torch.dtype = getattr(torch, name)
        return dtype
    if device.type == "cpu":
        found = torch.cpu.get_capabilities()
        fast = any(found.get(instructions) for instructions in _BF16_INSTRUCTIONS)
    else:
        fast = device.type == "cuda" and torch.cuda.is_bf16_supported(including_emulation=False)
    return torch.bfloat16 if fast else torch.float32


def load_model(
    files: ModelFiles, device: torch.device, dtype: torch.dtype, cache: Path
) -> tuple[Any, Any]:
    """Load a model and its tokenizer; nothing is unpickled and no code of the model's is run.

    Args:
        files: of the model. device, dtype: of its weights.
        cache: where a GGUF file is kept once it has been converted.

    Raises:
        BackendError: if the files do not make a causal language model.
    """
    if files.source.is_dir():
        return _load_folder(files.source, device, dtype)
    return _load_folder(converted_folder(files, cache), device, dtype)


def _load_folder(folder: Path, device: torch.device, dtype: torch.dtype) -> tuple[Any, Any]:
    try:
        from transformers import AutoModelForCausalLM, AutoTokenizer

        with _without_progress_bars():
            tokenizer = AutoTokenizer.from_pretrained(folder, local_files_only=True)
            loaded: Any = AutoModelForCausalLM.from_pretrained(
                folder,
                local_files_only=True,
                use_safetensors=True,
                dtype=dtype,
                output_loading_info=True,
            )
        model, report = loaded
        model = model.to(device).eval()
    except LOAD_ERRORS as error:
        raise BackendError(
            f"The model in {folder} cannot be loaded ({first_line(error)}): it must be a folder of "
            "a causal language model with its tokenizer, as transformers writes it."
        ) from error
    # transformers would make up weights that are missing.
    missing = sorted(report["missing_keys"])
    if missing:
        raise BackendError(
            f"The model in {folder} lacks {len(missing)} of the weights of a causal language model "
            f"({missing[0]} is the first): it is another kind of model, or incomplete."
        )
    if not hasattr(tokenizer, "backend_tokenizer"):
        raise BackendError(
            f"The tokenizer in {folder} has no tokenizer.json: save it as a fast tokenizer."
        )
    return model, tokenizer


@contextmanager
def _without_progress_bars() -> Iterator[None]:
    from transformers.utils import logging as untyped

    logging: Any = untyped
    were_shown = logging.is_progress_bar_enabled()
    logging.disable_progress_bar()
    try:
        yield
    finally:
        if were_shown:
            logging.enable_progress_bar()
