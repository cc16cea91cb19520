"""Learn a memory policy, and score it beside others on documents that it never saw.

    python train.py --config configs/default.yaml                 # generated chats, no data needed
    python train.py --config configs/locomo.yaml --split.fold 2   # one conversation left out
    python train.py --config configs/locomo.yaml --folds true     # each left out in turn
    python train.py --config configs/locomo.yaml --cost_scales [0.5,1,4]  # what costs buy
    python train.py --config configs/locomo.yaml --seed 3 --paging.capacity 8
    python train.py --config configs/locomo_gpg.yaml              # learn from the reward alone
    python train.py --config configs/locomo_ppo.yaml              # the same with a critic
    python train.py --config configs/nested_kv_prompted.yaml      # beside a prompted model
    python train.py --config configs/default.yaml --resume true   # go on after Ctrl-C
    torchrun --standalone --nproc_per_node 2 train.py --config configs/locomo_gpg.yaml

Writes runs/<name>/seed<k>/: config.yaml, provenance.json, world.json, metrics.jsonl,
checkpoint-<n>/, episodes.jsonl (a line per policy and episode), strip.json (an episode slot by
slot), calibration.json (predicted gains beside their labels), results.json, results.md, tables/,
wandb/; of a language model also exchanges.jsonl, prompted-<mode>.jsonl and readings.jsonl
(docs/prompted.md).
The table over all folds is in runs/<name>-folds/seed<k>/, that over costs in runs/<name>-front/.
"""

from __future__ import annotations

import math
import sys
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import asdict, replace
from functools import partial
from pathlib import Path
from typing import Literal

import numpy as np
import numpy.typing as npt
import torch

from envs.batched import is_batchable, paging_group
from envs.lockstep import LockstepPaging
from envs.session import Session
from envs.sharded import InShards, tiered_group, training_group
from envs.workloads import describe
from envs.workloads.loading import load_workload
from envs.workloads.official import measures_of, official_question, posed_question
from envs.workloads.splits import clusters_of
from envs.workloads.tables import Tables, data_record, split_tables, workload_record
from memrl.algos.gain_regression import GainRegression
from memrl.algos.shares import Share
from memrl.algos.tiers import resolved_tier
from memrl.bystander import Bystander
from memrl.config import ConfigurationError, RunConfig, parse_config, run_settings
from memrl.distributed import Ranks
from memrl.documents import Workload
from memrl.errors import MemrlError
from memrl.evaluation import lineup, summary, terminal
from memrl.evaluation.cache_lineup import cache_lines
from memrl.evaluation.calibration import MOST_EPISODES, calibration_of
from memrl.evaluation.contexts import table_dates
from memrl.evaluation.cost_front import COLUMNS, front_rows
from memrl.evaluation.entry import Entry
from memrl.evaluation.lineup import Arena, Line, MakeGroup
from memrl.evaluation.model_scoring import ModelScoring
from memrl.evaluation.reader_lineup import AnswerRules
from memrl.evaluation.report.strips import save_strip
from memrl.evaluation.retrieval import ranking_recall
from memrl.evaluation.strip import episode_strip
from memrl.groups import FixedShapeGroup, PagingGroup
from memrl.interrupt import Interrupted, InterruptGuard
from memrl.launch import joined, pick_device, rank_label
from memrl.learning import imitate, improve, policy_gradient
from memrl.llm.backend import Backend
from memrl.llm.make import make_backend, recorded
from memrl.llm.prompts import player_instructions
from memrl.memory.embedders import CachedEmbedder, make_embedder
from memrl.memory.summarizers import Summarizer
from memrl.options import PagingOptions
from memrl.policies.base import Contestant, best_of
from memrl.policies.prior import PageScorer, fit_page_scorer, unfitted_scorer
from memrl.policy_gradient_config import Tier
from memrl.progress import progress_bar
from memrl.provenance import collect_provenance
from memrl.resuming import (
    newest_name,
    require_config_file,
    require_same_config,
    require_same_data,
)
from memrl.run_checkpoint import RunCheckpoint
from memrl.run_files import (
    CALIBRATION_FILE,
    EPISODES_FILE,
    STRIP_FILE,
    plain,
    replace_text,
    strict_json,
)
from memrl.seeding import Streams
from memrl.table import EpisodeTable
from memrl.tracking import Run, require_startable, require_unused, run_folder, start_run
from memrl.world import World, save_world

