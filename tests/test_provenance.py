from __future__ import annotations

import json
import os
import platform
import shutil
import subprocess
from datetime import UTC, datetime
from pathlib import Path
from typing import Any

import numpy as np
import pytest

from memrl import provenance
from memrl.provenance import collect_provenance
from memrl.seeding import Streams

needs_git = pytest.mark.skipif(shutil.which("git") is None, reason="git is not installed")


def git(folder: Path, *arguments: str) -> str:
    identity = ["-c", "user.name=a", "-c", "user.email=a@example.org", "-c", "commit.gpgsign=false"]
    environment = {key: value for key, value in os.environ.items() if not key.startswith("GIT_")}
    done = subprocess.run(
        ["git", "-C", str(folder), *identity, *arguments],
        capture_output=True,
        text=True,
        check=True,
        env=environment,
    )
    return done.stdout.strip()


@pytest.fixture
def checkout(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """A checkout whose only file plays the part of memrl's code."""
    source = tmp_path / "code" / "memrl" / "provenance.py"
    source.parent.mkdir(parents=True)
    source.write_text("one")
    git(tmp_path, "init", "-q", str(tmp_path / "code"))
    git(tmp_path / "code", "add", ".")
    monkeypatch.setattr(provenance, "__file__", str(source))
    return tmp_path / "code"


def code_version() -> Any:
    return collect_provenance(["train.py"], {}, {})["code"]


def test_record_is_json_and_says_what_ran() -> None:
    record = collect_provenance(
        ["train.py", "--seed=3"], Streams(3).describe(), {"locomo": {"sha256": "ab", "files": 1}}
    )
    assert json.loads(json.dumps(record, allow_nan=False)) == record
    assert record["command"] == ["train.py", "--seed=3"]
    assert record["versions"]["numpy"] == np.__version__
    assert record["versions"]["python"] == platform.python_version()
    assert record["seeds"]["seed"] == 3
    assert record["data"] == {"locomo": {"sha256": "ab", "files": 1}}
    age = datetime.now(UTC) - datetime.fromisoformat(record["started_utc"])
    assert abs(age.total_seconds()) < 60


def test_record_names_no_path_host_or_variable_of_this_machine(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    monkeypatch.setenv("MEMRL_TEST_SECRET", "hush-hush")
    here = Path.cwd()
    command = [str(here / "train.py"), f"--config={here}/configs/a.yaml", "--data-dir", "/x/y/data"]
    record = collect_provenance(command, {}, {})
    assert record["command"] == ["train.py", "--config=configs/a.yaml", "--data-dir", ".../data"]
    text = json.dumps(record)
    assert str(here) not in text
    assert str(Path.home()) not in text or str(Path.home()) == "/"
    assert platform.node() not in text
    assert "hush-hush" not in text


@needs_git
def test_commit_and_dirty_flag(checkout: Path) -> None:
    git(checkout, "commit", "-q", "-m", "one")
    assert code_version() == {"commit": git(checkout, "rev-parse", "HEAD"), "dirty": False}
    (checkout / "memrl" / "provenance.py").write_text("two")
    assert code_version()["dirty"] is True
    git(checkout, "checkout", "-q", ".")
    (checkout / "memrl" / "new.py").write_text("an untracked module can change a result too")
    assert code_version()["dirty"] is True


@needs_git
def test_a_copy_installed_in_another_checkout_has_no_commit(
    checkout: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    git(checkout, "commit", "-q", "-m", "one")
    installed = checkout / ".venv" / "provenance.py"
    installed.parent.mkdir()
    installed.write_text("")
    monkeypatch.setattr(provenance, "__file__", str(installed))
    assert code_version() == {"commit": None, "dirty": None}


@needs_git
def test_the_repository_of_a_git_hook_is_not_taken_for_this_one(
    checkout: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    git(checkout, "commit", "-q", "-m", "one")
    git(tmp_path, "init", "-q", "hooked")
    monkeypatch.setenv("GIT_DIR", str(tmp_path / "hooked" / ".git"))
    assert code_version()["commit"] == git(checkout, "rev-parse", "HEAD")


@needs_git
def test_repository_without_a_commit(checkout: Path) -> None:
    assert checkout.exists()
    assert code_version() == {"commit": None, "dirty": None}


def test_machine_without_git(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    monkeypatch.setenv("PATH", str(tmp_path))
    assert code_version() == {"commit": None, "dirty": None}
