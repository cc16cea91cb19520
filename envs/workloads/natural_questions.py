"""NaturalQuestions-Open as in Lost in the Middle: one gold passage among distractors.

Source: Liu et al., *Lost in the Middle*, arXiv 2307.03172, `qa_data`; MIT, passages CC BY-SA 3.0.
JSON lines of `question`, `answers` and `ctxs` (`title`, `text`, `isgold`). The published files hold
10, 20 or 30 documents, the gold one at a stated position and the others retrieved ones without an
answer. The oracle file holds the gold passage alone; from it the same is made here: distractors are
gold passages of other questions that contain no answer (another question's passage can be a right
one), either the best lexical matches or random ones. They are fewer and less alike than upstream's,
so that such results are not comparable with the paper's; a report says "oracle pool".

There is no id; a question's text is unique.
"""

from __future__ import annotations

from collections import Counter
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import replace
from pathlib import Path

import numpy as np
import numpy.typing as npt

from envs.workloads.answer_scoring import normalize_answer
from envs.workloads.files import (
    DataFormatError,
    DataSource,
    find_data_file,
    read_json_lines,
)
from envs.workloads.qa_records import Passage, QaRecord, RecordMaker, fields_of, list_of, usable
from memrl.memory.bm25 import Bm25Statistics, bm25_scores

SOURCE = DataSource(
    folder="lost_in_the_middle",
    published="GitHub nelson-liu/lost-in-the-middle, qa_data",
    licence="MIT (passages CC BY-SA 3.0)",
)
ORACLE_NAMES = ("nq-open-oracle.jsonl.gz", "qa_data/nq-open-oracle.jsonl.gz")
PUBLISHED_POSITIONS = {10: (0, 4, 9), 20: (0, 4, 9, 14, 19), 30: (0, 4, 9, 14, 19, 24, 29)}
"""Positions of the gold document that files are published for, by their number of documents."""


def published_names(num_documents: int, position: int) -> tuple[str, str]:
    """Accepted names of the file with so many documents and the gold one at a position."""
    name = f"nq-open-{num_documents}_total_documents_gold_at_{position}.jsonl.gz"
    return name, f"qa_data/{num_documents}_total_documents/{name}"


def read_oracle(
    data_dir: str | Path | None, repairs: Counter[str]
) -> tuple[list[QaRecord], list[Path]]:
    """Reads the questions with their gold passage alone.

    Args:
        data_dir: folder that holds `lost_in_the_middle/`; None takes the one named by `MEMRL_DATA`.
        repairs: counts of what was mended or dropped; added to.

    Returns:
        The records, and the files that were read.

    Raises:
        DataFileMissingError: the file is not there (a `FileNotFoundError`).
        DataFormatError: the file is damaged, or holds no question that can be used.
    """
    path = find_data_file(data_dir, SOURCE, ORACLE_NAMES)
    return _read_file(path, RecordMaker(repairs), "nq"), [path]


def read_published(
    data_dir: str | Path | None,
    repairs: Counter[str],
    *,
    num_documents: int,
    positions: Sequence[int],
) -> tuple[list[QaRecord], list[Path]]:
    """Reads the published files, one a position; passages keep their order.

    The same question at several positions is several records; their ids name the position.

    Args:
        data_dir, repairs: as `read_oracle`.
        num_documents: of a question, 10, 20 or 30.
        positions: of the gold document; empty for all that are published.

    Raises:
        DataFileMissingError, DataFormatError: as `read_oracle`.
        ValueError: no file is published for a number or a position.
    """
    known = PUBLISHED_POSITIONS.get(num_documents, ())
    if not known or not set(positions) <= set(known):
        raise ValueError(
            f"Lost in the Middle publishes no {num_documents} documents with the gold one at "
            f"{list(positions)}: set num_passages and gold_at to {PUBLISHED_POSITIONS}."
        )
    records: list[QaRecord] = []
    paths: list[Path] = []
    for position in positions or known:
        path = find_data_file(data_dir, SOURCE, published_names(num_documents, position))
        of_file = _read_file(path, RecordMaker(repairs), at_position(position))
        records += [replace(record, question_id=_name(record, position)) for record in of_file]
        paths.append(path)
    return records, paths


def at_position(position: int) -> str:
    """Category of the questions whose gold passage stands at a position, from 0."""
    return f"gold at {position:02d}"


