"""What a report takes from the files of a run folder, so that a damaged one is told in time.

Only what is read is checked; keys that a later version may add stay as they are.
"""

from __future__ import annotations

from typing import Annotated, Any, Self

from pydantic import (
    BaseModel,
    ConfigDict,
    Field,
    JsonValue,
    TypeAdapter,
    ValidationError,
    model_validator,
)

from memrl.run_files import first_mistake

_JSON: TypeAdapter[dict[str, JsonValue]] = TypeAdapter(dict[str, JsonValue])


class _Part(BaseModel):
    model_config = ConfigDict(strict=True, extra="allow", allow_inf_nan=False)


class _Split(_Part):
    kind: str
    fold: int


class _Paging(_Part):
    capacity: Annotated[int | float, Field(gt=0)]
    unit: str
    archival_capacity: int | float | None
    stage_from: str
    staging: str
    admission: str
    shown_slots: int | None


class _PageCache(_Part):
    source: str
    kinds: list[str]
    trace: str | None
    window_requests: int


class _Workload(_Part):
    name: str
    ask: str
    window_pages: int
    max_queries: int
    page_cache: _PageCache

    @model_validator(mode="after")
    def _have_parameters(self) -> Self:
        if not isinstance((self.model_extra or {}).get(self.name, {}), dict):
            raise ValueError(f"the parameters of {self.name} are no mapping")
        return self


class _Learner(_Part):
    rounds: int
    updates_per_round: int


class Config(_Part):
    """`config.yaml`, as far as it is read."""

    name: str
    seed: int
    algorithm: str
    split: _Split
    workload: _Workload
    paging: _Paging
    learner: _Learner


class _Policy(_Part):
    name: str


class Results(_Part):
    """`results.json`, as far as it is read: the records hold the rest."""

    schema_: Annotated[int, Field(alias="schema")]
    policies: list[_Policy]


class _Code(_Part):
    commit: str | None = None
    dirty: bool | None = None


class _Data(_Part):
    tables: dict[str, str] = {}


class Start(_Part):
    """One start in `provenance.json`."""

    command: list[str] = []
    versions: dict[str, str] = {}
    code: _Code = _Code()
    data: _Data = _Data()


class Metrics(_Part):
    """A line of `metrics.jsonl`."""

    global_step: int
    score: Annotated[float | None, Field(alias="eval/reward_per_question")] = None


def require_shape(shape: type[BaseModel], value: Any) -> None:
    """Raise ValueError, with the place and what is wrong there, unless the value has the shape.

    Args:
        shape: one of the classes above. value: as read from YAML or JSON.
    """
    try:
        shape.model_validate(_JSON.validate_python(value))
    except ValidationError as error:
        raise ValueError(first_mistake(error)) from error
