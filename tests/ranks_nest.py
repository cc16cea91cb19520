"""Runs jobs in several processes that `torch.distributed` joins, as torchrun does it.

    python ranks_nest.py             then, a `Job` as JSON a line on its input

The program imports everything once and forks the ranks of each job. Rank k writes what it prints to
rank<k>.out and rank<k>.err in the job's folder. When all have ended the program says their exit
statuses as a JSON list.
"""

from __future__ import annotations

import importlib
import json
import os
import signal
import sys
import time
from collections.abc import Callable
from dataclasses import asdict, dataclass, field
from datetime import timedelta
from pathlib import Path
from typing import Any, Literal

import safetensors.torch
import torch
from small_learners import OPTIONS, maker
from table_fixtures import small_table
from tiny_runs import LOG_EVERY, train_module
from torch._C._distributed_c10d import TCPStore

from envs.batched import BatchedPaging
from memrl import distributed, learning
from memrl.algos.gain_regression import GainRegression
from memrl.algos.group_policy_gradient import GroupPolicyGradient
from memrl.algos.policy_gradient import PolicyGradient
from memrl.algos.shares import Share
from memrl.checkpoint import module_tensors
from memrl.config import LearnerConfig, NetworkConfig, RunConfig, parse_config
from memrl.distributed import LostRankError, Ranks
from memrl.errors import MemrlError
from memrl.launch import joined
from memrl.policy_gradient_config import PolicyGradientConfig, PPOConfig
from memrl.seeding import Streams

STRUCK = {kind.__name__: kind for kind in (GainRegression, GroupPolicyGradient, Ranks)}
CPU = torch.device("cpu")
GRACE_S = 1.0


@dataclass(frozen=True)
class Fault:
    """What happens to a rank, and when: at the `call`-th call of a method of its class."""

    rank: int
    kind: Literal["GainRegression", "GroupPolicyGradient", "Ranks"]
    method: str
    call: int
    what: Literal["kill", "interrupt", "crash", "hang"]

    def __post_init__(self) -> None:
        """Refuse what could never happen: the other ranks would wait for the one that fails."""
        getattr(STRUCK[self.kind], self.method)


@dataclass(frozen=True)
class Job:
    """What all ranks do.

    Attributes:
        job: "train": train.py with `arguments`. "exchange": the same, and instead of learning
            numbers are summed again and again. "learn": all learners, without a run. "part": rank
            0 leaves, and its process goes on.
        fault: what happens to one of them.
        environment: further variables.
        stops_others: send SIGTERM to the others when one has failed, as torchrun does.
    """

    job: Literal["train", "exchange", "learn", "part"]
    world_size: int
    folder: str
    arguments: list[str] = field(default_factory=list)
    fault: Fault | None = None
    environment: dict[str, str] = field(default_factory=dict)
    stops_others: bool = False

    def to_json(self) -> str:
        """One line of the program's input."""
        return json.dumps(asdict(self))

    @classmethod
    def of(cls, line: str) -> Job:
        """Read what `to_json` wrote."""
        values = json.loads(line)
        fault = values.pop("fault")
        return cls(**values, fault=Fault(**fault) if fault else None)


# ---------------------------------------------------------------------------------------- faults


def arrange(fault: Fault) -> None:
    """Let the fault happen in this process."""
    kind = STRUCK[fault.kind]
    original, calls = getattr(kind, fault.method), 0

    def struck(self: Any, *args: Any, **kwargs: Any) -> Any:
        nonlocal calls
        calls += 1
        if calls == fault.call:
            strike(fault.what)
        return original(self, *args, **kwargs)

    setattr(kind, fault.method, struck)


def strike(what: str) -> None:
    """Let it happen now."""
    if what == "kill":
        os.kill(os.getpid(), signal.SIGKILL)
    elif what == "interrupt":
        os.kill(os.getpid(), signal.SIGINT)
    elif what == "crash":
        raise ZeroDivisionError("a mistake in the code")
    elif what == "hang":
        time.sleep(600)


