"""The action space, against its documented order written out in full."""

from __future__ import annotations

import pytest

from memrl.actions import ActionLayout, Op

ORDER = [
    (Op.YIELD, 0),
    (Op.NEXT, 0),
    *((Op.EVICT, row) for row in range(3)),
    *((Op.STORE, row) for row in range(3)),
    *((Op.SEARCH, row) for row in range(3)),
    *((Op.RETRIEVE, k) for k in range(2)),
]
LAYOUT = ActionLayout(num_rows=3, num_candidates=2)


def test_order_of_actions() -> None:
    assert LAYOUT.num_actions == len(ORDER) == 2 + 3 * 3 + 2
    assert [LAYOUT.decode(action) for action in range(LAYOUT.num_actions)] == ORDER
    assert [LAYOUT.encode(op, row) for op, row in ORDER] == list(range(LAYOUT.num_actions))


@pytest.mark.parametrize("op", list(Op))
def test_block_and_start_of_an_operation(op: Op) -> None:
    positions = [action for action, (other, _) in enumerate(ORDER) if other is op]
    assert list(range(LAYOUT.num_actions))[LAYOUT.block(op)] == positions
    assert LAYOUT.start(op) == positions[0]


def test_layout_without_candidates() -> None:
    layout = ActionLayout(num_rows=2, num_candidates=0)
    assert layout.num_actions == 8
    assert layout.block(Op.RETRIEVE) == slice(8, 8)
    assert layout.decode(7) == (Op.SEARCH, 1)


@pytest.mark.parametrize("action", [-1, 13])
def test_action_outside_the_space_is_refused(action: int) -> None:
    with pytest.raises(ValueError, match=rf"Action {action} is outside 0\.\.12"):
        LAYOUT.decode(action)
