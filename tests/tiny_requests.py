"""Requests for the tiny model: in words, with tools, with choices; and what of a reply counts."""

from __future__ import annotations

from typing import Any

from memrl.llm.backend import ChatMessage, Reply, Request

TOOL = {
    "type": "function",
    "function": {
        "name": "say",
        "parameters": {
            "type": "object",
            "properties": {"text": {"type": "string"}, "loud": {"type": "boolean"}},
            "required": ["text"],
        },
    },
}
EVICT = {
    "type": "function",
    "function": {
        "name": "evict",
        "parameters": {
            "type": "object",
            "properties": {"page_id": {"type": "integer", "minimum": 0, "maximum": 20}},
            "required": ["page_id"],
        },
    },
}
CHOICES = ("store 1", "store 12", "store", "leave it", "evict")


def ask(text: str, **settings: Any) -> Request:
    settings.setdefault("max_reply_tokens", 24)
    return Request((ChatMessage("system", "Be brief."), ChatMessage("user", text)), **settings)


TEXTS = ("where is the key", "who said it", "the store keeps pages " * 9, "", "what did the user")
WORDS = [ask(text, max_reply_tokens=10 + 5 * i) for i, text in enumerate(TEXTS)]
CALLS = [ask(text, tools=(TOOL, EVICT), max_reply_tokens=60) for text in TEXTS]
PICKS = [ask(text, choices=CHOICES) for text in TEXTS]


def said(replies: list[Reply]) -> list[tuple[object, ...]]:
    return [(r.text, r.calls, r.finish, r.error, r.usage.reply_tokens) for r in replies]
