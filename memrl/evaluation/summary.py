"""From episode records to the numbers of a results section.

Records of several runs (seeds, folds) are put together before they are summarised: the unit of
every interval is the document, and within one all episodes and seeds are averaged first.
"""

from __future__ import annotations

import json
from collections.abc import Mapping, Sequence
from dataclasses import asdict
from pathlib import Path
from typing import Any

import numpy as np

from memrl.evaluation import best_read, budgets, stats
from memrl.evaluation.by_category import summarize_by_category
from memrl.evaluation.entry import Entry
from memrl.evaluation.entry_lines import entry_line
from memrl.evaluation.lineup import BOUNDS, FLOORS
from memrl.evaluation.play import EpisodeRecord, reward_per_question
from memrl.evaluation.readings import answers_by_category, summarize_answers
from memrl.evaluation.verdict import BEST_HEURISTIC, best_heuristic, verdicts
from memrl.run_files import RunError, replace_text

RESULTS_SCHEMA = 8
"""Version of the structure that `summarize` returns."""


def merge(runs: Sequence[Sequence[Entry]]) -> list[Entry]:
    """Put the entries of several runs together by name, in the order of the first run.

    Raises:
        RunError: if the runs do not hold the same contestants, or one of them twice the same
            episode of a seed.
    """
    merged = {entry.name: Entry(**{**vars(entry)}) for entry in runs[0]}
    for run in runs[1:]:
        if {entry.name for entry in run} != set(merged):
            raise RunError("The runs do not hold the same policies and cannot be put together.")
        for entry in run:
            into = merged[entry.name]
            into.runs = into.runs + [len(into.settings) + run for run in entry.runs]
            into.settings = into.settings + entry.settings
            into.validation = into.validation + entry.validation
            into.notes = into.notes + entry.notes
            into.records = into.records + entry.records
            into.seeds = into.seeds + entry.seeds
    for entry in merged.values():
        played = [
            (seed, record.document, record.episode)
            for seed, record in zip(entry.seeds, entry.records, strict=True)
        ]
        if len(set(played)) < len(played):
            raise RunError(
                f"The runs hold the same episodes of one seed twice ({entry.name}): give each seed "
                "and fold once, and folds or their summary, not both."
            )
    return list(merged.values())


def summarize(
    entries: Sequence[Entry], controls: Sequence[str], settings: Mapping[str, Any], seed: int = 0
) -> dict[str, Any]:
    """Summarise entries; the structure of `results.json`.

    Args:
        entries: all contestants, played on the same episodes.
        controls: names of entries that every other one is compared with, pairwise by episode.
        settings: what defines the run (`memrl.config.run_settings`); what was played is kept.
        seed: of the bootstrap.

    Returns:
        `schema`, `played` (workload and its parameters, when it asks, options), `clusters`
        (document ids; of a stream that is divided in time its blocks, whose intervals come from a
        bootstrap over them), `num_seeds`, `policies` (one mapping each, see `_policy_summary`),
        `best_heuristic` (the same mapping of what `verdict.best_heuristic` puts together, and
        `verdicts` by learned policy; None where no heuristic was played on validation), `paired`
        (differences in reward per question; see `stats.PairedSummary`), `by_budget` (see
        `memrl.evaluation.budgets.by_budget`), `best_read` (see
        `memrl.evaluation.best_read.best_read`).
    """
    blocks = settings["split"]["kind"] == "halves"
    rows = [_policy_summary(entry, np.random.default_rng(seed), blocks) for entry in entries]
    by_budget = budgets.by_budget(rows)
    policies = [row for row in rows if not budgets.is_point(row["settings"])]
    entries = [entry for entry in entries if not budgets.is_point(entry.settings)]
    by_name = {entry.name: entry for entry in entries}
    best, best_row = best_heuristic(entries), None
    if best is not None:
        by_name[best.name] = best
        best_row = _policy_summary(best, np.random.default_rng(seed), blocks)
    returns = {row["name"]: row["reward_per_question"]["estimate"] for row in policies}
    floors, bounds = (
        [returns[name] for name in names if name in returns] for names in (FLOORS, BOUNDS)
    )
    for row in [*policies, *([best_row] if best_row else [])]:
        if floors and bounds:
            mine, floor, bound = row["reward_per_question"]["estimate"], floors[0], bounds[0]
            score = stats.normalized_score(mine, floor, bound)
            row["normalized_score"] = None if np.isnan(score) else score
            row["regret"] = stats.regret(mine, bound)
    paired = [
        {"policy": entry.name, "control": control}
        | _paired(entry, by_name[control], np.random.default_rng(seed) if blocks else None)
        for control in (BEST_HEURISTIC, *controls)
        if control in by_name
        for entry in entries
        if entry.name != control
    ]
    if best_row is not None:
        best_row["verdicts"] = verdicts(policies, paired)
    return {
        "schema": RESULTS_SCHEMA,
        "played": _played_on(settings),
        "clusters": sorted({record.document for record in entries[0].records}),
        "num_seeds": len(set(entries[0].seeds)),
        "policies": policies,
        "best_heuristic": best_row,
        "paired": paired,
        "by_budget": by_budget,
        "best_read": best_read.best_read(entries),
    }


