"""Several processes on the CPU: the numbers of one, one writer, and what happens when one stops."""

from __future__ import annotations

import json
import os
import shutil
import signal
import subprocess
import sys
import time
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import pytest
import safetensors.torch
import torch
from ranks_nest import Fault, Job
from tiny_runs import ROOT, TINY, episodes_of, json_lines, preset, results_of

from memrl.checkpoint import load_checkpoint
from memrl.launch import TIMEOUT_VARIABLE

UPDATES = TINY["learner"]["updates_per_round"]
LONGEST_S = 240  # on a machine that has much else to do
GRADIENT = [
    *("--algorithm", "group_policy_gradient", "--network.slot_pool", "false"),
    *("--policy_gradient.total_timesteps", "300", "--policy_gradient.num_groups", "4"),
    *("--policy_gradient.group_size", "2", "--policy_gradient.num_minibatches", "2"),
    *("--policy_gradient.eval_every", "2", "--policy_gradient.max_restarts", "0"),
]


@dataclass(frozen=True)
class Ended:
    """How the ranks of a job ended: exit statuses, and what each printed."""

    codes: list[int]
    out: list[str]
    err: list[str]

    def error(self, rank: int) -> str:
        """The one line that says what went wrong."""
        (line,) = [line for line in self.err[rank].splitlines() if line.startswith("error:")]
        return line


class Nest:
    """The program of `ranks_nest`."""

    def __init__(self, process: subprocess.Popen[str], scratch: Path) -> None:
        self._process = process
        self._scratch = scratch
        self._count = 0

    def __call__(
        self,
        job: Any,
        arguments: list[str] | None = None,
        *,
        world_size: int = 2,
        fault: Fault | None = None,
        timeout_s: float | None = None,
        stops_others: bool = False,
    ) -> Ended:
        """Do a job."""
        self._count += 1
        folder = self.folder
        folder.mkdir()
        environment = {} if timeout_s is None else {TIMEOUT_VARIABLE: str(timeout_s)}
        order = Job(job, world_size, str(folder), arguments or [], fault, environment, stops_others)
        assert self._process.stdin is not None
        assert self._process.stdout is not None
        self._process.stdin.write(order.to_json() + "\n")
        self._process.stdin.flush()
        codes = json.loads(self._process.stdout.readline())
        out, err = (
            [(folder / f"rank{rank}.{kind}").read_text() for rank in range(world_size)]
            for kind in ("out", "err")
        )
        return Ended(codes, out, err)

    @property
    def folder(self) -> Path:
        """Of the latest job."""
        return self._scratch / str(self._count)

    def train(self, folder: Path, *arguments: str, job: str = "train", **values: Any) -> Ended:
        """train.py with the tiny preset; the run is made in `folder`."""
        command = ["--config", str(preset(folder)), "--runs_dir", str(folder / "runs")]
        return self(job, [*command, *GRADIENT, *arguments], **values)


@pytest.fixture(scope="module")
def nest(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Nest]:
    command = [sys.executable, str(ROOT / "tests/ranks_nest.py")]
    path = os.pathsep.join([str(ROOT), str(ROOT / "tests")])
    environment = os.environ | {"PYTHONPATH": path, "OMP_NUM_THREADS": "1"}
    with subprocess.Popen(
        command, stdin=subprocess.PIPE, stdout=subprocess.PIPE, text=True, env=environment
    ) as process:
        try:
            yield Nest(process, tmp_path_factory.mktemp("nest"))
        finally:
            assert process.stdin is not None
            process.stdin.close()


def run_folder(folder: Path) -> Path:
    return folder / "runs" / "tiny" / "seed0"


def metrics_of(run: Path) -> list[dict[str, Any]]:
    """All lines, timings apart."""
    lines = json_lines(run / "metrics.jsonl")
    for line in lines:
        line.pop("time/decisions_per_s", None)
    return lines


@pytest.fixture(scope="module")
def finished(nest: Nest, tmp_path_factory: pytest.TempPathFactory) -> tuple[Path, Ended]:
    """An uninterrupted run of two processes."""
    folder = tmp_path_factory.mktemp("finished")
    ended = nest.train(folder)
    assert ended.codes == [0, 0], ended.err
    return run_folder(folder), ended


# ---------------------------------------------------------------------------------------- equality


def test_three_processes_learn_what_one_learns(nest: Nest) -> None:
    learned: dict[int, list[tuple[dict[str, torch.Tensor], dict[str, Any]]]] = {}
    for world_size in (1, 3):
        ended = nest("learn", world_size=world_size)
        assert ended.codes == [0] * world_size, ended.err
        learned[world_size] = [
            (
                safetensors.torch.load_file(nest.folder / f"rank{rank}.safetensors"),
                json.loads((nest.folder / f"rank{rank}.json").read_text()),
            )
            for rank in range(world_size)
        ]
    ((weights, alone),) = learned[1]
    ranks = learned[3]
    for own_weights, record in ranks:
        assert record["gain"] == pytest.approx(alone["gain"], rel=1e-5)
        for name in ("group", "ppo"):
            for own, expected in zip(record[name], alone[name], strict=True):
                assert own == pytest.approx(expected, rel=1e-4, abs=1e-6)
        for name, value in own_weights.items():
            torch.testing.assert_close(value, weights[name], rtol=1e-4, atol=1e-6)
            assert torch.equal(value, ranks[0][0][name]), name  # one truth for all ranks
    assert_exchanges([record["exchanged"] for _, record in ranks])


