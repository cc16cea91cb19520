"""What README.md and the documents show is there, and runs as it stands."""

from __future__ import annotations

import contextlib
import io
import re
from pathlib import Path
from typing import Any

import pytest

from envs.workloads.tables import Tables, example_table
from memrl.config import parse_config
from memrl.documents import Document, Page
from memrl.options import PagingOptions
from memrl.table_build import fit_lexical_statistics

ROOT = Path(__file__).parents[1]
PAGES = [ROOT / "README.md", *sorted((ROOT / "docs").glob("*.md"))]
TEXTS = {path.name: path.read_text(encoding="utf-8") for path in PAGES}


def blocks(text: str, language: str) -> list[str]:
    return re.findall(rf"```{language}\n(.*?)```", text, flags=re.DOTALL)


def test_the_twelve_lines_run_as_they_stand() -> None:
    code, _ = blocks(TEXTS["README.md"], "python")
    assert len([line for line in code.splitlines() if line.strip()]) <= 12
    out = io.StringIO()
    with contextlib.redirect_stdout(out):
        exec(compile(code, "README.md", "exec"), {})
    first, *text = out.getvalue().splitlines()
    assert re.fullmatch(r"-?\d+\.\d\d", first)
    assert text, "observation_text() is empty"


def test_the_lines_that_use_a_data_set_run_as_they_stand(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    """But for the data, which are made up here."""
    _, code = blocks(TEXTS["README.md"], "python")
    asked: list[str] = []

    def made_up(preset: str, *arguments: str) -> tuple[Tables, PagingOptions]:
        parse_config(["--config", str(ROOT / preset), *arguments])
        asked.append(preset)
        table = example_table()
        tables = Tables(
            table, table, table, fit_lexical_statistics([Document("d", (Page("a b"),), ())])
        )
        return tables, PagingOptions(capacity=4)

    monkeypatch.setattr("envs.workloads.tables.preset_tables", made_up)
    names: dict[str, Any] = {}
    exec(compile(code, "README.md", "exec"), names)
    assert asked == ["configs/locomo.yaml"]
    assert names["env"].unwrapped.options.capacity == 4


def test_the_example_of_the_memory_runs_as_it_stands(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    code, _ = blocks(TEXTS["memory.md"], "python")
    assert len([line for line in code.splitlines() if line.strip()]) <= 20
    monkeypatch.chdir(tmp_path)
    out = io.StringIO()
    names: dict[str, object] = {}
    with contextlib.redirect_stdout(out):
        exec(compile(code, "memory.md", "exec"), names)
    block, found, *messages = out.getvalue().splitlines()
    assert (block, found) == ("Has a cat, Biscuit.", "Ana: vet on Friday.")
    assert messages[0].startswith("system ")
    assert "user [page 2] My cat is called Biscuit." in messages
    assert messages[-1].endswith("Noted!")
    assert len(list(names["tools"])) == 9  # type: ignore[call-overload]


def test_the_episode_on_a_live_memory_runs_as_it_stands() -> None:
    _, code = blocks(TEXTS["memory.md"], "python")
    out = io.StringIO()
    with contextlib.redirect_stdout(out):
        exec(compile(code, "memory.md", "exec"), {})
    assert out.getvalue() == "1.0 4 0\n"  # as its comment says
    assert f"# {out.getvalue()}" in code


def test_the_example_of_retrieval_runs_as_it_stands() -> None:
    pytest.importorskip("faiss")
    (code,) = blocks(TEXTS["retrieval.md"], "python")
    out = io.StringIO()
    with contextlib.redirect_stdout(out):
        exec(compile(code, "retrieval.md", "exec"), {})
    assert out.getvalue() == "The vet is on Friday.\n"


def test_the_example_of_prompted_models_runs_as_it_stands() -> None:
    (code,) = blocks(TEXTS["prompted.md"], "python")
    out = io.StringIO()
    names: dict[str, Any] = {}
    with contextlib.redirect_stdout(out):
        exec(compile(code, "prompted.md", "exec"), names)
    assert re.fullmatch(r"\d+ \{'em': \[\d\.0, \d+\.0\]\} \d+\n", out.getvalue())
    assert names["records"][0].operations["store"] > 0
    assert len(names["everything"]) == names["records"][0].num_queries


@pytest.mark.parametrize("name", TEXTS)
def test_files_that_a_page_names_are_there(name: str) -> None:
    for path in re.findall(r"`((?:memrl|envs|configs|tests|docs)/[^`\s]*)`", TEXTS[name]):
        assert list(ROOT.glob(path.rstrip("/"))), f"{name} names {path}"
    for path in re.findall(r"`(\w+\.(?:py|toml|txt))`", TEXTS[name]):
        inside = list((ROOT / "memrl").rglob(path))
        assert (ROOT / path).exists() or inside, f"{name} names {path}"


IN_LOOPS = {"$seed": "0", "$preset": "locomo", "$capacity": "8"}
"""What loops of the shell put into a command."""


@pytest.mark.parametrize("name", TEXTS)
def test_commands_that_a_page_shows_exist(name: str) -> None:
    makefile = (ROOT / "Makefile").read_text(encoding="utf-8")
    lines = "\n".join(blocks(TEXTS[name], "bash")).splitlines()
    for command in [part for line in lines for part in line.split("#")[0].split(";")]:
        words = re.sub(r"\$\w+", lambda found: IN_LOOPS[found[0]], command).split()
        if words[:1] == ["make"]:
            assert f"\n{words[1]}:" in makefile, command
        if any(word.endswith("train.py") for word in words):
            parse_config(words[words.index("train.py") + 1 :])
