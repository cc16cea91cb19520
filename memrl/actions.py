"""The discrete action space: operations, their arguments, and where each stands.

One `Discrete(2 + 3*N + K)` in the order YIELD, NEXT, EVICT x N, STORE x N, SEARCH x N,
RETRIEVE x K, where N is the number of slot rows (`num_slots` + 1; the last row shows the arriving
page) and K the number of candidate rows.
"""

from __future__ import annotations

from dataclasses import dataclass
from enum import IntEnum


class Op(IntEnum):
    """What a policy can do at a decision point."""

    YIELD = 0  # pressure: remove the victim; query: answer
    NEXT = 1  # stage the next K candidates
    EVICT = 2  # remove the page of a slot
    STORE = 3  # copy the page of a slot to archival
    SEARCH = 4  # make the page of a slot the focus, which is a use of it, and stage again
    RETRIEVE = 5  # bring a candidate into main context


@dataclass(frozen=True, slots=True)
class ActionLayout:
    """Positions of the operations in the flat action space.

    Attributes:
        num_rows: N, slot rows including the row of the arriving page.
        num_candidates: K, candidate rows.
    """

    num_rows: int
    num_candidates: int

    @property
    def num_actions(self) -> int:
        """Size of the action space."""
        return 2 + 3 * self.num_rows + self.num_candidates

    def start(self, op: Op) -> int:
        """First action of an operation."""
        if op < Op.EVICT:
            return int(op)
        return 2 + (op - Op.EVICT) * self.num_rows

    def block(self, op: Op) -> slice:
        """All actions of an operation, as a slice of the action axis."""
        start = self.start(op)
        if op < Op.EVICT:
            return slice(start, start + 1)
        length = self.num_candidates if op is Op.RETRIEVE else self.num_rows
        return slice(start, start + length)

    def encode(self, op: Op, argument: int = 0) -> int:
        """Return the action of an operation on a slot row or a candidate row."""
        return self.start(op) + argument

    def decode(self, action: int) -> tuple[Op, int]:
        """Return the operation and its slot or candidate row (0 for YIELD and NEXT).

        Raises:
            ValueError: if the action is outside the space.
        """
        if not 0 <= action < self.num_actions:
            raise ValueError(f"Action {action} is outside 0..{self.num_actions - 1}.")
        if action < 2:
            return Op(action), 0
        if action < self.start(Op.RETRIEVE):
            op, row = divmod(action - 2, self.num_rows)
            return Op(Op.EVICT + op), row
        return Op.RETRIEVE, action - self.start(Op.RETRIEVE)
