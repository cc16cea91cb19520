"""What an approximate index of the archive does to a policy: evidence recall against latency.

    PYTHONPATH=.:tests python tests/benchmarks/approximate_staging.py --json out.json
    ... --workloads 2wiki_corpus        # one of them only
    ... --run runs/nq/seed0             # the learned policy of a run, on the run's own workload

The same policies play the same test episodes on exact tables and on tables without the pages that
an index loses (`approximate_tables.py`). Each index is made over all pages of a document or corpus
and made approximate at any size, although the store would search so few exactly. The rule is the
top-k rule that validation chose on exact tables; "dense" is the same for the ranking by cosine
alone. Differences in evidence recall are paired, their intervals over documents; milliseconds are
the median wall time of single searches for `--depth` pages in the largest index.
"""

from __future__ import annotations

import argparse
import time
from collections.abc import Iterator, Sequence
from dataclasses import dataclass, replace
from functools import partial
from pathlib import Path
from typing import Any

import numpy as np
import torch
from benchmarks.approximate_tables import approximated, index_of
from rich.console import Console
from rich.progress import track
from rich.table import Table

from envs.batched import paging_group
from envs.workloads.loading import load_workload
from envs.workloads.tables import split_tables
from memrl.config import RunConfig, parse_config
from memrl.evaluation.lineup import Arena, bound_lines, rule_lines
from memrl.evaluation.play import EpisodeRecord
from memrl.evaluation.retrieval import ranking_recall
from memrl.evaluation.saved_lineup import learned_contestants
from memrl.evaluation.stats import summarize_clusters, summarize_differences
from memrl.memory.embedders import CachedEmbedder, make_embedder
from memrl.memory.index_options import IndexOptions
from memrl.memory.vector_index import Vectors
from memrl.options import PagingOptions
from memrl.policies.base import Contestant
from memrl.run_files import strict_json
from memrl.saved import load_run
from memrl.table import EpisodeTable

EXACT = "exact"
INDEXES = {
    EXACT: IndexOptions(kind="flat"),
    "hnsw": IndexOptions(kind="hnsw", grow_at=1),
    "hnsw, 4 links": IndexOptions(kind="hnsw", grow_at=1, links=4, build_breadth=8),
    "ivf": IndexOptions(kind="ivf", grow_at=1),
    "ivf, effort 0.25": IndexOptions(kind="ivf", grow_at=1, effort=0.25),
    "ivf, effort 0.05": IndexOptions(kind="ivf", grow_at=1, effort=0.05),
    "ivf_pq": IndexOptions(kind="ivf_pq", grow_at=1),
    "ivf_pq, effort 0.05, 8 bytes": IndexOptions(
        kind="ivf_pq", grow_at=1, effort=0.05, code_bytes=8
    ),
}
"""Some are below what anybody would choose, so that it can be seen what losses do."""
PRESETS = {
    "locomo": [
        ["configs/locomo.yaml", "--split.fold", str(fold), "--workload.test_episodes", "20"]
        for fold in range(7)
    ],
    # No policy is learned here, so that more of the 77 questions can be asked.
    "2wiki_corpus": [["configs/2wiki_corpus.yaml", "--split.test_frac", "0.7"]],
    "nq_corpus": [["configs/nq.yaml", "--workload.document_qa.scope", "corpus"]],
}
RECALL_AT = "5"
NUM_TIMED = 200

MAKE_GROUP = partial(paging_group, environment="batched", device=torch.device("cpu"))


@dataclass(frozen=True)
class Case:
    """Exact test episodes, the vectors that their scores are of, and who plays.

    Attributes:
        name: cases of one name are folds, whose episodes are put together.
    """

    name: str
    table: EpisodeTable
    options: PagingOptions
    pages: Vectors
    queries: Vectors
    contestants: list[Contestant]


