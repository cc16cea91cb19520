"""The base of all errors that a user can mend: programs print them as one line, without a trace."""

from __future__ import annotations

from collections.abc import Sequence


class MemrlError(Exception):
    """Something outside the code is wrong: data, a file, a setting. The message says what to do."""


def listed(names: Sequence[str], most: int) -> str:
    """Names as a sentence has them: the first `most`, and how many more there are."""
    more = len(names) - most
    return ", ".join(names[:most]) + (f" and {more} more" if more > 0 else "")
