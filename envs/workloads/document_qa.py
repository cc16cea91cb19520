"""Question answering over documents: passages in archival, a question, and what to bring in for it.

Data sets: NaturalQuestions-Open, HotpotQA, MuSiQue, 2WikiMultihopQA, and generated questions. Pages
are passages, shown and embedded as "title: text" (the title is the page's `speaker`, so that a page
or a question that names another passage's title is seen to do so). Needs are the supporting
passages. All pages are in archival before the question; the policy retrieves, chains and stops.

Two scopes. *question*: a document is a question with its own passages. *corpus*: all questions ask
about one pool of passages, those of all questions or the published corpus. There a document is a
question, too, and all of them hold one and the same tuple of pages, which a table keeps once
(`memrl.documents.Document`): splits and intervals are by question as everywhere, and the page x
page scores exist once for training, validation and test together.

What keeps test apart from training:
- Questions that share a supporting passage are one cluster: on one side of every split, and one
  unit of statistics.
- Pages are shuffled. The sources keep the passages of a question side by side in a pool, so that
  their order, which observations show as age and as neighbours, would tell what belongs together.
  Only NaturalQuestions' gold passage can be put at a chosen place.
- In a corpus the same passages are searched in training and in test: that is the task, for a corpus
  is known before any question is. Its idf and length statistics use the passages and no question.
- No page scorer is fitted (`memrl.policies.prior`): passages recur, and it would tell which of them
  training questions needed.
"""

from __future__ import annotations

from collections import Counter
from collections.abc import Sequence
from pathlib import Path

import numpy as np

from envs.workloads import hotpotqa, musique, natural_questions, two_wiki
from envs.workloads.files import DataSource, provenance_of
from envs.workloads.generated_qa import generate_questions
from envs.workloads.qa_records import Passage, QaRecord
from envs.workloads.splits import clustered_by_evidence
from memrl.document_config import DocumentQaConfig
from memrl.documents import Citations, Document, Page, Query, Workload
from memrl.surface import MAX_SPEAKERS

GENERATED_QUESTIONS = 300
"""Questions that are generated unless a number is given."""

_SOURCES: dict[str, DataSource] = {
    "nq": natural_questions.SOURCE,
    "hotpotqa": hotpotqa.SOURCE,
    "musique": musique.SOURCE,
    "2wiki": two_wiki.SOURCE,
}


def load_document_qa(
    data_dir: str | Path | None, settings: DocumentQaConfig, rng: np.random.Generator
) -> Workload:
    """Loads or generates questions and their passages.

    Args:
        data_dir: folder that holds the data sets' folders; None takes the one named by
            `MEMRL_DATA`; not read for generated questions.
        settings: which data set and in what form.
        rng: source of randomness; its seed sequence is advanced by one spawn for each step that
            draws.

    Returns:
        The workload, named by its data set; `repairs` counts what was mended or dropped.

    Raises:
        DataFileMissingError: a file is not there (a `FileNotFoundError`).
        DataFormatError: a file is damaged, or holds no question that can be used.
        ValueError: no such file is published.
    """
    repairs: Counter[str] = Counter()
    making, drawing, placing = rng.spawn(3)
    records, pool, provenance = _read(data_dir, settings, making, repairs)
    if settings.num_questions is not None:
        # By their text: a question whose gold passage stands at several places is one of them.
        questions = list(dict.fromkeys(record.question for record in records))
        order = drawing.permutation(len(questions))[: settings.num_questions]
        chosen = {questions[place] for place in order}
        records = [record for record in records if record.question in chosen]
    if settings.scope == "corpus":
        documents = corpus_documents(records, pool, placing)
    else:
        if settings.dataset == "nq" and settings.distractors != "published":
            records = natural_questions.with_distractors(
                records,
                pool,
                num_passages=settings.num_passages,
                best_matches=settings.distractors == "lexical",
                positions=settings.gold_at,
                rng=placing,
                repairs=repairs,
            )
        keeps_order = settings.dataset == "nq"
        streams = [None] * len(records) if keeps_order else placing.spawn(len(records))
        documents = [
            question_document(record, stream)
            for record, stream in zip(records, streams, strict=True)
        ]
    return Workload(
        name=settings.dataset,
        documents=clustered_by_evidence(documents),
        provenance=provenance,
        repairs={what: count for what, count in sorted(repairs.items()) if count},
        citations={
            record.question_id: Citations(record.facts, record.triples)
            for record in records
            if record.facts or record.triples
        },
    )


