"""From records to documents and tables: scopes, shuffles, clusters, and the real data."""

from __future__ import annotations

import re
from collections import Counter
from collections.abc import Sequence
from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np
import numpy.typing as npt
import pytest
from qa_fixtures import (
    hotpot_question,
    musique_question,
    oracle_question,
    recorded_files,
    wiki_question,
    write_json,
    write_lines,
)

from envs.workloads import describe
from envs.workloads.document_qa import corpus_documents, load_document_qa, question_document
from envs.workloads.files import DataFileMissingError
from envs.workloads.generated_qa import KINDS, generate_questions
from envs.workloads.loading import load_workload
from envs.workloads.qa_records import Passage, QaRecord
from envs.workloads.splits import clusters_of, split_workload
from envs.workloads.tables import Tables, build_tables, split_tables
from memrl.config import ConfigurationError
from memrl.document_config import DocumentQaConfig
from memrl.documents import Workload
from memrl.memory.embedders import HashingEmbedder
from memrl.policies.prior import fit_page_scorer
from memrl.surface import MAX_SPEAKERS
from memrl.table import EpisodeTable, Event
from memrl.workload_config import SplitConfig, WorkloadConfig


def rng(seed: int = 0) -> np.random.Generator:
    return np.random.default_rng(seed)


def load(folder: Path | None = None, seed: int = 0, **fields: Any) -> Workload:
    return load_document_qa(folder, DocumentQaConfig(**fields), rng(seed))


def record_of(num_passages: int = 6, support: tuple[int, ...] = (1, 4), **fields: Any) -> QaRecord:
    passages = tuple(Passage(f"Title {n}", f"text {n}", n) for n in range(num_passages))
    values: dict[str, Any] = {
        "question_id": "q",
        "question": "Which of title 2?",
        "answers": ("a",),
        "category": "kind",
        "passages": passages,
        "support": support,
    }
    return QaRecord(**(values | fields))


# ---------------------------------------------------------------------- documents


def test_a_document_is_a_question_with_its_passages() -> None:
    document = question_document(record_of(is_test=True), None)
    assert [page.rendered for page in document.pages][:2] == ["Title 0: text 0", "Title 1: text 1"]
    assert document.speakers == tuple(f"Title {n}" for n in range(6))
    (query,) = document.queries
    assert (query.needs, query.route, query.answers) == ((1, 4), (), ("a",))
    assert (query.category, query.source_id, document.document_id) == ("kind", "q", "q")
    assert document.is_test
    assert [page.source_id for page in document.pages] == [f"q/{n}" for n in range(6)]


def test_a_shuffle_moves_passages_and_needs_alike() -> None:
    orders = set()
    for seed in range(6):
        document = question_document(record_of(), rng(seed))
        order = [page.source_id for page in document.pages]
        assert sorted(order) == [f"q/{n}" for n in range(6)]
        assert {order[need] for need in document.queries[0].needs} == {"q/1", "q/4"}
        orders.add(tuple(order))
    assert len(orders) > 3


def test_with_too_many_titles_none_is_named() -> None:
    few, many = (record_of(count) for count in (MAX_SPEAKERS, MAX_SPEAKERS + 1))
    assert len(question_document(few, None).speakers) == MAX_SPEAKERS
    document = question_document(many, None)
    assert document.speakers == ()
    assert document.pages[0].rendered == "Title 0: text 0"


def test_a_corpus_is_one_tuple_of_pages_for_all_questions() -> None:
    pool = [Passage(f"Title {n}", f"text {n}", n) for n in range(8)]
    records = [record_of(question_id="a"), record_of(3, (2,), question_id="b")]
    documents = corpus_documents(records, pool, rng())
    assert documents[0].pages is documents[1].pages
    order = [page.source_id for page in documents[0].pages]
    assert sorted(order) == [f"corpus/{n}" for n in range(8)]
    assert order != [f"corpus/{n}" for n in range(8)]
    first, second = ({order[need] for need in doc.queries[0].needs} for doc in documents)
    assert first == {"corpus/1", "corpus/4"}
    assert second == {"corpus/2"}


# ---------------------------------------------------------------------- generated


def test_generated_questions_are_answered_by_what_they_need() -> None:
    records = generate_questions(30, 12, rng())
    assert [record.category for record in records[:6]] == [*KINDS, *KINDS]
    for record in records:
        texts = {passage.title: passage.text for passage in record.passages}
        assert len(texts) == 12
        needed = [record.passages[place] for place in record.support]
        (answer,) = record.answers
        if record.category == "bridge":
            person, town = needed
            assert person.title in record.question
            assert town.title not in record.question, "only the person's passage names the town"
            assert town.title in person.text
            assert town.text.endswith(f"Its workshops make {answer}.")
        elif record.category == "comparison":
            assert all(passage.title in record.question for passage in needed)
            years = {p.title: int(re.findall(r"\d{4}", p.text)[0]) for p in needed}
            assert answer == min(years, key=lambda name: years[name])
        else:
            (person,) = needed
            assert person.title in record.question
            assert f"was a {answer} who" in person.text


