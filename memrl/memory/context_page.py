"""A page as main context shows it, and the chat message that it becomes."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Literal, TypedDict

Role = Literal["system", "user", "assistant", "call", "result"]
ROLES: dict[Role, str] = {
    "system": "system",
    "user": "user",
    "assistant": "assistant",
    "call": "assistant",
    "result": "tool",
}
"""Role of a page -> role of its chat message. Stores keep the first: calls are not speech."""


def as_role(name: str) -> Role:
    """The role of this name; ValueError if there is none."""
    for role in ROLES:
        if role == name:
            return role
    raise ValueError(f"There is no role {name!r}: use one of {', '.join(ROLES)}.")


class Message(TypedDict):
    """A chat message, as chat templates and OpenAI-compatible servers take it."""

    role: str
    content: str


@dataclass(frozen=True, slots=True)
class ContextPage:
    """A page as main context shows it.

    Attributes:
        page_id, role: as given. page_tokens: size of its message, markup included.
        text: as it is shown, without the page id. content: of its chat message.
        is_cut: whether the text did not fit the queue as a whole.
    """

    page_id: int
    role: Role
    text: str
    content: str
    page_tokens: int
    is_cut: bool