# ---------------------------------------------------------------------------------------- jobs


def train(arguments: list[str], begin: Callable[[RunConfig, Ranks], None] | None = None) -> int:
    """Run train.py with these arguments, perhaps with something else to do for its ranks."""
    sys.argv = ["train.py", *arguments]
    if begin is not None:
        setattr(train_module(), "begin", begin)  # noqa: B010
    code: int = train_module().main()
    return code


def exchange(config: RunConfig, ranks: Ranks) -> None:
    """Sum numbers again and again, for at most two minutes."""
    del config
    for _ in range(1200):
        time.sleep(0.1)
        ranks.sum(torch.zeros(3))


def learn(folder: Path) -> int:
    """Some rounds of every learner; writes their weights and losses."""
    with joined("cpu") as ranks:
        imitation, imitation_losses = imitated(ranks)
        record: dict[str, Any] = {"gain": imitation_losses}
        tensors = module_tensors(imitation.network, "gain.")
        for name in ("group", "ppo"):
            gradient, record[name] = improved(name, ranks)
            tensors |= {f"{name}.{key}": value for key, value in gradient.checkpoint()[0].items()}
        record["exchanged"] = exchanges(ranks)
        safetensors.torch.save_file(tensors, folder / f"rank{ranks.rank}.safetensors")
        (folder / f"rank{ranks.rank}.json").write_text(json.dumps(record))
    return 0


def imitated(ranks: Ranks) -> tuple[GainRegression, list[float]]:
    """Two rounds of gain regression, with everything that is drawn."""
    config = LearnerConfig(
        rounds=2,
        episodes_per_round=4,
        updates_per_round=3,
        batch_size=32,
        learning_rate=1e-2,
        exploration=0.3,
    )
    share = Share.of(ranks, config.episodes_per_round, "episodes_per_round")
    made = GainRegression(
        BatchedPaging(small_table(0, num_episodes=8), OPTIONS, 2),  # fewer rows than episodes
        NetworkConfig(hidden=8),
        config,
        Streams(0),
        thresholds=(-0.5, 0.5),
        device=CPU,
        share=share,
    )
    losses = []
    for _ in range(config.rounds):
        made.begin_round()
        losses += [made.update() for _ in range(config.updates_per_round)]
    return made, [*losses, made.num_decisions, made.global_step]


def improved(name: str, ranks: Ranks) -> tuple[PolicyGradient, list[dict[str, float]]]:
    """Two iterations of a policy gradient."""
    config = PolicyGradientConfig(
        total_timesteps=2_000,
        num_groups=3,
        group_size=2,
        update_epochs=1,
        num_minibatches=20,  # so small that a rank has none of some of them
        learning_rate=1e-3,
        kl_coef=0.1,
    )
    num_rows = config.num_groups * config.group_size
    share = Share.of(ranks, num_rows, "rows")
    made = maker(name, PPOConfig(critic_epochs=1))(
        BatchedPaging(small_table(1), OPTIONS, len(share)),
        NetworkConfig(hidden=8, slot_pool=False),
        config,
        Streams(0),
        gain_scale=0.1,
        initial=None,
        device=CPU,
        share=share,
    )
    return made, [made.iterate() for _ in range(2)]


def exchanges(ranks: Ranks) -> dict[str, Any]:
    """What `Ranks` promises, on numbers that tell where they come from."""
    rank = ranks.rank
    linear = torch.nn.Linear(2, 1)
    torch.nn.init.constant_(linear.weight, float(rank + 1))
    ranks.broadcast_module(linear)
    if rank != 1:  # a rank whose part of a minibatch is empty has no gradient
        linear(torch.tensor([[1.0, 10.0]])).sum().backward()
    numbers = ranks.sum_gradients(linear, torch.tensor([rank + 1.0]), weight=0.5 * (rank + 1))
    gradient = linear.weight.grad
    order: list[int] = []
    with ranks.first_alone():
        order.append(rank)
    return {
        "gather": [own.tolist() for own in ranks.gather(torch.arange(rank, dtype=torch.float64))],
        "sum": ranks.sum(torch.tensor([1, rank])).tolist(),
        "first": ranks.from_first(lambda: f"rank {rank}"),
        "weight": linear.weight.tolist(),
        "gradient": None if gradient is None else gradient.tolist(),
        "numbers": numbers.tolist(),
        "same": refused(ranks),
    }


