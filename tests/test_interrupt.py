from __future__ import annotations

import os
import signal

import pytest

from memrl.interrupt import Interrupted, InterruptGuard


def press_ctrl_c() -> None:
    """The handler runs before the next line of Python."""
    os.kill(os.getpid(), signal.SIGINT)


def test_nothing_happens_without_ctrl_c() -> None:
    with InterruptGuard() as guard:
        for _ in range(3):
            guard.check()


def test_ctrl_c_waits_for_a_safe_point() -> None:
    with InterruptGuard() as guard:
        guard.check()
        press_ctrl_c()
        with pytest.raises(Interrupted):
            guard.check()


def test_it_is_not_forgotten_after_the_first_safe_point() -> None:
    with InterruptGuard() as guard:
        press_ctrl_c()
        for _ in range(2):
            with pytest.raises(Interrupted):
                guard.check()


def test_a_second_ctrl_c_stops_on_the_spot() -> None:
    with InterruptGuard():
        press_ctrl_c()
        with pytest.raises(KeyboardInterrupt):
            press_ctrl_c()


def test_a_callback_becomes_a_safe_point_after_it_was_called() -> None:
    counts: list[int] = []
    with InterruptGuard() as guard:
        advance = guard.checking(counts.append)
        advance(2)
        press_ctrl_c()
        with pytest.raises(Interrupted):
            advance(3)
    assert counts == [2, 3]


def test_a_program_that_catches_errors_does_not_catch_it_by_chance() -> None:
    assert not issubclass(Interrupted, KeyboardInterrupt | ValueError | OSError | RuntimeError)


@pytest.mark.parametrize("fails", [False, True])
def test_afterwards_ctrl_c_is_what_it_was(fails: bool) -> None:
    before = signal.getsignal(signal.SIGINT)

    def handler(*_: object) -> None:
        raise AssertionError

    signal.signal(signal.SIGINT, handler)
    try:
        try:
            with InterruptGuard():
                assert signal.getsignal(signal.SIGINT) is not handler
                if fails:
                    raise LookupError
        except LookupError:
            assert fails
        assert signal.getsignal(signal.SIGINT) is handler
    finally:
        signal.signal(signal.SIGINT, before)
