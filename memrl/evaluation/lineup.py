"""Who plays, and with what settings: every free number is chosen on the validation episodes.

A line of the lineup is a list of contestants that differ in their settings only. `choose` plays all
of them on validation and keeps the best, so that no heuristic and no control is tuned on test. The
score that a line reached there stays with it: it says which heuristic is the best one
(`memrl.evaluation.verdict`), which is as free a choice as any.
"""

from __future__ import annotations

import time
from collections.abc import Callable, Mapping, Sequence
from dataclasses import replace
from typing import Any

import numpy as np
import numpy.typing as npt
import torch
from torch import Tensor

from memrl.config import EvaluationConfig
from memrl.episode_log import EpisodeLog
from memrl.evaluation.play import EpisodeRecord, mean_reward_per_question, play
from memrl.groups import PagingGroup
from memrl.observation_text import ShownTexts
from memrl.options import STAGINGS, PagingOptions
from memrl.policies.base import Contestant, Policy, reads_text
from memrl.policies.cache_rules import RULES
from memrl.policies.clairvoyant import Clairvoyant
from memrl.policies.heuristics import (
    CacheEviction,
    ChainSearch,
    StoreAndRetrieve,
    UniformRandom,
    YieldOnly,
)
from memrl.policies.network import GreedyGain, SampledGain
from memrl.privileged import PrivilegedState
from memrl.table import EpisodeTable
from memrl.table_part import table_part

Line = list[Contestant]
MakeGroup = Callable[[EpisodeTable, PagingOptions, int], PagingGroup]
"""Makes `num_envs` episodes of a table to be stepped together; programs hand it in."""

FIFO = "FIFO, no storage"
STORE_ALL = "store all, top-k hybrid + neighbours"
PRIOR_RULE = "prior rule"
CHAIN_SEARCH = "chain search"
LEARNED = "gain regression"
LEARNED_OFFSET = "gain regression + store offset"
GROUP_POLICY_GRADIENT = "group policy gradient"
GROUP_POLICY_GRADIENT_SAMPLED = "group policy gradient, sampled"
PPO = "PPO"
PPO_SAMPLED = "PPO, sampled"
CLAIRVOYANT = "clairvoyant"
POLICY_GRADIENTS = {
    "group_policy_gradient": (GROUP_POLICY_GRADIENT, GROUP_POLICY_GRADIENT_SAMPLED),
    "ppo": (PPO, PPO_SAMPLED),
}
"""Names of greedy and sampled play of what learns from the reward, by the run's `algorithm`."""
FLOORS = (FIFO, "FIFO")
"""What YIELD alone comes to: FIFO's victim leaves, nothing is stored or retrieved."""
BOUNDS = (CLAIRVOYANT, "belady_min", "belady_bypass")
"""Between the first of each that has played a normalised score is placed."""
CONTROLS = (LEARNED, LEARNED_OFFSET, PRIOR_RULE, STORE_ALL, FIFO)
"""Whom every other policy is compared with, pair by pair; `STORE_ALL` fits nothing but its k."""
CACHE_CONTROLS = tuple(RULES)
"""The same for page caches, beside the learned ones."""


def heuristic_lines(
    config: EvaluationConfig, prior_logits: npt.NDArray[np.float32], generator: torch.Generator
) -> list[Line]:
    """Every policy that has no network.

    Args:
        config: the settings to try.
        prior_logits: (P,) out-of-fold scores of the training pages; thresholds are their quantiles.
        generator: for the random policy.
    """
    logits = np.quantile(prior_logits, config.prior_thresholds).round(3).tolist()
    thresholds = list(dict.fromkeys(logits))  # all the same where no scorer was fitted
    return rule_lines(config.top_k, thresholds, generator)