def make_case(name: str, config: RunConfig, run_folder: Path | None) -> Case:
    """Build the tables of a configuration and choose the rule on its validation episodes."""
    tables = split_tables(load_workload(config.workload), config.split, config.workload)
    options = config.paging.resolved(**tables.train.medians())
    embedder = CachedEmbedder(make_embedder(config.workload.embedder))
    test = tables.test
    contestants = rules(config, Arena(tables.validation, options, MAKE_GROUP))
    if run_folder is not None:
        run = load_run(run_folder)
        test = test.with_prior(run.scorer.logits(test))
        contestants += learned_contestants(run)
    return Case(
        name,
        test,
        options,
        embedder.embed(test.text.pages),
        embedder.embed(test.text.queries),
        contestants + [line[0] for line in bound_lines(options)],
    )


def rules(config: RunConfig, validation: Arena) -> list[Contestant]:
    """The best top-k rule on validation, over all rankings and by cosine alone."""
    lines = rule_lines(config.evaluation.top_k, [], torch.Generator())
    chosen = [validation.choose(line) for line in lines if line and "staging" in line[0].overrides]
    best = max(chosen, key=lambda one: one.validation or -np.inf)
    dense = next(one for one in chosen if one.overrides["staging"] == "dense")
    return [replace(best, name="rule"), replace(dense, name="rule, dense")]


def make_cases(
    workloads: Sequence[str], folds: Sequence[int], runs: Sequence[Path]
) -> Iterator[Case]:
    """The cases one after the other; those of runs if there are any."""
    for folder in runs:
        config = load_run(folder).config
        yield make_case(config.name.split("-fold")[0], config, folder)
    for name in [] if runs else workloads:
        for number, arguments in enumerate(PRESETS[name]):
            if len(PRESETS[name]) == 1 or number in folds:
                yield make_case(name, parse_config(["--config", *arguments]), None)


def latency_ms(case: Case, options: IndexOptions, depth: int) -> float:
    """Median wall time of single searches in the index of the largest document."""
    largest = int(case.table.page_count.argmax())
    offset, size = int(case.table.page_offset[largest]), int(case.table.page_count[largest])
    index = index_of(case.pages[offset : offset + size], options)
    taken = []
    for number in range(NUM_TIMED):
        query = case.queries[number % len(case.queries)][None]
        start = time.perf_counter()
        index.propose(query, min(depth, size))
        taken.append(1e3 * (time.perf_counter() - start))
    return float(np.median(taken))


def measure(case: Case, name: str, depth: int) -> dict[str, Any]:
    """What one index finds, how fast, and what the policies do with it."""
    made = approximated(
        case.table, case.pages, case.queries, partial(index_of, options=INDEXES[name]), depth
    )
    table = case.table if name == EXACT else made.table
    # Of a conversation's pages a search sees those that are stored: no ranking of all to score.
    rankings = ranking_recall(table, case.options, MAKE_GROUP)
    recalls = {staging: recalls[RECALL_AT] for staging, recalls in rankings.items()}
    played = Arena(table, case.options, MAKE_GROUP).play(case.contestants)
    return {
        "query_recall": made.query_recall,
        "page_recall": made.page_recall,
        "search_ms": latency_ms(case, INDEXES[name], depth),
        "recall_at_5": recalls,
        "records": {one.name: own for one, own in zip(case.contestants, played, strict=True)},
    }


def rows_of(name: str, measured: Sequence[dict[str, dict[str, Any]]]) -> list[dict[str, Any]]:
    """One row an index and policy, over all folds of a workload; each fold by name of index."""
    rows = []
    for index in measured[0]:
        own = [fold[index] for fold in measured]
        shared = {
            "workload": name,
            "index": index,
            **{
                key: float(np.mean([fold[key] for fold in own]))
                for key in ("query_recall", "page_recall", "search_ms")
            },
            "recall_at_5": own[0]["recall_at_5"],
        }
        for policy in own[0]["records"]:
            pairs = [
                (after, before)
                for fold in measured
                for after, before in zip(
                    fold[index]["records"][policy], fold[EXACT]["records"][policy], strict=True
                )
                if after.num_scored
            ]
            rows.append({**shared, "policy": policy, **compared(pairs)})
    return rows


