"""The command under every figure."""

from __future__ import annotations

import shlex
import subprocess

import pytest

from memrl.evaluation.report.command import report_command

FOLDS = [f"runs/a-fold{fold}/seed{seed}" for fold in range(7) for seed in range(5)]


def expanded(command: str) -> list[str]:
    """The words that bash makes of it."""
    done = subprocess.run(
        ["bash", "-c", f"printf '%s\\n' {command}"], capture_output=True, text=True, check=True
    )
    return done.stdout.splitlines()


@pytest.mark.parametrize(
    ("arguments", "told"),
    [
        (FOLDS, "runs/a-fold{0..6}/seed{0..4}"),
        (["runs/a/seed0"], "runs/a/seed0"),
        (["r/a-8/s0", "r/a-8/s1", "r/a-16/s0", "r/a-16/s1"], "r/a-{8,16}/s{0..1}"),
        (["r/a/s0", "r/a/s2", "r/b/s0", "r/b/s1"], "r/a/s{0,2} r/b/s{0..1}"),
        (["r/a/s01", "r/a/s02"], "r/a/s{01,02}"),
        (["r/a/s0", "r/a/s0"], "r/a/s{0,0}"),
        (["r/a/s0", "r/a", "r/a/s1"], "r/a/s0 r/a r/a/s1"),
        (["r/my runs/s0", "r/my runs/s1"], "'r/my runs/s0' 'r/my runs/s1'"),
        (["r/{1..3}/s0", "r/$(date)/s0"], "'r/{1..3}/s0' 'r/$(date)/s0'"),
        ([], ""),
    ],
)
def test_bash_expands_it_to_the_arguments(arguments: list[str], told: str) -> None:
    command = report_command(["report", *arguments, "--out", "x"])
    assert command == " ".join(filter(None, ["python -m memrl.evaluation report", told, "--out x"]))
    assert expanded(command) == [
        "python",
        "-m",
        "memrl.evaluation",
        "report",
        *arguments,
        "--out",
        "x",
    ]


def test_a_short_command_is_what_a_shell_would_quote() -> None:
    assert report_command(["merge", "a b"]) == shlex.join(
        ["python", "-m", "memrl.evaluation", "merge", "a b"]
    )
