"""How a process finds the others that `torchrun` started with it, and its device."""

from __future__ import annotations

import importlib
import os
import signal
import warnings
from collections.abc import Iterator
from contextlib import ExitStack, contextmanager, redirect_stdout
from datetime import timedelta
from pathlib import Path

import torch
import torch.distributed as dist
from torch.distributed.distributed_c10d import PrefixStore
from torch.distributed.rendezvous import rendezvous

from memrl.config import ConfigurationError
from memrl.distributed import ALONE, RankError, Ranks

TIMEOUT_S = 1800.0
"""Longest wait for the other ranks at one exchange; evaluation by rank 0 has to fit into it."""
TIMEOUT_VARIABLE = "MEMRL_RANK_TIMEOUT_S"


def launched() -> tuple[int, int, int]:
    """Rank, number of ranks and local rank that torchrun gave this process; (0, 1, 0) without it.

    Raises:
        RankError: if they are no ranks.
    """
    values = [os.environ.get(name, "") for name in ("RANK", "WORLD_SIZE")]
    if not all(values):
        return 0, 1, 0
    values.append(os.environ.get("LOCAL_RANK", "0"))
    if not all(value.isdecimal() for value in values) or int(values[0]) >= int(values[1]):
        raise RankError(
            f"RANK, WORLD_SIZE and LOCAL_RANK are {', '.join(map(repr, values))} in the "
            "environment: start with torchrun, which sets them, or without them."
        )
    rank, world_size, local_rank = map(int, values)
    return rank, world_size, local_rank


def rank_label() -> str:
    """What begins an error's text: the rank if there are several, else nothing."""
    try:
        rank, world_size, _ = launched()
    except RankError:  # what is being reported
        return ""
    return f"rank {rank}: " if world_size > 1 else ""


@contextmanager
def joined(device: str) -> Iterator[Ranks]:
    """Join the ranks that torchrun started; alone without it.

    Args:
        device: as `RunConfig.device`; gradients travel by NCCL unless it is "cpu".

    Raises:
        RankError: if the environment is not torchrun's.
        LostRankError: if a rank stops or does not answer; any other of the block's errors is told
            to the other ranks, and raised again.
    """
    rank, world_size, local_rank = launched()
    if world_size == 1:
        yield ALONE
        return
    ranks = _connected(rank, world_size, local_rank, device)
    with ExitStack() as stack:
        if not ranks.is_first:
            nowhere = stack.enter_context(Path(os.devnull).open("w"))
            stack.enter_context(redirect_stdout(nowhere))
            stack.enter_context(warnings.catch_warnings())
            warnings.simplefilter("ignore")
        before = signal.signal(signal.SIGTERM, ranks.on_terminate)
        stack.callback(signal.signal, signal.SIGTERM, before)
        try:
            yield ranks
        except BaseException as error:
            ranks.leave(error)
            raise
        ranks.leave(None)


def pick_device(name: str, ranks: Ranks) -> torch.device:
    """The device that a configuration names; "auto" is CUDA when there is one.

    Of several ranks each takes the CUDA device of its number on this machine.
    """
    if name == "auto":
        name = "cuda" if torch.cuda.is_available() else "cpu"
    device = torch.device(name)
    if device.type == "cuda" and not ranks.is_alone:
        if ":" in name:
            raise ConfigurationError(
                f"{name} is one device, and there are {ranks.world_size} processes: use --device "
                "cuda, and each takes its own."
            )
        device = torch.device("cuda", ranks.local_rank)
    if device.type == "cuda" and (device.index or 0) >= torch.cuda.device_count():
        raise ConfigurationError(
            f"There is no device {device} (torch sees {torch.cuda.device_count()} CUDA devices): "
            "use --device auto or cpu, or start fewer processes."
        )
    return device


def _connected(rank: int, world_size: int, local_rank: int, device: str) -> Ranks:
    uses_cuda = device != "cpu" and torch.cuda.is_available()
    if uses_cuda and local_rank < torch.cuda.device_count():
        torch.cuda.set_device(local_rank)
    uses_nccl = uses_cuda and dist.is_nccl_available()
    timeout = timedelta(seconds=_timeout_s())
    # Its functions have the group of that moment as a default. Imported later (by torch.optim), it
    # would keep the group, and with it the connections whose end tells the others that a rank left.
    importlib.import_module("torch.distributed.nn.functional")
    try:
        store, _, _ = next(rendezvous("env://", rank, world_size, timeout=timeout))
        dist.init_process_group(
            "cpu:gloo,cuda:nccl" if uses_nccl else "gloo",
            store=PrefixStore("group", store),
            rank=rank,
            world_size=world_size,
            timeout=timeout,
        )
    except (RuntimeError, ValueError) as error:
        raise RankError(
            f"the {world_size} processes could not find each other ({error}): start them with "
            "torchrun."
        ) from error
    attempt = os.environ.get("TORCHELASTIC_RESTART_COUNT", "0")
    left = PrefixStore(f"memrl-{attempt}", store)
    return Ranks(rank, world_size, local_rank, left, wakes_others=not uses_nccl)


def _timeout_s() -> float:
    value = os.environ.get(TIMEOUT_VARIABLE, str(TIMEOUT_S))
    try:
        seconds = float(value)
    except ValueError:
        seconds = 0.0
    if not 0 < seconds < float("inf"):
        raise RankError(f"{TIMEOUT_VARIABLE} is {value!r}: give a number of seconds above 0.")
    return seconds
