"""Made-up questions in the layouts of the data sets, and files of them."""

from __future__ import annotations

import gzip
import json
from collections.abc import Iterable
from pathlib import Path
from typing import Any

from memrl.documents import Workload


def write(path: Path, content: bytes | str) -> Path:
    """Write a file, compressed where its name ends in `.gz`."""
    path.parent.mkdir(parents=True, exist_ok=True)
    raw = content.encode() if isinstance(content, str) else content
    path.write_bytes(gzip.compress(raw, mtime=0) if path.suffix == ".gz" else raw)
    return path


def write_json(path: Path, value: object) -> Path:
    return write(path, json.dumps(value))


def write_lines(path: Path, values: Iterable[object]) -> Path:
    return write(path, "".join(f"{json.dumps(value)}\n" for value in values))


def happened(repairs: dict[str, int]) -> dict[str, int]:
    """What was mended or dropped at least once."""
    return {what: count for what, count in repairs.items() if count}


def recorded_files(workload: Workload) -> dict[str, dict[str, str]]:
    """The files of a workload's provenance: sha256 and version by name."""
    files = workload.provenance["files"]
    assert isinstance(files, dict)
    return files


def hotpot_question(name: str = "h1", **fields: Any) -> dict[str, Any]:
    """Three passages, the second and the third one supporting; sentences keep a leading blank."""
    return {
        "_id": name,
        "question": f"Which lamp did the keeper of Tarn light ({name})?",
        "answer": "the green lamp",
        "type": "bridge",
        "level": "easy",
        "supporting_facts": [[f"Keeper {name}", 1], ["Tarn", 0]],
        "context": [
            ["Ferry", ["A ferry crosses.", " It is slow."]],
            [f"Keeper {name}", ["He kept a tower.", " He lit the green lamp."]],
            ["Tarn", ["Tarn has a tower."]],
        ],
    } | fields


def wiki_question(name: str = "w1", **fields: Any) -> dict[str, Any]:
    """The layout of 2WikiMultihopQA: HotpotQA's with triples and ids."""
    added = {
        "type": "compositional",
        "entity_ids": "Q1_Q2",
        "evidences": [[f"Keeper {name}", "lived in", "Tarn"], ["Tarn", "has", "a tower"]],
        "evidences_id": [["Q1", "lived in", "Q2"], ["Q2", "has", "Q3"]],
        "answer_id": "Q9",
    }
    return hotpot_question(name, **(added | fields))


def musique_question(name: str = "2hop__1_2", **fields: Any) -> dict[str, Any]:
    """Four paragraphs, two of one title; the second and the last one support."""
    texts = ["Oats grow here.", "Ila lives in Orm.", "Orm is old.", "Orm lies by the sea."]
    titles = ["Oats", "Ila", "Orm", "Orm"]
    return {
        "id": name,
        "paragraphs": [
            {"idx": n, "title": title, "paragraph_text": text, "is_supporting": n in (1, 3)}
            for n, (title, text) in enumerate(zip(titles, texts, strict=True))
        ],
        "question": f"By what does the town of Ila lie ({name})?",
        "question_decomposition": [
            {"id": 1, "question": "Ila >> town", "answer": "Orm", "paragraph_support_idx": 1},
            {"id": 2, "question": "#1 >> by", "answer": "the sea", "paragraph_support_idx": 3},
        ],
        "answer": "the sea",
        "answer_aliases": ["sea", "ocean"],
        "answerable": True,
    } | fields


def oracle_question(number: int, **fields: Any) -> dict[str, Any]:
    """One gold passage that holds the answer, a number word of its own."""
    word = f"answer{number:02d}"
    passage = {"title": f"Topic {number}", "text": f"This tells of {word} and tea."}
    return {
        "question": f"what is told of topic {number}",
        "answers": [word],
        "ctxs": [passage | {"hasanswer": True, "isgold": True}],
        "nq_annotated_gold": {"title": f"Topic {number}"},
    } | fields
