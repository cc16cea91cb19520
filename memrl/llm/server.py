"""Language models behind any server that speaks OpenAI's chat-completions protocol.

vLLM, llama.cpp, Ollama and hosted services do. The transport is httpx: it has a time-out for every
phase of a request and one pool of connections for many threads, neither of which `requests`, with
which the data sets are fetched, has. No client library of a service is needed for one kind of
request.

What goes wrong with one request is said by its reply, and the batch goes on. `BackendError` is for
what every further request would meet as well: the key is refused, there is no such model or
address, nobody listens.
"""

from __future__ import annotations

import dataclasses
import threading
import time
import warnings
from collections.abc import Mapping, Sequence
from concurrent.futures import FIRST_EXCEPTION, ThreadPoolExecutor, wait
from typing import Any

import numpy as np

from memrl.llm.backend import BackendError, ChatMessage, Reply, Request, Scores, Usage
from memrl.llm.chat_wire import MalformedReplyError, estimate_tokens, read_reply, request_body
from memrl.llm.endpoint import (
    BAD_REQUEST,
    MALFORMED,
    NO_CONNECTION,
    Endpoint,
    Fault,
    Timeouts,
)
from memrl.llm.retries import RetryOptions

KEY_VARIABLE = "OPENAI_API_KEY"
_PLAIN_CHOICE = Fault("plain choice", "The server refuses the schema of the choices")


