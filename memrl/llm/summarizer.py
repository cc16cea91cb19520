"""The recursive summary of what leaves main context, written by a model.

Packer et al., arXiv 2310.08560v2, section 2.2. `memrl.memory.queue_manager` puts the summary before
in front of what leaves, and falls back to extraction where this one fails.
"""

from __future__ import annotations

from collections.abc import Sequence

from memrl.errors import MemrlError
from memrl.llm.backend import Backend, ChatMessage, Request
from memrl.llm.costs import LlmCosts
from memrl.llm.prompts import SUMMARY_INSTRUCTIONS
from memrl.memory.display import json_line

_REPLY_TOKENS = 256
"""Room for a hundred words, in any tokenizer."""


class SummaryError(MemrlError):
    """The model gave no summary."""


class LlmSummarizer:
    """Summarises by a model; a `memrl.memory.summarizers.Summarizer`.

    Texts that do not fit the model's window together are summed up part by part, each summary going
    before the next part.

    Args:
        backend: the model. costs: where calls are counted; None for its own.
    """

    def __init__(self, backend: Backend, costs: LlmCosts | None = None) -> None:
        self.backend = backend
        self.costs = LlmCosts() if costs is None else costs

    def __call__(self, texts: Sequence[str], limit_tokens: int) -> str:
        """Summarise; see `Summarizer`.

        Raises:
            SummaryError: if the model fails, or one text alone does not fit its window.
        """
        reply_tokens = min(_REPLY_TOKENS, limit_tokens)
        remaining = list(texts)
        while True:
            part = self._fitting(remaining, reply_tokens)
            summary = self._ask(remaining[:part], reply_tokens)
            remaining = remaining[part:]
            if not remaining:
                return summary
            remaining.insert(0, summary)

    def _fitting(self, texts: Sequence[str], reply_tokens: int) -> int:
        """How many of the texts fit the window: all, or as many as halving finds."""
        window = self.backend.window_tokens
        count = len(texts)
        while window is not None and count:
            used = self.backend.count_tokens(_messages(texts[:count])) + reply_tokens
            if used <= window:
                break
            count //= 2
        # Of several parts each has to take in a text beside the summary before, or none would end.
        if count < min(2, len(texts)):
            raise SummaryError(
                f"A text to be summed up does not fit the window of {window} tokens of "
                f"{self.backend.name}: take a model with a larger one."
            )
        return count

    def _ask(self, texts: Sequence[str], reply_tokens: int) -> str:
        request = Request(_messages(texts), max_reply_tokens=reply_tokens)
        (reply,) = self.backend.complete([request])
        self.costs.add(reply)
        if reply.error:
            raise SummaryError(f"{self.backend.name} gave no summary: {reply.error}")
        return reply.text.strip()


def _messages(texts: Sequence[str]) -> tuple[ChatMessage, ...]:
    listed = "\n".join(json_line({"text": text}) for text in texts)
    return ChatMessage("system", SUMMARY_INSTRUCTIONS), ChatMessage("user", listed)