def assert_exchanges(records: list[dict[str, Any]]) -> None:
    """Of rank 0, 1, ...: what they brought can be told from what came of it."""
    ranks = range(len(records))
    for rank, record in enumerate(records):
        assert record["gather"] == [list(range(own)) for own in ranks]
        assert record["sum"] == [len(ranks), sum(ranks)]
        assert record["first"] == "rank 0"
        assert record["weight"] == [[1.0, 1.0]]
        total = sum(0.5 * (own + 1) for own in ranks if own != 1)
        assert record["gradient"] == [[total, 10 * total]]
        assert record["numbers"] == [sum(0.5 * (own + 1) ** 2 for own in ranks)]
        assert ("data" in record["same"]) == (rank > 0)


def test_a_run_of_two_processes_is_that_of_one(
    tmp_path: Path, nest: Nest, finished: tuple[Path, Ended]
) -> None:
    assert nest.train(tmp_path, world_size=1).codes == [0]
    alone = run_folder(tmp_path)
    lines, own_lines = metrics_of(alone), metrics_of(finished[0])
    assert len(lines) > 5
    for line, own in zip(lines, own_lines, strict=True):
        assert own == pytest.approx(line, rel=1e-4, abs=1e-6)
    tensors, state = load_checkpoint(alone)
    own_tensors, own_state = load_checkpoint(finished[0])
    assert state["policy_gradient"]["steps"] == own_state["policy_gradient"]["steps"]
    for name, value in tensors.items():
        torch.testing.assert_close(own_tensors[name], value, rtol=1e-3, atol=1e-5)
    names = {path.relative_to(alone) for path in alone.rglob("*")}
    assert names == {path.relative_to(finished[0]) for path in finished[0].rglob("*")}
    assert (alone / "config.yaml").read_bytes() == (finished[0] / "config.yaml").read_bytes()
    rewards, own_rewards = (
        {p["name"]: p["reward_per_question"]["estimate"] for p in results_of(run)["policies"]}
        for run in (alone, finished[0])
    )
    assert own_rewards == pytest.approx(rewards)


def test_one_process_writes_and_speaks(finished: tuple[Path, Ended]) -> None:
    run, ended = finished
    assert "decisions" in ended.out[0]
    assert "policy gradient" in ended.err[0]  # the progress bar
    assert (ended.out[1], ended.err[1]) == ("", "")
    (start,) = json.loads((run / "provenance.json").read_text())["starts"]
    assert start["machine"]["processes"] == 2
    steps = [line["global_step"] for line in json_lines(run / "metrics.jsonl")]
    assert steps == sorted(steps)


# ---------------------------------------------------------------------------------------- failures


def test_a_rank_that_leaves_is_noticed_before_its_process_ends(nest: Nest) -> None:
    assert nest("part").codes == [0, 0]


@pytest.mark.parametrize("dies", [0, 1])
def test_when_one_is_killed_the_other_names_it(tmp_path: Path, nest: Nest, dies: int) -> None:
    ended = nest.train(tmp_path, job="exchange", fault=Fault(dies, "Ranks", "sum", 3, "kill"))
    lives = 1 - dies
    assert ended.codes[dies] == -signal.SIGKILL
    assert ended.codes[lives] == 1
    assert f"rank {lives}: stopped, because rank {dies} died" in ended.error(lives)
    assert "--resume true" in ended.error(lives)
    assert "Traceback" not in ended.err[lives]


def test_when_one_fails_the_others_say_why(tmp_path: Path, nest: Nest) -> None:
    fault = Fault(1, "Ranks", "sum", 3, "crash")
    ended = nest.train(tmp_path, job="exchange", world_size=3, fault=fault)
    assert ended.codes == [1, 1, 1]
    reason = "ZeroDivisionError: a mistake in the code"
    assert reason in ended.err[1]
    for rank in (0, 2):
        assert ended.error(rank) == f"error: rank {rank}: stopped, because rank 1 has: {reason}"


def test_one_that_hangs_is_not_waited_for_for_ever(tmp_path: Path, nest: Nest) -> None:
    """The one that waits ends by the timeout, the one that hangs by torchrun's SIGTERM."""
    fault = Fault(1, "Ranks", "sum", 3, "hang")
    ended = nest.train(tmp_path, job="exchange", fault=fault, timeout_s=4, stops_others=True)
    assert ended.codes == [1, 1]
    assert "rank 0: stopped, because rank 1 died or does not answer" in ended.error(0)
    assert "Timed out" in ended.error(0)
    assert ended.error(1).startswith("error: rank 1: stopped, because a SIGTERM came")


