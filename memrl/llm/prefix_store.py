"""Keys and values of the last prompts, so that a prompt which begins like one is not read again."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np
import numpy.typing as npt

from memrl.llm.causal_model import Prefix


@dataclass(frozen=True, slots=True, eq=False)
class _Entry:
    tokens: npt.NDArray[np.int64]  # (T,)
    prefix: Prefix


class PrefixStore:
    """The rows read last, oldest first; the oldest leave when there are too many tokens.

    Args:
        max_tokens: of all rows together; 0 keeps none. A token of a model with L layers takes
            2 x L x heads of keys x their width numbers.
    """

    def __init__(self, max_tokens: int) -> None:
        self._max_tokens = max_tokens
        self._entries: list[_Entry] = []

    @property
    def num_tokens(self) -> int:
        """Tokens of all rows kept."""
        return sum(len(entry.tokens) for entry in self._entries)

    def accepts(self, num_tokens: int) -> bool:
        """Whether a row of that length would be kept."""
        return num_tokens <= self._max_tokens

    def longest(self, tokens: Sequence[int]) -> tuple[int, Prefix | None]:
        """The longest beginning of a prompt that a row kept has as well.

        Its last token is left out in any case: somebody has to say what comes next.

        Returns:
            Its length, and its keys and values; 0 and None if there is none.
        """
        prompt = np.asarray(tokens[:-1], dtype=np.int64)
        lengths = [_common(entry.tokens, prompt) for entry in self._entries]
        length = max(lengths, default=0)
        if length == 0:
            return 0, None
        entry = self._entries[lengths.index(length)]
        self._entries.remove(entry)
        self._entries.append(entry)
        return length, tuple(
            (keys[:, :length], values[:, :length]) for keys, values in entry.prefix
        )

    def keep(self, tokens: Sequence[int], prefix: Prefix) -> None:
        """Keep a row; those that it continues leave."""
        row = np.asarray(tokens, dtype=np.int64)
        self._entries = [
            entry for entry in self._entries if _common(entry.tokens, row) < len(entry.tokens)
        ]
        self._entries.append(_Entry(row, prefix))
        while self.num_tokens > self._max_tokens:
            self._entries.pop(0)


def _common(one: npt.NDArray[np.int64], other: npt.NDArray[np.int64]) -> int:
    """Length of the beginning that two rows share."""
    length = min(len(one), len(other))
    differs = np.flatnonzero(one[:length] != other[:length])
    return int(differs[0]) if len(differs) else length
