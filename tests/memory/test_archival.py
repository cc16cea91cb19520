from __future__ import annotations

import importlib.util
from collections import OrderedDict
from collections.abc import Iterator, Sequence
from datetime import UTC, datetime, timedelta, timezone
from pathlib import Path
from unittest import mock

import numpy as np
import numpy.typing as npt
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from hypothesis.stateful import RuleBasedStateMachine, initialize, invariant, precondition, rule

from memrl.memory.archival import ArchivalStore, NewEntry
from memrl.memory.chunks import split_text
from memrl.memory.database import StoreError
from memrl.memory.embedders import HashingEmbedder
from memrl.memory.index_options import IndexKind
from memrl.memory.results import SearchError
from memrl.memory.scores import quantize_scores
from memrl.memory.tokens import count_tokens
from memrl.memory.vector_index import TorchIndex

NOON = datetime(2024, 3, 5, 12, 0, tzinfo=timezone(timedelta(hours=-5)))
TEXTS = [
    "Ana adopted a grey kitten.",
    "Ben moved to Lisbon for a job at the aquarium.",
    "The dogs bark every morning.",
    "Lisbon has a tram that goes past the aquarium.",
]
EMBEDDER = HashingEmbedder(32)
KINDS: tuple[IndexKind, ...] = (
    ("faiss", "torch") if importlib.util.find_spec("faiss") else ("torch",)
)
any_text = st.text(st.characters(codec=None, exclude_categories=()), max_size=30)


@pytest.fixture
def store() -> Iterator[ArchivalStore]:
    with ArchivalStore(None, EMBEDDER) as opened:
        opened.extend(NewEntry(text, page_id=n, time=NOON) for n, text in enumerate(TEXTS))
        yield opened


def test_search_ranks_by_cosine(store: ArchivalStore) -> None:
    query = "the aquarium of Lisbon"
    result = store.search(query, page_size=3)
    vectors = EMBEDDER.embed([query, *TEXTS])
    cosines = vectors[1:] @ vectors[0]
    order = np.argsort(-cosines, kind="stable")
    assert [hit.page_id for hit in result.hits] == order[:3].tolist()
    assert [hit.score for hit in result.hits] == pytest.approx(cosines[order[:3]].tolist())
    assert (result.total, result.num_pages) == (4, 2)
    assert store.search(query, page=1, page_size=3).hits[0].page_id == order[3]
    hit = result.hits[0]
    assert (hit.text, hit.role, hit.time, hit.entry_id) == (
        TEXTS[order[0]],
        "assistant",
        NOON,
        order[0] + 1,
    )
    np.testing.assert_allclose(store.scores(query, [2, 0]), cosines[[2, 0]], atol=1e-6)


def test_scores_are_those_of_the_tables() -> None:
    """Off by one step of the scale at most: a table multiplies whole matrices in float32."""
    rng = np.random.default_rng(0)
    words = [f"word{n}" for n in range(50)]
    texts = [" ".join(rng.choice(words, size=12)) for _ in range(200)]
    embedder = HashingEmbedder()
    with ArchivalStore(None, embedder) as store:
        store.extend(NewEntry(text, page_id=n) for n, text in enumerate(texts))
        vectors = embedder.embed(texts)
        table = quantize_scores(vectors @ vectors.T).astype(int)
        for number in range(20):
            live = quantize_scores(store.scores(texts[number], range(200))).astype(int)
            assert np.abs(live - table[number]).max() <= 1


def test_pages_of_results(store: ArchivalStore) -> None:
    past = store.search("kitten", page=9)
    assert (past.hits, past.total) == ((), 4)
    assert store.search("kitten", page=10**30).total == 4
    assert len(store.search("kitten", page_size=10**30).hits) == 4
    for empty in ("", " \n\t"):
        assert (store.search(empty).hits, store.search(empty).total) == ((), 0)
    with pytest.raises(SearchError, match="no page -1"):
        store.search("kitten", page=-1)
    with pytest.raises(SearchError, match="at least 1 hit"):
        store.search("", page_size=0)
    with ArchivalStore(None, EMBEDDER) as new:
        assert new.search("kitten").total == 0


def test_an_archived_page_stays_where_it_is(store: ArchivalStore) -> None:
    assert store.insert(TEXTS[1], page_id=1) == 2
    assert (len(store), store.page_ids, store.ids) == (4, [0, 1, 2, 3], [1, 2, 3, 4])
    store.delete_page(1)
    assert store.insert(TEXTS[1], page_id=1) == 5
    assert store.page_ids == [0, 2, 3, 1]
    assert store.insert("a note") == 6
    assert store.page_ids == [0, 2, 3, 1]


