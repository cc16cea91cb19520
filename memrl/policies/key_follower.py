"""A player of nested key-value retrieval that calls functions as MemGPT does, without a model.

Packer et al., arXiv 2310.08560v2, section 3.2.2: look a key up, look its value up as a key, and go
on until a value is no key of any pair. It is what a model that makes no mistake would do.
"""

from __future__ import annotations

import re
from collections.abc import Mapping

from memrl.player import Turn

_PAIR = re.compile(r"key = (\S+), value = (\S+)")


class KeyFollower:
    """Follows a chain of look-ups with `conversation_search`, and answers with its end.

    The search is lexical: embeddings of UUIDs mean nothing. A value is taken for the end once no
    page of results holds a pair with that key, or when the chain goes round.
    """

    def on_warning(self, turn: Turn) -> None:
        """Nothing: recall and archival hold every pair."""

    def on_query(self, turn: Turn, question: str) -> None:
        """Answer with the value that the chain of the key in question ends at."""
        passed: list[str] = []
        text = question.strip()
        while text not in passed:
            passed.append(text)
            value = self._value_of(turn, text)
            if value is None:
                break
            text = value
        turn.call("send_message", {"message": text})

    def _value_of(self, turn: Turn, key: str) -> str | None:
        """Search all pages of results for the pair of a key; None where it is no key."""
        seen = page = 0
        while turn.is_open:
            found = turn.call(
                "conversation_search", {"query": key, "page": page, "request_heartbeat": True}
            )
            pairs = _pairs(found.text)
            if key in pairs:
                return pairs[key]
            seen, page = seen + len(found.hits), page + 1
            if found.status == "failed" or not found.hits or seen >= (found.total or 0):
                break
        return None


def _pairs(text: str) -> Mapping[str, str]:
    """Keys and values of the pairs in search results, as they are shown."""
    return {key: value.rstrip('"}') for key, value in _PAIR.findall(text)}
