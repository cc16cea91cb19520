"""Tables on disk: round trips, damage, and the cache of built tables."""

from __future__ import annotations

import dataclasses
import hashlib
import re
import tracemalloc
from pathlib import Path

import numpy as np
import pytest
from safetensors import SafetensorError
from safetensors.numpy import save_file
from table_fixtures import RefusingEmbedder, made_up_document, made_up_episode, small_table

from memrl.documents import Document, Episode
from memrl.memory.bm25 import Bm25Statistics
from memrl.table import TABLE_VERSION, EpisodeTable
from memrl.table_build import cached_table, fit_lexical_statistics
from memrl.table_file import FORMAT, TableError, content_hash, write_table_file


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


@pytest.mark.parametrize("share", [0.01, 0.5, 0.999])
def test_truncated_file(path: Path, share: float) -> None:
    content = path.read_bytes()
    kept = int(share * len(content))
    path.write_bytes(content[:kept])
    assert f"damaged: it ends after {kept:,} of " in refused(path)
    if share > 0.5:  # the header, which states the length, is there
        assert f" of {len(content):,} bytes" in refused(path)


@pytest.mark.parametrize(
    "content",
    [b"", b"not a table at all", b"\x08" + b"\0" * 7 + b"{}      ", b"\x02" + b"\0" * 7 + b"[]"],
)
def test_another_kind_of_file(path: Path, content: bytes) -> None:
    path.write_bytes(content)
    assert "is no episode table" in refused(path)


def test_other_tensors_are_no_table(path: Path) -> None:
    save_file({"weight": np.zeros(3)}, path, metadata={"sha256": "0"})
    assert "is no episode table" in refused(path)


def test_any_flipped_byte_is_noticed(path: Path) -> None:
    content = path.read_bytes()
    names = [content.index(key) for key in (b"sha256", b"side", b"__metadata__", b"dense", b"I16")]
    header = 8 + int.from_bytes(content[:8], "little")
    spread = np.linspace(0, len(content) - 1, 120).astype(int).tolist()
    for position in sorted({*names, *spread}):
        damaged = bytearray(content)
        damaged[position] ^= 1
        path.write_bytes(bytes(damaged))
        message = refused(path)
        if position >= header:
            assert "damaged: its content does not match its hash" in message, f"byte {position}"


def test_another_version(path: Path) -> None:
    table = EpisodeTable.load(path)
    dataclasses.replace(table, meta=table.meta | {"version": 0}).save(path)
    message = refused(path)
    assert "another version" in message
    assert f"version 0, and not {FORMAT}, version {TABLE_VERSION}" in message


def test_the_layout_before_this_one(path: Path) -> None:
    table = EpisodeTable.load(path)
    side = {"side": table._side_json(), "sha256": table.content_hash()}
    save_file(table.arrays(), path, metadata=side)
    assert "another version" in refused(path)


@pytest.mark.parametrize("how", ["lacks an array", "has one more"])
def test_other_arrays(path: Path, how: str) -> None:
    table = EpisodeTable.load(path)
    arrays, side = dict(table.arrays()), table._side_json()
    if how == "has one more":
        arrays["extra"] = np.zeros(3, dtype=np.int64)
    else:
        del arrays["page_prior"]
    write_table_file(path, arrays, side, TABLE_VERSION)
    assert "another version: it holds other parts" in refused(path)


def test_a_file_that_cannot_be_written_leaves_nothing_behind(path: Path) -> None:
    table = EpisodeTable.load(path)
    wrong = dataclasses.replace(table, dense=np.array(["text"]))
    with pytest.raises(SafetensorError, match="Unknown dtype"):
        wrong.save(path)
    assert [file.name for file in path.parent.iterdir()] == [path.name]
    assert EpisodeTable.load(path).content_hash() == table.content_hash()


# ---------------------------------------------------------------------- memory


def large_table() -> EpisodeTable:
    """A table with 32 MB of scores and 300 kB of text."""
    table = small_table(0, num_pages=5, num_episodes=2)
    text = dataclasses.replace(table.text, pages=["x" * 30_000] * len(table.text.pages))
    rng = np.random.default_rng(0)
    scores = rng.integers(-(2**15), 2**15, 8 * 2**20).astype(np.int16)
    return dataclasses.replace(table, dense=scores, lexical=scores[::-1], text=text)


def test_a_loaded_table_is_mapped_and_not_copied(tmp_path: Path) -> None:
    path = tmp_path / "large.safetensors"
    large = large_table()
    tracemalloc.start()
    try:
        large.save(path)
        saving = tracemalloc.get_traced_memory()[1]
        tracemalloc.reset_peak()
        before = tracemalloc.get_traced_memory()[0]
        loaded = EpisodeTable.load(path)
        loading = tracemalloc.get_traced_memory()[1] - before
    finally:
        tracemalloc.stop()
    assert loading < 4 * 2**20, "the scores were copied to the heap"
    assert saving < 24 * 2**20, "more was copied than the scores in reverse order"
    assert np.array_equal(loaded.dense, large.dense)
    address = loaded.dense.__array_interface__["data"][0]
    maps = Path("/proc/self/maps")
    if maps.exists():
        spans = [line.split()[0] for line in maps.read_text().splitlines() if path.name in line]
        bounds = [[int(bound, 16) for bound in span.split("-")] for span in spans]
        assert any(first <= address < end for first, end in bounds)


def test_what_is_written_to_a_loaded_table_stays_in_the_process(path: Path) -> None:
    content = path.read_bytes()
    loaded = EpisodeTable.load(path)
    loaded.dense[:] = 7
    assert path.read_bytes() == content
    assert EpisodeTable.load(path).content_hash() != loaded.content_hash()


def test_a_table_outlives_its_file(path: Path) -> None:
    table = small_table(0, num_pages=5, num_episodes=2)
    loaded = EpisodeTable.load(path)
    small_table(1, num_pages=5, num_episodes=2).save(path)
    path.unlink()
    assert loaded.content_hash() == table.content_hash()


def test_texts_do_not_weigh_on_the_header(tmp_path: Path) -> None:
    path = tmp_path / "large.safetensors"
    large_table().save(path)
    assert int.from_bytes(path.read_bytes()[:8], "little") < 8_192


def test_the_hash_is_that_of_name_type_shape_and_bytes() -> None:
    arrays = {"b": np.arange(6, dtype=np.int16).reshape(2, 3), "a": np.zeros((0, 4), np.float16)}
    expected = hashlib.sha256(b"{}a:float16:(0, 4);b:int16:(2, 3);" + arrays["b"].tobytes())
    assert content_hash(arrays, "{}") == expected.hexdigest()
    assert content_hash({"b": arrays["b"].T, "a": arrays["a"]}, "{}") != expected.hexdigest()


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
