"""bAbI tasks 1 to 20: short stories with questions in between, and the lines that answer each.

Source: Weston et al., *Towards AI-Complete Question Answering*, arXiv 1502.05698; version 1.2,
English, 1,000 questions a task; CC BY 3.0. A line is `<number> <text>`, where the number restarts
at 1 with each story; of a question, which takes a number too, the text, the answer and the numbers
of its supporting lines are divided by tabs.

A document is a story: its statements are pages that arrive one after the other, and each question
is asked where the story asks it (`Query.asked_after`), since later statements change the answer. A
story that its task has twice, in either file, is read once, from the test file if it is there.
"""

from __future__ import annotations

import re
from collections import Counter
from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from pathlib import Path

from envs.workloads.files import (
    DataFormatError,
    DataSource,
    find_data_file,
    provenance_of,
    read_text_bytes,
)
from memrl.documents import Document, Page, Query, Workload

SOURCE = DataSource(
    folder="babi",
    published="research.facebook.com/downloads/babi (tasks_1-20_v1-2, folder en)",
    licence="CC BY 3.0",
)
NAMES = (
    *("single-supporting-fact", "two-supporting-facts", "three-supporting-facts"),
    *("two-arg-relations", "three-arg-relations", "yes-no-questions", "counting", "lists-sets"),
    *("simple-negation", "indefinite-knowledge", "basic-coreference", "conjunction"),
    *("compound-coreference", "time-reasoning", "basic-deduction", "basic-induction"),
    *("positional-reasoning", "size-reasoning", "path-finding", "agents-motivations"),
)
"""Names of tasks 1 to 20 in the names of their files."""

_LINE = re.compile(r"(\d+) (.*\S)\s*")
# What is left of a question without its tabs; answers of this data set hold no digit and no blank.
_WITHOUT_TABS = re.compile(r"([^?]*\?)\s*([^\s\d?]*)\s*(\d+(?:\s+\d+)*)")


@dataclass(frozen=True, slots=True)
class _Story:
    lines: tuple[tuple[int, str], ...]  # numbers and texts
    is_whole: bool


def file_names(task: int, part: str) -> tuple[str, ...]:
    """Accepted names of a task's file; part is "train" or "test"."""
    name = f"qa{task}_{NAMES[task - 1]}_{part}.txt"
    return f"en/{name}.gz", f"en/{name}", f"tasks_1-20_v1-2/en/{name}"


def load_babi(
    data_dir: str | Path | None, *, tasks: Sequence[int], stories_per_task: int | None
) -> Workload:
    """Loads stories.

    `Query.category` names the task; documents of the test files are set aside for testing.

    Args:
        data_dir: folder that holds `babi/`; None takes the one named by `MEMRL_DATA`.
        tasks: numbers in 1..20.
        stories_per_task: most stories of each task and file, from its beginning; None for all.

    Returns:
        The workload; `repairs` counts what was mended or dropped.

    Raises:
        DataFileMissingError: a file is not there (a `FileNotFoundError`).
        DataFormatError: a file is damaged, is no UTF-8 text, or holds no story that can be used.
    """
    repairs: Counter[str] = Counter()
    documents: list[Document] = []
    paths: list[Path] = []
    for task in tasks:
        seen: set[tuple[str, ...]] = set()
        for part in ("test", "train"):
            path = find_data_file(data_dir, SOURCE, file_names(task, part))
            paths.append(path)
            found = _read_file(path, f"babi-qa{task:02d}-{part}", task, part, seen, repairs)
            own = [document for document, _ in zip(found, _up_to(stories_per_task), strict=False)]
            if not own:
                raise DataFormatError(
                    f"{path} holds no story with a question that its lines answer: fetch it again "
                    f"from {SOURCE.published}."
                )
            documents += own
    counts = {what: count for what, count in sorted(repairs.items()) if count}
    return Workload("babi", tuple(documents), provenance_of(SOURCE, paths), counts)


