"""The numbers of one condition: of each policy, and of pairs of them, with their intervals."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import asdict, dataclass
from functools import partial
from typing import Any

import numpy as np
import numpy.typing as npt

from memrl.evaluation import stats, terminal
from memrl.evaluation.entry import Entry
from memrl.evaluation.lineup import FLOORS, PRIOR_RULE
from memrl.evaluation.play import reward_per_question
from memrl.evaluation.report.bootstrap import Resamples, scored_rows
from memrl.evaluation.report.conditions import Condition
from memrl.evaluation.report.fronts import hypervolumes, pareto_front
from memrl.evaluation.stats import FloatArray
from memrl.evaluation.verdict import BEST_UNLEARNED, best_heuristic, title
from memrl.seeding import Streams

RESAMPLES_STREAM = ("evaluation", 3)
"""Random stream and index of the resamples of seed 0, the same for every condition."""
IN_FOCUS = ("learned", "prompted")
"""Kinds of policies that are compared with every other one."""
MARGIN = 1.1
"""Times the highest cost: how far fronts and their areas go, so that the dearest policy counts."""
COSTS = {
    "tokens_read_per_question": "tokens read / question",
    "operations_per_question": "operations / question",
    "policy_ms_per_question": "policy ms / question",
}
"""What quality is set against, with the titles of axes and columns."""


def condition_numbers(condition: Condition) -> dict[str, Any]:
    """All numbers of a condition, JSON-able; what each means is in docs/report.md."""
    entries = condition.entries
    resamples = Resamples.of(entries[0], Streams(0).generator(*RESAMPLES_STREAM))
    best = best_heuristic(entries)
    opponents = [] if best is None else [best]
    if any(entry.name == PRIOR_RULE for entry in entries):
        unlearned = best_heuristic(entries, BEST_UNLEARNED, {PRIOR_RULE})
        opponents += [] if unlearned is None else [unlearned]
    values = {entry.name: _rewards(entry, entries[0]) for entry in [*entries, *opponents]}
    bounds = [entry.name for entry in entries if entry.kind == "bound"]
    floor = next((name for name in FLOORS if name in values), None)
    summaries = {row["name"]: row for row in condition.results["policies"]}
    everyone = entries if best is None else [*entries, best]
    policies = []
    for entry in everyone:
        is_best = entry is best
        row = condition.results["best_heuristic"] if is_best else summaries[entry.name]
        policies.append(
            {
                "name": entry.name,
                "shown_as": title(row) if is_best else entry.name,
                "kind": row["kind"],
                "is_privileged": row["is_privileged"],
                "episodes": row["episodes"],
                "questions": row["questions"],
                **_quality(entry, values, resamples, floor, bounds),
                "t_interval": row["reward_per_question"]["interval"],
                "by_document": row["reward_per_question"]["cluster_values"],
                **_costs(entry),
                "funnel": row["funnel"],
                "absent_needs_per_question": row["absent_needs_per_question"],
            }
        )
    return {
        "label": condition.label,
        "settings": condition.settings,
        "played": condition.results["played"],
        "measure": condition.measure,
        "cluster": terminal.cluster_name(condition.results),
        "documents": resamples.documents,
        "seeds": condition.seeds,
        "runs": [run.folder.as_posix() for run in condition.runs],
        "policies": policies,
        "paired": [
            _pair(names, values, resamples, bounds)
            for names in _pairs([e for e in entries if e.kind != "bound"], opponents)
        ],
        "fronts": [] if condition.is_cache else _fronts(entries, policies, resamples),
    }


def _rewards(entry: Entry, first: Entry) -> FloatArray:
    """(n,) reward per question of the scored records, which are on the episodes of `first`."""
    rows, others = scored_rows(entry), scored_rows(first)
    if _places(entry, rows) != _places(first, others):
        raise ValueError(f"{entry.name!r} and {first.name!r} were not played on the same episodes.")
    return np.array([reward_per_question(entry.records[row]) for row in rows])


def _places(entry: Entry, rows: Sequence[int]) -> list[tuple[int, str, int]]:
    records = entry.records
    return [(entry.runs[row], records[row].document, records[row].episode) for row in rows]


def _quality(
    entry: Entry,
    values: Mapping[str, FloatArray],
    resamples: Resamples,
    floor: str | None,
    bounds: Sequence[str],
) -> dict[str, Any]:
    """Reward per question, its place between floor and bound, regret, and evidence."""
    own = values[entry.name]
    score = None
    if floor is not None and bounds:
        score = resamples.normalized(own, values[floor], values[bounds[0]])
    return {
        "mean": asdict(resamples.mean(own)),
        "iqm": asdict(resamples.iqm(own)),
        "normalized_score": None if score is None else asdict(score),
        "regret": {bound: asdict(resamples.mean(values[bound] - own)) for bound in bounds},
        "evidence_recall": asdict(resamples.mean(_recall_rows(entry))),
    }


def _costs(entry: Entry) -> dict[str, Any]:
    """What a question costs: a mean over documents as quality is, forced moves not counted."""
    documents = [entry.records[row].document for row in scored_rows(entry)]
    return {
        name: stats.mean([*stats.cluster_means(own, documents).values()])
        for name, own in _cost_rows(entry).items()
    }


def _cost_rows(entry: Entry) -> dict[str, list[float]]:
    """Costs of a question, of each scored record."""
    records = [entry.records[row] for row in scored_rows(entry)]
    return {
        "tokens_read_per_question": [r.tokens_read / r.num_scored for r in records],
        "operations_per_question": [r.num_operations / r.num_scored for r in records],
        "policy_ms_per_question": [
            1e3 * r.decision_s * r.decisions / r.num_scored for r in records
        ],
    }


def _recall_rows(entry: Entry) -> list[float]:
    """Evidence over what pays, of each scored record."""
    records = [entry.records[row] for row in scored_rows(entry)]
    return [record.evidence / record.num_scored for record in records]


def _pairs(entries: Sequence[Entry], opponents: Sequence[Entry]) -> list[tuple[str, str]]:
    """Each policy in focus less every other one; of two in focus the later less the earlier."""
    focus = [entry.name for entry in entries if entry.kind in IN_FOCUS]
    others = [entry.name for entry in entries if entry.name not in focus]
    controls = [entry.name for entry in opponents] + others
    return [
        (name, control)
        for place, name in enumerate(focus)
        for control in [*controls, *focus[:place]]
    ]


def _pair(
    names: tuple[str, str],
    values: Mapping[str, FloatArray],
    resamples: Resamples,
    bounds: Sequence[str],
) -> dict[str, Any]:
    """Difference in reward per question on the same episodes of the same runs.

    `gap_closed` is its share of what lies between the control and the first bound.
    """
    policy, control = names
    differences = values[policy] - values[control]
    labels = resamples.document_of_rows()
    over = stats.summarize_differences(differences, labels)
    closed = None
    if bounds:
        closed = resamples.normalized(values[policy], values[control], values[bounds[0]])
    return {
        "policy": policy,
        "control": control,
        "difference": asdict(resamples.mean(differences)),
        "gap_closed": None if closed is None else asdict(closed),
        "t_interval": None if over.interval is None else asdict(over.interval),
        "sign_test": None if over.sign is None else asdict(over.sign),
        "probability_of_improvement": asdict(resamples.improvement(differences)),
        "by_document": over.cluster_differences,
    }


def _fronts(
    entries: Sequence[Entry], policies: Sequence[Mapping[str, Any]], resamples: Resamples
) -> list[dict[str, Any]]:
    """Who is not beaten at its price, by the evidence that was there when questions were answered.

    Evidence and not reward, which has the costs of operations taken off already. What saw the needs
    is no competitor, nor is a reference that does not page. The area is a share of the box up to
    `MARGIN` times the highest cost of all competitors, the same box in every resample; where costs
    are orders of magnitude apart, of their logarithms from the lowest one on.
    """
    those = [e for e in entries if not e.is_privileged and e.kind != "reference"]
    rows = {row["name"]: row for row in policies}
    costs_of = [_cost_rows(entry) for entry in those]
    drawn = [resamples.means(_recall_rows(entry)) for entry in those]
    is_unlearned = np.array([entry.kind != "learned" for entry in those], dtype=bool)
    fronts = []
    for cost in COSTS:
        names = [entry.name for entry in those]
        points = [(rows[name][cost], rows[name]["evidence_recall"]["estimate"]) for name in names]
        most = MARGIN * max((own for own, _ in points), default=0.0)
        is_log = cost in _LOG_COSTS and all(own > 0 for own, _ in points)
        front = {
            "cost": cost,
            "scale": "log" if is_log else "linear",
            "front": [names[index] for index in pareto_front(points)],
            "reference": {"cost": most, "evidence_recall": 0.0},
        }
        volumes: dict[str, Any] = dict.fromkeys(_VOLUMES)
        if most > 0:
            drawn_costs = [resamples.means(own[cost]) for own in costs_of]
            sets = np.stack([np.stack(drawn_costs, axis=1), np.stack(drawn, axis=1)])
            least = min(own for own, _ in points) if is_log else None
            box = _Box(most, least)
            volumes = _volumes(np.array(points), sets, is_unlearned, box, resamples)
        fronts.append(front | volumes)
    return fronts


_VOLUMES = ("hypervolume", "hypervolume_without_learned", "hypervolume_gain")
_LOG_COSTS = ("policy_ms_per_question",)  # rules, networks and language models


@dataclass(frozen=True)
class _Box:
    """Where fronts begin and end: at 0, or on a logarithmic axis at `least`; and at `most`."""

    most: float
    least: float | None

    def areas(self, costs: FloatArray, evidence: FloatArray) -> FloatArray:
        """(B,) shares of the box that B sets dominate; costs, evidence: (B, n)."""
        if self.least is None:
            return hypervolumes(costs, evidence, self.most) / self.most
        end = float(np.log(self.most / self.least))
        places = np.log(np.maximum(costs, self.least) / self.least)
        return hypervolumes(places, evidence, end) / end


def _volumes(
    points: FloatArray,
    drawn: FloatArray,
    is_unlearned: npt.NDArray[np.bool_],
    box: _Box,
    resamples: Resamples,
) -> dict[str, Any]:
    """Areas of all and of what is not learned, each an `Estimate`, and what learning adds.

    That has no interval: whatever is added to a set adds to its area or leaves it, so that no
    resample could tell a loss.

    Args:
        points: (n, 2) cost and evidence. drawn: (2, resamples, n) the same under each resample.
        is_unlearned: (n,). box: of the areas. resamples: for the intervals.
    """

    def areas(sets: FloatArray) -> tuple[FloatArray, FloatArray]:
        costs, evidence = sets
        part = box.areas(costs[:, is_unlearned], evidence[:, is_unlearned])
        return box.areas(costs, evidence), part

    as_it_is = areas(points.T[:, None])
    estimates = [
        asdict(resamples.estimate(float(own[0]), partial(np.asarray, under)))
        for own, under in zip(as_it_is, areas(drawn), strict=True)
    ]
    gain = max(float(as_it_is[0][0] - as_it_is[1][0]), 0.0)
    return dict(zip(_VOLUMES, [*estimates, gain], strict=True))


def shown(estimate: Mapping[str, Any] | None, sign: str = "") -> tuple[str, str]:
    """Text of an `Estimate` as a mapping, and of its interval; "-" for what there is not."""
    if estimate is None:
        return "-", "-"
    interval = estimate["interval"]
    ends = "-" if interval is None else f"{interval['low']:{sign}.3f}..{interval['high']:{sign}.3f}"
    return f"{estimate['estimate']:{sign}.3f}", ends