def _scored(entry: Entry) -> list[EpisodeRecord]:
    return [record for record in entry.records if record.num_scored]


def _played_on(settings: Mapping[str, Any]) -> dict[str, Any]:
    """What was played: no result is without it, `stage_from` above all."""
    workload = settings["workload"]
    played = {
        "workload": workload["name"],
        "parameters": dict(workload.get(workload["name"], {})),
        "paging": dict(settings["paging"]),
    }
    if workload["name"] == "page_cache":
        return played | {"split": settings["split"]["kind"]}
    return played | {name: workload[name] for name in ("ask", "window_pages", "max_queries")}


def _iqm(records: Sequence[EpisodeRecord], rng: np.random.Generator) -> dict[str, Any]:
    """Interquartile mean over episodes, seeds averaged first; bootstrap over documents."""
    values: dict[tuple[str, int], list[float]] = {}
    for record in records:
        key = (record.document, record.episode)
        values.setdefault(key, []).append(reward_per_question(record))
    rows = [float(np.mean(own)) for own in values.values()]
    documents = [document for document, _ in values]
    interval = None
    if len(set(documents)) >= stats.MIN_CLUSTERS:
        interval = asdict(stats.cluster_bootstrap(rows, documents, stats.iqm, rng))
    return {"estimate": stats.iqm(rows), "interval": interval}


def _policy_summary(entry: Entry, rng: np.random.Generator, blocks: bool) -> dict[str, Any]:
    """Numbers of one policy; all "per question" counts are over queries that pay evidence.

    A request is a question as well, and its evidence a hit.
    """
    records = _scored(entry)
    clusters = [record.document for record in records]
    rewards = [reward_per_question(record) for record in records]
    recalls = [record.evidence / record.num_scored for record in records]
    resampling = rng if blocks else None
    questions = sum(record.num_scored for record in records)
    support = _sum([record.support for record in records])
    funnel = _sum([record.funnel for record in entry.records])
    # Records of earlier versions lack steps; a sum of some records is no number of the policy.
    funnel = {
        step: count
        for step, count in funnel.items()
        if all(step in record.funnel for record in entry.records)
    }
    absent = funnel.pop("absent", 0.0)
    categories: dict[str, list[float]] = {}
    for record in records:
        for category, (evidence, count) in record.evidence_by_category.items():
            tally = categories.setdefault(category, [0.0, 0.0])
            tally[0] += evidence
            tally[1] += count
    return {
        "name": entry.name,
        "kind": entry.kind,
        "is_privileged": entry.is_privileged,
        "overrides": entry.overrides,
        "settings": entry.settings,
        "validation": entry.validation,
        "notes": entry.notes,
        "episodes": len(records),
        "questions": questions,
        "reward_per_question": asdict(
            stats.summarize_clusters(rewards, clusters, resampling=resampling)
        ),
        "reward_per_question_iqm": _iqm(records, rng),
        "evidence_recall": asdict(
            stats.summarize_clusters(recalls, clusters, resampling=resampling)
        ),
        "hit_ratio": _hit_ratio(records, resampling),
        "evidence_recall_by_category": {
            category: evidence / count for category, (evidence, count) in sorted(categories.items())
        },
        "by_category": summarize_by_category(records),
        "answers": summarize_answers(entry.records, resampling),
        "answers_by_category": answers_by_category(entry.records),
        "support_per_question": {name: total / questions for name, total in support.items()},
        "operations_per_question": {
            name: count / questions
            for name, count in _sum([record.operations for record in records]).items()
        },
        "reward_terms_per_question": {
            name: total / questions
            for name, total in _sum([record.reward_terms for record in records]).items()
        },
        "illegal_actions": sum(record.illegal for record in entry.records),
        "tokens_read_per_question": sum(record.tokens_read for record in records) / questions,
        "tokens_retrieved_per_question": sum(r.tokens_retrieved for r in records) / questions,
        "decision_ms": 1e3 * float(np.mean([record.decision_s for record in entry.records])),
        "absent_needs_per_question": absent / questions,
        "funnel": {name: count / absent if absent else None for name, count in funnel.items()},
    }


