"""Nested key-value retrieval: chained look-ups among pairs of UUIDs, all in archival at the start.

Source: Packer et al., *MemGPT*, arXiv 2310.08560v2, section 3.2.2 and figure 7; data
`cpacker/MemGPT`, `paper_experiments/nested_kv_task/data`, Apache-2.0. Its pairs are the first
record of Lost in the Middle (Liu et al., arXiv 2307.03172; MIT). An ordering [i0, ..., iL] of
indices sets the value of pair i0 to the key of pair i1 and so on; the last keeps its value. Asked
is the value that key i0 leads to: L + 1 look-ups, *level L* in the figure.

A document is one ordering. Its pages are all pairs, in the form in which MemGPT inserts them into
archival; its query is the key, which needs the last pair and is led to it by the others. UUIDs mean
nothing to an embedder: the lexical search is what finds them, by a query that is a key, or by a
page whose value is the next key.
"""

from __future__ import annotations

import json
import uuid
from collections import Counter
from collections.abc import Mapping, Sequence
from itertools import pairwise
from pathlib import Path

import numpy as np

from envs.workloads.files import (
    DataFormatError,
    DataSource,
    find_data_file,
    provenance_of,
    read_text_bytes,
)
from memrl.documents import Document, Episode, Page, Query, Workload

SOURCE = DataSource(
    folder="memgpt_nested_kv",
    published="GitHub cpacker/MemGPT, paper_experiments/nested_kv_task/data",
    licence="Apache-2.0",
)
PAIRS_NAMES = ("kv-retrieval-140_keys.first.jsonl.gz", "kv-retrieval-140_keys.jsonl.gz")
FILE_LEVELS = range(6)
"""Levels that MemGPT's files hold orderings of."""

Pairs = Sequence[tuple[str, str]]
Ordering = tuple[int, ...]


def orderings_name(level: int) -> str:
    """Name of the file with the orderings of a level; upstream counts look-ups."""
    return f"random_orderings_100_samples_140_indices_{level + 1}_levels.jsonl"


def ask_for_value(key: str) -> str:
    """The question for what a key leads to, in words."""
    return f"What is the value of {key}? If it is a key too, go on to its value."


# ---------------------------------------------------------------------- documents


def make_document(document_id: str, pairs: Pairs, ordering: Ordering) -> Document:
    """Chain pairs by an ordering, and ask for what its first key leads to.

    Args:
        document_id: name of the document.
        pairs: keys and values, all different.
        ordering: distinct indices into `pairs`, at least one.
    """
    values = dict(pairs)
    for index, following in pairwise(ordering):
        values[pairs[index][0]] = pairs[following][0]
    asked = pairs[ordering[0]][0]
    query = Query(
        text=asked,
        needs=ordering[-1:],
        category=f"level {len(ordering) - 1}",
        answers=(follow(values, asked),),
        source_id=f"{document_id}/q",
        route=ordering[:-1],
    )
    pages = tuple(
        Page(f"Key-value pair: key = {key}, value = {value}", source_id=f"{document_id}/{index}")
        for index, (key, value) in enumerate(values.items())
    )
    return Document(document_id, pages, (query,))


def follow(values: Mapping[str, str], key: str) -> str:
    """Look a key up, and its value as long as that is a key itself.

    Raises:
        ValueError: if the chain comes back to a key that it has passed.
    """
    passed = {key}
    while (value := values[key]) in values:
        if value in passed:
            raise ValueError(f"The values go round in a circle through key {value}.")
        passed.add(value)
        key = value
    return value


def whole_documents(documents: Sequence[Document]) -> tuple[Episode, ...]:
    """One episode a document: all of its pages are preloaded, then its queries are asked."""
    episodes = []
    for index, document in enumerate(documents):
        length = len(document.pages)
        queries = tuple((length, number) for number in range(len(document.queries)))
        episodes.append(Episode(index, 0, length, queries, num_preloaded=length))
    return tuple(episodes)


# ---------------------------------------------------------------------- generated


def generate_nested_kv(
    *,
    levels: Sequence[int],
    documents_per_level: int,
    num_pairs: int,
    rng: np.random.Generator,
) -> Workload:
    """Generates pairs of random UUIDs and orderings, other ones for each document.

    Args:
        levels: levels of nesting, each 0 or more and below `num_pairs`.
        documents_per_level: documents of each.
        num_pairs: pairs of a document.
        rng: source of randomness; its seed sequence is advanced by one spawn per level, and that
            of a level by one spawn per document.
    """
    documents = []
    for level, of_level in zip(levels, rng.spawn(len(levels)), strict=True):
        for number, stream in enumerate(of_level.spawn(documents_per_level)):
            pairs = [(_uuid(stream), _uuid(stream)) for _ in range(num_pairs)]
            name = f"nested-kv-level{level}-{number:03d}"
            documents.append(make_document(name, pairs, _draw_ordering(level, num_pairs, stream)))
    parameters = {
        "levels": list(levels),
        "documents_per_level": documents_per_level,
        "num_pairs": num_pairs,
    }
    return Workload("nested_kv", tuple(documents), {"generator": "nested_kv", "params": parameters})