# ---------------------------------------------------------------------------------------- one run


def run(config: RunConfig, workload: Workload, ranks: Ranks) -> list[Entry]:
    """World, policy, learning, score; returns the records of every policy on the test episodes.

    Of several ranks the first one scores, and the others return nothing.
    """
    folder = run_folder(Path(config.runs_dir), config.name, config.seed)
    if ranks.from_first(lambda: config.resume and (folder / "results.json").exists()):
        return finished(config, workload, folder) if ranks.is_first else []

    require_runnable(config, folder, ranks)  # what cannot be is named before anything is built
    model = language_model(config, workload) if config.asks_model and ranks.is_first else None
    with ranks.first_alone():
        tables, scorer = build_world(config, workload)
    options = config.paging.resolved(**tables.train.medians())
    record = open_run(config, data_record(workload, tables), Streams(config.seed), ranks)

    with record, InterruptGuard(announces=ranks.is_first) as guard:
        world = (
            f"{tables.train.num_episodes:,} training, {tables.validation.num_episodes} validation"
        )
        print(
            f"{record.folder}: {world}, {tables.test.num_episodes} test episodes | "
            f"capacity {options.capacity} {options.unit}, {options.num_slots} slots, "
            f"archive {options.archival_capacity}"
        )
        if config.environment == "batched" and not is_batchable(options):
            print("these options are played by the reference environment alone, on the CPU")
        if options.unit == "tokens":
            num_cut = int((tables.test.page_tokens > options.capacity).sum())
            print(f"{num_cut:,} test pages are larger than main context and truncated to it")
        if ranks.is_first:
            save_world(record.folder, World(options, tables.statistics))
        # learn, then score
        make_group = group_maker(config, ranks)
        validation = Arena(tables.validation, options, make_group)
        test = test_arena(config, tables.test, options, make_group)
        learned = learn(config, record, tables, scorer, validation, test, guard, ranks)
        if not ranks.is_first:
            return []
        prior = tables.train.page_prior
        with model_scoring(config, workload, model, record.folder, tables, options) as scoring:
            contestants = choose(config, prior, learned, validation, test, guard)
            entries = score(config, contestants, scoring, test, guard)
        look_closer(config, record, contestants, test, make_group, guard)
        report(config, record, entries, ranking_recall(tables.test, options, make_group))
    return entries


def finished(config: RunConfig, workload: Workload, folder: Path) -> list[Entry]:
    """The records of a run that has ended."""
    require_same_config(folder, plain(run_settings(config)))
    require_same_data(folder, workload_record(workload))
    print(f"{folder} is finished already; its records are used.")
    return summary.read_entries(folder / EPISODES_FILE)


def require_runnable(config: RunConfig, folder: Path, ranks: Ranks) -> None:
    """Raise MemrlError if the device is missing, the folder is taken or the ranks do not fit."""
    pick_device(config.device, ranks)
    if config.algorithm in lineup.POLICY_GRADIENTS:
        ranks.require_equal_shares(config.policy_gradient.num_groups, "policy_gradient.num_groups")
    if ranks.is_first:
        require_startable(
            Path(config.runs_dir),
            config.name,
            config.seed,
            resume=config.resume and folder.exists(),
            if_used=config.if_used,
        )


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


def open_run(
    config: RunConfig,
    data: dict[str, object],
    streams: Streams,
    ranks: Ranks,
    job_type: Literal["train", "summary"] = "train",
) -> Run:
    """Open the run folder and its mirror; ranks that do not write it get a stand-in."""
    root = Path(config.runs_dir)
    folder = run_folder(root, config.name, config.seed)
    ranks.require_same("data", data)
    if not ranks.is_first:
        return Bystander(folder, config.name, config.seed)
    return start_run(
        root,
        config.name,
        config.seed,
        run_settings(config),
        collect_provenance(sys.argv, streams.describe(), data),
        resume=config.resume and folder.exists(),
        if_used=config.if_used,
        wandb_mode=config.wandb_mode,
        group=config.name.split("-fold")[0],
        tags=[config.workload.name, config.algorithm],
        job_type=job_type,
    )


