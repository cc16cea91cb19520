"""Which back end a configuration makes, and what no back end could be made of."""

from __future__ import annotations

import dataclasses
import json
import subprocess
import sys
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import pytest
from chat_server import ChatServer

from memrl.llm.backend import BackendError, ChatMessage, Request
from memrl.llm.make import make_backend, recorded
from memrl.llm.scripted import ScriptedBackend
from memrl.llm_config import LlmConfig

ASK = Request((ChatMessage("user", "where"),))


@pytest.mark.parametrize(
    ("settings", "message"),
    [
        ({"backend": "server"}, "give url"),
        ({"backend": "server", "url": "localhost:8000"}, "The URL of a server"),
        ({"url": "http://127.0.0.1:8000/v1"}, "url is for backend server, and backend is local"),
        ({"backend": "replay"}, "give record"),
        ({"model": ""}, "model and key_variable"),
        ({"key_variable": ""}, "model and key_variable"),
        ({"concurrency": 0}, "concurrency"),
        ({"retries": -1}, "retries"),
        ({"timeout_s": 0.0}, "timeout_s"),
        ({"device": "gpu"}, "device"),
    ],
)
def test_settings_that_cannot_be_are_refused(settings: dict[str, Any], message: str) -> None:
    with pytest.raises(ValueError, match=message):
        LlmConfig(**settings)


def test_a_configuration_is_plain() -> None:
    settings = dataclasses.asdict(LlmConfig(record="llm.jsonl"))
    assert LlmConfig(**json.loads(json.dumps(settings))) == LlmConfig(record="llm.jsonl")


def test_a_server_is_recorded_and_replayed_without_it(
    tmp_path: Path, server: ChatServer, monkeypatch: pytest.MonkeyPatch
) -> None:
    record = str(tmp_path / "llm.jsonl")
    monkeypatch.setenv("MY_KEY", "sk-secret")
    config = LlmConfig(
        "server", "tiny", server.url, "MY_KEY", constrained=False, record=record, concurrency=2
    )
    with recorded(make_backend(config), config, tmp_path / "other.jsonl") as backend:
        replies = backend.complete([ASK])
    assert not (tmp_path / "other.jsonl").exists()
    assert server.headers[0]["Authorization"] == "Bearer sk-secret"
    assert "sk-secret" not in Path(record).read_text()
    replay = make_backend(LlmConfig("replay", record=record))
    assert replay.complete([ASK]) == replies
    assert replay.identity == backend.identity
    assert replay.identity["constrained"] is False
    assert len(server.bodies) == 1


def test_a_local_model_is_told_what_the_configuration_says(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    told: dict[str, Any] = {}

    def local(model: str, **settings: Any) -> ScriptedBackend:
        told.update(settings, model=model)
        return ScriptedBackend(["yes"])

    monkeypatch.setitem(sys.modules, "memrl.llm.local", SimpleNamespace(LocalBackend=local))
    assert isinstance(make_backend(LlmConfig()), ScriptedBackend)
    assert told == {"model": "smollm2", "device": "auto", "dtype": "auto", "constrained": True}
    backend = make_backend(
        LlmConfig(
            model="folder",
            constrained=False,
            dtype="float32",
            device="cpu",
        )
    )
    assert isinstance(backend, ScriptedBackend)
    assert told == {"model": "folder", "device": "cpu", "dtype": "float32", "constrained": False}


def test_exchanges_are_recorded_beside_the_run_unless_a_file_is_named(tmp_path: Path) -> None:
    beside, named = tmp_path / "run" / "exchanges.jsonl", tmp_path / "named.jsonl"
    for config, path in (
        (LlmConfig(), beside),
        (LlmConfig(record=str(named)), named),
    ):
        with recorded(ScriptedBackend(["yes"]), config, beside) as backend:
            (reply,) = backend.complete([ASK])
        before = path.read_bytes()
        replay = LlmConfig("replay", record=str(path))
        with recorded(make_backend(replay), replay, beside) as backend:
            assert backend.complete([ASK]) == [reply]
        assert path.read_bytes() == before


def test_a_missing_recording_is_one_error(tmp_path: Path) -> None:
    with pytest.raises(BackendError, match="cannot be read"):
        make_backend(LlmConfig("replay", record=str(tmp_path / "none.jsonl")))


def test_what_is_not_used_is_not_imported() -> None:
    """A replay needs no transport and a server no transformers."""
    program = (
        "import sys\n"
        "from memrl.llm.make import make_backend\n"
        "from memrl.llm_config import LlmConfig\n"
        "make_backend(LlmConfig('server', url='http://127.0.0.1:1/v1'))\n"
        "print([m for m in ('transformers', 'httpx', 'llguidance') if m in sys.modules])"
    )
    done = subprocess.run(
        [sys.executable, "-c", program], capture_output=True, text=True, check=True
    )
    assert done.stdout.strip() == "[]"
