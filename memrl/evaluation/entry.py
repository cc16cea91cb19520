"""What a table is made of: the records of each contestant, and what its runs chose for it."""

from __future__ import annotations

from dataclasses import dataclass, field
from typing import Any

from memrl.evaluation.play import EpisodeRecord
from memrl.policies.base import Contestant, Kind


@dataclass
class Entry:
    """All records of one contestant.

    Attributes:
        name: of the contestant. is_privileged: it saw the needs.
        overrides: options that it played under instead of the preset's.
        settings: one mapping per run: what was chosen for it on validation.
        records: of all runs. seeds: seed of the run of each record.
        runs: index into `settings` of each record; all 0 unless given.
        kind: see `Contestant`.
        validation: one value per run: its reward per question there; all None unless given.
        notes: one mapping per run: what was measured beside the records, see
            `memrl.evaluation.model_notes`; empty unless given.
    """

    name: str
    is_privileged: bool
    overrides: dict[str, Any]
    settings: list[dict[str, Any]]
    records: list[EpisodeRecord]
    seeds: list[int]
    runs: list[int] = field(default_factory=list)
    kind: Kind = "heuristic"
    validation: list[float | None] = field(default_factory=list)
    notes: list[dict[str, Any]] = field(default_factory=list)

    def __post_init__(self) -> None:
        """One run, not played on validation and with nothing noted, unless told otherwise."""
        self.runs = self.runs or [0] * len(self.records)
        self.validation = self.validation or [None] * len(self.settings)
        self.notes = self.notes or [{} for _ in self.settings]

    @classmethod
    def of(cls, contestant: Contestant, records: list[EpisodeRecord], seed: int) -> Entry:
        """Entry of one contestant in one run."""
        return cls(
            contestant.name,
            contestant.policy.is_privileged,
            dict(contestant.overrides),
            [dict(contestant.settings)],
            records,
            [seed] * len(records),
            kind=contestant.kind,
            validation=[contestant.validation],
        )
