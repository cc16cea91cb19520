"""Several processes that learn one policy together, as `torchrun` starts them.

    torchrun --standalone --nproc_per_node 2 train.py --config configs/locomo_gpg.yaml

A process is a rank of `torch.distributed`. Rank 0 writes the run folder, evaluates and decides; the
others are silent but for errors. Alone (without torchrun, or with one process) nothing is exchanged
and every method gives back what it was given.

Numbers on the CPU travel by gloo, gradients on CUDA devices by NCCL, each rank on the device of its
LOCAL_RANK. A rank that ends before the others, by an error or by Ctrl-C, says why in the store that
torchrun keeps. The others notice at their next exchange (gloo loses the connection) or by SIGTERM
(torchrun sends it when a process has failed) and stop with that reason. One that says nothing has
been killed, or is stuck when an exchange takes too long (`memrl.launch`).
"""

from __future__ import annotations

import functools
import re
import time
from collections.abc import Callable, Iterator, Mapping
from contextlib import contextmanager, suppress
from types import FrameType
from typing import Any, TypeVar

import torch
import torch.distributed as dist
from torch import Tensor, nn
from torch.distributed.distributed_c10d import Store

from memrl.errors import MemrlError
from memrl.interrupt import Interrupted
from memrl.resuming import differing_keys

T = TypeVar("T")

_GRACE_S = 5.0  # in which ranks that are alive say that they, too, have lost the others
_DONE, _LOST, _INTERRUPTED = "done", "lost", "interrupted"


class RankError(MemrlError):
    """The ranks of a run do not fit together."""


class LostRankError(RankError):
    """Another rank has stopped or does not answer."""


