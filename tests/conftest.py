"""Settings of every test: no network, no wandb, no shared cache, one thread.

The environment variables are read when the heavy packages are imported, hence before anything else.
"""

from __future__ import annotations

import os
import shutil
import tempfile
from pathlib import Path

_SCRATCH = Path(tempfile.mkdtemp(prefix="memrl-tests-"))
# The one cache that tests share with the person who runs them: converting a model takes a minute.
# Workers of xdist inherit the variable, and see MEMRL_CACHE already changed.
MODEL_CACHE = "MEMRL_MODEL_CACHE_OF_TESTS"
os.environ.setdefault(MODEL_CACHE, os.environ.get("MEMRL_CACHE") or "~/.cache/memrl")
os.environ.update(
    HF_HUB_OFFLINE="1",
    TRANSFORMERS_OFFLINE="1",
    WANDB_MODE="disabled",
    WANDB_SILENT="true",
    OMP_NUM_THREADS="1",
    TOKENIZERS_PARALLELISM="false",
    MPLBACKEND="Agg",
)
for _variable in (
    "MEMRL_CACHE",
    "WANDB_DIR",
    "WANDB_DATA_DIR",
    "WANDB_CACHE_DIR",
    "WANDB_CONFIG_DIR",
    "WANDB_ARTIFACT_DIR",
):
    _folder = _SCRATCH / _variable.lower()
    _folder.mkdir()
    os.environ[_variable] = str(_folder)
# A key of the person who runs the tests is not for them to use.
os.environ.pop("WANDB_API_KEY", None)

from collections.abc import Iterator  # noqa: E402

import pytest  # noqa: E402
import torch  # noqa: E402
from rng_guard import global_rng_poisoned  # noqa: E402

torch.set_num_threads(1)


def pytest_unconfigure() -> None:
    shutil.rmtree(_SCRATCH, ignore_errors=True)


@pytest.fixture(scope="session")
def data_dir() -> Path:
    """The folder of the real data sets; the test is skipped where there is none."""
    value = os.environ.get("MEMRL_DATA")
    if not value:
        pytest.skip("MEMRL_DATA is not set: this test needs the real data sets")
    if not Path(value).is_dir():
        pytest.fail(f"MEMRL_DATA is {value}, which is not a folder")
    return Path(value)


@pytest.fixture(scope="session")
def model_cache() -> Path:
    """The cache that holds converted models from one run of the tests to the next."""
    return Path(os.environ[MODEL_CACHE]).expanduser()


@pytest.fixture
def poison_global_rng() -> Iterator[None]:
    """Fail the test if it draws from a global random state (not together with hypothesis)."""
    with global_rng_poisoned():
        yield
