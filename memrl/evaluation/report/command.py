"""The command of a report as bash reads it, with braces where many runs were given."""

from __future__ import annotations

import re
import shlex
from collections.abc import Sequence
from functools import partial
from itertools import groupby


def report_command(arguments: Sequence[str]) -> str:
    """`python -m memrl.evaluation` with these arguments; bash expands it to all of them, in order.

    Neighbours that differ in one number alone are put together: `runs/chat/seed{0..4}`.
    """
    return " ".join(["python", "-m", "memrl.evaluation", *_with_braces(arguments)])


def _with_braces(arguments: Sequence[str]) -> list[str]:
    # Text, number, text, number, ..., text; what has to be quoted is one text.
    words = [
        re.split(r"(\d+)", argument)
        if argument == shlex.quote(argument)
        else [shlex.quote(argument)]
        for argument in arguments
    ]
    most = max((len(word) for word in words), default=0)
    for place in range(most - most % 2 - 1, 0, -2):  # the last number varies fastest
        words = [_together([*group], place) for _, group in groupby(words, partial(_but, place))]
    return ["".join(word) for word in words]


def _but(place: int, word: Sequence[str]) -> tuple[object, ...]:
    """What neighbours have to share; a word without a number there is shared by none."""
    if len(word) <= place:
        return (id(word),)
    return (*word[:place], None, *word[place + 1 :])


def _together(words: Sequence[list[str]], place: int) -> list[str]:
    if len(words) == 1:
        return words[0]
    numbers = [word[place] for word in words]
    first = int(numbers[0])
    follow = [str(first + step) for step in range(len(numbers))] == numbers
    braces = f"{{{numbers[0]}..{numbers[-1]}}}" if follow else f"{{{','.join(numbers)}}}"
    return [*words[0][:place], braces, *words[0][place + 1 :]]
