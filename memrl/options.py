"""What an environment is set to: capacities, scopes, staging, costs.

`PagingOptions` is what a preset states; `PagingOptions.resolved` turns fractions into numbers once
per data set, from the training table, so that every split and every policy plays with the same
limits.
"""

from __future__ import annotations

import math
import numbers
from collections.abc import Mapping
from dataclasses import asdict, dataclass, fields, replace
from typing import Any, Literal, get_args

Unit = Literal["pages", "tokens"]
Scope = Literal["victim", "any"]
Staging = Literal["dense", "lexical", "hybrid", "hybrid_neighbours"]
STAGINGS: tuple[Staging, ...] = get_args(Staging)


@dataclass(frozen=True)
class RewardWeights:
    """What each reward term weighs; all are required, costs are stated as positive numbers.

    Attributes:
        evidence: for the share of a query's needs in main context when it is answered; in a page
            cache for each hit, a requested page that is in main context.
        store, evict, retrieve, search, next: cost of one operation; `evict` is charged at queries,
            where eviction is the policy's own choice, never under pressure, where it is forced.
        tokens: cost of each token that RETRIEVE brings into main context.
        illegal: cost of an illegal action.
    """

    evidence: float
    store: float
    evict: float
    retrieve: float
    search: float
    next: float
    tokens: float
    illegal: float

    @classmethod
    def from_mapping(cls, weights: Mapping[str, float]) -> RewardWeights:
        """Build from a mapping; a missing or unknown term raises ValueError that names it."""
        names = {field.name for field in fields(cls)}
        missing, unknown = sorted(names - set(weights)), sorted(set(weights) - names)
        if missing or unknown:
            raise ValueError(
                f"Reward weights need exactly the terms {sorted(names)}; missing {missing}, "
                f"unknown {unknown}."
            )
        return cls(**{name: float(weights[name]) for name in names})

    def __post_init__(self) -> None:
        """Refuse weights that are not finite or negative."""
        for name, value in asdict(self).items():
            if not math.isfinite(value) or value < 0:
                raise ValueError(f"Reward weight {name} must be finite and 0 or more, got {value}.")

    def with_costs(self, scale: float) -> RewardWeights:
        """The same with costs of operations and tokens `scale` times as high; illegal stays."""
        names = ("store", "evict", "retrieve", "search", "next", "tokens")
        return replace(self, **{name: scale * getattr(self, name) for name in names})


DEFAULT_REWARD = RewardWeights(
    evidence=1.0,
    store=0.005,
    evict=0.01,
    retrieve=0.02,
    search=0.005,
    next=0.005,
    tokens=0.0,
    illegal=0.01,
)
"""Costs of the LoCoMo preset."""


