"""How fast environments are, from the files that benchmarks write with `--json`."""

from __future__ import annotations

import re
import statistics
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Annotated, Any

from pydantic import BaseModel, ConfigDict, Field, TypeAdapter, ValidationError

from memrl.evaluation.report.drawing import Drawing, add_legend, new_axes, styles, wrapped
from memrl.run_files import RunError, first_mistake

_Rate = Annotated[float, Field(gt=0)]
_Rates = Annotated[list[_Rate], Field(min_length=1)]


class _Part(BaseModel):
    model_config = ConfigDict(strict=True, allow_inf_nan=False)


class _Machine(_Part):
    platform: str
    device: str


class _File(_Part):
    machine: _Machine
    rows: list[dict[str, Any]]


class _EngineRow(_Part):
    """Of tests/benchmarks/env_sps.py."""

    engine: str
    play: str
    num_envs: Annotated[int, Field(gt=0)]
    decisions_per_s: _Rate
    lowest: _Rate
    highest: _Rate


class _EnvironmentRow(_Part):
    """Of tests/benchmarks/vector_env_sps.py."""

    environment: str
    num_envs: Annotated[int, Field(gt=0)]
    per_wall_s: _Rates


class _ArmRow(_Part):
    """Of tests/benchmarks/device_sps.py."""

    view: str
    tier: str
    num_envs: Annotated[int, Field(gt=0)]
    decisions_per_s: _Rates


_ROW: TypeAdapter[_EngineRow | _EnvironmentRow | _ArmRow] = TypeAdapter(
    _EngineRow | _EnvironmentRow | _ArmRow
)


@dataclass(frozen=True)
class Rate:
    """Decisions per second of wall time.

    Attributes:
        name: what plays. num_envs: environments that it steps together.
        median, low, high: over repeats. machine: where it was measured.
    """

    name: str
    num_envs: int
    median: float
    low: float
    high: float
    machine: str


def read_rates(path: Path) -> list[Rate]:
    """The rates in a file of `env_sps.py`, `vector_env_sps.py` or `device_sps.py`.

    Raises:
        RunError: if it cannot be read, or holds anything else.
    """
    try:
        file = _File.model_validate_json(path.read_bytes())
        rows = [_ROW.validate_python(row) for row in file.rows]
    except OSError as error:
        raise RunError(f"{path} cannot be read ({error}): name another file.") from error
    except ValidationError as error:
        raise RunError(
            f"{path} holds no rates of environments ({first_mistake(error)}): give what "
            "env_sps.py, vector_env_sps.py or device_sps.py of tests/benchmarks write with --json."
        ) from error
    if not rows:
        raise RunError(f"{path} holds no rates: measure again, or leave it out.")
    machine = f"{file.machine.device}, {file.machine.platform}"
    return [_rate(row, machine) for row in rows]


def _rate(row: _EngineRow | _EnvironmentRow | _ArmRow, machine: str) -> Rate:
    if isinstance(row, _EngineRow):
        numbers = row.decisions_per_s, row.lowest, row.highest
        return Rate(f"{row.engine}, {row.play}", row.num_envs, *numbers, machine)
    if isinstance(row, _EnvironmentRow):
        name, rates = re.sub(r" of \d+(,\d{3})*", "", row.environment), row.per_wall_s
    else:
        name, rates = f"{row.view}, {row.tier}", row.decisions_per_s
    return Rate(name, row.num_envs, statistics.median(rates), min(rates), max(rates), machine)


def decisions_per_second(rates: Sequence[Rate], key: str) -> Drawing:
    """Decisions per second against environments stepped together, both logarithmic.

    Args:
        rates: at least one; of the same name on another machine they are another curve.
    """
    machines = list(dict.fromkeys(rate.machine for rate in rates))
    curves: dict[str, list[Rate]] = {}
    for rate in rates:
        place = f" ({machines.index(rate.machine) + 1})" if len(machines) > 1 else ""
        curves.setdefault(rate.name + place, []).append(rate)
    look = styles([(name, "learned") for name in curves])
    labels = {name: wrapped(name) for name in curves}
    figure, axes = new_axes(2.7, [*labels.values()])
    for name, own in curves.items():
        own.sort(key=lambda rate: rate.num_envs)
        sizes = [rate.num_envs for rate in own]
        axes.plot(sizes, [rate.median for rate in own], label=labels[name], **look[name].line())
        low, high = [rate.low for rate in own], [rate.high for rate in own]
        axes.fill_between(sizes, low, high, **look[name].band())
    axes.set_xscale("log")
    axes.set_yscale("log")
    ticks = sorted({rate.num_envs for rate in rates})
    axes.set_xticks(ticks[:: max(1, len(ticks) // 6)])
    axes.xaxis.set_major_formatter("{x:,.0f}")
    axes.yaxis.set_major_formatter("{x:,.0f}")
    axes.minorticks_off()
    axes.set_xlabel("environments stepped together, log scale")
    axes.set_ylabel("decisions / second, log scale")
    add_legend(figure, axes)
    fastest = max(rates, key=lambda rate: rate.median)
    places = machines if len(machines) == 1 else [f"({n}) {m}" for n, m in enumerate(machines, 1)]
    return Drawing(
        key,
        "Decisions per second of wall time by environments stepped together, medians; bands are "
        f"the lowest and the highest repeat; {'; '.join(places)}",
        f"{len(curves)} curves; the fastest is {fastest.name} with {fastest.num_envs:,} "
        f"environments at {fastest.median:,.0f} decisions per second.",
        ["environment", "stepped together", "decisions / second", "lowest to highest"],
        [
            [name, f"{own.num_envs}", f"{own.median:,.0f}", f"{own.low:,.0f} to {own.high:,.0f}"]
            for name, curve in curves.items()
            for own in curve
        ],
        figure,
    )
