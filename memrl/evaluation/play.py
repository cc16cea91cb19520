"""The one scoring path: a policy plays episodes, each leaves a record."""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, field

import numpy as np
import numpy.typing as npt
from torch import Tensor

from memrl.actions import Op
from memrl.config import ConfigurationError
from memrl.episode_log import FUNNEL_STEPS, AnsweredQuery, EpisodeLog
from memrl.groups import PagingGroup, TextGroup
from memrl.policies.base import Policy, reads_text
from memrl.set_scores import scores_of_counts
from memrl.table import EpisodeTable

Observation = Mapping[str, Tensor]


@dataclass
class EpisodeRecord:
    """How one episode went; JSON-able by `dataclasses.asdict`.

    Attributes:
        episode: number in the table. document: its unit of statistics (`Document.cluster_id`).
        num_queries: queries asked. num_scored: queries that pay evidence, and all requests.
        evidence: summed evidence of these, unweighted; a hit is 1.
        reward_terms: summed weighted terms by name; their sum is `episode_return`.
        operations: chosen operations by lower-case name; forced moves are not counted.
        illegal: illegal actions. decisions: decision points. events: length of the episode.
        tokens_retrieved: tokens brought in by RETRIEVE. tokens_read: tokens in main context, summed
            over answered queries.
        decision_s: mean seconds that the policy took per decision, amortised over the batch; filled
            in by `memrl.evaluation.lineup.Arena`.
        funnel: over needs outside main context when asked: `absent`, and of those `FUNNEL_STEPS`;
            counts.
        evidence_by_category: category -> [summed evidence, number scored]; requests by their kind.
        support: of main context at the answers, as a set of pages against the needs, summed over
            scored queries: `pages`, `precision`, `f1`, `em`; its recall is `evidence`.
        requests: pages requested. hits: of these, pages that were in main context.
        answer_scores: of a reader's answers: measure -> [summed score, number scored]; empty where
            nobody read; see `memrl.evaluation.readings`.
        answer_scores_by_category: category of the question -> the same of its questions.
    """

    episode: int
    document: str
    num_queries: int
    num_scored: int
    evidence: float
    reward_terms: dict[str, float]
    operations: dict[str, int]
    illegal: int
    decisions: int
    events: int
    tokens_retrieved: int
    tokens_read: int
    decision_s: float
    funnel: dict[str, float]
    evidence_by_category: dict[str, list[float]] = field(default_factory=dict)
    support: dict[str, float] = field(default_factory=dict)
    requests: int = 0
    hits: int = 0
    answer_scores: dict[str, list[float]] = field(default_factory=dict)
    answer_scores_by_category: dict[str, dict[str, list[float]]] = field(default_factory=dict)

    @property
    def episode_return(self) -> float:
        """Undiscounted sum of rewards."""
        return sum(self.reward_terms.values())

    @property
    def num_operations(self) -> int:
        """Chosen operations other than YIELD."""
        return sum(count for name, count in self.operations.items() if name != "yield")


def reward_per_question(record: EpisodeRecord) -> float:
    """Return of an episode over the number of queries that pay evidence; NaN without any."""
    return record.episode_return / record.num_scored if record.num_scored else float("nan")


def mean_reward_per_question(records: Sequence[EpisodeRecord]) -> float:
    """Mean over the episodes with queries that pay evidence; NaN without any."""
    rewards = [reward_per_question(record) for record in records if record.num_scored]
    return float(np.mean(rewards)) if rewards else float("nan")


def mean_operations_per_question(records: Sequence[EpisodeRecord]) -> float:
    """Mean over the same episodes; NaN without any."""
    counts = [record.num_operations / record.num_scored for record in records if record.num_scored]
    return float(np.mean(counts)) if counts else float("nan")