@dataclass(frozen=True)
class PagingOptions:
    """The rules of one environment.

    Attributes:
        unit: what capacity counts: pages (each counts 1) or tokens.
        capacity: budget of main context in `unit`; an int is absolute, a float in (0, 1) a fraction
            of the median size of a training episode.
        num_slots: most resident pages; None for `capacity` with unit "pages" and
            1.5 x capacity / median page tokens with unit "tokens".
        archival_capacity: most archived pages; an int is absolute, a float in (0, 1) a fraction of
            the median number of pages of a training episode, None for no limit.
        num_candidates: K, candidates shown at once.
        staging: how candidates are ranked; see `memrl.staging`.
        stage_from: "archival": only stored pages become candidates. "both": lexical recall hits
            too.
        store_scope: which pages STORE may name: only the next victim, or any.
        evict_scope: whether the policy chooses which page leaves ("any") or FIFO does ("victim").
        admission: "forced": every arriving page enters main context; "optional": EVICT on the
            arriving row sends it past main context.
        evict_fraction: share of `capacity` that YIELD under pressure leaves free at least; 0
            evicts just until the arriving page fits, .5 is MemGPT's queue (arXiv 2310.08560v2,
            section 2.2).
        shown_slots: of a page cache with more slots, show a policy the victim and a random sample
            of so many others at each decision (`memrl.shown`); None shows all slots.
        operation_budget: operations per decision point after which only YIELD is legal.
        time_scale: events that the observation's ages and times are divided by.
        observe_embeddings: add page and focus embeddings to the observation (studies only).
        reward: weights of the reward terms.
    """

    unit: Unit = "pages"
    capacity: int | float = 24
    num_slots: int | None = None
    archival_capacity: int | float | None = 60
    num_candidates: int = 16
    staging: Staging = "hybrid_neighbours"
    stage_from: Literal["archival", "both"] = "archival"
    store_scope: Scope = "victim"
    evict_scope: Scope = "victim"
    admission: Literal["forced", "optional"] = "forced"
    evict_fraction: float = 0.0
    shown_slots: int | None = None
    operation_budget: int = 16
    time_scale: float = 100.0
    observe_embeddings: bool = False
    reward: RewardWeights = DEFAULT_REWARD

    def __post_init__(self) -> None:
        """Refuse values that no environment could run with."""
        if isinstance(self.reward, Mapping):
            object.__setattr__(self, "reward", RewardWeights.from_mapping(self.reward))
        for name, choices in _CHOICES.items():
            if getattr(self, name) not in choices:
                raise ValueError(f"{name} must be one of {choices}, got {getattr(self, name)!r}.")
        _check_limit("capacity", self.capacity, least=1)
        if self.archival_capacity is not None:
            _check_limit("archival_capacity", self.archival_capacity, least=0)
        for name in ("num_slots", "shown_slots"):
            if getattr(self, name) is not None:
                _check_count(name, getattr(self, name), least=1, instead=", or None")
        if not 0 <= self.evict_fraction < 1:
            raise ValueError(f"evict_fraction must lie in [0, 1), got {self.evict_fraction}.")
        for name, least in (("num_candidates", 0), ("operation_budget", 1)):
            _check_count(name, getattr(self, name), least=least)
        if not 0 < self.time_scale < math.inf:
            raise ValueError(f"time_scale must be finite and above 0, got {self.time_scale}.")

    def resolved(
        self,
        *,
        median_episode_pages: float,
        median_episode_tokens: float,
        median_page_tokens: float,
    ) -> PagingOptions:
        """Return the same options with every limit an absolute number.

        Args:
            median_episode_pages: median number of pages of a training episode.
            median_episode_tokens: median sum of page tokens of a training episode.
            median_page_tokens: median tokens of a training page.
        """
        in_pages = self.unit == "pages"
        capacity = self.capacity
        if isinstance(capacity, float):
            capacity *= median_episode_pages if in_pages else median_episode_tokens
        capacity = max(1, round(capacity))
        num_slots = self.num_slots
        if num_slots is None:
            num_slots = capacity if in_pages else math.ceil(1.5 * capacity / median_page_tokens)
        archival = self.archival_capacity
        if isinstance(archival, float):
            archival = max(1, round(archival * median_episode_pages))
        return replace(self, capacity=capacity, num_slots=num_slots, archival_capacity=archival)

    @property
    def is_resolved(self) -> bool:
        """Whether every limit is an absolute number."""
        return (
            not isinstance(self.capacity, float)
            and self.num_slots is not None
            and not isinstance(self.archival_capacity, float)
        )

    @property
    def shows_all(self) -> bool:
        """Whether every slot has a row; resolved options only."""
        return self.shown_slots is None or self.shown_slots + 1 >= (self.num_slots or 1)

    @property
    def num_rows(self) -> int:
        """N: slot rows, the row of the arriving page among them; resolved options only."""
        return 1 + ((self.num_slots or 1) if self.shows_all else 1 + (self.shown_slots or 0))


_CHOICES: dict[str, tuple[str, ...]] = {
    "unit": get_args(Unit),
    "staging": STAGINGS,
    "stage_from": ("archival", "both"),
    "store_scope": get_args(Scope),
    "evict_scope": get_args(Scope),
    "admission": ("forced", "optional"),
}


def _check_limit(name: str, value: int | float, *, least: int) -> None:
    if not _is_integer(value) and not isinstance(value, float):
        raise ValueError(f"{name} must be a number, got {value!r}.")
    if isinstance(value, float) and not 0 < value < 1:
        raise ValueError(
            f"{name} given as a float is a fraction and must lie in (0, 1), got {value}; "
            "write an int for an absolute number."
        )
    if value < least and not isinstance(value, float):
        raise ValueError(f"{name} must be at least {least}, got {value}.")


def _check_count(name: str, value: Any, *, least: int, instead: str = "") -> None:
    if not _is_integer(value) or value < least:
        raise ValueError(f"{name} must be an integer of at least {least}{instead}, got {value!r}.")


def _is_integer(value: object) -> bool:
    return isinstance(value, numbers.Integral) and not isinstance(value, bool)
