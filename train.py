"""Learn a memory policy, and score it beside others on documents that it never saw.

    python train.py --config configs/default.yaml                 # generated chats, no data needed
    python train.py --config configs/locomo.yaml --split.fold 2   # one conversation left out
    python train.py --config configs/locomo.yaml --folds true     # each left out in turn
    python train.py --config configs/locomo.yaml --seed 3 --paging.capacity 8
    python train.py --config configs/locomo_gpg.yaml              # learn from the reward alone
    python train.py --config configs/default.yaml --resume true   # go on after Ctrl-C

Writes runs/<name>/seed<k>/: config.yaml, provenance.json, metrics.jsonl, checkpoint-<n>/,
episodes.jsonl (a line per policy and episode), results.json, results.md, tables/, wandb/.
The table over all folds is in runs/<name>-folds/seed<k>/.
"""

from __future__ import annotations

import sys
from dataclasses import replace
from pathlib import Path

import numpy as np
import numpy.typing as npt
import torch

from envs.batched import paging_group
from envs.workloads import describe
from envs.workloads.tables import (
    Tables,
    data_record,
    load_workload,
    split_tables,
    workload_record,
)
from memrl.algos.gain_regression import GainRegression
from memrl.algos.group_policy_gradient import GroupPolicyGradient
from memrl.config import ConfigurationError, RunConfig, parse_config, run_settings
from memrl.documents import Workload
from memrl.errors import MemrlError
from memrl.evaluation import lineup, summary, terminal
from memrl.evaluation.cache_lineup import cache_lines
from memrl.evaluation.lineup import Arena, Line
from memrl.evaluation.summary import Entry
from memrl.interrupt import Interrupted, InterruptGuard
from memrl.learning import imitate, improve, start_weights
from memrl.policies.prior import PageScorer, fit_page_scorer, unfitted_scorer
from memrl.progress import progress_bar
from memrl.provenance import collect_provenance
from memrl.resuming import (
    newest_name,
    require_config_file,
    require_same_config,
    require_same_data,
)
from memrl.run_checkpoint import RunCheckpoint
from memrl.run_files import plain
from memrl.seeding import Streams
from memrl.tracking import Run, require_startable, require_unused, run_folder, start_run

# ---------------------------------------------------------------------------------------- one run


def run(config: RunConfig, workload: Workload) -> list[Entry]:
    """World, policy, learning, score; returns the records of every policy on the test episodes."""
    folder = run_folder(Path(config.runs_dir), config.name, config.seed)
    if config.resume and (folder / "results.json").exists():
        require_same_config(folder, plain(run_settings(config)))
        require_same_data(folder, workload_record(workload))
        print(f"{folder} is finished already; its records are used.")
        return summary.read_entries(folder / "episodes.jsonl")

    pick_device(config.device)  # what is not there is named before anything is built
    require_startable(
        Path(config.runs_dir),
        config.name,
        config.seed,
        resume=config.resume and folder.exists(),
        if_used=config.if_used,
    )
    tables, scorer = build_world(config, workload)
    options = config.paging.resolved(**tables.train.medians())
    record = open_run(config, data_record(workload, tables), Streams(config.seed))

    with record, InterruptGuard() as guard:
        world = (
            f"{tables.train.num_episodes:,} training, {tables.validation.num_episodes} validation"
        )
        print(
            f"{record.folder}: {world}, {tables.test.num_episodes} test episodes | "
            f"capacity {options.capacity} {options.unit}, {options.num_slots} slots, "
            f"archive {options.archival_capacity}"
        )
        if options.unit == "tokens":
            num_cut = int((tables.test.page_tokens > options.capacity).sum())
            print(f"{num_cut:,} test pages are larger than main context and truncated to it")
        # learn, then score
        validation = Arena(tables.validation, options, paging_group)
        test = Arena(tables.test, options, paging_group)
        learned = learn(config, record, tables, scorer, validation, test, guard)
        entries = score(config, tables.train.page_prior, learned, validation, test, guard)
        report(config, record, entries)
    return entries


def build_world(config: RunConfig, workload: Workload) -> tuple[Tables, PageScorer]:
    """Three tables with statistics of the training documents, and the page scorer of these."""
    tables = split_tables(workload, config.split, config.workload)
    if tables.train.has_requests:  # pages without text
        return tables, unfitted_scorer(tables.train)
    try:
        scorer, own_logits = fit_page_scorer(tables.train)
    except ValueError as error:
        raise ConfigurationError(str(error)) from error
    return Tables(
        train=tables.train.with_prior(own_logits),
        validation=tables.validation.with_prior(scorer.logits(tables.validation)),
        test=tables.test.with_prior(scorer.logits(tables.test)),
        statistics=tables.statistics,
    ), scorer


def open_run(config: RunConfig, data: dict[str, object], streams: Streams) -> Run:
    """Open the run folder and its mirror."""
    return start_run(
        Path(config.runs_dir),
        config.name,
        config.seed,
        run_settings(config),
        collect_provenance(sys.argv, streams.describe(), data),
        resume=config.resume
        and run_folder(Path(config.runs_dir), config.name, config.seed).exists(),
        if_used=config.if_used,
        wandb_mode=config.wandb_mode,
        group=config.name.split("-fold")[0],
    )


def pick_device(name: str) -> torch.device:
    """The device that a configuration names; "auto" is CUDA when there is one."""
    if name == "auto":
        return torch.device("cuda" if torch.cuda.is_available() else "cpu")
    device = torch.device(name)
    if device.type == "cuda" and (device.index or 0) >= torch.cuda.device_count():
        raise ConfigurationError(
            f"There is no device {name} (torch sees {torch.cuda.device_count()} CUDA devices): "
            "use --device auto or cpu."
        )
    return device


