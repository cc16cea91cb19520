from __future__ import annotations

import signal
from typing import Any

import pytest
import torch
from tiny_runs import train

from memrl.config import ConfigurationError
from memrl.distributed import ALONE, RankError, Ranks
from memrl.launch import TIMEOUT_VARIABLE, joined, launched, pick_device, rank_label

LAUNCH = ("RANK", "WORLD_SIZE", "LOCAL_RANK", "MASTER_ADDR", "MASTER_PORT")


@pytest.fixture(autouse=True)
def launch(monkeypatch: pytest.MonkeyPatch) -> Any:
    """Sets the variables of torchrun; none are set before."""
    for name in LAUNCH:
        monkeypatch.delenv(name, raising=False)

    def set_all(*values: str) -> None:
        for name, value in zip(LAUNCH, values, strict=False):
            monkeypatch.setenv(name, value)

    return set_all


def test_without_torchrun_a_process_is_alone() -> None:
    assert launched() == (0, 1, 0)
    assert rank_label() == ""
    before = signal.getsignal(signal.SIGTERM)
    with joined("cpu") as ranks:
        assert ranks is ALONE
        assert signal.getsignal(signal.SIGTERM) is before
    assert ranks.is_alone
    assert ranks.is_first


def test_one_process_of_torchrun_is_alone(launch: Any) -> None:
    launch("0", "1", "0", "127.0.0.1", "1")
    with joined("cpu") as ranks:
        assert ranks is ALONE


def test_the_ranks_of_torchrun_are_read(launch: Any) -> None:
    launch("5", "8", "1")
    assert launched() == (5, 8, 1)
    assert rank_label() == "rank 5: "


@pytest.mark.parametrize(
    "values", [("2", "2", "0"), ("one", "2", "0"), ("0", "2", ""), ("-1", "2")]
)
def test_an_environment_that_is_not_torchruns_is_refused(launch: Any, values: Any) -> None:
    launch(*values)
    assert rank_label() == ""
    with pytest.raises(RankError, match="start with torchrun"), joined("cpu"):
        pass


def test_a_rank_without_an_address_is_told_in_one_line(launch: Any, tmp_path: Any) -> None:
    launch("0", "2", "0")
    outcome = train(tmp_path)
    assert outcome.code == 1
    assert "MASTER_ADDR" in outcome.error
    assert "torchrun" in outcome.error


@pytest.mark.parametrize("value", ["soon", "0", "-3", "inf", "nan"])
def test_a_timeout_that_is_none_is_refused(
    launch: Any, monkeypatch: pytest.MonkeyPatch, value: str
) -> None:
    launch("0", "2", "0", "127.0.0.1", "1")
    monkeypatch.setenv(TIMEOUT_VARIABLE, value)
    with pytest.raises(RankError, match=TIMEOUT_VARIABLE), joined("cpu"):
        pass


def test_each_rank_takes_the_device_of_its_number(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(torch.cuda, "is_available", lambda: True)
    monkeypatch.setattr(torch.cuda, "device_count", lambda: 2)
    second = Ranks(5, 6, 1)
    assert pick_device("auto", second) == pick_device("cuda", second) == torch.device("cuda:1")
    assert pick_device("cpu", second) == torch.device("cpu")
    assert pick_device("cuda:1", ALONE) == torch.device("cuda:1")
    with pytest.raises(ConfigurationError, match="each takes its own"):
        pick_device("cuda:0", second)
    with pytest.raises(ConfigurationError, match="no device cuda:2"):
        pick_device("auto", Ranks(2, 3, 2))
