"""Put finished runs together, play them elsewhere or in parts, score answers, report, publish.

    python -m memrl.evaluation merge runs/locomo/seed0 runs/locomo/seed1 runs/locomo/seed2
    python -m memrl.evaluation transfer runs/chat/seed0 --config configs/locomo.yaml
    python -m memrl.evaluation ablate runs/chat/seed0
    python -m memrl.evaluation answers said.jsonl --config configs/locomo.yaml
    python -m memrl.evaluation report runs/locomo/seed* --out report
    python -m memrl.evaluation publish runs/chat/seed0 --out policies/chat

`merge` averages the seeds within each document before anything else. Its best heuristic is played
on the episodes of each run by what that run chose on its own validation. `transfer` plays on the
other workload's test documents with the lexical statistics of its training documents; where its
split leaves one document out, on each in turn. What is learned, the page scorer and all that is
chosen on validation, the best heuristic too, come from the run. `ablate` plays the learned policy
of a run with its parts replaced in turn (`memrl.evaluation.ablation`). `answers` scores what any
reader said (`memrl.evaluation.predictions` says in which form) by the benchmark's own measures, by
category. `report` makes tables, figures and one page of finished runs (docs/report.md).
`publish` copies what a run has learned, for others to use (`memrl.evaluation.publish`).
"""

from __future__ import annotations

import argparse
import sys
from collections.abc import Mapping
from dataclasses import replace
from functools import partial
from pathlib import Path
from typing import Any

from envs.batched import paging_group
from envs.workloads import describe
from envs.workloads.citations import cited_scores
from envs.workloads.files import file_sha256
from envs.workloads.loading import load_workload
from envs.workloads.official import measures_of
from envs.workloads.splits import clusters_of
from envs.workloads.tables import data_record, split_tables, workload_record
from memrl.checkpoint import CheckpointError
from memrl.config import ConfigurationError, RunConfig, parse_config, run_settings
from memrl.errors import MemrlError
from memrl.evaluation import ablation, lineup, summary, terminal
from memrl.evaluation.answer_scores import score_table, summarize_scores
from memrl.evaluation.entry import Entry
from memrl.evaluation.lineup import Arena
from memrl.evaluation.predictions import read_predictions, score_predictions
from memrl.evaluation.publish import publish
from memrl.evaluation.report.build import write_report
from memrl.evaluation.saved_lineup import saved_contestants
from memrl.progress import progress_bar
from memrl.provenance import collect_provenance
from memrl.resuming import require_mergeable
from memrl.run_files import (
    EPISODES_FILE,
    RunError,
    append_start,
    config_text,
    plain,
    read_config,
    replace_text,
    strict_json,
)
from memrl.saved import SavedRun, load_run


def merge_runs(folders: list[Path], out: Path | None) -> None:
    """Summarise the records of several finished runs as one table."""
    for folder in folders:
        if not (folder / EPISODES_FILE).exists():
            raise CheckpointError(f"The run {folder} has no episodes.jsonl: it is not finished.")
    require_mergeable(folders)
    entries = summary.merge([summary.read_entries(folder / EPISODES_FILE) for folder in folders])
    names = [folder.as_posix() for folder in folders]
    _report(entries, " + ".join(names), read_config(folders[0]), {"runs": names}, out)


def transfer(folder: Path, config: RunConfig, out: Path | None) -> None:
    """Play a run's policies on another workload's documents."""
    run = load_run(folder)
    _require_same_kind(run, config)
    asked, trained = Path(config.workload.embedder).name, run.config.workload.embedder
    if asked != trained:
        raise ConfigurationError(
            f"The run {folder} learned from the embeddings of {trained!r}, not of {asked!r}: its "
            f"page scorer reads no others; add --workload.embedder {trained}."
        )
    workload = load_workload(config.workload)
    print(describe(workload))
    splits = [config.split]
    if config.split.kind == "leave_one_out":
        units = len(workload.streams or clusters_of(workload.documents))
        splits = [replace(config.split, fold=fold) for fold in range(units)]
    runs, data = [], []
    with progress_bar("splits", len(splits)) as advance:
        for split in splits:
            tables = split_tables(workload, split, config.workload)
            options = config.paging.resolved(**tables.train.medians())
            table = tables.test.with_prior(run.scorer.logits(tables.test))
            contestants = saved_contestants(run, options, table)
            make_group = partial(paging_group, environment=config.environment)
            played = Arena(table, options, make_group).play(contestants)
            pairs = zip(contestants, played, strict=True)
            runs.append([Entry.of(*pair, run.config.seed) for pair in pairs])
            data.append(data_record(workload, tables))
            advance(1)
    title = f"{folder.as_posix()} played on {config.workload.name}"
    record = {"trained": folder.as_posix(), "folds": data}
    _report(summary.merge(runs), title, run_settings(config), record, out)


def show_ablations(folders: list[Path], name: str | None, out: Path | None) -> None:
    """Play a learned policy with its parts replaced, on its runs' own test episodes."""
    entries, settings = ablation.ablate(folders, name)
    names = [folder.as_posix() for folder in folders]
    title = f"ablations of {' + '.join(names)}"
    _report(entries, title, settings, {"runs": names}, out, whole=ablation.WHOLE)


def _require_same_kind(run: SavedRun, config: RunConfig) -> None:
    """Refuse to let a policy of page caches talk, or the other way round."""
    learned, asked = (c.workload.name == "page_cache" for c in (run.config, config))
    if learned != asked:
        raise ConfigurationError(
            f"The run learned {run.config.workload.name} and cannot play {config.workload.name}: "
            "what it regresses there and here has nothing in common."
        )