def _hit_ratio(
    records: Sequence[EpisodeRecord], resampling: np.random.Generator | None
) -> dict[str, Any] | None:
    """Hits over requests, of page caches."""
    caches = [record for record in records if record.requests]
    if not caches:
        return None
    ratios = [record.hits / record.requests for record in caches]
    clusters = [record.document for record in caches]
    return asdict(stats.summarize_clusters(ratios, clusters, resampling=resampling))


def _sum(mappings: Sequence[Mapping[str, float]]) -> dict[str, float]:
    total: dict[str, float] = {}
    for mapping in mappings:
        for name, value in mapping.items():
            total[name] = total.get(name, 0.0) + value
    return total


def _paired(entry: Entry, control: Entry, resampling: np.random.Generator | None) -> dict[str, Any]:
    """Difference in reward per question on the same episodes and seeds."""
    records, others = _scored(entry), _scored(control)
    if [(r.document, r.episode) for r in records] != [(r.document, r.episode) for r in others]:
        raise ValueError(
            f"{entry.name!r} and {control.name!r} were not played on the same episodes."
        )
    differences = [
        reward_per_question(record) - reward_per_question(other)
        for record, other in zip(records, others, strict=True)
    ]
    clusters = [record.document for record in records]
    return asdict(stats.summarize_differences(differences, clusters, resampling=resampling))


# ---------------------------------------------------------------------- disk


def write_entries(path: Path, entries: Sequence[Entry]) -> None:
    """Write one JSON line per contestant and episode."""
    lines = []
    for entry in entries:
        head = {
            "policy": entry.name,
            "kind": entry.kind,
            "is_privileged": entry.is_privileged,
            "overrides": entry.overrides,
        }
        for record, seed, run in zip(entry.records, entry.seeds, entry.runs, strict=True):
            line = {"seed": seed, "run": run, "settings": entry.settings[run]}
            line |= {"validation": entry.validation[run], "notes": entry.notes[run]}
            lines.append(json.dumps(head | line | {"record": asdict(record)}) + "\n")
    replace_text(path, "".join(lines))


def read_entries(path: Path) -> list[Entry]:
    """Read what `write_entries` wrote.

    Raises:
        RunError: if a line is damaged, or policies lack episodes that others have; it names the
            file and what to do.
    """
    again = "delete the run's results.json and score it again with train.py --resume true."
    try:
        lines = path.read_text(encoding="utf-8").splitlines()
    except (OSError, UnicodeDecodeError) as error:
        raise RunError(f"{path} cannot be read ({error}): {again}") from error
    entries: dict[str, Entry] = {}
    for number, text in enumerate(lines, start=1):
        try:
            line = entry_line(text)
            if line.policy not in entries:
                head = line.policy, line.is_privileged, line.overrides
                entries[line.policy] = Entry(*head, [], [], [], kind=line.kind)
            entry = entries[line.policy]
            if line.run == len(entry.settings):
                entry.settings.append(line.settings)
                entry.validation.append(line.validation)
                entry.notes.append(line.notes)
            elif line.run > len(entry.settings):
                raise ValueError(f"run {line.run}: the runs before it are not there")
        except ValueError as error:
            raise RunError(
                f"Line {number} of {path} is damaged, or of another version ({error}): {again}"
            ) from error
        entry.records.append(line.record)
        entry.seeds.append(line.seed)
        entry.runs.append(line.run)
    if len({len(entry.records) for entry in entries.values()}) != 1:
        raise RunError(f"{path} is empty or cut short: {again}")
    first, *others = entries.values()
    for entry in others:
        if _played(entry) != _played(first):
            raise RunError(
                f"{path} is damaged ({entry.name!r} did not play the episodes of {first.name!r}): "
                f"{again}"
            )
    return [first, *others]


def _played(entry: Entry) -> list[tuple[int, str, int, bool]]:
    """What tells each of its episodes, in order."""
    rows = zip(entry.runs, entry.records, strict=True)
    return [(run, own.document, own.episode, own.num_scored > 0) for run, own in rows]
