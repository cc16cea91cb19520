"""MuSiQue: questions of two to four hops over twenty paragraphs.

Source: Trivedi et al., *MuSiQue: Multihop Questions via Single-hop Question Composition*, arXiv
2108.00573; CC BY 4.0. JSON lines of `id` (its prefix names the structure of the hops), `question`,
`paragraphs` (`idx`, `title`, `paragraph_text`, `is_supporting`), `question_decomposition`,
`answer`, `answer_aliases`, `answerable`. Titles repeat within a question: a paragraph is its `idx`.
Questions that the paragraphs cannot answer (of the full version) are left out.
"""

from __future__ import annotations

from collections import Counter
from collections.abc import Mapping
from pathlib import Path

from envs.workloads.files import DataSource, find_data_file, read_json_lines
from envs.workloads.qa_records import QaRecord, RecordMaker, fields_of, list_of, text_of, usable

SOURCE = DataSource(
    folder="musique",
    published="GitHub StonyBrookNLP/musique (musique_ans_v1.0_dev.jsonl)",
    licence="CC BY 4.0",
)
FILE_NAMES = (
    *("musique_sample.jsonl.gz", "musique_ans_v1.0_dev.jsonl", "musique_ans_v1.0_dev.jsonl.gz"),
)


def read_musique(
    data_dir: str | Path | None, repairs: Counter[str]
) -> tuple[list[QaRecord], list[Path]]:
    """Reads MuSiQue's questions.

    Args:
        data_dir: folder that holds `musique/`; None takes the one named by `MEMRL_DATA`.
        repairs: counts of what was mended or dropped; added to.

    Returns:
        The records, and the files that were read.

    Raises:
        DataFileMissingError: the file is not there (a `FileNotFoundError`).
        DataFormatError: the file is damaged, or holds no question that can be used.
    """
    path = find_data_file(data_dir, SOURCE, FILE_NAMES)
    maker = RecordMaker(repairs)
    made = (_read_question(fields_of(value), maker) for value in read_json_lines(path, repairs))
    return usable(made, path, SOURCE, "paragraphs and evidence"), [path]


def _read_question(fields: Mapping[str, object], maker: RecordMaker) -> QaRecord | None:
    repairs = maker.repairs
    if fields.get("answerable") is False:
        repairs["questions that cannot be answered left out"] += 1
        return None
    paragraphs = [fields_of(value) for value in list_of(fields.get("paragraphs"))]
    places = []
    for number, paragraph in enumerate(paragraphs):
        idx = paragraph.get("idx")
        repairs["paragraphs without a number named by their place"] += type(idx) is not int
        places.append(idx if isinstance(idx, int) else number)
    support = [n for n, own in enumerate(paragraphs) if own.get("is_supporting") is True]
    if not support:
        steps = [fields_of(step) for step in list_of(fields.get("question_decomposition"))]
        cited = {step.get("paragraph_support_idx") for step in steps}
        support = [number for number, place in enumerate(places) if place in cited]
        repairs["questions without marked paragraphs: those of its steps taken"] += bool(support)
    name = text_of(fields.get("id"))
    return maker.make(
        question_id=name,
        question=fields.get("question"),
        answers=[fields.get("answer"), *list_of(fields.get("answer_aliases"))],
        category=name.split("__")[0],
        passages=[(own.get("title"), own.get("paragraph_text")) for own in paragraphs],
        support=support,
        places=places,
    )