# ---------------------------------------------------------------------------------------- learn


def learn(
    config: RunConfig,
    record: Run,
    tables: Tables,
    scorer: PageScorer,
    validation: Arena,
    test: Arena,
    guard: InterruptGuard,
) -> list[Line]:
    """Gain regression, and the policy gradient if asked for; the lines of what was learned."""
    options, streams, device = validation.options, Streams(config.seed), pick_device(config.device)
    kept = RunCheckpoint(record)
    imitation = GainRegression(
        paging_group(tables.train, options, config.num_envs),
        config.network,
        config.learner,
        streams,
        thresholds=np.quantile(tables.train.page_prior, (0.3, 0.5, 0.7)).tolist(),
        device=device,
    )
    print(f"{sum(p.numel() for p in imitation.network.parameters()):,} parameters")
    policy = imitate(config, record, kept, imitation, scorer, validation, guard)
    lines = lineup.learned_lines(policy, config.evaluation)
    if config.algorithm == "group_policy_gradient":
        settings = config.policy_gradient
        gradient = GroupPolicyGradient(
            paging_group(tables.train, options, settings.num_groups * settings.group_size),
            config.network,
            settings,
            streams,
            gain_scale=config.learner.gain_scale,
            initial=start_weights(settings.start, kept.tensors),
            device=device,
        )
        # As many training episodes as validation has tell how far learning fits them.
        seen = Arena(tables.train, options, paging_group, tables.validation.num_episodes)
        curve = test if settings.test_curve else None
        took = improve(config, record, kept, gradient, seen, validation, guard, curve)
        sampled = gradient.sampled_policy(streams.generator("evaluation", 2))
        lines += lineup.policy_gradient_lines(gradient.policy, sampled, took)
    checkpoints = sorted(record.folder.glob("checkpoint-*"))
    record.log_artifact_files("checkpoint", "checkpoint", checkpoints)
    return lines


# ---------------------------------------------------------------------------------------- score


def score(
    config: RunConfig,
    prior_logits: npt.NDArray[np.float32],
    learned: list[Line],
    validation: Arena,
    test: Arena,
    guard: InterruptGuard,
) -> list[Entry]:
    """Choose every free number on validation, then play each contestant once on test."""
    generator = Streams(config.seed).torch_generator("evaluation", 0)
    lines = [
        *lineup.heuristic_lines(config.evaluation, prior_logits, generator),
        *lineup.chain_lines(config.evaluation, validation.table),
        *learned,
        *lineup.bound_lines(test.options),
    ]
    if test.table.has_requests:
        lines = cache_lines(test.options, learned, generator)
    contestants = []
    with progress_bar("choosing on validation", len(lines)) as advance:
        for line in lines:
            contestants.append(validation.choose(line))
            guard.checking(advance)(1)
    num_episodes = len(contestants) * test.table.num_episodes
    with progress_bar("scoring on test", num_episodes) as advance:
        played = test.play(contestants, guard.checking(advance))
    return [Entry.of(*pair, config.seed) for pair in zip(contestants, played, strict=True)]


def report(config: RunConfig, record: Run, entries: list[Entry]) -> None:
    """Print the table a paper would print, and store it."""
    controls = (*lineup.CONTROLS, *lineup.CACHE_CONTROLS)  # those that played
    results = summary.summarize(entries, controls, run_settings(config))
    terminal.print_table(results, title=f"{record.name}, held-out documents")
    terminal.print_paired(results)
    terminal.print_by_category(results)
    summary.write_entries(record.folder / "episodes.jsonl", entries)
    (record.folder / "results.md").write_text(terminal.markdown_table(results) + "\n")
    record.log_table("results", terminal.columns(results), terminal.table_rows(results))
    record.finish(results)


# ---------------------------------------------------------------------------------------- program


def run_folds(config: RunConfig, workload: Workload) -> None:
    """Leave each document out in turn, and report on all of them together."""
    together = replace(config, name=f"{config.name}-folds")
    root, folds = Path(config.runs_dir), range(len(workload.documents))
    if not config.resume:  # better now than after the last fold
        require_unused(run_folder(root, together.name, config.seed))
    elif not any(run_folder(root, f"{config.name}-fold{f}", config.seed).exists() for f in folds):
        require_config_file(run_folder(root, f"{config.name}-fold0", config.seed))
    runs = []
    for fold in folds:
        split = replace(config.split, kind="leave_one_out", fold=fold)
        runs.append(run(replace(config, name=f"{config.name}-fold{fold}", split=split), workload))
    with open_run(together, {"folds": len(runs)}, Streams(config.seed)) as record:
        report(together, record, summary.merge(runs))


def main() -> int:
    """Run what the command line asks for; exit status 1 on errors, 130 after Ctrl-C."""
    config = parse_config()
    if config.resume and config.if_used == "number":
        newest = newest_name(Path(config.runs_dir), config.name, config.seed)
        config = replace(config, name=newest)
    try:
        if config.resume and not config.folds:
            require_config_file(run_folder(Path(config.runs_dir), config.name, config.seed))
        workload = load_workload(config.workload)
        print(describe(workload))
        (run_folds if config.folds else run)(config, workload)
    except MemrlError as error:
        print(f"error: {error}", file=sys.stderr)
        return 1
    except (Interrupted, KeyboardInterrupt):
        return 130
    return 0


if __name__ == "__main__":
    sys.exit(main())
