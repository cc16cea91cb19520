"""A server of chat completions, and a back end that asks it."""

from __future__ import annotations

from collections.abc import Iterator

import pytest
from chat_server import ChatServer, chatting, make

from memrl.llm.server import ServerBackend


@pytest.fixture
def server(monkeypatch: pytest.MonkeyPatch) -> Iterator[ChatServer]:
    """Without a key, and without a proxy before it."""
    for name in ("OPENAI_API_KEY", "HTTP_PROXY", "http_proxy", "ALL_PROXY", "all_proxy"):
        monkeypatch.delenv(name, raising=False)
    with chatting() as chat:
        yield chat


@pytest.fixture
def backend(server: ChatServer) -> Iterator[ServerBackend]:
    made = make(server)
    yield made
    made.close()
