"""The contestants of a finished run, each with what the run chose for it on its own validation."""

from __future__ import annotations

from memrl.evaluation import lineup
from memrl.evaluation.cache_lineup import cache_lines
from memrl.evaluation.lineup import Line
from memrl.options import PagingOptions
from memrl.policies.base import Contestant
from memrl.saved import SavedRun
from memrl.seeding import Streams
from memrl.table import EpisodeTable


def learned_contestants(run: SavedRun) -> list[Contestant]:
    """The networks of a run that learned to control a memory; sampled play is left out."""
    return [run.chosen(line) for line in _learned_lines(run)]


def saved_contestants(
    run: SavedRun, options: PagingOptions, table: EpisodeTable
) -> list[Contestant]:
    """Every line of the run."""
    generator = Streams(run.config.seed).torch_generator("evaluation", 0)
    tries, chosen = run.config.evaluation, run.settings
    learned = _learned_lines(run)
    if table.has_requests:
        return [run.chosen(line) for line in cache_lines(options, learned, generator)]
    lines = lineup.rule_lines(tries.top_k, [chosen[lineup.PRIOR_RULE]["threshold"]], generator)
    if lineup.CHAIN_SEARCH in chosen:
        lines += lineup.chain_lines(tries, table)
    return [run.chosen(line) for line in [*lines, *learned, *lineup.bound_lines(options)]]


def _learned_lines(run: SavedRun) -> list[Line]:
    learned = lineup.learned_lines(run.policy, run.config.evaluation)
    if run.policy_gradient is not None:
        name, _ = lineup.POLICY_GRADIENTS[run.config.algorithm]
        settings = run.settings[name]
        learned.append([Contestant(name, run.policy_gradient, settings=settings, kind="learned")])
    return learned
