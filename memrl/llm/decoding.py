"""Replies token by token: many rows at once, each with its own constraint and its own end.

Tokens that a constraint leaves no choice about are not asked for: they are read together with the
one before them, as a prompt is.
"""

from __future__ import annotations

import hashlib
from collections.abc import Callable, Collection, Sequence
from dataclasses import dataclass, field
from typing import Literal

import numpy as np
import torch
from torch import Tensor

from memrl.llm.causal_model import CausalModel
from memrl.llm.constraints import Constraint
from memrl.llm.prefix_store import PrefixStore


@dataclass(slots=True, eq=False)
class Row:
    """A reply that is being written.

    Attributes:
        prompt: token ids, at least one. limit: most tokens of the reply.
        constraint: what the reply may be, None for anything.
        is_whole: whether a reply in words ends here; asked after every token.
        reply: token ids so far; its end is not in it. finish: why it ended, "" as long as it goes
            on. cached: tokens of the prompt that had been read before.
    """

    prompt: Sequence[int]
    limit: int
    constraint: Constraint | None = None
    is_whole: Callable[[Sequence[int]], bool] | None = None
    reply: list[int] = field(default_factory=list)
    finish: Literal["", "stop", "length"] = ""
    cached: int = 0
    pending: list[int] = field(default_factory=list)  # written or given, and not yet read

    def begin(self, cached: int) -> None:
        """Make ready to read the prompt from where a prefix ends."""
        self.cached = cached
        self.pending = list(self.prompt[cached:])
        if self.constraint is not None:
            self._write(self.constraint.begin())

    def accept(self, token: int, stop_ids: Collection[int]) -> None:
        """Go on with a token, or end."""
        self.pending = []
        if self.constraint is not None:
            self._write(self.constraint.accept(token, self.limit - len(self.reply)))
            return
        if token in stop_ids:
            self.finish = "stop"
            return
        self._write([token])
        if self.is_whole is not None and self.is_whole(self.reply):
            self.finish = "stop"

    def read(self) -> list[int]:
        """All tokens that the model has read or is about to."""
        return [*self.prompt, *self.reply]

    def _write(self, tokens: list[int]) -> None:
        self.reply += tokens
        self.pending += tokens
        if self.constraint is not None and self.constraint.is_done:
            self.finish = "stop"
        elif len(self.reply) >= self.limit:
            self.finish = "length"


class Sampler:
    """Chooses tokens: the likeliest, or at a temperature by draws that the prompt decides.

    Equal prompts draw alike, whatever shares their batch.
    """

    def __init__(self, temperature: float, seed: int) -> None:
        self._temperature = temperature
        self._seed = seed

    def generators(self, rows: Sequence[Row]) -> list[np.random.Generator]:
        """Source of each row's draws."""
        if self._temperature == 0:
            return []
        prompts = (np.asarray(row.prompt, dtype="<i8").tobytes() for row in rows)
        digests = (hashlib.sha256(prompt).digest()[:8] for prompt in prompts)
        return [
            np.random.default_rng([self._seed, int.from_bytes(digest, "little")])
            for digest in digests
        ]

    def choose(self, logits: Tensor, generators: Sequence[np.random.Generator]) -> list[int]:
        """The next token of each row.

        Args:
            logits: (B, vocab_size) float32; -inf for what may not come next.
            generators: of each row; empty for the likeliest.
        """
        if generators:
            # The largest of logits with Gumbel noise is a draw from their softmax.
            noise = np.stack([generator.gumbel(size=logits.shape[1]) for generator in generators])
            logits = logits / self._temperature + torch.tensor(noise, device=logits.device)
        tokens: list[int] = logits.argmax(dim=1).tolist()
        return tokens


@torch.inference_mode()
def write_replies(
    model: CausalModel,
    store: PrefixStore,
    asked: Sequence[Row],
    sampler: Sampler,
    stop_ids: Collection[int],
) -> None:
    """Write the replies of rows, all of them in one batch.

    Args:
        model: that writes. store: of prefixes; what is read enters it.
        asked: rows; one at most if the model does not keep all tokens. sampler: that chooses.
        stop_ids: tokens that end a reply.
    """
    found = [store.longest(row.prompt) for row in asked]
    for row, (cached, _) in zip(asked, found, strict=True):
        row.begin(cached)
    at_work = [index for index, row in enumerate(asked) if not row.finish]
    if not at_work:
        return
    active = [asked[index] for index in at_work]
    rows = model.begin([found[index][1] for index in at_work])
    generators = sampler.generators(active)
    while active:
        logits = model.feed(rows, [row.pending for row in active])[:, 0]
        _forbid(logits, active)
        read = [row.read() for row in active]
        for row, token in zip(active, sampler.choose(logits, generators), strict=True):
            row.accept(token, stop_ids)
        for index, row in enumerate(active):
            if row.finish and model.keeps_tokens and store.accepts(len(read[index])):
                store.keep(read[index], rows.prefix(index))
        going = [index for index, row in enumerate(active) if not row.finish]
        if going and len(going) < len(active):
            rows.select(going)
            generators = [generators[index] for index in going] if generators else []
        active = [active[index] for index in going]


def _forbid(logits: Tensor, rows: Sequence[Row]) -> None:
    """Make impossible what the rows' constraints do not allow."""
    for index, row in enumerate(rows):
        if row.constraint is not None:
            allowed = torch.from_numpy(row.constraint.allowed()[: logits.shape[1]])
            logits[index].masked_fill_(~allowed.to(logits.device), -torch.inf)
