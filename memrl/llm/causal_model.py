"""A causal language model over rows of unequal length, which remembers what it has read.

Rows of a batch are padded on the left each time they are fed, so that padding may stand anywhere in
the cache of keys and values; the mask hides it, and positions count tokens only. Prefixes that an
earlier request has left behind enter the cache the same way.

This holds for caches that keep every token (full attention, with positions that do not depend on
the length). Other models (sliding windows, states of linear attention, rotary positions that change
with the length) are fed one row at a time and from its beginning.
"""

from __future__ import annotations

import inspect
from collections.abc import Sequence
from typing import Any

import torch
from torch import Tensor

Prefix = tuple[tuple[Tensor, Tensor], ...]
"""Keys and values of every layer, each (heads, tokens, width)."""

_ROPE_OF_LENGTH = ("dynamic", "longrope")


class Rows:
    """What a batch of rows has read.

    Attributes:
        cache: of transformers; None for a model that makes its own at the first call.
        is_token: (B, S) bool, False where the cache holds padding.
    """

    def __init__(self, cache: Any, is_token: Tensor) -> None:
        self.cache = cache
        self.is_token = is_token

    def prefix(self, row: int) -> Prefix:
        """Copy what a row has read."""
        columns = self.is_token[row].nonzero()[:, 0]
        return tuple(
            (layer.keys[row][:, columns], layer.values[row][:, columns])
            for layer in self.cache.layers
        )

    def select(self, rows: Sequence[int]) -> None:
        """Keep some rows only."""
        indices = torch.tensor(rows, device=self.is_token.device)
        self.is_token = self.is_token[indices]
        self.cache.batch_select_indices(indices)


class CausalModel:
    """The forward passes that decoding and scoring are made of.

    Args:
        model: of transformers, in evaluation mode on its device.

    Attributes:
        vocab_size: entries of a row of logits.
        keeps_tokens: whether rows may share a batch and begin with a prefix.
    """

    def __init__(self, model: Any) -> None:
        self._model = model
        self._config = model.config.get_text_config(decoder=True)
        self.vocab_size = int(self._config.vocab_size)
        parameters = inspect.signature(model.forward).parameters
        self._cuts_logits = "logits_to_keep" in parameters
        self.keeps_tokens = "position_ids" in parameters and self._has_full_attention()

    @property
    def device(self) -> torch.device:
        """Where the model is."""
        device: torch.device = self._model.device
        return device

    @property
    def window_tokens(self) -> int | None:
        """Most tokens of a row, by the model's configuration."""
        window = getattr(self._config, "max_position_embeddings", None)
        return int(window) if window else None

    def _has_full_attention(self) -> bool:
        from transformers.cache_utils import DynamicLayer

        rope = getattr(self._config, "rope_parameters", None) or {}
        layers = self._new_cache().layers
        return all(type(layer) is DynamicLayer for layer in layers) and not any(
            kind in str(rope) for kind in _ROPE_OF_LENGTH
        )

    def _new_cache(self) -> Any:
        from transformers import DynamicCache

        return DynamicCache(config=self._model.config)

    def begin(self, prefixes: Sequence[Prefix | None]) -> Rows:
        """Rows that have read the prefixes given; None for nothing."""
        lengths = [0 if prefix is None else prefix[0][0].shape[1] for prefix in prefixes]
        longest = max(lengths)
        is_token = torch.zeros(len(prefixes), longest, dtype=torch.bool, device=self.device)
        for row, length in enumerate(lengths):
            is_token[row, longest - length :] = True
        if not self.keeps_tokens:
            return Rows(None, is_token)
        rows = Rows(self._new_cache(), is_token)
        like = next((prefix for prefix in prefixes if prefix is not None), ())
        for layer, (keys, values) in enumerate(like):
            rows.cache.update(
                _stacked([p[layer][0] if p else None for p in prefixes], keys, longest),
                _stacked([p[layer][1] if p else None for p in prefixes], values, longest),
                layer,
            )
        return rows

    def feed(self, rows: Rows, tokens: Sequence[Sequence[int]], num_last: int = 1) -> Tensor:
        """Let every row read its tokens, at least one each.

        Returns:
            (B, num_last, vocab_size) float32 logits at the last positions.
        """
        width = max(map(len, tokens))
        ids = torch.zeros(len(tokens), width, dtype=torch.long)
        is_new = torch.zeros(len(tokens), width, dtype=torch.bool)
        for row, some in enumerate(tokens):
            ids[row, width - len(some) :] = torch.tensor(some)
            is_new[row, width - len(some) :] = True
        rows.is_token = torch.cat([rows.is_token, is_new.to(self.device)], dim=1)
        positions = (rows.is_token.cumsum(dim=1) - 1).clamp(min=0)[:, -width:]
        return self._forward(rows, ids, rows.is_token.long(), positions, num_last)

    def feed_branches(self, rows: Rows, branches: Sequence[Sequence[Sequence[int]]]) -> Tensor:
        """Let every row read alternatives that do not see each other, and forget them again.

        Args:
            rows: (B); unchanged afterwards.
            branches: of each row, continuations of it; at least one token over all rows.

        Returns:
            (B, N, vocab_size) float32 logits: those of a row's branches one after the other at the
            end, behind padding.
        """
        flat = [[token for branch in some for token in branch] for some in branches]
        width = max(map(len, flat))
        ids = torch.zeros(len(flat), width, dtype=torch.long)
        branch = torch.full((len(flat), width), -1)
        depth = torch.zeros(len(flat), width, dtype=torch.long)
        for row, some in enumerate(branches):
            start = width - len(flat[row])
            if start == width:
                continue
            ids[row, start:] = torch.tensor(flat[row])
            sizes = torch.tensor([len(one) for one in some])
            branch[row, start:] = torch.arange(len(some)).repeat_interleave(sizes)
            depth[row, start:] = torch.cat([torch.arange(len(one)) for one in some])
        branch, depth = branch.to(self.device), depth.to(self.device)
        seen = (branch[:, :, None] == branch[:, None, :]) & (depth[:, :, None] >= depth[:, None, :])
        seen = torch.cat([rows.is_token[:, None, :].expand(-1, width, -1), seen], dim=2)
        dtype = self._model.dtype
        mask = torch.zeros(seen.shape, dtype=dtype, device=self.device)
        mask = mask.masked_fill(~seen, torch.finfo(dtype).min)[:, None]  # (B, 1, N, S + N)
        positions = rows.is_token.sum(dim=1, keepdim=True) + depth
        logits = self._forward(rows, ids, mask, positions, width)
        rows.cache.crop(-width)
        return logits

    def _forward(
        self, rows: Rows, ids: Tensor, mask: Tensor, positions: Tensor, num_last: int
    ) -> Tensor:
        arguments: dict[str, Any] = {"logits_to_keep": num_last} if self._cuts_logits else {}
        if self.keeps_tokens:
            arguments["position_ids"] = positions
        output = self._model(
            input_ids=ids.to(self.device),
            attention_mask=mask,
            past_key_values=rows.cache,
            use_cache=True,
            **arguments,
        )
        rows.cache = output.past_key_values
        logits: Tensor = output.logits[:, -num_last:].float()
        return logits


def _stacked(parts: Sequence[Tensor | None], like: Tensor, longest: int) -> Tensor:
    """Put keys or values of unequal length into one tensor, padded on the left."""
    whole = like.new_zeros(len(parts), like.shape[0], longest, like.shape[2])
    for row, part in enumerate(parts):
        if part is not None:
            whole[row, :, longest - part.shape[1] :] = part
    return whole