def _uuid(rng: np.random.Generator) -> str:
    return str(uuid.UUID(bytes=rng.bytes(16), version=4))


def _draw_ordering(level: int, num_pairs: int, rng: np.random.Generator) -> Ordering:
    return tuple(rng.permutation(num_pairs)[: level + 1].tolist())


# ---------------------------------------------------------------------- MemGPT's


def load_nested_kv(
    data_dir: str | Path | None = None,
    *,
    levels: Sequence[int],
    documents_per_level: int,
    rng: np.random.Generator,
) -> Workload:
    """Loads MemGPT's pairs and orderings.

    Orderings that cannot be used are dropped, and so are repeated ones: the same document twice
    could land on both sides of a split.

    Args:
        data_dir: folder that holds `memgpt_nested_kv/`; None takes the one named by `MEMRL_DATA`.
        levels: levels of nesting. Of those in `FILE_LEVELS` all orderings of the file are taken;
            for deeper ones orderings of the same pairs are drawn.
        documents_per_level: documents of each deeper level.
        rng: source of randomness; its seed sequence is advanced by one spawn per level.

    Returns:
        The workload; `repairs` counts what was dropped.

    Raises:
        DataFileMissingError: a file is not there (a `FileNotFoundError`).
        DataFormatError: a file is damaged, or holds no pairs or no ordering that can be used.
    """
    path = find_data_file(data_dir, SOURCE, PAIRS_NAMES)
    pairs = _read_pairs(path)
    paths = [path]
    repairs: Counter[str] = Counter()
    documents = []
    for level, stream in zip(levels, rng.spawn(len(levels)), strict=True):
        if level in FILE_LEVELS:
            path = find_data_file(data_dir, SOURCE, [orderings_name(level)])
            orderings = _read_orderings(path, level + 1, len(pairs), repairs)
            paths.append(path)
        else:
            orderings = {
                number: _draw_ordering(level, len(pairs), stream)
                for number in range(documents_per_level)
            }
        documents += [
            make_document(f"memgpt-level{level}-{number:03d}", pairs, ordering)
            for number, ordering in orderings.items()
        ]
    provenance = provenance_of(SOURCE, paths)
    return Workload("nested_kv", tuple(documents), provenance, dict(sorted(repairs.items())))


def _read_pairs(path: Path) -> list[tuple[str, str]]:
    """The pairs of the first record; the experiment uses no other."""
    what = f"{path} does not begin with a record of pairs of different keys and other values"
    again = f"fetch it again from {SOURCE.published}."
    first_line = read_text_bytes(path).split(b"\n", 1)[0]
    try:
        record = json.loads(first_line)
        pairs = [(key, value) for key, value in record["ordered_kv_records"]]
    except (KeyError, RecursionError, TypeError, ValueError) as error:
        raise DataFormatError(f"{what} ({error!r}): {again}") from error
    texts = [text for pair in pairs for text in pair]
    is_text = bool(texts) and all(isinstance(text, str) for text in texts)
    # A value that is a key would lead on by itself.
    if not is_text or len({*texts[::2], *texts[1::2]}) < len(pairs) + len(set(texts[1::2])):
        raise DataFormatError(f"{what}: {again}")
    return pairs


def _read_orderings(
    path: Path, length: int, num_pairs: int, repairs: Counter[str]
) -> dict[int, Ordering]:
    """Orderings of a file by their line, from 0, less those that are repeated or of no use."""
    orderings: dict[int, Ordering] = {}
    for number, line in enumerate(read_text_bytes(path).splitlines()):
        if not line.strip():
            continue
        ordering = _read_ordering(line, length, num_pairs)
        if isinstance(ordering, str):
            repairs[ordering] += 1
        elif ordering in orderings.values():
            repairs["orderings that their file repeats dropped"] += 1
        else:
            orderings[number] = ordering
    if not orderings:
        raise DataFormatError(
            f"{path} holds no list of {length} indices of pairs: fetch it again from "
            f"{SOURCE.published}."
        )
    return orderings


def _read_ordering(line: bytes, length: int, num_pairs: int) -> Ordering | str:
    """The ordering of a line, or why it is dropped."""
    try:
        ordering = json.loads(line)
    except (RecursionError, ValueError):
        ordering = None
    if not isinstance(ordering, list) or not all(type(index) is int for index in ordering):
        return "lines that are no list of indices dropped"
    if len(ordering) != length:
        return "orderings of another length than their file says dropped"
    if not all(0 <= index < num_pairs for index in ordering):
        return "orderings with an index outside the pairs dropped"
    if len(set(ordering)) < length:
        return "orderings with a repeated index dropped"
    return tuple(ordering)


# ---------------------------------------------------------------------- scoring


def exact_value(prediction: str, gold: str) -> float:
    """1 if the answer is the value, blanks around it aside; MemGPT's accuracy is its mean."""
    return float(prediction.strip() == gold)


def contained_value(prediction: str, gold: str) -> float:
    """1 if the value occurs in the answer, in any case: the lenient score of Lost in the Middle."""
    return float(gold.lower() in prediction.lower())
