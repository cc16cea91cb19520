"""Both views show what is where, and change neither size nor state."""

from __future__ import annotations

from typing import Any

import numpy as np
import numpy.typing as npt
import pytest
from play_by_hand import TEXTS, Play, apples
from table_fixtures import random_action, small_table, table_of

from envs.paging import PagingEnv
from envs.process import Phase
from envs.render import TEXT_WIDTH, render_ansi, render_rgb
from memrl.actions import Op
from memrl.documents import Query

COLORS = {
    "arriving": (217, 115, 26),
    "retrieved": (43, 123, 186),
    "victim": (194, 59, 59),
    "resident": (185, 185, 196),
    "candidate": (123, 111, 196),
    "stored": (31, 122, 69),
    "focus": (27, 27, 31),
}


def rows_of(text: str, title: str) -> list[tuple[int, str, int, str]]:
    """Row, marks, page and text of every page in one part of the terminal view."""
    lines = text.split("\n")
    start = next(i for i, line in enumerate(lines) if line.startswith(title)) + 1
    rows = []
    for line in lines[start:]:
        if not line.startswith("  "):
            break
        row, marks, page, said = line.split(maxsplit=3)
        rows.append((int(row), marks, int(page), said))
    return rows


def said(page: int) -> str:
    return f"{('Ann', 'Bob')[page % 2]}: {TEXTS[page]}"


def test_terminal_view_under_pressure() -> None:
    play = Play(apples(6))
    play(Op.STORE, 0)
    text = render_ansi(play.process)
    first, second = text.split("\n")[:2]
    assert first == "event 5 of episode 0: page 4 has arrived and does not fit"
    assert second == "main context: 3 of 3 pages, 3 of 3 slots:"
    assert rows_of(text, "main context") == [
        (0, ".....", 3, said(3)),
        (1, "v....", 1, said(1)),
        (2, ".....", 2, said(2)),
        (3, "...a.", 4, said(4)),
    ]
    assert "candidates" not in text
    assert "archival 1 | queries 0 | evidence recall - |" in text
    assert "store 1, search 0, retrieve 0" in text
    assert "marks: v victim, s stored, r retrieved" in text


def test_terminal_view_at_a_query() -> None:
    play = Play(apples(6, 6), num_candidates=2)
    for slot in (0, 1, 2):
        play(Op.STORE, slot)
    play(Op.YIELD)
    play(Op.RETRIEVE, 1)
    play(Op.SEARCH, play.process.core.slot_of(4))
    text = render_ansi(play.process)
    assert text.startswith("event 8 of episode 0: what about the apple?\n")
    slots = {page: marks for _, marks, page, _ in rows_of(text, "main context")}
    assert slots == {2: ".sr..", 4: "v...f", 5: "....."}
    assert "candidates: 2 hits for page 4, page 1 of the results:" in text
    assert [row[2:] for row in rows_of(text, "candidates")] == [(0, said(0)), (1, said(1))]
    assert "queries 1 | evidence recall 0.00" in text


def test_terminal_view_of_the_end() -> None:
    play = Play(apples(3), capacity=6)
    play(Op.YIELD)
    text = render_ansi(play.process)
    assert text.startswith("event 7 of episode 0: the end\n")
    assert len(rows_of(text, "main context")) == 6
    assert "evidence recall 1.00" in text


def test_long_texts_and_control_codes_are_tamed() -> None:
    pages = ["one\ntwo\tthree", "\x1b[31mred\x07", "long " * 50]
    play = Play(table_of(pages, [(3, Query("why\n" * 80, (0,)))]), capacity=4)
    text = render_ansi(play.process)
    assert "\x1b" not in text
    assert "\x07" not in text
    lines = {page: line for _, _, page, line in rows_of(text, "main context")}
    assert lines[0] == "Ann: one two three"
    assert lines[1] == "Bob: [31mred"
    assert len(lines[2]) == TEXT_WIDTH
    assert lines[2].endswith("...")
    assert len(text.split("\n")[0]) < 200


def shows(image: npt.NDArray[np.uint8], kind: str) -> int:
    """Pixels of a colour beyond those of the legend, which are a strip at the bottom."""
    return int((image[:-28] == np.array(COLORS[kind], dtype=np.uint8)).all(axis=-1).sum())


def test_image_shows_every_kind_of_page() -> None:
    play = Play(apples(6), num_candidates=2)
    play(Op.STORE, 0)
    image = render_rgb(play.process)
    cell = 35 * 35
    # Numbers take some pixels of a cell, bars a seventh of it.
    assert shows(image, "arriving") > 0.7 * cell
    assert shows(image, "victim") > 0.7 * cell
    assert shows(image, "resident") > 1.4 * cell
    assert not shows(image, "retrieved")
    assert not shows(image, "candidate")
    play(Op.YIELD)
    play(Op.YIELD)
    image = render_rgb(play.process)
    assert shows(image, "candidate") > 0.6 * cell
    assert shows(image, "stored") == 35 * 6
    play(Op.RETRIEVE, 0)
    play(Op.SEARCH, play.process.core.slot_of(0))
    image = render_rgb(play.process)
    assert shows(image, "retrieved") > 0.4 * cell
    assert not shows(image, "candidate")


def test_a_stored_victim_is_both() -> None:
    play = Play(apples(6), store_scope="any")
    before = shows(render_rgb(play.process), "stored")
    play(Op.STORE, 1)
    play(Op.YIELD)
    image = render_rgb(play.process)
    assert play.process.core.victim == 1
    assert before == 0
    assert shows(image, "stored") == 35 * 6
    assert shows(image, "victim") > 0.6 * 35 * 35


@pytest.mark.parametrize("seed", range(2))
def test_views_keep_their_size_and_change_nothing(seed: int) -> None:
    fields: dict[str, Any] = {"capacity": 4, "num_slots": 20, "num_candidates": 3 * seed}
    env = PagingEnv(small_table(seed), render_mode="rgb_array", **fields)
    rng = np.random.default_rng(seed)
    _, info = env.reset(seed=seed)
    shapes, phases = set(), set()
    terminated = False
    while True:
        text = env.observation_text()
        image = env.render()
        assert isinstance(image, np.ndarray)
        assert image.dtype == np.uint8
        assert image.std() > 0
        shapes.add(image.shape)
        phases.add(env._lockstep.process(0).phase)
        assert env.observation_text() == text
        if terminated:
            break
        action = np.int64(random_action(info["action_mask"], rng))
        _, _, terminated, _, info = env.step(action)
    assert phases == set(Phase)
    assert len(shapes) == 1
    assert next(iter(shapes))[2] == 3


def test_views_of_the_environment_are_those_of_its_process() -> None:
    for mode in ("ansi", "rgb_array"):
        env = PagingEnv(small_table(0), capacity=4, render_mode=mode)
        env.reset(seed=0)
        process = env._lockstep.process(0)
        expected = render_ansi(process) if mode == "ansi" else render_rgb(process)
        assert np.array_equal(np.asarray(env.render()), np.asarray(expected))