def rule_lines(
    top_k: Sequence[int], thresholds: Sequence[float], generator: torch.Generator
) -> list[Line]:
    """The same, with the values of k and the thresholds of the page scorer's logits to try."""
    prior_line = [
        Contestant(
            PRIOR_RULE,
            StoreAndRetrieve(top_k=k, store_threshold=threshold),
            overrides={"staging": "hybrid_neighbours"},
            settings={"top_k": k, "threshold": threshold},
        )
        for threshold in thresholds
        for k in top_k
    ]
    store_all = [
        [
            Contestant(
                f"store all, top-k {staging.replace('_', ' + ')}",
                StoreAndRetrieve(top_k=k),
                overrides={"staging": staging},
                settings={"top_k": k},
            )
            for k in top_k
        ]
        for staging in STAGINGS
    ]
    return [
        [Contestant("random", UniformRandom(generator))],
        [Contestant(FIFO, YieldOnly())],
        [Contestant("LRU, no storage", CacheEviction("recency"), {"evict_scope": "any"})],
        [Contestant("LFU, no storage", CacheEviction("frequency"), {"evict_scope": "any"})],
        [Contestant("MemGPT queue", YieldOnly(), {"evict_fraction": 0.5})],
        *store_all,
        prior_line,
    ]


def chain_lines(config: EvaluationConfig, table: EpisodeTable) -> list[Line]:
    """Chain search, which stores nothing: only for tables whose archival holds pages to find."""
    if not table.episode_num_preloaded.any():
        return []
    return [
        [
            Contestant(
                CHAIN_SEARCH,
                ChainSearch(threshold),
                overrides={"staging": "lexical"},
                settings={"threshold": threshold},
            )
            for threshold in config.chain_thresholds
        ]
    ]


def learned_lines(policy: GreedyGain, config: EvaluationConfig) -> list[Line]:
    """The learned policy, and the control that every table carries: a tuned store offset."""
    return [
        [Contestant(LEARNED, policy, kind="learned")],
        [
            Contestant(
                LEARNED_OFFSET,
                replace(policy, store_offset=offset),
                settings={"store_offset": offset},
                kind="learned",
            )
            for offset in config.store_offsets
        ],
    ]


def policy_gradient_lines(
    algorithm: str, greedy: GreedyGain, sampled: SampledGain, settings: Mapping[str, Any]
) -> list[Line]:
    """The network of the policy gradient, played greedily and as it learned.

    Args:
        algorithm: key of `POLICY_GRADIENTS`.
        greedy, sampled: the same network. settings: what learning took; shown with both.
    """
    name, name_sampled = POLICY_GRADIENTS[algorithm]
    return [
        [Contestant(name, greedy, settings=settings, kind="learned")],
        [Contestant(name_sampled, sampled, settings=settings, kind="learned")],
    ]


def bound_lines(options: PagingOptions) -> list[Line]:
    """What a policy that sees the needs attains."""
    return [[Contestant(CLAIRVOYANT, Clairvoyant(options.reward), kind="bound")]]


