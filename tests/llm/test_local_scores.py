"""Scores of choices against one pass over each, and models that cannot keep what they have read."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import pytest
import torch
from tiny_lm import save_tiny_model, tiny_llama_config, tiny_tokenizer
from tiny_requests import CALLS, CHOICES, PICKS, WORDS, ask, said

from memrl.llm.backend import Request
from memrl.llm.local import LocalBackend


@pytest.fixture(scope="module")
def folder(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return save_tiny_model(tmp_path_factory.mktemp("models") / "tiny")


@pytest.fixture(scope="module")
def fresh(folder: Path) -> LocalBackend:
    """Reads every prompt from its beginning, one at a time."""
    pytest.importorskip("llguidance")
    return LocalBackend(str(folder), device="cpu", kept_tokens=0, batch_size=1)


def exact_score(folder: Path, model: LocalBackend, request: Request, choice: str) -> float:
    """By one pass over prompt and choice."""
    from transformers import AutoModelForCausalLM

    llama = AutoModelForCausalLM.from_pretrained(folder)
    prompt = model._format.prompt(request.messages)
    text = model._format.tokens(choice)
    with torch.no_grad():
        logits = llama(torch.tensor([prompt + text])).logits[0].float().log_softmax(dim=1)
    return sum(float(logits[len(prompt) - 1 + i, token]) for i, token in enumerate(text))


def test_scores_are_log_likelihoods_of_the_choices(folder: Path, fresh: LocalBackend) -> None:
    many = tuple(f"retrieve page {number} of the archive" for number in range(30))
    requests = [
        *PICKS[:3],
        ask("x", choices=("",)),
        ask("y", choices=("a", "", "leave it", "a")),
        ask("z", choices=many),  # more tokens than are read at once
    ]
    remembering = LocalBackend(str(folder), device="cpu", batch_size=4)
    first, again = remembering.score(requests), remembering.score(requests)
    for request, one, two in zip(requests, first, again, strict=True):
        expected = [exact_score(folder, fresh, request, choice) for choice in request.choices]
        assert one.log_likelihoods == pytest.approx(expected, abs=1e-3)
        assert two.log_likelihoods == pytest.approx(expected, abs=1e-3)
        assert two.usage.cached_tokens == two.usage.prompt_tokens - 1
    assert fresh.can_score
    # What was read to score is known when a reply is written, and the other way round.
    (reply,) = remembering.complete([Request(requests[0].messages, max_reply_tokens=3)])
    assert reply.usage.cached_tokens == reply.usage.prompt_tokens - 1
    assert said([reply]) == said(fresh.complete([Request(requests[0].messages, (), (), 3)]))


# ---------------------------------------------------------------------- other kinds of models


def mistral(vocab_size: int) -> Any:
    from transformers import MistralConfig

    return MistralConfig(
        vocab_size=vocab_size,
        hidden_size=32,
        intermediate_size=64,
        num_hidden_layers=2,
        num_attention_heads=4,
        num_key_value_heads=2,
        sliding_window=16,
        max_position_embeddings=512,
        eos_token_id=2,
        bos_token_id=None,
        initializer_range=0.3,
    )


@pytest.mark.parametrize("kind", ["sliding window", "rotation by length"])
def test_models_that_forget_are_read_from_the_beginning(tmp_path: Path, kind: str) -> None:
    size = len(tiny_tokenizer())
    config = mistral(size) if kind == "sliding window" else None
    rope = {"rope_type": "dynamic", "factor": 2.0, "rope_theta": 10000.0}
    config = config or tiny_llama_config(size, max_position_embeddings=128, rope_parameters=rope)
    folder = save_tiny_model(tmp_path / "other", config=config)
    model = LocalBackend(str(folder), device="cpu")
    assert not model._model.keeps_tokens
    first, again = model.complete([*WORDS, *CALLS]), model.complete([*WORDS, *CALLS])
    assert said(first) == said(again)
    assert {reply.usage.cached_tokens for reply in again} == {0}
    (scores,) = model.score([PICKS[2]])
    expected = [exact_score(folder, model, PICKS[2], choice) for choice in CHOICES]
    assert scores.log_likelihoods == pytest.approx(expected, abs=1e-3)