def _up_to(count: int | None) -> Iterator[int]:
    """So many numbers; without a limit for None."""
    number = 0
    while count is None or number < count:
        yield number
        number += 1


def _read_file(
    path: Path,
    name: str,
    task: int,
    part: str,
    seen: set[tuple[str, ...]],
    repairs: Counter[str],
) -> Iterator[Document]:
    """Documents of the stories of a file that are not among those seen."""
    try:
        text = read_text_bytes(path).decode()
    except UnicodeDecodeError as error:
        raise DataFormatError(
            f"{path} is not UTF-8 text ({error}): fetch it again from {SOURCE.published}."
        ) from error
    for number, story in enumerate(_stories(text)):
        content = tuple(line for _, line in story.lines)
        if not story.is_whole:
            repairs["stories with a line without its number dropped"] += 1
        elif content in seen:
            repairs["stories that their task has twice dropped"] += 1
        else:
            seen.add(content)
            document = _document(f"{name}-{number:04d}", story, task, part, repairs)
            if document is not None:
                yield document


def _stories(text: str) -> Iterator[_Story]:
    lines: list[tuple[int, str]] = []
    is_whole = True
    for raw in text.split("\n"):
        match = _LINE.fullmatch(raw.rstrip("\r"))
        if not raw.strip():
            continue
        number = int(match[1]) if match else 0
        if number == 1 and (lines or not is_whole):
            yield _Story(tuple(lines), is_whole)
            lines, is_whole = [], True
        is_whole = is_whole and number == len(lines) + 1
        lines.append((number, match[2] if match else raw))
    if lines:
        yield _Story(tuple(lines), is_whole)


def _document(
    name: str, story: _Story, task: int, part: str, repairs: Counter[str]
) -> Document | None:
    pages: list[Page] = []
    page_of: dict[int, int] = {}
    queries: list[Query] = []
    for number, line in story.lines:
        fields = _fields(line, repairs)
        if not fields:
            continue
        if len(fields) == 1:
            page_of[number] = len(pages)
            pages.append(Page(line, source_id=f"{name}/{number}"))
            continue
        query = _query(fields, page_of, f"{name}/{number}", task)
        if query is None:
            repairs["questions whose supporting lines do not come before them dropped"] += 1
        else:
            repairs["questions without an answer kept"] += not query.answers
            queries.append(query)
    if not pages or not queries:
        repairs["stories without a statement or a question dropped"] += 1
        return None
    return Document(name, tuple(pages), tuple(queries), is_test=part == "test")


def _fields(line: str, repairs: Counter[str]) -> Sequence[str]:
    """A statement, or a question with its answer and evidence; nothing of a line that is neither.

    No statement of this data set has a question mark or ends in a number. As a page, a question
    that lost its tabs would tell its answer.
    """
    fields = line.split("\t")
    if len(fields) > 2:
        return fields
    if len(fields) == 1 and line.count("|") == 2:
        repairs["question lines with | instead of tabs mended"] += 1
        return line.split("|")
    match = _WITHOUT_TABS.fullmatch(line)
    if match:
        repairs["question lines without their tabs mended"] += 1
        return match.groups()
    if len(fields) == 1 and ("?" in line or line[-1].isdigit()):
        repairs["lines that are neither a statement nor a whole question dropped"] += 1
        return ()
    return fields


def _query(
    fields: Sequence[str], page_of: dict[int, int], source_id: str, task: int
) -> Query | None:
    """The question of a line, or None where its evidence does not resolve."""
    text, answer, supporting = (field.strip() for field in (*fields, "", "")[:3])
    numbers = [int(part) if part.isdecimal() else 0 for part in supporting.split()]
    if not text or not numbers or not set(numbers) <= page_of.keys():
        return None
    return Query(
        text=text,
        needs=tuple(sorted({page_of[number] for number in numbers})),
        category=f"qa{task:02d}",
        answers=(answer,) if answer else (),
        source_id=source_id,
        asked_after=len(page_of),
    )
