"""All data sets, part by part: which files each part is read from, and how it is loaded whole.

A data set joins by an entry in `DATA_SETS`, and by its files in `known_files.yaml`. A part whose
`load` is None can be fetched and verified, and waits for its loader.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass
from functools import partial
from pathlib import Path
from typing import Any

import numpy as np

from envs.workloads import (
    babi,
    dmr,
    hotpotqa,
    locomo,
    longmemeval,
    msc,
    musique,
    natural_questions,
    nested_kv,
    two_wiki,
)
from envs.workloads.document_qa import load_document_qa
from envs.workloads.files import DataSource, find_data_file
from envs.workloads.known_files import known_files
from envs.workloads.traces import SOURCE as TRACES
from envs.workloads.traces import load_trace, short_name
from memrl.document_config import BABI_TASKS, DocumentQaConfig
from memrl.documents import Workload
from memrl.longmemeval_config import LongMemEvalConfig

Names = Sequence[str]
"""Accepted names of one file, best first."""


@dataclass(frozen=True, slots=True)
class Part:
    """Files of a data set that are read together.

    Attributes:
        name: of the part; "" for the only one.
        source: where it is published.
        files: accepted names of each file; it takes all of them.
        load: reads all of it below a data folder; None where no loader does.
    """

    name: str
    source: DataSource
    files: tuple[Names, ...]
    load: Callable[[Path], Workload] | None

    def present(self, root: Path) -> list[Path]:
        """Those of the files that are there, each under the best of its names."""
        folder = root / self.source.folder
        paths = ([folder / name for name in names] for names in self.files)
        found = (next((path for path in own if path.is_file()), None) for own in paths)
        return [path for path in found if path is not None]

    def is_whole(self, root: Path) -> bool:
        """Whether all of its files are there."""
        return len(self.present(root)) == len(self.files)


@dataclass(frozen=True, slots=True)
class DataSet:
    """A data set: its name, which is also that of its folder, and its parts."""

    name: str
    parts: tuple[Part, ...]


def _load_questions(root: Path, **settings: Any) -> Workload:
    return load_document_qa(root, DocumentQaConfig(**settings), np.random.default_rng(0))


def _load_nested_kv(root: Path) -> Workload:
    levels = nested_kv.FILE_LEVELS
    rng = np.random.default_rng(0)
    return nested_kv.load_nested_kv(root, levels=levels, documents_per_level=1, rng=rng)


def _load_longmemeval(root: Path, layout: Any) -> Workload:
    settings = LongMemEvalConfig(layout=layout)
    return longmemeval.load_longmemeval(root, settings, np.random.default_rng(0))


def _load_trace(root: Path, names: Names) -> Workload:
    path = find_data_file(root, TRACES, names)
    return load_trace(path.relative_to(root / TRACES.folder).as_posix(), root)


# ---------------------------------------------------------------------- parts


_LOCOMO = (Part("", locomo.SOURCE, (locomo.FILE_NAMES,), locomo.load_locomo),)

_MSC = (
    Part(
        "",
        msc.SOURCE,
        tuple(
            (f"{name}.gz", name)
            for session in range(1, 5)
            for part in ("valid", "test")
            for name in [f"msc_personasummary/session_{session}/{part}.txt"]
        ),
        msc.load_msc,
    ),
)

_DMR = (Part("", dmr.SOURCE, (dmr.FILE_NAMES,), dmr.load_dmr),)

_LONGMEMEVAL = tuple(
    Part(name, longmemeval.SOURCE, (names,), partial(_load_longmemeval, layout=name))
    for name, names in longmemeval.FILE_NAMES.items()
)

# Among the passages of all questions, since choosing each one's distractors takes long.
_NQ = (
    Part(
        "oracle",
        natural_questions.SOURCE,
        (natural_questions.ORACLE_NAMES,),
        partial(_load_questions, dataset="nq", scope="corpus"),
    ),
    *(
        Part(
            f"{number} documents",
            natural_questions.SOURCE,
            tuple(natural_questions.published_names(number, place) for place in places),
            partial(_load_questions, dataset="nq", distractors="published", num_passages=number),
        )
        for number, places in natural_questions.PUBLISHED_POSITIONS.items()
    ),
)

_NESTED_KV = (
    Part(
        "",
        nested_kv.SOURCE,
        (
            nested_kv.PAIRS_NAMES,
            *((nested_kv.orderings_name(level),) for level in nested_kv.FILE_LEVELS),
        ),
        _load_nested_kv,
    ),
)

_HOTPOTQA = (
    Part(
        "",
        hotpotqa.SOURCE,
        (hotpotqa.FILE_NAMES,),
        partial(_load_questions, dataset="hotpotqa"),
    ),
)

_MUSIQUE = (
    Part("", musique.SOURCE, (musique.FILE_NAMES,), partial(_load_questions, dataset="musique")),
)

_TWO_WIKI = (
    Part(
        "questions",
        two_wiki.SOURCE,
        (two_wiki.TEST_NAMES, two_wiki.TRAIN_NAMES),
        partial(_load_questions, dataset="2wiki"),
    ),
    Part(
        "corpus",
        two_wiki.CORPUS,
        (two_wiki.CORPUS_NAMES, two_wiki.CORPUS_QUERY_NAMES),
        partial(_load_questions, dataset="2wiki", scope="corpus"),
    ),
)

_BABI = (
    Part(
        "",
        babi.SOURCE,
        tuple(babi.file_names(task, part) for task in BABI_TASKS for part in ("test", "train")),
        partial(babi.load_babi, tasks=BABI_TASKS, stories_per_task=None),
    ),
)

_TRACES = tuple(
    Part(short_name(names[0]), TRACES, (names,), partial(_load_trace, names=names))
    for names in ((f.name, f"{f.name}.gz") for f in known_files(TRACES.folder).published)
)

DATA_SETS = tuple(
    DataSet(parts[0].source.folder, parts)
    for parts in (
        *(_LOCOMO, _MSC, _DMR, _LONGMEMEVAL, _NQ, _NESTED_KV),
        *(_HOTPOTQA, _MUSIQUE, _TWO_WIKI, _BABI, _TRACES),
    )
)