def _name(record: QaRecord, position: int) -> str:
    return f"{record.question_id} [{at_position(position)}]"


def _read_file(path: Path, maker: RecordMaker, category: str) -> list[QaRecord]:
    made = (
        _read_question(fields_of(value), maker, category)
        for value in read_json_lines(path, maker.repairs)
    )
    return usable(made, path, SOURCE, "a gold passage")


def _read_question(
    fields: Mapping[str, object], maker: RecordMaker, category: str
) -> QaRecord | None:
    passages = [fields_of(value) for value in list_of(fields.get("ctxs"))]
    return maker.make(
        question_id=fields.get("question"),
        question=fields.get("question"),
        answers=list_of(fields.get("answers")),
        category=category,
        passages=[(own.get("title"), own.get("text")) for own in passages],
        support=[number for number, own in enumerate(passages) if own.get("isgold") is True],
    )


# ---------------------------------------------------------------------- distractors


def with_distractors(
    records: Sequence[QaRecord],
    pool: Sequence[Passage],
    *,
    num_passages: int,
    best_matches: bool,
    positions: Sequence[int],
    rng: np.random.Generator,
    repairs: Counter[str],
) -> list[QaRecord]:
    """Puts gold passages of other questions beside each gold passage.

    Args:
        records: questions of the oracle file.
        pool: different passages that distractors are taken from.
        num_passages: passages of a question then, the gold one included.
        best_matches: take the passages that match the question best (BM25, with the statistics of
            all of them), not random ones.
        positions: of the gold passage, from 0, each making a record; empty for a random one.
        rng: source of randomness; its seed sequence is advanced by one spawn a question.
        repairs: counts of what was dropped; added to.

    Returns:
        Records whose passages stand in this order: distractors as they were drawn, the gold passage
        among them.

    Raises:
        DataFormatError: no question has so many passages without an answer beside it.
    """
    texts = [" ".join(passage.content) for passage in pool]
    normalized = [normalize_answer(text) for text in texts]
    ranks = _ranks([record.question for record in records], texts) if best_matches else None
    made: list[QaRecord] = []
    for number, (record, stream) in enumerate(zip(records, rng.spawn(len(records)), strict=True)):
        order = stream.permutation(len(pool)) if ranks is None else ranks[number]
        chosen = _without_answer(record, pool, normalized, order, num_passages - 1)
        if len(chosen) < num_passages - 1:
            repairs["questions with too few passages without their answer dropped"] += 1
            continue
        chosen = [chosen[place] for place in stream.permutation(len(chosen))]
        drawn = int(stream.integers(num_passages))
        if not positions:
            made.append(_among(record, chosen, drawn))
        for position in positions:
            placed = _among(record, chosen, position)
            name = _name(record, position)
            made.append(replace(placed, question_id=name, category=at_position(position)))
    if not made:
        raise DataFormatError(
            f"None of the {len(records)} questions has {num_passages - 1} passages without its "
            "answer beside its own: lower num_passages, or give it more questions."
        )
    return made


def _ranks(questions: Sequence[str], texts: Sequence[str]) -> npt.NDArray[np.int64]:
    scores = bm25_scores(questions, texts, Bm25Statistics.fit(texts))
    ranks: npt.NDArray[np.int64] = np.argsort(-scores, axis=1, kind="stable")
    return ranks


def _without_answer(
    record: QaRecord,
    pool: Sequence[Passage],
    normalized: Sequence[str],
    order: npt.NDArray[np.int64],
    count: int,
) -> list[Passage]:
    """The first passages in an order that are not the question's own and hold none of its answers.

    Without an answer to look for, another passage could be a right one; those questions get none.
    """
    own = {passage.content for passage in record.passages}
    answers = [normalize_answer(answer) for answer in record.answers]

    def fitting() -> Iterator[Passage]:
        for place in order:
            text = normalized[place]
            if pool[place].content not in own and not any(answer in text for answer in answers):
                yield pool[place]

    return [passage for passage, _ in zip(fitting(), range(count if answers else 0), strict=False)]


def _among(record: QaRecord, distractors: Sequence[Passage], position: int) -> QaRecord:
    """The record with its gold passage at a position; places count anew."""
    gold = record.passages[record.support[0]]
    passages = [*distractors[:position], gold, *distractors[position:]]
    numbered = tuple(replace(passage, place=place) for place, passage in enumerate(passages))
    return replace(record, passages=numbered, support=(position,))