def score_answers(path: Path, config: RunConfig, out: Path | None) -> None:
    """Score a file of answers by the measures of the workload that they belong to."""
    predictions = read_predictions(path)
    workload = load_workload(config.workload)
    print(describe(workload))
    try:
        score = measures_of(workload, config.workload.embedder)
        scored = score_predictions(predictions, workload, score, cited_scores)
    except ValueError as error:
        raise ConfigurationError(str(error)) from error
    summary = summarize_scores(scored)
    answered = len({prediction.query_id for prediction in predictions})
    questions = sum(len(document.queries) for document in workload.documents)
    terminal.print_rows(
        f"{path.name}: {len(scored):,} answers to {answered:,} of {questions:,} questions",
        *score_table(summary),
    )
    if out is not None:
        record = {
            "scores": summary,
            "answers_sha256": file_sha256(path),
            "data": workload_record(workload),
        }
        try:
            out.mkdir(parents=True, exist_ok=True)
            replace_text(out / "answer_scores.json", strict_json(plain(record), indent=1) + "\n")
        except OSError as error:
            raise RunError(f"The scores cannot be written to {out} ({error}).") from error


def _report(
    entries: list[Entry],
    title: str,
    settings: Mapping[str, Any],
    data: Mapping[str, Any],
    out: Path | None,
    whole: str | None = None,
) -> None:
    """Print the table; with `out`, keep it with its records, settings and provenance.

    Args:
        entries, settings: see `memrl.evaluation.summary.summarize`. title: of the table.
        data: for the provenance. out: a folder, made where it is not there.
        whole: whom all entries are compared with; None for the usual controls.
    """
    controls = (*lineup.CONTROLS, *lineup.CACHE_CONTROLS) if whole is None else (whole,)
    results = summary.summarize(entries, controls, settings)
    terminal.print_table(results, title)
    terminal.print_paired(results, all_pairs=whole is not None)
    terminal.print_details(results)
    if out is None:
        return
    try:
        out.mkdir(parents=True, exist_ok=True)
        replace_text(out / "config.yaml", config_text(plain(settings)))
        append_start(out / "provenance.json", plain(collect_provenance(sys.argv, {}, data)))
        summary.write_entries(out / EPISODES_FILE, entries)
        replace_text(out / "results.json", strict_json(results, indent=1) + "\n")
        replace_text(out / "results.md", terminal.markdown_table(results) + "\n")
    except OSError as error:
        raise RunError(f"The results cannot be written to {out} ({error}).") from error


def main() -> int:
    """Parse the command line and run it; exit status 1 on errors."""
    parser = argparse.ArgumentParser(prog="python -m memrl.evaluation", description=__doc__)
    commands = parser.add_subparsers(dest="command", required=True)
    merging = commands.add_parser("merge", help="one table from several finished runs")
    merging.add_argument("runs", type=Path, nargs="+")
    transferring = commands.add_parser("transfer", help="play a run on another workload")
    transferring.add_argument("run", type=Path)
    ablating = commands.add_parser("ablate", help="replace the parts of a learned policy in turn")
    ablating.add_argument("runs", type=Path, nargs="+", help="of one preset: seeds, folds")
    ablating.add_argument("--policy", help="the learned one; the best on validation by default")
    answering = commands.add_parser("answers", help="score the answers of any reader")
    answering.add_argument("answers", type=Path, help="a JSON object a line")
    for command in (merging, transferring, ablating, answering):
        command.add_argument("--out", type=Path, help="folder for the results")
    publishing = commands.add_parser("publish", help="copy what a run has learned, for others")
    publishing.add_argument("run", type=Path)
    publishing.add_argument("--out", type=Path, required=True, help="the new folder")
    reporting = commands.add_parser("report", help="tables, figures and a page of finished runs")
    reporting.add_argument("runs", type=Path, nargs="+")
    reporting.add_argument("--out", type=Path, required=True, help="folder for the report")
    reporting.add_argument(
        "--mix",
        choices=("true", "false"),
        default="false",
        help="report runs of different versions, data or seeds together",
    )
    reporting.add_argument(
        "--bench",
        type=Path,
        nargs="+",
        default=[],
        help="files that benchmarks of environments wrote with --json: a figure of their speed",
    )
    reporting.add_argument(
        "--readme",
        type=Path,
        help="Markdown file in which to write the headline, where docs/report.md says",
    )
    arguments, rest = parser.parse_known_args()
    if rest and arguments.command in ("merge", "ablate", "report", "publish"):
        parser.error(f"unknown arguments: {' '.join(rest)}")
    try:
        if arguments.command == "merge":
            merge_runs(arguments.runs, arguments.out)
        elif arguments.command == "report":
            write_report(
                arguments.runs,
                arguments.out,
                mix=arguments.mix == "true",
                provenance=collect_provenance(sys.argv, {}, {}),
                bench=arguments.bench,
                readme=arguments.readme,
            )
        elif arguments.command == "ablate":
            show_ablations(arguments.runs, arguments.policy, arguments.out)
        elif arguments.command == "publish":
            size = publish(arguments.run, arguments.out)
            print(f"{arguments.out}: {size / 1e3:,.0f} kB")
        elif arguments.command == "answers":
            score_answers(arguments.answers, parse_config(rest), arguments.out)
        else:
            transfer(arguments.run, parse_config(rest), arguments.out)
    except MemrlError as error:
        print(f"error: {error}", file=sys.stderr)
        return 1
    return 0


if __name__ == "__main__":
    sys.exit(main())