def test_deletion(store: ArchivalStore) -> None:
    assert store.search("kitten").hits[0].page_id == 0
    store.delete(1)
    store.delete_page(3)
    assert {hit.page_id for hit in store.search("kitten").hits} == {1, 2}
    for entry in (1, 99, -1, 2**53):
        with pytest.raises(KeyError):
            store.delete(entry)
    for page in (3, 99, -1, 2**53):
        with pytest.raises(KeyError):
            store.delete_page(page)
        with pytest.raises(KeyError):
            store.scores("kitten", [page])
    assert len(store) == 2
    assert store.scores("kitten", []).shape == (0,)


def test_a_full_archive_drops_what_was_stored_first() -> None:
    with ArchivalStore(None, EMBEDDER, capacity=2) as store:
        for number, text in enumerate(TEXTS):
            store.insert(text, page_id=number)
            assert store.search("kitten").total == min(number + 1, 2)
        assert store.page_ids == [2, 3]
        # A page that is there drops nothing and is not refreshed.
        store.insert(TEXTS[2], page_id=2)
        store.insert("a note")
        assert store.page_ids == [3]
        store.extend(NewEntry(text, page_id=10 + n) for n, text in enumerate(TEXTS))
        assert store.page_ids == [12, 13]


def test_a_smaller_capacity_applies_at_the_next_insert(tmp_path: Path) -> None:
    path = tmp_path / "archive.db"
    with ArchivalStore(path, EMBEDDER) as store:
        store.extend(NewEntry(text, page_id=n) for n, text in enumerate(TEXTS))
    with ArchivalStore(path, EMBEDDER, capacity=2) as store:
        assert len(store) == 4
        store.insert("a note", page_id=9)
        assert store.page_ids == [3, 9]
    with ArchivalStore(path, EMBEDDER, capacity=0) as store:
        with pytest.raises(StoreError, match="has a capacity of 0"):
            store.insert("a note")
        assert len(store) == 2


def test_a_long_text_is_cut_and_every_piece_belongs_to_its_page() -> None:
    text = " ".join(f"Sentence {n} is about topic{n}." for n in range(100))
    with ArchivalStore(None, EMBEDDER, piece_tokens=40) as store:
        entry = store.insert(text, page_id=5, role="user")
        short = store.insert("topic50", page_id=6)
        hits = store.search("topic50", page_size=100).hits
        pieces = [hit for hit in hits if hit.page_id == 5]
        assert (hits[0].entry_id, len(store), store.ids) == (short, 2, [entry, short])
        assert len(pieces) > 10
        assert all(count_tokens(hit.text) <= 40 and hit.role == "user" for hit in pieces)
        best = max(hit.score or 0.0 for hit in pieces)
        assert store.scores("topic50", [5]).tolist() == [best]
        assert "".join(sorted((hit.text for hit in pieces), key=text.index)) == text
        store.delete(entry)
        assert store.search("topic50").total == 1


@pytest.mark.parametrize("kind", KINDS)
def test_indices_follow_many_deletions(kind: IndexKind, tmp_path: Path) -> None:
    """More than are held back, and more than are kept for an index that lags behind."""
    path = tmp_path / "archive.db"
    with (
        ArchivalStore(path, EMBEDDER, capacity=400, index=kind) as store,
        ArchivalStore(path, EMBEDDER, index=kind, read_only=True) as reader,
        ArchivalStore(path, EMBEDDER, index=kind, read_only=True) as lagging,
    ):
        store.extend(NewEntry(f"note{n}", page_id=n) for n in range(400))
        lagging.search("note")
        for first in range(400, 2400, 250):
            store.extend(NewEntry(f"note{n}", page_id=n) for n in range(first, first + 250))
            store.delete_page(first + 7)
            for some in (store, reader):
                hits = some.search("note7", page_size=1000).hits
                assert sorted(hit.page_id or 0 for hit in hits) == store.page_ids
        assert store.search("note7", page_size=9) == lagging.search("note7", page_size=9)
        assert lagging.search("note7").total == len(store)