def _read(
    data_dir: str | Path | None,
    settings: DocumentQaConfig,
    rng: np.random.Generator,
    repairs: Counter[str],
) -> tuple[list[QaRecord], list[Passage], dict[str, object]]:
    """Records, different passages of all of them or of the corpus, and provenance."""
    if settings.dataset == "generated":
        count = settings.num_questions or GENERATED_QUESTIONS
        made = generate_questions(count, settings.num_passages, rng)
        parameters = {"num_questions": count, "num_passages": settings.num_passages}
        return made, _pooled(made), {"generator": "document_qa", "params": parameters}
    source = _SOURCES[settings.dataset]
    if settings.dataset == "2wiki" and settings.scope == "corpus":
        records, pool, paths = two_wiki.read_2wiki_corpus(data_dir, repairs)
        source = two_wiki.CORPUS
    else:
        records, paths = _read_records(data_dir, settings, repairs)
        pool = _pooled(records)
    return records, pool, provenance_of(source, paths)


def _read_records(
    data_dir: str | Path | None, settings: DocumentQaConfig, repairs: Counter[str]
) -> tuple[list[QaRecord], list[Path]]:
    if settings.dataset == "hotpotqa":
        return hotpotqa.read_hotpotqa(data_dir, repairs)
    if settings.dataset == "musique":
        return musique.read_musique(data_dir, repairs)
    if settings.dataset == "2wiki":
        return two_wiki.read_2wiki(data_dir, repairs)
    if settings.distractors != "published":
        return natural_questions.read_oracle(data_dir, repairs)
    return natural_questions.read_published(
        data_dir, repairs, num_documents=settings.num_passages, positions=settings.gold_at
    )


def _pooled(records: Sequence[QaRecord]) -> list[Passage]:
    """Different passages of all records, in order."""
    return list({p.content: p for record in records for p in record.passages}.values())


# ---------------------------------------------------------------------- documents


def question_document(record: QaRecord, rng: np.random.Generator | None) -> Document:
    """A question with its own passages, shuffled unless `rng` is None."""
    count = len(record.passages)
    order = list(range(count)) if rng is None else rng.permutation(count).tolist()
    passages = [record.passages[place] for place in order]
    needs = tuple(sorted(order.index(place) for place in record.support))
    pages = tuple(_page(passage, record.question_id) for passage in passages)
    return _document(record, pages, needs)


def corpus_documents(
    records: Sequence[QaRecord], pool: Sequence[Passage], rng: np.random.Generator
) -> list[Document]:
    """Questions about one pool of passages, shuffled; all documents hold the same pages.

    Args:
        records: their supporting passages are in the pool.
        pool: different passages.
        rng: of the shuffle.
    """
    shuffled = [pool[place] for place in rng.permutation(len(pool))]
    pages = tuple(_page(passage, "corpus") for passage in shuffled)
    index_of = {passage.content: index for index, passage in enumerate(shuffled)}
    documents = []
    for record in records:
        contents = [record.passages[place].content for place in record.support]
        needs = tuple(sorted(index_of[content] for content in contents))
        documents.append(_document(record, pages, needs))
    return documents


def _page(passage: Passage, source: str) -> Page:
    return Page(passage.text, speaker=passage.title, source_id=f"{source}/{passage.place}")


def _document(record: QaRecord, pages: tuple[Page, ...], needs: tuple[int, ...]) -> Document:
    query = Query(
        text=record.question,
        needs=needs,
        category=record.category,
        answers=record.answers,
        source_id=record.question_id,
    )
    titles = tuple(dict.fromkeys(page.speaker for page in pages))
    # A few titles that can be named among many that cannot would be told apart by their place.
    named = titles if len(titles) <= MAX_SPEAKERS else ()
    return Document(record.question_id, pages, (query,), named, is_test=record.is_test)