class Ranks:
    """This process among those of the run.

    Args:
        rank, world_size: of this process, and how many there are.
        local_rank: among those of this machine; the number of its CUDA device.
        store: where a rank says why it ends; None alone.
        wakes_others: whether ranks that wait for gradients notice that one has left: gloo's do.
            NCCL's would wait for the timeout, so nobody may leave while they are exchanged.
    """

    def __init__(
        self,
        rank: int = 0,
        world_size: int = 1,
        local_rank: int = 0,
        store: Store | None = None,
        *,
        wakes_others: bool = True,
    ) -> None:
        self.rank = rank
        self.world_size = world_size
        self.local_rank = local_rank
        self.wakes_others = wakes_others
        self._store = store
        self._is_leaving = False
        self._is_exchanging = False
        self._is_told_to_stop = False

    @property
    def is_alone(self) -> bool:
        """Whether there is one process."""
        return self.world_size == 1

    @property
    def is_first(self) -> bool:
        """Whether this is the rank that writes, evaluates and decides."""
        return self.rank == 0

    # ------------------------------------------------------------------ exchanges

    def gather(self, values: Tensor) -> list[Tensor]:
        """The vectors of all ranks, in their order.

        Args:
            values: (n,) on the CPU; n may differ between ranks, the type may not.
        """
        if self.is_alone:
            return [values]
        lengths = [torch.zeros(1, dtype=torch.int64) for _ in range(self.world_size)]
        self._exchange(lambda: dist.all_gather(lengths, torch.tensor([len(values)])))
        longest = max(map(int, lengths))
        padded = nn.functional.pad(values, (0, longest - len(values)))
        gathered = [torch.empty_like(padded) for _ in lengths]
        self._exchange(lambda: dist.all_gather(gathered, padded))
        return [own[: int(length)] for own, length in zip(gathered, lengths, strict=True)]

    def sum(self, values: Tensor) -> Tensor:
        """Sum of the ranks' tensors, which have one shape."""
        if self.is_alone:
            return values
        total = values.clone()
        self._exchange(lambda: dist.all_reduce(total))
        return total

    def sum_gradients(self, module: nn.Module, numbers: Tensor, weight: float = 1.0) -> Tensor:
        """Give every rank the sum over ranks of `weight` times their gradients, by one exchange.

        With a loss that is a mean over decisions, `weight` is the rank's part of the decisions, and
        the sum is the gradient of the mean over all. A parameter without a gradient counts as 0.

        Args:
            module: whose gradients are summed; on all ranks the same parameters.
            numbers: (k,) float32 on the module's device, summed along with the gradients.

        Returns:
            (k,) the sums of `weight * numbers`.
        """
        if self.is_alone:
            return numbers
        parameters = list(module.parameters())
        gradients = [torch.zeros_like(p) if p.grad is None else p.grad for p in parameters]
        flat = torch.cat([*(gradient.flatten() for gradient in gradients), numbers]) * weight
        self._exchange(lambda: dist.all_reduce(flat))
        pieces = torch.split(flat, [*(p.numel() for p in parameters), len(numbers)])
        for parameter, piece in zip(parameters, pieces, strict=False):
            parameter.grad = piece.view_as(parameter)
        return pieces[-1]

    def from_first(self, make: Callable[[], T]) -> T:
        """What `make` returns on rank 0, where alone it is called."""
        if self.is_alone:
            return make()
        made: list[Any] = [make() if self.is_first else None]
        self._exchange(lambda: dist.broadcast_object_list(made, device=torch.device("cpu")))
        value: T = made[0]
        return value

    def broadcast_module(self, module: nn.Module) -> None:
        """Give every rank the parameters and buffers of rank 0."""
        if self.is_alone:
            return
        for value in module.state_dict().values():
            self._exchange(functools.partial(dist.broadcast, value, src=0))

    @contextmanager
    def first_alone(self) -> Iterator[None]:
        """Rank 0 runs the block before the others do, so that they find what it left in caches."""
        if not self.is_first:
            self._barrier()
        yield
        if self.is_first:
            self._barrier()

    def require_same(self, what: str, record: Mapping[str, Any]) -> None:
        """Raise RankError unless the record is that of rank 0."""
        different = differing_keys(self.from_first(lambda: record), record)
        if different:
            raise RankError(
                f"this process has {what} other than rank 0's ({', '.join(different[:5])} "
                "differ): start all of them on the same code and files."
            )

    def require_equal_shares(self, total: int, name: str) -> None:
        """Raise RankError unless the ranks can divide `total` equally."""
        if total % self.world_size:
            raise RankError(
                f"{name} is {total}, which {self.world_size} processes cannot share equally: take "
                f"a multiple of {self.world_size}, or another number of processes."
            )

    def _barrier(self) -> None:
        self.sum(torch.zeros(1))

    # ------------------------------------------------------------------ losing each other

    def _exchange(self, call: Callable[[], object]) -> None:
        """Call torch; say who is missing, and why, when it fails or the process is to stop."""
        failed: RuntimeError | None = None
        self._is_exchanging = True
        try:
            call()
        except RuntimeError as error:  # torch's for lost connections and timeouts alike
            failed = error.with_traceback(None)  # its frames would keep the connections open
        finally:
            self._is_exchanging = False
        if self._is_told_to_stop:
            raise self._cause("a SIGTERM came") from failed
        if failed is not None:
            raise self._cause(f"an exchange failed: {_first_words(failed)}") from failed

    def _cause(self, what: str) -> Exception:
        """Find out why the others are gone: Interrupted, or an error that says it."""
        self._end(_LOST)
        told = self._hear()
        if _INTERRUPTED in told.values():
            return Interrupted()
        for rank, reason in told.items():
            if reason not in (_DONE, _LOST):
                return LostRankError(f"stopped, because rank {rank} has: {reason}")
        silent = [str(rank) for rank in self._others if rank not in told]
        if silent:
            what = f"rank {' and '.join(silent)} died or does not answer ({what})"
        return LostRankError(
            f"stopped, because {what}: a run that has a checkpoint goes on with --resume true."
        )

    @property
    def _others(self) -> list[int]:
        return [rank for rank in range(self.world_size) if rank != self.rank]

    def _end(self, reason: str) -> None:
        """Say in the store why this rank ends, in place of what it said before, and disconnect."""
        self._is_leaving = True
        if self._store is not None:
            with suppress(RuntimeError):  # the store is gone with whoever kept it
                self._store.set(f"left/{self.rank}", reason)
        # After a failure NCCL's group might wait for ever; the end of the process ends it.
        if dist.is_initialized() and (self.wakes_others or reason == _DONE):
            dist.destroy_process_group()

    def _hear(self) -> dict[int, str]:
        """What the other ranks have said, once a cause is known, all have spoken or time is up."""
        told: dict[int, str] = {}
        end = time.monotonic() + _GRACE_S
        while self._store is not None and time.monotonic() < end:
            with suppress(RuntimeError):
                for rank in self._others:
                    if self._store.check([f"left/{rank}"]):
                        told[rank] = self._store.get(f"left/{rank}").decode()
            if len(told) == len(self._others) or set(told.values()) - {_DONE, _LOST}:
                break
            time.sleep(0.05)
        return dict(sorted(told.items()))

    def leave(self, error: BaseException | None) -> None:
        """Say why this rank ends; the others are not waited for."""
        if error is None:
            self._end(_DONE)
        elif isinstance(error, Interrupted | KeyboardInterrupt):
            self._end(_INTERRUPTED)
        elif isinstance(error, LostRankError):  # not the cause, which is another rank's to tell
            self._end(_LOST)
        elif isinstance(error, MemrlError):
            self._end(str(error))
        else:
            self._end(f"{type(error).__name__}: {error}")

    def on_terminate(self, number: int, frame: FrameType | None) -> None:
        """Handler of SIGTERM: stop with the reason for which torchrun stops the ranks."""
        del number, frame
        self._is_told_to_stop = True
        # Within an exchange connections cannot be closed: `_exchange` stops when it has ended.
        if not (self._is_leaving or self._is_exchanging):
            raise self._cause("a SIGTERM came")


def _first_words(error: RuntimeError) -> str:
    """What gloo says, without the place in its code before and the advice after it."""
    return re.sub(r"^\[[^]]*\] ", "", str(error)).partition("\n")[0].partition(". ")[0]


ALONE = Ranks()
