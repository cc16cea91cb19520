"""Who plays page caches: nobody stores or retrieves, so none of the other heuristics applies."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import replace
from typing import Any

import torch

from memrl.evaluation.lineup import LEARNED_OFFSET, Line
from memrl.options import PagingOptions
from memrl.policies.base import Contestant, Kind, Policy
from memrl.policies.belady import Belady
from memrl.policies.cache_rules import RULES
from memrl.policies.heuristics import UniformRandom
from memrl.policies.rule_eviction import RuleEviction


def cache_lines(
    options: PagingOptions, learned: Sequence[Line], generator: torch.Generator
) -> list[Line]:
    """A legal action at random, every published rule, what was learned, and the exact bound.

    FIFO's rule plays as YIELD alone does. Rules and bound see all slots, whatever a learned policy
    is shown. There is a bound only for pages of one size; where pages may pass it is another one
    than where they may not.

    Args:
        options: resolved options of the preset.
        learned: lines of learned policies. generator: for the random policy.
    """
    overrides: dict[str, Any] = {} if options.shows_all else {"shown_slots": None}
    all_slots = replace(options, shown_slots=None)

    def line(name: str, policy: Policy, kind: Kind = "heuristic") -> Line:
        return [Contestant(name, policy, overrides, kind=kind)]

    lines = [[Contestant("random", UniformRandom(generator))]]
    lines += [line(name, RuleEviction(rule, all_slots)) for name, rule in RULES.items()]
    # Where nothing is stored, no STORE can be worth more or less than it seems.
    lines += [own for own in learned if own[0].name != LEARNED_OFFSET]
    if options.unit == "pages":
        name = "belady_min" if options.admission == "forced" else "belady_bypass"
        lines.append(line(name, Belady(all_slots), "bound"))
    return lines