class ServerBackend:
    """A model that a server runs.

    Replies are greedy as far as the server keeps to `temperature` 0. Concurrent requests overlap:
    the seconds of a batch add up to more than the clock's. Seconds are those of the last attempt;
    earlier ones and the waiting between them are left out.

    Args:
        model: the name that the server knows it by.
        base_url: address up to the version, as http://127.0.0.1:8000/v1.
        key_variable: environment variable that holds the key; it is read for every attempt and kept
            nowhere. A server of one's own needs none.
        constrained: whether replies are held to the request's tools (`tool_choice` "required") or
            choices (`response_format`, a JSON schema). A server that refuses the schema is asked in
            plain words from then on, which every such reply has among its faults.
        concurrency: most requests under way at once.
        timeouts, retries: of each attempt, and between attempts.

    Raises:
        ValueError: if an option cannot be used.
    """

    window_tokens = None
    can_score = False

    def __init__(
        self,
        model: str,
        base_url: str,
        *,
        key_variable: str = KEY_VARIABLE,
        constrained: bool = True,
        concurrency: int = 8,
        timeouts: Timeouts | None = None,
        retries: RetryOptions | None = None,
    ) -> None:
        if not model or not key_variable or concurrency < 1:
            raise ValueError(
                "model and key_variable must not be empty and concurrency must be at least 1, got "
                f"{model!r}, {key_variable!r} and {concurrency}."
            )
        self._model = model
        self._endpoint = Endpoint(base_url, key_variable, concurrency, timeouts or Timeouts())
        self._constrained = constrained
        self._concurrency = concurrency
        self._retries = retries or RetryOptions()
        self._num_asked = 0
        self._other_models: set[str] = set()
        self._refuses_schemas = False
        self._not_before = 0.0  # by the monotonic clock: what Retry-After asks of everybody
        self._lock = threading.Lock()  # of the line above

    @property
    def name(self) -> str:
        """The name that the server knows the model by."""
        return self._model

    @property
    def identity(self) -> Mapping[str, Any]:
        """The model's name and how it is asked; the address may change and is left out."""
        return {
            "backend": "server",
            "model": self._model,
            "constrained": self._constrained,
            "temperature": 0,
        }

    def count_tokens(
        self, messages: Sequence[ChatMessage], tools: Sequence[Mapping[str, Any]] = ()
    ) -> int:
        """Estimate the tokens of a prompt: the tokenizer is the server's."""
        return estimate_tokens(messages, tools)

    def complete(self, requests: Sequence[Request]) -> list[Reply]:
        """Reply to each request, `concurrency` of them at once.

        Raises:
            BackendError: if the server refuses the key or knows no such model or address, or nobody
                listens there.
        """
        self._endpoint.open()
        first, self._num_asked = self._num_asked, self._num_asked + len(requests)
        stop = threading.Event()
        workers = ThreadPoolExecutor(self._concurrency)
        try:
            futures = [
                workers.submit(self._ask, request, first + index, stop)
                for index, request in enumerate(requests)
            ]
            done, waiting = wait(futures, return_when=FIRST_EXCEPTION)
            replies = [future.result() for future in (done if waiting else futures)]
        finally:  # after an error or Ctrl-C nothing more is sent, and nobody goes on waiting
            stop.set()
            workers.shutdown(cancel_futures=True)
        self._warn_of_other_models(replies)
        return replies

    def score(self, requests: Sequence[Request]) -> list[Scores]:  # noqa: ARG002 - the protocol's
        """Refuse: servers give no likelihoods of given texts.

        Raises:
            BackendError: always.
        """
        raise BackendError(
            f"The server of {self._model} gives no likelihoods of given texts: ask for replies, or "
            "take a local model."
        )

    def close(self) -> None:
        """Close the connections; a further request opens new ones."""
        self._endpoint.close()

    def _ask(self, request: Request, number: int, stop: threading.Event) -> Reply:
        """Ask until there is a reply or no attempt is left."""
        draws = np.random.default_rng((self._retries.seed, number))
        faults: list[str] = []
        wants_schema = bool(request.choices) and self._constrained
        in_schema = wants_schema and not self._refuses_schemas
        attempts = retry = 0
        while True:
            self._wait_for_turn(stop)
            attempts += 1
            start_s = time.monotonic()
            result = self._attempt(request, in_schema)
            usage = Usage(seconds=time.monotonic() - start_s, attempts=attempts)
            if isinstance(result, Reply):
                if wants_schema and not in_schema:
                    self._refuses_schemas = True
                    faults.append(str(_PLAIN_CHOICE))
                counted = dataclasses.replace(
                    result.usage, seconds=usage.seconds, attempts=attempts
                )
                return dataclasses.replace(result, usage=counted, faults=tuple(faults))
            faults.append(str(result))
            if in_schema and result.status == BAD_REQUEST:
                in_schema = False
                continue
            retry += 1
            wait_s = self._wait_s(result, retry, draws)
            if wait_s is None:
                return self._failed(result, usage, faults)
            stop.wait(wait_s)

    def _attempt(self, request: Request, in_schema: bool) -> Reply | Fault:
        constrained = self._constrained and (in_schema or not request.choices)
        answer = self._endpoint.post(request_body(request, self._model, constrained=constrained))
        if isinstance(answer, Fault):
            return answer
        try:
            return read_reply(answer, request, in_schema=in_schema)
        except MalformedReplyError as error:
            return Fault(MALFORMED, f"The server's answer cannot be used: {error}")

    def _wait_s(self, fault: Fault, retry: int, draws: np.random.Generator) -> float | None:
        """Seconds of its own before the next attempt, None if there is none."""
        asked_s = fault.wait_s or 0.0
        has_more = retry <= self._retries.retries and asked_s <= self._retries.longest_wait_s
        if not (fault.is_retried and has_more):
            return None
        with self._lock:
            self._not_before = max(self._not_before, time.monotonic() + asked_s)
        return self._retries.wait_s(retry, draws)

    def _wait_for_turn(self, stop: threading.Event) -> None:
        while not stop.is_set() and (left_s := self._not_before - time.monotonic()) > 0:
            stop.wait(left_s)
        if stop.is_set():
            raise BackendError("Nothing more is asked: another request of the batch has failed.")

    def _warn_of_other_models(self, replies: Sequence[Reply]) -> None:
        """Once of each; here and not where they reply, because filters are of the main thread."""
        others = {reply.model for reply in replies}
        for model in sorted(others - {"", self._model, *self._other_models}):
            self._other_models.add(model)
            warnings.warn(
                f"The server was asked for {self._model} and replies as {model}; its replies say "
                "so.",
                RuntimeWarning,
                stacklevel=3,
            )

    def _failed(self, fault: Fault, usage: Usage, faults: Sequence[str]) -> Reply:
        if fault.kind == NO_CONNECTION:
            raise BackendError(f"{fault.what}: start the server, or correct the URL.")
        tried = "once" if usage.attempts == 1 else f"{usage.attempts} times"
        error = f"{fault.what} (asked {tried})."
        return Reply("", finish="failed", usage=usage, error=error, faults=tuple(faults))