@pytest.mark.parametrize("num_passages", [8, 9, 400])
def test_generated_names_and_years_differ(num_passages: int) -> None:
    (record,) = generate_questions(1, num_passages, rng())
    assert len({passage.title for passage in record.passages}) == num_passages
    years = re.findall(r"\d{4}", " ".join(passage.text for passage in record.passages))
    assert len(set(years)) == len(years) == num_passages // 2


def test_the_generator_needs_no_folder_and_the_seed_decides() -> None:
    workload = load(num_questions=12, num_passages=10)
    assert (workload.name, len(workload.documents)) == ("generated", 12)
    assert workload == load(num_questions=12, num_passages=10)
    assert workload != load(num_questions=12, num_passages=10, seed=1)
    assert load(num_questions=13, num_passages=10).documents[:12] == workload.documents
    assert workload.provenance == {
        "generator": "document_qa",
        "params": {"num_questions": 12, "num_passages": 10},
    }
    assert len(load(num_passages=8).documents) == 300


# ---------------------------------------------------------------------- data sets


def write_all(folder: Path) -> Path:
    """Six or more questions of every data set."""
    write_json(
        folder / "hotpotqa" / "hotpot_distractor_sample.json.gz",
        [
            hotpot_question(
                f"h{n}",
                context=[[f"{title} {n}", [f"About {title} {n}."]] for title in "ABCD"],
                supporting_facts=[[f"A {n}", 0], [f"B {n // 2 * 2}", 0]],
            )
            for n in range(8)
        ],
    )
    write_lines(
        folder / "musique" / "musique_sample.jsonl.gz",
        [musique_question(f"2hop__{n}") for n in range(6)],
    )
    for name, numbers in (("dev", range(2)), ("train", range(2, 8))):
        questions = [
            wiki_question(
                f"w{n}",
                context=[[f"{title} {n}", [f"About {title} {n}."]] for title in "ABC"],
                supporting_facts=[[f"A {n}", 0], [f"C {n}", 0]],
            )
            for n in numbers
        ]
        write_json(folder / "2wikimultihopqa" / f"2wiki_{name}_sample.json.gz", questions)
    corpus = [{"title": f"T{n}", "text": f"Text of {n}."} for n in range(20)]
    write_json(folder / "2wikimultihopqa" / "2wiki_corpus.json.gz", corpus)
    write_lines(
        folder / "2wikimultihopqa" / "2wiki_retrieval_queries.jsonl.gz",
        [{"question": f"q{n}?", "gold_titles": [f"T{n}", f"T{n + 10}"]} for n in range(9)],
    )
    write_lines(
        folder / "lost_in_the_middle" / "nq-open-oracle.jsonl.gz",
        [oracle_question(n) for n in range(12)],
    )
    return folder


