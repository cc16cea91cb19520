"""Checks that the groups of a configuration make of their own fields."""

from __future__ import annotations

import re


def at_least(config: object, least: float, *names: str) -> None:
    """Raise ValueError for a field below its least value."""
    for name in names:
        value = getattr(config, name)
        if value is None or value < least:
            raise ValueError(f"{name} must be at least {least}, got {value}.")


def fractions(config: object, *names: str) -> None:
    """Raise ValueError for a field outside [0, 1)."""
    for name in names:
        value = getattr(config, name)
        if not 0 <= value < 1:
            raise ValueError(f"{name} must lie in [0, 1), got {value}.")


def above_0(config: object, *names: str) -> None:
    """Raise ValueError for a field that is not above 0."""
    for name in names:
        value = getattr(config, name)
        if not value > 0:
            raise ValueError(f"{name} must be above 0, got {value}.")


def device_names(config: object, *names: str) -> None:
    """Raise ValueError for a field that names no device."""
    for name in names:
        value = getattr(config, name)
        if not re.fullmatch(r"auto|cpu|cuda(:\d+)?", value):
            raise ValueError(f"{name} must be auto, cpu, cuda or cuda:<k>, got {value!r}.")
