"""Where a learned policy's gain comes from: its parts in turn replaced by a rule's, or taken away.

Each row is the learned policy with one part changed, played on the test episodes of its own run.
Threshold and k are those that the run chose on validation for the prior rule. All of them search as
the run's own options say, the rule as well. One row is a control for claims that something beats
imitation: gain regression with its store offset, which may also give up SEARCH and NEXT, whichever
is best on the run's validation episodes; there alone something is chosen anew.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import replace
from functools import partial
from pathlib import Path
from typing import Any

from envs.batched import paging_group
from memrl.actions import Op
from memrl.config import ConfigurationError, run_settings
from memrl.evaluation import summary
from memrl.evaluation.entry import Entry
from memrl.evaluation.lineup import (
    CLAIRVOYANT,
    FIFO,
    LEARNED,
    PRIOR_RULE,
    Arena,
    learned_lines,
)
from memrl.evaluation.run_world import RunWorld, contestant_of, load_run_world
from memrl.policies.base import Contestant, Policy
from memrl.policies.composed import ByPhase, FixedStop, Without
from memrl.policies.heuristics import StoreAndRetrieve
from memrl.policies.network import GreedyGain
from memrl.progress import progress_bar
from memrl.resuming import require_mergeable

WHOLE = "learned policy"
"""What the policy is called of which parts are replaced; the rows are compared with it."""
CONTROL = "gain regression, store offset and looking on chosen"
"""The control's row."""
_LOOKING_ON = (Op.SEARCH, Op.NEXT)


def ablate(folders: Sequence[Path], name: str | None) -> tuple[list[Entry], dict[str, Any]]:
    """Play the ablations of finished runs.

    Args:
        folders: runs of one preset that differ in seed or fold.
        name: of the learned policy; None for the one that scored best on the first run's
            validation.

    Returns:
        The entries of all runs put together, and the settings of the first run.

    Raises:
        MemrlError: if a run cannot be played again, is one of a page cache or of another preset.
    """
    require_mergeable(folders)
    runs, settings = [], None
    with progress_bar("runs", len(folders)) as advance:
        for folder in folders:
            world = load_run_world(folder)
            make_group = partial(paging_group, environment=world.config.environment)
            name = name or contestant_of(world, None).name  # that of the first run for all
            parts = ablations(world, name)
            control = Arena(world.validation, world.options, make_group).choose(controls(world))
            # No row is chosen among the others, so that there is no best heuristic of them.
            others = [replace(one, validation=None) for one in (control, *ends(world))]
            contestants = parts + others
            played = Arena(world.table, world.options, make_group).play(contestants)
            pairs = zip(contestants, played, strict=True)
            runs.append([Entry.of(*pair, world.config.seed) for pair in pairs])
            settings = settings or run_settings(world.config)
            advance(1)
    assert settings is not None  # the command line asks for at least one
    return summary.merge(runs), settings


def controls(world: RunWorld) -> list[Contestant]:
    """Gain regression with every store offset that the run tried, with SEARCH and NEXT and without.

    Raises:
        ConfigurationError: if the run has none.
    """
    policy = contestant_of(world, LEARNED).policy
    assert isinstance(policy, GreedyGain)  # by that name
    line = learned_lines(policy, world.config.evaluation)[-1]
    without = {"without": [op.name for op in _LOOKING_ON]}
    given_up = [
        replace(one, policy=Without(one.policy, _LOOKING_ON), settings={**one.settings, **without})
        for one in line
    ]
    return [replace(one, name=CONTROL) for one in [*line, *given_up]]


def ends(world: RunWorld) -> list[Contestant]:
    """The rule that parts are taken from, searching as the run does, and the ends of the scale."""
    rule = replace(contestant_of(world, PRIOR_RULE), overrides={})
    return [rule, contestant_of(world, FIFO), contestant_of(world, CLAIRVOYANT)]


def ablations(world: RunWorld, name: str) -> list[Contestant]:
    """The learned policy whole, and with one part changed in each further row.

    Args:
        world: of the run. name: of the learned policy.

    Raises:
        ConfigurationError: if there is no such policy, or nothing of it can be replaced.
    """
    learned = contestant_of(world, name)
    policy = learned.policy
    if not isinstance(policy, GreedyGain) or world.table.has_requests:
        raise ConfigurationError(
            f"{learned.name!r} of the run {world.folder} has no parts to replace: name a learned "
            "policy of a workload that asks questions."
        )
    rule = contestant_of(world, PRIOR_RULE)
    prior, top_k = rule.policy, int(rule.settings["top_k"])
    rows: dict[str, Policy] = {
        "prior rule under pressure, learned at queries": ByPhase(prior, policy),
        "everything stored, learned at queries": ByPhase(StoreAndRetrieve(top_k), policy),
        "learned under pressure, prior rule at queries": ByPhase(policy, prior),
        "k best of the learned retrieved": FixedStop(policy, top_k),
        "without SEARCH and NEXT": Without(policy, _LOOKING_ON),
    }
    if world.options.evict_scope == "any" or world.options.admission == "optional":
        rows["without EVICT"] = Without(policy, (Op.EVICT,))
    made = [Contestant(WHOLE, policy, settings={"is": learned.name, **learned.settings})]
    made += [Contestant(title, own, settings=rule.settings) for title, own in rows.items()]
    return [replace(one, kind="learned") for one in made]