def test_a_killed_run_goes_on_to_the_same_numbers(
    tmp_path: Path, nest: Nest, finished: tuple[Path, Ended]
) -> None:
    fault = Fault(1, "GroupPolicyGradient", "iterate", 4, "kill")
    assert nest.train(tmp_path, fault=fault).codes == [1, -signal.SIGKILL]
    run = run_folder(tmp_path)
    assert load_checkpoint(run)[1]["policy_gradient"]["iteration"] == 2
    assert not (run / "results.json").exists()
    resumed = nest.train(tmp_path, "--resume", "true")
    assert resumed.codes == [0, 0], resumed.err
    assert metrics_of(run) == metrics_of(finished[0])
    assert episodes_of(run) == episodes_of(finished[0])
    tensors, state = load_checkpoint(run)
    other_tensors, other_state = load_checkpoint(finished[0])
    assert state == other_state
    for name, value in tensors.items():
        assert torch.equal(value, other_tensors[name]), name


@pytest.mark.parametrize(
    ("rank", "kind", "method", "call"),
    [(1, "GainRegression", "update", UPDATES + 4), (0, "GroupPolicyGradient", "_losses", 6)],
)
def test_ctrl_c_in_one_stops_all_with_a_checkpoint(
    tmp_path: Path, nest: Nest, rank: int, kind: Any, method: str, call: int
) -> None:
    ended = nest.train(tmp_path, fault=Fault(rank, kind, method, call, "interrupt"))
    assert ended.codes == [130, 130], ended.err
    assert "--resume true" in ended.out[0]
    assert (ended.out[1], ended.err[1]) == ("", "")
    state = load_checkpoint(run_folder(tmp_path))[1]
    if kind == "GainRegression":
        assert (state["round"], state["update_index"]) == (1, 4)
    else:
        assert state["policy_gradient"]["iteration"] == 1


# ---------------------------------------------------------------------------------------- mistakes


def test_groups_that_cannot_be_shared_are_refused(tmp_path: Path, nest: Nest) -> None:
    ended = nest.train(tmp_path, "--policy_gradient.num_groups", "3")
    assert ended.codes == [1, 1]
    assert "policy_gradient.num_groups is 3, which 2 processes cannot share" in ended.error(0)
    assert "multiple of 2" in ended.error(1)
    assert not (tmp_path / "runs").exists()


def test_a_used_folder_is_refused_by_all(
    tmp_path: Path, nest: Nest, finished: tuple[Path, Ended]
) -> None:
    shutil.copytree(finished[0], run_folder(tmp_path))
    ended = nest.train(tmp_path)
    assert ended.codes == [1, 1]
    assert ended.error(0).startswith("error: rank 0: The run folder")
    reason = ended.error(0).removeprefix("error: rank 0: ")
    assert ended.error(1) == f"error: rank 1: stopped, because rank 0 has: {reason}"
    done = nest.train(tmp_path, "--resume", "true")
    assert done.codes == [0, 0], done.err
    assert "finished already" in done.out[0]


# ---------------------------------------------------------------------------------------- torchrun


def test_torchrun_ends_when_one_is_killed(tmp_path: Path) -> None:
    """The programs themselves, started as a user does."""
    learner = {"rounds": 500, "episodes_per_round": 3, "updates_per_round": 5, "batch_size": 16}
    command = [
        *(sys.executable, "-m", "torch.distributed.run", "--standalone", "--nproc_per_node", "2"),
        *("train.py", "--config", str(preset(tmp_path, learner=learner))),
        *("--runs_dir", str(tmp_path / "runs")),
    ]
    metrics = run_folder(tmp_path) / "metrics.jsonl"
    with subprocess.Popen(
        command, cwd=ROOT, stdout=subprocess.PIPE, stderr=subprocess.PIPE, text=True
    ) as program:
        deadline = time.monotonic() + LONGEST_S
        while not (metrics.exists() and metrics.stat().st_size):
            assert program.poll() is None, program.communicate()
            assert time.monotonic() < deadline
            time.sleep(0.1)
        os.kill(child_of_rank(program.pid, 1), signal.SIGKILL)
        _, err = program.communicate(timeout=LONGEST_S)
    assert program.returncode not in (0, None)
    assert "error: rank 0: stopped, because rank 1 died" in err
    assert load_checkpoint(run_folder(tmp_path))[1]["round"] >= 0


def child_of_rank(parent: int, rank: int) -> int:
    """The process that torchrun started for a rank, by its environment."""
    children = Path(f"/proc/{parent}/task/{parent}/children").read_text().split()
    (found,) = [
        int(child)
        for child in children
        if f"\0RANK={rank}\0" in Path(f"/proc/{child}/environ").read_text()
    ]
    return found
