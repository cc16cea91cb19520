"""Tables on disk: round trips, damage, and the cache of built tables."""

from __future__ import annotations

import dataclasses
import re
from pathlib import Path

import numpy as np
import pytest
from safetensors.numpy import load_file, save_file
from table_fixtures import RefusingEmbedder, made_up_document, made_up_episode, small_table

from memrl.documents import Document, Episode
from memrl.memory.bm25 import Bm25Statistics
from memrl.table import EpisodeTable, TableError
from memrl.table_build import cached_table, fit_lexical_statistics


def is_one_sentence(message: str) -> bool:
    """One line, one full stop at its end; dots within paths and numbers do not count."""
    return message.endswith(".") and "\n" not in message and not re.search(r"\. [A-Z]", message)


@pytest.fixture
def path(tmp_path: Path) -> Path:
    path = tmp_path / "deep" / "table.safetensors"
    small_table(0, num_pages=5, num_episodes=2).save(path)
    return path


def test_round_trip(path: Path) -> None:
    table = small_table(0, num_pages=5, num_episodes=2)
    loaded = EpisodeTable.load(path)
    for name, array in table.arrays().items():
        again = loaded.arrays()[name]
        assert (again.dtype, again.shape) == (array.dtype, array.shape)
        assert again.tobytes() == array.tobytes(), name
    assert loaded.text == table.text
    assert loaded.meta == table.meta
    assert loaded.content_hash() == table.content_hash()
    assert [file.name for file in path.parent.iterdir()] == [path.name], "no partial file is left"


def test_saving_replaces_what_is_there(path: Path) -> None:
    other = small_table(1, num_pages=5, num_episodes=2)
    other.save(str(path))
    assert EpisodeTable.load(str(path)).content_hash() == other.content_hash()


def refused(path: Path) -> str:
    with pytest.raises(TableError) as error:
        EpisodeTable.load(path)
    message = str(error.value)
    assert str(path) in message
    assert is_one_sentence(message), message
    return message


def test_missing_file(tmp_path: Path) -> None:
    assert "No episode table" in refused(tmp_path / "nothing.safetensors")


def test_folder_in_place_of_a_file(tmp_path: Path) -> None:
    refused(tmp_path)


@pytest.mark.parametrize("share", [0.0, 0.01, 0.5, 0.999])
def test_truncated_file(path: Path, share: float) -> None:
    content = path.read_bytes()
    path.write_bytes(content[: int(share * len(content))])
    assert "damaged" in refused(path)


@pytest.mark.parametrize("content", [b"", b"not a table at all", b"\x08" + b"\0" * 7 + b"{}      "])
def test_another_kind_of_file(path: Path, content: bytes) -> None:
    path.write_bytes(content)
    assert "damaged" in refused(path)


def test_any_flipped_byte_is_noticed(path: Path) -> None:
    content = path.read_bytes()
    names = [content.index(key) for key in (b"sha256", b"side", b"__metadata__", b"dense", b"I16")]
    spread = np.linspace(0, len(content) - 1, 120).astype(int).tolist()
    for position in sorted({*names, *spread}):
        damaged = bytearray(content)
        damaged[position] ^= 1
        path.write_bytes(bytes(damaged))
        assert "damaged" in refused(path), f"byte {position}"


def test_another_version(path: Path) -> None:
    table = EpisodeTable.load(path)
    dataclasses.replace(table, meta=table.meta | {"version": 0}).save(path)
    assert "another version" in refused(path)


@pytest.mark.parametrize("how", ["lacks an array", "has one more"])
def test_other_arrays(path: Path, how: str) -> None:
    table, arrays = EpisodeTable.load(path), load_file(path)
    if how == "has one more":
        arrays["extra"] = np.zeros(3, dtype=np.int64)
    else:
        del arrays["page_prior"]
    save_file(arrays, path, metadata={"side": table._side_json(), "sha256": table.content_hash()})
    assert "another version" in refused(path)


# ---------------------------------------------------------------------- cached_table

Inputs = tuple[list[Document], list[Episode], Bm25Statistics]


@pytest.fixture
def inputs() -> Inputs:
    rng = np.random.default_rng(0)
    documents = [made_up_document(rng, "doc", 6)]
    episodes = [made_up_episode(rng, documents, 5, 3) for _ in range(2)]
    return documents, episodes, fit_lexical_statistics(documents)


def cached(
    folder: Path | None, inputs: Inputs, embedder: RefusingEmbedder, name: str = "w"
) -> EpisodeTable:
    documents, episodes, statistics = inputs
    return cached_table(folder, documents, episodes, embedder, statistics, name=name)


def test_the_cache_builds_once(tmp_path: Path, inputs: Inputs) -> None:
    embedder = RefusingEmbedder()
    first = cached(tmp_path / "new", inputs, embedder)
    assert embedder.calls == 1
    embedder.is_open = False
    again = cached(tmp_path / "new", inputs, embedder)
    assert again.content_hash() == first.content_hash()


def test_another_input_is_another_table(tmp_path: Path, inputs: Inputs) -> None:
    documents, episodes, statistics = inputs
    page = dataclasses.replace(documents[0].pages[0], text="something else")
    edited = dataclasses.replace(documents[0], pages=(page, *documents[0].pages[1:]))
    fewer = dict(list(statistics.document_frequencies.items())[1:])
    other_statistics = dataclasses.replace(statistics, document_frequencies=fewer)
    hashes = {
        cached(tmp_path, inputs, RefusingEmbedder()).content_hash(),
        cached(tmp_path, inputs, RefusingEmbedder(), name="v").content_hash(),
        cached(tmp_path, inputs, RefusingEmbedder(8)).content_hash(),
        cached(tmp_path, ([edited], episodes, statistics), RefusingEmbedder()).content_hash(),
        cached(tmp_path, (documents, episodes[:1], statistics), RefusingEmbedder()).content_hash(),
        cached(
            tmp_path, (documents, episodes, other_statistics), RefusingEmbedder()
        ).content_hash(),
    }
    assert len(hashes) == 6
    assert len(list(tmp_path.iterdir())) == 6


def test_without_a_folder_nothing_is_kept(inputs: Inputs) -> None:
    embedder = RefusingEmbedder()
    cached(None, inputs, embedder)
    cached(None, inputs, embedder)
    assert embedder.calls == 2


@pytest.mark.parametrize("damage", [b"", b"nonsense", None])
def test_a_damaged_cache_file_is_moved_aside_and_built_again(
    tmp_path: Path, inputs: Inputs, damage: bytes | None
) -> None:
    embedder = RefusingEmbedder()
    first = cached(tmp_path, inputs, embedder)
    (file,) = tmp_path.iterdir()
    if damage is None:
        content = bytearray(file.read_bytes())
        content[-1] ^= 1
        damage = bytes(content)
    file.write_bytes(damage)
    with pytest.warns(RuntimeWarning, match="damaged.*made again"):
        again = cached(tmp_path, inputs, embedder)
    assert embedder.calls == 2
    assert again.content_hash() == first.content_hash()
    aside = file.with_name(f"{file.name}.damaged")
    assert aside.read_bytes() == damage
    assert set(tmp_path.iterdir()) == {file, aside}
    cached(tmp_path, inputs, embedder)
    assert embedder.calls == 2, "the new file is good"


def test_a_folder_that_cannot_be_made_means_work_without_a_cache(
    tmp_path: Path, inputs: Inputs
) -> None:
    (tmp_path / "file").write_text("in the way")
    with pytest.warns(UserWarning, match="cannot be written"):
        table = cached(tmp_path / "file" / "folder", inputs, RefusingEmbedder())
    assert table.num_episodes == 2