def refused(ranks: Ranks) -> str:
    """What a rank is told whose data differ."""
    try:
        ranks.require_same("data", {"tables": {"train": min(ranks.rank, 1)}})
        ranks.require_equal_shares(7 if ranks.is_alone else 7 * ranks.world_size, "groups")
    except MemrlError as error:
        return str(error)
    return ""


def part() -> int:
    """Rank 0 leaves while the others wait; its process goes on until they have noticed."""
    with joined("cpu") as ranks:
        if ranks.is_first:
            ranks.leave(MemrlError("enough"))
            os._exit(0 if ranks._hear() == {1: "lost"} else 1)
        try:
            ranks.sum(torch.zeros(1))
        except LostRankError as error:
            os._exit(0 if "because rank 0 has: enough" in str(error) else 1)
    return 2


# ---------------------------------------------------------------------------------------- program


def be_rank(job: Job, rank: int, port: int) -> int:
    """Do the job in a forked process."""
    for number, stream in ((1, "out"), (2, "err")):
        file = os.open(f"{job.folder}/rank{rank}.{stream}", os.O_WRONLY | os.O_CREAT | os.O_APPEND)
        os.dup2(file, number)
    os.environ |= {
        "RANK": str(rank),
        "LOCAL_RANK": str(rank),
        "WORLD_SIZE": str(job.world_size),
        "MASTER_ADDR": "127.0.0.1",
        "MASTER_PORT": str(port),
        "TORCHELASTIC_USE_AGENT_STORE": "True",
    } | job.environment
    distributed._GRACE_S = GRACE_S
    learning.LOG_EVERY = LOG_EVERY
    if job.fault and job.fault.rank == rank:
        arrange(job.fault)
    if job.job == "learn":
        return learn(Path(job.folder))
    if job.job == "part":
        return part()
    return train(job.arguments, exchange if job.job == "exchange" else None)


def codes_of(pids: list[int], stops_others: bool) -> list[int]:
    """Wait for all; their exit statuses, negative for signals."""
    codes: dict[int, int] = {}
    while len(codes) < len(pids):
        pid, status = os.waitpid(-1, 0)
        codes[pid] = os.waitstatus_to_exitcode(status)
        if codes[pid] and stops_others:
            for other in set(pids) - set(codes):
                os.kill(other, signal.SIGTERM)
    return [codes[pid] for pid in pids]


def main() -> None:
    """Fork the ranks of every job on the input."""
    torch.set_num_threads(1)
    train_module()
    # What a run imports or makes at its first need: here once instead of in every rank.
    for name in ("sklearn.linear_model", "torch._dynamo"):
        importlib.import_module(name)
    parse_config([])
    for line in sys.stdin:
        job = Job.of(line)
        pids, pipes = [], []
        for rank in range(job.world_size):
            reads, writes = os.pipe()
            pid = os.fork()
            if pid == 0:
                sys.exit(be_rank(job, rank, int(os.read(reads, 16))))
            pids.append(pid)
            pipes.append(writes)
        # Made after the forks: it has threads. Kept here, so that it outlives every rank.
        store = TCPStore(
            "127.0.0.1",
            0,
            is_master=True,
            wait_for_workers=False,
            timeout=timedelta(seconds=60),
        )
        for pipe in pipes:
            os.write(pipe, str(store.port).encode())
        print(json.dumps(codes_of(pids, job.stops_others)), flush=True)
        del store


if __name__ == "__main__":
    main()
