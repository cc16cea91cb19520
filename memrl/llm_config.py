"""The group of a configuration for language models: which one, where it runs, what is recorded."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Literal

from memrl.config_checks import above_0, at_least, device_names
from memrl.llm.endpoint import check_url
from memrl.llm.server import KEY_VARIABLE


@dataclass(frozen=True)
class LlmConfig:
    """Which language model is asked, and how.

    Attributes:
        backend: where it runs: "local" on this machine by transformers, "server" behind an address
            that speaks OpenAI's chat-completions protocol, "replay" from a recording.
        model: "smollm2", a hub id, a folder or a .gguf file; of a server, the name that it knows.
            A recording names its own.
        url: of a server, up to the version: http://127.0.0.1:8000/v1.
        key_variable: environment variable that holds the server's key; the key itself is never
            part of a configuration.
        constrained: whether replies are held to the tools or choices that are offered.
        record: file that every exchange is written to, and that a killed run goes on from; of a
            replay, the file that is replayed.
        concurrency: requests that a server gets at once.
        timeout_s: most seconds until a server's reply is there.
        retries: times that a server is asked again.
        dtype: of a local model; "auto" is bfloat16 where the device has instructions for it.
        device: of a local model; "auto" takes CUDA when there is one.
    """

    backend: Literal["local", "server", "replay"] = "local"
    model: str = "smollm2"
    url: str | None = None
    key_variable: str = KEY_VARIABLE
    constrained: bool = True
    record: str | None = None
    concurrency: int = 8
    timeout_s: float = 120.0
    retries: int = 4
    dtype: Literal["auto", "float32", "bfloat16", "float16"] = "auto"
    device: str = "auto"

    def __post_init__(self) -> None:
        """Refuse what no model could be asked with."""
        at_least(self, 1, "concurrency")
        at_least(self, 0, "retries")
        above_0(self, "timeout_s")
        device_names(self, "device")
        if not self.model or not self.key_variable:
            raise ValueError("model and key_variable must not be empty.")
        if self.backend == "server":
            if self.url is None:
                raise ValueError(
                    "backend server needs the address of the server: give url, for example "
                    "http://127.0.0.1:8000/v1."
                )
            check_url(self.url)
        elif self.url is not None:
            raise ValueError(
                f"url is for backend server, and backend is {self.backend}: leave one of them out."
            )
        if self.backend == "replay" and self.record is None:
            raise ValueError("backend replay needs a recording: give record.")
