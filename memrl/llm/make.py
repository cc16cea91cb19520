"""Makes the back end that a configuration names; what the others need is not imported."""

from __future__ import annotations

from importlib import import_module
from pathlib import Path
from typing import TYPE_CHECKING

from memrl.llm.backend import Backend, BackendError

if TYPE_CHECKING:
    from memrl.llm_config import LlmConfig


def make_backend(config: LlmConfig) -> Backend:
    """The language model of a configuration; recorded if it names a file.

    `max_reply_tokens` is for whoever asks: each request has its own.

    Raises:
        BackendError: if there is no such model, or the recording is not one of it.
    """
    if config.backend == "replay":
        from memrl.llm.record import ReplayBackend

        if config.record is None:  # LlmConfig refuses it
            raise BackendError("backend replay needs a recording: give record.")
        return ReplayBackend(Path(config.record))
    backend = _server(config) if config.backend == "server" else _local(config)
    if config.record is None:
        return backend
    from memrl.llm.record import RecordingBackend

    return RecordingBackend(backend, Path(config.record))


def _local(config: LlmConfig) -> Backend:
    backend: Backend = import_module("memrl.llm.local").LocalBackend(
        config.model, device=config.device, dtype=config.dtype, constrained=config.constrained
    )
    return backend


def _server(config: LlmConfig) -> Backend:
    from memrl.llm.endpoint import Timeouts
    from memrl.llm.retries import RetryOptions
    from memrl.llm.server import ServerBackend

    if config.url is None:  # LlmConfig refuses it
        raise BackendError("backend server needs the address of the server: give url.")
    total_s = config.timeout_s
    return ServerBackend(
        config.model,
        config.url,
        key_variable=config.key_variable,
        constrained=config.constrained,
        concurrency=config.concurrency,
        timeouts=Timeouts(read_s=total_s, total_s=total_s),
        retries=RetryOptions(retries=config.retries),
    )