def compared(pairs: Sequence[tuple[EpisodeRecord, EpisodeRecord]]) -> dict[str, Any]:
    """Evidence recall of the first of each pair of episodes, and its difference to the second."""
    documents = [after.document for after, _ in pairs]
    recall = [after.evidence / after.num_scored for after, _ in pairs]
    exact = [before.evidence / before.num_scored for _, before in pairs]
    difference = summarize_differences(np.subtract(recall, exact), documents)
    interval = difference.interval
    return {
        "evidence_recall": summarize_clusters(recall, documents).estimate,
        "difference": difference.estimate,
        "interval": None if interval is None else [interval.low, interval.high],
        "num_documents": len(difference.cluster_differences),
        "num_questions": sum(after.num_scored for after, _ in pairs),
        "episodes_changed": sum(a.evidence != b.evidence for a, b in pairs),
    }


def show(rows: Sequence[dict[str, Any]], depth: int) -> None:
    """Print one table a workload."""
    for workload in dict.fromkeys(row["workload"] for row in rows):
        own = [row for row in rows if row["workload"] == workload]
        table = Table(
            title=f"{workload}: {own[0]['num_questions']:,} questions, "
            f"{own[0]['num_documents']} documents, the best {depth} pages"
        )
        table.add_column("index")
        for column in ("finds", "finds from pages", "ms", "recall@5 dense"):
            table.add_column(column, justify="right")
        policies = list(dict.fromkeys(row["policy"] for row in own))
        for policy in policies:
            table.add_column(policy, justify="right")
        for index in dict.fromkeys(row["index"] for row in own):
            by_policy = {row["policy"]: row for row in own if row["index"] == index}
            first = by_policy[policies[0]]
            dense = first["recall_at_5"].get("dense")
            table.add_row(
                index,
                f"{first['query_recall']:.3f}",
                f"{first['page_recall']:.3f}",
                f"{first['search_ms']:.2f}",
                "-" if dense is None else f"{dense:.3f}",
                *(cell(by_policy[policy]) for policy in policies),
            )
        Console(width=170).print(table)


def cell(row: dict[str, Any]) -> str:
    """Evidence recall; of an approximate index its difference and interval."""
    if row["index"] == EXACT:
        return f"{row['evidence_recall']:.3f}"
    if row["interval"] is None:
        return f"{row['difference']:+.3f}"
    low, high = row["interval"]
    return f"{row['difference']:+.3f} [{low:+.3f}, {high:+.3f}]"


def main() -> None:
    """Measure, print, and write JSON on demand."""
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawTextHelpFormatter
    )
    parser.add_argument("--workloads", nargs="+", choices=PRESETS, default=list(PRESETS))
    parser.add_argument("--folds", type=int, nargs="+", default=list(range(7)), help="of locomo")
    parser.add_argument("--run", type=Path, nargs="+", default=[], help="finished run folders")
    parser.add_argument("--depth", type=int, default=64, help="pages that a search asks for")
    parser.add_argument("--json", type=Path, help="write the rows to this file, after each case")
    arguments = parser.parse_args()
    torch.set_num_threads(1)
    measured: dict[str, list[dict[str, dict[str, Any]]]] = {}
    rows: list[dict[str, Any]] = []
    for case in make_cases(arguments.workloads, arguments.folds, arguments.run):
        indexes = track(INDEXES, case.name, console=Console(stderr=True))
        folds = measured.setdefault(case.name, [])
        folds.append({name: measure(case, name, arguments.depth) for name in indexes})
        rows = [row for name, own in measured.items() for row in rows_of(name, own)]
        if arguments.json:
            told = {"depth": arguments.depth, "rows": rows}
            arguments.json.write_text(strict_json(told, indent=1) + "\n")
    show(rows, arguments.depth)


if __name__ == "__main__":
    main()
