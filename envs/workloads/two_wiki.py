"""2WikiMultihopQA: two or four hops over ten passages, and retrieval from one corpus.

Source: Ho et al., *Constructing A Multi-hop QA Dataset for Comprehensive Evaluation of Reasoning
Steps*, arXiv 2011.01060; Apache-2.0. The layout is HotpotQA's (`envs.workloads.hotpotqa`) with
evidence triples. Where `id_aliases.json` lies beside the files, it gives further accepted names.
Training questions that share a supporting passage with one set aside for testing are dropped.

The retrieval form: HippoRAG (arXiv 2405.14831) retrieves from one corpus of passages (`title`,
`text`); the questions to it name the titles that they need, as JSON lines of `question` and
`gold_titles`, or as a JSON list in the layout above.
"""

from __future__ import annotations

from collections import Counter
from collections.abc import Iterable
from pathlib import Path

from envs.workloads.files import (
    DataFormatError,
    DataSource,
    find_data_file,
    read_json,
    read_json_lines,
)
from envs.workloads.hotpotqa import HOLDING, read_facts, read_file
from envs.workloads.qa_records import (
    MISSING_SUPPORT,
    Passage,
    QaRecord,
    RecordMaker,
    fields_of,
    list_of,
    text_of,
    usable,
)

SOURCE = DataSource(
    folder="2wikimultihopqa",
    published="GitHub Alab-NII/2wikimultihop (data_ids_april7.zip)",
    licence="Apache-2.0",
)
TEST_NAMES = ("2wiki_dev_sample.json.gz", "dev.json", "dev.json.gz")
TRAIN_NAMES = ("2wiki_train_sample.json.gz", "train.json", "train.json.gz")
CORPUS = DataSource(
    folder="2wikimultihopqa",
    published="GitHub OSU-NLP-Group/HippoRAG, reproduce/dataset (2wikimultihopqa*.json)",
    licence="MIT",
)
CORPUS_NAMES = ("2wiki_corpus.json.gz", "2wikimultihopqa_corpus.json")
CORPUS_QUERY_NAMES = ("2wiki_retrieval_queries.jsonl.gz", "2wikimultihopqa.json")
ALIASES_NAME = "id_aliases.json"


def read_2wiki(
    data_dir: str | Path | None, repairs: Counter[str]
) -> tuple[list[QaRecord], list[Path]]:
    """Reads 2WikiMultihopQA's questions, those set aside for testing first.

    Args:
        data_dir: folder that holds `2wikimultihopqa/`; None takes the one named by `MEMRL_DATA`.
        repairs: counts of what was mended or dropped; added to.

    Returns:
        The records, and the files that were read.

    Raises:
        DataFileMissingError: a file is not there (a `FileNotFoundError`).
        DataFormatError: a file is damaged, or holds no question that can be used.
    """
    maker = RecordMaker(repairs)
    records: list[QaRecord] = []
    paths: list[Path] = []
    for names, is_test in ((TEST_NAMES, True), (TRAIN_NAMES, False)):
        path = find_data_file(data_dir, SOURCE, names)
        aliases_path = path.with_name(ALIASES_NAME)
        aliases = _read_aliases(aliases_path, repairs)
        records += read_file(path, SOURCE, maker, aliases, is_test=is_test)
        paths.append(path)
    if aliases_path.is_file():
        paths.append(aliases_path)
    return _without_shared_evidence(records, repairs), paths


def read_2wiki_corpus(
    data_dir: str | Path | None, repairs: Counter[str]
) -> tuple[list[QaRecord], list[Passage], list[Path]]:
    """Reads the corpus and the questions to it; a record's passages are those it needs.

    Returns:
        The records; the passages of the corpus; and the files that were read.

    Raises:
        DataFileMissingError, DataFormatError: as `read_2wiki`.
    """
    corpus_path = find_data_file(data_dir, CORPUS, CORPUS_NAMES)
    path = find_data_file(data_dir, CORPUS, CORPUS_QUERY_NAMES)
    corpus = _read_corpus(corpus_path, repairs)
    by_title: dict[str, Passage] = {}
    for passage in corpus:
        by_title.setdefault(passage.title, passage)
    maker, made = RecordMaker(repairs), []
    is_lines = ".jsonl" in path.suffixes
    values = read_json_lines(path, repairs) if is_lines else list_of(read_json(path))
    for value in values:
        fields = fields_of(value)
        titles = [text_of(title) for title in list_of(fields.get("gold_titles"))]
        titles = titles or [
            title for title, _ in read_facts(fields.get("supporting_facts"), repairs)
        ]
        gold = [by_title.get(title) for title in dict.fromkeys(titles)]
        found = [passage for passage in gold if passage is not None]
        repairs[MISSING_SUPPORT] += len(gold) - len(found)
        made.append(
            maker.make(
                question_id=fields.get("_id") or fields.get("question"),
                question=fields.get("question"),
                answers=[fields["answer"]] if "answer" in fields else [],
                category=fields.get("type") or f"{len(gold)} passages",
                passages=[passage.content for passage in found],
                support=range(len(found)),
            )
        )
    records = usable(made, path, CORPUS, HOLDING)
    return records, corpus, [corpus_path, path]


def _read_corpus(path: Path, repairs: Counter[str]) -> list[Passage]:
    corpus: dict[tuple[str, str], Passage] = {}
    for place, value in enumerate(list_of(read_json(path))):
        fields = fields_of(value)
        passage = Passage(text_of(fields.get("title")), text_of(fields.get("text")), place)
        if not passage.title or not passage.text:
            repairs["passages of the corpus without title or text dropped"] += 1
        elif passage.content in corpus:
            repairs["passages that the corpus has twice merged"] += 1
        else:
            corpus[passage.content] = passage
    titles = Counter(passage.title for passage in corpus.values())
    repairs["titles of several passages of the corpus: the first one is meant"] += sum(
        count > 1 for count in titles.values()
    )
    if not corpus:
        raise DataFormatError(
            f"{path} holds no passage with title and text: fetch it again from {CORPUS.published}."
        )
    return list(corpus.values())


def _read_aliases(path: Path, repairs: Counter[str]) -> dict[str, list[str]]:
    """Further names of entities by id; none where the file is absent."""
    if not path.is_file():
        return {}
    aliases = {}
    for value in read_json_lines(path, repairs):
        fields = fields_of(value)
        names = [*list_of(fields.get("aliases")), *list_of(fields.get("demonyms"))]
        aliases[text_of(fields.get("Q_id"))] = [text_of(name) for name in names if text_of(name)]
    aliases.pop("", None)  # an answer without an id has none
    return aliases


def _without_shared_evidence(records: Iterable[QaRecord], repairs: Counter[str]) -> list[QaRecord]:
    """Drop training questions that share a supporting passage with one set aside for testing."""

    def evidence(record: QaRecord) -> set[tuple[str, str]]:
        return {record.passages[place].content for place in record.support}

    records = list(records)
    tested = set().union(*(evidence(record) for record in records if record.is_test))
    kept = [record for record in records if record.is_test or not evidence(record) & tested]
    repairs["training questions that share evidence with a test question dropped"] += len(
        records
    ) - len(kept)
    return kept
