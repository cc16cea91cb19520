"""Who may import whom, read from the source: imports inside functions count as well."""

from __future__ import annotations

import ast
import re
import sys
import tomllib
from collections.abc import Iterator
from dataclasses import dataclass
from importlib import metadata
from pathlib import Path

import pytest

ROOT = Path(__file__).resolve().parent.parent
FILES = sorted(
    path.relative_to(ROOT) for folder in ("memrl", "envs") for path in (ROOT / folder).rglob("*.py")
) + [path.relative_to(ROOT) for path in ROOT.glob("train.py")]

# These put the parts together; everything else in memrl is a library.
PROGRAMS = {
    "train",
    "memrl.agent",
    "memrl.registration",
    "memrl.evaluation.__main__",
    "memrl.evaluation.ablation",
    "memrl.evaluation.replay",
    "memrl.evaluation.run_world",
}
# The ground floor. The cache and the base of errors are modules of their own, because the floors
# above use them as well.
GROUND = ("memrl.memory", "memrl.cache", "memrl.errors")
WITHOUT_TORCH = {
    f"memrl.memory.{name}"
    for name in (
        *("paging", "bm25", "tokens", "scores", "results", "columns", "database", "chunks"),
        *("recall", "recall_rows", "term_index"),
        *("blocks", "main_context", "queue_manager", "summarizers", "executor", "chain"),
        *(
            "context_page",
            "display",
            "external",
            "refusals",
            "schemas",
            "window",
            "accounting",
            "saved_context",
            "queue_moves",
        ),
    )
}
HEAVY = {"sentence_transformers", "transformers", "trl", "httpx", "wandb", "faiss", "matplotlib"}


@dataclass(frozen=True)
class Import:
    module: str  # absolute; for `from a import b` both a and a.b
    line: int
    at_top: bool  # executed when the module is imported


def imports(path: Path, source: str) -> list[Import]:
    """Every import of the file, relative ones resolved; type-checking ones are not at the top."""
    return [
        Import(module, getattr(node, "lineno", 0), at_top)
        for node, at_top in _walk(ast.parse(source), at_top=True)
        for module in _imported(node, path.parts[:-1])
    ]


def _walk(node: ast.AST, at_top: bool) -> Iterator[tuple[ast.AST, bool]]:
    yield node, at_top
    lazy = isinstance(node, ast.FunctionDef | ast.AsyncFunctionDef | ast.Lambda)
    if isinstance(node, ast.If) and "TYPE_CHECKING" in ast.unparse(node.test):
        for statement in node.body:
            yield from _walk(statement, at_top=False)
        for statement in node.orelse:
            yield from _walk(statement, at_top)
        return
    for child in ast.iter_child_nodes(node):
        yield from _walk(child, at_top and not lazy)


def _imported(node: ast.AST, package: tuple[str, ...]) -> list[str]:
    if isinstance(node, ast.Import):
        return [alias.name for alias in node.names]
    if isinstance(node, ast.ImportFrom):
        base = package[: len(package) - node.level + 1] if node.level else ()
        module = ".".join([*base, *([node.module] if node.module else [])])
        return [module, *(f"{module}.{alias.name}" for alias in node.names)]
    if isinstance(node, ast.Call) and node.args and isinstance(node.args[0], ast.Constant):
        function = ast.unparse(node.func).rpartition(".")[2]
        if function in ("import_module", "__import__"):
            return [str(node.args[0].value)]
    return []


def within(module: str, *packages: str) -> bool:
    return any(module == package or module.startswith(package + ".") for package in packages)


def name_of(path: Path) -> str:
    return ".".join(path.with_suffix("").parts).removesuffix(".__init__")


def violations(path: Path, source: str) -> list[str]:
    """What the file imports against the rules, as `line: reason`."""
    importer = name_of(path)
    broken = []
    for found in imports(path, source):
        module = found.module
        reasons = {
            "a library does not know the environments": within(importer, "memrl")
            and importer not in PROGRAMS
            and within(module, "envs"),
            "nobody imports a program or the tests": within(module, "train", "tests"),
            "the ground floor knows nothing of memrl": within(importer, *GROUND)
            and within(module, "memrl")
            and module != "memrl"
            and not within(module, *GROUND),
            "the ground floor knows no gymnasium": within(importer, *GROUND)
            and within(module, "gymnasium"),
            "the core and recall need no torch": importer in WITHOUT_TORCH
            and within(module, "torch"),
            "environments do not know who plays": within(importer, "envs")
            and within(module, "memrl.policies", "memrl.algos", "memrl.evaluation"),
            "language models do not know who asks them": within(importer, "memrl.llm")
            and within(module, "envs", "memrl.policies", "memrl.algos", "memrl.evaluation"),
            "heavy packages are imported where they are used": found.at_top
            and within(module, *HEAVY)
            and within(importer, "memrl", "envs"),
        }
        broken += [
            f"{path}:{found.line} imports {module}: {rule}" for rule, hit in reasons.items() if hit
        ]
    return broken


@pytest.mark.parametrize("path", FILES, ids=str)
def test_imports_follow_the_layers(path: Path) -> None:
    assert violations(path, (ROOT / path).read_text(encoding="utf-8")) == []


