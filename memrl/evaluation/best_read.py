"""For whom a reader read as the best of its kind, put together over the runs.

Which learned policy and which heuristic is the best one every run chooses on its own validation
episodes, so that seeds and folds may have read for different ones. What was read for the choices of
all runs is one row.
"""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

from memrl.evaluation.entry import Entry
from memrl.evaluation.model_notes import READER
from memrl.evaluation.readings import answers_by_category, summarize_answers
from memrl.policies.base import Kind

ROLE = "role"
"""Key of what an entry was read as, among the reader's notes of a run; absent where by its name."""
ROLES: tuple[Kind, ...] = ("heuristic", "learned")


def best_read(entries: Sequence[Entry]) -> list[dict[str, Any]]:
    """The rows.

    Args:
        entries: all contestants, played on the same episodes of the same runs.

    Returns:
        For each role that every run has read for: `name`, `policies` (the choice of each run),
        `notes` (of each run: who read), `answers` and `answers_by_category`, as policies have them.
    """
    rows = []
    for role in ROLES:
        chosen: dict[int, Entry] = {}
        for entry in entries:
            for run, notes in enumerate(entry.notes):
                if notes.get(READER, {}).get(ROLE) == role:
                    chosen[run] = entry
        if len(chosen) < len(entries[0].settings):
            continue
        runs = entries[0].runs
        records = [chosen[run].records[place] for place, run in enumerate(runs)]
        in_order = [chosen[run] for run in range(len(chosen))]
        rows.append(
            {
                "name": f"best {role}",
                "policies": [entry.name for entry in in_order],
                "notes": [{READER: own.notes[run][READER]} for run, own in enumerate(in_order)],
                "answers": summarize_answers(records),
                "answers_by_category": answers_by_category(records),
            }
        )
    return rows


def has_role(row: dict[str, Any]) -> bool:
    """Whether a row of the results was read for as the best of its kind, in any run."""
    return any(ROLE in notes.get(READER, {}) for notes in row["notes"])
