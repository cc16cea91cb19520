from __future__ import annotations

import subprocess
import sys
import warnings
from pathlib import Path
from typing import Any

import gymnasium
import numpy as np
import pytest
from gymnasium.utils.env_checker import check_env
from gymnasium.wrappers import FlattenObservation
from table_fixtures import random_action, small_table

import memrl
from envs.paging import PagingEnv
from memrl.config import ConfigurationError
from memrl.options import PagingOptions
from memrl.registration import IDS, own_envs, register_envs

ROOT = Path(__file__).parents[1]
PLAY = """
import gymnasium
for name in ("Conversation", "NestedKV", "DocumentQA", "PageCache"):
    env = gymnasium.make(f"memrl/{name}-v0")
    observation, info = env.reset(seed=0)
    observation, reward, terminated, truncated, info = env.step(env.action_space.sample())
    assert observation["action_mask"].sum() >= 1
    print("played", env.spec.id)
"""


def python(program: str, *path: Path) -> subprocess.CompletedProcess[str]:
    """Run a program with these folders first on the import path."""
    program = f"import sys; sys.path[:0] = {[str(folder) for folder in path]!r}\n{program}"
    return subprocess.run(
        [sys.executable, "-W", "error::UserWarning", "-c", program],
        capture_output=True,
        text=True,
        check=False,
        timeout=240,
        cwd=path[0],
    )


@pytest.mark.parametrize("package", ["memrl", "envs"])
def test_importing_either_package_registers_the_environments(package: str, tmp_path: Path) -> None:
    done = python(f"import {package}\n{PLAY}", tmp_path, ROOT)
    assert done.returncode == 0, done.stderr
    assert done.stdout.splitlines() == [f"played {name}" for name in IDS]


@pytest.mark.parametrize("is_package", [True, False])
def test_another_package_called_envs_gives_one_clear_error(
    tmp_path: Path, is_package: bool
) -> None:
    foreign = tmp_path / "envs"
    foreign.mkdir()
    if is_package:
        (foreign / "__init__.py").write_text("SOMETHING = 'else'\n")
    else:
        (tmp_path / "envs.py").write_text("SOMETHING = 'else'\n")
        foreign.rmdir()
    done = python(
        "import memrl, gymnasium\n"
        "try:\n"
        "    gymnasium.make('memrl/Conversation-v0')\n"
        "except ImportError as error:\n"
        "    print(error)\n",
        tmp_path,
        ROOT,
    )
    assert done.returncode == 0, done.stderr
    assert "memrl needs its own top-level package `envs`" in done.stdout
    assert str(tmp_path / "envs") in done.stdout
    assert "sys.path" in done.stdout


def test_importing_memrl_is_light(tmp_path: Path) -> None:
    """The environments and what they need are imported when one is made."""
    done = python(
        "import memrl\n"
        "heavy = ['torch', 'transformers', 'sentence_transformers', 'wandb', 'envs', 'sklearn']\n"
        "print([name for name in heavy if name in sys.modules])\n",
        tmp_path,
        ROOT,
    )
    assert done.returncode == 0, done.stderr
    assert done.stdout == "[]\n"


def test_registering_again_changes_nothing() -> None:
    before = {name: gymnasium.registry[name] for name in IDS}
    register_envs()
    assert {name: gymnasium.registry[name] for name in IDS} == before
    assert before["memrl/Conversation-v0"].entry_point == "memrl.registration:make_conversation"


def test_entry_points_are_texts() -> None:
    """So that nothing is imported before an environment is made."""
    assert all(isinstance(entry_point, str) for entry_point in IDS.values())
    assert own_envs().PROJECT == "memrl"
    assert memrl.__version__


def test_a_table_and_options_can_be_given() -> None:
    options = PagingOptions(capacity=3, num_candidates=2)
    env = gymnasium.make("memrl/Conversation-v0", table=small_table(0), options=options)
    inner = env.unwrapped
    assert isinstance(inner, PagingEnv)
    assert inner.table is small_table(0)
    assert inner.options.capacity == 3
    env.close()


def test_fields_of_the_options_can_be_given() -> None:
    env = gymnasium.make("memrl/Conversation-v0", table=small_table(0), capacity=2)
    inner = env.unwrapped
    assert isinstance(inner, PagingEnv)
    assert inner.options.capacity == 2
    with pytest.raises(TypeError, match="nonsense"):
        gymnasium.make("memrl/Conversation-v0", table=small_table(0), nonsense=2)
    env.close()


