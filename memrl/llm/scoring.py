"""Log-likelihoods of texts as beginnings of a reply: the prompt is read once, for all of them."""

from __future__ import annotations

from collections.abc import Iterator, Sequence

import torch
from torch import Tensor

from memrl.llm.causal_model import CausalModel, Rows
from memrl.llm.prefix_store import PrefixStore

_LIMIT_BRANCH_TOKENS = 256  # of a row at once: their logits are as wide as the vocabulary


@torch.inference_mode()
def score_texts(
    model: CausalModel,
    store: PrefixStore,
    prompts: Sequence[Sequence[int]],
    texts: Sequence[Sequence[Sequence[int]]],
) -> tuple[list[list[float]], list[int]]:
    """Score the texts of each prompt.

    Args:
        model: that scores. store: of prefixes; the prompts enter it.
        prompts: token ids; one at most if the model does not keep all tokens.
        texts: of each prompt, the token ids of each text.

    Returns:
        For each prompt the log-likelihoods of its texts, natural logarithm, 0 for an empty text;
        and how many of its tokens had been read before.
    """
    found = [store.longest(prompt) for prompt in prompts]
    cached = [length for length, _ in found]
    rows = model.begin([prefix for _, prefix in found])
    unread = [prompt[length:] for prompt, length in zip(prompts, cached, strict=True)]
    first = model.feed(rows, unread)[:, 0].log_softmax(dim=1)
    if not model.keeps_tokens:
        return [[_alone(model, prompts[0], text, first[0]) for text in texts[0]]], cached
    for row, prompt in enumerate(prompts):
        if store.accepts(len(prompt)):
            store.keep(prompt, rows.prefix(row))
    return _batched(model, rows, first, texts), cached


def _batched(
    model: CausalModel, rows: Rows, first: Tensor, texts: Sequence[Sequence[Sequence[int]]]
) -> list[list[float]]:
    totals = [
        [float(first[row, text[0]]) if text else 0.0 for text in some]
        for row, some in enumerate(texts)
    ]
    for parts in _parts(texts):
        # The last token of a text predicts nothing that counts.
        branches = [[texts[row][index][:-1] for index in part] for row, part in enumerate(parts)]
        logits = model.feed_branches(rows, branches)
        for row, part in enumerate(parts):
            position = logits.shape[1] - sum(map(len, branches[row]))
            for index in part:
                following = torch.tensor(texts[row][index][1:], device=logits.device)
                span = logits[row, position : position + len(following)].log_softmax(dim=1)
                totals[row][index] += float(span.gather(1, following[:, None]).sum())
                position += len(following)
    return totals


def _parts(texts: Sequence[Sequence[Sequence[int]]]) -> Iterator[list[list[int]]]:
    """Divide the texts of each prompt so that few tokens are read at once: indices of texts."""
    waiting = [[i for i, text in enumerate(some) if len(text) > 1] for some in texts]
    while any(waiting):
        parts = []
        for row, indices in enumerate(waiting):
            room, count = _LIMIT_BRANCH_TOKENS, 0
            while count < len(indices) and (count == 0 or room >= len(texts[row][indices[count]])):
                room -= len(texts[row][indices[count]])
                count += 1
            parts.append(indices[:count])
            waiting[row] = indices[count:]
        yield parts


def _alone(model: CausalModel, prompt: Sequence[int], text: Sequence[int], first: Tensor) -> float:
    """Score one text by reading the prompt and it from the beginning."""
    if not text:
        return 0.0
    total = float(first[text[0]])
    if len(text) > 1:
        row = [*prompt, *text[:-1]]
        logits = model.feed(model.begin([None]), [row], num_last=len(text) - 1)[0]
        following = torch.tensor(text[1:], device=logits.device)
        total += float(logits.log_softmax(dim=1).gather(1, following[:, None]).sum())
    return total
