"""Three ways of running a step of fixed shape: as it stands, compiled, or captured as a CUDA graph.

A step takes nothing and gives nothing: it reads and writes tensors that stay where they are. What
runs eagerly is the reference; the other tiers do the same and fall back to it, with one warning,
where they cannot be had. A captured step is a compiled one whose kernels are replayed together.
"""

from __future__ import annotations

import warnings
from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager
from typing import Any, TypeVar, cast

import torch
from torch import Tensor

from memrl.errors import MemrlError
from memrl.policy_gradient_config import Tier

Step = Callable[[], None]
Function = TypeVar("Function", bound=Callable[..., Any])
WARM_UPS = 3  # what a side stream runs before a capture, as torch's notes on CUDA graphs ask for


class TierError(MemrlError):
    """A tier cannot be had on a device."""


def resolved_tier(tier: Tier, device: torch.device) -> Tier:
    """What "auto" means: captured on CUDA; eager on a CPU, where shapes that follow the rows win.

    Raises:
        TierError: if CUDA graphs are asked for on another device.
    """
    if tier == "auto":
        return "cudagraph" if device.type == "cuda" else "eager"
    if tier == "cudagraph" and device.type != "cuda":
        raise TierError(f"tier='cudagraph' needs a CUDA device, not {device.type}: use 'compile'.")
    return tier


def compiled(function: Function, backend: str = "inductor") -> Function:
    """Compile a function of tensors as a whole, for the shapes it is called with."""
    whole: Any = torch.compile(function, fullgraph=True, dynamic=False, backend=backend)
    return cast(Function, whole)


class TieredStep:
    """A step in the tier that was asked for, or eagerly where that fails.

    Args:
        eager: the step as it stands; it must not look at values on the host.
        compiled: the same with its parts compiled (`compiled`), not yet called.
        state: every tensor that it changes, brought back after runs that were only tries.
        tier: a resolved one.

    Attributes:
        tier: the one in use; settled by the first call.
    """

    def __init__(
        self, eager: Step, compiled: Step, state: Callable[[], Sequence[Tensor]], tier: Tier
    ) -> None:
        self._eager = eager
        self._compiled = compiled
        self._state = state
        self.tier: Tier = tier
        self._run = eager if tier == "eager" else self._first

    def __call__(self) -> None:
        """Make the step."""
        self._run()

    def _first(self) -> None:
        """Compile, perhaps capture, and make the step."""
        # The compiler takes seconds to import, and most programs never compile.
        from torch._dynamo.exc import TorchDynamoException
        from torch._inductor.exc import InductorError

        kept = [tensor.clone() for tensor in self._state()]
        # Autograd remembers on which stream the gradient of a weight was first added up, and a
        # capture on another one fails: so all tries are made where the capture will be.
        side = torch.cuda.Stream() if self.tier == "cudagraph" else None  # type: ignore[no-untyped-call]
        try:
            with _on(side), _without_remarks():
                self._compiled()
        except (TorchDynamoException, InductorError) as error:
            self._restore(kept)
            self._fall_back(error)
            self._run()
            return
        self._run = self._compiled
        if side is not None:
            self._restore(kept)
            self._capture(kept, side)

    def _capture(self, kept: list[Tensor], side: torch.cuda.Stream) -> None:
        """Replace the step by its graph, then make it once."""
        graph = torch.cuda.CUDAGraph()
        try:
            with _on(side):
                for _ in range(WARM_UPS):
                    self._compiled()
            # Of a table in shards, another thread may be making the next one ready meanwhile.
            with torch.cuda.graph(graph, stream=side, capture_error_mode="thread_local"):
                self._compiled()
        except RuntimeError as error:  # what CUDA and torch report of a failed capture
            self._restore(kept)
            self._fall_back(error)
        else:
            self._restore(kept)
            self._run = graph.replay
        self._run()

    def _restore(self, kept: list[Tensor]) -> None:
        with torch.no_grad():
            for tensor, value in zip(self._state(), kept, strict=True):
                tensor.copy_(value)

    def _fall_back(self, error: Exception) -> None:
        lines = str(error).strip().splitlines() or [type(error).__name__]
        reason = " ".join(lines[:2])  # the first one may do no more than name the compiler
        warnings.warn(
            f"tier={self.tier!r} cannot be had here ({reason}); it goes on eagerly, slower but "
            "with the same results.",
            RuntimeWarning,
            stacklevel=4,
        )
        self.tier = "eager"
        self._run = self._eager


@contextmanager
def _without_remarks() -> Iterator[None]:
    """Ignore what compilers advise or announce about their own workings; errors are raised."""
    with warnings.catch_warnings():
        for compiler in ("torch", "triton"):
            warnings.filterwarnings("ignore", module=rf"{compiler}\.")
        yield


@contextmanager
def _on(stream: torch.cuda.Stream | None) -> Iterator[None]:
    """Run on a stream, after what has been asked of the device before, and before what comes."""
    if stream is None:
        yield
        return
    stream.wait_stream(torch.cuda.current_stream())
    with torch.cuda.stream(stream):
        yield
    torch.cuda.current_stream().wait_stream(stream)
