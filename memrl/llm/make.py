"""Makes the back end that a configuration names; what the others need is not imported."""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import ExitStack, contextmanager
from pathlib import Path
from typing import TYPE_CHECKING

from memrl.llm.backend import Backend, BackendError

if TYPE_CHECKING:
    from memrl.llm_config import LlmConfig


def make_backend(config: LlmConfig) -> Backend:
    """The language model of a configuration; see `recorded` for what is asked of it.

    Raises:
        BackendError: if there is no such model, or no such recording to be replayed.
    """
    if config.backend == "replay":
        from memrl.llm.record import ReplayBackend

        if config.record is None:  # LlmConfig refuses it
            raise BackendError("backend replay needs a recording: give record.")
        return ReplayBackend(Path(config.record))
    return _server(config) if config.backend == "server" else _local(config)


@contextmanager
def recorded(backend: Backend, config: LlmConfig, path: Path) -> Iterator[Backend]:
    """The back end with every exchange on disk; its files and connections are closed at the end.

    Args:
        backend: made from `config`. Of a replay nothing is recorded again.
        config: may name the file. path: of the recording if it does not.

    Raises:
        BackendError: if the recording is one of another model.
    """
    from memrl.llm.record import RecordingBackend

    with ExitStack() as stack:
        close = getattr(backend, "close", None)
        if close is not None:
            stack.callback(close)
        if config.backend == "replay":
            yield backend
        else:
            file = path if config.record is None else Path(config.record)
            yield stack.enter_context(RecordingBackend(backend, file))


def _local(config: LlmConfig) -> Backend:
    from memrl.llm.local import LocalBackend

    return LocalBackend(
        config.model, device=config.device, dtype=config.dtype, constrained=config.constrained
    )


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
