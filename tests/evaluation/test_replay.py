"""`python -m memrl.evaluation.replay`: one episode again, every decision with its reasons."""

from __future__ import annotations

import dataclasses
import io
import os
import pty
import re
import shutil
from collections.abc import Mapping
from html.parser import HTMLParser
from pathlib import Path

import numpy as np
import pytest
import torch
from made_run import make_run
from PIL import Image
from rich.console import Console
from rich.text import Text
from tiny_runs import Outcome, called
from torch import Tensor

from memrl.config import ConfigurationError
from memrl.evaluation import replay as program
from memrl.evaluation import replay_terminal
from memrl.evaluation.lineup import CLAIRVOYANT, LEARNED, LEARNED_OFFSET, STORE_ALL
from memrl.evaluation.play import EpisodeRecord
from memrl.evaluation.replay_gif import save_gif, timeline
from memrl.evaluation.replay_html import html_page
from memrl.evaluation.replay_steps import Choice, Replay, ShownPage, Step, moments_of
from memrl.evaluation.replay_terminal import HELP, Keys, in_order, page_of, walk, window_of
from memrl.evaluation.run_world import RunWorld, contestant_of, load_run_world
from memrl.policies.network import GreedyGain, SetNetwork

RIGHT, LEFT, UP, DOWN = b"\x1b[C", b"\x1b[D", b"\x1b[A", b"\x1b[B"
NASTY = "<script>alert('x')</script> \x1b[31m[red]\ud800\x07 & \"q\""


RECORD = EpisodeRecord(
    episode=2,
    document=NASTY,
    num_queries=1,
    num_scored=1,
    evidence=1.0,
    reward_terms={"evidence": 1.0},
    operations={"yield": 3},
    illegal=0,
    decisions=3,
    events=9,
    tokens_retrieved=0,
    tokens_read=1,
    decision_s=0.0,
    funnel={},
)