@pytest.fixture(scope="module")
def folder(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return write_all(tmp_path_factory.mktemp("data"))


@pytest.mark.parametrize(
    ("fields", "documents", "pages", "licence"),
    [
        ({"dataset": "hotpotqa"}, 8, 4, "CC BY-SA 4.0"),
        ({"dataset": "hotpotqa", "scope": "corpus"}, 8, 32, "CC BY-SA 4.0"),
        ({"dataset": "musique"}, 6, 4, "CC BY 4.0"),
        ({"dataset": "2wiki"}, 8, 3, "Apache-2.0"),
        ({"dataset": "2wiki", "scope": "corpus"}, 9, 20, "MIT"),
        ({"dataset": "nq", "num_passages": 5}, 12, 5, "MIT (passages CC BY-SA 3.0)"),
        ({"dataset": "nq", "num_passages": 5, "gold_at": (0, 4)}, 24, 5, None),
        ({"dataset": "nq", "num_passages": 5, "distractors": "random"}, 12, 5, None),
        ({"dataset": "nq", "scope": "corpus"}, 12, 12, None),
        ({"dataset": "hotpotqa", "num_questions": 3}, 3, 4, None),
        ({"dataset": "nq", "num_passages": 8, "num_questions": 3}, 3, 8, None),
        ({"dataset": "musique", "scope": "corpus", "num_questions": 2}, 2, 4, None),
    ],
)
def test_every_data_set_in_every_scope(
    folder: Path, fields: dict[str, Any], documents: int, pages: int, licence: str | None
) -> None:
    workload = load(folder, **fields)
    assert workload.name == fields["dataset"]
    assert len(workload.documents) == documents
    assert {len(document.pages) for document in workload.documents} == {pages}
    is_corpus = fields.get("scope") == "corpus"
    assert len({id(document.pages) for document in workload.documents}) == (
        1 if is_corpus else documents
    )
    assert licence in (None, workload.provenance["licence"])
    for own in recorded_files(workload).values():
        assert (len(own["sha256"]), own["version"]) == (64, "unknown")
    for document in workload.documents:
        (query,) = document.queries
        assert query.needs
    shared = {id(doc.pages): len(doc.pages) for doc in workload.documents}
    assert f"{sum(shared.values()):,} pages" in describe(workload)


def test_questions_that_share_evidence_are_one_cluster(folder: Path) -> None:
    # Of the fixture's questions the second one of each pair cites a passage that it has not.
    workload = load(folder, dataset="hotpotqa")
    assert workload.repairs == {
        "questions with another number of passages than 10 kept": 8,
        "supporting facts of passages that are not there dropped": 4,
    }
    assert len(clusters_of(workload.documents)) == 8
    assert len(clusters_of(load(folder, dataset="musique").documents)) == 1
    # The same question with its gold passage at several depths is one as well.
    nq = load(folder, dataset="nq", num_passages=5, gold_at=(0, 4))
    assert [len(members) for members in clusters_of(nq.documents).values()] == [2] * 12
    assert [doc.queries[0].needs for doc in nq.documents[:2]] == [(0,), (4,)]


def test_the_position_of_a_gold_passage_is_kept_and_random_otherwise(folder: Path) -> None:
    needs = Counter(
        doc.queries[0].needs for doc in load(folder, dataset="nq", num_passages=4).documents
    )
    assert len(needs) > 2
    fixed = load(folder, dataset="nq", num_passages=4, gold_at=(2,))
    assert {doc.queries[0].needs for doc in fixed.documents} == {(2,)}


def test_a_drawn_part_is_in_the_order_of_the_file(folder: Path) -> None:
    whole = [doc.document_id for doc in load(folder, dataset="hotpotqa").documents]
    some = [doc.document_id for doc in load(folder, dataset="hotpotqa", num_questions=4).documents]
    assert some == sorted(some)
    assert set(some) < set(whole)
    more = load(folder, dataset="hotpotqa", num_questions=99).documents
    assert [doc.document_id for doc in more] == whole


@pytest.mark.parametrize("dataset", ["nq", "hotpotqa", "musique", "2wiki"])
@pytest.mark.parametrize("scope", ["question", "corpus"])
def test_missing_data_is_one_clear_error(tmp_path: Path, dataset: str, scope: str) -> None:
    config = WorkloadConfig(
        name="document_qa",
        data_dir=str(tmp_path),
        document_qa=DocumentQaConfig(dataset=dataset, scope=scope),  # type: ignore[arg-type]
    )
    with pytest.raises(DataFileMissingError, match=r"put the file there.* is published at .*under"):
        load_workload(config)


def test_settings_that_fit_no_file_are_a_mistake_of_the_configuration(folder: Path) -> None:
    settings = DocumentQaConfig(dataset="nq", num_passages=15, distractors="published")
    config = WorkloadConfig(name="document_qa", data_dir=str(folder), document_qa=settings)
    with pytest.raises(ConfigurationError, match=r"workload\.document_qa: Lost in the Middle pub"):
        load_workload(config)


# ---------------------------------------------------------------------- tables


class CountingEmbedder:
    """Counts its calls and the texts that it embeds."""

    def __init__(self) -> None:
        self._inner = HashingEmbedder(16)
        self.name, self.dimension = self._inner.name, 16
        self.texts: list[str] = []

    def embed(self, texts: Sequence[str]) -> npt.NDArray[np.float32]:
        self.texts += texts
        return self._inner.embed(texts)


def tables_of(folder: Path, cache: Path, embedder: Any = None, **fields: Any) -> Tables:
    config = WorkloadConfig(
        name="document_qa",
        data_dir=str(folder),
        embedder="hashing",
        document_qa=DocumentQaConfig(**fields),
    )
    workload = load_workload(config)
    split = split_workload(workload.documents, SplitConfig())
    return build_tables(
        workload, split, config, embedder=embedder or HashingEmbedder(16), cache_folder=cache
    )


def parts(tables: Tables) -> list[EpisodeTable]:
    return [tables.train, tables.validation, tables.test]


@pytest.mark.parametrize("scope", ["question", "corpus"])
def test_everything_is_in_archival_before_the_only_question(
    folder: Path, tmp_path: Path, scope: str
) -> None:
    tables = tables_of(folder, tmp_path, dataset="hotpotqa", scope=scope)
    documents = [name for table in parts(tables) for name in table.text.document_ids]
    assert sorted(documents) == [f"h{n}" for n in range(8)]
    for table in parts(tables):
        assert table.num_episodes == table.num_documents == len(table.text.queries)
        assert (table.episode_num_preloaded == table.episode_num_pages).all()
        assert table.event_kind.tolist() == [[Event.QUERY]] * table.num_episodes


def test_a_corpus_is_embedded_and_scored_once(folder: Path, tmp_path: Path) -> None:
    embedder = CountingEmbedder()
    tables = tables_of(folder, tmp_path, embedder, dataset="2wiki", scope="corpus")
    assert len(embedder.texts) == 20 + 9
    train, validation, test = parts(tables)
    assert train.dense is validation.dense is test.dense
    assert len(train.dense) == 20 * 20 + 9 * 20
    assert len(list((tmp_path / "tables").iterdir())) == 1
    again = tables_of(folder, tmp_path, embedder, dataset="2wiki", scope="corpus")
    assert len(embedder.texts) == 20 + 9
    assert again.test.content_hash() == test.content_hash()
    for table in parts(tables):
        assert len(table.text.pages) == 20
        assert {need for row in table.query_needs for need in row} == {
            table.text.pages.index(text)
            for question in table.text.queries
            for number in [int(question.strip("q?"))]
            for text in (f"T{number}: Text of {number}.", f"T{number + 10}: Text of {number + 10}.")
        }


def test_no_page_scorer_tells_of_training_questions_in_a_corpus(
    folder: Path, tmp_path: Path
) -> None:
    corpus = tables_of(folder, tmp_path, dataset="2wiki", scope="corpus")
    scorer, logits = fit_page_scorer(corpus.train)
    assert not logits.any()
    assert not scorer.logits(corpus.test).any()


def test_idf_of_a_corpus_counts_each_passage_once_and_no_question(
    folder: Path, tmp_path: Path
) -> None:
    tables = tables_of(folder, tmp_path, dataset="2wiki", scope="corpus")
    assert tables.statistics is not None
    assert tables.statistics.num_documents == 20
    fewer = tables_of(folder, tmp_path, dataset="2wiki", scope="corpus", num_questions=6)
    assert fewer.statistics == tables.statistics


def test_idf_of_questions_with_passages_of_their_own_is_that_of_training(
    folder: Path, tmp_path: Path
) -> None:
    tables = tables_of(folder, tmp_path, dataset="hotpotqa")
    assert tables.statistics is not None
    assert tables.statistics.num_documents == len(tables.train.text.pages)


def test_the_published_split_of_2wiki(folder: Path) -> None:
    config = WorkloadConfig(
        name="document_qa",
        data_dir=str(folder),
        embedder="hashing",
        document_qa=DocumentQaConfig(dataset="2wiki"),
    )
    split = SplitConfig(kind="published", validation_frac=0.2)
    tables = split_tables(load_workload(config), split, config)
    assert tables.test.text.document_ids == ["w0", "w1"]
    assert tables.validation.num_documents == 1
    assert tables.train.num_documents == 5
    generated = replace(config, document_qa=DocumentQaConfig(num_questions=9))
    with pytest.raises(ConfigurationError, match=r"split\.kind published needs documents"):
        split_tables(load_workload(generated), split, generated)


# ---------------------------------------------------------------------- the real data


@pytest.mark.parametrize(
    ("fields", "documents", "clusters"),
    [
        ({"dataset": "nq"}, 1859, 1814),
        ({"dataset": "hotpotqa"}, 275, 274),
        ({"dataset": "musique"}, 210, 167),
        ({"dataset": "2wiki"}, 464, 449),
        ({"dataset": "2wiki", "scope": "corpus"}, 77, 77),
    ],
)
def test_the_data_sets_load_whole(
    data_dir: Path, fields: dict[str, Any], documents: int, clusters: int
) -> None:
    """Counts of the samples that the experiments use."""
    workload = load(data_dir, **fields)
    if {own["version"] for own in recorded_files(workload).values()} != {"repackaged"}:
        pytest.skip("the data folder holds another version of this data set")
    assert len(workload.documents) == documents
    assert len(clusters_of(workload.documents)) == clusters
    assert all(document.queries[0].pays_evidence for document in workload.documents)