def test_environments_can_be_vectorised() -> None:
    envs = gymnasium.make_vec(
        "memrl/Conversation-v0", num_envs=2, vectorization_mode="sync", table=small_table(0)
    )
    observation, _ = envs.reset(seed=0)
    assert observation["slots"].shape[0] == 2
    envs.close()


# ---------------------------------------------------------------------- nested key-value retrieval


def nested_kv(**fields: Any) -> gymnasium.Env[Any, Any]:
    return gymnasium.make("memrl/NestedKV-v0", **fields)


def test_nested_kv_begins_at_a_question_with_everything_in_archival() -> None:
    env = nested_kv()
    observation, _ = env.reset(seed=0)
    inner = env.unwrapped
    assert isinstance(inner, PagingEnv)
    assert (inner.options.capacity, inner.options.archival_capacity) == (8, None)
    assert (inner.options.num_candidates, inner.options.staging) == (10, "lexical")
    assert observation["candidates"].shape[0] == 10
    assert inner.privileged_state().state.archived.all()
    assert set(inner.table.text.categories) == {f"level {level}" for level in range(7)}


def test_fields_and_options_of_nested_kv_can_be_given() -> None:
    changed: Any = nested_kv(num_candidates=3).unwrapped
    assert (changed.options.num_candidates, changed.options.staging) == (3, "lexical")
    given: Any = nested_kv(options=PagingOptions(archival_capacity=50)).unwrapped
    assert (given.options.staging, given.options.num_candidates) == ("hybrid_neighbours", 16)
    with pytest.raises(ConfigurationError, match="archival_capacity is 5"):
        nested_kv(archival_capacity=5)
    with pytest.raises(TypeError, match="not str"):
        nested_kv(table="table.safetensors")


def test_checkers_have_nothing_to_say_about_nested_kv() -> None:
    sb3 = pytest.importorskip("stable_baselines3.common.env_checker")
    with warnings.catch_warnings():
        warnings.simplefilter("error")
        check_env(nested_kv().unwrapped)
        sb3.check_env(FlattenObservation(nested_kv().unwrapped))
        # Set encoders want rows; SB3 recommends the flattened view, which is checked above.
        warnings.filterwarnings("ignore", message=".*unconventional shape")
        sb3.check_env(nested_kv().unwrapped)


def test_nested_kv_with_the_same_seed_is_the_same() -> None:
    def rollout(seed: int) -> list[Any]:
        env = nested_kv()
        observation, info = env.reset(seed=seed)
        rng, steps = np.random.default_rng(seed), []
        for _ in range(60):
            action = np.int64(random_action(info["action_mask"], rng))
            observation, reward, terminated, _, info = env.step(action)
            arrays = {name: value.tobytes() for name, value in observation.items()}
            steps.append((int(action), reward, terminated, arrays))
            if terminated:
                observation, info = env.reset()
        return steps

    assert rollout(3) == rollout(3)
    assert rollout(3) != rollout(4)


# ---------------------------------------------------------------------- documents


def test_document_qa_begins_at_a_question_with_its_passages_in_archival() -> None:
    env = gymnasium.make("memrl/DocumentQA-v0")
    observation, _ = env.reset(seed=0)
    inner: Any = env.unwrapped
    assert (inner.options.capacity, inner.options.archival_capacity) == (2, None)
    assert (inner.options.num_candidates, inner.options.staging) == (4, "hybrid")
    assert observation["candidates"].shape[0] == 4
    assert inner.privileged_state().state.archived.all()
    assert set(inner.table.text.categories) == {"bridge", "comparison", "single"}
    wider: Any = gymnasium.make("memrl/DocumentQA-v0", capacity=3).unwrapped
    assert (wider.options.capacity, wider.options.staging) == (3, "hybrid")
    with pytest.raises(TypeError, match="not str"):
        gymnasium.make("memrl/DocumentQA-v0", table="table.safetensors")


def test_the_checker_has_nothing_to_say_about_document_qa() -> None:
    with warnings.catch_warnings():
        warnings.simplefilter("error")
        check_env(gymnasium.make("memrl/DocumentQA-v0").unwrapped)


@pytest.mark.parametrize("wrong", ["capcity", "workload", "data_dir"])
def test_unknown_arguments_are_named_beside_the_known_ones(wrong: str) -> None:
    arguments: dict[str, Any] = {wrong: 24}
    with pytest.raises(TypeError, match=rf"{wrong}.*archival_capacity.*preset_tables"):
        gymnasium.make("memrl/Conversation-v0", **arguments)