@settings(max_examples=200, deadline=None)
@given(
    text=st.text(st.sampled_from("ab \n.!?é你1\0\ud800")) | any_text,
    max_tokens=st.integers(1, 6),
    greedy=st.booleans(),
)
def test_pieces_join_to_the_text(text: str, max_tokens: int, greedy: bool) -> None:
    # The second counter finds more in the whole than in its parts, as some tokenizers do.
    count = (lambda some: len(some) * len(some) // 2) if greedy else count_tokens
    pieces = split_text(text, max_tokens, count)
    assert "".join(pieces) == text
    assert all(count(piece) <= max_tokens or len(piece) == 1 for piece in pieces)
    assert len(pieces) == 1 or all(pieces)


def test_pieces_end_where_paragraphs_and_sentences_do() -> None:
    text = "One two. Three four!\n\nFive six seven. Eight nine ten eleven twelve"
    assert split_text(text, 6, count_tokens) == [
        "One two. Three four!\n\n",
        "Five six seven. ",
        "Eight nine ten eleven twelve",
    ]
    assert split_text("x" * 50, 2, count_tokens) == ["x" * 16, "x" * 16, "x" * 16, "xx"]
    assert split_text("", 2, count_tokens) == [""]


@settings(max_examples=100, deadline=None)
@given(st.lists(any_text, min_size=1, max_size=5), any_text, any_text)
def test_any_text_is_stored_as_written(contents: list[str], query: str, role: str) -> None:
    with ArchivalStore(None, EMBEDDER) as store:
        store.extend(NewEntry(text, page_id=n, role=role) for n, text in enumerate(contents))
        hits = store.search("x" + query, page_size=100).hits
        assert {hit.page_id: (hit.text, hit.role) for hit in hits} == {
            n: (text, role) for n, text in enumerate(contents)
        }


class Fixed:
    """Gives the vectors it is told to."""

    name = "fixed"
    dimension = 2

    def __init__(self, *rows: Sequence[float]) -> None:
        self.rows = rows

    def embed(self, texts: Sequence[str]) -> npt.NDArray[np.float32]:
        del texts
        return np.array(self.rows, dtype=np.float32)


class Alike(Fixed):
    """Gives every text the same vector."""

    def embed(self, texts: Sequence[str]) -> npt.NDArray[np.float32]:
        return np.tile(np.array([[0.6, 0.8]], dtype=np.float32), (len(texts), 1))


def test_ten_megabytes(tmp_path: Path) -> None:
    text = "The kitten \0 sleeps. " * (10_000_000 // 21)
    with ArchivalStore(tmp_path / "archive.db", Alike()) as store:
        store.insert(text, page_id=0)
        result = store.search("kitten", page_size=10**6)
        assert "".join(hit.text for hit in result.hits) == text  # all alike: in order of storing
        assert result.total == len(result.hits) > 5_000


@pytest.mark.parametrize(
    ("rows", "reason"),
    [
        ([[1.0, 0.0, 0.0]], "vectors of 2 dimensions"),
        ([[1.0, 0.0], [1.0, 0.0]], "each of 1 texts"),
        ([[0.5, 0.5]], "vectors of length 1"),
        ([[float("nan"), 0.0]], "vectors of length 1"),
        ([[float("inf"), 0.0]], "vectors of length 1"),
    ],
)
def test_unfit_vectors_are_refused(rows: list[list[float]], reason: str) -> None:
    embedder = Fixed([0.6, 0.8])
    with ArchivalStore(None, embedder) as store:
        store.insert("kept", page_id=1)
        embedder.rows = tuple(rows)
        with pytest.raises(StoreError, match=reason):
            store.insert("unfit", page_id=2)
        with pytest.raises(StoreError, match=reason):
            store.search("unfit")
        embedder.rows = ([1.0, 0.0],)
        [hit] = store.search("kept").hits
        assert hit.text == "kept"
        assert hit.score == pytest.approx(0.6)


def test_another_embedder_is_refused(tmp_path: Path) -> None:
    path = tmp_path / "archive.db"
    ArchivalStore(path, EMBEDDER).close()
    other = HashingEmbedder(16)
    expected = rf"holds vectors of {EMBEDDER.name} \(32 dimensions\), not of {other.name} \(16"
    for read_only in (False, True):
        with pytest.raises(StoreError, match=expected):
            ArchivalStore(path, other, read_only=read_only)
    same_size = HashingEmbedder(32)
    same_size.name = "another-model"
    with pytest.raises(StoreError, match="not of another-model"):
        ArchivalStore(path, same_size)
    ArchivalStore(path, EMBEDDER).close()  # a refusal leaves no lock behind


def test_bad_arguments_are_refused(store: ArchivalStore) -> None:
    for bad in ({"capacity": -1}, {"piece_tokens": 0}):
        with pytest.raises(ValueError, match=next(iter(bad))):
            ArchivalStore(None, EMBEDDER, **bad)  # type: ignore[arg-type]
    with pytest.raises(ValueError, match="Page -1"):
        store.extend([NewEntry("new", page_id=9), NewEntry("new", page_id=-1)])
    with pytest.raises(ValueError, match="no time zone"):
        store.insert("new", time=datetime(2024, 1, 1))
    assert store.page_ids == [0, 1, 2, 3]


def test_the_moment_of_storing_is_the_default_time(store: ArchivalStore) -> None:
    before = datetime.now(UTC)
    entry = store.insert("a note about zebras")
    [hit] = [hit for hit in store.search("zebras").hits if hit.entry_id == entry]
    assert before - timedelta(seconds=1) <= hit.time <= datetime.now(UTC)


def test_an_interrupted_search_leaves_the_index_whole() -> None:
    add = TorchIndex.add

    def interrupted(self: TorchIndex, *arguments: npt.NDArray[np.int64]) -> None:
        add(self, *arguments)  # type: ignore[arg-type]
        raise KeyboardInterrupt

    with ArchivalStore(None, EMBEDDER, index="torch") as new:
        new.extend(NewEntry(text) for text in TEXTS)
        with (
            mock.patch.object(TorchIndex, "add", interrupted),
            pytest.raises(KeyboardInterrupt),
        ):
            new.search("kitten")
        assert new.search("kitten") == new.search("kitten")
        assert new.search("kitten").total == 4


class ArchiveModel(RuleBasedStateMachine):
    """A store and a reader of its file against an ordered dict, with both kinds of index."""

    @initialize(
        capacity=st.none() | st.integers(1, 4),
        kind=st.sampled_from(KINDS),
        on_disk=st.booleans(),
    )
    def open(self, capacity: int | None, kind: IndexKind, on_disk: bool) -> None:
        self.folder = self.make_folder()
        self.path = self.folder / "archive.db" if on_disk else None
        self.capacity, self.kind = capacity, kind
        self.entries: OrderedDict[int, tuple[int | None, str]] = OrderedDict()
        self.store = self.reopened()
        self.reader = self.reopened(read_only=True) if on_disk else None

    def make_folder(self) -> Path:
        raise NotImplementedError  # set by the test, which has a folder to give

    def reopened(self, read_only: bool = False) -> ArchivalStore:
        return ArchivalStore(
            self.path, EMBEDDER, capacity=self.capacity, index=self.kind, read_only=read_only
        )

    @rule(text=any_text, page_id=st.none() | st.integers(0, 9))
    def insert(self, text: str, page_id: int | None) -> None:
        entry = self.store.insert(text, page_id=page_id)
        archived = [key for key, (page, _) in self.entries.items() if page == page_id is not None]
        if archived:
            assert archived == [entry]
            return
        assert entry not in self.entries
        self.entries[entry] = (page_id, text)
        while self.capacity is not None and len(self.entries) > self.capacity:
            self.entries.popitem(last=False)

    @precondition(lambda self: self.entries)
    @rule(data=st.data())
    def delete(self, data: st.DataObject) -> None:
        entry = data.draw(st.sampled_from(list(self.entries)))
        page, _ = self.entries.pop(entry)
        if page is not None and data.draw(st.booleans()):
            self.store.delete_page(page)
        else:
            self.store.delete(entry)

    @precondition(lambda self: self.path is not None)
    @rule()
    def reopen(self) -> None:
        self.store.close()
        self.store = self.reopened()

    @rule(query=any_text.filter(str.strip), page=st.integers(0, 3), size=st.integers(1, 4))
    def search(self, query: str, page: int, size: int) -> None:
        clean = [query.encode("utf-8", "replace").decode()]
        clean += [t.encode("utf-8", "replace").decode() for _, t in self.entries.values()]
        vectors = EMBEDDER.embed(clean).astype(np.float64)
        keys = quantize_scores((vectors[1:] @ vectors[0]).astype(np.float32)).astype(int)
        order = [list(self.entries)[row] for row in np.argsort(-keys, kind="stable")]
        for store in filter(None, (self.store, self.reader)):
            result = store.search(query, page, size)
            assert result.total == len(order)
            assert [hit.entry_id for hit in result.hits] == order[page * size :][:size]
            for hit in result.hits:
                assert self.entries[hit.entry_id or 0] == (hit.page_id, hit.text)

    @invariant()
    def contents_agree(self) -> None:
        for store in filter(None, (self.store, self.reader)):
            assert store.ids == list(self.entries)
            assert store.page_ids == [p for p, _ in self.entries.values() if p is not None]
            assert len(store) == len(self.entries)

    def teardown(self) -> None:
        if hasattr(self, "store"):
            self.store.close()
            if self.reader:
                self.reader.close()


def test_the_archive_behaves_as_an_ordered_dict(tmp_path_factory: pytest.TempPathFactory) -> None:
    class Model(ArchiveModel):
        def make_folder(self) -> Path:
            return tmp_path_factory.mktemp("archive")

    Model.TestCase.settings = settings(max_examples=40, stateful_step_count=20, deadline=None)
    Model.TestCase("runTest").debug()
