"""HotpotQA: multi-hop questions over ten passages; its layout is that of 2WikiMultihopQA as well.

Source: Yang et al., *HotpotQA*, arXiv 1809.09600, distractor setting; CC BY-SA 4.0. A JSON list of
objects with `_id`, `question`, `answer`, `type`, `context` (pairs of a title and a list of
sentences) and `supporting_facts` (pairs of a title and the index of a sentence). 2WikiMultihopQA
(`envs.workloads.two_wiki`) adds `evidences` (triples), `evidences_id` and `answer_id`.

A supporting passage is one with a supporting sentence. A title that two passages of a question have
means the first of them that has such a sentence.
"""

from __future__ import annotations

from collections import Counter, defaultdict
from collections.abc import Iterator, Mapping, Sequence
from itertools import product
from pathlib import Path

from envs.workloads.answer_scoring import Triple
from envs.workloads.files import DataSource, find_data_file, read_json
from envs.workloads.qa_records import (
    QaRecord,
    RecordMaker,
    fields_of,
    list_of,
    text_of,
    usable,
)

SOURCE = DataSource(
    folder="hotpotqa",
    published="hotpotqa.github.io (hotpot_dev_distractor_v1.json)",
    licence="CC BY-SA 4.0",
)
FILE_NAMES = (
    *("hotpot_distractor_sample.json.gz", "hotpot_dev_distractor_v1.json"),
    "hotpot_dev_distractor_v1.json.gz",
)

HOLDING = "passages and evidence"
"""What a question in this layout has to have."""

Aliases = Mapping[str, Sequence[str]]


# ---------------------------------------------------------------------- files


def read_hotpotqa(
    data_dir: str | Path | None, repairs: Counter[str]
) -> tuple[list[QaRecord], list[Path]]:
    """Reads HotpotQA's questions.

    Args:
        data_dir: folder that holds `hotpotqa/`; None takes the one named by `MEMRL_DATA`.
        repairs: counts of what was mended or dropped; added to.

    Returns:
        The records, and the files that were read.

    Raises:
        DataFileMissingError: the file is not there (a `FileNotFoundError`).
        DataFormatError: the file is damaged, or holds no question that can be used.
    """
    path = find_data_file(data_dir, SOURCE, FILE_NAMES)
    return read_file(path, SOURCE, RecordMaker(repairs), {}, is_test=False), [path]


def read_file(
    path: Path, source: DataSource, maker: RecordMaker, aliases: Aliases, *, is_test: bool
) -> list[QaRecord]:
    """Reads a file in the layout; see `read_hotpotqa`.

    Args:
        path: the file. source: of which data set it is, for messages.
        maker: makes the records. aliases: further names of entities by their id.
        is_test: whether the source sets its questions aside for testing.
    """
    made = (
        _read_question(fields_of(value), maker, aliases, is_test=is_test)
        for value in list_of(read_json(path))
    )
    return usable(made, path, source, HOLDING)


# ---------------------------------------------------------------------- questions


def _read_question(
    fields: Mapping[str, object], maker: RecordMaker, aliases: Aliases, *, is_test: bool
) -> QaRecord | None:
    repairs = maker.repairs
    context = [_titled_sentences(entry) for entry in list_of(fields.get("context"))]
    repairs["questions with another number of passages than 10 kept"] += len(context) != 10
    facts = read_facts(fields.get("supporting_facts"), repairs)
    names = aliases.get(text_of(fields.get("answer_id")), ())
    return maker.make(
        question_id=fields.get("_id"),
        question=fields.get("question"),
        answers=[fields.get("answer"), *names],
        category=fields.get("type"),
        passages=[
            (title, " ".join(filter(None, map(str.strip, sentences))))
            for title, sentences in context
        ],
        support=list(_supporting(facts, context, repairs)),
        facts=facts,
        triples=list(_triples(fields, aliases, repairs)),
        is_test=is_test,
    )


def _titled_sentences(entry: object) -> tuple[str, list[str]]:
    """Title and sentences of an entry of `context`; nothing for one that has another form."""
    pair = list_of(entry)
    if len(pair) != 2:
        return "", []
    # A sentence that is no text keeps its place, by which the others are cited.
    return text_of(pair[0]), [s if isinstance(s, str) else "" for s in list_of(pair[1])]


def read_facts(value: object, repairs: Counter[str]) -> list[tuple[str, int]]:
    """Pairs of title and sentence index; others are dropped and counted."""
    facts = []
    for entry in list_of(value):
        pair = list_of(entry)
        if len(pair) == 2 and isinstance(pair[0], str) and type(pair[1]) is int:
            facts.append((pair[0].strip(), pair[1]))
        else:
            repairs["supporting facts that are no title and sentence index dropped"] += 1
    return facts


def _supporting(
    facts: Sequence[tuple[str, int]],
    context: Sequence[tuple[str, Sequence[str]]],
    repairs: Counter[str],
) -> Iterator[int]:
    """Index of the passage that each fact means."""
    places = defaultdict(list)
    for place, (title, _) in enumerate(context):
        places[title].append(place)
    for title, sentence in facts:
        if title not in places:
            repairs["supporting facts of passages that are not there dropped"] += 1
            continue
        repairs["supporting facts whose title two passages have: the first is meant"] += (
            len(places[title]) > 1
        )
        having = [place for place in places[title] if 0 <= sentence < len(context[place][1])]
        if not having:
            repairs["supporting sentences past the end of their passage: it is kept"] += 1
        yield (having or places[title])[0]


def _triples(
    fields: Mapping[str, object], aliases: Aliases, repairs: Counter[str]
) -> Iterator[frozenset[Triple]]:
    """Accepted forms of each triple of `evidences`; further names come by `evidences_id`."""
    triples, ids = list_of(fields.get("evidences")), list_of(fields.get("evidences_id"))
    known = ids if len(ids) == len(triples) else [None] * len(triples)
    for entry, own_ids in zip(triples, known, strict=True):
        parts = list_of(entry)
        if len(parts) != 3 or not all(isinstance(part, str) for part in parts):
            repairs["evidence triples that are no three texts dropped"] += 1
            continue
        subject, relation, target = map(str, parts)
        names = [text_of(name) for name in list_of(own_ids)]
        named = (names[0], names[2]) if len(names) == 3 else ("", "")
        subjects = [subject, *aliases.get(named[0], ())]
        targets = [target, *aliases.get(named[1], ())]
        yield frozenset((first, relation, last) for first, last in product(subjects, targets))