@pytest.fixture(scope="module")
def run(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return make_run(tmp_path_factory.mktemp("replay") / "run")


@pytest.fixture(scope="module")
def world(run: Path) -> RunWorld:
    return load_run_world(run)


def started(*arguments: str | int | Path) -> Outcome:
    return called(program.main, "memrl.evaluation.replay", *map(str, arguments))


def nasty_replay(policy: str = "a policy", events: tuple[int, ...] = (4, 4, 9)) -> Replay:
    """Steps whose every text is markup."""
    steps = [
        Step(
            event=event,
            headline=NASTY,
            news=(NASTY,),
            truth=(NASTY,),
            situation="at_query",
            slots=(ShownPage(0, 3, ("victim", "needed"), NASTY, "age 0.100"),),
            candidates=(ShownPage(0, None, (), NASTY, ""),),
            choices=(Choice("YIELD", "", 0.0, True), Choice("STORE slot 0", NASTY, -0.25, False)),
            reward_terms={"evidence": 1.0},
        )
        for event in events
    ]
    return Replay(policy, {"x": NASTY}, 2, NASTY, tuple(steps), RECORD, None)


# ------------------------------------------------------------------ what is noted


def test_a_replay_is_the_episode_that_the_run_scored(world: RunWorld) -> None:
    for name in (None, STORE_ALL, CLAIRVOYANT):
        contestant = contestant_of(world, name)
        played, frames = program.replay(world, contestant, 1)
        assert played.recorded_return == pytest.approx(played.record.episode_return)
        assert "as the run recorded" in played.summary
        earned = sum(sum(step.reward_terms.values()) for step in played.steps)
        assert earned == pytest.approx(played.record.episode_return)
        assert played.record.decisions == len(played.steps) - 1
        assert len(frames) == len(played.steps)
        assert len({frame.shape for frame in frames}) == 1
        assert played.steps[-1].chosen == ""
        chosen = [step.chosen.split()[0].lower() for step in played.steps[:-1]]
        for operation, count in played.record.operations.items():
            assert chosen.count(operation) == count


def test_scores_are_those_that_the_policy_chose_by(
    world: RunWorld, monkeypatch: pytest.MonkeyPatch
) -> None:
    outputs: list[Tensor] = []
    forward = SetNetwork.forward

    def noting(self: SetNetwork, observation: Mapping[str, Tensor]) -> Tensor:
        outputs.append(forward(self, observation))
        return outputs[-1]

    monkeypatch.setattr(SetNetwork, "forward", noting)
    contestant = contestant_of(world, LEARNED)
    assert isinstance(contestant.policy, GreedyGain)
    played, _ = program.replay(world, contestant, 0)
    assert len(outputs) >= len(played.steps) - 1
    for step in played.steps[:-1]:
        scores = [choice.score for choice in step.choices]
        assert None not in scores
        assert scores == sorted(scores, key=lambda score: -(score or 0.0))
        assert step.choices[0].is_chosen
        made = torch.cat([values.flatten() for values in outputs]) * contestant.policy.gain_scale
        for choice in step.choices:
            if choice.name != "YIELD":
                assert (made - (choice.score or 0.0)).abs().min() < 1e-6


def test_an_offset_shows_in_the_scores(world: RunWorld) -> None:
    plain = contestant_of(world, LEARNED).policy
    assert isinstance(plain, GreedyGain)
    raised = dataclasses.replace(plain, store_offset=0.5)
    observation = {
        "slots": torch.rand(1, 4, 27),
        "candidates": torch.rand(1, 2, 27),
        "globals": torch.rand(1, 17),
    }
    mask = torch.ones(1, 16, dtype=torch.bool)
    mask[0, 2] = False
    less, more = plain.scores(observation, mask), raised.scores(observation, mask)
    assert float(less[0, 2]) == -torch.inf
    assert torch.allclose((more - less)[0, 6:10], torch.full((4,), 0.5), atol=1e-6)
    assert int(raised.act(observation, mask)[0]) == int(more.argmax())


def test_the_text_of_every_page_and_what_happened_is_told(world: RunWorld) -> None:
    played, _ = program.replay(world, contestant_of(world, STORE_ALL), 0)
    told = [line for step in played.steps for line in step.news]
    texts = world.table.text.pages[world.table.episode_pages(0)]
    for page, text in enumerate(texts):
        assert f"page {page} arrived: {text}" in told
    assert any(re.fullmatch(r"page \d+ was stored", line) for line in told)
    assert any(line.startswith("answered: evidence") for line in told)
    for step in played.steps:
        for shown in (*step.slots, *step.candidates):
            assert shown.text == texts[shown.page or 0]
    at_query = [step for step in played.steps if step.headline.startswith("Question: ")]
    assert at_query
    assert all(step.truth[0].startswith("gold answers: ") for step in at_query)
    assert any("needs page" in line for step in at_query for line in step.truth)


# ------------------------------------------------------------------ views


class Texts(HTMLParser):
    """Tags and texts of a page, for what a browser would make of it."""

    def __init__(self) -> None:
        super().__init__()
        self.tags: list[str] = []
        self.texts: list[str] = []

    def handle_starttag(self, tag: str, attrs: list[tuple[str, str | None]]) -> None:
        self.tags.append(tag)
        assert not any(name.startswith("on") or name in ("src", "href") for name, _ in attrs)

    def handle_data(self, data: str) -> None:
        self.texts.append(data)


def test_the_page_escapes_every_text_and_needs_nothing_else() -> None:
    page = html_page([nasty_replay(NASTY), nasty_replay("other", (5,))])
    page.encode("utf-8")
    read = Texts()
    read.feed(page)
    assert read.tags.count("script") == 1
    assert page.count("<script") == 1
    assert "red" not in read.tags
    assert sum("<script>alert('x')</script>" in text for text in read.texts) > 20
    assert read.tags.count("section") == 3
    assert read.tags.count("article") == 6
    assert "\x1b" not in page
    assert "http://" not in page
    assert "https://" not in page
    assert "script-src 'sha256-" in page


def test_nothing_in_a_text_works_on_the_terminal() -> None:
    console = Console(width=100, color_system=None)
    steps = in_order([nasty_replay(NASTY)])
    with console.capture() as capture:
        for number in range(len(steps)):
            console.print(page_of(steps, number))
    out = capture.get()
    assert "\x1b" not in out
    assert "\x07" not in out
    assert "[red]" in out
    assert out.count("STORE slot 0") == 3
    assert "-0.2500" in out


@pytest.mark.parametrize(
    ("keys", "places"),
    [
        ([RIGHT, RIGHT, LEFT, b"q"], [(0, 0), (1, 0), (2, 0), (1, 0)]),
        ([LEFT, b"x", b"\x1b[F", b" ", b"\x1b[H", b""], [(n, 0) for n in (0, 0, 0, 2, 2, 0)]),
        ([DOWN, DOWN, UP, RIGHT, UP, b"q"], [(0, 0), (0, 3), (0, 6), (0, 3), (1, 0), (1, 0)]),
        ([b"\x1b[6~", UP, b"\x1b[5~", b"q"], [(0, 0), (0, 7), (0, 4), (0, 0)]),
    ],
)
def test_arrow_keys_go_from_step_to_step_and_scroll(
    keys: list[bytes], places: list[tuple[int, int]]
) -> None:
    left, seen = iter(keys), list[tuple[int, int]]()

    def draw(number: int, top: int) -> int:
        seen.append((number, min(top, 7)))  # as a page of seven lines too many would
        return seen[-1][1]

    walk(3, draw, lambda: next(left))
    assert seen == places


def test_keys_come_one_by_one_however_the_terminal_sends_them() -> None:
    sent = iter([RIGHT * 3 + b"x", b"\x1b", b"[", b"D", b"\x1bOC q", b"\x1b", b""])
    more = iter([True, True, False])  # after a lone escape, after "[", after the last escape
    keys = Keys(lambda: next(sent), lambda: next(more))
    assert [keys() for _ in range(4)] == [RIGHT, RIGHT, RIGHT, b"x"]
    assert keys() == LEFT, "in three parts"
    assert [keys() for _ in range(3)] == [b"\x1bOC", b" ", b"q"]
    assert [keys(), keys()] == [b"\x1b", b""]


def test_a_page_longer_than_the_terminal_is_shown_in_part() -> None:
    console = Console(width=60, height=5, color_system=None)
    page = Text("\n".join(f"line {number}" for number in range(1, 10)))

    def shown(top: int) -> tuple[list[str], int]:
        lines, first = window_of(console, page, top)
        with console.capture() as capture:
            console.print(lines, end="")
        return capture.get().splitlines(), first

    assert shown(0) == (
        [f"line {n}" for n in (1, 2, 3, 4)]
        + ["lines 1 to 4 of 9 (up, down, page keys); right: on, left: ba"],
        0,
    )
    assert shown(99)[0][:4] == [f"line {n}" for n in (6, 7, 8, 9)]
    assert shown(99)[1] == 5
    console.height = 12
    assert shown(3)[0] == [f"line {n}" for n in range(1, 10)] + [HELP]


def test_two_policies_are_put_side_by_side_by_event(tmp_path: Path) -> None:
    both = [nasty_replay("a", (4, 4, 9)), nasty_replay("b", (4, 7))]
    assert [m.event for m in moments_of(both)] == [4, 7, 9]
    assert [name for name, _ in in_order(both)] == ["a", "a", "b", "b", "a"]
    assert timeline(both) == [(0, 0), (1, 0), (1, 1), (2, 1)]
    frames = [
        [np.full((20, 30, 3), 60 * number, dtype=np.uint8) for number in range(len(one.steps))]
        for one in both
    ]
    save_gif(tmp_path / "both.gif", both, frames)
    with Image.open(tmp_path / "both.gif") as image:
        assert image.format == "GIF"
        assert (image.n_frames, image.size) == (4, (30, 92))  # type: ignore[attr-defined]
        image.seek(3)
        shown = np.asarray(image.convert("RGB"))
    assert shown[30, 25].tolist() == [120] * 3  # the third of the one above
    assert shown[80, 25].tolist() == [60] * 3  # the second of the other


# ------------------------------------------------------------------ program


def test_the_program_lists_and_writes(run: Path, tmp_path: Path) -> None:
    outcome = started(run, "--episode", 1)
    assert outcome.code == 0, outcome.err
    assert "step 1 of" in outcome.out
    assert f"{LEARNED_OFFSET}: return" in outcome.out  # the best on the made-up validation
    page, animation = tmp_path / "page.html", tmp_path / "one.gif"
    arguments = ("--policy", LEARNED, "--beside", "heuristic", "--html", page, "--gif", animation)
    outcome = started(run, "--episode", 0, *arguments)
    assert outcome.code == 0, outcome.err
    assert outcome.out.count("as the run recorded") == 2
    assert "step 1" not in outcome.out
    assert page.read_text(encoding="utf-8").startswith("<!doctype html>")
    with Image.open(animation) as image:
        assert image.n_frames > 3  # type: ignore[attr-defined]


@pytest.mark.skipif(os.name != "posix", reason="pseudo-terminals")
def test_in_a_terminal_it_waits_for_keys(monkeypatch: pytest.MonkeyPatch) -> None:
    ours, theirs = pty.openpty()
    os.write(ours, b"\x1b[C")
    shown: list[int] = []

    def draw(_: object, number: int) -> str:
        shown.append(number)
        if number:
            os.write(ours, b"q")
        return ""

    with os.fdopen(theirs, "r") as terminal:
        monkeypatch.setattr("sys.stdin", terminal)
        monkeypatch.setattr("sys.stdout.isatty", lambda: True, raising=False)
        monkeypatch.setattr(replay_terminal, "page_of", draw)
        replay_terminal.show([nasty_replay()], Console(file=io.StringIO()))
    os.close(ours)
    assert shown == [0, 1]


def test_what_is_not_there_is_said(run: Path, world: RunWorld) -> None:
    learned = contestant_of(world, LEARNED)
    for episode in (2, -1):
        with pytest.raises(ConfigurationError, match=rf"Episode {episode} is outside 0\.\.1"):
            program.replay(world, learned, episode)
    with pytest.raises(ConfigurationError, match=r"has no policy 'nobody' .* 'prior rule'"):
        contestant_of(world, "nobody")
    outcome = started(run, "--episode", 0, "--html", run / "config.yaml" / "page.html")
    assert outcome.code == 1
    assert "cannot be written" in outcome.error


def test_unfinished_runs_and_other_data_are_refused(
    run: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    unfinished = shutil.copytree(run, tmp_path / "unfinished")
    (unfinished / "results.json").unlink()
    assert "not finished" in started(unfinished, "--episode", 0).error
    other = shutil.copytree(run, tmp_path / "other")
    provenance = other / "provenance.json"
    provenance.write_text(provenance.read_text().replace('"workload": "chat"', '"workload": "x"'))
    assert "other data" in started(other, "--episode", 0).error
    config = other / "config.yaml"
    config.write_text(config.read_text().replace("embedder:", "name: locomo\n  embedder:"))
    monkeypatch.setenv("MEMRL_DATA", str(tmp_path))
    monkeypatch.setenv("HF_HUB_OFFLINE", "1")
    assert "locomo" in started(other, "--episode", 0).error
