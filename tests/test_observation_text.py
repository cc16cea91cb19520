"""The text for an LLM holds the numbers of the observation, no others, and the legal actions."""

from __future__ import annotations

import re
from typing import Any

import numpy as np
import numpy.typing as npt
import pytest
import torch
from play_by_hand import TEXTS, apples
from table_fixtures import random_action, small_table, table_of

from envs.paging import PagingEnv
from memrl.actions import ActionLayout
from memrl.documents import Query
from memrl.observation import FEATURES, GLOBALS
from memrl.observation_text import ShownTexts, describe_action, observation_text

ACTIONS = {
    0: "YIELD",
    1: "NEXT",
    2: "EVICT slot 0",
    4: "EVICT slot 2",
    5: "STORE slot 0",
    10: "SEARCH slot 2",
    11: "RETRIEVE candidate 0",
    12: "RETRIEVE candidate 1",
}


@pytest.mark.parametrize(("action", "name"), ACTIONS.items())
def test_describe_action(action: int, name: str) -> None:
    assert describe_action(ActionLayout(num_rows=3, num_candidates=2), action) == name


class Parsed:
    """Reads the text back into numbers, page texts and actions."""

    def __init__(self, text: str) -> None:
        lines = text.split("\n")
        cuts = [lines.index(title) for title in _TITLES]
        assert cuts == sorted(cuts)
        head = [line for line in lines[: cuts[0]] if line]
        self.headline = "\n".join(head[:-1])
        self.globals = _numbers(head[-1])
        self.slots = _rows("slot", lines[cuts[0] + 1 : cuts[1]])
        self.candidates = _rows("candidate", lines[cuts[1] + 1 : cuts[2]])
        self.actions = dict(line.split(": ", 1) for line in lines[cuts[2] + 1 :])


_TITLES = ("Main context:", "Candidates from external storage:", "Legal actions:")


def _numbers(line: str) -> dict[str, float]:
    found = {}
    for part in filter(None, line.strip(" ()").split(", ")):
        match = re.fullmatch(r"([a-z_]+)(?: (-?\d+\.\d{3}))?", part)
        assert match, part
        assert match[1] not in found
        found[match[1]] = float(match[2]) if match[2] else 1.0
    return found


def _rows(label: str, lines: list[str]) -> dict[int, tuple[str, dict[str, float]]]:
    rows = {}
    lines = [line for line in lines if line and line != "(none)"]
    for head, numbers in zip(lines[::2], lines[1::2], strict=True):
        match = re.fullmatch(rf"\[{label} (\d+)\] (.*)", head)
        assert match, head
        rows[int(match[1])] = match[2], _numbers(numbers)
    return rows


def _check_numbers(
    told: dict[str, float], names: tuple[str, ...], values: npt.NDArray[Any]
) -> None:
    """Every number told stands in the observation, and every number that is not 0 is told."""
    seen = dict(zip(names, values.tolist(), strict=True))
    assert set(told) <= set(seen)
    for name, value in told.items():
        assert value == pytest.approx(seen[name], abs=5.01e-4), name
    untold = {name for name, value in seen.items() if value != 0} - set(told)
    assert untold <= {"occupied"}, untold


def check(env: PagingEnv, observation: dict[str, npt.NDArray[Any]]) -> Parsed:
    parsed = Parsed(env.observation_text())
    _check_numbers(parsed.globals, GLOBALS, observation["globals"])
    for told, key in ((parsed.slots, "slots"), (parsed.candidates, "candidates")):
        occupied = np.flatnonzero(observation[key][:, FEATURES.index("occupied")])
        assert sorted(told) == occupied.tolist()
        for row, (_, numbers) in told.items():
            _check_numbers(numbers, FEATURES, observation[key][row])
    legal = np.flatnonzero(observation["action_mask"]).tolist()
    assert parsed.actions == {str(a): describe_action(env.layout, a) for a in legal}
    return parsed


@pytest.mark.parametrize("seed", range(3))
def test_text_and_observation_say_the_same_in_random_play(seed: int) -> None:
    env = PagingEnv(
        small_table(seed, coarse=seed == 1),
        capacity=4,
        archival_capacity=6,
        num_candidates=3,
        stage_from="both",
        store_scope="any",
        evict_scope="any",
        admission="optional",
    )
    rng = np.random.default_rng(seed)
    observation, _ = env.reset(seed=seed)
    terminated, num_steps = False, 0
    while not terminated and num_steps < 60:
        check(env, observation)
        action = random_action(observation["action_mask"], rng)
        observation, _, terminated, _, _ = env.step(np.int64(action))
        num_steps += 1
    assert num_steps > 10


def test_pages_appear_in_their_rows_and_no_other_text_does() -> None:
    env = PagingEnv(apples(6), capacity=3, num_candidates=2, staging="dense")
    observation, _ = env.reset()
    parsed = check(env, observation)
    assert "A new page has arrived" in parsed.headline
    said = [f"{('Ann', 'Bob')[page % 2]}: {TEXTS[page]}" for page in range(6)]
    assert {row: text for row, (text, _) in parsed.slots.items()} == dict(enumerate(said[:4]))
    assert not parsed.candidates
    for _ in range(6):  # store and let go: pages 0, 1, 2
        observation, *_ = env.step(np.int64(np.flatnonzero(observation["action_mask"])[-1]))
        if observation["globals"][GLOBALS.index("at_query")]:
            break
    parsed = check(env, observation)
    assert "what about the apple?" in parsed.headline
    assert {text for text, _ in parsed.slots.values()} == set(said[3:])
    assert {row: text for row, (text, _) in parsed.candidates.items()} == {0: said[0], 1: said[2]}
    assert said[1] not in env.observation_text(), "the second page of results is not shown"


def test_the_end_is_told() -> None:
    env = PagingEnv(table_of(["one", "two"], [(2, Query("what?", (0,)))]), capacity=4)
    env.reset()
    _, _, terminated, _, _ = env.step(np.int64(0))
    assert terminated
    parsed = Parsed(env.observation_text())
    assert "ended" in parsed.headline
    assert "new page" not in parsed.headline


def test_a_value_of_one_is_told_by_its_name_alone() -> None:
    layout = ActionLayout(num_rows=2, num_candidates=1)
    slots = torch.zeros(2, len(FEATURES))
    slots[0, FEATURES.index("occupied")] = 1
    slots[0, FEATURES.index("stored")] = 1
    slots[0, FEATURES.index("age")] = 0.25
    situation = torch.zeros(len(GLOBALS))
    situation[GLOBALS.index("at_query")] = 1
    mask = torch.zeros(layout.num_actions, dtype=torch.bool)
    mask[0] = True
    text = observation_text(
        {
            "slots": slots,
            "candidates": torch.zeros(1, len(FEATURES)),
            "globals": situation,
            "action_mask": mask,
        },
        layout,
        ShownTexts(slots=("Ann: hello", None), candidates=(None,), query="who?"),
    )
    assert text == (
        "A question is asked: who?\n"
        "YIELD answers it from main context.\n"
        "at_query\n"
        "\n"
        "Main context:\n"
        "[slot 0] Ann: hello\n"
        "    (age 0.250, stored)\n"
        "\n"
        "Candidates from external storage:\n"
        "(none)\n"
        "\n"
        "Legal actions:\n"
        "0: YIELD"
    )
