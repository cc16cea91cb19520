"""Which index searches an archive: the choice, its parameters, and the rule of "auto"."""

from __future__ import annotations

import importlib.util
from dataclasses import dataclass
from typing import Literal, TypeAlias, get_args

from memrl.errors import MemrlError

ApproximateKind: TypeAlias = Literal["hnsw", "ivf", "ivf_pq"]
IndexKind: TypeAlias = Literal["auto", "flat", "faiss", "torch", "hnsw", "ivf", "ivf_pq"]
IndexDevice: TypeAlias = Literal["cpu", "cuda", "auto"]

AUTO_EXACT_BELOW = 200_000
"""Vectors from which "auto" searches approximately, where FAISS is installed and on a CPU."""
GROW_AT = 20_000
"""Vectors from which an approximate kind that was asked for takes over from an exact one."""


class VectorIndexError(MemrlError):
    """An index cannot be made, filled, searched or read; the message says what to do."""


@dataclass(frozen=True, slots=True)
class IndexOptions:
    """What searches the vectors of an archive.

    Attributes:
        kind: "flat" is exact at every size, by FAISS where it is installed, else by torch, with the
            same results; "faiss" and "torch" insist on one of them. "hnsw", "ivf" and "ivf_pq" are
            approximate (FAISS) and exact while small. "auto" is "flat", on a CPU "ivf" from
            `AUTO_EXACT_BELOW` vectors on.
        device: "cuda" must be there; "auto" takes it where it is and does the kind.
        grow_at: vectors from which "hnsw", "ivf" or "ivf_pq" searches; exact below.
        effort: recall against speed: 2 looks at about twice as much as 1 does.
        links: hnsw: neighbours that a vector is linked to.
        build_breadth: hnsw: candidates among which links are chosen (efConstruction).
        lists: ivf, ivf_pq: clusters; None for 4 times the root of the number of vectors.
        code_bytes: ivf_pq: bytes of a vector's code; divides the dimension.

    Raises:
        ValueError: if one is out of range.
    """

    kind: IndexKind = "auto"
    device: IndexDevice = "cpu"
    grow_at: int = GROW_AT
    effort: float = 1.0
    links: int = 32
    build_breadth: int = 80
    lists: int | None = None
    code_bytes: int = 48

    def __post_init__(self) -> None:
        for name, value, known in (
            ("kind", self.kind, get_args(IndexKind)),
            ("device", self.device, get_args(IndexDevice)),
        ):
            if value not in known:
                raise ValueError(f"An index's {name} is one of {', '.join(known)}, not {value!r}.")
        for name, least in (("grow_at", 1), ("links", 2), ("build_breadth", 1), ("code_bytes", 1)):
            if getattr(self, name) < least:
                raise ValueError(
                    f"An index's {name} is at least {least}, not {getattr(self, name)}."
                )
        if self.lists is not None and self.lists < 1:
            raise ValueError(f"An index's lists are at least 1, or None, not {self.lists}.")
        if not 0 < self.effort < float("inf"):
            raise ValueError(f"An index's effort is above 0 and finite, not {self.effort}.")


def as_options(index: IndexKind | IndexOptions) -> IndexOptions:
    """The options that a kind alone stands for."""
    return index if isinstance(index, IndexOptions) else IndexOptions(kind=index)


def has_faiss() -> bool:
    """Whether FAISS is installed."""
    return importlib.util.find_spec("faiss") is not None


def approximate_kind(
    options: IndexOptions, device: Literal["cpu", "cuda"]
) -> ApproximateKind | None:
    """The kind that takes over from `grows_at` vectors on; None for an index that stays exact."""
    if options.kind in get_args(ApproximateKind):
        return options.kind  # type: ignore[return-value]
    return "ivf" if options.kind == "auto" and device == "cpu" and has_faiss() else None


def grows_at(options: IndexOptions) -> int:
    """Vectors from which the approximate kind searches."""
    return AUTO_EXACT_BELOW if options.kind == "auto" else options.grow_at