def group_maker(config: RunConfig, ranks: Ranks) -> MakeGroup:
    """What plays, and where."""
    device = pick_device(config.device, ranks)
    return partial(paging_group, environment=config.environment, device=device)


def test_arena(
    config: RunConfig, table: EpisodeTable, options: PagingOptions, make_group: MakeGroup
) -> Arena:
    """The test episodes; where a model is asked, so few of them, and where texts are shown."""
    if not config.asks_model:
        return Arena(table, options, make_group)
    return text_arena(table, options, config.prompted.most_episodes)


def text_arena(table: EpisodeTable, options: PagingOptions, most_episodes: int | None) -> Arena:
    """A table's episodes where texts are shown."""
    with_texts = partial(paging_group, environment="reference", device=torch.device("cpu"))
    return Arena(table, options, with_texts, most_episodes)


def imitation_group(
    config: RunConfig, ranks: Ranks, table: EpisodeTable, options: PagingOptions
) -> PagingGroup:
    """This rank's rows of gain regression."""
    group = training_group(
        table,
        options,
        math.ceil(config.num_envs / ranks.world_size),
        environment=config.environment,
        device=pick_device(config.device, ranks),
        shard_bytes=config.shard_bytes,
        ranks=ranks,
    )
    if isinstance(group, InShards):
        print(f"training table in {len(group.shards)} shards: {group.shards.sizes} episodes")
    return group


def gradient_group(
    config: RunConfig, ranks: Ranks, table: EpisodeTable, options: PagingOptions, num_rows: int
) -> tuple[PagingGroup | FixedShapeGroup, Tier]:
    """This rank's rows of a policy gradient, and the tier in which they are played."""
    device = pick_device(config.device, ranks)
    return tiered_group(
        table,
        options,
        num_rows,
        resolved_tier(config.policy_gradient.tier, device),
        environment=config.environment,
        device=device,
        shard_bytes=config.shard_bytes,
        ranks=ranks,
    )


# ---------------------------------------------------------------------------------------- learn


def learn(
    config: RunConfig,
    record: Run,
    tables: Tables,
    scorer: PageScorer,
    validation: Arena,
    test: Arena,
    guard: InterruptGuard,
    ranks: Ranks,
) -> list[Line]:
    """Gain regression, and a policy gradient if asked for; the lines of what was learned."""
    options, streams = validation.options, Streams(config.seed)
    device = pick_device(config.device, ranks)
    kept = RunCheckpoint(record, ranks)
    imitation = GainRegression(
        imitation_group(config, ranks, tables.train, options),
        config.network,
        config.learner,
        streams,
        thresholds=np.quantile(tables.train.page_prior, (0.3, 0.5, 0.7)).tolist(),
        device=device,
        share=Share.of(ranks, config.learner.episodes_per_round, "learner.episodes_per_round"),
    )
    print(f"{sum(p.numel() for p in imitation.network.parameters()):,} parameters")
    policy = imitate(config, record, kept, imitation, scorer, validation, guard)
    lines = lineup.learned_lines(policy, config.evaluation)
    del imitation  # and its shard of the table with it
    if config.algorithm in lineup.POLICY_GRADIENTS:
        rows = config.policy_gradient.num_groups * config.policy_gradient.group_size
        share = Share.of(ranks, rows, "policy_gradient.num_groups")
        group, tier = gradient_group(config, ranks, tables.train, options, len(share))
        gradient = policy_gradient(config, group, tier, streams, kept, device, share)
        # As many training episodes as validation has tell how far learning fits them.
        count = tables.validation.num_episodes
        seen = Arena(tables.train, options, group_maker(config, ranks), count)
        curve = test if config.policy_gradient.test_curve else None
        took = improve(config, record, kept, gradient, seen, validation, guard, curve)
        sampled = gradient.sampled_policy(streams.generator("evaluation", 2))
        lines += lineup.policy_gradient_lines(config.algorithm, gradient.policy, sampled, took)
    checkpoints = sorted(record.folder.glob("checkpoint-*"))
    record.log_artifact_files("checkpoint", "checkpoint", checkpoints)
    return lines


# ---------------------------------------------------------------------------------------- score


def choose(
    config: RunConfig,
    prior_logits: npt.NDArray[np.float32],
    learned: list[Line],
    validation: Arena,
    test: Arena,
    guard: InterruptGuard,
) -> list[Contestant]:
    """Choose every free number on validation."""
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
    return contestants