class Arena:
    """Plays contestants on the episodes of one table, all through the same path.

    Contestants that play under the same options are played side by side, each in its own rows.

    Args:
        table: the episodes. options: resolved options of the preset. make_group: see `MakeGroup`.
        most_episodes: play no more than this many, evenly spread over the table, and have only
            these and their documents where they are played; None for all.
    """

    def __init__(
        self,
        table: EpisodeTable,
        options: PagingOptions,
        make_group: MakeGroup,
        most_episodes: int | None = None,
    ) -> None:
        self.options = options
        self._make_group = make_group
        count = min(most_episodes or table.num_episodes, table.num_episodes)
        self.episodes = [number * table.num_episodes // count for number in range(count)]
        is_whole = count == table.num_episodes
        self.table = table if is_whole else table_part(table, np.array(self.episodes))

    def play(
        self,
        contestants: Sequence[Contestant],
        on_finished: Callable[[int], None] | None = None,
        on_log: Callable[[int, int, EpisodeLog], None] | None = None,
    ) -> list[list[EpisodeRecord]]:
        """Play all episodes of the arena with each contestant, under its own overrides.

        Args:
            contestants: any number.
            on_finished: called with 1 for each finished episode, for progress bars and safe points.
            on_log: called with the number of the contestant, the episode as a number of `table`,
                and what happened in it, for readers.
        """
        by_options: dict[PagingOptions, list[int]] = {}
        for number, contestant in enumerate(contestants):
            options = replace(self.options, **contestant.overrides)
            by_options.setdefault(options, []).append(number)
        episodes = list(range(len(self.episodes)))  # of what is there of the table
        played: dict[int, list[EpisodeRecord]] = {}
        for options, numbers in by_options.items():
            group = self._make_group(self.table, options, len(numbers) * len(episodes))
            policies = SideBySide([contestants[number].policy for number in numbers])
            told = None if on_log is None else _by_contestant(on_log, numbers, len(episodes))
            records = play(
                group, policies, episodes * len(numbers), on_finished=on_finished, on_log=told
            )
            for place, number in enumerate(numbers):
                played[number] = records[place * len(episodes) : (place + 1) * len(episodes)]
                for episode, record in zip(self.episodes, played[number], strict=True):
                    record.episode = episode
                    record.decision_s = policies.decision_s(place)
        return [played[number] for number in range(len(contestants))]

    def choose(
        self, line: Sequence[Contestant], on_finished: Callable[[int], None] | None = None
    ) -> Contestant:
        """The contestant of a line with the highest reward per question, with that score.

        The first among equals; the first, with no score, where no episode asks what pays.
        """
        scores = [mean_reward_per_question(records) for records in self.play(line, on_finished)]
        if np.isnan(scores[0]):  # and so are all
            return line[0]
        best = int(np.argmax(scores))
        return replace(line[best], validation=scores[best])


def _by_contestant(
    on_log: Callable[[int, int, EpisodeLog], None], numbers: Sequence[int], num_episodes: int
) -> Callable[[int, EpisodeLog], None]:
    """Tell contestant and episode instead of the place among all that are played side by side."""

    def tell(place: int, log: EpisodeLog) -> None:
        share, episode = divmod(place, num_episodes)
        on_log(numbers[share], episode, log)

    return tell


class SideBySide:
    """Several policies, each playing an equal share of the rows.

    Args:
        policies: the first plays the first share, and so on.
    """

    def __init__(self, policies: Sequence[Policy]) -> None:
        self._policies = policies
        self._seconds = [0.0] * len(policies)
        self._decisions = [0] * len(policies)
        self.is_privileged = any(policy.is_privileged for policy in policies)
        self.reads_text = any(map(reads_text, policies))

    def act(
        self,
        observation: Mapping[str, Tensor],
        action_mask: Tensor,
        privileged: PrivilegedState | None = None,
        *,
        texts: Sequence[ShownTexts] = (),
    ) -> Tensor:
        """Let each policy act on its rows; see `TextPolicy.act`."""
        share = len(action_mask) // len(self._policies)
        actions = []
        for number, policy in enumerate(self._policies):
            rows = slice(number * share, (number + 1) * share)
            start = time.perf_counter()
            seen = {name: value[rows] for name, value in observation.items()}
            truth = None
            if policy.is_privileged and privileged is not None:
                own = torch.arange(rows.start, rows.stop, device=action_mask.device)
                truth = privileged.rows(own)
            if reads_text(policy):
                own_texts = texts[rows]
                actions.append(policy.act(seen, action_mask[rows], truth, texts=own_texts).cpu())
            else:
                actions.append(policy.act(seen, action_mask[rows], truth).cpu())
            self._seconds[number] += time.perf_counter() - start
            self._decisions[number] += int(action_mask[rows, 1:].any(dim=1).sum())
        return torch.cat(actions)

    def decision_s(self, number: int) -> float:
        """Mean seconds per decision of one of the policies, amortised over its rows."""
        return self._seconds[number] / max(self._decisions[number], 1)