@pytest.mark.parametrize(
    ("path", "source"),
    [
        ("memrl/table.py", "import envs"),
        ("memrl/__init__.py", "import envs.paging"),
        ("memrl/policies/network.py", "def f():\n    from envs.paging import PagingEnv"),
        ("memrl/algos/rollout.py", "from envs import batched"),
        ("memrl/evaluation/metrics.py", "if True:\n    import envs"),
        (
            "memrl/evaluation/__init__.py",
            "import importlib\nimportlib.import_module('envs.paging')",
        ),
        ("memrl/config.py", "import train"),
        ("memrl/config.py", "from tests import wandb_reader"),
        ("memrl/memory/paging.py", "from memrl.table import EpisodeTable"),
        ("memrl/memory/recall.py", "from .. import documents"),
        ("memrl/memory/__init__.py", "from ..documents import Page"),
        ("memrl/memory/recall.py", "from memrl import documents"),
        ("memrl/cache.py", "from memrl.table import EpisodeTable"),
        ("memrl/memory/recall.py", "import gymnasium as gym"),
        ("memrl/memory/bm25.py", "def f():\n    import torch.nn"),
        ("envs/paging.py", "from memrl.policies.heuristics import Lru"),
        ("envs/batched.py", "import memrl.algos"),
        ("envs/workloads/locomo.py", "def f():\n    from memrl import evaluation"),
        ("memrl/llm/local.py", "from memrl.policies import heuristics"),
        ("memrl/llm/make.py", "def f():\n    import memrl.evaluation.summary"),
        ("memrl/llm/prompts.py", "from memrl.algos.labels import gains"),
        ("memrl/llm/backend.py", "import envs"),
        ("memrl/llm/endpoint.py", "import httpx"),
        ("memrl/wandb_mirror.py", "import wandb"),
        (
            "memrl/memory/archival.py",
            "try:\n    import faiss\nexcept ImportError:\n    faiss = None",
        ),
        ("memrl/policies/llm.py", "class A:\n    from transformers import AutoTokenizer"),
        ("envs/rendering.py", "import matplotlib.pyplot as plt"),
        (
            "envs/rendering.py",
            "from typing import TYPE_CHECKING\n"
            "if TYPE_CHECKING:\n    pass\nelse:\n    import matplotlib",
        ),
    ],
)
def test_a_violation_is_noticed(path: str, source: str) -> None:
    assert len({line.partition(" ")[0] for line in violations(Path(path), source)}) == 1


@pytest.mark.parametrize(
    ("path", "source"),
    [
        ("train.py", "import envs\nfrom memrl import evaluation, policies\nimport wandb"),
        ("memrl/evaluation/__main__.py", "import envs"),
        ("memrl/evaluation/replay.py", "from envs.paging import PagingEnv"),
        ("memrl/agent.py", "import envs"),
        ("memrl/registration.py", "def f():\n    import envs"),
        ("memrl/table.py", "from memrl.memory import paging"),
        ("memrl/memory/embedders.py", "from memrl.cache import EmbeddingCache"),
        ("memrl/memory/__init__.py", "from . import recall\nfrom .paging import PagingCore"),
        ("memrl/memory/paging.py", "from memrl.memory.scores import Scores\nimport numpy"),
        ("memrl/memory/archival.py", "import torch\ndef f():\n    import faiss"),
        ("memrl/policies/llm.py", "f = lambda: __import__('transformers')"),
        ("memrl/policies/llm.py", "from memrl.llm.backend import Backend"),
        ("memrl/llm/endpoint.py", "def f():\n    import httpx"),
        ("envs/paging.py", "import gymnasium, torch\nfrom memrl import observation, table"),
        (
            "memrl/wandb_mirror.py",
            "from typing import TYPE_CHECKING\nif TYPE_CHECKING:\n    import wandb",
        ),
    ],
)
def test_what_is_allowed_is_not_reported(path: str, source: str) -> None:
    assert violations(Path(path), source) == []


def normalized(name: str) -> str:
    return re.sub(r"[-_.]+", "-", name).lower()


def requirements(*extras: str) -> set[str]:
    """Names of the distributions that pyproject.toml asks for."""
    project = tomllib.loads((ROOT / "pyproject.toml").read_text(encoding="utf-8"))["project"]
    asked = project["dependencies"] + [
        line for extra in extras for line in project["optional-dependencies"][extra]
    ]
    return {normalized(re.split(r"[<>=!~;\[ ]", line)[0]) for line in asked}


def test_every_foreign_package_is_a_declared_dependency() -> None:
    """At the top of a module only what is always installed; inside functions the extras too."""
    providers = metadata.packages_distributions()
    always, sometimes = requirements(), requirements("cpu", "gpu", "llm")
    own = {"memrl", "envs", "train"}
    missing = []
    for path in FILES:
        for found in imports(path, (ROOT / path).read_text(encoding="utf-8")):
            package = found.module.partition(".")[0]
            if package in own or package in sys.stdlib_module_names:
                continue
            declared = always if found.at_top else always | sometimes
            names = {normalized(name) for name in providers.get(package, [package])}
            if not names & declared:
                missing.append(f"{path}:{found.line} imports {package}")
    assert missing == []


def test_the_rules_name_modules_that_exist() -> None:
    """A rule for a module that was renamed would hold nothing any more."""
    present = {name_of(path) for path in FILES}
    assert present >= WITHOUT_TORCH | set(GROUND)
