"""The local back end on a random model of two layers: batches, prefixes, windows, bad models."""

from __future__ import annotations

import json
from itertools import pairwise
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from tiny_lm import WITH_TOOLS, save_tiny_model
from tiny_requests import CALLS, CHOICES, EVICT, PICKS, TEXTS, TOOL, WORDS, ask, said

from memrl.llm.backend import BackendError, ChatMessage, Request, ToolCall
from memrl.llm.causal_model import CausalModel
from memrl.llm.chat_format import PLAIN_STOP
from memrl.llm.local import LocalBackend


@pytest.fixture(scope="module")
def folder(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return save_tiny_model(tmp_path_factory.mktemp("models") / "tiny")


@pytest.fixture(scope="module")
def tool_folder(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return save_tiny_model(tmp_path_factory.mktemp("models") / "tools", WITH_TOOLS)


@pytest.fixture(scope="module")
def fresh(folder: Path) -> LocalBackend:
    """Reads every prompt from its beginning, one at a time."""
    pytest.importorskip("llguidance")
    return LocalBackend(str(folder), device="cpu", kept_tokens=0, batch_size=1)


def backend(folder: Path, **settings: Any) -> LocalBackend:
    return LocalBackend(str(folder), **{"device": "cpu", **settings})


# ---------------------------------------------------------------------- batches and prefixes


@pytest.mark.parametrize("requests", [WORDS, CALLS, PICKS], ids=["words", "calls", "choices"])
def test_batches_and_prefixes_change_no_reply(
    folder: Path, fresh: LocalBackend, requests: list[Request]
) -> None:
    expected = said([fresh.complete([request])[0] for request in requests])
    remembering = backend(folder, batch_size=3)
    first = remembering.complete(requests)
    again = remembering.complete(requests)
    mixed = remembering.complete([*WORDS, *CALLS, *PICKS])
    assert said(first) == said(again) == expected
    start = {id(WORDS): 0, id(CALLS): 5, id(PICKS): 10}[id(requests)]
    assert said(mixed[start : start + 5]) == expected
    assert {reply.usage.cached_tokens for reply in first[:1]} == {0}
    for reply in again:
        assert reply.usage.cached_tokens == reply.usage.prompt_tokens - 1


@pytest.mark.parametrize("seed", range(4))
def test_an_episode_reads_only_what_is_new(folder: Path, fresh: LocalBackend, seed: int) -> None:
    """A chat that grows by its replies, and other chats that begin like it."""
    remembering = backend(folder)
    rng = np.random.default_rng(seed)
    chat = [ChatMessage("system", "You keep pages. " * 5)]
    lengths = []
    for _ in range(6):
        chat.append(ChatMessage("user", " ".join(rng.choice(list("abcdef"), size=8))))
        tools = (TOOL,) if rng.random() < 0.5 else ()
        other = Request((chat[0], ChatMessage("user", "else")), max_reply_tokens=5)
        request = Request(tuple(chat), tools=tools, max_reply_tokens=30)
        replies = remembering.complete([request, other])
        assert said(replies) == said(fresh.complete([request, other]))
        assert replies[0].usage.prompt_tokens == fresh.count_tokens(chat, tools)
        lengths.append(
            (replies[0].usage.prompt_tokens, replies[0].usage.cached_tokens, bool(tools))
        )
        chat.append(ChatMessage("assistant", replies[0].text, replies[0].calls))
    # Two turns with the same system text: all that came before is known, but where the reply was
    # spelled with other tokens than the tokenizer's own.
    for (before, _, tools_before), (_, cached, tools_now) in pairwise(lengths):
        if tools_before == tools_now:
            assert cached >= before - 1


def test_an_early_token_that_differs_hides_what_follows(folder: Path) -> None:
    remembering = backend(folder)
    remembering.complete([ask("where is the key")])
    (reply,) = remembering.complete([ask("there is the key")])
    same = remembering.count_tokens([ChatMessage("system", "Be brief.")])
    assert 0 < reply.usage.cached_tokens < same + 8


def test_no_prefix_is_kept_where_none_may_be(fresh: LocalBackend) -> None:
    for _ in range(2):
        assert [r.usage.cached_tokens for r in fresh.complete(WORDS)] == [0] * len(WORDS)
    assert [s.usage.cached_tokens for s in fresh.score(PICKS)] == [0] * len(PICKS)


def test_what_is_read_is_what_transformers_reads(folder: Path, fresh: LocalBackend) -> None:
    """Greedy decoding by the library's own generate."""
    from transformers import AutoModelForCausalLM, AutoTokenizer

    tokenizer: Any = AutoTokenizer.from_pretrained(folder)
    model: Any = AutoModelForCausalLM.from_pretrained(folder)
    for request in WORDS:
        chat = [{"role": m.role, "content": m.content} for m in request.messages]
        prompt = tokenizer.apply_chat_template(
            chat, add_generation_prompt=True, return_tensors="pt", return_dict=False
        )
        written = model.generate(
            prompt,
            attention_mask=torch.ones_like(prompt),
            do_sample=False,
            max_new_tokens=request.max_reply_tokens,
        )
        expected = tokenizer.decode(written[0, prompt.shape[1] :], skip_special_tokens=True)
        (reply,) = fresh.complete([request])
        assert reply.text == expected.strip()
        assert reply.usage.prompt_tokens == prompt.shape[1]


def test_draws_depend_on_the_prompt_and_the_seed_alone(folder: Path) -> None:
    warm = backend(folder, temperature=1.0, batch_size=3)
    alone = backend(folder, temperature=1.0, batch_size=1, kept_tokens=0)
    other = backend(folder, temperature=1.0, seed=1)
    expected = said([alone.complete([request])[0] for request in [*WORDS, *CALLS]])
    assert said(warm.complete([*WORDS, *CALLS])) == expected
    assert said(other.complete([*WORDS, *CALLS])) != expected
    assert (warm.identity["temperature"], other.identity["seed"]) == (1.0, 1)


@pytest.mark.gpu
@pytest.mark.skipif(not torch.cuda.is_available(), reason="there is no CUDA device")
def test_a_gpu_replies_as_a_cpu_does(folder: Path, fresh: LocalBackend) -> None:
    there = backend(folder, device="cuda", dtype="float32", batch_size=3)
    for requests in (WORDS, CALLS, PICKS, WORDS):
        assert said(there.complete(requests)) == said(fresh.complete(requests))
    for one, two in zip(there.score(PICKS), fresh.score(PICKS), strict=True):
        assert one.log_likelihoods == pytest.approx(two.log_likelihoods, abs=1e-2)
    assert backend(folder, device="cuda").identity["device"] == "cuda"


# ---------------------------------------------------------------------- replies


def test_constrained_calls_parse_and_fit(fresh: LocalBackend) -> None:
    for limit in range(22, 60, 5):
        requests = [ask(text, tools=(TOOL, EVICT), max_reply_tokens=limit) for text in TEXTS]
        for reply in fresh.complete(requests):
            (call,) = reply.calls
            arguments = json.loads(call.arguments)
            assert call.name in ("say", "evict")
            assert set(arguments) in ({"text"}, {"text", "loud"}, {"page_id"})
            assert (reply.text, reply.finish) == ("", "stop")
            assert reply.usage.reply_tokens <= limit


def test_a_call_that_cannot_fit_is_a_failed_reply(fresh: LocalBackend) -> None:
    (reply,) = fresh.complete([ask("x", tools=(TOOL,), max_reply_tokens=3)])
    assert (reply.finish, reply.calls) == ("failed", ())
    assert "max_reply_tokens is 3" in reply.error


def test_constrained_choices_are_whole_however_few_tokens_are_allowed(fresh: LocalBackend) -> None:
    for request in PICKS:
        (reply,) = fresh.complete([Request(request.messages, (), CHOICES, max_reply_tokens=1)])
        assert reply.text in CHOICES
        assert reply.finish == "stop"
    (reply,) = fresh.complete([ask("x", choices=("only one",))])
    assert reply.text == "only one"


def test_unconstrained_replies_are_what_the_model_writes(folder: Path) -> None:
    free = backend(folder, constrained=False)
    assert free.identity["constrained"] is False
    assert "llguidance" not in free.identity["versions"]
    words, calls, picks = (free.complete(some) for some in (WORDS, CALLS, PICKS))
    assert [reply.text for reply in picks] != [
        r.text for r in free.complete([*PICKS[1:], PICKS[0]])
    ]
    for reply in [*words, *calls, *picks]:
        assert reply.calls == ()
        assert reply.finish == "length"
    assert not {reply.text for reply in picks} & set(CHOICES)


def scripted_tokens(monkeypatch: pytest.MonkeyPatch, model: LocalBackend, reply: str) -> None:
    """Make the model's likeliest tokens those of a text, then its end for ever."""
    ids = [*model._tokenizer.encode(reply, add_special_tokens=False), *model._stop_ids]
    written = iter(ids)

    def feed(self: CausalModel, rows: Any, tokens: Any, num_last: int = 1) -> torch.Tensor:
        logits = real(self, rows, tokens, num_last)
        logits[:] = 0
        logits[..., next(written, ids[-1])] = 1
        return logits

    real = CausalModel.feed
    monkeypatch.setattr(CausalModel, "feed", feed)


CALL = '{"name": "say", "arguments": {"text": "hi"}}'


@pytest.mark.parametrize(
    ("written", "text", "calls", "finish"),
    [
        (CALL, "", 1, "stop"),
        (f"I will. {CALL} and on and on", "I will.", 1, "stop"),  # ends with the call
        (CALL[:-1], CALL[:-1], 0, "stop"),
        ('{"name": "say", "arguments": {"text": "' + "ha" * 60, None, 0, "length"),
        ("no call", "no call", 0, "stop"),
    ],
)
def test_calls_in_free_replies(
    folder: Path,
    monkeypatch: pytest.MonkeyPatch,
    written: str,
    text: str | None,
    calls: int,
    finish: str,
) -> None:
    free = backend(folder, constrained=False)
    scripted_tokens(monkeypatch, free, written)
    (reply,) = free.complete([ask("x", tools=(TOOL,), max_reply_tokens=60)])
    assert reply.calls == (ToolCall("say", '{"text": "hi"}'),) * calls
    assert reply.finish == finish
    assert reply.text == text or (text is None and written.startswith(reply.text))


def test_a_model_with_tags_may_call_twice(
    tool_folder: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    free = backend(tool_folder, constrained=False)
    scripted_tokens(monkeypatch, free, f"<tool_call>\n{CALL}\n</tool_call>\n" * 2)
    (reply,) = free.complete([ask("x", tools=(TOOL,), max_reply_tokens=200)])
    assert (len(reply.calls), reply.text) == (2, "")


def test_constrained_calls_of_a_model_with_tags(tool_folder: Path) -> None:
    pytest.importorskip("llguidance")
    held = backend(tool_folder)
    for reply in held.complete(CALLS):
        assert len(reply.calls) == 1
        assert reply.text == ""


def test_without_a_template_a_reply_ends_at_the_next_speaker(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    plain = backend(save_tiny_model(tmp_path / "plain", None), constrained=False)
    assert plain.identity["chat_template"] is False
    scripted_tokens(monkeypatch, plain, f"in the box{PLAIN_STOP}User\nand then")
    (reply,) = plain.complete([ask("where is it", max_reply_tokens=60)])
    assert (reply.text, reply.finish) == ("in the box", "stop")


# ---------------------------------------------------------------------- windows, identity


def test_a_prompt_beyond_the_window_fails_and_the_others_do_not(tmp_path: Path) -> None:
    small = backend(save_tiny_model(tmp_path / "small", max_position_embeddings=64))
    assert small.window_tokens == 64
    long = ask("the store keeps pages " * 9)
    tokens = small.count_tokens(long.messages)
    short = ask("key", max_reply_tokens=1000)
    failed, reply = small.complete([long, short])
    assert failed.finish == "failed"
    assert f"{tokens:,} tokens" in failed.error
    assert "holds 64" in failed.error
    assert reply.finish == "length"
    # A reply ends where the window does.
    assert reply.usage.prompt_tokens + reply.usage.reply_tokens == 64
    scores = small.score([Request(m.messages, choices=("a", "b")) for m in (long, short)])
    assert (scores[0].log_likelihoods, len(scores[1].log_likelihoods)) == ((), 2)
    assert f"{tokens:,} tokens" in scores[0].error


def test_identity_names_weights_and_not_where_they_lie(folder: Path, fresh: LocalBackend) -> None:
    identity = fresh.identity
    assert identity["model"] == fresh.name == "tiny"
    assert len(identity["weights_sha256"]) == 64
    assert (identity["dtype"], identity["device"]) == ("float32", "cpu")
    assert identity["versions"]["torch"] == torch.__version__
    assert str(folder.parent) not in json.dumps(dict(identity))
    half = backend(folder, dtype="bfloat16", constrained=False)
    assert half.identity["dtype"] == "bfloat16"
    assert half.complete(WORDS[:2])[0].finish == "length"


def test_settings_that_make_no_sense_are_refused(folder: Path) -> None:
    for settings in ({"temperature": -1.0}, {"batch_size": 0}, {"kept_tokens": -1}):
        with pytest.raises(ValueError, match="must be at least"):
            backend(folder, **settings)


def test_running_out_of_memory_is_one_clear_error(
    folder: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    def feed(*_: Any) -> torch.Tensor:
        raise torch.OutOfMemoryError("CUDA out of memory. Tried to allocate 20.00 GiB")

    model = backend(folder, constrained=False)
    monkeypatch.setattr(CausalModel, "feed", feed)
    with pytest.raises(BackendError, match="not enough memory for tiny"):
        model.complete(WORDS)
    with pytest.raises(BackendError, match="lower batch_size"):
        model.score(PICKS)