def score(
    config: RunConfig,
    contestants: list[Contestant],
    model: ModelScoring | None,
    test: Arena,
    guard: InterruptGuard,
) -> list[Entry]:
    """Play each contestant once on test."""
    if model is not None:
        return model.score(contestants, test, guard.checking)
    num_episodes = len(contestants) * test.table.num_episodes
    with progress_bar("scoring on test", num_episodes) as advance:
        played = test.play(contestants, guard.checking(advance))
    return [Entry.of(*pair, config.seed) for pair in zip(contestants, played, strict=True)]


def look_closer(
    config: RunConfig,
    record: Run,
    contestants: list[Contestant],
    test: Arena,
    make_group: MakeGroup,
    guard: InterruptGuard,
) -> None:
    """Write what only figures need: one test episode slot by slot, and whether gains come true."""
    best = [best_of(contestants, kind) for kind in ("learned", "heuristic")]
    players = [one for one in best if one is not None]
    strip = episode_strip(test, players, partial(LockstepPaging, num_envs=1))
    if strip is not None:
        replace_text(record.folder / STRIP_FILE, strict_json(asdict(strip)) + "\n")
        if record.is_mirrored:
            record.log_image("episode_strip", save_strip(strip, record.folder))
    if not test.table.has_requests:
        few = Arena(test.table, test.options, make_group, MOST_EPISODES)
        learned = next(one for one in contestants if one.name == lineup.LEARNED)
        with progress_bar("gains on test", len(few.episodes)) as advance:
            calibration = calibration_of(learned, few, config.learner, guard.checking(advance))
        replace_text(record.folder / CALIBRATION_FILE, strict_json(asdict(calibration)) + "\n")


def language_model(config: RunConfig, workload: Workload) -> Backend:
    """The model that plays or reads, before anything is built."""
    if config.reader.reads and answer_rules(workload, config.workload.embedder) is None:
        raise ConfigurationError(
            f"No measure of answers is known for the workload {workload.name}: leave reader.reads "
            "out."
        )
    model = make_backend(config.llm)
    if model.can_score:
        return model
    of_likelihoods = {
        "prompted.calibrates": config.prompted.calibrates,
        "prompted.answer_offsets": any(config.prompted.answer_offsets),
    }
    name = next((name for name, is_asked_for in of_likelihoods.items() if is_asked_for), None)
    if name is not None:
        raise ConfigurationError(
            f"{name} needs likelihoods of given texts, and {model.name} gives none: leave it out, "
            "or take a local model."
        )
    return model


def answer_rules(workload: Workload, embedder: str) -> AnswerRules | None:
    """How answers to these questions are scored, None if nobody knows."""
    try:
        score = measures_of(workload, embedder)
    except ValueError:
        return None
    dates_of = partial(table_dates, documents=workload.documents)
    return AnswerRules(score, official_question, dates_of)


@contextmanager
def model_scoring(
    config: RunConfig,
    workload: Workload,
    model: Backend | None,
    folder: Path,
    tables: Tables,
    options: PagingOptions,
) -> Iterator[ModelScoring | None]:
    """The model among the contestants; its exchanges are kept in the run folder."""
    if model is None:
        yield None
        return

    def make_session(arena: Arena, *, with_recall: bool, summarizer: Summarizer) -> Session:
        assert tables.statistics is not None  # page caches have none, and no model that reads
        return Session(
            arena.table,
            arena.options,
            statistics=tables.statistics,
            embedder=CachedEmbedder(make_embedder(config.workload.embedder)),
            with_recall=with_recall,
            instructions=player_instructions(with_recall=with_recall),
            page_size=config.prompted.page_size,
            summarizer=summarizer,
        )

    with recorded(model, config.llm, folder / "exchanges.jsonl") as backend:
        yield ModelScoring(
            config.prompted,
            config.reader,
            backend,
            text_arena(tables.validation, options, config.prompted.validation_episodes),
            make_session,
            partial(posed_question, workload.name),
            answer_rules(workload, config.workload.embedder),
            config.seed,
            folder,
        )


