"""LoCoMo: very long two-speaker conversations with questions and evidence turns.

Source: Maharana et al., *Evaluating Very Long-Term Conversational Memory of LLM Agents*, arXiv
2402.17753; data `snap-research/LoCoMo`, `data/locomo10.json`, CC BY-NC 4.0. A page is one turn.

Corrections: an independent audit (`dial481/locomo-audit`, `errors.json`) lists questions whose
cited evidence or whose gold answer is wrong. Put beside the data as `errata.json` (a list of
objects with `error_type`, `correct_evidence`, and either `question_id` as the audit has it or
`sample_id` and `qa_index`), it is applied as the options say.
"""

from __future__ import annotations

import re
from collections import Counter
from collections.abc import Mapping
from dataclasses import replace
from pathlib import Path
from typing import Any

from envs.workloads.files import (
    DataFormatError,
    DataSource,
    find_data_file,
    provenance_of,
    read_json,
)
from envs.workloads.locomo_records import (
    NO_TURN_ID,
    UNKNOWN_TURN,
    LocomoCategory,
    page_positions,
    query_source_id,
    read_document,
    resolve_evidence,
)
from memrl.documents import Document, Query, Workload

__all__ = ["FILE_NAMES", "SOURCE", "LocomoCategory", "load_locomo"]

SOURCE = DataSource(
    folder="locomo",
    published="GitHub snap-research/LoCoMo, data/locomo10.json",
    licence="CC BY-NC 4.0 (non-commercial)",
)
FILE_NAMES = ("locomo7.json.gz", "locomo10.json", "locomo10.json.gz")
ERRATA_NAME = "errata.json"
_EVIDENCE_ERROR = "WRONG_CITATION"  # every other error_type of the audit concerns the answer
# The audit names conversations by their place in the published file.
_AUDITED = tuple(f"conv-{number}" for number in (26, 30, 41, 42, 43, 44, 47, 48, 49, 50))
_AUDIT_ID = re.compile(r"locomo_([0-9])_qa([0-9]+)")


def load_locomo(
    data_dir: str | Path | None = None,
    *,
    correct_evidence: bool = True,
    mask_wrong_answers: bool = True,
    captions: bool = True,
) -> Workload:
    """Loads LoCoMo's conversations.

    `Query.category` is the lower-case name of a `LocomoCategory`. Adversarial questions are not
    answerable; they keep the evidence that the source cites and have no gold answer. Of the
    accepted files (`FILE_NAMES`, in that order) the first one present is read.

    Args:
        data_dir: folder that holds `locomo/`; None takes the one named by `MEMRL_DATA`.
        correct_evidence: replace the needs of a question by the errata's evidence where it differs
            and names existing turns only.
        mask_wrong_answers: empty the gold answers that the errata call wrong, so that nothing is
            scored against them.
        captions: append the caption of a shared image, in brackets, to the text of its turn.

    Returns:
        The workload. `repairs` counts all that was mended, dropped, corrected or masked; without an
        errata file it says so and nothing is corrected.

    Raises:
        DataFileMissingError: the file is not there (a `FileNotFoundError`).
        DataFormatError: the file is damaged, or is not a list of conversations with turns, or two
            conversations have the same id.
    """
    path = find_data_file(data_dir, SOURCE, FILE_NAMES)
    repairs: Counter[str] = Counter()
    documents = _read_documents(path, captions, repairs)
    errata_path = path.with_name(ERRATA_NAME)
    use_errata = correct_evidence or mask_wrong_answers
    errata_found = use_errata and errata_path.is_file()
    if errata_found:
        errata = _read_errata(errata_path)
        known = {query.source_id for document in documents for query in document.queries}
        repairs["errata entries that match no question ignored"] += len(errata.keys() - known)
        documents = [
            _apply_errata(document, errata, correct_evidence, mask_wrong_answers, repairs)
            for document in documents
        ]
    counts = {what: count for what, count in sorted(repairs.items()) if count}
    if use_errata and not errata_found:
        counts[f"errata applied ({ERRATA_NAME} is absent)"] = 0
    return Workload(
        name="locomo",
        documents=tuple(documents),
        provenance=provenance_of(
            SOURCE,
            [path, errata_path] if errata_found else [path],
            options={
                "correct_evidence": correct_evidence,
                "mask_wrong_answers": mask_wrong_answers,
                "captions": captions,
            },
        ),
        repairs=counts,
    )


def _read_documents(path: Path, captions: bool, repairs: Counter[str]) -> list[Document]:
    records = read_json(path)
    if not isinstance(records, list):
        raise DataFormatError(
            f"{path} holds a {type(records).__name__} where LoCoMo has a list of conversations: "
            f"fetch it again from {SOURCE.published}."
        )
    read = [
        read_document(record, index, captions=captions, repairs=repairs)
        for index, record in enumerate(records)
    ]
    documents = [document for document in read if document is not None]
    if not documents:
        raise DataFormatError(
            f"{path} holds no conversation with turns: fetch it again from {SOURCE.published}."
        )
    ids = Counter(document.document_id for document in documents)
    repeated = [document_id for document_id, count in ids.items() if count > 1]
    if repeated:
        # A conversation that is there twice could land on both sides of a split.
        raise DataFormatError(
            f"{path} holds more than one conversation with the id {', '.join(repeated)}: remove or "
            "rename the repeated ones."
        )
    return documents


def _read_errata(path: Path) -> dict[str, dict[str, Any]]:
    entries = read_json(path)
    if not isinstance(entries, list):
        raise DataFormatError(
            f"{path} holds a {type(entries).__name__} where a list of errata is expected: mend "
            "it or remove it."
        )
    errata: dict[str, dict[str, Any]] = {}
    for position, entry in enumerate(entries):
        fields = entry if isinstance(entry, dict) else {}
        audited = _AUDIT_ID.fullmatch(str(fields.get("question_id")))
        if audited:
            fields |= {"sample_id": _AUDITED[int(audited[1])], "qa_index": int(audited[2])}
        if not {"sample_id", "qa_index", "error_type"} <= fields.keys():
            raise DataFormatError(
                f"Entry {position} of {path} lacks error_type, or question_id and sample_id or "
                "qa_index: mend it or remove it."
            )
        errata[query_source_id(fields["sample_id"], fields["qa_index"])] = fields
    return errata


def _apply_errata(
    document: Document,
    errata: Mapping[str, Mapping[str, Any]],
    correct_evidence: bool,
    mask_wrong_answers: bool,
    repairs: Counter[str],
) -> Document:
    positions = page_positions(document.pages)

    def corrected(query: Query) -> Query:
        entry = errata.get(query.source_id)
        if entry is None:
            return query
        if correct_evidence and entry.get("correct_evidence"):
            problems: Counter[str] = Counter()
            needs = resolve_evidence(entry["correct_evidence"], positions, problems)
            if not needs or problems[NO_TURN_ID] or problems[UNKNOWN_TURN]:
                repairs["errata with evidence that does not resolve: needs left as cited"] += 1
            elif needs != query.needs:
                repairs["evidence corrected by errata"] += 1
                query = replace(query, needs=needs)
        if mask_wrong_answers and query.answers and entry["error_type"] != _EVIDENCE_ERROR:
            repairs["wrong answers masked by errata"] += 1
            query = replace(query, answers=())
        return query

    return replace(document, queries=tuple(corrected(query) for query in document.queries))
