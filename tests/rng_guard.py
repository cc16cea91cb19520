"""Makes every use of a global random state fail: Python's, NumPy's and torch's.

What can be replaced raises where it is called, so that the traceback names the place. The rest (a
reference taken earlier, torch's operators) is found by comparing the states afterwards.
"""

from __future__ import annotations

import random
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from types import ModuleType
from typing import Any

import numpy as np
import pytest
import torch

# Reading a state and putting it back draws nothing.
_HARMLESS = {"getstate", "setstate", "get_state", "set_state"}
# Plain functions in numpy.random that use its global state without being methods of it.
_NUMPY_FUNCTIONS = ("ranf", "sample", "seed")


class GlobalRandomnessError(AssertionError):
    """Something used a global random state."""


@contextmanager
def global_rng_poisoned() -> Iterator[None]:
    """Raise GlobalRandomnessError in the block, or at its end, if a global state is used."""
    before = _states()
    with pytest.MonkeyPatch.context() as patch:
        for module, method in ((random, "choice"), (np.random, "normal")):
            for name in _methods_of_global_state(module, method):
                patch.setattr(module, name, _raiser(f"{module.__name__}.{name}"))
        for name in _NUMPY_FUNCTIONS:
            patch.setattr(np.random, name, _raiser(f"numpy.random.{name}"))
        patch.setattr(np.random, "default_rng", _seeded_only(np.random.default_rng))
        patch.setattr(torch, "manual_seed", _raiser("torch.manual_seed"))
        yield
    after = _states()
    used = [name for name, state in before.items() if after[name] != state]
    if used:
        raise GlobalRandomnessError(f"The global random state of {', '.join(used)} was used.")


def _states() -> dict[str, Any]:
    states: dict[str, Any] = {
        "random": random.getstate(),
        "numpy.random": repr(tuple(map(_bytes, np.random.get_state(legacy=True)))),  # noqa: NPY002
        "torch": torch.random.get_rng_state().numpy().tobytes(),
    }
    if torch.cuda.is_available():
        states["torch.cuda"] = [s.numpy().tobytes() for s in torch.cuda.get_rng_state_all()]
    return states


def _bytes(value: Any) -> Any:
    return value.tobytes() if isinstance(value, np.ndarray) else value


def _methods_of_global_state(module: ModuleType, one_of_them: str) -> list[str]:
    """Names of the module's functions that are methods of the same object as `one_of_them`."""
    state = getattr(module, one_of_them).__self__
    functions = {name: getattr(module, name) for name in dir(module) if not name.startswith("_")}
    return [
        name
        for name, function in functions.items()
        if name not in _HARMLESS and getattr(function, "__self__", None) is state
    ]


def _raiser(name: str) -> Callable[..., Any]:
    def raise_instead(*_args: object, **_kwargs: object) -> Any:
        raise GlobalRandomnessError(f"{name} uses a global random state: pass a generator.")

    return raise_instead


def _seeded_only(default_rng: Callable[..., Any]) -> Callable[..., Any]:
    def checked(seed: object = None) -> Any:
        if seed is None:
            raise GlobalRandomnessError("default_rng() without a seed cannot be reproduced.")
        return default_rng(seed)

    return checked