def report(
    config: RunConfig,
    record: Run,
    entries: list[Entry],
    recalls: dict[str, dict[str, float]] | None = None,
) -> None:
    """Print the tables a paper would print, and store them."""
    controls = (*lineup.CONTROLS, *lineup.CACHE_CONTROLS)  # those that played
    results = summary.summarize(entries, controls, run_settings(config))
    results |= {"ranking_recall": recalls} if recalls else {}
    terminal.print_table(results, title=f"{record.name}, held-out documents")
    terminal.print_paired(results)
    terminal.print_details(results)
    summary.write_entries(record.folder / EPISODES_FILE, entries)
    (record.folder / "results.md").write_text(terminal.markdown_table(results) + "\n")
    record.log_table("results", terminal.columns(results), terminal.table_rows(results))
    record.finish(results)


# ---------------------------------------------------------------------------------------- program


def run_folds(config: RunConfig, workload: Workload, ranks: Ranks) -> list[Entry]:
    """Leave each document out in turn, and report on all of them together."""
    together = replace(config, name=f"{config.name}-folds")
    root, folds = Path(config.runs_dir), range(len(clusters_of(workload.documents)))
    folders = [run_folder(root, f"{config.name}-fold{fold}", config.seed) for fold in folds]
    if ranks.is_first:  # better now than after the last fold
        if not config.resume:
            require_unused(run_folder(root, together.name, config.seed))
        elif not any(folder.exists() for folder in folders):
            require_config_file(folders[0])
    runs = []
    for fold in folds:
        split = replace(config.split, kind="leave_one_out", fold=fold)
        of_fold = replace(config, name=f"{config.name}-fold{fold}", split=split)
        runs.append(run(of_fold, workload, ranks))
    data: dict[str, object] = {"folds": len(runs)}
    with open_run(together, data, Streams(config.seed), ranks, "summary") as record:
        if not ranks.is_first:
            return []
        merged = summary.merge(runs)
        report(together, record, merged)
    return merged


def run_costs(config: RunConfig, workload: Workload, ranks: Ranks) -> None:
    """Run with each scale of the costs in turn, and show what is gained at which price."""
    together = replace(config, name=f"{config.name}-front")
    if ranks.is_first and not config.resume:  # better now than after the last scale
        require_unused(run_folder(Path(config.runs_dir), together.name, config.seed))
    runs = []
    for scale in config.cost_scales:
        paging = replace(config.paging, reward=config.paging.reward.with_costs(scale))
        of_scale = replace(config, name=f"{config.name}-cost{scale:g}", paging=paging)
        runs.append((scale, run_once(of_scale, workload, ranks)))
    scales: dict[str, object] = {"cost_scales": list(config.cost_scales)}
    with open_run(together, scales, Streams(config.seed), ranks, "summary") as record:
        if ranks.is_first:
            rows = front_rows(runs)
            terminal.print_rows(f"{config.name}: recall against operations", COLUMNS, rows)
            record.log_table("front", COLUMNS, rows)
            front = [dict(zip(COLUMNS, row, strict=True)) for row in rows]
            record.finish({"schema": summary.RESULTS_SCHEMA, "front": front})


def run_once(config: RunConfig, workload: Workload, ranks: Ranks) -> list[Entry]:
    """A run, or one for each fold; the records of all of them."""
    return (run_folds if config.folds else run)(config, workload, ranks)


def numbered(config: RunConfig) -> RunConfig:
    """The configuration with the name of the run that it asks to resume."""
    root = Path(config.runs_dir)
    if config.resume and config.if_used == "number":
        config = replace(config, name=newest_name(root, config.name, config.seed))
    if config.resume and not config.folds and not config.cost_scales:
        require_config_file(run_folder(root, config.name, config.seed))
    return config


def begin(config: RunConfig, ranks: Ranks) -> None:
    """Load the documents, and run once, fold by fold, or scale by scale."""
    workload = load_workload(config.workload)
    print(describe(workload))
    (run_costs if config.cost_scales else run_once)(config, workload, ranks)


def main() -> int:
    """Run what the command line asks for; exit status 1 on errors, 130 after Ctrl-C."""
    config = parse_config()
    try:
        with joined(config.device) as ranks:
            begin(ranks.from_first(lambda: numbered(config)), ranks)
    except MemrlError as error:
        print(f"error: {rank_label()}{error}", file=sys.stderr)
        return 1
    except (Interrupted, KeyboardInterrupt):
        return 130
    return 0


if __name__ == "__main__":
    sys.exit(main())