def play(
    group: PagingGroup,
    policy: Policy,
    episodes: Sequence[int],
    *,
    on_finished: Callable[[int], None] | None = None,
    on_log: Callable[[int, EpisodeLog], None] | None = None,
) -> list[EpisodeRecord]:
    """Play every episode once.

    Episodes are divided over the rows beforehand, so short ones are not favoured.

    Args:
        group: where they are played; its rows are reset.
        policy: who plays.
        episodes: numbers in the group's table.
        on_finished: called with 1 for each finished episode, for progress bars.
        on_log: called with the place of each finished episode in `episodes` and with what happened
            in it, for readers.

    Returns:
        One record an episode, in the order given.

    Raises:
        ConfigurationError: if the policy reads texts and the group has none to show.
    """
    queues = [list(range(row, len(episodes), group.num_envs)) for row in range(group.num_envs)]
    current = [queue.pop(0) if queue else -1 for queue in queues]
    running = np.array([position >= 0 for position in current])
    rows = np.flatnonzero(running).tolist()
    observation = group.reset([episodes[current[row]] for row in rows], rows)
    tallies = [_Tally(len(group.reward_names)) for _ in queues]
    records: dict[int, EpisodeRecord] = {}
    while running.any():
        result = group.step(actions(group, policy, observation).cpu().numpy())
        observation = result.observation
        for row in np.flatnonzero(running).tolist():
            tallies[row].add(result.reward_terms[row])
        ended = np.flatnonzero(running & result.terminated).tolist()
        for row in ended:
            terms = zip(group.reward_names, tallies[row].terms.tolist(), strict=True)
            records[current[row]] = record_of(
                group.table,
                episodes[current[row]],
                group.log(row),
                dict(terms),
                decisions=tallies[row].decisions,
            )
            if on_log is not None:
                on_log(current[row], group.log(row))
            tallies[row] = _Tally(len(group.reward_names))
            current[row] = queues[row].pop(0) if queues[row] else -1
            running[row] = current[row] >= 0
            if on_finished is not None:
                on_finished(1)
        again = [row for row in ended if running[row]]
        if again:
            observation = group.reset([episodes[current[row]] for row in again], again)
    return [records[position] for position in range(len(episodes))]


def actions(group: PagingGroup, policy: Policy, observation: Observation) -> Tensor:
    """What a policy does, (B,), given all that it may see.

    Raises:
        ConfigurationError: if the policy reads texts and the group has none to show.
    """
    truth = group.privileged_state() if policy.is_privileged else None
    if not reads_text(policy):
        return policy.act(observation, observation["action_mask"], truth)
    if not isinstance(group, TextGroup):
        raise ConfigurationError(
            "A policy that reads texts was to be played where there are only tensors: play it with "
            "the reference environment."
        )
    texts = group.shown_texts(range(group.num_envs))
    return policy.act(observation, observation["action_mask"], truth, texts=texts)


class _Tally:
    """What a row has earned in its present episode."""

    def __init__(self, num_terms: int) -> None:
        self.terms = np.zeros(num_terms)
        self.decisions = 0

    def add(self, terms: npt.NDArray[np.float64]) -> None:
        self.terms += terms
        self.decisions += 1


def record_of(
    table: EpisodeTable,
    episode: int,
    log: EpisodeLog,
    reward_terms: Mapping[str, float],
    *,
    decisions: int,
    decision_s: float = 0.0,
) -> EpisodeRecord:
    """Make the record of an episode that has ended.

    Args:
        table: the workload. episode: number in the table.
        log: what happened. reward_terms: summed weighted terms by name.
        decisions, decision_s: see `EpisodeRecord`.
    """
    scored = [answer for answer in log.answers if answer.evidence is not None]
    by_category: dict[str, list[float]] = {}
    for answer in scored:
        tally_of = by_category.setdefault(table.text.categories[answer.category], [0.0, 0.0])
        tally_of[0] += answer.evidence or 0.0
        tally_of[1] += 1.0
    document = int(table.episode_document[episode])
    if log.requests:
        by_category[table.text.request_kinds[document]] = [float(log.hits), float(log.requests)]
    funnel = {"absent": float(sum(answer.absent for answer in scored))}
    for step in FUNNEL_STEPS:
        funnel[step] = sum(getattr(answer, step) * answer.absent for answer in scored)
    return EpisodeRecord(
        episode=episode,
        document=table.text.clusters[document],
        num_queries=len(log.answers),
        num_scored=len(scored) + log.requests,
        evidence=float(sum(answer.evidence or 0.0 for answer in scored)) + log.hits,
        reward_terms=dict(reward_terms),
        operations={op.name.lower(): log.operations[op] for op in Op},
        illegal=log.illegal,
        decisions=decisions,
        events=int(table.episode_num_events[episode]),
        tokens_retrieved=log.tokens_retrieved,
        tokens_read=log.tokens_read,
        decision_s=decision_s,
        funnel=funnel,
        evidence_by_category=by_category,
        support=_support(scored),
        requests=log.requests,
        hits=log.hits,
    )


def _support(scored: Sequence[AnsweredQuery]) -> dict[str, float]:
    total = dict.fromkeys(("pages", "precision", "f1", "em"), 0.0)
    for answer in scored:
        num_found = round((answer.evidence or 0.0) * answer.num_needs)
        scores = scores_of_counts(num_found, answer.num_resident, answer.num_needs)
        total["pages"] += answer.num_resident
        for name in ("precision", "f1", "em"):
            total[name] += getattr(scores, name)
    return total
